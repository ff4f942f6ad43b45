"""A frame as networks see it: 433 numbers = 55 rotations (6D), (vx, y, vz) of the root, 100 expressions; and back.

The root's steps vx and vz are metres per 1/30 s (per frame at 30 fps) at any frame rate, so that statistics of one rate
fit another; its height y is metres above the ground.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch

from voxlab.motion.clip import NUM_BETAS, NUM_JOINTS, Motion
from voxlab.motion.parts import EXTRAS, FRAME_DIM, ROTATION_DIM, Layout, columns
from voxlab.motion.rotations import axis_angle_to_6d, sixd_to_axis_angle
from voxlab.motion.skeleton import JAW

STEP_FPS = 30
TransMode = Literal["velocity", "legacy", "none"]
_TRANSLATION, _EXPRESSIONS = EXTRAS["translation"], EXTRAS["expressions"]
_IDENTITY = np.array([1, 0, 0, 0, 1, 0], np.float32)


def differentiate(trans: np.ndarray, mode: TransMode = "velocity") -> np.ndarray:
    """Turn the path of the root into steps on the ground and height.

    Args:
        trans: (T, 3) metres, Y up.
        mode: "velocity": the first step is 0, so `integrate` is exact; "legacy": the first step repeats the second,
            as earlier statistics and tokenizers have it, which shifts the path by that step; "none": in place.

    Returns:
        (T, 3) float64: x step, height, z step, in metres; steps are per frame.
    """
    path = np.asarray(trans, np.float64)
    steps = np.diff(path, axis=0, prepend=path[:1])
    if mode == "legacy" and len(path) > 1:
        steps[0] = steps[1]
    if mode == "none":
        steps[:] = 0
    steps[:, 1] = path[:, 1]
    return steps


def integrate(values: np.ndarray, start_xz: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Turn (T, 3) steps and heights back into a (T, 3) float64 path in metres whose steps start from `start_xz`."""
    path = np.cumsum(np.asarray(values, np.float64), axis=0)
    path[:, 1] = values[:, 1]
    return path + np.array([start_xz[0], 0.0, start_xz[1]])


def to_frames(motion: Motion, trans: TransMode = "velocity") -> np.ndarray:
    """Return the (T, 433) float32 frames of a motion; `trans` as the mode of `differentiate`."""
    poses = torch.from_numpy(motion.poses.astype(np.float64)).unflatten(-1, (NUM_JOINTS, 3))
    steps = differentiate(motion.trans, trans)
    steps[:, ::2] *= motion.fps / STEP_FPS
    rotations = axis_angle_to_6d(poses).flatten(-2).numpy()
    return np.concatenate([rotations, steps, motion.expressions], axis=1).astype(np.float32)


def from_frames(
    frames: np.ndarray,
    *,
    fps: int,
    betas: np.ndarray | None = None,
    start_xz: tuple[float, float] = (0.0, 0.0),
    trans: TransMode = "velocity",
) -> Motion:
    """Turn frames back into a motion.

    Args:
        frames: (T, 433) numbers; the rotations need not be exactly orthogonal.
        fps: frames a second.
        betas: (300,) shape of the body; None is the mean body, all zero.
        start_xz: where the path starts, in metres.
        trans: "none" keeps the body in place whatever the frames say.

    Raises:
        ValueError: the frames have another width, or numbers that are not finite.
    """
    values = np.asarray(frames, np.float64)
    if values.ndim != 2 or values.shape[1] != FRAME_DIM:
        raise ValueError(f"frames of shape {values.shape}: (T, {FRAME_DIM}) are needed")
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise ValueError(f"frame {bad} of {len(values)} holds numbers that are not finite")
    rotations = torch.from_numpy(values[:, :ROTATION_DIM]).unflatten(-1, (NUM_JOINTS, 6))
    steps = values[:, _TRANSLATION] * (STEP_FPS / fps, 1, STEP_FPS / fps)
    if trans == "none":
        steps[:, ::2] = 0
    return Motion(
        poses=sixd_to_axis_angle(rotations).flatten(-2).numpy().astype(np.float32),
        trans=integrate(steps, start_xz),
        expressions=values[:, _EXPRESSIONS].astype(np.float32),
        betas=np.zeros(NUM_BETAS, np.float32) if betas is None else np.asarray(betas, np.float32),
        fps=fps,
    )


def assemble(
    parts: Mapping[str, np.ndarray],
    layout: Layout,
    *,
    jaw_mean: np.ndarray | None = None,
    base: np.ndarray | None = None,
) -> np.ndarray:
    """Put parts together to whole frames.

    Args:
        parts: name -> (T, D_p) raw values.
        layout: that they are parts of.
        jaw_mean: (6,) rotation of the jaw, needed where the layout doesn't predict it and there is no `base`.
        base: (T, 433) raw frames that give what `parts` doesn't hold. None: joints that no part of the layout holds
            stay unturned, extras are 0, and every part must be given.

    Returns:
        (T, 433) float32 raw frames.

    Raises:
        ValueError: a part is missing, unknown, or of another shape; or the rotation of the jaw is missing.
    """
    missing = [part.name for part in layout.parts if part.name not in parts]
    unknown = [name for name in parts if name not in layout.table]
    if unknown or not parts or (missing and base is None):
        raise ValueError(f"parts {sorted(parts)} given; layout {layout.name} has {sorted(layout.table)}")
    num_frames = len(next(iter(parts.values())))
    frames = _resting(num_frames, layout, jaw_mean) if base is None else np.array(base, np.float32)
    for name, values in parts.items():
        part = layout.part(name)
        if values.shape != (len(frames), part.dim):
            raise ValueError(f"part {name} has shape {values.shape}; {(len(frames), part.dim)} is needed")
        frames[:, columns(part)] = values
    return frames


def _resting(num_frames: int, layout: Layout, jaw_mean: np.ndarray | None) -> np.ndarray:
    frame = np.zeros(FRAME_DIM, np.float32)
    frame[:ROTATION_DIM] = np.tile(_IDENTITY, NUM_JOINTS)
    if layout.jaw == "mean":
        if jaw_mean is None:
            raise ValueError(f"layout {layout.name} doesn't predict the jaw: give jaw_mean, of the training set")
        frame[6 * JAW : 6 * JAW + 6] = jaw_mean
    return np.tile(frame, (num_frames, 1))
