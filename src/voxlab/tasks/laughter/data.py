"""What a run reads: the views of each split, with their labels."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from voxlab.data.feature_store import FeatureStore, StoredEpisode
from voxlab.data.frame_blocks import LabelledView
from voxlab.data.laughter_labels import Labels, LabelSettings, compute_labels
from voxlab.errors import UserError


@dataclass(frozen=True)
class View:
    """One view of one episode with its labels.

    Attributes:
        episode: whose.
        index: of the view.
        features: (T, D), by slice.
        labels: what is to be predicted.
        scored: labels that it is evaluated with: those of labels.mode=window where that is horizon, else `labels`.
        alone: True: the views of its episode have labels of their own, and are scored one by one.
    """

    episode: StoredEpisode
    index: int
    features: Any
    labels: Labels
    scored: Labels
    alone: bool = False


def read_split(store: FeatureStore, name: str, settings: LabelSettings) -> list[View]:
    """Open and label the views of a split.

    Raises:
        UserError: the split is empty, an annotation is wrong, or a file is damaged.
    """
    return [view for episode in store.split(name) for view in _views(episode, settings)]


def _views(episode: StoredEpisode, settings: LabelSettings) -> Iterator[View]:
    for view in episode.views:
        index = int(view["index"])
        given: dict[str, Any] = {"user": view.get("user"), "name": f"{episode.split}/{episode.name}"}
        given |= {"context_frames": episode.context_frames(), "known_speakers": episode.speakers}
        events, features = episode.events(), episode.features(index)
        labels = scored = compute_labels(events, episode.num_frames, settings, **given)
        if settings.mode == "horizon":
            scored = compute_labels(events, episode.num_frames, replace(settings, mode="window"), **given)
        yield View(episode, index, features, labels, scored, alone=settings.speakers == "user")


def check_shows(store: FeatureStore, allow: bool) -> None:
    """Refuse shows that occur in several splits: the model would know the voices that it is tested on.

    Raises:
        UserError: names the shows.
    """
    splits: dict[str, set[str]] = {}
    for episode in store.episodes:
        splits.setdefault(episode.show, set()).add(episode.split)
    shared = sorted(show for show, names in splits.items() if len(names) > 1)
    if shared and not allow:
        raise UserError(
            f"{len(shared)} shows are in more than one split: {', '.join(shared[:10])}. Scores on voices that were "
            "trained on are too good. Deal the splits by show, or set data.allow_show_overlap=true."
        )


def describe_split(name: str, views: Sequence[View], frame_rate: float) -> dict[str, Any]:
    """Return what a split holds: hours, frames, events, positives, prior, episodes without events.

    Views with labels of their own (labels.speakers=user) count each, others once an episode.
    """
    first = {view.episode.key: view for view in views if view.index == min(v["index"] for v in view.episode.views)}
    counted = list(views) if any(view.alone for view in views) else list(first.values())
    counts = Counter[str]()
    for view in counted:
        counts.update(view.scored.counts)
    frames = sum(len(view.scored.y) for view in counted)
    valid = sum(int(view.scored.mask.sum()) for view in counted)
    hours = frames / frame_rate / 3600
    empty = sum(view.scored.counts["events"] == 0 for view in counted)
    return {
        f"{name}_episodes": len(first),
        f"{name}_hours": round(hours, 4),
        f"{name}_frames": frames,
        f"{name}_events": counts["events"],
        f"{name}_events_merged": counts["merged"],
        f"{name}_events_per_hour": round(counts["events"] / max(hours, 1e-9), 2),
        f"{name}_positives": counts["positives"],
        f"{name}_ignored": counts["ignored"],
        f"{name}_past_end": counts["n_past_end"],
        f"{name}_unpredictable": counts["n_unpredictable"],
        f"{name}_prior": counts["positives"] / max(valid, 1),
        f"{name}_episodes_without_events": empty,
    }


def shuffled(views: Sequence[View], seed: int) -> list[View]:
    """Return views whose unmasked targets are dealt out at random over all of them: there is nothing to learn."""
    pooled = np.concatenate([view.labels.y[view.labels.mask] for view in views])
    np.random.default_rng(seed).shuffle(pooled)
    parts = np.split(pooled, np.cumsum([int(view.labels.mask.sum()) for view in views])[:-1])
    dealt = []
    for view, part in zip(views, parts, strict=True):
        y = view.labels.y.copy()
        y[view.labels.mask] = part
        labels = replace(view.labels, y=y)
        dealt.append(replace(view, labels=labels, scored=labels))
    return dealt


def labelled(views: Sequence[View], weights: Sequence[np.ndarray]) -> list[LabelledView]:
    """Return what training reads.

    Raises:
        UserError: features and labels differ in length.
    """
    numbers = {key: number for number, key in enumerate(dict.fromkeys(view.episode.key for view in views))}
    return [
        LabelledView(view.features, view.labels.y, view.labels.mask, weight, numbers[view.episode.key])
        for view, weight in zip(views, weights, strict=True)
    ]
