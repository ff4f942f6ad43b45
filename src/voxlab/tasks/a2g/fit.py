"""stage=fit of `a2g`: material, model, Lightning trainer; then the test of the best model."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxlab.errors import UserError
from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.gesture_model import A2gModel, GestureModel, TokenPart, describe
from voxlab.models.gesture.text import WordTable
from voxlab.parallel import Ranks, barrier
from voxlab.tasks.a2g import test as testing
from voxlab.tasks.a2g.data import TrainData
from voxlab.tasks.a2g.features import Moments32
from voxlab.tasks.a2g.material import Material, describe_split
from voxlab.tasks.a2g.predictor import Predictor, codebooks_of, features_record, load_predictor, pack_statistics
from voxlab.tasks.a2g.settings import Fit
from voxlab.tasks.a2g.windows import Windows
from voxlab.tasks.checkpoints import BEST, CHECKPOINTS, LAST
from voxlab.tasks.optim import Schedule
from voxlab.tasks.settings import Loop, log_facts
from voxlab.tasks.trainer import NEUTRAL, check_keys, fit_or_resume, make_trainer

log = logging.getLogger(__name__)

_NEUTRAL = {**NEUTRAL, "val_check_interval": None, "check_val_every_n_epoch": 1, "limit_val_batches": None}
_HINT = "task=a2g; leave it out. The run ends after trainer.max_epochs, or earlier by fit.patience."


@dataclass(frozen=True)
class Chosen:
    """The settings of a training run, checked."""

    fit: Fit
    loop: Loop
    architecture: A2gModel
    loss: A2gLoss
    optim: Schedule
    tokenizers: Any


def check_trainer(trainer: partial[Any], ranks: Ranks) -> None:
    """Refuse keys of the trainer group that the loop does not know.

    Raises:
        UserError: names the key.
    """
    check_keys(trainer.keywords, _NEUTRAL, _HINT, ranks)


def fit(
    material: Material,
    chosen: Chosen,
    evaluation: testing.Evaluation,
    trainer: partial[Any],
    *,
    ckpt: str | None,
    seed: int,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Train, then test the best model; collective.

    Args:
        material: of the corpus.
        chosen: settings of training.
        evaluation: how generated motion is made and measured.
        trainer: `lightning.Trainer` with its settings.
        ckpt: run or checkpoint to take start weights from.
        seed: of everything random.
        ranks: this process among its peers.
        run_dir: folder of this run; goes on from the checkpoint in it, if there is one.
        loggers: Lightning loggers by name, on rank 0.

    Raises:
        UserError: nothing to learn, or start weights of another model.
    """
    chosen.fit.check_windows(max(codec.stride for codec in material.codecs.values()))
    testing.check_given(evaluation, material, ("test", "validation") if chosen.fit.generate_every else ("test",))
    material.tokenize(ranks)
    moments, table, speakers = material.moments(ranks), material.words(), material.speakers()
    shape: dict[str, Any] = {"length": chosen.fit.window, "fps": material.fps}
    given = (material.codecs, moments, table)
    train = Windows(material.clips("train", speakers), *given, stride=chosen.fit.stride, **shape)
    validation = Windows(material.clips("validation", speakers), *given, stride=chosen.fit.window, **shape)
    data = TrainData(train, chosen.fit.batch_size, chosen.fit.masking, seed, ranks.world)
    model = _build(chosen.architecture, material, moments, table, len(speakers), seed)
    facts = _facts(material, chosen, data, validation, model)
    if ranks.is_first:
        log_facts(log, facts)
    if ckpt is not None:
        _take_weights(model, ckpt, chosen.tokenizers)
    record = make_record(material, chosen, moments, table, model, seed)
    _descend(model, chosen, data, validation, record, material, evaluation, trainer, ranks, run_dir, loggers, seed)
    barrier(ranks)
    best = run_dir / CHECKPOINTS / BEST
    predictor = load_predictor(best, chosen.tokenizers).to(ranks.device)
    return facts | {"checkpoint": str(best)} | testing.run(predictor, material, evaluation, ranks, run_dir, loggers)


def make_record(
    material: Material,
    chosen: Chosen,
    moments: Mapping[str, Moments32],
    table: WordTable,
    model: GestureModel,
    seed: int,
) -> dict[str, Any]:
    """Return what a checkpoint keeps besides weights: plain values and tensors, for `torch.load(weights_only=True)`."""
    settings: dict[str, Any] = {name: getattr(chosen, name) for name in ("fit", "loop", "loss", "optim")}
    return {
        "model": describe(model),
        "layout": {"name": material.layout.name, "table": material.layout.table},
        "fps": material.fps,
        "trans": material.corpus.trans,
        "tokenizers": chosen.tokenizers,
        "codecs": {name: codec.weights_id for name, codec in material.codecs.items()},
        **pack_statistics(material.statistics, moments),
        "features": features_record(material),
        "feature_words": dict(material.words_of),
        "stores": {name: tracks.record["fingerprint"] for name, tracks in material.features.items()},
        "motion": material.store.fingerprint,
        "flags": material.flags,
        "speakers": material.speakers(),
        "betas": material.betas(),
        "words": list(table.words),
        "seed": seed,
        **{name: _plain(asdict(value)) for name, value in settings.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _build(
    architecture: A2gModel,
    material: Material,
    moments: Mapping[str, Moments32],
    table: WordTable,
    num_speakers: int,
    seed: int,
) -> GestureModel:
    parts = [
        TokenPart(name, codec.stride, codec.num_codebooks, codec.codebook_size)
        for name, codec in material.codecs.items()
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(
            parts,
            codebooks_of(material.codecs),
            feature_dim=len(moments["features"].mean),
            acoustic_dim=len(moments["acoustic"].mean) if "acoustic" in moments else None,
            num_speakers=num_speakers,
            fps=material.fps,
            num_words=table.size,
        )


def _facts(
    material: Material, chosen: Chosen, data: TrainData, validation: Windows, model: GestureModel
) -> dict[str, Any]:
    """Return what the run will do, ready to be printed."""
    facts: dict[str, Any] = {"store": str(material.store.folder), "layout": material.layout.name, "fps": material.fps}
    for split in ("train", "validation", "test"):
        if material.has_split(split):
            facts |= describe_split(material.store.split(split), material.fps, split)
    facts |= {f"tokens_{name}": f"{c.num_codebooks} of {c.codebook_size}" for name, c in material.codecs.items()}
    return facts | {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "train_windows": len(data.windows.places),
        "train_clips_too_short": len(data.windows.skipped),
        "validation_windows": len(validation.places),
        "batch_size": data.batch_size,
        "steps_per_epoch": data.per_epoch,
        "max_steps": chosen.loop.steps(data.per_epoch),
    }


def _take_weights(model: GestureModel, ckpt: str, tokenizers: Any) -> None:
    start = load_predictor(ckpt, tokenizers)
    was, now = describe(start.model), describe(model)
    if was != now:
        raise UserError(
            f"ckpt={ckpt} holds the model {was}; this run has {now}. Set model, data, features and tokenizers alike, "
            "or train anew without ckpt."
        )
    model.load_state_dict(start.model.state_dict())


def _descend(
    model: GestureModel,
    chosen: Chosen,
    data: TrainData,
    validation: Windows,
    record: Mapping[str, Any],
    material: Material,
    evaluation: testing.Evaluation,
    trainer: partial[Any],
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
    seed: int,
) -> None:
    """Train with Lightning from the run's last checkpoint, or from the start."""
    from voxlab.tasks.a2g.callbacks import Progress
    from voxlab.tasks.a2g.module import A2gModule, Feed

    settings: dict[str, Any] = {"optim": chosen.optim, "fit": chosen.fit, "loop": chosen.loop, "seed": seed}
    module = A2gModule(model, material.codecs, chosen.loss, per_epoch=data.per_epoch, record=record, **settings)

    def generate(step: int) -> dict[str, float]:
        given = (material.codecs, material.layout, material.statistics, data.windows.moments, data.windows.table)
        predictor = Predictor(run_dir / CHECKPOINTS / LAST, module.average, *given, dict(record))
        return testing.glance(predictor, material, evaluation, ranks, run_dir, loggers, step)

    progress = Progress(ranks, run_dir, loggers, validation, generate)
    ours: dict[str, Any] = {"limit_val_batches": 0, "check_val_every_n_epoch": 1, "val_check_interval": None}
    # Which learned null tokens a batch needs, is drawn at random.
    precision = "32-true" if ranks.device == "cpu" else "bf16-mixed"
    kind: dict[str, Any] = {"precision": precision, "find_unused_parameters": True}
    lightning = make_trainer(trainer, ranks, run_dir, [progress], **kind, **ours)
    last = run_dir / CHECKPOINTS / LAST
    fit_or_resume(lightning, module, Feed(data), last, ranks)
    if not progress.best:
        raise UserError("training ended before the first validation: raise trainer.max_time, or lower the steps.")
    if ranks.is_first:
        name, epoch = chosen.fit.monitor, progress.best["step"] / data.per_epoch
        log.info("best: epoch %.3g, %s %.4f", epoch, name, progress.best[name])
