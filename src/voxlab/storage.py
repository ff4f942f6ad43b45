"""Files that are complete or absent: atomic writes, canonical fingerprints, and the manifest of an output folder.

Below every task; knows nothing of audio. Parquet work units live in `parquet.py`.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from voxlab.errors import UserError

Item = TypeVar("Item")

MANIFEST = "manifest.json"
_MISSING = "(absent)"
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}$")
_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG),
)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block succeeds and vanishes when it fails.

    The file is flushed to disk before it is renamed, and the folder after, so a reader never sees a partial file,
    not even after a power cut.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Tell the user what to do when the operating system refuses to write `path`, in a block that writes it.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    try:
        yield
    except OSError as error:
        raise _explain(error, path) from error


def _explain(error: OSError, path: Path) -> Exception:
    """Turn the operating system's refusals that a user can lift into a `UserError`; leave the others alone."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        existing = next(folder for folder in path.parents if folder.exists())
        free = shutil.disk_usage(existing).free
        return UserError(
            f"no room to write {path}: {error.strerror or error} ({free / 1e9:.2f} GB free).\n"
            "Free some space or choose another folder (out=...), then run the same command again: it resumes."
        )
    if error.errno in _UNWRITABLE:
        return UserError(
            f"can't write {path}: {error.strerror or error}.\nChoose a folder that you may write to (out=...)."
        )
    return error


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; an equal file is left untouched (its time stamp too)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        atomic_write_bytes(path, text.encode())


def write_settled(gather: Callable[[], Item], write: Callable[[Item], object]) -> None:
    """Write what follows from files that other processes add to, and do likewise, without a lock among them.

    Between gathering and writing another process may add a file and write; what is written here would hide it. So
    what was written is gathered again, until it is the same: whoever writes last has seen everything.

    Args:
        gather: returns what the files say.
        write: puts that into one place, atomically.
    """
    written = None
    while (found := gather()) != written:
        write(found)
        written = found


def stamps(folder: Path, pattern: str) -> list[tuple[str, int]]:
    """Return the files of a folder that match a pattern, with the time of each; `write_settled` may gather these."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in folder.glob(pattern))


def remove_temporaries(folders: Iterable[Path]) -> int:
    """Delete what killed writers left directly in `folders`; returns how many files went. No writer may be at work."""
    found = [path for folder in set(folders) if folder.is_dir() for path in folder.iterdir()]
    leftovers = [path for path in found if _TEMPORARY.search(path.name) and path.is_file()]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


def plain_name(name: str) -> str:
    """Spell a relative path in one way, whichever system wrote it: "/" between folders, composed accents, no "./"."""
    plain = name.strip().replace("\\", "/").removeprefix("./")
    return plain if plain.isascii() else unicodedata.normalize("NFC", plain)


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of `settings` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List `key: old -> new` for every setting that differs, nested ones by their dotted key."""
    old_flat, new_flat = flatten(old), flatten(new)
    keys = sorted(old_flat.keys() | new_flat.keys())
    pairs = [(key, old_flat.get(key, _MISSING), new_flat.get(key, _MISSING)) for key in keys]
    return [f"{key}: {before} -> {after}" for key, before, after in pairs if before != after]


def read_object(path: Path, parse: Callable[[str], Any] = json.loads) -> dict[str, Any]:
    """Return the object that a file of JSON holds, empty where there is no such file.

    Args:
        path: of the file.
        parse: for files of another kind: makes the object from the text, or raises ValueError.

    Raises:
        UserError: the file can't be read, or holds something else; the message begins with `path`.
    """
    try:
        value = parse(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not an object with keys, but {value!r:.40}")
    return value


def read_status(path: Path) -> dict[str, Any]:
    """Return what a run's status.json says: `state`, `error`, `seconds` and so on; empty where there is none.

    Raises:
        UserError: the file can't be read, or says something else; the message begins with `path`.
    """
    status = read_object(path)
    for key, kinds in (("state", str), ("error", str | None), ("seconds", float | int | None)):
        if path.is_file() and not isinstance(status.get(key), kinds):
            raise UserError(f"{path}: {key} is {status.get(key)!r:.40}")
    return status


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of an output folder; None when it has none.

    Raises:
        UserError: the file is not a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Delete it or choose another folder (out=...).") from None
    if not isinstance(manifest, dict) or "settings" not in manifest:
        raise UserError(f"{path} was not written by voxlab. Choose another folder (out=...).")
    return manifest


def refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stop when `folder` holds work that was made with other settings.

    Raises:
        UserError: names every differing key with both values, and the two ways out.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest["settings"] == dict(settings):
        return
    changed = differences(manifest["settings"], settings)
    raise UserError(
        f"{folder} holds work made with other settings "
        f"(fingerprint {fingerprint(manifest['settings'])}, now {fingerprint(settings)}):\n  "
        + "\n  ".join(changed)
        + "\nUse another folder (out=...) or start this one over (restart=true)."
    )
