"""Files of `torch.save`, read without running code from them, and what is wrong with those that can't be read."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from voxlab.errors import UserError

_ZIP = b"PK\x03\x04"  # that a file of torch.save begins with since 2020


def load_checkpoint(path: Path, *, key: str = "", wanted: str = "", mmap: bool = False) -> Any:
    """Return what a checkpoint holds: tensors, on the CPU, and plain values.

    Args:
        path: the file.
        key: of the command line that named it, for messages.
        wanted: a sentence for messages that says what is needed.
        mmap: leave tensors on the disk until they are used; only for files of our own.

    Raises:
        UserError: the file is missing, damaged, of another kind, or holds more than tensors and plain values.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except Exception as error:  # bytes of another kind end in any error; torch's words advise to trust the file
        name = f"{key}={path}" if key else str(path)
        lines = [f"{name} can't be read as a checkpoint: {_reason(path, error)}.", wanted]
        raise UserError(" ".join(line for line in lines if line)) from error


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    with path.open("rb") as file:
        begins = file.read(len(_ZIP))
    if not begins:
        return "it is empty"
    if zipfile.is_zipfile(path):
        return "it is damaged, or holds more than tensors and plain values, which is not loaded"
    if begins == _ZIP:
        return f"it is cut off after {path.stat().st_size} bytes"
    return "it is no file of torch.save, or a damaged one"
