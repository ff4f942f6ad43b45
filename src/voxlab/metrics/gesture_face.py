"""How far a face is off: squared error and both quantities that go by the name of LVD."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FaceErrors:
    """Errors of one clip, of vertices in metres or of coefficients.

    Attributes:
        mse: mean of the squared differences.
        lvd: mean |Δpredicted − Δreference| of consecutive frames: its T−1 differences are divided by T, as in the
            published tool. 0 for a prediction that is off by a constant.
        position_l1: mean |predicted − reference| without the first frame, divided by T: what older tools print as LVD.
    """

    mse: float
    lvd: float
    position_l1: float


def face_errors(predicted: np.ndarray, reference: np.ndarray) -> FaceErrors:
    """Compare two faces.

    Args:
        predicted: (T, ...), T >= 2: vertices (T, V, 3), or coefficients (T, C).
        reference: the same shape.

    Raises:
        ValueError: the shapes differ, or there is one frame only.
    """
    if predicted.shape != reference.shape or len(predicted) < 2:
        raise ValueError(f"two frames or more of one shape are needed, not {predicted.shape} and {reference.shape}")
    difference = (np.asarray(predicted, dtype=np.float64) - reference).reshape(len(predicted), -1)
    return FaceErrors(
        mse=float((difference**2).mean()),
        lvd=float(np.abs(np.diff(difference, axis=0)).sum() / difference.size),
        position_l1=float(np.abs(difference[1:]).sum() / difference.size),
    )
