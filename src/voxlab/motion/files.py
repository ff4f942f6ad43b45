"""Motion files of BEAT2: seven arrays in one .npz a clip, read with every check, written with equal bytes each time."""

import logging
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from voxlab.errors import UserError
from voxlab.motion.clip import NUM_BETAS, NUM_EXPRESSIONS, NUM_JOINTS, Motion
from voxlab.motion.resample import bridge_gaps, resample
from voxlab.storage import atomic_path

log = logging.getLogger(__name__)

KEYS = ("betas", "poses", "expressions", "trans", "model", "gender", "mocap_frame_rate")
DEFAULT_FPS = 30
FIXES = ("none", "interpolate")
MAX_GAP = 5  # frames that fix=interpolate fills
_WIDTHS = {"poses": 3 * NUM_JOINTS, "trans": 3, "expressions": NUM_EXPRESSIONS}
_LARGEST_ANGLE, _LARGEST_STEP = 2 * math.pi, 1.5  # rad, rad a frame at 30 fps
_SHOWN_FRAMES = 5

Arrays = dict[str, np.ndarray]


def read_motion(
    path: Path, *, fps: int | None = DEFAULT_FPS, allow_resample: bool = False, fix: str = "none"
) -> Motion:
    """Read a motion file; what is odd but usable goes to the log.

    Args:
        path: .npz with the seven arrays of BEAT2; nothing in it is ever unpickled.
        fps: frame rate that is wanted; None takes the file's own.
        allow_resample: change another rate to `fps`; else it is an error.
        fix: "none", or "interpolate" fills gaps of up to 5 frames of NaN or infinity.

    Raises:
        UserError: the file is absent, damaged, of another kind or rate, or holds NaN or infinity.
    """
    motion, remarks = inspect_motion(path, fps=fps, allow_resample=allow_resample, fix=fix)
    for remark in remarks:
        log.warning("%s: %s", path, remark)
    return motion


def inspect_motion(
    path: Path, *, fps: int | None = DEFAULT_FPS, allow_resample: bool = False, fix: str = "none"
) -> tuple[Motion, list[str]]:
    """Do what `read_motion` does, and return what is odd as remarks instead of logging it."""
    if fix not in FIXES:
        raise ValueError(f"fix is {fix!r}, not one of {FIXES}")
    remarks: list[str] = []
    arrays = _read_arrays(path)
    _check_shapes(path, arrays)
    betas = _betas(arrays["betas"], remarks)
    values = {key: arrays[key].astype(np.float64) for key in _WIDTHS}
    _check_finite(path, values, fix, remarks)
    rate = _frame_rate(path, arrays.get("mocap_frame_rate"), remarks)
    remarks += _spikes(values["poses"], rate)
    if fps is None and not rate.is_integer():
        raise UserError(f"{path}: mocap_frame_rate is {rate:g}; expected a whole number. Say which one: data.fps=30.")
    wanted = round(rate) if fps is None else fps
    if rate != wanted:
        _refuse_rate(path, rate, wanted, allow_resample)
        values = resample(values, rate, wanted)
    motion = Motion(
        poses=np.ascontiguousarray(values["poses"], np.float32),
        trans=np.ascontiguousarray(values["trans"]),
        expressions=np.ascontiguousarray(values["expressions"], np.float32),
        betas=betas,
        fps=wanted,
    )
    return motion, remarks


def write_motion(path: Path, motion: Motion) -> None:
    """Write a motion file with the seven arrays of BEAT2 in its types, atomically; equal motion gives equal bytes.

    Raises:
        ValueError: a shape is wrong, or a number is NaN or infinite.
        UserError: the disk is full or the folder can't be written.
    """
    arrays = {
        "betas": motion.betas.astype(np.float32),
        "poses": motion.poses.astype(np.float32),
        "expressions": motion.expressions.astype(np.float64),
        "trans": motion.trans.astype(np.float64),
        "model": np.array("smplx2020"),
        "gender": np.array("neutral"),
        "mocap_frame_rate": np.array(motion.fps, np.int32),
    }
    shapes = {key: (motion.num_frames, width) for key, width in _WIDTHS.items()} | {"betas": (NUM_BETAS,)}
    for key, shape in shapes.items():
        if arrays[key].shape != shape or not np.isfinite(arrays[key]).all():
            raise ValueError(f"{key} of {path} must be finite and {shape}, not {arrays[key].shape} or not finite")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{key: arrays[key] for key in KEYS})  # pyright: ignore[reportArgumentType]


# ---- checks ---------------------------------------------------------------------------------------------------------


def _read_arrays(path: Path) -> Arrays:
    # RuntimeError: an archive with a password.
    damage = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file.files}
        others = [key for key, entry in arrays.items() if not isinstance(entry, np.ndarray)]
        if others:
            raise ValueError(f"{', '.join(others)} in it is no array")
        return arrays
    except FileNotFoundError:
        raise UserError(f"there is no motion file {path}.") from None
    except (*damage, AttributeError, TypeError) as error:  # the last two: a lone array instead of an archive
        raise UserError(
            f"corrupt motion file {path}: {error}\nExpected an .npz archive of plain arrays ({', '.join(KEYS)}); "
            "pickled objects are never loaded. Copy or download it again, or leave the clip out of the split file."
        ) from None


def _check_shapes(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse what is not the motion of SMPL-X with 55 joints, in one table."""
    found = {key: arrays[key].shape if key in arrays else None for key in ("betas", *_WIDTHS)}
    wrong = [key for key, width in _WIDTHS.items() if not _is_table(arrays.get(key), width)]
    if not _is_betas(arrays.get("betas")):
        wrong.append("betas")
    expected = {key: f"(frames, {width})" for key, width in _WIDTHS.items()} | {"betas": f"({NUM_BETAS},)"}
    if wrong:
        lines = [f"  {key:<12} {_spelled(arrays.get(key)):<24} {expected[key]}" for key in found]
        raise UserError(
            f"{path} is no motion file of BEAT2 (see {', '.join(wrong)}):\n  {'key':<12} {'found':<24} expected\n"
            + "\n".join(lines)
            + "\nOther layouts of SMPL (AMASS, BEAT 1) have to be converted first."
        )
    lengths = {key: len(arrays[key]) for key in _WIDTHS}
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"{path}: the numbers of frames differ: "
            + ", ".join(f"{key} has {length}" for key, length in lengths.items())
            + ". Expected one number for all; export the clip again."
        )


def _is_table(array: np.ndarray | None, width: int) -> bool:
    return (
        array is not None
        and array.dtype.kind in "fiu"
        and array.ndim == 2
        and array.shape[1] == width
        and len(array) > 0
    )


def _is_betas(array: np.ndarray | None) -> bool:
    if array is None or array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        return False
    return 0 < array.shape[-1] <= NUM_BETAS and len(array) > 0 and bool(np.isfinite(array).all())


def _spelled(array: np.ndarray | None) -> str:
    if array is None:
        return "missing"
    return f"{array.shape} {array.dtype}"


def _betas(array: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Return (300,) float32; some tools write a row for each frame, and AMASS has fewer."""
    row = array if array.ndim == 1 else array[0]
    if array.ndim == 2 and (array != row).any():
        remarks.append("betas differ from frame to frame; those of the first frame are taken")
    if len(row) < NUM_BETAS:
        remarks.append(f"betas has {len(row)} numbers instead of {NUM_BETAS}; the others are taken as 0")
    return np.pad(row.astype(np.float32), (0, NUM_BETAS - len(row)))


def _frame_rate(path: Path, array: np.ndarray | None, remarks: list[str]) -> float:
    if array is None:
        remarks.append(f"no mocap_frame_rate; taken as {DEFAULT_FPS}")
        return float(DEFAULT_FPS)
    if array.size != 1 or array.dtype.kind not in "fiu" or not 1 <= float(array.item()) <= 1000:
        raise UserError(f"{path}: mocap_frame_rate is {array}; expected one number from 1 to 1000.")
    return float(array.item())


def _refuse_rate(path: Path, rate: float, wanted: int, allow_resample: bool) -> None:
    if not allow_resample:
        raise UserError(
            f"{path}: mocap_frame_rate is {rate:g}, and data.fps={wanted} is wanted. Set data.allow_resample=true to "
            f"change it, or data.fps={rate:g}."
        )


def _check_finite(path: Path, values: Arrays, fix: str, remarks: list[str]) -> None:
    """Fill short gaps where that is asked for, in place; refuse all others."""
    for key, array in values.items():
        bad = ~np.isfinite(array)
        if not bad.any():
            continue
        frame, column = (int(place) for place in np.argwhere(bad)[0])
        where = f"joint {column // 3}" if key == "poses" else f"column {column}"
        count = int(bad.any(1).sum())
        found = f"{key} is NaN or infinite in {count} frames, first in frame {frame}, {where}"
        if fix != "interpolate":
            raise UserError(
                f"{path}: {found}. data.fix=interpolate fills gaps of up to {MAX_GAP} frames; or leave the clip out."
            )
        if not bridge_gaps(array, MAX_GAP, rotations=key == "poses"):
            raise UserError(
                f"{path}: {found}; data.fix=interpolate fills gaps of up to {MAX_GAP} frames between good ones, and "
                "there are longer ones or some at an end. Leave the clip out."
            )
        remarks.append(f"{found}; interpolated")


def _spikes(poses: np.ndarray, rate: float) -> list[str]:
    """Tell of angles beyond a full turn and of jumps, which are wraps of the angle or errors of the capture."""
    joints = poses.reshape(len(poses), -1, 3)
    turned = np.linalg.norm(joints, axis=2).max(1) > _LARGEST_ANGLE
    steps = np.linalg.norm(np.diff(joints, axis=0), axis=2).max(1, initial=0.0)
    jumped = np.append(False, steps > _LARGEST_STEP * max(DEFAULT_FPS / rate, 1.0))
    lines = []
    for what, frames in (("angles of more than 2 pi", turned), ("jumps of more than 1.5 rad a frame", jumped)):
        if frames.any():
            places = np.flatnonzero(frames)
            shown = ", ".join(map(str, places[:_SHOWN_FRAMES])) + (", ..." if len(places) > _SHOWN_FRAMES else "")
            lines.append(f"wraps or spikes: {what} in {len(places)} frames ({shown})")
    return lines
