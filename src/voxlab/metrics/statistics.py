"""A mean with its uncertainty: the percentile bootstrap over recordings."""

from collections.abc import Sequence

import numpy as np

_BLOCK = 1 << 22  # numbers drawn at once


def bootstrap_interval(
    values: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of the mean of `values` by the percentile bootstrap; equal input gives equal numbers.

    Args:
        values: one per recording, at least one.
        weights: above 0, one per recording, for a weighted mean; None: all alike.
        resamples: how often as many values are drawn, with replacement.
        seed: of the draws.
        level: share of the means of the draws that lie inside.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("there are no values to draw from")
    share = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    data, generator = np.asarray(values, dtype=np.float64) * share, np.random.default_rng(seed)
    rows = max(1, _BLOCK // len(data))
    means = []
    for start in range(0, resamples, rows):
        drawn = generator.integers(len(data), size=(min(rows, resamples - start), len(data)))
        means.append(data[drawn].sum(1) / share[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
