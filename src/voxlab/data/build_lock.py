"""One process at a time builds a folder that many use; the others wait for it."""

import contextlib
import fcntl
import json
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from voxlab.storage import explained

log = logging.getLogger(__name__)

LOCK = ".building"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that builds, wait for another one that does; the lock of a dead process holds nobody up."""
    path = folder / LOCK
    with explained(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = _acquire(path)
    try:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": platform.node()}).encode())
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _acquire(path: Path) -> BinaryIO:
    """Lock the file that is at `path`; one that its last holder has deleted meanwhile doesn't count."""
    while True:
        file = path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.info("waiting for another process that builds %s: %s", path.parent, file.read().decode())
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()
