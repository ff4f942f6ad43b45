"""What a stage of bulk work has finished: one JSON line an item, appended as it is done, so that a rerun skips it.

A record names what the result was made from and the file it went to; `Ledger.is_current` compares both with today.
"""

import contextlib
import fcntl
import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from voxlab.errors import UserError
from voxlab.parallel import Ranks, barrier
from voxlab.storage import atomic_write_bytes

FOLDER = ".state"
TRANSIENT = ("unreadable", "oom", "out_of_memory", "producer_failed")  # reasons that may be gone the next time
Record = dict[str, Any]


class Ledger:
    """Records of one stage, by item id; every rank appends to a file of its own, `merge` joins them.

    Args:
        out: output folder; records lie in `<out>/.state`.
        stage: name of the stage.
        ranks: this process among its peers.
    """

    def __init__(self, out: Path, stage: str, ranks: Ranks) -> None:
        self.folder, self.stage, self.ranks = out / FOLDER, stage, ranks
        self._lock = Lock()
        self._read_all()

    def _read_all(self) -> None:
        self._seen = stats([self._merged, *self._parts()])
        self.records = _read([self._merged, *self._parts()])

    @property
    def _merged(self) -> Path:
        return self.folder / f"{self.stage}.jsonl"

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.stage}.rank*.jsonl"))

    def add(self, item_id: str, record: Mapping[str, Any]) -> None:
        """Append a finished item; may be called from several threads. Its file must be complete by now."""
        line = json.dumps({"id": item_id, **record}, ensure_ascii=False, allow_nan=False) + "\n"
        path = self.folder / f"{self.stage}.rank{self.ranks.rank}.jsonl"
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            with path.open("ab+") as file:
                if file.tell() and not _ends_a_line(file):
                    file.write(b"\n")  # a killed process left half a line
                file.write(line.encode())
            self.records[item_id] = {"id": item_id, **record}

    def is_current(self, item_id: str, made_from: Mapping[str, Any], paths: Iterable[Path] = ()) -> bool:
        """Tell whether an item is done: its record has these values, and its files are as they were written."""
        record = self.records.get(item_id)
        if record is None or any(record.get(key) != value for key, value in made_from.items()):
            return False
        if "error" in record:
            return not str(record["error"]).startswith(TRANSIENT)
        return record.get("stat") == stats(paths)

    def merge(self, keep: Iterable[str] | None = None) -> None:
        """Join the ranks' records into one sorted file; called by all ranks, at the end of a stage.

        Args:
            keep: ids whose records stay; None keeps all.
        """
        barrier(self.ranks)
        if self.ranks.is_first and (self._parts() or (keep is not None and set(keep) != self.records.keys())):
            records = _read([self._merged, *self._parts()])
            chosen = sorted(records if keep is None else set(keep) & records.keys())
            text = "".join(json.dumps(records[key], ensure_ascii=False, allow_nan=False) + "\n" for key in chosen)
            if not (self._merged.is_file() and self._merged.read_bytes() == text.encode()):
                atomic_write_bytes(self._merged, text.encode())
            for part in self._parts():
                part.unlink()
        barrier(self.ranks)
        if stats([self._merged, *self._parts()]) != self._seen:
            self._read_all()


@contextlib.contextmanager
def locked(out: Path, ranks: Ranks) -> Iterator[None]:
    """Keep other commands out of an output folder while the block runs; the lock goes with its process.

    Raises:
        UserError: another command works there.
    """
    if not ranks.is_first:
        yield
        return
    path = out / FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another command works in {out}: two at once would undo each other's files.\n"
                "Wait for it, choose another folder (out=...), or run one command on several ranks (torchrun)."
            ) from None
        yield


def stats(paths: Iterable[Path]) -> list[list[int] | None]:
    """Return [size, time of change in ns] of each file, None for one that is not there."""
    found: list[list[int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (a third faster than Path.stat, and this runs once a file)
            found.append([status.st_size, status.st_mtime_ns])
        except FileNotFoundError:
            found.append(None)
    return found


def _ends_a_line(file: BinaryIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _read(paths: Iterable[Path]) -> dict[str, Record]:
    """Read records in order, later ones of an id win."""
    records: dict[str, Record] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            records |= _parse(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    return records


@functools.lru_cache(maxsize=4)
def _parse(path: Path, _version: tuple[int, int, int]) -> dict[str, Record]:
    """Parse a file of records, not to be changed; a last line that a crash cut short is left out.

    Stages read each other's records, so those of the last few files are kept, as long as the files stay as they are.
    """
    records: dict[str, Record] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # written by a process that was killed: the item counts as not done
        if isinstance(record, dict) and "id" in record:
            records[record["id"]] = record
    return records
