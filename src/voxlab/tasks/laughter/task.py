"""Train a predictor of laughter on stored features, test one, listen with one, or compare runs.

python main.py task=laughter loss=focal shift=5
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks

STAGES = ("fit", "test", "stream", "compare")


def laughter(
    *,
    corpus: Any,
    features: Any,
    model: Any,
    loss: Any,
    optim: Any,
    trainer: partial[Any],
    stage: str,
    shift: int,
    store: str,
    labels: Mapping[str, Any],
    sampling: Mapping[str, Any],
    fit: Mapping[str, Any],
    thr: Mapping[str, Any],
    events: Mapping[str, Any],
    eval: Mapping[str, Any],
    ckpt: str | None,
    runs: str | None,
    audio: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run one stage.

    Args:
        corpus: the data node; only its settings are compared with those of the store.
        features: the features node; likewise, except for stage=stream, which extracts with it.
        model: describes the network.
        loss: a loss of `losses.events`.
        optim: makes the optimiser.
        trainer: `lightning.Trainer` with its settings.
        stage: "fit" (train, then test), "test", "stream" (one audio file, frame by frame) or "compare".
        shift: frames before an onset.
        store: folder that task=extract wrote features to.
        labels: settings of `LabelSettings` besides shift.
        sampling: settings of `settings.Sampling`.
        fit: settings of `settings.Fit`.
        thr: how the threshold is chosen; `eval_settings`.
        events: how alarms are matched; `eval_settings`.
        eval: what is reported; `eval_settings`.
        ckpt: stage=test, stream: run folder or checkpoint; stage=fit: the same, to take start weights from.
        runs: stage=compare: folder of a sweep.
        audio: stage=stream: the file.
        seed: of everything random.
        dry_run: stage=fit: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run; stage=fit goes on from the checkpoint in it, if there is one.
        loggers: Lightning loggers by name, on rank 0.

    Returns:
        Figures and the files written.

    Raises:
        UserError: wrong settings, no store that fits, nothing to learn, a checkpoint for something else.
    """
    if stage not in STAGES:
        raise UserError(f"stage={stage}: task=laughter has {', '.join(STAGES)}.")
    place: dict[str, Any] = {"seed": seed, "ranks": ranks, "run_dir": run_dir, "loggers": loggers or {}}
    if stage == "compare":
        return _compare(runs, eval, seed, ranks)
    from voxlab.tasks.laughter.eval_settings import read_settings
    from voxlab.tasks.laughter.settings import read_labels

    evaluation = read_settings(thr, events, eval, shift)
    if stage == "stream":
        return _stream(ckpt, audio, features, evaluation.refractory, ranks, run_dir)
    wanted = read_labels(labels, shift)
    from voxlab.tasks.laughter import fit as fitting
    from voxlab.tasks.laughter.trial import open_trial

    overlap = bool(getattr(corpus, "allow_show_overlap", False))
    about: dict[str, Any] = {"store": store, "features": features, "corpus": corpus, "allow_overlap": overlap}
    if stage == "test":
        from voxlab.tasks.laughter.test import test

        return test(open_trial(labels=wanted, evaluation=evaluation, **about), ckpt, **place)
    given: dict[str, Any] = {"model": model, "loss": loss, "optim": optim, "fit": fit, "sampling": sampling}
    chosen = fitting.read_settings(trainer=trainer, **given)
    trial = open_trial(labels=wanted, evaluation=evaluation, **about)
    return fitting.fit(trial, chosen, trainer, ckpt=ckpt, dry_run=dry_run, **place)


def _compare(runs: str | None, eval: Mapping[str, Any], seed: int, ranks: Ranks) -> dict[str, Any]:
    from voxlab.tasks.laughter.compare import compare

    if runs is None:
        raise UserError("stage=compare needs the folder of a sweep: runs=outputs/laughter/<stamp>.")
    return compare(Path(runs), resamples=eval["bootstrap"], seed=seed) if ranks.is_first else {}


def _stream(
    ckpt: str | None, audio: str | None, features: Any, refractory: int, ranks: Ranks, run_dir: Path
) -> dict[str, Any]:
    from voxlab.tasks.laughter.stream import stream

    if ckpt is None or audio is None:
        raise UserError("stage=stream needs a trained run and a file to listen to: ckpt=<run folder> audio=<file>.")
    given: dict[str, Any] = {"ckpt": ckpt, "audio": audio, "features": features, "refractory": refractory}
    return stream(**given, ranks=ranks, run_dir=run_dir)
