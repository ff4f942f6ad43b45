"""One job at a time works on an episode, though several share a store, on one machine or on many."""

import fcntl
import json
import os
import platform
import time
import uuid
from pathlib import Path
from typing import BinaryIO, NamedTuple

from voxlab.storage import explained

STALE_AFTER = 2 * 3600.0  # seconds without a sign of life
_RENEW_EVERY = 60.0


class Lease(NamedTuple):
    """The right to work on an episode; held as long as the file stays open and young."""

    path: Path
    file: BinaryIO

    def renew(self) -> None:
        """Show that the holder is alive; cheap enough to be called for each chunk."""
        if time.time() - os.fstat(self.file.fileno()).st_mtime > _RENEW_EVERY:
            os.utime(self.file.fileno())

    def release(self) -> None:
        """Let others have the episode."""
        if _is_at(self.file, self.path):
            self.path.unlink(missing_ok=True)
        self.file.close()


def acquire(path: Path) -> Lease | None:
    """Take the lease of an episode; None while another job holds it.

    A lease whose process on this machine has ended, or that nobody has renewed for two hours, is taken over.

    Raises:
        UserError: the folder can't be written.
    """
    mine = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text(json.dumps({"host": platform.node(), "pid": os.getpid()}))
        file = mine.open("r+b")
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        if _place(mine, path):
            return Lease(path, file)
        file.close()
        return None
    finally:
        mine.unlink(missing_ok=True)


def _place(mine: Path, path: Path) -> bool:
    """Put the lease in place of none, or of a stale one."""
    try:
        path.hardlink_to(mine)
    except FileExistsError:
        return _take_over(mine, path)
    return True


def _take_over(mine: Path, path: Path) -> bool:
    try:
        held = path.open("r+b")
    except FileNotFoundError:
        return _place(mine, path)  # its holder has just finished
    with held:
        if not _holder_is_gone(held) or not _is_at(held, path):
            return False
        mine.replace(path)
        return True


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Tell whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _holder_is_gone(held: BinaryIO) -> bool:
    """Tell by the lock, which goes with its process, on this machine; by its age on others."""
    if json.loads(held.read())["host"] == platform.node():
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    return time.time() - os.fstat(held.fileno()).st_mtime > STALE_AFTER
