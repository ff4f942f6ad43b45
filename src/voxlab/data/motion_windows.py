"""Windows of fixed length over stored motion."""

from collections.abc import Sequence

import numpy as np


def window_starts(num_frames: int, length: int, stride: int) -> range:
    """Return the first frames of all windows that fit: (num_frames - length) // stride + 1 of them, or none."""
    return range(0, num_frames - length + 1, stride)


def gather(
    frames: Sequence[np.ndarray],
    clips: Sequence[int] | np.ndarray,
    starts: Sequence[int] | np.ndarray,
    length: int,
    columns: np.ndarray | None = None,
) -> np.ndarray:
    """Copy one batch of windows out of (memory-mapped) clips.

    Args:
        frames: (T, C) float32 of each clip.
        clips: (B,) which clip each window is from.
        starts: (B,) its first frame.
        length: L, frames of a window.
        columns: which of the C columns; None takes all.

    Returns:
        (B, L, C) float32, or (B, L, len(columns)).
    """
    width = frames[0].shape[1] if columns is None else len(columns)
    batch = np.empty((len(clips), length, width), np.float32)
    for row, (clip, start) in enumerate(zip(clips, starts, strict=True)):
        window = frames[clip][start : start + length]
        if len(window) < length:
            raise ValueError(f"clip {clip} has {len(frames[clip])} frames: none for {start} to {start + length - 1}")
        if columns is None:
            batch[row] = window
        else:
            np.take(window, columns, axis=1, out=batch[row])
    return batch
