"""`Motion`: what a motion file holds, in the conventions of SMPL-X and BEAT2."""

from dataclasses import dataclass

import numpy as np

NUM_JOINTS = 55
NUM_EXPRESSIONS = 100
NUM_BETAS = 300


@dataclass(frozen=True)
class Motion:
    """The motion of one person.

    Attributes:
        poses: (T, 165) float32, axis-angle of 55 joints, joint-major, in radians.
        trans: (T, 3) float64, place of the root in metres, Y up.
        expressions: (T, 100) float32, coefficients of the face.
        betas: (300,) float32, shape of the body.
        fps: frames a second.
    """

    poses: np.ndarray
    trans: np.ndarray
    expressions: np.ndarray
    betas: np.ndarray
    fps: int

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.poses)
