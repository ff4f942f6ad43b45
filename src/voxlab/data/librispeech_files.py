"""Recordings, transcripts and the table of speakers in LibriSpeech's layout; what is odd about them is collected."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from voxlab.errors import UserError

Metadata = dict[str, str | None]
# Text with {} for their number -> the names that it is about.
Findings = defaultdict[str, list[str]]
_RECORDING = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-(?P<utterance>\d+)\.flac")


def entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """List a folder by name, without hidden files."""
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"can't list {os.fspath(folder)}: {error.strerror}.") from error


def holds_speakers(folder: os.DirEntry[str]) -> bool:
    """Tell whether a folder looks like a subset: it has folders whose names are numbers."""
    return any(entry.name.isdigit() and entry.is_dir() for entry in entries(folder))


def scan(base: Path, subset: str, problems: Findings) -> Iterator[tuple[str, str, Metadata]]:
    """Yield id, stamp and metadata of each recording of a subset."""
    for speaker in entries(base / subset):
        for chapter in entries(speaker) if speaker.is_dir() else []:
            if chapter.is_dir():
                yield from _scan_chapter(subset, speaker.name, chapter, problems)


def _scan_chapter(
    subset: str, speaker: str, chapter: os.DirEntry[str], problems: Findings
) -> Iterator[tuple[str, str, Metadata]]:
    below = f"{subset}/{speaker}/{chapter.name}"
    files = [entry for entry in entries(chapter) if entry.name.endswith(".flac")]
    texts = _read_texts(Path(chapter.path) / f"{speaker}-{chapter.name}.trans.txt", below, problems) if files else None
    for entry in files:
        name = _RECORDING.fullmatch(entry.name)
        if name is None or (name["speaker"], name["chapter"]) != (speaker, chapter.name):
            problems["{} files are left out, their names don't fit their folders"].append(f"{below}/{entry.name}")
            continue
        stem = entry.name.removesuffix(".flac")
        text = (texts or {}).pop(stem, None)
        if texts is not None and text is None:
            problems["{} recordings have no text in their trans.txt"].append(f"{below}/{stem}")
        yield f"{below}/{stem}", _stamp(entry), {"subset": subset, **name.groupdict(), "text": text}
    problems["{} texts have no recording"] += [f"{below}/{stem}" for stem in texts or ()]


def _read_texts(path: Path, below: str, problems: Findings) -> dict[str, str] | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        problems["{} chapters have no trans.txt"].append(below)
        return None
    except (OSError, UnicodeDecodeError) as error:
        problems["{} trans.txt can't be read"].append(f"{below} ({error})")
        return None
    pairs = [line.strip().partition(" ") for line in lines]
    return {stem: text.strip() for stem, _, text in pairs if text.strip()}


def read_sexes(base: Path, problems: Findings) -> dict[str, str] | None:
    """Read speaker -> "F" or "M" from SPEAKERS.TXT: `id | sex | subset | minutes | name`, comments after `;`."""
    path = base / "SPEAKERS.TXT"
    if not path.is_file():
        problems["{} table of speakers is missing, their sex is unknown"].append("SPEAKERS.TXT")
        return None
    sexes: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        fields = [field.strip() for field in line.split("|")]
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        if len(fields) < 2 or not fields[0].isdigit() or fields[1] not in ("F", "M"):
            problems["{} lines of SPEAKERS.TXT are not understood"].append(f"line {number}")
        else:
            sexes[fields[0]] = fields[1]
    return sexes


def _stamp(entry: os.DirEntry[str]) -> str:
    try:
        status = entry.stat()
    except FileNotFoundError:  # a link that leads nowhere: reading it is a bad item like any other
        return "absent"
    return f"{status.st_size}:{status.st_mtime_ns}"
