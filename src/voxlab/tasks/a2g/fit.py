"""stage=fit of `a2g`: material, model, Lightning trainer; then the test of the best model."""

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxlab.errors import UserError
from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.gesture_model import A2gModel, GestureModel, TokenPart, describe
from voxlab.models.gesture.text import WordTable
from voxlab.parallel import Ranks, barrier
from voxlab.tasks import estimate
from voxlab.tasks.a2g import test as testing
from voxlab.tasks.a2g.data import TrainData
from voxlab.tasks.a2g.features import Moments32
from voxlab.tasks.a2g.material import Material, Sources, describe_split, find_material
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
    ready = _prepare(material, chosen, seed, ranks)
    facts = _facts(material, chosen, ready)
    if ranks.is_first:
        log_facts(log, facts)
    if ckpt is not None:
        _take_weights(ready.model, ckpt, chosen.tokenizers)
    record = make_record(material, chosen, ready.moments, ready.train.table, ready.model, seed)
    _descend(ready, chosen, record, material, evaluation, trainer, ranks, run_dir, loggers, seed)
    barrier(ranks)
    best = run_dir / CHECKPOINTS / BEST
    predictor = load_predictor(best, chosen.tokenizers).to(ranks.device)
    return facts | {"checkpoint": str(best)} | testing.run(predictor, material, evaluation, ranks, run_dir)


@dataclass(frozen=True)
class _Ready:
    """What a run is made of: batches, windows of both splits, the model, what standardises its input."""

    data: TrainData
    train: Windows
    validation: Windows
    model: GestureModel
    moments: dict[str, Moments32]


def _prepare(material: Material, chosen: Chosen, seed: int, ranks: Ranks) -> _Ready:
    """Read the windows and build the model; collective."""
    moments, table, speakers = material.moments(ranks), material.words(), material.speakers()
    shape: dict[str, Any] = {"length": chosen.fit.window, "fps": material.fps}
    given = (material.codecs, moments, table)
    train = Windows(material.clips("train", speakers), *given, stride=chosen.fit.stride, **shape)
    validation = Windows(material.clips("validation", speakers), *given, stride=chosen.fit.window, **shape)
    data = TrainData(train, chosen.fit.batch_size, chosen.fit.masking, seed, ranks.world)
    model = _build(chosen.architecture, material, moments, table, len(speakers), seed)
    return _Ready(data, train, validation, model, moments)


def expect(
    sources: Sources, chosen: Chosen, trainer: partial[Any], seed: int, ranks: Ranks, run_dir: Path
) -> dict[str, Any]:
    """Train for a few steps and validate a little, in memory; return disk and time of a run. Collective."""
    from voxlab.tasks.a2g.module import Feed
    from voxlab.tasks.a2g.validation import validate
    from voxlab.tasks.watch import Stopwatch

    begun, material = time.perf_counter(), find_material(sources, ranks)
    if material is None:
        return {"time": estimate.not_measured("motion store and codes are not made yet; a run begins with that")}
    ready = _prepare(material, chosen, seed, ranks)
    module, watch = _in_training(ready, chosen, material, {}, seed), Stopwatch(ranks)
    module.place_codecs()
    opening = time.perf_counter() - begun
    lightning = _lightning(estimate.without_bar(trainer), ranks, run_dir, watch)
    lightning.fit(module, datamodule=Feed(ready.data))
    alone = replace(ranks, rank=0, world=1)

    def score(places: Sequence[tuple[int, int]]) -> float:
        some = copy.copy(ready.validation)
        some.places = list(places)
        validate(module.average, module.codecs, some, chosen.fit.masking, chosen.loss, alone, module.device)
        return len(places)

    window, count = estimate.measure(score, ready.validation.places, ranks.device)
    validation = window * len(ready.validation.places) / ranks.world
    steps = chosen.loop.steps(ready.data.per_epoch)
    seconds = opening + watch.before + steps * watch.step + max(1, steps // ready.data.per_epoch) * validation
    basis = f"{watch.count} steps measured, {estimate.spell_rate(watch.step, 'step')}"
    basis += f"; {count} windows validated, {validation:.2g} s a validation; before the test"
    size = estimate.spell_size(2 * estimate.state_bytes(module, lightning.optimizers))
    return {"disk": f"about {size} for checkpoints", "time": estimate.about(seconds, basis)}


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


def _facts(material: Material, chosen: Chosen, ready: _Ready) -> dict[str, Any]:
    """Return what the run will do, ready to be printed."""
    data = ready.data
    facts: dict[str, Any] = {"store": str(material.store.folder), "layout": material.layout.name, "fps": material.fps}
    for split in ("train", "validation", "test"):
        if material.has_split(split):
            facts |= describe_split(material.store.split(split), material.fps, split)
    facts |= {f"tokens_{name}": f"{c.num_codebooks} of {c.codebook_size}" for name, c in material.codecs.items()}
    return facts | {
        "parameters": sum(weight.numel() for weight in ready.model.parameters()),
        "train_windows": len(data.windows.places),
        "train_clips_too_short": len(data.windows.skipped),
        "validation_windows": len(ready.validation.places),
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


def _in_training(ready: _Ready, chosen: Chosen, material: Material, record: Mapping[str, Any], seed: int) -> Any:
    from voxlab.tasks.a2g.module import A2gModule

    settings: dict[str, Any] = {"optim": chosen.optim, "fit": chosen.fit, "loop": chosen.loop, "seed": seed}
    given: dict[str, Any] = {"per_epoch": ready.data.per_epoch, "record": record}
    return A2gModule(ready.model, material.codecs, chosen.loss, **given, **settings)


def _lightning(trainer: partial[Any], ranks: Ranks, run_dir: Path, callback: Any) -> Any:
    ours: dict[str, Any] = {"limit_val_batches": 0, "check_val_every_n_epoch": 1, "val_check_interval": None}
    # Which learned null tokens a batch needs, is drawn at random.
    precision = "32-true" if ranks.device == "cpu" else "bf16-mixed"
    kind: dict[str, Any] = {"precision": precision, "find_unused_parameters": True}
    return make_trainer(trainer, ranks, run_dir, [callback], **kind, **ours)


def _descend(
    ready: _Ready,
    chosen: Chosen,
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
    from voxlab.tasks.a2g.module import Feed

    module = _in_training(ready, chosen, material, record, seed)

    def generate(step: int) -> dict[str, float]:
        given = (material.codecs, material.layout, material.statistics, ready.moments, ready.train.table)
        predictor = Predictor(run_dir / CHECKPOINTS / LAST, module.average, *given, dict(record))
        return testing.glance(predictor, material, evaluation, ranks, run_dir, loggers, step)

    progress = Progress(ranks, run_dir, loggers, ready.validation, generate)
    lightning = _lightning(trainer, ranks, run_dir, progress)
    last = run_dir / CHECKPOINTS / LAST
    fit_or_resume(lightning, module, Feed(ready.data), last, ranks)
    if not progress.best:
        raise UserError("training ended before the first validation: raise trainer.max_time, or lower the steps.")
    if ranks.is_first:
        name, epoch = chosen.fit.monitor, progress.best["step"] / ready.data.per_epoch
        log.info("best: epoch %.3g, %s %.4f", epoch, name, progress.best[name])
