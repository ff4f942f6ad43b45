"""Rows of features at the times of other frames: when each row is, and straight lines between rows.

One clock for everything: seconds from the start of the recording, a frame is where its middle is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def frame_times(features: Mapping[str, Any], num_rows: int) -> np.ndarray:
    """Return when each row of a feature is.

    Args:
        features: what a store records of them (`FeatureStore.features`), or `Features.fingerprint()`: sample_rate,
            frame_rate, and `centre` (the sample in the middle of row 0). Without `centre` a row is in the middle of
            its hop, or, with align=decision, of the hop before: the last that it knows.
        num_rows: n.

    Returns:
        (n,) float64 seconds.
    """
    hop = features["sample_rate"] / features["frame_rate"]
    known = -0.5 if features.get("align") == "decision" else 0.5
    centre = features.get("centre", known * hop)
    return (centre + hop * np.arange(num_rows)) / features["sample_rate"]


def at_frames(rows: ArrayLike, times: np.ndarray, num_frames: int, fps: float) -> np.ndarray:
    """Interpolate rows linearly at the middles of frames, (i + 0.5) / fps; before the first and after the last, clamp.

    Args:
        rows: (n, D) of any number type, n >= 1.
        times: (n,) seconds, rising.
        num_frames: T.
        fps: frames a second.

    Returns:
        (T, D) float32.

    Raises:
        ValueError: there are no rows, or not one time for each.
    """
    values = np.asarray(rows)
    if not len(values) or times.shape != (len(values),):
        raise ValueError(f"rows of shape {values.shape} and times of shape {times.shape}: one time for each row")
    wanted = (np.arange(num_frames) + 0.5) / fps
    place = np.interp(wanted, times, np.arange(len(values)))
    left = place.astype(np.int64)
    right = np.minimum(left + 1, len(values) - 1)
    weight = (place - left).astype(np.float32)[:, None]
    start = values[left].astype(np.float32)
    return start + weight * (values[right].astype(np.float32) - start)
