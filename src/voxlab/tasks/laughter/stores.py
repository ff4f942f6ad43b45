"""Which store of features a run reads: the one it began with, the one there is, or log-mels of the sample, made first.

A `*` in `store` stands for whatever features are there.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

from voxlab.data.build_lock import alone
from voxlab.data.feature_store import corpus_settings, has_finished
from voxlab.models.checkpoints import load_checkpoint
from voxlab.parallel import Ranks, gather
from voxlab.report import Section, notice
from voxlab.tasks.checkpoints import CHECKPOINTS, LAST

log = logging.getLogger(__name__)

_OF_SAMPLE = {"sample": True}
_EXTRACTION, _FEATURES = "extract", "logmel"


def begun_with(store: str, run_dir: Path) -> str | None:
    """Return the fingerprint of the store that this run is trained on already; None at its start."""
    last = run_dir / CHECKPOINTS / LAST
    if "*" not in store or not last.is_file():
        return None
    return load_checkpoint(last, mmap=True)["voxlab"]["features"]["fingerprint"]


def needs_sample(store: str, features: Any, corpus: Any, ranks: Ranks) -> bool:
    """Whether features of the sample corpus have to be made: none are there, and none were chosen. Collective."""
    if "*" not in store or features is not None or getattr(corpus, "source", None) != "sample":
        return False
    return any(gather(ranks, not has_finished(store, corpus_settings(corpus))))


def hint_of_sample(store: str, corpus: Any) -> str:
    """Return a line where the data are not there, but features of the sample are; else nothing."""
    if getattr(corpus, "source", None) != "disk" or Path(corpus.root).is_dir() or not has_finished(store, _OF_SAMPLE):
        return ""
    return (
        f"data.root={corpus.root} does not exist; give data.root=DIR, or data.source=sample for the sample, whose "
        "features are there.\n"
    )


def extract_sample(store: str, corpus: Any, ranks: Ranks, run_dir: Path, *, dry_run: bool) -> dict[str, Any]:
    """Write the sample corpus and its log-mel features, as task=extract features=logmel does. Collective.

    Args:
        store: with `*` where the name of the features belongs.
        corpus: the sample.
        ranks: this process among its peers.
        run_dir: gets the page of the extraction, in the folder `extract`.
        dry_run: only plan that.

    Returns:
        Where the features are, or would be; in a dry run with the plan.
    """
    from voxlab.features.logmel import LogMelFeatures
    from voxlab.tasks.extract.features import extract_features

    out = store.replace("*", _FEATURES)
    if ranks.is_first:
        log.info("no features of the sample corpus are here: the run begins with its log-mels, in %s", out)
    place: dict[str, Any] = {"ranks": ranks, "run_dir": run_dir / _EXTRACTION, "verify": "size", "max_bad": 0.0}
    if dry_run:
        plan = extract_features(corpus, LogMelFeatures(), out, dry_run=True, **place)
        if ranks.is_first:
            log.info("the training is not in this plan: it can be planned once these features are there")
        return {**plan, "store": out, "features": _FEATURES}
    with alone(Path(out)) if ranks.is_first else contextlib.nullcontext():  # jobs of a sweep may want it at once
        extract_features(corpus, LogMelFeatures(), out, dry_run=False, **place)
    return {"store": out, "features": _FEATURES}


def sections(run_dir: Path, store: Path) -> list[Section]:
    """Return the remark that the features were made by this run, if they were."""
    page = run_dir / _EXTRACTION / "report.html"
    if not page.is_file():
        return []
    return [notice(f"This run began by extracting log-mel features of the sample corpus: {store}.", "info")]
