"""stage=test of `laughter`: evaluate a trained model again, with the threshold that was chosen when it was trained."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from voxlab.parallel import Ranks, barrier
from voxlab.tasks import estimate
from voxlab.tasks.laughter import trial as trials
from voxlab.tasks.laughter.data import View
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.predict import Predictor, check_fits, predict
from voxlab.tasks.laughter.trial import Trial
from voxlab.tasks.settings import log_facts

log = logging.getLogger(__name__)


def test(
    trial: Trial,
    predictor: Predictor,
    *,
    dry_run: bool,
    seed: int,
    ranks: Ranks,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Evaluate the model of a checkpoint.

    Args:
        trial: store, labels and evaluation; labels and features must be those that the model was trained for.
        predictor: the model.
        dry_run: return what would be done, and write nothing.
        seed: of the bootstrap.
        ranks: this process among its peers.
        run_dir: gets the report.
        loggers: Lightning loggers by name, on rank 0.

    Raises:
        UserError: the checkpoint is one for other labels or features, or no threshold can be chosen.
    """
    now = trial.record()
    check_fits(predictor, now["labels"], now["features"])
    if predictor.record["fit"]["shuffle_labels"]:
        trial = replace(trial, shuffle=predictor.record["seed"])
    decision = _kept(predictor, trial)
    if decision is None:
        trial.check_threshold()
    if dry_run:
        return _describe(trial, predictor, decision, ranks) if ranks.is_first else {}
    scored = trials.score(trial, predictor, ranks)
    summary: dict[str, Any] = {"checkpoint": str(predictor.path)}
    if ranks.is_first:
        if decision is None:
            log.info("choosing the threshold anew on validation: thr differs from that of the checkpoint.")
            decision = trial.decide(scored, seed, predictor.path)
        summary |= trials.report(trial, scored, decision, predictor, seed, run_dir, loggers)
    barrier(ranks)
    return summary


def _kept(predictor: Predictor, trial: Trial) -> Decision | None:
    """Return the decision of the checkpoint; None where it has none, or settings ask for another."""
    if predictor.decision is None or predictor.record["thr"] != trial.record()["thr"]:
        return None
    return Decision.from_record(predictor.decision)


def _describe(trial: Trial, predictor: Predictor, decision: Decision | None, ranks: Ranks) -> dict[str, Any]:
    """Return, and log, what a run would do."""
    thr = trial.evaluation.thr
    anew = f"chosen anew: best {thr.objective}, source {thr.source}" if thr.value is None else thr.value
    plan = {"checkpoint": str(predictor.path), **trial.facts()}
    plan["threshold"] = anew if decision is None else decision.threshold.value
    plan["time"] = _expected_time(trial, predictor, ranks)
    log_facts(log, plan)
    return plan


def _expected_time(trial: Trial, predictor: Predictor, ranks: Ranks) -> str:
    """Score a few views; return what all of them would take."""
    views, model = trial.scored_views(), predictor.model.to(ranks.device)
    alone = replace(ranks, rank=0, world=1)

    def score(some: Sequence[View]) -> float:
        return sum(len(episode.y) for episode in predict(model, some, alone, ranks.device, predictor.path))

    pace, count = estimate.measure(score, views, ranks.device)
    seconds = pace * sum(len(view.labels.y) for view in views) / ranks.world
    return estimate.about(seconds, f"{count} views scored; before the report")
