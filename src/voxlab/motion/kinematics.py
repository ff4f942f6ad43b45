"""From rotations to places: forward kinematics of the 55 joints, and which feet stand still."""

import dataclasses
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from voxlab.motion.clip import NUM_JOINTS, Motion
from voxlab.motion.rotations import axis_angle_to_matrix
from voxlab.motion.skeleton import FOOT_JOINTS, HAND_JOINTS, PARENTS, Skeleton

CONTACT_SPEED = 0.3  # metres a second: 0.01 m a frame at 30 fps


def _levels() -> list[tuple[list[int], list[int]]]:
    """Return, for each depth of the tree below the root, its joints and where their parents lie in the level above."""
    levels, above = [], [0]
    while joints := [joint for joint, parent in enumerate(PARENTS) if parent in above]:
        levels.append((joints, [above.index(PARENTS[joint]) for joint in joints]))
        above = joints
    return levels


_LEVELS = _levels()
_ORDER = np.argsort([0, *(joint for joints, _ in _LEVELS for joint in joints)]).tolist()


def forward_kinematics(matrices: Tensor, trans: Tensor | None, skeleton: Skeleton) -> Tensor:
    """Return where the joints are, depth by depth of the tree; differentiable.

    Args:
        matrices: (..., 55, 3, 3) rotations from the parent, fingers with the resting hand included.
        trans: (..., 3) metres; None keeps the root in its resting place.
        skeleton: at rest.

    Returns:
        (..., 55, 3) metres, in the type of `matrices`.
    """
    offsets = torch.as_tensor(skeleton.offsets).to(matrices)
    place = offsets[:1].expand(*matrices.shape[:-3], 1, 3)
    places = [place if trans is None else place + trans[..., None, :]]
    turn = matrices[..., :1, :, :]
    for joints, parents in _LEVELS:
        turn = turn[..., parents, :, :]
        places.append(places[-1][..., parents, :] + (turn @ offsets[joints][..., None]).squeeze(-1))
        turn = turn @ matrices[..., joints, :, :]
    return torch.cat(places, dim=-2)[..., _ORDER, :]


def joint_positions(
    motion: Motion, skeleton: Skeleton, *, root: Literal["kept", "zeroed"] = "kept", trans: bool = True
) -> np.ndarray:
    """Return where the joints of a motion are.

    Args:
        motion: (T frames); its fingers are turned from the skeleton's resting hand, as those of BEAT2 are.
        skeleton: at rest.
        root: "zeroed" leaves out the rotation of the pelvis, so that the body always faces forward.
        trans: whether the body moves through space.

    Returns:
        (T, 55, 3) float32 metres.
    """
    poses = full_poses(motion, skeleton).poses.reshape(-1, NUM_JOINTS, 3)
    if root == "zeroed":
        poses = np.concatenate([np.zeros_like(poses[:, :1]), poses[:, 1:]], axis=1)
    moved = torch.from_numpy(motion.trans.astype(np.float32)) if trans else None
    return forward_kinematics(axis_angle_to_matrix(torch.from_numpy(poses)), moved, skeleton).numpy()


def full_poses(motion: Motion, skeleton: Skeleton) -> Motion:
    """Add the skeleton's resting hand to the poses of the fingers, as SMPL-X does before it turns them."""
    poses = motion.poses.reshape(-1, NUM_JOINTS, 3).astype(np.float32, copy=True)
    poses[:, HAND_JOINTS] += skeleton.hand_mean
    return dataclasses.replace(motion, poses=poses.reshape(len(poses), -1))


def foot_contacts(positions: np.ndarray, fps: float) -> np.ndarray:
    """Say which feet stand still: those slower than 0.01 m a frame at 30 fps until the next frame.

    Args:
        positions: (T, 55, 3) metres, with the movement through space.
        fps: frames a second.

    Returns:
        (T, 4) bool for left ankle, right ankle, left foot, right foot; the last frame counts as still.
    """
    feet = np.asarray(positions)[:, FOOT_JOINTS]
    steps = np.linalg.norm(np.diff(feet, axis=0, append=feet[-1:]), axis=-1)
    return steps < CONTACT_SPEED / fps
