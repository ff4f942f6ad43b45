"""Praat's TextGrid files, in their long and short form: tiers of timed text, and the words of a recording.

Source: the TextGrid pages of Praat's manual (both forms are one stream of numbers, quoted texts and flags).
"""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from voxlab.data.episodes import Word
from voxlab.errors import UserError

log = logging.getLogger(__name__)

# Everything else in a long file explains what these are: a number only counts where it stands alone.
_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?<!\S)(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?!\S)|(?P<open>")'
)
_ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


@dataclass(frozen=True)
class Tier:
    """One row of a TextGrid.

    Attributes:
        kind: "IntervalTier" or "TextTier" (points in time).
        name: as the file calls it.
        marks: in order of time, silence (an empty text) as well; a point in time starts and ends at once.
    """

    kind: str
    name: str
    marks: tuple[Word, ...]


def read_textgrid(path: Path) -> list[Tier]:
    """Read all tiers of a file.

    Raises:
        UserError: it is absent or malformed; names the line.
    """
    try:
        return parse_textgrid(path.read_bytes())
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is no well-formed TextGrid: {error}. Export it again, or take it away.") from None


def read_words(path: Path) -> list[Word]:
    """Return the spoken words of a file in order of time.

    They are in the tier of intervals with the name "words", or else in the first one whose name ends so ("scott -
    words"), or else, with a warning, in the first one of all.

    Raises:
        UserError: the file is absent or malformed, or has no tier with intervals.
    """
    tiers = [tier for tier in read_textgrid(path) if tier.kind == _INTERVALS]
    if not tiers:
        raise UserError(f"{path} has no tier with intervals; expected one with the name words.")
    chosen = max(tiers, key=_fitness)
    if not _fitness(chosen):
        _warn_of_tier(chosen.name)
    return [mark for mark in chosen.marks if mark.text.strip()]


def _fitness(tier: Tier) -> int:
    name = tier.name.strip().lower()
    return (name == "words") + name.endswith("words")


@cache  # once, however many files are alike
def _warn_of_tier(name: str) -> None:
    log.warning('TextGrids without a tier "words": the intervals of the first one, "%s", are taken for words', name)


def parse_textgrid(data: bytes) -> list[Tier]:
    """Parse the content of a file, in UTF-8 or UTF-16.

    Raises:
        ValueError: it is malformed; begins with the number of the line.
    """
    stream = _Stream(_decode(data))
    stream.text("ooTextFile", "ooTextFile short")
    stream.text("TextGrid")
    stream.number("start of the whole")
    stream.number("end of the whole")
    return [_tier(stream) for _ in range(stream.count("tiers"))]


def _decode(data: bytes) -> str:
    encoding = next((name for mark, name in _ENCODINGS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"line {data[: error.start].count(10) + 1}: neither UTF-8 nor UTF-16") from None


def _tier(stream: "_Stream") -> Tier:
    kind, name = stream.text(_INTERVALS, _POINTS), stream.text()
    stream.number("start of a tier")
    stream.number("end of a tier")
    marks: list[Word] = []
    for _ in range(stream.count("marks")):
        start = stream.number("start of a mark")
        end = stream.number("end of a mark") if kind == _INTERVALS else start
        if end < start or (marks and start < marks[-1].end - 1e-6):
            raise ValueError(f"line {stream.line}: a mark from {start:g} to {end:g} s is out of order in tier {name}")
        marks.append(Word(stream.text(), start, end))
    return Tier(kind, name, tuple(marks))


class _Stream:
    """The numbers and texts of a file in their order, with the line of the latest one."""

    def __init__(self, content: str) -> None:
        self.content = content
        self.tokens: Iterator[re.Match[str]] = _TOKEN.finditer(self.content)
        self.line, self._place = 1, 0

    def _next(self, wanted: str) -> re.Match[str]:
        token = next(self.tokens, None)
        end = len(self.content) if token is None else token.start()
        self.line += self.content.count("\n", self._place, end)
        self._place = end
        if token is None:
            raise ValueError(f"line {self.line}: the file ends where {wanted} is expected")
        if token["open"]:
            raise ValueError(f"line {self.line}: a quotation mark is never closed")
        return token

    def text(self, *allowed: str) -> str:
        """Take a quoted text; in Praat, a doubled quotation mark stands for one."""
        wanted = " or ".join(f'"{choice}"' for choice in allowed) or "a text in quotation marks"
        token = self._next(wanted)
        found = None if token["text"] is None else token["text"].replace('""', '"')
        if found is None or (allowed and found not in allowed):
            raise ValueError(f"line {self.line}: found {token[0][:40]}, expected {wanted}")
        return found

    def number(self, what: str) -> float:
        """Take a number."""
        token = self._next(f"a number ({what})")
        if token["number"] is None:
            raise ValueError(f"line {self.line}: found {token[0][:40]}, expected a number ({what})")
        return float(token["number"])

    def count(self, what: str) -> int:
        """Take a whole number of things."""
        number = self.number(f"how many {what}")
        if number < 0 or not number.is_integer():
            raise ValueError(f"line {self.line}: {number:g} is no number of {what}")
        return int(number)
