"""One sidecar of `task=extract`: whether it is up to date, and how it is made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.audio import load, to_mono
from voxlab.codecs import token_files
from voxlab.codecs.token_headers import TokenHeader
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.ledger import Ledger, Record, stats
from voxlab.sidecars import calls, columns, schema
from voxlab.sidecars.calls import Call
from voxlab.sidecars.columns import Made
from voxlab.sidecars.item import SidecarItem
from voxlab.sidecars.schema import Sidecar
from voxlab.storage import fingerprint
from voxlab.tasks.extract.stage import NORMALIZED, TOKENS

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Work:
    """What is to be done to every item.

    Attributes:
        out: output folder.
        suffix: of the token files.
        chosen: the producers, in order.
        mode: "append" or "overwrite".
        dtype: of the values.
        remove: names of columns to take away.
    """

    out: Path
    suffix: str
    chosen: tuple[Call, ...]
    mode: str
    dtype: str
    remove: tuple[str, ...]

    def fingerprint(self) -> str:
        """Return what changes when the results may."""
        made_by = [(call.name, call.fingerprint) for call in self.chosen]
        settings = {"calls": made_by, "mode": self.mode, "dtype": self.dtype, "remove": self.remove}
        return fingerprint({"version": FORMAT_VERSION, **settings})

    def tokens(self, item: AudioItem) -> Path:
        """Return an item's token file."""
        return self.out / TOKENS / f"{item.id}{self.suffix}"

    def sidecar_paths(self, item: AudioItem) -> tuple[Path, Path]:
        """Return an item's values and JSON. Equal to `schema.paths_beside`, in a third of its time."""
        stem = f"{self.out}/{TOKENS}/{item.id}"
        return Path(stem + schema.VALUES_SUFFIX), Path(stem + schema.META_SUFFIX)

    def made_from(self, item: AudioItem, encoded: Mapping[str, Any], settings: str) -> dict[str, Any]:
        """Return what an item's record must state for its sidecar to be up to date."""
        metadata = _plain(item.metadata) if self.chosen else {}
        return {"tokens": encoded["sha256"], "settings": settings, "metadata": metadata}


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata as JSON holds it; other values by what they print as."""
    exact = (str, int, bool, type(None))
    fits = {k: isinstance(v, exact) or (isinstance(v, float) and math.isfinite(v)) for k, v in metadata.items()}
    return {name: value if fits[name] else repr(value) for name, value in metadata.items()}


def is_current(ledger: Ledger, made_from: Mapping[str, Any], item_id: str, paths: tuple[Path, Path]) -> bool:
    """Tell whether an item's sidecar, or its failure, is that of the present tokens, settings and files."""
    return ledger.is_current(item_id, made_from, paths) and _has_same_files(ledger.records[item_id])


def _has_same_files(record: Mapping[str, Any]) -> bool:
    files = record.get("files", {})
    return not files or stats(map(Path, files)) == list(files.values())


def make(work: Work, item: AudioItem, made_from: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> Record:
    """Write an item's sidecar and return its record; a bad item gets one with "error".

    Args:
        work: what is to be done.
        item: the recording.
        made_from: see `Work.made_from`.
        earlier: its record from before, or None.

    Raises:
        UserError: settings are wrong for every item, or the disk is full.
    """
    used: list[Path] = []
    try:
        result = _make(work, item, made_from, earlier or {}, used)
    except UserError:
        raise
    except (ValueError, OSError) as error:
        reason = str(error) if isinstance(error, ValueError) else f"unreadable: {type(error).__name__}: {error}"
        result = {"path": str(item.path), "error": reason}
    files = dict(zip(map(str, used), stats(used), strict=True))
    return {**made_from, **result, **({"files": files} if files else {})}


def _make(
    work: Work, item: AudioItem, made_from: Mapping[str, Any], earlier: Mapping[str, Any], used: list[Path]
) -> Record:
    tokens = work.tokens(item)
    npy, json_path = work.sidecar_paths(item)
    schema.recover(npy, json_path)
    header = token_files.read_header(tokens)
    subject = _describe(work, item, header, used)
    empty = schema.skeleton(header.num_frames, header.frame_rate, work.dtype, made_from["tokens"])
    old = _read_old(npy, json_path, work.mode)
    reusable = _reusable(earlier, made_from, old, empty, stats([npy, json_path]))
    times = token_files.frame_times(header)
    made, units = [], {}
    for call in work.chosen:
        names = reusable.get(call.fingerprint)
        if old is not None and names is not None:
            found = {name: old.column(name) for name in names}
            units |= {name: unit for name, unit in zip(old.names, old.units, strict=True) if name in names}
        else:
            found = calls.run(call, subject, times)
        made.append(Made(call, found))
    units |= subject.units
    sidecar, notes = columns.merge(old, made, units, empty, mode=work.mode, remove=work.remove, file=npy.name)
    schema.write(npy, json_path, sidecar)
    facts = {"stat": stats([npy, json_path]), "frames": sidecar.frames, "names": list(sidecar.names)}
    return facts | {"made": {one.call.fingerprint: list(one.columns) for one in made}} | notes.as_record()


def _describe(work: Work, item: AudioItem, header: TokenHeader, used: list[Path]) -> SidecarItem:
    normalized = work.out / NORMALIZED / f"{item.id}.wav"

    @cache
    def load_wav() -> tuple[np.ndarray, int]:
        wav = to_mono(load(normalized if normalized.is_file() else item.read(), header.sample_rate)[0])
        if wav.shape[-1] != header.num_samples:
            raise ValueError(
                f"length_mismatch: the audio has {wav.shape[-1]} samples at {header.sample_rate} Hz, the token file "
                f"was made from {header.num_samples}; run the stages normalize and encode again"
            )
        return wav.numpy(), header.sample_rate

    return SidecarItem(
        id=item.id,
        tokens=work.tokens(item),
        source=item.path,
        metadata=item.metadata,
        num_samples=header.num_samples,
        sample_rate=header.sample_rate,
        frame_rate=header.frame_rate,
        frames=header.num_frames,
        load_wav=load_wav,
        used=used,
    )


def _read_old(npy: Path, json_path: Path, mode: str) -> Sidecar | None:
    """Read the sidecar that is there; mode "overwrite" makes a broken one anew."""
    if not (npy.exists() or json_path.exists()):
        return None
    try:
        return schema.read(npy, json_path)
    except ValueError as error:
        if mode == "overwrite":
            return None
        raise ValueError(f"{error}; delete the sidecar, or let sidecars.mode=overwrite make it anew") from error


def _reusable(
    earlier: Mapping[str, Any],
    made_from: Mapping[str, Any],
    old: Sidecar | None,
    empty: Sidecar,
    present: list[list[int] | None],
) -> dict[str, list[str]]:
    """Return the columns of each producer (by fingerprint) that need not be computed again: nothing about them changed.

    Args:
        earlier: the item's record from before.
        made_from: what the item is made from now.
        old: the sidecar that is there.
        empty: what is wanted, without columns.
        present: size and time of change of the sidecar's files.
    """
    same = all(earlier.get(key) == made_from[key] for key in ("tokens", "metadata"))
    if old is None or not same or earlier.get("stat") != present or not _has_same_files(earlier):
        return {}
    if old.dtype != empty.dtype or columns.is_stale(old, empty):
        return {}
    owned = {entry.get("fingerprint"): set(entry["columns"]) for entry in old.producers}
    made: Mapping[str, list[str]] = earlier.get("made", {})
    return {key: names for key, names in made.items() if names and set(names) <= owned.get(key, set())}
