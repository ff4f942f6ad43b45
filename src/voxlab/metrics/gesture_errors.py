"""How far motion is from its reference: normalised parts, angles, joint positions, root, feet."""

import numpy as np
import torch

from voxlab.motion.kinematics import foot_contacts
from voxlab.motion.parts import ROTATION_DIM
from voxlab.motion.rotations import geodesic, sixd_to_matrix
from voxlab.motion.skeleton import FOOT_JOINTS


def part_errors(predicted: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Return mse, l1 and velocity_l1 of a part's normalised values.

    Args:
        predicted: (T, D), T >= 2.
        reference: (T, D).
    """
    difference = predicted.astype(np.float64) - reference
    return {
        "mse": float((difference**2).mean()),
        "l1": float(np.abs(difference).mean()),
        "velocity_l1": float(np.abs(np.diff(difference, axis=0)).mean()),
    }


def joint_angles(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the (55,) mean angle in degrees between the rotations of two motions.

    Args:
        predicted: (T, 433) frames, or any whose first 330 columns are 6D rotations.
        reference: the same.
    """
    first, second = (
        sixd_to_matrix(torch.as_tensor(frames[:, :ROTATION_DIM]).double().reshape(len(frames), -1, 6))
        for frames in (predicted, reference)
    )
    return np.rad2deg(geodesic(first, second).mean(0).numpy())


def joint_distances(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the (J,) mean distance, in centimetres, of positions (T, J, 3) in metres."""
    return 100 * np.linalg.norm(predicted.astype(np.float64) - reference, axis=-1).mean(0)


def foot_skate(predicted: np.ndarray, reference: np.ndarray, fps: int) -> float | None:
    """Return the mean speed, m/s, of predicted feet while the reference's stand; None if they never do.

    Args:
        predicted: (T, 55, 3) metres with translation, T >= 2.
        reference: the same.
        fps: frames a second.
    """
    stands = foot_contacts(reference, fps)[:-1]
    feet = predicted[:, list(FOOT_JOINTS)].astype(np.float64)
    speeds = np.linalg.norm(np.diff(feet, axis=0), axis=-1) * fps
    return float(speeds[stands].mean()) if stands.any() else None


def root_drift(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return how far apart, in metres on the ground, two roots end that begin at one place.

    Args:
        predicted: (T, 3), Y up.
        reference: (T, 3).
    """
    ways = (motion[-1, [0, 2]] - motion[0, [0, 2]] for motion in (predicted, reference))
    first, second = ways
    return float(np.linalg.norm(first - second))
