"""Motion as a BVH file, which animation programs read: the tree of joints, and Euler angles frame by frame."""

import io
from pathlib import Path

import numpy as np
import torch

from voxlab.motion.clip import NUM_JOINTS, Motion
from voxlab.motion.kinematics import full_poses
from voxlab.motion.rotations import axis_angle_to_matrix
from voxlab.motion.skeleton import JOINT_NAMES, PARENTS, Skeleton
from voxlab.storage import atomic_write_bytes

_CENTIMETRES = 100
_ROTATIONS = "Zrotation Xrotation Yrotation"
_CHILDREN = tuple([child for child, parent in enumerate(PARENTS) if parent == joint] for joint in range(NUM_JOINTS))


def write_bvh(path: Path, motion: Motion, skeleton: Skeleton) -> None:
    """Write a motion as BVH: centimetres, degrees, rotations as Z times X times Y, the skeleton's rest as offsets.

    The resting hand is part of the fingers' rotations, so programs see the true pose. Expressions have no place in BVH:
    see `expressions_csv`.
    """
    poses = torch.from_numpy(full_poses(motion, skeleton).poses.astype(np.float64)).unflatten(-1, (NUM_JOINTS, 3))
    degrees = np.degrees(np.unwrap(_euler_zxy(axis_angle_to_matrix(poses).numpy()), axis=0))
    order = _depth_first(0)
    root = (motion.trans + skeleton.offsets[0]) * _CENTIMETRES
    values = np.concatenate([root, degrees[:, order].reshape(len(degrees), -1)], axis=1)
    text = io.StringIO()
    text.write("HIERARCHY\n" + "\n".join(_describe(0, skeleton.offsets * _CENTIMETRES, "")))
    text.write(f"\nMOTION\nFrames: {len(values)}\nFrame Time: {1 / motion.fps:.8f}\n")
    np.savetxt(text, values, fmt="%.5f")
    atomic_write_bytes(path, text.getvalue().encode())


def _euler_zxy(matrices: np.ndarray) -> np.ndarray:
    """Return the (..., 3) angles z, x, y in radians of (..., 3, 3) rotations, matrix = Z(z) X(x) Y(y).

    Where x is a right angle, y and z turn about one axis: y is 0 then.
    """
    sine = matrices[..., 2, 1]
    cosine = np.hypot(matrices[..., 2, 0], matrices[..., 2, 2])
    locked = cosine < 1e-8
    z = np.where(
        locked,
        np.arctan2(matrices[..., 1, 0], matrices[..., 0, 0]),
        np.arctan2(-matrices[..., 0, 1], matrices[..., 1, 1]),
    )
    y = np.where(locked, 0, np.arctan2(-matrices[..., 2, 0], matrices[..., 2, 2]))
    return np.stack([z, np.arctan2(sine, cosine), y], axis=-1)


def _depth_first(joint: int) -> list[int]:
    return [joint, *(below for child in _CHILDREN[joint] for below in _depth_first(child))]


def _describe(joint: int, offsets: np.ndarray, indent: str) -> list[str]:
    """Return the lines of a joint and of what hangs on it; a joint with nothing on it ends in a bone like its own."""
    place = " ".join(f"{value:.5f}" for value in offsets[joint])
    inner = indent + "  "
    if joint == 0:
        head, place, channels = f"{indent}ROOT", "0.00000 0.00000 0.00000", "6 Xposition Yposition Zposition "
    else:
        head, channels = f"{indent}JOINT", "3 "
    lines = [f"{head} {JOINT_NAMES[joint]}", indent + "{", f"{inner}OFFSET {place}"]
    lines.append(f"{inner}CHANNELS {channels}{_ROTATIONS}")
    for child in _CHILDREN[joint]:
        lines += _describe(child, offsets, inner)
    if not _CHILDREN[joint]:
        lines += [f"{inner}End Site", inner + "{", f"{inner}  OFFSET {place}", inner + "}"]
    return [*lines, indent + "}"]
