"""Columns from label files: three formats, intervals and points, membership and index."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from praatio import textgrid

from tests.sidecar_items import item_of, times_of
from voxlab.errors import UserError
from voxlab.sidecars.producers.labels import from_labels

AUDACITY = "0.5\t1.0\tah\n\\\t100\t200\n0.8\t1.5\toh\n1.75\t1.75\tclick\n1.9\t2.0\t\n"
RTTM = (
    ";; a comment\nSPEAKER take 1 0.5 0.5 <NA> <NA> ah <NA> <NA>\nSPEAKER other 1 0 2 <NA> <NA> oh <NA> <NA>\n"
    "SPEAKER take 1 0.8 0.7 <NA> <NA> oh <NA> <NA>\n"
)


def write_textgrid(path, tiers, form="long_textgrid"):
    grid = textgrid.Textgrid(0, 2)
    for name, entries in tiers.items():
        kind = textgrid.IntervalTier if len(entries[0]) == 3 else textgrid.PointTier
        grid.addTier(kind(name, entries, 0, 2))
    grid.save(str(path), format=form, includeBlankSpaces=True)


@pytest.fixture
def labels(tmp_path):
    """Write a label file, unless its content is None, and call the producer."""

    def call(content, suffix=".txt", **args):
        if content is not None:
            (tmp_path / f"take{suffix}").write_bytes(content if isinstance(content, bytes) else content.encode())
        item = item_of(tmp_path)
        return {
            name: np.asarray(column)
            for name, column in from_labels(item, times_of(item), suffix=suffix, **args).items()
        }

    return call


def slow(*stretches):
    """1 in the frames whose middle lies in one of the stretches of time."""
    return [int(any(start <= (n + 0.5) / 75 < end for start, end in stretches)) for n in range(150)]


def test_audacity(labels):
    columns = labels(AUDACITY)
    assert list(columns) == ["ah", "click", "oh"]
    np.testing.assert_array_equal(columns["ah"], slow((0.5, 1.0)))
    np.testing.assert_array_equal(columns["oh"], slow((0.8, 1.5)))
    assert columns["click"].nonzero()[0].tolist() == [int(1.75 * 75)]


def test_rttm_takes_the_lines_of_the_recording(labels):
    columns = labels(RTTM, ".rttm")
    np.testing.assert_array_equal(columns["ah"], slow((0.5, 1.0)))
    np.testing.assert_array_equal(columns["oh"], slow((0.8, 1.5)))
    assert list(columns) == ["ah", "oh"]


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_textgrid(labels, tmp_path, form):
    words = [(0.5, 1.0, "ah"), (1.25, 1.5, "oh"), (1.5, 2.0, "ah")]
    write_textgrid(tmp_path / "take.TextGrid", {"words": words}, form)
    columns = labels(None, ".TextGrid")
    np.testing.assert_array_equal(columns["ah"], slow((0.5, 1.0), (1.5, 2.0)))
    np.testing.assert_array_equal(columns["oh"], slow((1.25, 1.5)))
    assert list(columns) == ["ah", "oh"]


def test_a_tier_is_chosen_by_name(labels, tmp_path):
    write_textgrid(tmp_path / "take.TextGrid", {"words": [(0.5, 1.0, "ah")], "clicks": [(1.75, "tock")]})
    with pytest.raises(ValueError, match=r"bad_labels: .* has the tiers \['words', 'clicks'\]; choose one with"):
        labels(None, ".TextGrid")
    with pytest.raises(ValueError, match=r"has no tier 'x'; it has \['words', 'clicks'\]"):
        labels(None, ".TextGrid", tier="x")
    assert list(labels(None, ".TextGrid", tier="words")) == ["ah"]
    assert labels(None, ".TextGrid", tier="clicks")["tock"].nonzero()[0].tolist() == [131]


def test_labels_are_chosen_in_their_order(labels):
    columns = labels(AUDACITY, labels=["oh", "none", "ah"], prefix="is_")
    assert list(columns) == ["is_oh", "is_none", "is_ah"]
    assert not columns["is_none"].any()


def test_the_index_of_the_later_interval_counts(labels):
    columns = labels(AUDACITY, labels=["ah", "oh"], output="index")
    expected = np.where(slow((0.8, 1.5)), 2, slow((0.5, 1.0)))
    np.testing.assert_array_equal(columns["label"], expected)


def test_overlap(labels):
    columns = labels(AUDACITY, labels=["ah"], overlap="both")
    np.testing.assert_array_equal(columns["both"], slow((0.8, 1.0)))
    assert list(columns) == ["ah", "both"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 99), st.sampled_from("ab")), min_size=1, max_size=6))
def test_membership_equals_a_slow_search(labels, entries):
    spelt = [(start / 100, (start + length) / 100, name) for start, length, name in entries]
    columns = labels("".join(f"{start}\t{end}\t{name}\n" for start, end, name in spelt), labels=["a", "b"], overlap="c")
    for name in "ab":
        np.testing.assert_array_equal(columns[name], slow(*[(s, e) for s, e, label in spelt if label == name]))
    counts = [sum(start <= (n + 0.5) / 75 < end for start, end, _ in spelt) for n in range(150)]
    np.testing.assert_array_equal(columns["c"], [count > 1 for count in counts])


def test_a_missing_file_is_an_error_or_silence(labels):
    with pytest.raises(ValueError, match=r"missing_companion: take has no .*take\.txt"):
        labels(None)
    columns = labels(None, missing="zeros", labels=["ah"], overlap="both")
    assert {name: set(column.tolist()) for name, column in columns.items()} == {"ah": {0}, "both": {0}}


BAD = {
    "one cell": ("0.5\n", ".txt", r"bad_labels: take\.txt, line 1: '0\.5'; needs start<TAB>end<TAB>label"),
    "no number": ("0\t1\ta\nx\t1\ta\n", ".txt", r"take\.txt, line 2: 'x' to '1' is no stretch of time"),
    "backwards": ("2\t1\ta\n", ".txt", r"line 1: the interval from 2 to 1 s ends before it starts"),
    "infinite": ("0\tinf\ta\n", ".txt", "line 1: the interval from 0 to inf s"),
    "binary": (b"\xff\xfe\x00", ".txt", r"bad_labels: take\.txt is not UTF-8 text"),
    "rttm": ("SPEAKER take 1 0.5\n", ".rttm", r"take\.rttm, line 1: 4 fields; a SPEAKER line needs 8"),
    "others": ("SPEAKER x 1 0 1 <NA> <NA> a\n", ".rttm", r"take\.rttm is about \['x'\], not about take"),
    "negative": ("SPEAKER take 1 0 -1 <NA> <NA> a\n", ".rttm", "line 1: the interval from 0.0 to -1 s"),
    "textgrid": ("hello", ".TextGrid", r"bad_labels: take\.TextGrid is not a TextGrid"),
}


@pytest.mark.parametrize(("content", "suffix", "message"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named(labels, content, suffix, message):
    with pytest.raises(ValueError, match=message):
        labels(content, suffix)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"suffix": ".lab"}, r"\.txt, \.textgrid, \.rttm say the format"),
        ({"format": "srt"}, "choose one of audacity, textgrid, rttm"),
        ({"output": "words"}, "output is one of membership, index"),
        ({"missing": "skip"}, "missing is error or zeros"),
        ({"output": "index"}, r"output=index needs producers\.from_labels\.labels"),
    ],
    ids=["suffix", "format", "output", "missing", "index"],
)
def test_wrong_settings_stop_the_run(labels, args, message):
    with pytest.raises(UserError, match=message):
        labels(None, **args)


def test_the_format_can_be_said(labels):
    assert list(labels(AUDACITY, ".labels", format="audacity")) == ["ah", "click", "oh"]
