"""Synthetic feature stores, as if extracted: Gaussian frames that move along one direction before each laugh."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.data.episodes import Event, View
from voxlab.data.feature_store import corpus_settings
from voxlab.data.podcastfillers import PodcastFillers
from voxlab.data.store_writer import EpisodeFacts, EpisodeWriter, begin_store, write_index
from voxlab.features.logmel import LogMelFeatures

FRAME_RATE = 12.5
SPLITS = {"train": 24, "validation": 8, "test": 8}


def settings(dim: int, dtype: str = "float16", corpus: PodcastFillers | None = None) -> dict[str, Any]:
    """What decides the bytes, as if these were the log-mels of PodcastFillers: `features=logmel` fits."""
    features = LogMelFeatures(num_bins=dim // 2).fingerprint()
    return {"features": {**features, "dtype": dtype}, "data": corpus_settings(corpus or PodcastFillers())}


def draw_onsets(generator: np.random.Generator, frames: int, count: int, gap: int = 60) -> np.ndarray:
    """Frames of `count` onsets, ascending, at least `gap` apart and from the borders."""
    free = frames - gap * (count + 1)
    return np.sort(generator.integers(0, free, count)) + gap * np.arange(1, count + 1)


def write_store(
    root: Path,
    *,
    splits: Mapping[str, int] = SPLITS,
    dim: int = 32,
    frames: int = 4500,
    events: int = 6,
    strength: float = 3.0,
    shift: int = 5,
    views: int = 1,
    seed: int = 0,
    corpus: PodcastFillers | None = None,
) -> Path:
    """Write a store; `strength` is how far the `shift` frames before an onset are moved along a unit vector.

    Returns:
        The folder that holds it.
    """
    generator = np.random.default_rng(seed)
    direction = generator.standard_normal(dim)
    direction /= np.linalg.norm(direction)
    about = settings(dim, corpus=corpus)
    folder = begin_store(root, about, {})
    listed = [(split, number) for split, count in splits.items() for number in range(count)]
    sides = (
        tuple(View(index, f"S{index}", (), None) for index in range(views)) if views > 1 else (View(0, None, (), None),)
    )
    for split, number in listed:
        onsets = draw_onsets(generator, frames, events)
        name = f"{split} show {number // 2}_episode {number}"
        facts = EpisodeFacts(
            f"{split}/{name}", name, f"{split} show {number // 2}", split, frames / FRAME_RATE, frames, sides
        )
        ahead = (onsets[:, None] - np.arange(1, shift + 1)).reshape(-1)
        with EpisodeWriter(folder, facts, dim=dim, dtype="float16") as writer:
            for view in range(views):
                values = generator.standard_normal((frames, dim))
                values[ahead] += strength * direction
                writer.add(view, 0, values.astype(np.float32))
            laughs = [Event("Laughter", s / FRAME_RATE, (s + 4) / FRAME_RATE, 1.0, None) for s in onsets]
            energy, vad = generator.standard_normal(frames) - 30, generator.random(frames)
            writer.finish(settings=about, events=laughs, vad=vad, energy=energy)
    episodes = {f"{split}/{split} show {number // 2}_episode {number}": split for split, number in listed}
    write_index(folder, episodes, {}, accepted=False)
    return root
