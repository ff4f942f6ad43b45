"""Any folder of audio files, searched recursively: ids from relative paths, a table of metadata, splits."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from voxlab.data import splits
from voxlab.data.items import AudioItem, file_stamp
from voxlab.data.metadata import Value, join, read_table
from voxlab.data.names import counted, inflected, listed
from voxlab.data.recordings import read_headers
from voxlab.data.sample.audiofolder import write_sample
from voxlab.errors import UserError
from voxlab.sidecars.schema import PENDING_SUFFIX

log = logging.getLogger(__name__)

_EXTENSIONS = ("wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "aifc", "au", "caf", "w64")
# Audio that libsndfile doesn't read: passed over, but not in silence.
_OTHER_AUDIO = {"m4a", "aac", "wma", "mp4", "m4b", "webm", "mka", "amr", "ape", "wv", "mpc", "ra", "alac", "dsf"}
_TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_EXAMPLES = {
    "split_lists": "'{train: train.txt, validation: validation.txt}'",
    "split_fractions": "'{train: 0.9, validation: 0.1}'",
}
# Of the last part of an id, in bytes: file systems take 255, and outputs are written under the longest suffix at first.
_LONGEST_NAME = 255 - len(PENDING_SUFFIX + ".tmp-01234567")
_SPLITS = {"none": None, "folder": None, "list": "split_lists", "fraction": "split_fractions"}


@dataclass(frozen=True, kw_only=True)
class AudioFolder:
    """The audio files of a folder and the folders in it; hidden files, and folders behind symbolic links, are left out.

    The id of a recording is its path below the root without the suffix: `session1/take_3.WAV` is `session1/take_3`.

    Args:
        source: "disk" reads `root`; "sample" writes a small synthetic corpus beside it (`<root>-sample`) and reads
            that.
        root: folder of the recordings.
        extensions: file name suffixes that are read, in either case.
        pattern: which files below the root; `**` stands for any number of folders.
        metadata: CSV or JSON-lines table with a row for each recording (see `metadata.read_table`), below the root or
            as given; "auto" takes metadata.csv, .tsv or .jsonl in the root where there is one; None reads none.
        metadata_key: column of the table with the path below the root, with or without suffix.
        splits: "none" (all in train), "folder" (the first folder names it), "list" or "fraction".
        split_lists: for "list": split -> text file with a path or id a line, below the root or as given.
        split_fractions: for "fraction": split -> share, such as {"train": 0.9, "validation": 0.1}.
        split_group: for "fraction": recordings that share this stay together: a column of the table, or "folder";
            None deals each by itself.
        split_seed: for "fraction": another number deals anew.
    """

    source: str = "disk"
    root: str = "data/audio"
    extensions: Sequence[str] = _EXTENSIONS
    pattern: str = "**/*"
    metadata: str | None = "auto"
    metadata_key: str = "file_name"
    splits: str = "none"
    split_lists: Mapping[str, str] | None = None
    split_fractions: Mapping[str, float] | None = None
    split_group: str | None = None
    split_seed: int = 0

    @property
    def folder(self) -> Path:
        """The folder that is read: the root, or the sample beside it."""
        root = Path(self.root)
        return root.with_name(f"{root.name}-sample") if self.source == "sample" else root

    def prepare(self) -> None:
        """Write the sample, when asked to. To be called on one rank only.

        Raises:
            UserError: `source` is unknown.
        """
        if self.source == "sample":
            write_sample(self.folder)
            log.info("sample corpus: %s", self.folder)
        elif self.source != "disk":
            raise UserError(
                f"data.source={self.source}: choose disk or sample; there is nothing to download for a folder of yours."
            )

    def items(self) -> list[AudioItem]:
        """Return all recordings, sorted by id, without opening them; what is odd about them goes to the log.

        Raises:
            UserError: wrong settings, no recording, several with one id, or an unusable table or list.
        """
        items, findings = self._read()
        for finding in findings:
            log.warning("%s: %s", self.folder, finding)
        return items

    def check(self) -> list[str]:
        """Report everything that is wrong with the folder and its table, one line a finding; reads all headers."""
        try:
            items, findings = self._read()
        except UserError as error:
            return [str(error)]
        empty = [item.id for item in items if item.stamp.startswith("0:")]
        broken = [item.id for item in items if item.stamp == "absent"]
        problems = [*counted("{} [file|files] of no bytes", empty), *counted("{} broken [link|links]", broken)]
        return [*findings, *problems, *_unlike([item for item in items if item.id not in {*empty, *broken}])]

    def _read(self) -> tuple[list[AudioItem], list[str]]:
        self._check_settings()
        files, findings = self._files()
        metadata, more = self._metadata(files)
        split_of = self._splits(files, metadata)
        wanted = {} if self.split_fractions is None else self.split_fractions
        missing = sorted(set(wanted) - set(split_of.values()))
        findings += [*more, *(f"no file falls to the split {split}" for split in missing)]
        items = [
            AudioItem(item_id, path, split_of[item_id], _stamp(path), metadata.get(item_id, {}))
            for name, item_id in files.items()
            for path in [self.folder / name]
        ]
        return sorted(items, key=lambda item: item.id), findings

    def _check_settings(self) -> None:
        if isinstance(self.extensions, str) or not self.extensions:
            raise UserError(f"data.extensions={self.extensions}: give a list, for example '[wav, flac]'.")
        if not self.pattern or self.pattern.startswith("/") or ".." in PurePosixPath(self.pattern).parts:
            raise UserError(f"data.pattern={self.pattern}: give a pattern below data.root, for example 'takes/**/*'.")
        if self.splits not in _SPLITS:
            raise UserError(f"data.splits={self.splits}: choose {', '.join(_SPLITS)}.")
        given = {"split_lists": self.split_lists, "split_fractions": self.split_fractions}
        if self.split_group is not None and self.splits != "fraction":
            raise UserError(f"data.split_group={self.split_group} belongs to data.splits=fraction.")
        for key, value in given.items():
            mode = next(mode for mode, needed in _SPLITS.items() if needed == key)
            if self.splits == mode and not value:
                raise UserError(f"data.splits={mode} needs data.{key}, for example data.{key}={_EXAMPLES[key]}.")
            if self.splits != mode and value:
                raise UserError(
                    f"data.{key}={value} goes with data.splits={mode}, not with data.splits={self.splits}: set "
                    f"data.splits={mode}, or data.{key}=null."
                )

    def _files(self) -> tuple[dict[str, str], list[str]]:
        """Return relative path -> id of every recording, and what is odd about them."""
        wanted = {extension.lower().lstrip(".") for extension in self.extensions}
        pattern = self.pattern.split("/")
        files: dict[str, str] = {}
        others: Counter[str] = Counter()
        for name in _walk(self.folder):
            stem, suffix = os.path.splitext(name)  # noqa: PTH122 (10,000 times)
            extension = suffix[1:].lower()
            others[extension or "no suffix"] += 1
            if extension in wanted and _matches(name.split("/"), pattern):
                files[name] = stem
        if not files:
            raise UserError(self._explain_nothing(others))
        self._refuse_names(files)
        unread = {name: count for name, count in sorted(others.items()) if name in _OTHER_AUDIO - wanted}
        findings = [
            inflected(f"{{}} .{name} [file is|files are] not read (convert [it|them] to FLAC)", count)
            for name, count in unread.items()
        ]
        return files, findings + _differing_in_case(files.values())

    def _explain_nothing(self, found: Counter[str]) -> str:
        if self.source == "sample" and not self.folder.is_dir():
            return f"{self.folder} holds no sample corpus yet; a run without dry_run=true writes it."
        state = f"has {dict(sorted(found.items()))} files" if self.folder.is_dir() else "is not there"
        return (
            f"no recording under {self.folder} (it {state}): expected {self.pattern} with one of the suffixes "
            f"{', '.join(self.extensions)}.\nSet data.root=DIR to your recordings (data.source=disk) or try "
            "data.source=sample."
        )

    def _refuse_names(self, files: Mapping[str, str]) -> None:
        undecodable = [ascii(name) for name in files if not name.isprintable() and not _is_text(name)]
        if undecodable:
            raise UserError(f"{self.folder}: file names that are not UTF-8 text: {listed(undecodable)}. Rename them.")
        long = sorted(key for key in files.values() if len(os.fsencode(key.rpartition("/")[2])) > _LONGEST_NAME)
        if long:
            raise UserError(
                f"{self.folder}: {inflected('{} [file name is|file names are]', len(long))} too long for the outputs, "
                f"with more than {_LONGEST_NAME} bytes before the suffix: {listed(long)}. Rename them."
            )
        by_id: dict[str, list[str]] = {}
        for name, item_id in files.items():
            by_id.setdefault(item_id, []).append(name)
        separator = "\n  "
        double = [" and ".join(sorted(names)) for names in by_id.values() if len(names) > 1]
        if double:
            found = inflected("{} [id belongs|ids belong] to several files", len(double))
            raise UserError(
                f"{self.folder}: {found} (the id is the path without suffix, and names the outputs):\n"
                f"  {listed(double, separator)}\nRename them, or set data.extensions='[wav]' or data.pattern=..."
            )

    def _metadata(self, files: Mapping[str, str]) -> tuple[dict[str, dict[str, Value]], list[str]]:
        path = self._table()
        if path is None:
            return {}, []
        rows = read_table(path, self.metadata_key)
        found, unmatched = join(path, rows, files)
        if rows and not found:
            raise UserError(
                f"{path}: none of its rows names a recording: line {rows[0].line} has {rows[0].name!r}, a "
                f"file is {min(files)!r}. Name the column with the path below {self.folder}: data.metadata_key=..., or "
                "read no table: data.metadata=null."
            )
        lines = [f"{row.name} (line {row.line})" for row in unmatched]
        findings = counted(f"{{}} [row|rows] of {path.name} [names|name] no file", lines)
        findings += counted(
            f"{{}} [file has|files have] no row in {path.name}", sorted(set(files.values()) - found.keys())
        )
        blank = dict.fromkeys(rows[0].values) if rows else {}
        return {key: found[key].values if key in found else blank for key in files.values()}, findings

    def _table(self) -> Path | None:
        if self.metadata is None:
            return None
        if self.metadata != "auto":
            return self._locate(self.metadata, "metadata")
        present = [self.folder / name for name in _TABLES if (self.folder / name).is_file()]
        if len(present) > 1:
            names = " and ".join(path.name for path in present)
            raise UserError(f"{self.folder} holds {names}: choose with data.metadata=...")
        return present[0] if present else None

    def _locate(self, name: str, key: str) -> Path:
        """Find a file that is named below the root or as seen from here."""
        for path in (self.folder / name, Path(name)):
            if path.is_file():
                return path
        raise UserError(f"data.{key}: there is neither {self.folder / name} nor {Path(name)}.")

    def _splits(self, files: Mapping[str, str], metadata: Mapping[str, Mapping[str, Value]]) -> dict[str, str]:
        if self.splits == "folder":
            return splits.by_folder(files)
        if self.splits == "list":
            lists = {name: self._locate(path, f"split_lists.{name}") for name, path in (self.split_lists or {}).items()}
            return splits.by_list(files, lists)
        if self.splits == "fraction":
            return splits.by_fraction(self._groups(files, metadata), self.split_fractions or {}, self.split_seed)
        return dict.fromkeys(files.values(), "train")

    def _groups(self, files: Mapping[str, str], metadata: Mapping[str, Mapping[str, Value]]) -> dict[str, str]:
        if self.split_group is None:
            return {item_id: item_id for item_id in files.values()}
        if self.split_group == "folder":
            return {item_id: item_id.rpartition("/")[0] for item_id in files.values()}
        groups = {item_id: metadata.get(item_id, {}).get(self.split_group) for item_id in files.values()}
        without = [item_id for item_id, group in groups.items() if group is None]
        if without:
            columns = sorted({name for values in metadata.values() for name in values})
            raise UserError(
                f"data.split_group={self.split_group}: no value for "
                f"{inflected('{} [file|files]', len(without))}: {listed(sorted(without))}.\n"
                f"Choose folder, null, or a column of the table that is filled in for all: {columns}."
            )
        return {item_id: str(group) for item_id, group in groups.items()}


def _unlike(items: Sequence[AudioItem]) -> list[str]:
    """Tell of headers that can't be read, and of several sample rates in one folder."""
    unreadable: list[str] = []
    by_rate: dict[int, list[str]] = {}
    for item, header in zip(items, read_headers(items), strict=True):
        if isinstance(header, str):
            unreadable.append(f"{item.id} ({header})")
        else:
            by_rate.setdefault(header.sample_rate, []).append(item.id)
    mixed = by_rate if len(by_rate) > 1 else {}
    lines = counted("{} [file|files] can't be read", unreadable)
    return lines + [
        line for rate, ids in sorted(mixed.items()) for line in counted(f"{{}} [file|files] of {rate} Hz", ids)
    ]


def _walk(folder: Path) -> Iterator[str]:
    """Yield the path below `folder` of every file that is not hidden."""

    def fail(error: OSError) -> None:
        if Path(error.filename) != folder:  # an absent root has its own message
            raise UserError(f"can't list {error.filename}: {error.strerror}.") from error

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = PurePosixPath(Path(parent).relative_to(folder).as_posix())
        yield from (str(below / name) for name in names if not name.startswith("."))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Tell whether the names of a path match those of a pattern, in which `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _stamp(path: Path) -> str:
    """Return the stamp of a file, also of a link that leads nowhere: reading it is a bad item like any other."""
    try:
        return file_stamp(path)
    except FileNotFoundError:
        return "absent"


def _differing_in_case(ids: Iterable[str]) -> list[str]:
    by_folded: dict[str, list[str]] = {}
    for item_id in sorted(ids):
        by_folded.setdefault(item_id.lower(), []).append(item_id)
    alike = [" and ".join(same) for same in by_folded.values() if len(same) > 1]
    return counted("{} [pair|pairs] of ids that differ in case only, and are one file on other systems", alike)
