"""Writes episodes into a store of features: arrays as their frames come, files whole or absent, `episode.json` last.

`feature_store` reads what this writes; `task=extract` decides what is to be written.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from voxlab import storage
from voxlab.audio import Seconds
from voxlab.data.episodes import Event, View
from voxlab.data.feature_store import CONTEXT, ENERGY, EPISODE, EVENTS, INDEX, VAD, features_file
from voxlab.data.frame_file import finite_rows
from voxlab.errors import UserError

_LONGEST_KEY = 120  # bytes, before the hash
_FP16_MAX, _DIGITS = 65504.0, 12
_LOCK = Path(".state") / "index.lock"
Facts = Mapping[str, Any]


class BadFrames(ValueError):
    """Frames that can't be stored: NaN, infinity, a gap, too many or too few of them."""


@dataclass(frozen=True)
class EpisodeFacts:
    """What `episode.json` tells of a recording besides its files.

    Attributes:
        id: of the recording in its corpus.
        name: as the corpus calls it.
        show: what it belongs to.
        split: train, validation or test.
        duration: in seconds.
        num_frames: of all its arrays.
        views: at least one.
        speakers: that are known; None where speakers aren't told apart.
        source: what it was made from: path and stamp of the audio, at least.
    """

    id: str
    name: str
    show: str
    split: str
    duration: Seconds
    num_frames: int
    views: Sequence[View] = (View(0, None, (), None),)
    speakers: Sequence[str] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of its folder."""
        return episode_key(self.id, self.split)


def episode_key(item_id: str, split: str) -> str:
    """Return a folder name: letters, digits, "_", "-" and "." of the id, and eight digits that tell ids apart.

    A corpus may learn the true name of an episode later, from a file that was added; its id stays, and so does this.
    """
    plain = re.sub(r"[^\w.-]+", "_", item_id.removeprefix(f"{split}/")).strip("._") or "episode"
    short = plain.encode()[:_LONGEST_KEY].decode(errors="ignore")
    return f"{short}-{hashlib.sha1(item_id.encode(), usedforsecurity=False).hexdigest()[:8]}"


def begin_store(out: Path, settings: Facts, flags: Facts, asked: Facts | None = None) -> Path:
    """Make the folder of a fingerprint with its manifest, and return it; one that exists stays as it is.

    Args:
        out: folder of all fingerprints.
        settings: what decides the bytes; "features", "data" and so on.
        flags: remarks that belong to every figure made from the features, for example random weights.
        asked: "weights": by what name they were asked for, which later commands compare without opening them.
    """
    folder = store_folder(out, settings)
    manifest = {"fingerprint": folder.name, "settings": settings, "flags": flags, "asked": dict(asked or {})}
    storage.atomic_write_json(folder / storage.MANIFEST, manifest)
    return folder


def store_folder(out: Path, settings: Mapping[str, Any]) -> Path:
    """Return the folder of a fingerprint."""
    return out / storage.fingerprint(settings)[:_DIGITS]


class EpisodeWriter:
    """One recording on its way into the store; a context manager that throws away what is unfinished.

    Args:
        store: folder of the fingerprint.
        facts: of the recording.
        dim: numbers per frame.
        dtype: of the features.
    """

    def __init__(self, store: Path, facts: EpisodeFacts, *, dim: int, dtype: str) -> None:
        self.folder, self.facts = store / facts.split / facts.key, facts
        self.dim, self.dtype = dim, np.dtype(dtype)
        self._arrays: dict[str, _ArrayFile] = {}
        (self.folder / EPISODE).unlink(missing_ok=True)  # what comes may differ from what it describes
        storage.remove_temporaries([self.folder])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def add(self, view: int, start: int, values: np.ndarray, name: str = "features") -> None:
        """Append frames start..start+k-1 of a view: (k, dim) features, or (k, rows) integers under another name.

        Raises:
            BadFrames: they don't follow the last ones, have a wrong shape, or hold NaN or too large numbers.
            UserError: the disk is full.
        """
        file = features_file(view, name)
        dim, dtype = (self.dim, self.dtype) if name == "features" else (values.shape[-1], np.dtype(np.int16))
        if file not in self._arrays:
            shape = (self.facts.num_frames, dim)
            self._arrays[file] = _ArrayFile(self.folder / file, shape, dtype)
        self._arrays[file].append(start, values)

    @property
    def is_complete(self) -> bool:
        """Whether every view has all its features, and each array that was begun all its frames."""
        wanted = {features_file(view.index) for view in self.facts.views}
        return wanted <= self._arrays.keys() and all(array.is_full for array in self._arrays.values())

    def finish(
        self,
        *,
        settings: Mapping[str, Any],
        events: Iterable[Event] | None = None,
        vad: np.ndarray | None = None,
        energy: np.ndarray | None = None,
        context: np.ndarray | None = None,
    ) -> None:
        """Write the small files and, at the end, `episode.json`; args as `StoredEpisode` returns them.

        Raises:
            BadFrames: frames are missing, or a series has another length.
        """
        if not self.is_complete:
            done = {name: array.written for name, array in self._arrays.items()}
            raise BadFrames(f"of {self.facts.num_frames} frames, these were given: {done}")
        files = {name: array.close() for name, array in self._arrays.items()}
        self._arrays.clear()
        series = {VAD: (vad, np.float16), ENERGY: (energy, np.float32), CONTEXT: (context, np.int32)}
        for name, (values, dtype) in series.items():
            if values is not None:
                files[name] = self._write_series(name, values.astype(dtype))
        if events is not None:
            listed = [dataclasses.asdict(event) for event in events]
            files[EVENTS] = self._write(EVENTS, (json.dumps(listed, ensure_ascii=False) + "\n").encode())
        facts = {**dataclasses.asdict(self.facts), "key": self.facts.key}
        files = {name: files[name] for name in sorted(files)}  # not in the order in which they were completed
        storage.atomic_write_json(self.folder / EPISODE, {**facts, "files": files, "settings": settings})

    def _write_series(self, name: str, values: np.ndarray) -> dict[str, Any]:
        if values.shape != (self.facts.num_frames,):
            raise BadFrames(f"{name}: {values.shape} values for {self.facts.num_frames} frames")
        buffer = io.BytesIO()
        np.save(buffer, values, allow_pickle=False)
        return self._write(name, buffer.getvalue())

    def _write(self, name: str, data: bytes) -> dict[str, Any]:
        storage.atomic_write_bytes(self.folder / name, data)
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def abort(self) -> None:
        """Throw away the arrays that are being written."""
        for array in self._arrays.values():
            array.abort()
        self._arrays.clear()


class _ArrayFile:
    """A `.npy` file that grows to its known shape."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.written, self._bytes, self._hash = 0, 0, hashlib.sha256()
        self._stack = contextlib.ExitStack()
        temporary = self._stack.enter_context(storage.atomic_path(path))
        self._file = self._stack.enter_context(temporary.open("wb"))
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        self._write(header.getvalue())

    @property
    def is_full(self) -> bool:
        return self.written == self.shape[0]

    def append(self, start: int, values: np.ndarray) -> None:
        count, dim = self.shape
        if values.ndim != 2 or values.shape[1] != dim:
            raise BadFrames(f"{self.path.name}: frames of the shape {values.shape}; expected (k, {dim})")
        if start != self.written or start + len(values) > count:
            raise BadFrames(
                f"{self.path.name}: frames {start} to {start + len(values) - 1} came after {self.written} of {count}"
            )
        self._write(_converted(values, self.dtype, start).tobytes())
        self.written += len(values)

    def _write(self, data: bytes) -> None:
        with storage.explained(self.path):
            self._file.write(data)
        self._hash.update(data)
        self._bytes += len(data)

    def close(self) -> dict[str, Any]:
        self._stack.close()
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}

    def abort(self) -> None:
        error = BadFrames("given up")
        with contextlib.suppress(BadFrames, OSError):
            self._stack.__exit__(type(error), error, None)


def _converted(values: np.ndarray, dtype: np.dtype[Any], start: int) -> np.ndarray:
    """Return values in the stored type, without any that it can't hold."""
    values = np.ascontiguousarray(values)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        bad = ((values < limits.min) | (values > limits.max)).any(1)
    else:
        bad = ~finite_rows(values)
        if values.dtype != dtype:
            bad |= (np.abs(values) > _FP16_MAX).any(1)
    if bad.any():
        first = int(np.argmax(bad))
        raise BadFrames(
            f"{int(bad.sum())} of the frames {start} to {start + len(values) - 1} hold NaN, infinity or more than "
            f"{dtype.name} can; the first is {start + first}"
        )
    return values.astype(dtype, copy=False)


# ---- what there is -------------------------------------------------------------------------------------------------


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return the `episode.json` of a folder; None where there is none that can be read."""
    try:
        return json.loads((folder / EPISODE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_current(folder: Path, source: Mapping[str, Any], *, verify_hash: bool = False) -> bool:
    """Tell whether an episode is complete and made from `source`: its files have their size, or their hash."""
    record = read_record(folder)
    if record is None or record["source"] != dict(source):
        return False
    return all(_is_as_written(folder / name, facts, verify_hash) for name, facts in record["files"].items())


def _is_as_written(path: Path, facts: Mapping[str, Any], verify_hash: bool) -> bool:
    if not path.is_file() or path.stat().st_size != facts["bytes"]:
        return False
    if not verify_hash:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == facts["sha256"]


@contextlib.contextmanager
def exclusive(store: Path) -> Iterator[None]:
    """Let one command at a time change what a store's files say of all splits; the others wait.

    Raises:
        UserError: the store can't be written.
    """
    path = store / _LOCK
    with storage.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_index(store: Path, episodes: Mapping[str, str], missing: Mapping[str, str], accepted: bool) -> None:
    """List the complete episodes in `index.json`, and those that are missing; what it says of other splits stays.

    Args:
        store: folder of the fingerprint.
        episodes: id -> split of the recordings of the corpus; of these splits they are listed and no others.
        missing: id -> reason of those without features.
        accepted: whether the store may be used although these are missing.

    Raises:
        UserError: there is an index that can't be read, or the store can't be written.
    """
    own, shown = set(episodes.values()), ("id", "key", "name", "show", "split", "num_frames", "duration")
    new = {
        item: {"id": item, "split": episodes[item], "reason": missing[item], "accepted": accepted} for item in missing
    }
    with exclusive(store):
        old = [entry for entry in _read_missing(store) if entry["split"] not in own and entry["id"] not in episodes]
        lost = {entry["id"]: entry for entry in old} | new
        found = [
            {name: record[name] for name in shown}
            for (split, item), record in _read_records(store).items()
            if item not in lost and (split == episodes[item] if item in episodes else split not in own)
        ]
        found.sort(key=lambda episode: (episode["split"], episode["id"]))
        listed = {"episodes": found, "missing": [lost[item] for item in sorted(lost)]}
        storage.atomic_write_json(store / INDEX, listed)


def _read_missing(store: Path) -> list[dict[str, Any]]:
    """Return the missing ones; earlier versions gave no split with them, and `accepted` once for all."""
    path = store / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"missing": []}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}). Delete it, and extract all splits again.") from error
    given = [{"split": entry["id"].partition("/")[0], **entry} for entry in index["missing"]]
    return [{"accepted": index.get("accepted"), **entry} for entry in given]


def _read_records(store: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return (split, id) -> `episode.json`; of several folders of one episode, that whose name is its key."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(store.glob(f"*/*/{EPISODE}")):
        record = read_record(path.parent)
        if record is not None:
            place = record["split"], record["id"]
            if place not in found or path.parent.name == episode_key(record["id"], record["split"]):
                found[place] = record
    return found
