"""What PodcastFillers' metadata files hold, checked: events, transcripts and voice activity.

Columns: https://podcastfillers.github.io/dataset, and the files themselves, which spell some names differently.
"""

import csv
import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from voxlab.audio import Seconds
from voxlab.data.episodes import Event, Word
from voxlab.data.names import listed
from voxlab.errors import UserError

# As in the files -> as on the data set's page.
_ALIASES = {"label_consolidated_vocab": "consolidated_label", "label_full_vocab": "fullvoc_label"}
_LABEL, _START, _END = "label_consolidated_vocab", "event_start_inepisode", "event_end_inepisode"
_EPISODE, _SPLIT, _CONFIDENCE = "podcast_filename", "episode_split_subset", "confidence"
_REQUIRED = (_LABEL, _START, _END, _EPISODE, _SPLIT)
_TICKS = (1e7, 1e6)  # a second; the files count 100 ns, the page says microseconds
_FITS = (0.5, 1.02)  # where the last word of a transcript ends, in durations of the recording


class Row(NamedTuple):
    """A row of a table of events: its line, episode and split, and the event, whose label may be "None"."""

    line: int
    episode: str
    split: str
    event: Event


def read_events(path: Path) -> list[Row]:
    """Read a table of events.

    Raises:
        UserError: it is unreadable or lacks columns; or names up to 20 wrong cells by file, line and column.
    """
    text = _read_text(path)
    reader = csv.DictReader(text.splitlines(keepends=True))
    try:
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a CSV table ({error}).") from None
    names = _columns(path, reader.fieldnames or ())
    bad: list[str] = []
    found = [_event(path, line, row, names, bad) for line, row in rows]
    if bad:
        raise UserError("\n".join([listed(bad, "\n"), "Mend these cells, or fetch the file again."]))
    return found


def _columns(path: Path, header: Any) -> dict[str, str]:
    """Return our name -> the file's name of each column."""
    names = {name: name if name in header else _ALIASES.get(name, name) for name in (*_REQUIRED, _CONFIDENCE)}
    missing = [name for name in _REQUIRED if names[name] not in header]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}. Is this a table of "
            "PodcastFillers events?"
        )
    return names


def _event(path: Path, line: int, row: Mapping[str, str | None], names: Mapping[str, str], bad: list[str]) -> Row:
    def number(column: str, highest: float) -> float:
        cell = row.get(names[column]) or ""
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not 0 <= value <= highest or math.isinf(value):
            wanted = f"a number from 0 to {highest:g}" if math.isfinite(highest) else "seconds, 0 or more"
            bad.append(f"{path}:{line}: {names[column]}={cell!r}: expected {wanted}")
        return value

    start, end = number(_START, math.inf), number(_END, math.inf)
    if end < start:
        bad.append(f"{path}:{line}: {names[_END]}={end:g} is before {names[_START]}={start:g}")
    confidence = number(_CONFIDENCE, 1.0) if (row.get(names[_CONFIDENCE]) or "").strip() else None
    label, episode, split = (row[names[column]] or "" for column in (_LABEL, _EPISODE, _SPLIT))
    return Row(line, episode, split, Event(label or "None", start, end, confidence))


def read_table(path: Path) -> Mapping[str, list[Row]]:
    """Read the table of all events; episode -> its rows. The latest is kept in memory. Raises as `read_events`."""
    return _read_table(path, path.stat().st_mtime_ns if path.is_file() else 0)


@functools.lru_cache(maxsize=1)
def _read_table(path: Path, _changed: int) -> Mapping[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for row in read_events(path):
        rows.setdefault(row.episode, []).append(row)
    return rows


def read_vad(path: Path) -> np.ndarray:
    """Read a table without header of time in seconds and voice activity.

    Returns:
        (n, 2) float64.

    Raises:
        UserError: it is not two columns of numbers, times are not in order, or an activity is outside 0 to 1.
    """
    try:
        values = np.loadtxt(path, delimiter=",", ndmin=2, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of time and voice activity ({error}). Fetch it again.") from None
    if values.shape[1:] != (2,):
        raise UserError(f"{path}: {values.shape[1]} columns, where time and voice activity are expected.")
    wrong = ~((values[:, 1] >= 0) & (values[:, 1] <= 1) & (np.diff(values[:, 0], prepend=-1e-9) > 0))
    if wrong.any():
        line = int(np.argmax(wrong))
        raise UserError(
            f"{path}:{line + 1}: {values[line, 0]:g},{values[line, 1]:g}: expected a later time than the line before, "
            "and an activity from 0 to 1."
        )
    return values


def read_transcript(path: Path, duration: Seconds) -> tuple[Word, ...]:
    """Read the words of a transcript, best hypothesis each, by start.

    Args:
        path: JSON of segments, their times in ticks whose length the duration tells.
        duration: of the recording in seconds.

    Raises:
        UserError: the file has another form, or its last word ends nowhere near the end of the recording.
    """
    words = list(_words(path, read_json(path)))
    last = max((word.end for word in words), default=0.0)
    low, high = _FITS
    ticks = next((ticks for ticks in _TICKS if low <= last / ticks / duration <= high), None)
    if words and ticks is None:
        raise UserError(
            f"{path}: transcript does not match audio: its last word ends at {last / _TICKS[0]:.2f} s (in ticks of 100 "
            f"ns) or {last / _TICKS[1]:.2f} s (in microseconds), the audio at {duration:.2f} s. Put the right files "
            "together, or take the transcript away."
        )
    scale = 1 / (ticks or 1)
    scaled = [replace(word, start=word.start * scale, end=word.end * scale) for word in words]
    return tuple(sorted(scaled, key=lambda word: (word.start, word.end)))


def _words(path: Path, content: Any) -> Iterator[Word]:
    """Yield the words, their times in ticks."""
    for number, segment in enumerate(field(path, content, "segments", list)):
        where = f"segments[{number}]"
        speaker = segment.get("speaker") if isinstance(segment, dict) else None
        best = field(path, segment, "nbest", list, where)
        words = field(path, best[0], "words", list, f"{where}.nbest[0]") if best else []
        for place, word in enumerate(words):
            there = f"{where}.nbest[0].words[{place}]"
            start, length = (number_field(path, word, name, there) for name in ("offset", "duration"))
            text = field(path, word, "text", str, there)
            yield Word(text, start, start + length, None if speaker is None else str(speaker))


# ---- JSON -----------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it can't be read.
    """
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). Fetch or make it again.") from None


def field(path: Path, record: Any, name: str, kind: type, where: str = "") -> Any:
    """Return `record[name]`, which must be of a type.

    Raises:
        UserError: names the file and the place of what is missing or of another type.
    """
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        place = f"{where}.{name}".lstrip(".")
        raise UserError(f"{path}: {place}: expected a {kind.__name__}, found {str(value)[:40]!r}.")
    return value


def number_field(path: Path, record: Any, name: str, where: str) -> float:
    """Return `record[name]`, which must be a number of 0 or more; raises as `field`."""
    value = record.get(name) if isinstance(record, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{path}: {where}.{name}: expected a number of 0 or more, found {str(value)[:40]!r}.")
    return float(value)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} can't be read ({error}).") from None
