import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.codecs import layouts
from voxlab.codecs.layouts import LayoutError, format_tokens, group_order, parse_tokens


def lists(parsed):
    return [level.tolist() for level in parsed.levels]


def reference(text):
    """The slow and obvious reading of well-formed 7-token groups: which level does each position go to?"""
    levels = [[], [], []]
    for group in text.split("#")[1:]:
        a, b, c, d, e, f, g = (int(token) for token in group.split())
        levels[0] += [a]
        levels[1] += [b, e]
        levels[2] += [c, d, f, g]
    return levels


def test_golden_order():
    parsed = parse_tokens("# 0 1 2 3 4 5 6 # 7 8 9 10 11 12 13")
    assert lists(parsed) == [[0, 7], [1, 4, 8, 11], [2, 3, 5, 6, 9, 10, 12, 13]]
    assert parsed.notes == []
    assert all(level.dtype == np.int64 for level in parsed.levels)


def test_golden_order_of_four_levels():
    parsed = parse_tokens("# " + " ".join(map(str, range(15))), num_levels=4)
    assert lists(parsed) == [[0], [1, 8], [2, 5, 9, 12], [3, 4, 6, 7, 10, 11, 13, 14]]


def test_legacy_order_is_breadth_first_and_different():
    parsed = parse_tokens("# 0 1 2 3 4 5 6", "legacy_breadth_first")
    assert lists(parsed) == [[0], [1, 2], [3, 4, 5, 6]]
    assert group_order(3) != group_order(3, "legacy_breadth_first")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "null_tokens"),
        ("", "empty_tokens"),
        (" \n\t ", "empty_tokens"),
        ("1 2 3", "no_hash"),
        ("1 2 3 4 5 6 7 8", "no_hash"),
        ("x # 1 2 3 4 5 6 7", "leading_garbage"),
        ("#1 2 3 4 5 6 7 #", "leading_garbage"),
        ("# 1 2 3 4 5 6 seven", "non_integer:seven@0"),
        ("# 1 2 3 4 5 6 7 # 1 2 3 4 5 6 7.0", "non_integer:7.0@1"),
        ("# 1 2 3 4 5 6 1_0", "non_integer:1_0@0"),
        ("# 1 2 3 4 5 6 # 1 2 3 4 5 6 7", "bad_group:6@0"),
        ("# 1 2 3 4 5 6 7 8 # 1 2 3 4 5 6 7", "bad_group:8@0"),
        ("# 1 2 3 4 5 6 7 # 1 2 3 4 5 6 7 8", "bad_group:8@1"),
        ("# # 1 2 3 4 5 6 7", "bad_group:0@0"),
        ("# 1 2 3 4 5 6 7 # 1 2", "partial_tail:2"),
        ("# 1 2 3 4 5 6 7 #", "partial_tail:0"),
        ("# 1 2 3 4 5 6", "partial_tail:6"),
        ("# 1 2 3 4 5 6 4096 # 1 2 3 4 5 6 7", "out_of_range:4096@0"),
        ("# 1 2 3 4 5 6 7 # 1 2 3 4 -5 6 7", "out_of_range:-5@1"),
        ("# 4097 4097 4097 4097 4097 4097 4097", "out_of_range:4097@0"),
    ],
)
def test_reasons(text, code):
    with pytest.raises(LayoutError) as caught:
        parse_tokens(text)
    assert caught.value.code == code
    assert str(caught.value).startswith(code)


def test_trailing_special_groups_are_stripped_with_a_note():
    parsed = parse_tokens("# 1 2 3 4 5 6 7 # 1 2 3 4 5 6 4096 # 4097 4097 4097 4097 4097 4097 4097")
    assert lists(parsed) == [[1], [2, 5], [3, 4, 6, 7]]
    assert parsed.notes == ["stripped_special:2"]


def test_partial_tail_can_be_dropped():
    parsed = parse_tokens("# 1 2 3 4 5 6 7 # 1 2", partial_tail="drop")
    assert lists(parsed) == [[1], [2, 5], [3, 4, 6, 7]]
    assert parsed.notes == ["partial_tail:2"]
    with pytest.raises(LayoutError, match="partial_tail:2"):
        parse_tokens("# 1 2", partial_tail="drop")


def test_options_are_checked():
    with pytest.raises(ValueError, match="allowed: mini_omni, legacy_breadth_first"):
        parse_tokens("# 1", "other")
    with pytest.raises(ValueError, match="allowed: error, drop"):
        parse_tokens("# 1", partial_tail="keep")
    with pytest.raises(ValueError, match="ratio"):
        format_tokens([np.zeros(1, int), np.zeros(2, int), np.zeros(3, int)])


codes = st.integers(0, layouts.CODEBOOK_SIZE - 1)
groups = st.lists(st.lists(codes, min_size=7, max_size=7), min_size=1, max_size=20)


@given(groups, st.sampled_from([" ", "  ", "\n", "\t "]))
def test_any_white_space_reads_like_the_reference(rows, space):
    text = space + space.join(f"#{space}" + space.join(map(str, row)) for row in rows) + space
    assert lists(parse_tokens(text)) == reference(text)


@given(groups, st.sampled_from(layouts.LAYOUTS), st.sampled_from([3, 4]))
def test_round_trip(rows, layout, num_levels):
    base = np.array(rows).reshape(len(rows), -1)
    levels = [np.resize(base, len(rows) * 2**level).astype(np.int64) for level in range(num_levels)]
    parsed = parse_tokens(format_tokens(levels, layout), layout, num_levels=num_levels)
    assert all(np.array_equal(a, b) for a, b in zip(parsed.levels, levels, strict=True))


@given(st.text(alphabet="# 0123456789-x_\n", max_size=80))
def test_any_text_parses_or_gives_a_reason(text):
    try:
        parsed = parse_tokens(text)
    except LayoutError:
        return
    g = len(parsed.levels[0])
    assert g >= 1
    assert [len(level) for level in parsed.levels] == [g, 2 * g, 4 * g]
    assert all(level.min() >= 0 and level.max() < layouts.CODEBOOK_SIZE for level in parsed.levels)


@given(st.text(alphabet="# 0123456789-x\n", max_size=80))
def test_fast_and_slow_readers_agree(text):
    tokens, width = text.split(), 7
    fast = layouts._read_fast(list(tokens), width)
    if fast is not None:
        assert np.array_equal(fast, layouts._read_slowly(tokens, width, "error", []))
