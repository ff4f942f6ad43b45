"""What the report page of a run shows: the images, players and videos that it holds, by where they stand."""

import base64
import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from voxlab.report import Media

_DATA = re.compile(r"data:(audio/flac|video/mp4|image/png|image/gif);base64,")
_WARNING = re.compile(r'<p class="notice (?:warning|error)" role="note"><strong>[^<]*</strong> (.*?)</p>', re.DOTALL)
_TEXTS = ("h2", "h3", "figcaption")
Place = tuple[str, str, int]  # heading, label, how many of the same stand before


@dataclass(frozen=True)
class Page:
    """The media of a page, by heading, label and how many of the same stand before: equal things have equal places.

    Args:
        plots: images of figures.
        clips: audio and videos.
    """

    plots: dict[Place, Media] = field(default_factory=dict)
    clips: dict[Place, Media] = field(default_factory=dict)


def read_page(path: Path) -> Page:
    """Read a page that `report.write_report` wrote; one that isn't there, or can't be read, has nothing."""
    reader = _Reader()
    reader.feed(_read(path)[0])
    reader.close()
    return reader.page


def read_notices(path: Path) -> list[str]:
    """Return the warnings that `report.notice` put on a page; of one that isn't there, or can't be read, none."""
    return [html.unescape(found.replace("<wbr>", "")) for found in _WARNING.findall(_read(path)[0])]


def find_problem(path: Path) -> str:
    """Return why a page can't be read; "" where it can be, or isn't there."""
    return _read(path)[1]


def _read(path: Path) -> tuple[str, str]:
    """Return the text of a page and why it can't be read: one bad page must not keep the runs from being compared."""
    try:
        return (path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""), ""
    except OSError as error:
        return "", error.strerror or str(error)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._texts: dict[str, str] = dict.fromkeys(_TEXTS, "")
        self._reading = ""
        self._is_card = False
        self._last: tuple[dict[Place, Media], Place] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag in ("section", "article", "figure"):
            self._texts |= dict.fromkeys(_TEXTS if tag == "section" else _TEXTS[1:], "")
            self._is_card = tag == "article"
        elif tag in _TEXTS:
            self._reading, self._texts[tag] = tag, ""
        elif tag in ("img", "audio", "video"):
            self._add(tag, known.get("src") or "", known.get("alt") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._reading:
            self._reading = ""
            if tag == "figcaption":
                self._name_last()

    def handle_data(self, data: str) -> None:
        if self._reading:
            self._texts[self._reading] += data

    def _add(self, tag: str, source: str, description: str) -> None:
        found = _DATA.match(source)
        if found is None or (tag == "img" and self._is_card):  # the spectrogram of a card follows from its audio
            return
        kind: Any = found[1]
        into = self.page.plots if tag == "img" else self.page.clips
        label = self._texts["h3"] or ("" if self._texts["h2"] else description)
        self._last = into, self._put(into, label, Media(label, kind, base64.b64decode(source[found.end() :])))

    def _put(self, into: dict[Place, Media], label: str, media: Media) -> Place:
        title = self._texts["h2"]
        count = sum(1 for place in into if place[:2] == (title, label))
        into[title, label, count] = media
        return title, label, count

    def _name_last(self) -> None:
        """Call a video by its caption, which stands behind it."""
        if self._last is None or self._last[0] is not self.page.clips:
            return
        into, place = self._last
        media, caption = into.pop(place), self._texts["figcaption"]
        self._put(into, caption, Media(caption, media.kind, media.data))
        self._last = None
