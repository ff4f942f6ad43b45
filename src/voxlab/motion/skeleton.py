"""The 55 joints of SMPL-X: names, parents, and where they are at rest (`Skeleton`): a rough one, or from a file."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from voxlab.errors import UserError
from voxlab.motion.clip import NUM_JOINTS

_BODY = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle"),
    *("spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
    *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    *("jaw", "left_eye", "right_eye"),
)
_FINGERS = tuple(f"{finger}{bone}" for finger in ("index", "middle", "pinky", "ring", "thumb") for bone in (1, 2, 3))
JOINT_NAMES = (*_BODY, *(f"left_{finger}" for finger in _FINGERS), *(f"right_{finger}" for finger in _FINGERS))

PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15),
    *(20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38),
    *(21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53),
)

UPPER_JOINTS = (3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21)
HAND_JOINTS = tuple(range(25, 55))
LOWER_JOINTS = (0, 1, 2, 4, 5, 7, 8, 10, 11)
JAW, EYES = 22, (23, 24)
FOOT_JOINTS = (7, 8, 10, 11)  # left and right ankle, left and right foot

# place from the parent in centimetres, +X the body's left, +Y up, +Z forward; the right side mirrors X
_CENTIMETRES: dict[int, tuple[float, float, float]] = {
    # The pelvis of SMPL-X hangs 35 cm below the point that a motion file's `trans` moves.
    **{0: (0, -35, 0), 1: (6, -9, -1), 3: (0, 11, -2), 4: (5, -38, 0), 6: (0, 13, 0), 7: (-2, -41, -3), 9: (0, 5, 2)},
    **{10: (3, -6, 12), 12: (0, 17, -3), 13: (5, 9, -2), 15: (0, 15, 2), 16: (11, 3, -1), 18: (25, -2, -2)},
    **{20: (25, 1, 0), 22: (0, -1, 2), 23: (3, 4, 8)},
    **{25: (10, 0, 2.5), 26: (3, 0, 0), 27: (2.2, 0, 0), 28: (10.5, 0.3, 0.3), 29: (3, 0, 0), 30: (2.5, 0, 0)},
    **{31: (8.5, -0.5, -3.5), 32: (2, 0, 0), 33: (1.8, 0, 0), 34: (9.7, 0, -1.8), 35: (2.8, 0, 0), 36: (2.4, 0, 0)},
    **{37: (4, -1, 3), 38: (2.5, 0, 2), 39: (2.5, 0, 1.5)},
}
KINDS = ("synthetic", "smplx", "npz")


@dataclass(frozen=True)
class Skeleton:
    """Where the joints of a body are at rest.

    Attributes:
        name: says where the numbers come from.
        offsets: (55, 3) float32, place of each joint from its parent in metres; of the root from the origin.
        hand_mean: (30, 3) float32, axis-angle of the resting fingers, which the poses of a motion are added to.
    """

    name: str
    offsets: np.ndarray
    hand_mean: np.ndarray = field(default_factory=lambda: np.zeros((len(HAND_JOINTS), 3), np.float32))


def synthetic_skeleton() -> Skeleton:
    """Return a rough skeleton that needs no licensed file: an adult, with straight fingers at rest."""
    offsets = np.zeros((NUM_JOINTS, 3), np.float32)
    for joint, place in _CENTIMETRES.items():
        offsets[joint] = np.asarray(place, np.float64) / 100
        if JOINT_NAMES[joint].startswith("left_"):
            mirrored = JOINT_NAMES.index(JOINT_NAMES[joint].replace("left_", "right_"))
            offsets[mirrored] = offsets[joint] * (-1, 1, 1)
    return Skeleton("synthetic", offsets)


def load_skeleton(kind: str, path: str | None = None, betas: np.ndarray | None = None) -> Skeleton:
    """Return a skeleton by its kind.

    Args:
        kind: "synthetic"; "smplx", the body model of one identity; "npz", a file with `offsets` (55, 3) in metres and,
            if it likes, `hand_mean` (30, 3) in radians.
        path: of the body model (its folder or file) or of the npz.
        betas: (300,) shape of the body, for "smplx"; None is the mean body.

    Raises:
        UserError: an unknown kind, a missing path or file, or numbers of the wrong shape.
    """
    if kind not in KINDS:
        raise UserError(f"body.skeleton={kind}: choose one of {', '.join(KINDS)}.")
    if kind == "synthetic":
        return synthetic_skeleton()
    if path is None:
        raise UserError(f"body.skeleton={kind} needs body.path=...; or choose body.skeleton=synthetic.")
    if kind == "npz":
        return _read_offsets(Path(path).expanduser())
    from voxlab.motion.smplx_model import read_skeleton

    return read_skeleton(path, betas)


def _read_offsets(path: Path) -> Skeleton:
    wanted = {"offsets": (NUM_JOINTS, 3), "hand_mean": (len(HAND_JOINTS), 3)}
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name], np.float32) for name in wanted if name in file.files}
    except FileNotFoundError:
        raise UserError(f"body.path={path}: there is no such file; give an npz with offsets (55, 3).") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"body.path={path} is not an npz of plain numbers ({error}).") from None
    if "offsets" not in found:
        raise UserError(f"body.path={path}: no key `offsets`; give the places of {NUM_JOINTS} joints, (55, 3) metres.")
    for name, values in found.items():
        if values.shape != wanted[name] or not np.isfinite(values).all():
            raise UserError(
                f"body.path={path}: `{name}` has shape {values.shape}; finite numbers {wanted[name]} are needed."
            )
    return Skeleton(f"npz:{path.name}", **found)
