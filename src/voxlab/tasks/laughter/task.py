"""Train a predictor of laughter on stored features, test one, listen with one, or compare runs.

python main.py task=laughter loss=focal shift=5
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks

log = logging.getLogger(__name__)

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
    extraction: str | None,
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
        store: folder that task=extract wrote features to; a `*` in its name stands for whatever features are there.
        labels: settings of `LabelSettings` besides shift.
        sampling: settings of `settings.Sampling`.
        fit: settings of `settings.Fit`.
        thr: how the threshold is chosen; `eval_settings`.
        events: how alarms are matched; `eval_settings`.
        eval: what is reported; `eval_settings`.
        ckpt: stage=test, stream: run folder or checkpoint; stage=fit: the same, to take start weights from.
        runs: stage=compare: folder of a sweep.
        audio: stage=stream: the file.
        extraction: words of the command line that choose corpus and features, to say how a store is made.
        seed: of everything random.
        dry_run: print what would be done, and write nothing.
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
    if stage == "compare":
        return _compare(runs, eval, seed, dry_run=dry_run) if ranks.is_first else {}
    from voxlab.tasks.laughter.eval_settings import read_settings
    from voxlab.tasks.laughter.settings import read_labels

    label_settings = read_labels(labels, shift)
    evaluation = read_settings(thr, events, eval, shift)
    if stage == "stream":
        given: dict[str, Any] = {"features": features, "evaluation": evaluation, "ranks": ranks, "run_dir": run_dir}
        return _stream(ckpt, audio, dry_run=dry_run, **given)
    overlap = bool(getattr(corpus, "allow_show_overlap", False))
    about: dict[str, Any] = {"store": store, "features": features, "corpus": corpus, "allow_overlap": overlap}
    about |= {"labels": label_settings, "evaluation": evaluation, "extraction": extraction}
    loggers = {} if loggers is None else loggers
    place: dict[str, Any] = {"seed": seed, "ranks": ranks, "run_dir": run_dir, "loggers": loggers, "dry_run": dry_run}
    if stage == "test":
        return _test(ckpt, about, place)
    from voxlab.tasks.laughter import chosen

    settings = chosen.read_settings(model=model, loss=loss, optim=optim, trainer=trainer, fit=fit, sampling=sampling)
    return _fit(settings, trainer, ckpt, about, place)


def _compare(runs: str | None, eval: Mapping[str, Any], seed: int, *, dry_run: bool) -> dict[str, Any]:
    from voxlab.tasks.laughter.compare import read_jobs
    from voxlab.tasks.laughter.evaluate import compare_runs

    if runs is None:
        raise UserError("stage=compare needs the folder of a sweep: runs=outputs/laughter/<stamp>.")
    if not dry_run:
        done = compare_runs(Path(runs), eval["bootstrap"], seed)
        log.info("comparison: %s", done["page"])
        return done
    found = [job.label for job in read_jobs(Path(runs))]
    log.info("%d runs to compare in %s:\n  %s", len(found), runs, "\n  ".join(found))
    return {"runs": len(found)}


def _stream(ckpt: str | None, audio: str | None, **given: Any) -> dict[str, Any]:
    if ckpt is None or audio is None:
        raise UserError("stage=stream needs a trained run and a file to listen to: ckpt=<run folder> audio=<file>.")
    from voxlab.tasks.laughter.stream import stream

    return stream(ckpt=ckpt, audio=audio, **given)


def _fit(
    settings: Any, trainer: partial[Any], ckpt: str | None, about: Mapping[str, Any], place: Mapping[str, Any]
) -> dict[str, Any]:
    from voxlab.tasks.laughter import stores
    from voxlab.tasks.laughter.trial import open_trial

    store, corpus, ranks = about["store"], about["corpus"], place["ranks"]
    if stores.needs_sample(store, about["features"], corpus, ranks):
        made = stores.extract_sample(store, corpus, ranks, place["run_dir"], dry_run=place["dry_run"])
        if place["dry_run"]:
            return made
    trial = open_trial(**about, known=stores.begun_with(store, place["run_dir"]))
    from voxlab.tasks.laughter import fit as fitting

    return fitting.fit(trial, settings, trainer, ckpt=ckpt, **place)


def _test(ckpt: str | None, about: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    if ckpt is None:
        raise UserError("stage=test needs a trained model: ckpt=<run folder>.")
    from voxlab.tasks.laughter.predict import check_features, load_predictor
    from voxlab.tasks.laughter.test import test
    from voxlab.tasks.laughter.trial import open_trial

    predictor = load_predictor(ckpt)
    if about["features"] is not None:
        then = " and, where it is not the default, store=<the folder that they were extracted to>"
        check_features(predictor, about["features"].settings(), then)
    trained_on = predictor.record["features"]["fingerprint"]
    return test(open_trial(**about, known=trained_on), predictor, **place)
