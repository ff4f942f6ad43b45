"""Constants, ramps, and numbers in file names."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.sidecar_items import item_of, times_of
from voxlab.errors import UserError
from voxlab.sidecars.producers.basic import const, from_filename, lin

ROOT = Path(__file__).resolve().parents[2]
PATTERN = yaml.safe_load((ROOT / "conf/producers/from_filename.yaml").read_text())["from_filename"]["pattern"]


def produced(producer, tmp_path=Path(), name="take", frames=5, **args):
    item = item_of(tmp_path, name, frames)
    return producer(item, times_of(item), **args), item


def test_const_fills_columns():
    columns, item = produced(const, columns={"scene_id": 7, "amp": 0.5}, units={"scene_id": "id"})
    assert {name: column.tolist() for name, column in columns.items()} == {"scene_id": [7] * 5, "amp": [0.5] * 5}
    assert item.units == {"scene_id": "id"}


@pytest.mark.parametrize("columns", [None, {}, {"a": "x"}, {"a": True}, {"a": [1, 2]}], ids=repr)
def test_const_needs_numbers(columns):
    with pytest.raises(UserError, match=r"producers\.const\.columns=.*give a number for each column, for example"):
        produced(const, columns=columns)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(1, 50))
def test_lin_includes_both_ends(start, stop, frames):
    columns, _ = produced(lin, frames=frames, columns={"gain": [start, stop]})
    steps = [start + (stop - start) * n / max(frames - 1, 1) for n in range(frames)]
    np.testing.assert_allclose(columns["gain"], steps, atol=1e-9, rtol=1e-12)
    assert columns["gain"][0] == start
    assert frames == 1 or columns["gain"][-1] == stop


def test_lin_alone_gives_the_position():
    columns, _ = produced(lin)
    assert {name: column.tolist() for name, column in columns.items()} == {"position": [0, 0.25, 0.5, 0.75, 1]}


@pytest.mark.parametrize("columns", [{}, {"a": 1}, {"a": [1]}, {"a": [1, "x"]}], ids=repr)
def test_lin_needs_two_numbers(columns):
    with pytest.raises(UserError, match=r"producers\.lin\.columns=.*give 2 numbers for each column"):
        produced(lin, columns=columns)


NAMES = {
    "foo_pitch_64.00_amp_.75": {"pitch": 64, "amp": 0.75},
    "a_pitch_64_amp_3": {"pitch": 64, "amp": 3},
    "foo_pitch_64.00_amp_0.75": {"pitch": 64, "amp": 0.75},
    "song_tempo_120.0": {"tempo": 120},
    "piano_pitch_60_vel_100_rr_2": {"pitch": 60, "vel": 100, "rr": 2},
    "x_scene_id_7": {"scene_id": 7},
    "session_1/x_detune_-12.5": {"detune": -12.5},
    "plain": {},
    "violin_01_pitch_64": {"pitch": 64},
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items(), ids=list(NAMES))
def test_all_pairs_of_a_file_name_are_found(name, expected):
    columns, _ = produced(from_filename, name=name, pattern=PATTERN)
    assert {key: set(column.tolist()) for key, column in columns.items()} == {k: {v} for k, v in expected.items()}
    assert list(columns) == list(expected)


PARAMETERS = st.dictionaries(
    st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.integers(-999, 999).map(lambda n: n / 8), min_size=1, max_size=4
)


@given(PARAMETERS)
def test_what_is_spelt_is_read(parameters):
    name = "take" + "".join(f"_{key}_{value}" for key, value in parameters.items())
    columns, _ = produced(from_filename, name=name, frames=2, pattern=PATTERN)
    assert {key: column.tolist() for key, column in columns.items()} == {k: [v, v] for k, v in parameters.items()}


def test_a_number_that_a_name_begins_with_is_told_once(caplog):
    for name in ("take_pitch_3", "pitch_60_amp_.5", "pitch_61_amp_.5"):
        columns, _ = produced(from_filename, name=name, frames=2, pattern=PATTERN + "(?:)")
        assert "amp" in columns or name == "take_pitch_3"
    assert len(caplog.records) == 1
    assert "pitch_60 at the start of the file name pitch_60_amp_.5 makes no column" in caplog.text
    assert "take_pitch_60_amp_.5" in caplog.text


def test_a_name_twice_is_an_error():
    with pytest.raises(ValueError, match="duplicate_names: the file name x_pitch_1_pitch_2 holds 'pitch' twice"):
        produced(from_filename, name="x_pitch_1_pitch_2", pattern=PATTERN)


def test_a_value_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="bad_value: the file name x-a-b has a = 'b'; needs a number"):
        produced(from_filename, name="x-a-b", pattern=r"-(?P<name>\w)-(?P<value>\w)")


def test_the_pattern_is_checked():
    with pytest.raises(UserError, match="is not a regular expression"):
        produced(from_filename, pattern="(")
    with pytest.raises(UserError, match=r"needs the groups .*; it has \['name'\]"):
        produced(from_filename, pattern="(?P<name>x)")
