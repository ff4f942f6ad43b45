"""What training and testing share: the store, the labels of its splits, the scores of a model, and its report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.data.feature_store import FeatureStore, as_episodes, corpus_settings, open_store
from voxlab.data.laughter_labels import LabelSettings
from voxlab.errors import UserError
from voxlab.metrics.events import EpisodeScores
from voxlab.metrics.thresholds import EVENT_OBJECTIVES
from voxlab.parallel import Ranks
from voxlab.tasks.laughter import stores
from voxlab.tasks.laughter.data import View, check_shows, describe_split, read_split, shuffled
from voxlab.tasks.laughter.decide import Decision, check_folds, decide
from voxlab.tasks.laughter.eval_settings import EvalSettings
from voxlab.tasks.laughter.predict import REMEDY, Predictor, predict, without_scores

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_HAVE = "Labels need a corpus with annotated laughter: data=podcastfillers."


@dataclass(frozen=True)
class Trial:
    """A store, what is to be predicted from it, and how that is evaluated.

    Attributes:
        store: of the features.
        labels: settings, with the frame rate of the store.
        evaluation: settings.
        shuffle: seed of labels dealt out at random, in every split; None: the true ones.
    """

    store: FeatureStore
    labels: LabelSettings
    evaluation: EvalSettings
    shuffle: int | None = None
    _views: dict[str, list[View]] = field(default_factory=dict, init=False)

    @property
    def dim(self) -> int:
        """Numbers of a feature frame."""
        return int(self.store.features["dim"])

    @property
    def frame_rate(self) -> float:
        """Feature frames a second."""
        return float(self.store.features["frame_rate"])

    def views(self, split: str) -> list[View]:
        """Return the labelled views of a split, read once."""
        if split not in self._views:
            views = read_split(self.store, split, self.labels)
            self._views[split] = views if self.shuffle is None else shuffled(views, self.shuffle)
        return self._views[split]

    @property
    def splits(self) -> tuple[str, ...]:
        """Train and validation, and test where the store has it."""
        present = {episode.split for episode in self.store.episodes}
        return tuple(split for split in SPLITS if split != "test" or split in present)

    @property
    def scored_splits(self) -> list[str]:
        """Splits that a model scores at the end: train only where the threshold needs that."""
        return [split for split in self.splits if split != "train" or self.uses_train_scores]

    def scored_views(self) -> list[View]:
        """Return the views of these splits."""
        return [view for split in self.scored_splits for view in self.views(split)]

    def facts(self) -> dict[str, Any]:
        """Return what the splits hold."""
        facts: dict[str, Any] = {"store": str(self.store.folder), "features": self.store.features["name"]}
        for split in self.splits:
            facts |= describe_split(split, self.views(split), self.frame_rate)
        return facts

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint says about labels, features, remarks on these, and the choice of the threshold."""
        features = {"fingerprint": self.store.fingerprint, **_plain(self.store.settings)}
        thr, events = asdict(self.evaluation.thr), asdict(self.evaluation.events)
        thr |= {"calibrate": self.evaluation.eval.calibrate, **(events if self._counts_alarms else {})}
        flags = _plain(self.store.flags)
        return {"labels": self.labels.record(), "features": features, "flags": flags, "thr": thr, "events": events}

    def check_validation(self, monitor: str) -> None:
        """Refuse splits without the positive frames that something hangs on: before training, not after it.

        Raises:
            UserError: says what hangs on them.
        """
        positives = sum(view.scored.counts["positives"] for view in self.views("validation"))
        if not positives and (monitor != "val/loss" or self.evaluation.thr.value is None):
            raise UserError(
                "no validation frame is positive: AP and the threshold are undefined. Add episodes with laughter to "
                "that split, or set fit.monitor=val/loss and thr.value=<probability>."
            )
        self.check_threshold()

    @property
    def _counts_alarms(self) -> bool:
        return self.evaluation.thr.objective in EVENT_OBJECTIVES

    def check_threshold(self) -> None:
        """Refuse too few shows for thr.source=cv, and objectives of alarms where nothing is announced.

        Raises:
            UserError: says what is needed.
        """
        if self.labels.mode == "detect":
            if self._counts_alarms:
                raise UserError(
                    f"thr.objective={self.evaluation.thr.objective} counts alarms before a laugh, labels.mode=detect "
                    "marks the laugh itself: use thr.objective=f1, or another mode."
                )
            log.warning("labels.mode=detect: event figures count alarms before a laugh; they don't judge a detector.")
        if self.uses_train_scores:
            views = [*self.views("train"), *self.views("validation")]
            check_folds({view.episode.show for view in views if view.scored.counts["positives"]})

    @property
    def uses_train_scores(self) -> bool:
        """Whether the threshold is chosen on the training split too."""
        return self.evaluation.thr.source == "cv" and self.evaluation.thr.value is None

    def decide(self, scored: Mapping[str, Sequence[EpisodeScores]], seed: int, checkpoint: Path) -> Decision:
        """Calibrate the scores of a checkpoint, and choose the threshold, on validation.

        Raises:
            UserError: no threshold can be chosen, or scores are so large that no probability belongs to it.
        """
        decision = decide(scored["validation"], self.evaluation, train=scored["train"], seed=seed)
        threshold = decision.threshold
        if not np.isfinite([*decision.line, threshold.logit, threshold.logit_low]).all():
            raise UserError(
                f"{checkpoint}: its scores are too large for probabilities (threshold {threshold.logit:.4g}): training "
                f"has diverged. {REMEDY}"
            )
        return decision


def open_trial(
    store: str,
    features: Any,
    corpus: Any,
    labels: LabelSettings,
    evaluation: EvalSettings,
    allow_overlap: bool,
    extraction: str | None = None,
    known: str | None = None,
) -> Trial:
    """Open the store that fits the chosen features and data.

    Args:
        store: folder; with a `*` in its name, the one folder named so that fits.
        features: features node, not loaded; None takes what the store has.
        corpus: data node, not read; None likewise.
        labels: settings.
        evaluation: settings.
        allow_overlap: of shows between splits.
        extraction: words of the command line that choose corpus and features.
        known: fingerprint of the store that a checkpoint was trained on, taken where several fit.

    Raises:
        UserError: the corpus has no events, no store fits, it holds codes, or splits share shows.
    """
    if corpus is not None and as_episodes(corpus) is None:
        raise UserError(f"data: {type(corpus).__name__} has recordings without events, and so have its stores. {_HAVE}")
    wanted = None if features is None else _plain(features.settings())
    data = None if corpus is None else corpus_settings(corpus)
    try:
        found = open_store(Path(store), features=wanted, data=data, extraction=extraction, known=known)
    except UserError as error:
        raise UserError(f"{stores.hint_of_sample(store, corpus)}{error}") from error
    if found.episodes and not any(episode.has_events for episode in found.episodes):
        raise UserError(f"{found.folder} has no events: it was made from recordings without annotations. {_HAVE}")
    if found.features["dtype"] == "int16":
        raise UserError(
            f"{found.folder} holds codes: names of sounds, no quantities to compute with. Extract another feature "
            "(features=moshi, mimi_latent, mimi_quantized or logmel)."
        )
    check_shows(found, allow_overlap)
    return Trial(found, replace(labels, frame_rate=float(found.features["frame_rate"])), evaluation)


def score(trial: Trial, predictor: Predictor, ranks: Ranks) -> dict[str, list[EpisodeScores]]:
    """Score validation and test; train too where the threshold needs that, else its scores are 0. Collective.

    Raises:
        UserError: a score is not finite.
    """
    model = predictor.model.to(ranks.device)
    views = {split: trial.views(split) for split in trial.scored_splits}
    scored = {split: predict(model, own, ranks, ranks.device, predictor.path) for split, own in views.items()}
    return {"train": without_scores(trial.views("train")), **scored}


def report(
    trial: Trial,
    scored: Mapping[str, Sequence[EpisodeScores]],
    decision: Decision,
    predictor: Predictor,
    seed: int,
    run_dir: Path,
    loggers: Mapping[str, Any],
) -> dict[str, Any]:
    """Evaluate and write all files of it; on rank 0."""
    from voxlab.models.laughter import describe
    from voxlab.tasks.laughter import curves
    from voxlab.tasks.laughter.evaluate import evaluate

    kept = ("labels", "features", "flags", "loss", "fit", "sampling", "optim", "loop", "seed", "step")
    record = {name: predictor.record[name] for name in kept if name in predictor.record}
    log.info("measuring, with %d resamples for the intervals", trial.evaluation.eval.bootstrap)
    record["store"] = str(trial.store.folder)
    drawn = curves.sections(run_dir) if trial.evaluation.eval.plots == "all" else []
    return evaluate(
        train=list(scored["train"]),
        validation=list(scored["validation"]),
        test=list(scored.get("test", ())),
        settings=trial.evaluation,
        record={**record, "model": describe(predictor.model)},
        seed=seed,
        run_dir=run_dir,
        decision=decision,
        sections=[*drawn, *stores.sections(run_dir, trial.store.folder)],
        loggers=loggers,
    )


def _plain(values: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists, as JSON has them."""
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values
