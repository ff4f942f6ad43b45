"""Mean and standard deviation of the 433 columns over the training frames, and the normalisation of parts by them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from voxlab.errors import UserError
from voxlab.motion.parts import EXTRAS, FRAME_DIM, ROTATION_DIM, TRANSLATION_DIM, Layout, Part, columns
from voxlab.motion.skeleton import JAW
from voxlab.storage import atomic_write_bytes, fingerprint

STD_FLOOR = 1e-3  # the least std of new statistics: some channels of jaw and eyes hardly move
_RECORD = "voxlab"
_LEGACY = (
    (("330_mean", "330_std"), slice(ROTATION_DIM)),
    (("trans_mean", "trans_std"), slice(ROTATION_DIM, ROTATION_DIM + TRANSLATION_DIM)),
)
_EXPRESSIONS = EXTRAS["expressions"]
Values = TypeVar("Values", np.ndarray, Tensor)


@dataclass(frozen=True)
class Statistics:
    """What standardises motion.

    Attributes:
        mean: (433,) float32.
        std: (433,) float32, positive.
        num_frames: that they were computed from; 0 where that is unknown.
        record: plain values that tell of what: fps, trans, split and so on.
    """

    mean: np.ndarray
    std: np.ndarray
    num_frames: int
    record: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the numbers and of the record."""
        digest = hashlib.sha256(self.mean.tobytes() + self.std.tobytes()).hexdigest()
        return fingerprint({"numbers": digest, **self.record})

    @property
    def jaw_mean(self) -> np.ndarray:
        """(6,) mean rotation of the jaw, for layouts that don't predict it."""
        return self.mean[6 * JAW : 6 * JAW + 6]

    def normalize(self, values: Values, part: Part, layout: Layout) -> Values:
        """Standardise (..., D) raw values of a part."""
        mean, std = _like(values, part_moments(self, part, layout))
        return (values - mean) / std

    def denormalize(self, values: Values, part: Part, layout: Layout) -> Values:
        """Turn (..., D) standardised values of a part back into raw ones."""
        mean, std = _like(values, part_moments(self, part, layout))
        return values * std + mean


def _like(values: Any, moments: tuple[np.ndarray, np.ndarray]) -> tuple[Any, Any]:
    if isinstance(values, Tensor):
        mean, std = (torch.from_numpy(moment).to(values) for moment in moments)
        return mean, std
    return moments


def part_moments(statistics: Statistics, part: Part, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return the (D,) float32 mean and std of a part; 0 and 1 for expressions that its layout leaves as they are."""
    chosen = columns(part)
    mean, std = statistics.mean[chosen], statistics.std[chosen]
    if not layout.normalize_face:
        untouched = np.isin(chosen, _EXPRESSIONS)
        mean, std = np.where(untouched, np.float32(0), mean), np.where(untouched, np.float32(1), std)
    return mean, std


def compute_statistics(
    clips: Iterable[np.ndarray], *, record: Mapping[str, Any] | None = None, std_floor: float = STD_FLOOR
) -> Statistics:
    """Compute statistics clip by clip, in float64 and in constant memory.

    Args:
        clips: each (T, 433) raw frames, of the training split only.
        record: plain values that tell of what.
        std_floor: the least standard deviation.

    Raises:
        UserError: there are no frames.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count, mean, squares = 0, np.zeros(FRAME_DIM), np.zeros(FRAME_DIM)
    for clip in clips:
        frames = np.asarray(clip, np.float64)
        if len(frames) == 0:
            continue
        clip_mean = frames.mean(axis=0)
        shift, total = clip_mean - mean, count + len(frames)
        squares += ((frames - clip_mean) ** 2).sum(axis=0) + shift**2 * (count * len(frames) / total)
        mean += shift * (len(frames) / total)
        count = total
    if count == 0:
        raise UserError("there are no training frames to compute the statistics of motion from; see data.splits.")
    std = np.maximum(np.sqrt(squares / count), std_floor)
    return Statistics(mean.astype(np.float32), std.astype(np.float32), count, dict(record or {}))


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Write statistics as safetensors; equal ones give equal bytes."""
    from safetensors.numpy import save

    told = json.dumps({"num_frames": statistics.num_frames, **statistics.record}, sort_keys=True)
    numbers = {"mean": statistics.mean, "std": statistics.std}
    atomic_write_bytes(path, save(numbers, metadata={_RECORD: told}))


def load_statistics(path: Path) -> Statistics:
    """Read what `save_statistics` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {}).get(_RECORD, "null"))
            mean, std = (file.get_tensor(name) for name in ("mean", "std"))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} holds no statistics of motion ({error}).") from None
    if told is None or mean.shape != (FRAME_DIM,) or std.shape != (FRAME_DIM,):
        raise UserError(f"{path} holds no statistics of motion: mean {mean.shape} and std {std.shape} were found.")
    return Statistics(mean, std, told.pop("num_frames"), told)


def load_legacy(path: Path) -> Statistics:
    """Read the npz of earlier projects: mean and std of 330 rotation channels and of 3 of the root; no floor.

    Its keys end in `330_mean`, `330_std`, `trans_mean` and `trans_std`; the expressions get mean 0 and std 1.

    Raises:
        UserError: a key is missing, or something has another shape.
    """
    mean, std = np.zeros(FRAME_DIM, np.float32), np.ones(FRAME_DIM, np.float32)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not an npz of plain numbers ({error}).") from None
    for ends, where in _LEGACY:
        for end, target in zip(ends, (mean, std), strict=True):
            target[where] = _by_end(arrays, end, target[where].shape, path)
    if not (std > 0).all():
        raise UserError(f"{path}: a standard deviation is not positive.")
    return Statistics(mean, std, 0, {"source": path.name, "fps": 30, "trans": "legacy"})


def _by_end(arrays: Mapping[str, np.ndarray], end: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    names = [name for name in arrays if name.endswith(end)]
    if len(names) != 1 or arrays[names[0]].shape != shape:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UserError(f"{path}: one array {shape} whose name ends in {end} is needed; it holds {found}.")
    return arrays[names[0]].astype(np.float32)
