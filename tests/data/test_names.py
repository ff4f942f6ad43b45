"""Numbers and names in messages."""

import pytest

from voxlab.data.names import counted, inflected


@pytest.mark.parametrize(
    ("text", "one", "two"),
    [
        ("{} [file is|files are] silent", "1 file is silent", "2 files are silent"),
        ("{} pair[|s] of [it|them]", "1 pair of it", "2 pairs of them"),
        ("{} of 3 (stages=[encode,build])", "1 of 3 (stages=[encode,build])", "2 of 3 (stages=[encode,build])"),
        ("no number {a}", "no number {a}", "no number {a}"),
    ],
)
def test_one_and_many(text, one, two):
    assert (inflected(text, 1), inflected(text, 2)) == (one, two)
    assert inflected(text, 0) == two.replace("2", "0")


def test_counted_names_the_first_twenty():
    assert counted("{} [file|files]", []) == []
    assert counted("{} [file|files]", ["a"]) == ["1 file: a"]
    line = counted("{} [file|files]", [f"f{n}" for n in range(22)])[0]
    assert line.startswith("22 files: f0, f1, ")
    assert line.endswith(", f19, and 2 more")
