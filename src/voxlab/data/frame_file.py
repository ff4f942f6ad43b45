"""Frames of features in a `.npy` file, read in pieces without mapping it: pages read once don't stay in the process."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from voxlab.errors import UserError

HEADER_BYTES = 128  # NumPy pads a version 1 header to a multiple of 64; ours fit into two
_CHECK = 256  # frames whose values are known to be finite are remembered in groups of so many
_INFINITY, _SIGN = 0x7C00, 0x8000  # bits of float16


class Frames(Protocol):
    """Frames by slice: a NumPy array, or a `FrameFile`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, D)."""
        ...

    def __getitem__(self, key: slice, /) -> Any:
        """Return the frames of a slice as an array."""
        ...


@dataclass(frozen=True)
class FrameFile:
    """A (T, D) array in a `.npy` file; `frames[start:stop]` reads that part as a NumPy array.

    NaN and infinity are looked for the first time a part is read.

    Attributes:
        path: the file.
        shape: (T, D).
        dtype: of the numbers.
        owner: what messages call the recording.
        again: the command that makes the file again.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    owner: str = ""
    again: str = "task=extract"
    _unchecked: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_unchecked", np.ones(-(-self.shape[0] // _CHECK), bool))

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, step = key.indices(self.shape[0])
        if step != 1:
            raise ValueError(f"frames are read in order, one after the other; a step of {step} can't be had")
        return self.read(start, max(start, stop))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self.read(0, self.shape[0])
        return values if dtype is None else values.astype(dtype)

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read the frames start..stop-1 as (stop - start, D), into `out` if it is given (contiguous, of that shape).

        Raises:
            UserError: the file has become shorter, or holds NaN or infinity.
        """
        values = np.empty((stop - start, self.shape[1]), self.dtype) if out is None else out
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._offset(start))
            view = values.reshape(-1).view(np.uint8).data
            while view and (count := file.readinto(view)):
                view = view[count:]
        if view:
            raise UserError(f"{self.path} has become shorter while it was read. Run {self.again} again.")
        if self._unchecked[start // _CHECK : -(-stop // _CHECK)].any():
            self._check(values, start, stop)
        return values

    def expect(self, start: int, stop: int) -> None:
        """Let the disk fetch frames that will be read soon, where the system can."""
        if hasattr(os, "posix_fadvise"):
            with self.path.open("rb", buffering=0) as file:
                offset = self._offset(start)
                os.posix_fadvise(file.fileno(), offset, self._offset(stop) - offset, os.POSIX_FADV_WILLNEED)

    def _offset(self, frame: int) -> int:
        return HEADER_BYTES + frame * self.shape[1] * self.dtype.itemsize

    def _check(self, values: np.ndarray, start: int, stop: int) -> None:
        bad = ~finite_rows(values)
        if bad.any():
            raise UserError(
                f"{self.path} ({self.owner}): {int(bad.sum())} of the frames {start} to {stop - 1} hold NaN or "
                f"infinity, the first is {start + int(np.argmax(bad))}. Run {self.again} again."
            )
        first, last = -(-start // _CHECK), len(self._unchecked) if stop == self.shape[0] else stop // _CHECK
        self._unchecked[first:last] = False


def read_into(frames: Frames, span: slice, out: np.ndarray) -> None:
    """Read the frames of a span with given ends into `out`."""
    if isinstance(frames, FrameFile):
        frames.read(span.start, span.stop, out)
    else:
        out[:] = frames[span]


def expect(frames: Frames, start: int, count: int) -> None:
    """Let the disk fetch up to `count` frames, if there is one."""
    if isinstance(frames, FrameFile):
        frames.expect(start, min(start + count, len(frames)))


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Return which rows of (n, D) float16, float32 or integer numbers are free of NaN and infinity, (n,) bool."""
    if values.dtype == np.float16 and values.flags.c_contiguous:
        # As integers: infinity and NaN are the largest positive ones and, unsigned, the largest of all. Ten times as
        # fast as isfinite.
        positive = values.view(np.int16).max(1, initial=0) < _INFINITY
        return np.asarray(positive & (values.view(np.uint16).max(1, initial=0) < _INFINITY | _SIGN))
    return np.asarray(np.isfinite(values).all(1))


def open_frames(
    path: Path, *, num_frames: int, dim: int, dtype: str, owner: str = "", again: str = "task=extract"
) -> FrameFile:
    """Open a file of frames, having checked that it is what was written.

    Args:
        path: the `.npy` file.
        num_frames: frames that it must have.
        dim: numbers per frame.
        dtype: of the numbers.
        owner: what messages call the recording.
        again: the command that makes the file again.

    Raises:
        UserError: no such file, a damaged one, or another shape or type; names what is expected.
    """
    wanted = np.dtype(dtype)
    expected = f"expected ({num_frames}, {dim}) {wanted.name}"
    size = HEADER_BYTES + num_frames * dim * wanted.itemsize
    fix = f"Run {again} again: it makes this file anew."
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version} of the format")
            shape, fortran, found = np.lib.format.read_array_header_1_0(file)
            offset = file.tell()
    except OSError as error:
        raise UserError(f"{path} ({owner}) can't be read: {error.strerror}; {expected}. {fix}") from error
    except ValueError as error:
        raise UserError(f"{path} ({owner}) is no array file ({error}); {expected}, {size} bytes. {fix}") from error
    if (shape, found, fortran, offset) != ((num_frames, dim), wanted, False, HEADER_BYTES):
        raise UserError(f"{path} ({owner}) holds {shape} {found.name}; {expected}. {fix}")
    if path.stat().st_size != size:
        raise UserError(f"{path} ({owner}) has {path.stat().st_size} bytes instead of {size}. {fix}")
    return FrameFile(path, (num_frames, dim), wanted, owner, again)
