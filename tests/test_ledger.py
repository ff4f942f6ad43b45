"""Ledgers survive a killed writer, join ranks, and see that a file has changed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.ledger import Ledger, stats
from voxlab.parallel import Ranks


@pytest.fixture
def done(tmp_path):
    """A ledger with one finished item and its file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc")
    ledger = Ledger(tmp_path, "encode", Ranks())
    ledger.add("a", {"input": "x", "stat": stats([path])})
    return ledger, path


def test_an_item_is_current_until_its_source_settings_or_file_change(done):
    ledger, path = done
    assert ledger.is_current("a", {"input": "x"}, [path])
    assert not ledger.is_current("a", {"input": "y"}, [path])
    assert not ledger.is_current("b", {"input": "x"}, [path])
    path.write_bytes(b"abcd")
    assert not ledger.is_current("a", {"input": "x"}, [path])
    path.unlink()
    assert not ledger.is_current("a", {"input": "x"}, [path])


def test_a_failed_item_is_current_while_its_source_is_the_same(tmp_path):
    ledger = Ledger(tmp_path, "encode", Ranks())
    ledger.add("a", {"input": "x", "error": "bad_audio:empty"})
    assert ledger.is_current("a", {"input": "x"}, [tmp_path / "never written"])
    assert not ledger.is_current("a", {"input": "y"}, [])


def test_records_of_all_ranks_are_joined_sorted_and_read_again(tmp_path):
    for rank, name in ((1, "a"), (0, "b"), (2, "c")):
        Ledger(tmp_path, "encode", Ranks(rank=rank)).add(name, {"rank": rank})
    ledger = Ledger(tmp_path, "encode", Ranks())
    assert sorted(ledger.records) == ["a", "b", "c"]
    ledger.merge(keep=["c", "a"])
    assert list(ledger.records) == ["a", "c"]
    assert [path.name for path in (tmp_path / ".state").iterdir()] == ["encode.jsonl"]
    assert Ledger(tmp_path, "encode", Ranks()).records == ledger.records


def test_a_merge_without_news_leaves_the_file_alone(done):
    ledger, path = done
    ledger.merge(keep=["a"])
    merged = path.parent / ".state" / "encode.jsonl"
    before = merged.stat().st_mtime_ns
    ledger.merge(keep=["a"])
    assert merged.stat().st_mtime_ns == before


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 10_000))
def test_a_file_cut_anywhere_gives_whole_records_only(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(folder, "encode", Ranks())
    for number in range(20):
        ledger.add(f"ä{number}", {"frames": number})
    path = folder / ".state" / "encode.rank0.jsonl"
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    records = Ledger(folder, "encode", Ranks()).records
    whole = [json.loads(line) for line in data.split(b"\n")[:-1]]
    assert list(records.values()) == whole
    again = Ledger(folder, "encode", Ranks())
    again.add("new", {"frames": 0})  # glued to a torn line, this record would be lost
    assert "new" in Ledger(folder, "encode", Ranks()).records
