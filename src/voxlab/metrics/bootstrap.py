"""Cluster bootstrap: episodes of one show resemble each other, so whole shows are drawn, with replacement."""

from collections.abc import Sequence

import numpy as np

MIN_CLUSTERS = 5


def draw_counts(num_clusters: int, *, resamples: int, seed: int) -> np.ndarray:
    """Return (B, C) int64: how often each resample holds each cluster; equal arguments give equal numbers.

    Two models measured on the same clusters share these draws: differences between them are then paired.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13.
    """
    drawn = np.random.default_rng(seed).integers(num_clusters, size=(resamples, num_clusters))
    slots = drawn + num_clusters * np.arange(resamples)[:, None]
    return np.bincount(slots.ravel(), minlength=resamples * num_clusters).reshape(resamples, num_clusters)


def number_clusters(names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the (n,) number of each name among the sorted distinct ones, and those."""
    distinct = sorted(set(names))
    place = {name: index for index, name in enumerate(distinct)}
    return np.array([place[name] for name in names], dtype=np.int64), distinct


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of (B,) resampled values, those that are not defined left out; NaN if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
