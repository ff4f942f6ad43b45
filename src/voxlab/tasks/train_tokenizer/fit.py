"""stage=fit of `train_tokenizer`: data, network, Lightning trainer, resume, and the summary at the end."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.errors import UserError
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.vocoders import require_fit
from voxlab.parallel import Ranks, barrier
from voxlab.storage import differences, fingerprint
from voxlab.tasks import estimate
from voxlab.tasks.optim import Schedule
from voxlab.tasks.settings import log_facts
from voxlab.tasks.train_tokenizer import fit_report
from voxlab.tasks.train_tokenizer import plan as planning
from voxlab.tasks.train_tokenizer.callbacks import BEST, CHECKPOINTS, LAST, Checkpoints, Recorder
from voxlab.tasks.train_tokenizer.data import TokenizerData
from voxlab.tasks.train_tokenizer.expect import expect
from voxlab.tasks.train_tokenizer.module import TokenizerModule
from voxlab.tasks.train_tokenizer.samples import Samples
from voxlab.tasks.train_tokenizer.settings import Fit, Loop, fit_settings, loop_settings
from voxlab.tasks.trainer import NEUTRAL, check_keys, fit_or_resume, make_trainer

log = logging.getLogger(__name__)

_NEUTRAL = {**NEUTRAL, "max_epochs": None}
_SMALL = "experiment=librispeech_tokenizer (codec=rvq_tiny)"
_HINT = "task=train_tokenizer; leave it out. The run ends after trainer.max_steps."


def fit(
    *,
    corpus: AudioCorpus,
    codec: Any,
    loss: Mapping[str, Any],
    optim: Schedule,
    trainer: partial[Any],
    settings: Mapping[str, Any],
    ckpt: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Train the network of `codec` on the corpus; arguments as in `train_tokenizer`, `settings` are its `fit`."""
    architecture = _trainable(codec)
    own, loop = fit_settings(settings, architecture.family), loop_settings(trainer.keywords, architecture.family)
    check_launch(own, trainer.keywords, ranks)
    vocoder: Any = getattr(codec, "vocoder", None)
    if architecture.family == "mel":
        require_fit(vocoder, architecture.mel)
    items = _items(corpus, ranks, dry_run)
    data = TokenizerData(items, sample_rate=architecture.sample_rate, fit=own, seed=seed, max_steps=loop.max_steps)
    network = start_network(architecture, ckpt, seed)
    facts = planning.plan(network, architecture, data, own, loop, ranks.world)
    if ranks.is_first:
        log.info("%s", planning.describe_rates(architecture))
        log.info("\n%s", planning.describe(facts))
        planning.warn_of_few(architecture, data, own)
        planning.warn_of_repetition(facts["passes_over_the_data"], loop.max_steps, _SMALL)
    if dry_run:
        quiet = estimate.without_bar(trainer)
        made = partial(_module, network, architecture, optim=optim, loop=loop, seed=seed, facts={})
        start = partial(make_lightning, quiet, loop, ranks, run_dir=run_dir)
        expected = expect(made, start, data, _weights(architecture, loss), own, loop, ranks)
        if ranks.is_first:
            log_facts(log, expected)
        return facts | expected
    about = {"data": _data_facts(items, corpus), "seed": seed}
    given: dict[str, Any] = {"optim": optim, "loop": loop, "seed": seed, "facts": about}
    module = _module(network, architecture, _weights(architecture, loss), own, **given)
    module.calibrated = ckpt is not None
    recorder = Recorder(ranks, run_dir, dict(loggers))
    checkpoints = Checkpoints(recorder, run_dir, validates=data.val_set is not None)
    samples = Samples(ranks, run_dir, dict(loggers), vocoder)
    lightning = make_lightning(trainer, loop, ranks, [recorder, checkpoints, samples], run_dir)
    if data.val_set is None:
        lightning.limit_val_batches = 0
    if vocoder is not None and architecture.family == "mel":
        vocoder.to(lightning.strategy.root_device)
    last = run_dir / CHECKPOINTS / LAST
    fit_or_resume(lightning, module, data, last, ranks)
    return _finish(module, checkpoints, facts, data, ranks, run_dir)


def _trainable(codec: Any) -> Any:
    """Return the architecture to train."""
    architecture = getattr(codec, "architecture", None)
    if architecture is None or not hasattr(architecture, "family"):
        name = "codec=none" if codec is None else f"codec {type(codec).__name__}"
        raise UserError(
            f"{name} can't be trained: choose codec=rvq, rvq_wave, or vocoder, or a preset of these (rvq_tiny, "
            "rvq_wave_tiny, rvq_16k, rvq_legacy50). stage=test measures every codec."
        )
    weights = getattr(codec, "weights", None)
    if weights is not None:
        raise UserError(
            f"stage=fit trains a new codec, but codec.weights={weights} names a trained one. To go on from its weights "
            "set ckpt=<its codec folder, or a checkpoint>; to measure it, stage=test."
        )
    return architecture


def check_launch(fit: Fit, keys: Mapping[str, Any], ranks: Ranks) -> None:
    """Refuse batches that can't be dealt to the ranks, and keys of the trainer group that do nothing here.

    Raises:
        UserError: names the key.
    """
    if fit.batch_size % ranks.world:
        raise UserError(
            f"fit.batch_size={fit.batch_size} segments can't be dealt evenly to {ranks.world} ranks; take a multiple."
        )
    check_keys(keys, _NEUTRAL, _HINT, ranks)


def _items(corpus: AudioCorpus, ranks: Ranks, dry_run: bool) -> list[AudioItem]:
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    return corpus.items()


def start_network(architecture: Any, ckpt: str | None, seed: int) -> Any:
    """Build the network, with random weights that depend on the seed only, or with the start weights of a file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build()
    if ckpt is None:
        return network
    start, found, _ = files.load(ckpt)
    if found != architecture:
        lines = differences(files.architecture_to_dict(found), files.architecture_to_dict(architecture))
        raise UserError(
            f"ckpt={ckpt} has another architecture (file -> codec.architecture):\n  "
            + "\n  ".join(lines)
            + "\nSet these keys to the file's values, or train anew without ckpt."
        )
    network.load_state_dict(start.state_dict())
    return network


def _weights(architecture: Any, loss: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights of the losses of a family of networks.

    Raises:
        UserError: there are none, or one is no number.
    """
    if architecture.family not in loss:
        raise UserError(f"loss has no node {architecture.family}: choose loss=tokenizer.")
    for name, weight in loss[architecture.family].items():
        if name != "discriminators" and (isinstance(weight, bool) or not isinstance(weight, int | float)):
            raise UserError(f"loss.{architecture.family}.{name}={weight!r}: give a number.")
    return loss[architecture.family]


def _module(network: Any, architecture: Any, weights: Mapping[str, Any], fit: Fit, **given: Any) -> TokenizerModule:
    if architecture.family == "mel":
        from voxlab.tasks.train_tokenizer.mel import MelModule as Module
    else:
        from voxlab.tasks.train_tokenizer.gan import GanModule as Module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(given["seed"])
        return Module(network, architecture, loss=weights, fit=fit, **given)


def make_lightning(trainer: partial[Any], loop: Loop, ranks: Ranks, callbacks: list[Any], run_dir: Path) -> Any:
    """Make Lightning's trainer on this rank's device; steps, clipping and curves are the module's own."""
    precision = "32-true" if ranks.device == "cpu" else "bf16-mixed"
    # A descent concerns a part of the parameters; the quantizer keeps its buffers equal by itself.
    choices: dict[str, Any] = {"precision": precision, "find_unused_parameters": True}
    steps: dict[str, Any] = {"val_check_interval": loop.val_check_interval, "log_every_n_steps": loop.log_every_n_steps}
    return make_trainer(trainer, ranks, run_dir, callbacks, **choices, **steps)


def _data_facts(items: list[AudioItem], corpus: AudioCorpus) -> dict[str, Any]:
    """Return what identifies the training data."""
    return {
        "corpus": type(corpus).__name__,
        "recordings": len(items),
        "id": fingerprint({item.id: [item.split, item.stamp] for item in items}),
    }


def _finish(
    module: TokenizerModule,
    checkpoints: Checkpoints,
    facts: dict[str, Any],
    data: TokenizerData,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Return the summary, and write the report on the first rank."""
    if not checkpoints.best:
        raise UserError(
            f"training ended in step {module.step}, before the quantizer was made: there is no codec to export. Train "
            f"longer, or lower fit.warmup_steps={module.fit.warmup_steps}."
        )
    best = dict(checkpoints.best)
    summary: dict[str, Any] = {"steps": module.step, "best_step": best.pop("step", None), **facts}
    summary |= {name.replace("/", "_"): value for name, value in best.items() if "/use/" not in name}
    if data.val_set is not None and module.architecture.family == "mel":
        constant = data.measure_constant(module.compute_log_mel) * module.architecture.mel.nats
        summary["val_mel_l1_constant"] = constant
        if constant > 0:  # not where all validation segments are silent
            summary["val_mel_l1_share"] = summary["val_mel_l1"] / constant
    silent = data.train_set.num_silent
    summary["silent_recordings"] = silent
    summary |= {"codec": str(run_dir / files.SUBFOLDER), "best": str(run_dir / CHECKPOINTS / BEST)}
    if ranks.is_first:
        summary["report"] = str(fit_report.write(run_dir, summary, module.monitor))
        log.info("\n%s", "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in summary.items()))
        log.info("use it: %s", _usage(module.architecture, run_dir))
    barrier(ranks)
    return summary


def _usage(architecture: Any, run_dir: Path) -> str:
    if architecture.family == "vocoder":
        return f"vocoder=istft vocoder.weights={run_dir}"
    return f"codec={'rvq' if architecture.family == 'mel' else 'rvq_wave'} codec.weights={run_dir}"
