import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab import parquet

FINGERPRINT = "0123456789abcdef"
NEW = pa.schema([("doubled", pa.int64()), ("audio", pa.binary())])


def write_source(root, rows=11, group=4, name="data/train-00000-of-00001.parquet"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nested = [{"bytes": bytes([n]), "path": None} for n in range(rows)]
    table = pa.table(
        {"n": pa.array(range(rows), pa.int64()), "text": [f"row {n}" for n in range(rows)], "nested": nested}
    )
    pq.write_table(table, path, row_group_size=group)
    return parquet.open_source(path, root)


def write_parts(out, source, units):
    for unit in units:
        numbers = parquet.read_unit(unit, ["n"]).column("n").to_pylist()
        table = pa.table([[2 * n for n in numbers], [bytes([n] * 9) for n in numbers]], schema=NEW)
        mark = parquet.stamp(FINGERPRINT, source, {"rows": unit.num_rows})
        parquet.write_part(parquet.part_path(out, unit), table, mark)


def publish(out, source, units):
    mark = parquet.stamp(FINGERPRINT, source, {})
    metadata = {parquet.STAMP: parquet.spell_stamp(mark)}
    return parquet.assemble(out, source, units, NEW, metadata, plain=["audio"])


@given(st.lists(st.integers(1, 300), max_size=6), st.integers(1, 128))
def test_units_cover_every_row_once_and_in_order(row_groups, unit_rows):
    source = parquet.Source(None, "f", tuple(row_groups), "s", pa.schema([]))
    units = parquet.plan_units(source, unit_rows)
    assert [unit.ordinal for unit in units] == list(range(len(units)))
    covered = [unit.first_row + row for unit in units for row in range(unit.num_rows)]
    assert covered == list(range(sum(row_groups)))
    assert all(0 < unit.num_rows <= unit_rows for unit in units)


def test_assembled_file_equals_the_source_with_new_columns(tmp_path):
    source = write_source(tmp_path / "in")
    units = parquet.plan_units(source, 3)
    write_parts(tmp_path / "out", source, units)
    path = publish(tmp_path / "out", source, units)
    result = pq.read_table(path)
    assert result.select(["n", "text", "nested"]).equals(pq.read_table(source.path))
    assert result.column("doubled").to_pylist() == [2 * n for n in range(11)]
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [3, 1, 3, 1, 3]
    assert not (tmp_path / "out" / parquet.STATE).exists()
    assert parquet.is_current(path, FINGERPRINT, source)
    assert not parquet.is_current(path, "another", source)


def test_bytes_do_not_depend_on_when_parts_were_written(tmp_path):
    source = write_source(tmp_path / "in")
    units = parquet.plan_units(source, 3)
    for name, order in (("one", units), ("two", units[::-1])):
        write_parts(tmp_path / name, source, order)
        publish(tmp_path / name, source, units)
    assert (tmp_path / "one" / source.name).read_bytes() == (tmp_path / "two" / source.name).read_bytes()


@pytest.mark.parametrize("group", [1, 5, 11])
def test_pieces_of_row_groups_are_whole(tmp_path, group):
    source = write_source(tmp_path / "in", group=group)
    units = parquet.plan_units(source, 3)
    pieces = [rows for _, rows in parquet._stream(source, units)]
    assert [len(rows) for rows in pieces] == [unit.num_rows for unit in units]
    assert pa.concat_tables(pieces).equals(pq.read_table(source.path))


def test_columns_are_stored_as_promised(tmp_path):
    source = write_source(tmp_path / "in")
    units = parquet.plan_units(source, 8)
    write_parts(tmp_path / "out", source, units)
    group = pq.read_metadata(publish(tmp_path / "out", source, units)).row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["audio"].compression == "UNCOMPRESSED"
    assert "RLE_DICTIONARY" not in columns["audio"].encodings
    assert columns["text"].compression == "ZSTD"
    assert "RLE_DICTIONARY" in columns["text"].encodings
    assert "RLE_DICTIONARY" not in columns["nested.bytes"].encodings


def test_a_file_without_rows_is_published(tmp_path):
    source = write_source(tmp_path / "in", rows=0)
    path = publish(tmp_path / "out", source, parquet.plan_units(source, 8))
    assert pq.read_table(path).num_rows == 0
    assert pq.read_schema(path).names == ["n", "text", "nested", "doubled", "audio"]


def test_a_changed_input_makes_its_parts_stale(tmp_path):
    source = write_source(tmp_path / "in")
    units = parquet.plan_units(source, 8)
    write_parts(tmp_path / "out", source, units)
    changed = write_source(tmp_path / "in", rows=12)
    assert changed.signature != source.signature
    part = parquet.part_path(tmp_path / "out", units[0])
    assert parquet.is_current(part, FINGERPRINT, source)
    assert not parquet.is_current(part, FINGERPRINT, changed)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"not parquet at all"])
def test_an_unreadable_part_is_not_done(tmp_path, damage):
    source = write_source(tmp_path / "in")
    path = tmp_path / "part.parquet"
    path.write_bytes(damage)
    assert not parquet.is_current(path, FINGERPRINT, source)
    assert not parquet.is_current(tmp_path / "absent.parquet", FINGERPRINT, source)


def test_a_truncated_source_is_refused(tmp_path):
    source = write_source(tmp_path / "in")
    source.path.write_bytes(source.path.read_bytes()[:-9])
    with pytest.raises(pa.ArrowInvalid):
        parquet.open_source(source.path, tmp_path / "in")
