"""Downloads that continue where they broke off, are checked by SHA-256, and are unpacked whole or not at all."""

import hashlib
import http.client
import logging
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from voxlab.errors import UserError
from voxlab.progress import BulkProgress

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_TIMEOUT = 60.0
_NOTHING_LEFT = 416  # HTTP: the range begins where the file ends
_PARTIAL = 206
_UNPACKED = 1.15  # FLAC hardly compresses any further


def fetch(url: str, path: Path, sha256: str) -> None:
    """Download a file, unless it is there, and check it; what an earlier try left in `<path>.part` is continued.

    Args:
        url: http, https or file.
        path: appears when it is complete and right.
        sha256: of the file, hex.

    Raises:
        UserError: it can't be reached, broke off, doesn't fit on the disk, or has another checksum.
    """
    part = path.with_name(f"{path.name}.part")
    if not path.is_file():
        _continue_or_explain(url, path, part)
    present = path if path.is_file() else part
    found = _sha256(present)
    if found != sha256:
        raise UserError(
            f"{present} has the SHA-256 {found}, not {sha256}: damaged on the way, or another file.\nDelete it and run "
            "the same command again, or choose another mirror (data.url=...)."
        )
    present.replace(path)


def _continue_or_explain(url: str, path: Path, part: Path) -> None:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _continue(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"can't download {url}: {getattr(error, 'reason', None) or error}\nCheck the network and the space on the "
            f"disk, and run the same command again: it goes on from the {_size(part)} bytes in {part}. Or fetch the "
            f"file in another way and put it at {path}."
        ) from error


def _continue(url: str, part: Path) -> None:
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == _NOTHING_LEFT:
            return
        raise
    with response:
        continues = start > 0 and response.status == _PARTIAL  # other servers send the whole file again
        left = int(response.headers.get("Content-Length") or 0)
        total = left + (start if continues else 0)
        log.info("downloading %s (%.0f MB) into %s", url, total / 1e6, part)
        _refuse_full_disk(part.parent, left + round(total * _UNPACKED))
        bar = BulkProgress(round(total / 1e6), "download", "MB", done=round((total - left) / 1e6))
        with part.open("ab" if continues else "wb") as file, bar:
            while piece := response.read(_CHUNK):
                file.write(piece)
                bar.advance(round(file.tell() / 1e6) - bar.done)
            file.flush()
            os.fsync(file.fileno())
    if _size(part) < total:
        raise ConnectionError(f"it broke off after {_size(part)} of {total} bytes")


def _refuse_full_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"no room in {folder}: the archive and its files take {needed / 1e9:.2f} GB more, {free / 1e9:.2f} GB are "
            "free.\nFree some space or choose another folder (data.root=...)."
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar archive into a new folder, which appears when it is complete.

    Nothing is written outside of it: members with absolute paths, "..", links that lead out, or devices are refused.

    Args:
        archive: tar file, compressed or not.
        folder: must not exist.

    Raises:
        UserError: the archive is damaged or unsafe, or can't be written.
    """
    temporary = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        temporary.replace(folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(
            f"can't unpack {archive}: {error}.\nDelete it to fetch it anew, or make room on the disk."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
