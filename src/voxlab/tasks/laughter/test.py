"""stage=test of `laughter`: evaluate a trained model again, with the threshold that was chosen when it was trained."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks, barrier
from voxlab.tasks.laughter import trial as trials
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.predict import check_fits, load_predictor
from voxlab.tasks.laughter.trial import Trial

log = logging.getLogger(__name__)


def test(
    trial: Trial, ckpt: str | None, *, seed: int, ranks: Ranks, run_dir: Path, loggers: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate the model of a checkpoint.

    Args:
        trial: store, labels and evaluation; labels and features must be those that the model was trained for.
        ckpt: run folder or checkpoint.
        seed: of the bootstrap.
        ranks: this process among its peers.
        run_dir: gets the report.
        loggers: Lightning loggers by name, on rank 0.

    Raises:
        UserError: no checkpoint, or one for other labels or features.
    """
    if ckpt is None:
        raise UserError("stage=test needs a trained model: ckpt=<run folder>.")
    predictor = load_predictor(ckpt)
    now = trial.record()
    check_fits(predictor, now["labels"], now["features"])
    if predictor.record["fit"]["shuffle_labels"]:
        trial = replace(trial, shuffle=predictor.record["seed"])
    scored = trials.score(trial, predictor.model, ranks)
    summary: dict[str, Any] = {"checkpoint": str(predictor.path)}
    if ranks.is_first:
        asked = asdict(trial.evaluation.thr)
        if predictor.decision is not None and predictor.record["thr"] == asked:
            decision = Decision.from_record(predictor.decision)
        else:
            log.info("choosing the threshold anew on validation: thr differs from that of the checkpoint.")
            decision = trial.decide(scored, seed)
        summary |= trials.report(trial, scored, decision, predictor, seed, run_dir, loggers)
    barrier(ranks)
    return summary
