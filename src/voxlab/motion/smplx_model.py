"""The SMPL-X body through the `smplx` package: checks of its licensed file, resting skeleton, joints and vertices.

The file and the package are for non-commercial research (https://smpl-x.is.tue.mpg.de); neither is fetched for you.
"""

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.errors import UserError
from voxlab.motion.clip import NUM_BETAS, NUM_EXPRESSIONS, NUM_JOINTS, Motion
from voxlab.motion.skeleton import PARENTS, Skeleton

FILE_NAME = "SMPLX_NEUTRAL_2020.npz"
LEAST_VERTICES = 9930  # the package's extra keypoints name vertex 9929
SHAPE_COLUMNS = NUM_BETAS + NUM_EXPRESSIONS
BATCH = 128  # frames a forward pass: 60 MB of corrections a hundred frames
_BODY, _JAW, _EYE = slice(3, 66), slice(66, 69), (slice(69, 72), slice(72, 75))
_HANDS = slice(75, 120), slice(120, 165)
_WHERE = "Register at https://smpl-x.is.tue.mpg.de, or choose body.skeleton=synthetic."


def _wanted(num_vertices: int) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of the keys that the package reads; None: any size."""
    return {
        "v_template": (num_vertices, 3),
        "f": (None, 3),
        "shapedirs": (num_vertices, 3, None),
        "posedirs": (num_vertices, 3, 9 * (NUM_JOINTS - 1)),
        "J_regressor": (NUM_JOINTS, num_vertices),
        "kintree_table": (2, NUM_JOINTS),
        "weights": (num_vertices, NUM_JOINTS),
        **{f"hands_components{side}": (45, 45) for side in "lr"},
        **{f"hands_mean{side}": (45,) for side in "lr"},
        "lmk_faces_idx": (51,),
        "lmk_bary_coords": (51, 3),
    }


def find_model(path: str | Path) -> Path:
    """Return the body model's file: `path` itself, or in the folder `path` or its subfolder `smplx`.

    Raises:
        UserError: there is none, or its name doesn't begin with SMPLX_, which the package needs.
    """
    given = Path(path).expanduser()
    places = [given] if given.is_file() else [given / FILE_NAME, given / "smplx" / FILE_NAME]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"body.path={path}: neither a file nor a folder with {FILE_NAME} or smplx/{FILE_NAME}. {_WHERE}"
        )
    if not found.name.lower().startswith("smplx_") or found.suffix != ".npz":
        raise UserError(f"body.path={path}: rename {found.name} to {FILE_NAME}; the smplx package goes by the name.")
    return found


def check_model(file: Path) -> None:
    """Check the keys and shapes of a body model, which the package would take amiss later or in silence.

    Raises:
        UserError: not an npz, a key is missing or has another shape, too few vertices, too few shape columns (the
            package would go on with 10 coefficients of the face instead of 100), or another tree of joints.
    """
    shapes = _read_shapes(file)
    num_vertices = shapes.get("v_template", (0,))[0]
    wanted = _wanted(num_vertices)
    missing = [key for key in wanted if key not in shapes]
    if missing:
        raise UserError(f"{file}: no {', '.join(missing)}; a body model of SMPL-X has {', '.join(wanted)}. {_WHERE}")
    wrong = [
        f"{key} {shapes[key]}, needed {_spell(shape)}" for key, shape in wanted.items() if _other(shapes[key], shape)
    ]
    if wrong:
        raise UserError(f"{file} is no body model of SMPL-X: {'; '.join(wrong)}. {_WHERE}")
    if num_vertices < LEAST_VERTICES:
        raise UserError(f"{file}: {num_vertices} vertices; the smplx package needs {LEAST_VERTICES} or more. {_WHERE}")
    if shapes["shapedirs"][-1] < SHAPE_COLUMNS:
        raise UserError(
            f"{file}: shapedirs has {shapes['shapedirs'][-1]} columns; {NUM_BETAS} of the shape and {NUM_EXPRESSIONS} "
            "of the face are needed. Take the version of 2020 of the file, without a size limit."
        )
    parents = _read(file, "kintree_table")["kintree_table"][0].astype(np.int64)
    if tuple(parents[1:]) != PARENTS[1:]:
        raise UserError(f"{file}: kintree_table holds another tree of joints than that of SMPL-X. {_WHERE}")


def _read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes in the headers of an npz, without its numbers and without what is pickled."""
    shapes = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                with archive.open(name) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes[name.removesuffix(".npy")] = read(stream)[0]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is no npz file ({error}). {_WHERE}") from None
    return shapes


def _other(found: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) != len(wanted) or any(b is not None and a != b for a, b in zip(found, wanted, strict=True))


def _spell(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def _read(file: Path, *names: str) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


def read_skeleton(path: str | Path, betas: np.ndarray | None = None) -> Skeleton:
    """Return the resting joints of a body model for one identity; the `smplx` package is not needed.

    Expressions, which move the joints of the face a little, are left out.

    Args:
        path: of the model's file or folder.
        betas: (300,) shape of the body; None is the mean body.

    Raises:
        UserError: as `find_model` and `check_model` do.
    """
    file = find_model(path)
    check_model(file)
    model = _read(file, "v_template", "shapedirs", "J_regressor", "hands_meanl", "hands_meanr")
    vertices = np.asarray(model["v_template"], np.float64)
    if betas is not None:
        vertices = vertices + model["shapedirs"][..., :NUM_BETAS] @ np.asarray(betas, np.float64)
    joints = np.asarray(model["J_regressor"], np.float64) @ vertices
    offsets = joints - np.concatenate([np.zeros((1, 3)), joints[list(PARENTS[1:])]])
    hands = np.concatenate([model["hands_meanl"], model["hands_meanr"]]).reshape(-1, 3)
    return Skeleton(f"smplx:{file.stem}", offsets.astype(np.float32), hands.astype(np.float32))


class BodyModel:
    """A body of joints and vertices that follows a motion.

    Attributes:
        faces: (F, 3) int64, vertices of the triangles.
    """

    def __init__(self, model: Any, device: torch.device | str = "cpu") -> None:
        self._model = model.to(device).eval()
        self._device = device
        self.faces = np.asarray(model.faces, np.int64)

    def joints(self, motion: Motion) -> np.ndarray:
        """Return the (T, 55, 3) places of the joints in metres."""
        return np.concatenate([joints for joints, _ in self._forward(motion)])

    def vertices(self, motion: Motion) -> np.ndarray:
        """Return the (T, V, 3) float32 places of the vertices in metres; 125 KB a frame."""
        return np.concatenate(list(self.vertex_batches(motion)))

    def face_vertices(self, motion: Motion) -> np.ndarray:
        """Return the (T, V, 3) vertices with nothing but jaw and expressions active, as metrics of the face want."""
        poses = np.zeros_like(motion.poses)
        poses[:, _JAW] = motion.poses[:, _JAW]
        still = np.zeros_like(motion.trans)
        return self.vertices(Motion(poses, still, motion.expressions, motion.betas, motion.fps))

    def vertex_batches(self, motion: Motion) -> Iterator[np.ndarray]:
        """Yield the vertices of a long motion in batches of frames, (<= 128, V, 3)."""
        return (vertices for _, vertices in self._forward(motion))

    @torch.no_grad()
    def _forward(self, motion: Motion) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        betas = torch.from_numpy(np.asarray(motion.betas, np.float32)).to(self._device)
        for start in range(0, motion.num_frames, BATCH):
            poses, trans, expressions = (
                torch.from_numpy(np.asarray(values[start : start + BATCH], np.float32)).to(self._device)
                for values in (motion.poses, motion.trans, motion.expressions)
            )
            made = self._model(
                **_named_poses(poses), transl=trans, expression=expressions, betas=betas.expand(len(poses), -1)
            )
            yield made.joints[:, :NUM_JOINTS].cpu().numpy(), made.vertices.cpu().numpy()


def _named_poses(poses: Tensor) -> dict[str, Tensor]:
    """Split (B, 165) poses by the names of the package, which takes none of them for granted in a batch."""
    return {
        "global_orient": poses[:, :3],
        "body_pose": poses[:, _BODY],
        "jaw_pose": poses[:, _JAW],
        "leye_pose": poses[:, _EYE[0]],
        "reye_pose": poses[:, _EYE[1]],
        "left_hand_pose": poses[:, _HANDS[0]],
        "right_hand_pose": poses[:, _HANDS[1]],
    }


def load_body(path: str | Path, device: torch.device | str = "cpu") -> BodyModel:
    """Load the body model with the settings of BEAT2: 300 of the shape, 100 of the face, hands added to their mean.

    Args:
        path: of the model's file or folder.
        device: that it computes on.

    Raises:
        UserError: the package is missing, or as `find_model` and `check_model` do.
    """
    file = find_model(path)
    check_model(file)
    try:
        import smplx
    except ImportError:
        raise UserError(
            "the body model needs the package smplx (non-commercial licence): pip install smplx, "
            "or choose body.skeleton=synthetic."
        ) from None
    with contextlib.redirect_stdout(io.StringIO()):  # it prints remarks about joints of other models
        model = smplx.create(
            str(file),
            model_type="smplx",
            gender="NEUTRAL_2020",
            num_betas=NUM_BETAS,
            num_expression_coeffs=NUM_EXPRESSIONS,
            use_face_contour=False,
            use_pca=False,
            ext="npz",
        )
    return BodyModel(model, device)
