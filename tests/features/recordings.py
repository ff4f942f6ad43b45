"""Recordings of noise for the tests of features, and helpers that run an extractor over them."""

from collections.abc import Iterable

import numpy as np
import torch

from voxlab.features.base import Features, Recording


def make_recording(key: str, num_frames: int, hop_length: int, *, short: int = 77, agent: bool = False) -> Recording:
    """Noise of `num_frames` frames less `short` samples; its seed is the key."""
    generator = torch.Generator().manual_seed(sum(map(ord, key)))
    samples = num_frames * hop_length - short
    other = 0.1 * torch.randn(1, samples, generator=generator)
    speaker = 0.1 * torch.randn(1, samples, generator=generator) if agent else None
    return Recording(key, num_frames, lambda: (speaker, other))


def extract(features: Features, recordings: Iterable[Recording]) -> dict[tuple[str, str], np.ndarray]:
    """Join the chunks of every key and name; checks that they are consecutive and that `last` is the last."""
    chunks: dict[tuple[str, str], list[np.ndarray]] = {}
    done: set[tuple[str, str]] = set()
    for chunk in features.stream(recordings):
        place = chunk.key, chunk.name
        parts = chunks.setdefault(place, [])
        assert place not in done
        assert chunk.start == sum(map(len, parts))
        assert len(chunk.values)
        parts.append(chunk.values)
        done |= {place} if chunk.last else set()
    assert done == set(chunks)
    return {place: np.concatenate(parts) for place, parts in chunks.items()}


def frames_of(features: Features, recording: Recording) -> np.ndarray:
    """Extract one recording's features as float64."""
    return extract(features, [recording])[recording.key, "features"].astype(np.float64)
