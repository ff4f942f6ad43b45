"""The folder that stage build of `task=extract` writes: swapped in complete, with its token files by link or copy."""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from voxlab import storage
from voxlab.data.names import listed
from voxlab.errors import UserError
from voxlab.tasks.extract.build_rows import Row
from voxlab.tasks.extract.stage import TOKENS

MATERIALIZE = ("hardlink", "link", "copy", "none")
CARD, STATISTICS, CODEC, SPLITS = "README.md", "cond_stats.json", "codec.json", "dataset_dict.json"
OURS = (CARD, STATISTICS, CODEC, SPLITS, TOKENS)


def refuse_foreign(dataset: Path) -> None:
    """Stop before a folder is replaced that holds anything but an earlier data set of ours."""
    if dataset.is_symlink():
        raise UserError(
            f"{dataset} is a link; this stage replaces the folder. Remove the link, or link {dataset.parent}."
        )
    known, entries = set(OURS), {path.name for path in dataset.iterdir()} if dataset.exists() else set()
    with contextlib.suppress(OSError, ValueError, KeyError):
        known |= set(json.loads((dataset / SPLITS).read_text(encoding="utf-8"))["splits"])
    if entries and (not {STATISTICS, SPLITS} <= entries or entries - known):
        foreign = sorted(entries - known) or sorted(entries)
        raise UserError(
            f"{dataset} holds files that this stage did not write and would delete: {listed(foreign)}.\n"
            "Move them elsewhere, or choose another folder (out=...)."
        )


@contextlib.contextmanager
def swapped_in(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target` that takes its place when the block succeeds and vanishes when it fails.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    folder, old = (target.with_name(f"{target.name}.tmp-{uuid.uuid4().hex[:8]}") for _ in range(2))
    try:
        with storage.explained(target):
            for leftover in target.parent.glob(f"{target.name}.tmp-????????"):
                shutil.rmtree(leftover)
            folder.mkdir()
            yield folder
            _flush(folder)
            if target.exists():
                target.rename(old)
            folder.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Bring the tables to disk before the folder takes its name; a copy that a power cut loses is seen by its size."""
    for path in [*folder.glob("*"), *folder.glob("*/*.arrow"), *folder.glob("*/*.json")]:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def place_files(folder: Path, rows: Iterable[Row], tokens: Path, materialize: str) -> None:
    """Link or copy the rows' token files and sidecars to `folder/tokens`.

    Raises:
        UserError: the file system has no hard links, or `folder` is on another one.
    """
    if materialize == "none":
        return
    place: dict[str, Callable[[Path, Path], Any]] = {"hardlink": _hardlink, "link": _link, "copy": shutil.copy2}
    made: set[Path] = set()
    for row in rows:
        for name, _ in row.sizes():
            target = folder / TOKENS / name
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            place[materialize](tokens / name, target)


def _link(source: Path, target: Path) -> None:
    target.symlink_to(os.path.relpath(source, target.parent))


def _hardlink(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:  # another file system, or one without such links
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # a copy would not fit either
        raise UserError(
            f"can't make a hard link from {target} to {source}: {error.strerror or error}.\n"
            "Set build.materialize=copy (takes the room of the files once more) or build.materialize=link."
        ) from error


def wrong_sizes(dataset: Path, rows: Sequence[Row], materialize: str) -> list[str]:
    """Return the token files and sidecars that a data set refers to and that aren't there with their recorded size."""
    root = os.path.normpath(dataset / prefix_of(materialize))
    wrong = []
    for row in rows:
        for name, size in row.sizes():
            try:
                found = os.stat(f"{root}/{name}").st_size  # noqa: PTH116 - tens of thousands of files in a blink
            except (FileNotFoundError, NotADirectoryError):
                found = -1
            if found != size:
                wrong.append(f"{name} ({'missing' if found < 0 else f'{found} bytes, not {size}'})")
    return wrong


def prefix_of(materialize: str) -> str:
    """Return the path from the data set to the token files that it refers to."""
    return f"../{TOKENS}" if materialize == "none" else TOKENS
