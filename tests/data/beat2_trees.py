"""Small copies of the sample corpus of BEAT2, for tests that spoil them, and the real files where there are some."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_files import MOTION, SPLIT_TABLE, WAV

FOLDER = "beat_english_v2.0.0"
IDS = ("4_lawrence_0_17_17", "4_lawrence_0_18_18", "4_lawrence_0_1_1", "4_lawrence_0_67_67", "4_lawrence_0_9_9")


def copy_speaker(written: Path, root: Path, speaker: int = 4) -> Path:
    """Copy one speaker's clips of the written sample, with a split file of their own; returns their folder."""
    target = root / FOLDER
    for folder in sorted(path for path in written.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in folder.glob(f"{speaker}_*"):
            shutil.copy2(path, target / folder.name / path.name)
    lines = (written / SPLIT_TABLE).read_text().splitlines()
    own = [line for line in lines if line.startswith((f"{speaker}_", "id,"))]
    (target / SPLIT_TABLE).write_text("\n".join(own) + "\n")
    return target


def corpus(root: Path, **options) -> Beat2:
    """All five clips of speaker 4, stored beside them."""
    defaults = {"root": str(root), "speakers": [4], "store": str(root / "store")}
    return Beat2(**{**defaults, **options})


def change(folder: Path, clip_id: str, **arrays) -> Path:
    """Write a motion file anew with other arrays; None leaves one out."""
    path = folder / MOTION / f"{clip_id}.npz"
    with np.load(path) as file:
        content = {key: file[key] for key in file.files} | arrays
    path.unlink()
    np.savez(path, **{key: array for key, array in content.items() if array is not None})
    return path


def wav_of(folder: Path, clip_id: str) -> Path:
    return folder / WAV / f"{clip_id}.wav"


def real(*parts: str) -> Path:
    """A file of the real sample below VOXLAB_REAL_DATA; skips the test where there is none."""
    root = os.environ.get("VOXLAB_REAL_DATA")
    path = Path(root or "absent").joinpath("beat2", *parts)
    if not path.exists():
        pytest.skip(f"VOXLAB_REAL_DATA names no folder with {'/'.join(('beat2', *parts))}")
    return path
