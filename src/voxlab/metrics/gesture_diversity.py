"""How much motion moves: L1 diversity, jerk, spread against a reference."""

import numpy as np

from voxlab.metrics.errors import NotMeasurable


def l1_diversity(values: np.ndarray) -> float:
    """Return Σ_t Σ_c |x_tc − mean_t x_c| / T of one clip: how far it strays from its own mean pose.

    A corpus' value is the mean over clips, weighted by their frames. The input is left as it is.

    Args:
        values: (T, ...), positions (T, 55, 3) in metres or any representation.

    Raises:
        ValueError: there are no frames.
    """
    if not len(values):
        raise ValueError("there are no frames")
    flat = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return float(np.abs(flat - flat.mean(0)).sum() / len(flat))


def mean_jerk(positions: np.ndarray, fps: float) -> float:
    """Return the mean norm of the third time derivative, m/s³, of positions (T, J, 3) in metres; forward differences.

    Raises:
        ValueError: there are fewer than four frames.
    """
    if len(positions) < 4:
        raise ValueError(f"a jerk needs four frames or more, not {len(positions)}")
    third = np.diff(positions.astype(np.float64), n=3, axis=0) * float(fps) ** 3
    return float(np.linalg.norm(third, axis=-1).mean())


def spread_ratio(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean over channels of std(predicted) over the mean of std(reference), both (T, C): 0 for a still.

    Raises:
        NotMeasurable: the reference is a still.
    """
    spread = reference.std(0).mean()
    if not spread > 0:
        raise NotMeasurable("the reference doesn't move")
    return float(predicted.std(0).mean() / spread)
