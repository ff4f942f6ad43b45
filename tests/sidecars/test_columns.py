"""Columns are checked on their way in; new ones and old ones are merged as the mode says."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.sidecars import calls
from voxlab.sidecars.columns import Made, assemble, convert_column, merge
from voxlab.sidecars.schema import skeleton

T = 4
EMPTY = skeleton(T, 75.0, "float32", "now")


def a_producer(item, times, **args):
    raise NotImplementedError


def call_of(name, **args):
    return calls.prepare({name: partial(a_producer, **args)})[0]


def made(name, args=None, **columns):
    return Made(call_of(name, **(args or {})), {key: np.full(T, float(value)) for key, value in columns.items()})


def joined(old, *new, mode="append", remove=(), empty=EMPTY, units=None):
    return merge(old, new, units or {}, empty, mode=mode, remove=remove, file="x.cond.npy")


def content(sidecar):
    return {name: float(sidecar.column(name)[0]) for name in sidecar.names}


def makers(sidecar):
    return {column: entry["name"] for entry in sidecar.producers for column in entry["columns"]}


BAD = {
    "nan": ([1, 2, float("nan"), 4], "float32", r"nonfinite: x\.npy: column 'amp' is nan at frame 2"),
    "infinite": ([1, float("-inf"), 3, 4], "float32", "nonfinite: .* is -inf at frame 1"),
    "70000": (
        [1, 2, 3, 70000],
        "float16",
        r"overflow: x\.npy: column 'amp' is 70000\.0 at frame 3; float16 ends at 65504",
    ),
    "1e39": ([1, 2, 3, 1e39], "float32", r"overflow: .* is 1e\+39 at frame 3; float32 ends at 3\.4"),
    "short": ([1, 2, 3], "float32", r"bad_column: x\.npy: column 'amp' has shape \(3,\); needs \(4,\)"),
    "table": (np.zeros((4, 1)), "float32", r"has shape \(4, 1\); needs \(4,\)"),
    "text": (["a", "b", "c", "d"], "float32", "bad_column: .* holds str32; needs numbers"),
    "complex": (np.zeros(4, complex), "float32", "holds complex128; needs numbers"),
}


@pytest.mark.parametrize(("column", "dtype", "message"), BAD.values(), ids=BAD)
def test_a_bad_column_is_refused_by_name_file_and_value(column, dtype, message):
    with pytest.raises(ValueError, match=message):
        convert_column("amp", column, T, dtype, "x.npy")


@pytest.mark.parametrize("name", ["", " amp", "a\nb", 3], ids=["empty", "blank", "line", "number"])
def test_a_bad_name_is_refused(name):
    with pytest.raises(ValueError, match=r"bad_name: x\.npy"):
        convert_column(name, np.zeros(T), T, "float32", "x.npy")


@given(st.lists(st.floats(-65504, 65504), min_size=1, max_size=20))
def test_values_are_rounded_to_the_nearest_that_the_type_holds(values):
    values = [*values, 0.5]  # whole numbers alone must not be rounded
    found = convert_column("amp", values, len(values), "float16", "x.npy")
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.array(values, np.float64).astype(np.float16))


def test_bools_and_integers_become_numbers():
    np.testing.assert_array_equal(convert_column("on", [True, False, True, True], T, "float16", "x"), [1, 0, 1, 1])
    np.testing.assert_array_equal(convert_column("n", np.arange(T), T, "float16", "x"), [0, 1, 2, 3])


def test_new_columns_follow_in_the_order_of_the_calls():
    sidecar, notes = joined(None, made("one", b=1, a=2), made("two", c=3), units={"a": "Hz"})
    assert content(sidecar) == {"b": 1, "a": 2, "c": 3}
    assert sidecar.units == ("", "Hz", "")
    assert makers(sidecar) == {"b": "one", "a": "one", "c": "two"}
    assert notes.as_record() == {}
    assert (sidecar.tokens_sha256, sidecar.frame_rate, sidecar.dtype) == ("now", 75.0, "float32")


def test_append_keeps_what_other_settings_made_and_says_so():
    old, _ = joined(None, made("one", {"x": 1}, a=1, b=2), units={"a": "Hz"})
    sidecar, notes = joined(old, made("one", {"x": 2}, b=5, c=6), units={"b": "dB"})
    assert content(sidecar) == {"a": 1, "b": 2, "c": 6}
    assert sidecar.units == ("", "", "Hz")
    assert notes.as_record() == {"kept": ["b"]}
    assert [(entry["args"], entry["columns"]) for entry in sidecar.producers] == [
        ({"x": 1}, ["a", "b"]),
        ({"x": 2}, ["c"]),
    ]


def test_append_renews_what_the_same_settings_made():
    old, _ = joined(None, made("one", {"x": 1}, a=1), made("two", b=2))
    sidecar, notes = joined(old, made("one", {"x": 1}, a=5))
    assert content(sidecar) == {"a": 5, "b": 2}
    assert notes.as_record() == {}


def test_overwrite_replaces_in_place():
    old, _ = joined(None, made("one", a=1, b=2), made("two", c=3))
    sidecar, notes = joined(old, made("new", b=5, d=6), mode="overwrite")
    assert content(sidecar) == {"a": 1, "b": 5, "c": 3, "d": 6}
    assert makers(sidecar) == {"a": "one", "b": "new", "c": "two", "d": "new"}
    assert notes.as_record() == {}


def test_no_producer_keeps_all():
    old, _ = joined(None, made("one", a=1))
    sidecar, _ = joined(old)
    assert (content(sidecar), sidecar.producers) == ({"a": 1}, old.producers)


def test_columns_are_removed_old_and_new():
    old, _ = joined(None, made("one", a=1, b=2))
    sidecar, notes = joined(old, made("two", c=3, d=4), remove=["a", "d", "e"])
    assert content(sidecar) == {"b": 2, "c": 3}
    assert makers(sidecar) == {"b": "one", "c": "two"}
    assert notes.as_record() == {"removed": ["a", "d"]}


def test_two_producers_of_one_column_are_named():
    with pytest.raises(ValueError, match=r"name_collision: x\.cond\.npy: column 'gain' comes from const and lin"):
        joined(None, made("const", gain=1), made("lin", gain=2))


@pytest.mark.parametrize(
    "empty", [skeleton(T, 75.0, "float32", "later"), skeleton(5, 75.0, "float32", "now")], ids=["tokens", "T"]
)
def test_columns_for_other_tokens_are_an_error_unless_all_are_made_anew(empty):
    old, _ = joined(None, made("one", a=1), made("two", b=2))
    again = [
        Made(call_of("one"), {"a": np.full(empty.frames, 7)}),
        Made(call_of("two"), {"b": np.full(empty.frames, 8)}),
    ]
    with pytest.raises(
        ValueError,
        match=r"stale_sidecar: .* columns b belong to other tokens; name .* again \(two\), or .*mode=overwrite$",
    ):
        joined(old, again[0], empty=empty)
    sidecar, notes = joined(old, *again, empty=empty)
    assert (content(sidecar), notes.as_record()) == ({"a": 7, "b": 8}, {})
    assert sidecar.tokens_sha256 == empty.tokens_sha256
    sidecar, notes = joined(old, again[0], empty=empty, mode="overwrite")
    assert (content(sidecar), notes.as_record()) == ({"a": 7}, {"dropped": ["b"]})
    sidecar, notes = joined(old, again[0], empty=empty, remove=["b"])
    assert (content(sidecar), notes.as_record()) == ({"a": 7}, {"removed": ["b"]})


def test_a_sidecar_that_does_not_name_its_tokens_counts_by_its_frames():
    old = assemble(skeleton(T, 75.0, "float16"), {"a": np.ones(T)}, {}, "x")
    sidecar, _ = joined(old, made("one", b=2))
    assert content(sidecar) == {"a": 1, "b": 2}
    assert (sidecar.dtype, sidecar.tokens_sha256) == ("float32", "now")


def test_another_type_rounds_what_is_kept_and_refuses_what_does_not_fit():
    old, _ = joined(None, made("one", a=0.1, b=1e6))
    with pytest.raises(ValueError, match=r"overflow: .*column 'b' is 1000000\.0"):
        joined(old, empty=skeleton(T, 75.0, "float16", "now"))
    sidecar, _ = joined(old, made("one", a=0.1, b=6), empty=skeleton(T, 75.0, "float16", "now"))
    assert content(sidecar) == {"a": float(np.float16(0.1)), "b": 6}
