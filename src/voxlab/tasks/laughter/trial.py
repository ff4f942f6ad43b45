"""What training and testing share: the store, the labels of its splits, the scores of a model, and its report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from voxlab.data.feature_store import FeatureStore, corpus_settings, open_store
from voxlab.data.laughter_labels import LabelSettings
from voxlab.errors import UserError
from voxlab.metrics.events import EpisodeScores
from voxlab.models.laughter import LaughterModel
from voxlab.parallel import Ranks
from voxlab.tasks.laughter.data import View, check_shows, describe_split, read_split, shuffled
from voxlab.tasks.laughter.decide import Decision, decide
from voxlab.tasks.laughter.eval_settings import EvalSettings
from voxlab.tasks.laughter.predict import Predictor, predict, without_scores

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")


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

    def facts(self) -> dict[str, Any]:
        """Return what the splits hold."""
        facts: dict[str, Any] = {"store": str(self.store.folder), "features": self.store.features["name"]}
        for split in SPLITS:
            facts |= describe_split(split, self.views(split), self.frame_rate)
        return facts

    def record(self) -> dict[str, Any]:
        """Return what a checkpoint says about labels, features, remarks on these, and the choice of the threshold."""
        features = {"fingerprint": self.store.fingerprint, **_plain(self.store.settings)}
        flags, thr = _plain(self.store.flags), asdict(self.evaluation.thr)
        return {"labels": self.labels.record(), "features": features, "flags": flags, "thr": thr}

    def check_validation(self, monitor: str) -> None:
        """Refuse a validation split without positive frames, where something hangs on them.

        Raises:
            UserError: says what hangs on them.
        """
        positives = sum(view.scored.counts["positives"] for view in self.views("validation"))
        if not positives and (monitor != "val/loss" or self.evaluation.thr.value is None):
            raise UserError(
                "no validation frame is positive: AP and the threshold are undefined. Add episodes with laughter to "
                "that split, or set fit.monitor=val/loss and thr.value=<probability>."
            )

    def decide(self, scored: Mapping[str, Sequence[EpisodeScores]], seed: int) -> Decision:
        """Calibrate, and choose the threshold, on validation."""
        return decide(scored["validation"], self.evaluation, train=scored["train"], seed=seed)


def open_trial(
    store: str, features: Any, corpus: Any, labels: LabelSettings, evaluation: EvalSettings, allow_overlap: bool
) -> Trial:
    """Open the store that fits the chosen features and data.

    Args:
        store: folder.
        features: features node, not loaded; None takes what the store has.
        corpus: data node, not read; None likewise.
        labels: settings.
        evaluation: settings.
        allow_overlap: of shows between splits.

    Raises:
        UserError: no store fits, it holds codes, or splits share shows.
    """
    wanted = None if features is None else _plain(features.settings())
    found = open_store(Path(store), features=wanted, data=None if corpus is None else corpus_settings(corpus))
    if found.features["dtype"] == "int16":
        raise UserError(
            f"{found.folder} holds codes: names of sounds, no quantities to compute with. Extract another feature "
            "(features=moshi, mimi_latent, mimi_quantized or logmel)."
        )
    check_shows(found, allow_overlap)
    return Trial(found, replace(labels, frame_rate=float(found.features["frame_rate"])), evaluation)


def score(trial: Trial, model: LaughterModel, ranks: Ranks) -> dict[str, list[EpisodeScores]]:
    """Score validation and test; train too where the threshold needs that, else its scores are 0. Collective."""
    model.to(ranks.device)
    scored = {split: predict(model, trial.views(split), ranks, ranks.device) for split in ("validation", "test")}
    needs_train = trial.evaluation.thr.source == "cv" and trial.evaluation.thr.value is None
    train = trial.views("train")
    scored["train"] = predict(model, train, ranks, ranks.device) if needs_train else without_scores(train)
    return scored


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
    from voxlab.tasks.laughter.curves import sections
    from voxlab.tasks.laughter.evaluate import evaluate

    kept = ("labels", "features", "flags", "loss", "fit", "seed", "step")
    record = {name: predictor.record[name] for name in kept if name in predictor.record}
    return evaluate(
        train=list(scored["train"]),
        validation=list(scored["validation"]),
        test=list(scored["test"]),
        settings=trial.evaluation,
        record={**record, "model": describe(predictor.model)},
        seed=seed,
        run_dir=run_dir,
        decision=decision,
        sections=sections(run_dir),
        loggers=loggers,
    )


def _plain(values: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists, as JSON has them."""
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    return [_plain(value) for value in values] if isinstance(values, list | tuple) else values
