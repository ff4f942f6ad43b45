"""Columns from metadata, from one table for all recordings, and from one beside each."""

import numpy as np
import pytest

from tests.sidecar_items import item_of, times_of
from voxlab.errors import UserError
from voxlab.sidecars.producers.table import from_table

FRAMES = 150  # 2 s


@pytest.fixture
def table(tmp_path):
    """Call the producer on an item of the folder."""

    def call(name="s1/take", metadata=None, **args):
        item = item_of(tmp_path, name, FRAMES, **(metadata or {}))
        item.source.parent.mkdir(exist_ok=True)
        columns = from_table(item, times_of(item), **args)
        return {key: np.asarray(column) for key, column in columns.items()}

    return call


def constants(columns):
    assert all(len(column) == FRAMES and np.ptp(column) == 0 for column in columns.values())
    return {name: float(column[0]) for name, column in columns.items()}


def test_metadata_gives_its_numbers(table):
    metadata = {"speaker": "ann", "pitch": 64, "amp": 0.5, "loud": True, "note": None}
    assert constants(table(metadata=metadata)) == {"pitch": 64, "amp": 0.5, "loud": 1}
    assert constants(table(metadata=metadata, columns=["amp"])) == {"amp": 0.5}


def test_metadata_that_is_asked_for_must_be_there(table):
    with pytest.raises(ValueError, match=r"missing_column: the corpus's metadata has no 'x'; it has \['amp'\]"):
        table(metadata={"amp": 1}, columns=["x"])
    with pytest.raises(ValueError, match="bad_value: the corpus's metadata: amp is None; needs a finite number"):
        table(metadata={"amp": None}, columns=["amp"])


@pytest.mark.parametrize("key", ["s1/take", "s1/take.wav", "./s1/take.wav", "s1\\take.wav"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_a_table_for_all_is_joined_by_path(table, tmp_path, key, delimiter):
    lines = [["file_name", "pitch", "who"], ["s2/take", "1", "x"], [key, "64.5", "ann"]]
    file = tmp_path / "all.csv"
    file.write_text("\n".join(delimiter.join(line) for line in lines), encoding="utf-8-sig")
    assert constants(table(file=str(file))) == {"pitch": 64.5}


def test_a_changed_table_is_read_again(table, tmp_path):
    file = tmp_path / "all.csv"
    file.write_text("file_name,pitch\ns1/take,1\n")
    assert constants(table(file=str(file))) == {"pitch": 1}
    file.write_text("file_name,pitch\ns1/take,22\n")
    assert constants(table(file=str(file))) == {"pitch": 22}


TIMED = "time,gain\n1.0,10\n0.5,5\n1.5,20\n"


@pytest.mark.parametrize("place", ["beside", "for all", "elsewhere"])
def test_rows_with_a_time_hold_or_run_on(table, tmp_path, place):
    args = {"suffix": "_gain.csv"}
    if place == "for all":
        rows = [f"{line},s1/take" for line in TIMED.splitlines()[1:]] + ["0,99,other"]
        (tmp_path / "all.csv").write_text("\n".join(["time,gain,file_name", *rows]))
        args = {"file": str(tmp_path / "all.csv")}
    elif place == "elsewhere":
        (tmp_path / "tables/s1").mkdir(parents=True)
        (tmp_path / "tables/s1/take_gain.csv").write_text(TIMED)
        args |= {"folder": str(tmp_path / "tables")}
    else:
        (tmp_path / "s1").mkdir()
        (tmp_path / "s1/take_gain.csv").write_text(TIMED)
    times = (np.arange(FRAMES) + 0.5) / 75
    held = [20 if t >= 1.5 else 10 if t >= 1 else 5 for t in times]
    np.testing.assert_array_equal(table(**args)["gain"], held)
    line = [5 if t < 0.5 else 5 + (t - 0.5) * 10 if t < 1 else min(10 + (t - 1) * 20, 20) for t in times]
    np.testing.assert_allclose(table(**args, mode="linear")["gain"], line)


def test_one_row_beside_a_recording_holds_for_all_frames(table, tmp_path):
    (tmp_path / "s1").mkdir()
    (tmp_path / "s1/take.csv").write_text("pitch,name\n64,x\n")
    assert constants(table(suffix=".csv")) == {"pitch": 64}


BAD = {
    "no file": (None, {"suffix": ".csv"}, r"missing_companion: s1/take has no .*take\.csv"),
    "two rows": ("a\n1\n2\n", {"suffix": ".csv"}, r"take\.csv has 2 rows for s1/take \(lines 2, 3\) and no 'time'"),
    "no rows": ("a\n", {"suffix": ".csv"}, r"bad_table: take\.csv has no rows"),
    "ragged": ("a,b\n1,2\n3\n", {"suffix": ".csv"}, r"bad_table: take\.csv, line 3: another number of cells"),
    "too wide": ("a,b\n1,2,3\n", {"suffix": ".csv"}, r"bad_table: take\.csv, line 2: another number of cells"),
    "same names": ("a,a\n1,2\n", {"suffix": ".csv"}, "bad_table: .* needs a header of different names"),
    "binary": (b"\xff\xfe\x00", {"suffix": ".csv"}, r"bad_table: take\.csv is not a CSV file in UTF-8"),
    "hole": ("time,a\n0,1\n1,\n", {"suffix": ".csv"}, r"bad_value: take\.csv, line 3: a is ''; needs a finite number"),
    "time": ("time,a\n0,1\nx,2\n", {"suffix": ".csv"}, r"bad_value: take\.csv, line 3: time is 'x'"),
    "infinite": ("a,b\n1,inf\n", {"suffix": ".csv", "columns": ["b"]}, r"take\.csv, line 2: b is 'inf'"),
    "column": ("a\n1\n", {"suffix": ".csv", "columns": ["b"]}, r"missing_column: take\.csv, line 2 has no 'b'"),
}


@pytest.mark.parametrize(("content", "args", "message"), BAD.values(), ids=BAD)
def test_a_bad_table_of_a_recording_is_named(table, tmp_path, content, args, message):
    (tmp_path / "s1").mkdir()
    if content is not None:
        (tmp_path / "s1/take.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        table(**args)


def test_a_recording_without_row_is_named(table, tmp_path):
    (tmp_path / "all.csv").write_text("file_name,a\ns1/other,1\n")
    with pytest.raises(ValueError, match=r"missing_row: all\.csv has no row with file_name = s1/take\.wav"):
        table(file=str(tmp_path / "all.csv"))


def test_a_hole_in_a_column_of_numbers_is_no_lost_column(table, tmp_path):
    (tmp_path / "all.csv").write_text("file_name,a\ns1/take,\ns1/other,1\n")
    with pytest.raises(ValueError, match=r"bad_value: all\.csv, line 2: a is ''"):
        table(file=str(tmp_path / "all.csv"))


def test_settings_that_are_wrong_for_all_stop_the_run(table, tmp_path):
    with pytest.raises(UserError, match=r"from_table\.file=.*none\.csv: .*No such file"):
        table(file=str(tmp_path / "none.csv"))
    (tmp_path / "all.csv").write_text("path,a\ns1/take,1\n")
    with pytest.raises(UserError, match=r"has no column 'file_name'.* it has \['path', 'a'\]"):
        table(file=str(tmp_path / "all.csv"))
    assert constants(table(file=str(tmp_path / "all.csv"), key="path")) == {"a": 1}
    with pytest.raises(UserError, match="mode is one of hold, linear"):
        table(mode="cubic")
    with pytest.raises(UserError, match=r"give either file .* or suffix"):
        table(file="a", suffix="b")
