"""Report page: text is escaped, nothing is fetched, bytes are reproducible, pictures show what they claim."""

import base64
import html
import math
import re
from html.parser import HTMLParser
from typing import get_args, get_type_hints
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab import audio, plots, report

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></code></pre><svg onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;b&gt; &amp;amp; &#60;",
    "$\\frac{1}{$",
    "{0} {name} %s %(x)d",
    "语音 ملف 🎧 \u202e",
    "\udcff\ud800 undecodable",
    "\x00\x1b[31m",
    "",
]


KINDS = get_args(get_type_hints(report.Media)["kind"])
DATA = tuple(f"data:{kind};base64," for kind in KINDS)


class Page(HTMLParser):
    """Collects tags, attributes and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def tone(duration: float = 0.2, sample_rate: int = 24000, frequency: float = 3000.0) -> torch.Tensor:
    time = torch.arange(audio.compute_num_samples(duration, sample_rate)) / sample_rate
    return 0.5 * torch.sin(2 * math.pi * frequency * time)[None]


def page_of(*sections: report.Section, title: str = "T", subtitle: str = "S") -> str:
    return report.render_report(title, subtitle, sections)


def all_sections(text: str) -> list[report.Section]:
    png = plots.render_png(plots.plot_codes([[0, 1]]))
    return [
        report.notice(text),
        report.facts(text, {text: text, "nested": {text: [text, None]}}),
        report.table(text, [text, "n"], [[text, 1], [None, 2.5]]),
        report.bars(text, {text: 3}),
        report.code(text, text),
        report.figure(text, png, text),
        report.players(text, [report.Clip(text, tone(0.01), 24000, text, [png])], spectrograms=False),
        report.table(text, [text], [[report.Cell(text, text, "best", text)]]),
        report.legend(text, {text: text}),
        report.gallery(text, [report.Media(text, kind, png, text) for kind in KINDS]),
        report.folds(text, [report.code(text, text)]),
    ]


ALLOWED = Page(page_of(*all_sections("plain/text/that/is/long")))


def assert_harmless(page: str) -> None:
    page.encode()
    parsed = Page(page)
    assert parsed.tags <= ALLOWED.tags
    assert parsed.attributes <= ALLOWED.attributes
    inside = [link for link in parsed.links if link.startswith(("#section-", *DATA))]
    relative = [link for link in parsed.links if link not in inside]
    assert not [link for link in relative if urlsplit(link).scheme or urlsplit(link).netloc]
    assert not parsed.open


@pytest.mark.parametrize("text", NASTY)
def test_nasty_text_stays_text_everywhere(text):
    page = page_of(*all_sections(text), title=text, subtitle=text)
    assert_harmless(page)
    shown = text.encode("utf-8", "backslashreplace").decode()
    assert page.replace("<wbr>", "").count(html.escape(shown)) >= 15 or not text


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=40))
def test_any_text_stays_text(text):
    sections = [
        report.notice(text),
        report.facts(text, {text: text}),
        report.table(text, [text], [[text]]),
        report.bars(text, {text: 1}),
        report.code(text, text),
    ]
    assert_harmless(page_of(*sections, title=text, subtitle=text))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_escaped_text_reads_back(text):
    assert text in "".join(Page(report.code(text).body).texts)


def test_page_is_self_contained_and_forbids_fetching():
    page = page_of(*all_sections("plain"))
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page
    assert "script" not in ALLOWED.tags
    assert not {name for name in ALLOWED.attributes if name.startswith("on")}


def test_navigation_lists_titled_sections_once_there_are_four():
    sections = [report.code("x", f"part {number}") for number in range(4)]
    assert "<nav" not in page_of(*sections[:3], report.notice("n"))
    page = page_of(report.notice("n"), *sections)
    assert '<a href="#section-1">part 0</a>' in page
    assert '<section id="section-1"><h2>part 0</h2>' in page


def test_a_chapter_is_one_link_and_a_line_above_its_first_section():
    parts = [report.code("x", f"part {number}") for number in range(6)]
    page = page_of(*parts[:3], *report.chapter("Both", parts[3:5]), parts[5])
    assert re.findall(r'<a href="#section-(\d)">(.*?)</a>', page) == [
        ("0", "part 0"),
        ("1", "part 1"),
        ("2", "part 2"),
        ("3", "Both"),
        ("5", "part 5"),
    ]
    assert page.count('<p class="chapter">Both</p>') == 1
    assert '<section id="section-3"><p class="chapter">Both</p><h2>part 3</h2>' in page
    assert "<h2>part 4</h2>" in page
    assert report.chapter("Both", []) == []


def test_write_report_is_reproducible_and_leaves_no_temporaries(tmp_path):
    path = report.write_report(tmp_path / "new" / "report.html", "T", "S", all_sections("x"))
    first = path.read_bytes()
    report.write_report(path, "T", "S", all_sections("x"))
    assert path.read_bytes() == first
    assert first.startswith(b"<!doctype html>")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "yes"),
        (np.int64(1234567), "1,234,567"),
        (0.123456, "0.1235"),
        (28940.25, "28,940"),
        (np.float32(12.5), "12.5"),
        (1e20, "1e+20"),
        (math.nan, "nan"),
        ({"a": 1, "b": None}, "a: 1, b: –"),
        ({}, "–"),
        (["x", 2], "x, 2"),
        ("text", "text"),
    ],
)
def test_facts_spell_values(value, shown):
    assert f"<dd>{shown}</dd>" in report.facts("", {"name": value}).body


def test_long_facts_take_a_line():
    body = report.facts("", {"short": "x", "path": "/a" * 30}).body
    assert body.count('class="long"') == 1


def test_table_aligns_columns_of_numbers_only():
    body = report.table("", ["name", "n", "mixed"], [["a", 1, 1], ["b", None, "x"]]).body
    assert body.count('<th class="number">') == 1
    assert body.count('<td class="number">') == 2
    assert '<td class="number">–</td>' in body


def test_long_words_are_broken_at_their_separators():
    path = "/data/my_recordings/session_one.wav"
    broken = "/<wbr>data/<wbr>my_<wbr>recordings/<wbr>session_<wbr>one.wav"
    assert f"<dd>{broken}</dd>" in report.facts("", {"path": path}).body
    assert f"<td>{broken}</td>" in report.table("", ["file"], [[path]]).body
    card = report.players("", [report.Clip(path, tone(), 24000)], spectrograms=False).body
    assert f"<h3>{broken}</h3>" in card
    assert f'aria-label="Play {path}"' in card
    assert "<dd>short_name a/b</dd>" in report.facts("", {"name": "short_name a/b"}).body


def test_a_heading_of_a_column_has_its_small_print():
    body = report.table("", ["run", report.Cell("AP ↑", "test/ap")], [["a", 0.5]]).body
    assert '<th class="number">AP ↑<small>test/ap</small></th>' in body


def test_table_names_the_row_that_does_not_fit():
    with pytest.raises(ValueError, match=r"row 1 has 1 values for the 2 columns \['a', 'b'\]"):
        report.table("", ["a", "b"], [[1, 2], [3]])


def test_bars_are_drawn_to_the_largest():
    body = report.bars("", {"all": 200, "half": 100, "none": 0}).body
    assert [f"--share:{share}" in body for share in ("1.0000", "0.5000", "0.0000")] == [True] * 3
    assert "--share:0.0000" in report.bars("", {"none": 0}).body
    assert report.bars("", {}).body.endswith("></dl>")


@pytest.mark.parametrize("count", [-1, math.nan, math.inf])
def test_bars_refuse_what_is_no_count(count):
    with pytest.raises(ValueError, match="finite counts >= 0"):
        report.bars("", {"x": count})


# ---- players -------------------------------------------------------------------------------------------------------


def played(body: str) -> torch.Tensor:
    return audio.load(base64.b64decode(body.split("data:audio/flac;base64,")[1].split('"')[0]))[0]


def test_player_holds_the_audio_exactly():
    body = report.players("", [report.Clip("x", tone(), 24000)]).body
    assert torch.equal(played(body), audio.quantise_pcm16(tone()))
    assert "0.20 s · 24 kHz · peak \N{MINUS SIGN}6.0 dB" in body
    assert "only" not in body
    assert body.count("data:image/png") == 1


def test_long_clips_are_cut_and_say_so():
    body = report.players("", [report.Clip("x", tone(0.5), 24000)], max_duration=0.1, spectrograms=False).body
    assert played(body).shape == (1, 2400)
    assert "0.50 s" in body
    assert "first 0.1 s only" in body
    assert "data:image/png" not in body


def test_stereo_and_silent_clips_are_described():
    body = report.players("", [report.Clip("x", torch.zeros(2, 100), 22050)]).body
    assert "22.05 kHz · 2 channels · silent" in body


@pytest.mark.parametrize(
    ("wav", "reason"),
    [
        (torch.zeros(1, 0), "bad_audio:empty"),
        (torch.full((1, 9), math.nan), "bad_audio:nonfinite: sample 0 is NaN or infinite"),
    ],
)
def test_a_bad_clip_shows_its_reason(wav, reason):
    body = report.players("", [report.Clip("bad", wav, 24000), report.Clip("good", tone(), 24000)]).body
    assert f"({reason})" in body.replace("can&#x27;t", "can't")
    assert body.count("<audio") == 1


def test_figure_takes_matplotlib_figures_and_refuses_other_bytes():
    assert "data:image/png" in report.figure("t", plots.plot_codes([[1]]), "c").body
    with pytest.raises(ValueError, match="must be a PNG"):
        report.figure("t", b"GIF89a" + bytes(40))
