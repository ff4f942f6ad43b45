"""The face of a motion as a table, for programs that animate faces: jaw and expressions, frame by frame."""

import io
import json
from pathlib import Path

import numpy as np

from voxlab.errors import UserError
from voxlab.motion.clip import NUM_EXPRESSIONS, Motion
from voxlab.motion.skeleton import JAW
from voxlab.storage import atomic_write_bytes

COLUMNS = ("time", *(f"jaw_{axis}" for axis in "xyz"), *(f"expression_{i:03d}" for i in range(NUM_EXPRESSIONS)))


def write_expressions(path: Path, motion: Motion) -> None:
    """Write time (s), jaw (axis-angle, rad) and the 100 coefficients of each frame, as .csv or .json by the name.

    Raises:
        UserError: the name ends in neither.
    """
    times = np.arange(motion.num_frames)[:, None] / motion.fps
    rows = np.concatenate([times, motion.poses[:, 3 * JAW : 3 * JAW + 3], motion.expressions], axis=1)
    if path.suffix == ".csv":
        text = io.StringIO()
        np.savetxt(text, rows, fmt="%.6f", delimiter=",", header=",".join(COLUMNS), comments="")
        atomic_write_bytes(path, text.getvalue().encode())
    elif path.suffix == ".json":
        table = {"fps": motion.fps, "columns": COLUMNS, "rows": np.round(rows, 6).tolist()}
        atomic_write_bytes(path, (json.dumps(table) + "\n").encode())
    else:
        raise UserError(f"{path}: expressions are written as .csv or .json.")
