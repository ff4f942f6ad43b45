"""Other frame rates and gaps: rotations turn the short way at constant speed, everything else goes straight."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import torch

from voxlab.motion.rotations import axis_angle_to_matrix, matrix_to_axis_angle, slerp


def resample(values: dict[str, np.ndarray], rate: float, fps: int) -> dict[str, np.ndarray]:
    """Sample motion at i / fps seconds, as far as it goes; an integer ratio takes every n-th frame as it is.

    Args:
        values: "poses" (T, 3 * joints) axis-angle; all others (T, n) go linearly.
        rate: present frames a second.
        fps: wanted frames a second.

    Returns:
        the same keys with floor((T - 1) * fps / rate) + 1 frames, float64.
    """
    step = Fraction(str(rate)) / fps
    length = len(values["poses"])
    count = int((length - 1) / step) + 1
    places = [step * index for index in range(count)]
    before = np.array([int(place) for place in places])
    weight = np.array([float(place - int(place)) for place in places])
    after = np.minimum(before + 1, length - 1)
    mixed = {}
    for key, array in values.items():
        if not weight.any():
            mixed[key] = array[before]
        elif key == "poses":
            mixed[key] = slerp_axis_angle(array[before], array[after], weight)
        else:
            mixed[key] = array[before] + (array[after] - array[before]) * weight[:, None]
    return mixed


def slerp_axis_angle(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Turn from `first` to `second` at constant speed: two (T, 3 * joints) and (T,) in 0 to 1 -> (T, 3 * joints)."""
    ends = [axis_angle_to_matrix(_by_joint(poses)) for poses in (first, second)]
    turned = slerp(ends[0], ends[1], torch.from_numpy(weight)[:, None])
    return matrix_to_axis_angle(turned).reshape(first.shape).numpy()


def _by_joint(poses: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(poses, np.float64).reshape(len(poses), -1, 3))


def bridge_gaps(array: np.ndarray, longest: int, *, rotations: bool) -> bool:
    """Replace frames with NaN or infinity by what lies between their good neighbours, in place.

    Args:
        array: (T, n) float64.
        longest: frames in a row that are filled at most.
        rotations: the columns are axis-angles, joint by joint.

    Returns:
        False, and the array is as it was, where a gap is longer or touches an end.
    """
    good = np.flatnonzero(np.isfinite(array).all(1))
    if not len(good) or good[0] != 0 or good[-1] != len(array) - 1 or np.diff(good).max(initial=1) > longest + 1:
        return False
    for left, right in pairwise(good):
        inside = np.arange(left + 1, right)
        if not len(inside):
            continue
        weight = (inside - left) / (right - left)
        first, second = (np.repeat(array[end : end + 1], len(inside), 0) for end in (left, right))
        array[inside] = (
            slerp_axis_angle(first, second, weight) if rotations else first + (second - first) * weight[:, None]
        )
    return True
