"""Episodes with made-up scores: a normal score with a lift in the frames before each onset."""

from typing import Any

import numpy as np

from voxlab.metrics.events import EpisodeScores
from voxlab.tasks.laughter.eval_settings import EvalSettings, read_settings

SHIFT = 5


def make_episode(
    number: int, *, split: str = "test", frames: int = 4500, events: int = 6, lift: float = 3.0, show: str | None = None
) -> EpisodeScores:
    """Make one episode; what is positive scores `lift` standard deviations higher, as a log-likelihood ratio."""
    generator = np.random.default_rng([number, len(split)])
    onsets = np.sort(generator.choice(np.arange(50, frames - 100, 60), events, replace=False)) if events else []
    onsets = np.asarray(onsets, dtype=np.int64)
    y, mask = np.zeros(frames, np.float32), np.ones(frames, bool)
    for onset in onsets:
        y[onset - SHIFT : onset] = 1
        mask[onset : onset + 10] = False
    noise = generator.standard_normal(frames) + lift * y
    prior = events * SHIFT / frames if events else 0.005
    logit = (lift * noise - lift**2 / 2 + np.log(prior / (1 - prior))).astype(np.float32)
    return EpisodeScores(
        key=f"{split}-{number:03d}",
        name=f"Show {number} & Co: episode?",
        show=show or f"show {number % 7}",
        split=split,
        logit=logit,
        y=y,
        mask=mask,
        onsets=onsets,
        spans=np.stack([onsets, onsets + 8], axis=1),
        energy=(generator.normal(-30, 5, frames) + 2 * y).astype(np.float32),
        vad=generator.uniform(0, 1, frames).astype(np.float32),
    )


def make_split(split: str, count: int, **options: Any) -> list[EpisodeScores]:
    """Make the episodes of a split."""
    return [make_episode(number, split=split, **options) for number in range(count)]


def make_settings(**nodes: dict[str, Any]) -> EvalSettings:
    """Make settings from parts of the nodes thr, events and eval."""
    return read_settings(
        nodes.get("thr", {}), nodes.get("events", {}), {"bootstrap": 100} | nodes.get("eval", {}), SHIFT
    )
