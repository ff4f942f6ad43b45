"""A body model in the form of SMPL-X's licensed file: its joints are vertices of a given skeleton."""

from pathlib import Path

import numpy as np

from voxlab.motion.skeleton import PARENTS, Skeleton

NUM_VERTICES = 9930  # the least that the smplx package can index


def model_arrays(
    skeleton: Skeleton, *, num_vertices: int = NUM_VERTICES, shape_columns: int = 400, faces: object = ((0, 1, 2),)
) -> dict[str, np.ndarray]:
    """Return the 13 keys: vertex j < 55 lies at joint j and follows it alone; corrections are zero."""
    joints = np.zeros((55, 3))
    for joint, parent in enumerate(PARENTS):
        joints[joint] = skeleton.offsets[joint] + (joints[parent] if parent >= 0 else 0)
    template = np.zeros((num_vertices, 3), np.float32)
    template[:55] = joints
    one_hot = np.eye(55, num_vertices, dtype=np.float32)
    weights = np.zeros((num_vertices, 55), np.float32)
    weights[:, 0] = 1
    weights[:55] = np.eye(55)
    hands = skeleton.hand_mean.reshape(2, 45)
    return {
        "v_template": template,
        "f": np.asarray(faces, np.int64),
        "shapedirs": np.zeros((num_vertices, 3, shape_columns), np.float32),
        "posedirs": np.zeros((num_vertices, 3, 486), np.float32),
        "J_regressor": one_hot,
        "kintree_table": np.stack([np.asarray(PARENTS), np.arange(55)]).astype(np.uint32),
        "weights": weights,
        **{f"hands_components{side}": np.eye(45, dtype=np.float32) for side in "lr"},
        **{f"hands_mean{side}": hands["lr".index(side)] for side in "lr"},
        "lmk_faces_idx": np.zeros(51, np.int64),
        "lmk_bary_coords": np.tile(np.array([1, 0, 0], np.float32), (51, 1)),
    }


def write_body_model(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write the file where a body model lies; returns its folder."""
    (folder / "smplx").mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "smplx" / "SMPLX_NEUTRAL_2020.npz", **arrays)  # type: ignore[arg-type]
    return folder
