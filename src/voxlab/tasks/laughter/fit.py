"""stage=fit of `laughter`: store, labels, sampling, model, Lightning trainer; then calibration, threshold and test."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from voxlab.errors import UserError
from voxlab.models.laughter import LaughterModel
from voxlab.parallel import Ranks, barrier
from voxlab.storage import atomic_path
from voxlab.tasks import estimate
from voxlab.tasks.checkpoints import BEST, CHECKPOINTS, LAST, read_checkpoint
from voxlab.tasks.laughter import lbfgs, moments, sampling
from voxlab.tasks.laughter import trial as trials
from voxlab.tasks.laughter.batches import TrainData
from voxlab.tasks.laughter.chosen import Chosen
from voxlab.tasks.laughter.data import View, labelled
from voxlab.tasks.laughter.describe import contents, describe_facts, describe_loss
from voxlab.tasks.laughter.predict import TASK, load_predictor, predict
from voxlab.tasks.laughter.trial import Trial
from voxlab.tasks.settings import log_facts
from voxlab.tasks.trainer import NEUTRAL, check_keys, fit_or_resume, make_trainer

log = logging.getLogger(__name__)

_NEUTRAL = {**NEUTRAL, "val_check_interval": None, "check_val_every_n_epoch": 1, "limit_val_batches": None}
_HINT = "task=laughter; leave it out. The run ends after trainer.max_epochs, or earlier by fit.patience."


def fit(
    trial: Trial,
    chosen: Chosen,
    trainer: partial[Any],
    *,
    ckpt: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Train, then evaluate the best model on test.

    Args:
        trial: store, labels and evaluation.
        chosen: settings of training.
        trainer: `lightning.Trainer` with its settings.
        ckpt: run or checkpoint to take start weights from.
        seed: of everything random.
        dry_run: return the plan only.
        ranks: this process among its peers.
        run_dir: folder of this run; goes on from the checkpoint in it, if there is one.
        loggers: Lightning loggers by name, on rank 0.
    """
    check_keys(trainer.keywords, _NEUTRAL, _HINT, ranks, divisible=True)
    if trial.labels.mode == "horizon" and chosen.loss.hard:
        raise UserError("labels.mode=horizon has targets between 0 and 1: use loss=bce.")
    if chosen.fit.shuffle_labels:
        if trial.labels.mode == "horizon":
            raise UserError("fit.shuffle_labels=true does not go with labels.mode=horizon; use window.")
        log.warning("fit.shuffle_labels=true: the labels of all splits are dealt out at random; AUROC should be 0.5.")
        trial = replace(trial, shuffle=seed)
    trial.check_validation(chosen.fit.monitor)
    train = trial.views("train")
    sampled = sampling.sample([view.labels for view in train], chosen.sampling, trial.frame_rate, seed)
    chosen.loss.prepare(sampled.num_pos, sampled.num_neg)
    views = labelled(train, sampled.weights)
    data = TrainData(views, chosen.fit, chosen.architecture.context, seed, ranks.world)
    facts = {**trial.facts(), **_plan(chosen, data, sampled)}
    if ranks.is_first:
        log.info("\n%s", describe_facts(facts))
    if dry_run:
        expected = _expect(trial, chosen, data, sampled, trainer, ckpt, seed, ranks, run_dir)
        if ranks.is_first:
            log_facts(log, expected)
        return facts | expected
    last = run_dir / CHECKPOINTS / LAST
    model = _model(chosen, trial, sampled, data, ckpt, None if last.is_file() else ranks, seed)
    record = trial.record() | {"loss": describe_loss(chosen.loss), "seed": seed, **_settings(chosen)}
    if chosen.fit.solver == "lbfgs":
        _solve(model, chosen, data, record, ranks, run_dir)
    else:
        _descend(model, chosen, data, record, trial, trainer, ranks, run_dir, loggers, seed)
    barrier(ranks)
    return facts | finish(trial, run_dir, record, seed, ranks, loggers)


def _settings(chosen: Chosen) -> dict[str, Any]:
    """Return what a checkpoint says about how it was trained."""
    settings: dict[str, Any] = {name: getattr(chosen, name) for name in ("fit", "sampling", "optim", "loop")}
    return {name: asdict(value) for name, value in settings.items()}


def _plan(chosen: Chosen, data: TrainData, sampled: sampling.Sampled) -> dict[str, Any]:
    """Return what the run will do, ready to be printed."""
    used = sum(int(view.used().sum()) for view in data.views)
    negative, positive = chosen.loss.class_weights.tolist()
    return {
        "model": chosen.architecture.family,
        "train_frames_used": used,
        "train_prior_used": sampled.prior,
        "loss": type(chosen.loss).__name__,
        "positive_weight": positive,
        "negative_weight": negative,
        "initial_bias": _bias(chosen, sampled.prior),
        "batch_size": chosen.fit.frames_or_sequences(chosen.architecture.context),
        "steps_per_epoch": data.per_epoch,
        "max_steps": chosen.loop.steps(data.per_epoch),
    }


def _bias(chosen: Chosen, prior: float) -> float:
    if chosen.architecture.bias_init == "zero":
        return 0.0
    if chosen.architecture.bias_init == "prior":
        return float(torch.logit(torch.tensor(prior, dtype=torch.float64)))
    return chosen.loss.initial_bias(prior)


def _model(
    chosen: Chosen,
    trial: Trial,
    sampled: sampling.Sampled,
    data: TrainData,
    ckpt: str | None,
    ranks: Ranks | None,
    seed: int,
) -> LaughterModel:
    """Build the model with normaliser and output bias, or from start weights; without `ranks`, nothing is measured."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = chosen.architecture.build(trial.dim, chosen.fit.norm)
    model.set_output_bias(_bias(chosen, sampled.prior))
    if ckpt is not None:
        start = load_predictor(ckpt)
        if (start.model.architecture, start.model.dim, start.model.norm) != (
            chosen.architecture,
            trial.dim,
            chosen.fit.norm,
        ):
            raise UserError(
                f"ckpt={ckpt} holds {start.model.architecture} for {start.model.dim} numbers a frame, norm "
                f"{start.model.norm}; this run has {chosen.architecture} for {trial.dim}, norm {chosen.fit.norm}. Set "
                "model, fit.norm and store alike, or train anew without ckpt."
            )
        model.load_state_dict(start.model.state_dict())
    elif chosen.fit.norm == "standard" and ranks is not None:
        model.standardize(*moments.measure(data.views, ranks))
    model.offset.fill_(sampled.offset)
    return model


def _descend(
    model: LaughterModel,
    chosen: Chosen,
    data: TrainData,
    record: Mapping[str, Any],
    trial: Trial,
    trainer: partial[Any],
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
    seed: int,
) -> None:
    """Train with Lightning from the run's last checkpoint, or from the start."""
    from voxlab.tasks.laughter.callbacks import Progress
    from voxlab.tasks.laughter.module import Feed

    module = _in_training(model, chosen, data, record, seed)
    progress = Progress(ranks, run_dir, loggers, trial.views("validation"))
    lightning = _lightning(trainer, ranks, run_dir, progress)
    last = run_dir / CHECKPOINTS / LAST
    fit_or_resume(lightning, module, Feed(data), last, ranks)
    if not progress.best:
        raise UserError("training ended before the first validation: raise trainer.max_time, or lower the steps.")
    if ranks.is_first:
        monitor, epoch = chosen.fit.monitor, progress.best["step"] / data.per_epoch
        log.info("best: epoch %.3g, %s %.4f", epoch, monitor, progress.best[monitor])


def _in_training(model: LaughterModel, chosen: Chosen, data: TrainData, record: Mapping[str, Any], seed: int) -> Any:
    from voxlab.tasks.laughter.module import LaughterModule

    settings: dict[str, Any] = {"optim": chosen.optim, "fit": chosen.fit, "loop": chosen.loop, "seed": seed}
    return LaughterModule(model, chosen.loss, per_epoch=data.per_epoch, record=record, **settings)


def _lightning(trainer: partial[Any], ranks: Ranks, run_dir: Path, callback: Any) -> Any:
    ours: dict[str, Any] = {"limit_val_batches": 0, "check_val_every_n_epoch": 1, "val_check_interval": None}
    precision: dict[str, Any] = {"precision": "32-true", "find_unused_parameters": False}
    return make_trainer(trainer, ranks, run_dir, [callback], **precision, **ours)


def _expect(
    trial: Trial,
    chosen: Chosen,
    data: TrainData,
    sampled: sampling.Sampled,
    trainer: partial[Any],
    ckpt: str | None,
    seed: int,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Train for a few steps and score a little, in memory; return time and disk of a run. Collective."""
    from voxlab.tasks.laughter.module import Feed
    from voxlab.tasks.watch import Stopwatch

    if chosen.fit.solver == "lbfgs":
        return {"time": estimate.not_measured("fit.solver=lbfgs ends when nothing improves")}
    module = _in_training(_model(chosen, trial, sampled, data, ckpt, None, seed), chosen, data, {}, seed)
    watch = Stopwatch(ranks)
    lightning = _lightning(estimate.without_bar(trainer), ranks, run_dir, watch)
    lightning.fit(module, datamodule=Feed(data))
    views, alone = trial.views("validation"), replace(ranks, rank=0, world=1)

    def score(some: Sequence[View]) -> float:
        return sum(len(episode.y) for episode in predict(module.model, some, alone, module.device))

    frame, count = estimate.measure(score, views, ranks.device)
    validation = frame * sum(len(view.labels.y) for view in views) / ranks.world
    steps = chosen.loop.steps(data.per_epoch)
    seconds = watch.before + steps * watch.step + max(1, steps // data.per_epoch) * validation
    basis = f"{watch.count} steps measured, {estimate.spell_rate(watch.step, 'step')}"
    basis += f"; {count} views scored, {validation:.2g} s a validation; before test and report"
    size = estimate.state_bytes(module, lightning.optimizers)
    disk = f"about {estimate.spell_size(2 * size)} for checkpoints"
    return {"disk": disk, "time": estimate.about(seconds, basis)}


def _solve(
    model: LaughterModel, chosen: Chosen, data: TrainData, record: Mapping[str, Any], ranks: Ranks, run_dir: Path
) -> None:
    lbfgs.minimise(model, chosen.loss, data.views, chosen.fit, ranks)
    if ranks.is_first:
        state = {f"model.{name}": value.cpu() for name, value in model.state_dict().items()}
        write_checkpoint(run_dir / CHECKPOINTS / BEST, {"state_dict": state, "voxlab": contents(model, record)})


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint file, complete or not at all."""
    with atomic_path(path) as temporary:
        torch.save(dict(checkpoint), temporary)


def finish(
    trial: Trial, run_dir: Path, record: Mapping[str, Any], seed: int, ranks: Ranks, loggers: Mapping[str, Any]
) -> dict[str, Any]:
    """Calibrate the best model and choose its threshold on validation, keep both in its checkpoint, then test it."""
    path = run_dir / CHECKPOINTS / BEST
    predictor = load_predictor(path)
    scored = trials.score(trial, predictor, ranks)
    summary: dict[str, Any] = {"checkpoint": str(path)}
    if ranks.is_first:
        decision = trial.decide(scored, seed, path)
        checkpoint = read_checkpoint(path, TASK)
        checkpoint["voxlab"]["decision"] = decision.record()
        write_checkpoint(path, checkpoint)
        summary |= trials.report(trial, scored, decision, predictor, seed, run_dir, loggers)
    barrier(ranks)
    return summary
