"""From scores to probabilities: Platt's line, and how far probabilities are off."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from voxlab.metrics.events import sigmoid

_L2 = 1e-4
_MIN_SLOPE = 1e-3
_MAX_STEPS = 100
_ENOUGH = 1e-10


@dataclass(frozen=True)
class Platt:
    """A calibrated logit is slope * logit + intercept.

    Args:
        slope: above 0, so that the order of scores stays.
        intercept: in logits.
        reason: why nothing was fitted; "" where something was.
    """

    slope: float = 1.0
    intercept: float = 0.0
    reason: str = ""

    def logit(self, raw: np.ndarray | float) -> np.ndarray:
        """Return calibrated logits in float64."""
        return self.slope * np.asarray(raw, dtype=np.float64) + self.intercept

    def probability(self, raw: np.ndarray | float) -> np.ndarray:
        """Return calibrated probabilities of raw logits, in float64."""
        return sigmoid(self.logit(raw))

    def raw(self, calibrated: float) -> float:
        """Return the raw logit of a calibrated one."""
        return (calibrated - self.intercept) / self.slope

    def record(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or a JSON file; `Platt(**record)` makes it again."""
        return asdict(self)


def fit_platt(raw: np.ndarray, y: np.ndarray, l2: float = _L2) -> Platt:
    """Fit slope and intercept by maximum likelihood, with a small pull of the slope towards 0.

    Newton's method on the mean loss + l2/2 * slope^2, which is convex. Scores that rank positives below negatives
    would get a negative slope and turn the order around; their slope stays at 0.001 instead.

    Args:
        raw: (N,) logits.
        y: (N,) bool.
        l2: strength of the pull.

    Returns:
        The line; the identity with its reason where a class is absent.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """
    if not y.any() or y.all():
        return Platt(reason=f"{'no' if not y.any() else 'only'} positives among {len(y)} frames")
    z, target = raw.astype(np.float64), y.astype(np.float64)
    slope, intercept = _newton(z, target, l2)
    if slope >= _MIN_SLOPE:
        return Platt(slope, intercept)
    return Platt(_MIN_SLOPE, _newton(z, target, l2, fixed_slope=_MIN_SLOPE)[1])


def _newton(z: np.ndarray, y: np.ndarray, l2: float, fixed_slope: float | None = None) -> tuple[float, float]:
    """Minimise the loss; from where all scores are equal, with halved steps where a whole one would not descend."""
    mean = y.mean()
    line = np.array([0.0 if fixed_slope is None else fixed_slope, np.log(mean / (1 - mean))])
    free = np.array([fixed_slope is None, True])
    value = _loss(line, z, y, l2)
    for _ in range(_MAX_STEPS):
        p = sigmoid(line[0] * z + line[1])
        error, weight = p - y, p * (1 - p)
        gradient = np.array([(error @ z) / len(z) + l2 * line[0], error.mean()])
        cross = (weight @ z) / len(z)
        hessian = np.array([[(weight @ (z * z)) / len(z) + l2, cross], [cross, weight.mean() + 1e-12]])
        step = np.zeros(2)
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], gradient[free])
        size = 1.0
        while (trial := _loss(line - size * step, z, y, l2)) > value and size > 1e-6:
            size /= 2
        if size <= 1e-6 or np.abs(step).max() < _ENOUGH:
            break
        line, value = line - size * step, trial
    return float(line[0]), float(line[1])


def _loss(line: np.ndarray, z: np.ndarray, y: np.ndarray, l2: float) -> float:
    return log_loss(line[0] * z + line[1], y) + l2 / 2 * line[0] ** 2


def log_loss(logit: np.ndarray, y: np.ndarray) -> float:
    """Return the mean negative log likelihood in nats; NaN without frames."""
    if not len(y):
        return float("nan")
    z = logit.astype(np.float64)
    return float(np.mean(np.logaddexp(0, z) - z * y))


def brier(probability: np.ndarray, y: np.ndarray) -> float:
    """Return the mean squared error of probabilities; NaN without frames."""
    return float(np.mean((probability - y) ** 2)) if len(y) else float("nan")


@dataclass(frozen=True, eq=False)
class Reliability:
    """What probabilities promise and what came true, in bins of equally many frames.

    Args:
        probability: (K,) mean of each bin.
        frequency: (K,) share of positives in each bin.
        frames: (K,) number of frames.
    """

    probability: np.ndarray
    frequency: np.ndarray
    frames: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by frames; NaN without frames."""
        if not len(self.frames):
            return float("nan")
        return float(np.abs(self.probability - self.frequency) @ self.frames / self.frames.sum())


def reliability(probability: np.ndarray, y: np.ndarray, bins: int = 15) -> Reliability:
    """Split frames into `bins` of equal number by their probability, and compare.

    Source: Naeini, Cooper and Hauskrecht 2015 (expected calibration error), with bins of equal mass.
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    means = [[float(values[part].mean()) for part in parts] for values in (probability, y.astype(np.float64))]
    return Reliability(np.array(means[0]), np.array(means[1]), np.array([len(part) for part in parts], dtype=np.int64))
