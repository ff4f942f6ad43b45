"""Recordings in the cells of Parquet files as items."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from voxlab.data import embedded
from voxlab.data.voiceassistant import VoiceAssistant
from voxlab.errors import UserError


def write(path, cells, kind, row_group_size=2, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"question_audio": pa.array(cells, kind), **columns})
    pq.write_table(table, path, row_group_size=row_group_size)


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_items_of_the_sample_are_its_cells(tmp_path):
    corpus = VoiceAssistant(source="sample", root=str(tmp_path / "va"))
    corpus.prepare()
    rows = [row for path in corpus.paths() for row in pq.read_table(path).to_pylist()]
    items = corpus.items()
    assert [item.id for item in items] == [f"train-0000{n}-of-00002/{row:06d}" for n in range(2) for row in range(10)]
    assert [item.read() for item in items] == [row["question_audio"]["bytes"] for row in rows]
    assert [item.read() for item in reversed(items)] == [row["question_audio"]["bytes"] for row in reversed(rows)]
    for item, row in zip(items, rows, strict=True):
        assert item.split == "train"
        assert item.metadata == {name: row[name] for name in ("split_name", "index", "round", "question", "answer")}
    assert len({item.stamp for item in items}) == 20


def test_stamps_change_with_the_file(tmp_path):
    path = tmp_path / "data" / "a.parquet"
    write(path, [b"x", b"y"], pa.binary())
    before = [item.stamp for item in VoiceAssistant(root=str(tmp_path)).items()]
    write(path, [b"x", b"z"], pa.binary())
    after = VoiceAssistant(root=str(tmp_path)).items()
    assert [item.read() for item in after] == [b"x", b"z"]
    assert not set(before) & {item.stamp for item in after}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), STRUCT], ids=str)
def test_null_cells_fail_when_they_are_read(tmp_path, kind):
    cells = [b"x", None, b"y"] if kind != STRUCT else [{"bytes": b"x"}, {"bytes": None}, {"bytes": b"y"}]
    write(tmp_path / "data" / "a.parquet", cells, kind, n=[1, 2, 3], nested=[[1], [2], [3]])
    first, second, third = VoiceAssistant(root=str(tmp_path)).items()
    assert (first.read(), third.read()) == (b"x", b"y")
    assert [item.metadata for item in (first, second, third)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    with pytest.raises(ValueError, match="bad_audio:null"):
        second.read()


def test_a_row_group_is_read_once_for_its_rows(tmp_path, monkeypatch):
    write(tmp_path / "data" / "a.parquet", [b"%d" % n for n in range(9)], pa.binary(), row_group_size=3)
    opened = []
    original = pq.ParquetFile
    monkeypatch.setattr(embedded.pq, "ParquetFile", lambda path: opened.append(path) or original(path))
    items = VoiceAssistant(root=str(tmp_path)).items()
    opened.clear()
    assert [item.read() for item in items] == [b"%d" % n for n in range(9)]
    assert len(opened) == 3


def test_ids_are_names_below_the_folders_of_the_pattern(tmp_path):
    for name in ("x/en/a.parquet", "x/de/a.parquet"):
        write(tmp_path / name, [b"x"], pa.binary())
    ids = [item.id for item in VoiceAssistant(root=str(tmp_path), pattern="x/*/*.parquet").items()]
    assert ids == ["de/a/000000", "en/a/000000"]


def test_unusable_files_and_columns_are_named(tmp_path):
    write(tmp_path / "data" / "a.parquet", ["text"], pa.string())
    with pytest.raises(UserError, match=r"data/a\.parquet: string(.|\n)*data\.audio_column"):
        VoiceAssistant(root=str(tmp_path)).items()
    (tmp_path / "data" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"1 files under .*\n  data/b\.parquet: unreadable"):
        VoiceAssistant(root=str(tmp_path)).items()
