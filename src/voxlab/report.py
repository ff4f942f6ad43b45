"""One self-contained HTML page from a run: facts, tables, audio players, plots; no scripts, no network, no other files.

Builders return a `Section`; `write_report` puts them on a page. All text is escaped here, so callers pass it raw.
"""

import base64
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from matplotlib.figure import Figure
from torch import Tensor

from voxlab.audio import Seconds, compute_duration, compute_num_samples, encode_flac
from voxlab.plots import plot_spectrogram, render_png
from voxlab.report_text import escape, escape_words, spell
from voxlab.storage import atomic_write_bytes

_LONG_FACT = 28  # characters; longer values take a whole line
_NAVIGATION_FROM = 4  # titled sections that make a table of contents worth its room
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Section:
    """A part of the page: a heading (may be empty) and trusted HTML made by one of the builders.

    Args:
        title: the heading.
        body: HTML.
        chapter: what it belongs to, see `chapter`; "" for a section that stands for itself.
    """

    title: str
    body: str
    chapter: str = ""


@dataclass(frozen=True)
class Cell:
    """A value of a table with more than itself.

    Args:
        value: what is shown.
        note: small text below it, e.g. an interval; "" for none.
        tone: "best" and "bad" set it apart.
        link: relative path of a file that it leads to; "" for none.
    """

    value: Any
    note: str = ""
    tone: Literal["", "best", "bad"] = ""
    link: str = ""


@dataclass(frozen=True)
class Media:
    """A file that the page holds as it is.

    Args:
        label: name.
        kind: of the data.
        data: the file.
        note: small text below the name.
    """

    label: str
    kind: Literal["audio/flac", "video/mp4", "image/png", "image/gif"]
    data: bytes
    note: str = ""


@dataclass(frozen=True)
class Clip:
    """Audio with what to show beside it.

    Args:
        label: name of the clip.
        wav: (C, T) float32; more than one channel plays as such.
        sample_rate: Hz.
        text: transcript or remark; "" for none.
        plots: further PNG images, shown between spectrogram and player, see `plots.render_png`.
    """

    label: str
    wav: Tensor
    sample_rate: int
    text: str = ""
    plots: Sequence[bytes] = ()


# ---- page ----------------------------------------------------------------------------------------------------------


def write_report(path: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Write the page to `path`, atomically; equal input gives equal bytes.

    Raises:
        UserError: the disk is full or the folder can't be written.
    """
    atomic_write_bytes(Path(path), render_report(title, subtitle, sections).encode())
    return Path(path)


def render_report(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Return the page as one HTML text."""
    places = _find_places(sections)
    links = "".join(f'<a href="#section-{number}">{escape(name)}</a>' for number, name in places.items())
    navigation = f'<nav aria-label="Sections">{links}</nav>' if len(places) >= _NAVIGATION_FROM else ""
    body = "".join(
        _render_section(number, section, opens=bool(section.chapter) and number in places)
        for number, section in enumerate(sections)
    )
    header = f'<p class="brand">voxlab</p><h1>{escape(title)}</h1><p class="subtitle">{escape_words(subtitle)}</p>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><header>{header}{navigation}</header>\n<main>\n{body}</main>\n"
        "<footer>Made by voxlab. This page holds all it shows: it can be mailed or archived as one file.</footer>"
        "</body></html>\n"
    )


def _find_places(sections: Sequence[Section]) -> dict[int, str]:
    """Return number -> name of what the table of contents names: titled sections, of a chapter only its first."""
    places, last = dict[int, str](), ""
    for number, section in enumerate(sections):
        if section.chapter and section.chapter != last:
            places[number] = section.chapter
        elif section.title and not section.chapter:
            places[number] = section.title
        last = section.chapter
    return places


def _render_section(number: int, section: Section, *, opens: bool) -> str:
    """Return a section; `opens`: it is the first of its chapter, whose name stands above it."""
    name = f'<p class="chapter">{escape(section.chapter)}</p>' if opens else ""
    heading = f"<h2>{escape(section.title)}</h2>" if section.title else ""
    return f'<section id="section-{number}">{name}{heading}{section.body}</section>\n'


def chapter(name: str, sections: Iterable[Section]) -> list[Section]:
    """Put sections that follow one another under a name, which alone stands in the table of contents."""
    return [replace(section, chapter=name) for section in sections]


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


# ---- sections ------------------------------------------------------------------------------------------------------


def notice(text: str, level: Literal["info", "warning", "error"] = "warning") -> Section:
    """Set a remark apart from the rest, e.g. that the weights are random."""
    label = {"info": "Note", "warning": "Warning", "error": "Error"}[level]
    return Section("", f'<p class="notice {level}" role="note"><strong>{label}</strong> {escape_words(text)}</p>')


def facts(title: str, values: Mapping[str, Any]) -> Section:
    """Show named values as tiles; long ones get a line of their own."""
    return Section(title, f'<dl class="facts">{"".join(_fact(name, value) for name, value in values.items())}</dl>')


def _fact(name: str, value: Any) -> str:
    shown = spell(value)
    kind = ' class="long"' if len(shown) > _LONG_FACT else ""
    return f"<div{kind}><dt>{escape(name)}</dt><dd>{escape_words(shown)}</dd></div>"


def table(title: str, columns: Sequence[str | Cell], rows: Iterable[Sequence[Any]]) -> Section:
    """Show rows of values under their column names; columns of numbers align right, None shows as a dash.

    A wide table scrolls in its own place, where its first column stays.

    Raises:
        ValueError: a row has another number of values than there are columns.
    """
    lines = [list(row) for row in rows]
    for number, line in enumerate(lines):
        if len(line) != len(columns):
            raise ValueError(f"row {number} has {len(line)} values for the {len(columns)} columns {list(columns)}")
    right = [_is_numeric([line[index] for line in lines]) for index in range(len(columns))]
    head = _row("th", columns, right)
    body = "".join(_row("td", line, right) for line in lines)
    content = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return Section(title, f'<div class="scroll" tabindex="0">{content}</div>')


def _row(tag: str, values: Sequence[Any], right: Sequence[bool]) -> str:
    kinds = [' class="number"' if number else "" for number in right]
    cells = (f"<{tag}{kind}>{_render_cell(value)}</{tag}>" for value, kind in zip(values, kinds, strict=True))
    return f"<tr>{''.join(cells)}</tr>"


def _render_cell(value: Any) -> str:
    if not isinstance(value, Cell):
        return escape_words(spell(value))
    shown = escape_words(spell(value.value))
    if value.link:
        shown = f'<a href="./{escape(quote(value.link, errors="surrogatepass"))}">{shown}</a>'
    if value.tone:
        shown = f'<strong class="{value.tone}">{shown}</strong>'
    return f"{shown}<small>{escape_words(value.note)}</small>" if value.note else shown


def _is_numeric(values: Sequence[Any]) -> bool:
    plain = [value.value if isinstance(value, Cell) else value for value in values]
    present = [value for value in plain if value is not None]
    return bool(present) and all(isinstance(value, Real) and not isinstance(value, bool) for value in present)


def bars(title: str, counts: Mapping[str, float]) -> Section:
    """Show counts as horizontal bars, drawn to the largest.

    Raises:
        ValueError: a count is negative or not finite.
    """
    if any(not 0 <= count < math.inf for count in counts.values()):
        raise ValueError(f"bars show finite counts >= 0, not {dict(counts)}")
    largest = max(counts.values(), default=0) or 1
    lines = (
        f'<div><dt>{escape(name)}</dt><dd><span class="bar" style="--share:{count / largest:.4f}"></span>'
        f"<span>{escape(spell(count))}</span></dd></div>"
        for name, count in counts.items()
    )
    return Section(title, f'<dl class="bars">{"".join(lines)}</dl>')


def code(text: str, title: str = "") -> Section:
    """Show text as typed, e.g. a command or a configuration."""
    return Section(title, f'<pre tabindex="0"><code>{escape(text)}</code></pre>')


def figure(title: str, image: Figure | bytes, caption: str = "") -> Section:
    """Show a plot: a matplotlib figure or the bytes of a PNG.

    Raises:
        ValueError: the bytes are not a PNG.
    """
    data = render_png(image) if isinstance(image, Figure) else image
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Section(title, f'<figure><div tabindex="0">{_image(data, caption or title)}</div>{note}</figure>')


def _image(data: bytes, description: str) -> str:
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or len(data) < 24:
        raise ValueError("an image must be a PNG file; give a matplotlib Figure or the bytes of a PNG")
    width, height = (size // 2 for size in struct.unpack(">II", data[16:24]))
    source = _data_uri("image/png", data)
    return f'<img src="{source}" width="{width}" height="{height}" alt="{escape(description)}">'


def legend(title: str, colours: Mapping[str, str]) -> Section:
    """Explain once the colours that several plots share.

    Args:
        title: heading of the section.
        colours: name -> colour as #rrggbb.
    """
    items = (f'<li><i style="--swatch:{escape(colour)}"></i>{escape(name)}</li>' for name, colour in colours.items())
    return Section(title, f'<ul class="legend">{"".join(items)}</ul>')


def gallery(title: str, items: Sequence[Media]) -> Section:
    """Show images, audio and videos side by side, each with its name."""
    return Section(title, f'<div class="gallery">{"".join(map(_render_media, items))}</div>')


def folds(title: str, parts: Sequence[Section], *, opened: bool = False) -> Section:
    """Put sections under one heading, each to be opened and closed by the reader.

    Args:
        title: heading of all.
        parts: sections with titles.
        opened: whether they are open at first.
    """
    state = " open" if opened else ""
    folded = (f"<details{state}><summary>{escape(part.title)}</summary>{part.body}</details>" for part in parts)
    return Section(title, "".join(folded))


def _render_media(item: Media) -> str:
    label, source = escape(item.label), _data_uri(item.kind, item.data)
    note = f'<p class="detail">{escape(item.note)}</p>' if item.note else ""
    if item.kind == "image/png":
        shown = _image(item.data, item.label)
    elif item.kind == "image/gif":
        shown = f'<img src="{source}" alt="{label}">'
    else:
        tag = item.kind.partition("/")[0]
        shown = f'<{tag} controls preload="metadata" src="{source}" aria-label="Play {label}"></{tag}>'
    return f"<article><h3>{escape_words(item.label)}</h3>{note}{shown}</article>"


def players(title: str, clips: Sequence[Clip], *, max_duration: Seconds = 30.0, spectrograms: bool = True) -> Section:
    """Show clips as cards with a player each.

    Args:
        title: heading of the section.
        clips: what to play. A clip that can't be encoded (no samples, NaN) shows the reason in place of its player.
        max_duration: longer clips are cut to this, and their card says so; keeps the page small.
        spectrograms: draw what is played.
    """
    cards = "".join(_render_clip(clip, max_duration, spectrograms) for clip in clips)
    return Section(title, f'<div class="clips">{cards}</div>')


def _render_clip(clip: Clip, max_duration: Seconds, spectrogram: bool) -> str:
    played = clip.wav[:, : compute_num_samples(max_duration, clip.sample_rate)]
    plots = [_image(plot, f"Plot of {clip.label}") for plot in clip.plots]
    try:
        source = _data_uri("audio/flac", encode_flac(played, clip.sample_rate))
        detail = _describe(clip, float(played.abs().max()))
        label = escape(f"Play {clip.label}")
        player = f'<audio controls preload="metadata" src="{source}" aria-label="{label}"></audio>'
    except ValueError as error:  # one bad clip must not cost the page
        spectrogram, player, detail = False, "", f"can't be played ({escape(error)})"
    if spectrogram:
        drawn = render_png(plot_spectrogram(played, clip.sample_rate))
        plots.insert(0, _image(drawn, f"Spectrogram of {clip.label}"))
    if played.shape[-1] < clip.wav.shape[-1]:
        detail += f' · <strong class="cut">first {spell(max_duration)} s only</strong>'
    text = f'<p class="transcript">{escape(clip.text)}</p>' if clip.text else ""
    head = f'<h3>{escape_words(clip.label)}</h3><p class="detail">{detail}</p>'
    return f"<article>{head}{''.join(plots)}{player}{text}</article>"


def _describe(clip: Clip, peak: float) -> str:
    """Spell duration, rate, channels and peak level, e.g. "3.20 s · 24 kHz · peak −6.0 dB"."""
    level = f"peak {20 * math.log10(peak):+.1f} dB".replace("-", "\N{MINUS SIGN}") if peak > 0 else "silent"
    channels = "" if len(clip.wav) == 1 else f" · {len(clip.wav)} channels"
    duration = compute_duration(clip.wav.shape[-1], clip.sample_rate)
    return f"{duration:.2f} s · {clip.sample_rate / 1000:g} kHz{channels} · {level}"
