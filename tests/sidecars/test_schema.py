"""Sidecar files: what is written, what is read, and what a crash between the two files leaves behind."""

import hashlib
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voxlab.sidecars import schema
from voxlab.sidecars.schema import Sidecar, compute_stats, paths_beside, read, recover, skeleton, write

VALUES = np.array([[0.0, 64.0], [0.5, 64.0], [1.0, 64.0]], np.float16)


@pytest.fixture
def paths(tmp_path):
    return paths_beside(tmp_path / "take_pitch_64.00_amp_.75.ecdc")


def example(**changes):
    entry = {"name": "lin", "args": {"columns": None}, "columns": ["position"], "fingerprint": "f"}
    fields = {"names": ("position", "pitch"), "units": ("", "MIDI note"), "frame_rate": 75.0, "producers": (entry,)}
    return Sidecar(**{"values": VALUES, "tokens_sha256": "ab"} | fields | changes)


def test_the_names_keep_every_dot_of_the_stem(paths):
    assert [path.name for path in paths] == ["take_pitch_64.00_amp_.75.cond.npy", "take_pitch_64.00_amp_.75.cond.json"]


def test_the_json_has_the_keys_of_version_1_and_ours(paths):
    npy, meta = paths
    write(npy, meta, example())
    entry = {"name": "lin", "args": {"columns": None}, "columns": ["position"], "fingerprint": "f"}
    assert json.loads(meta.read_text()) == {
        "schema_version": 1,
        "fps": 75.0,
        "source_rate": 75.0,
        "names": ["position", "pitch"],
        "norm": {"min": [0, 64], "max": [1, 64], "mean": [0.5, 64], "std": [pytest.approx((1 / 6) ** 0.5), 0]},
        "units": ["", "MIDI note"],
        "dtype": "float16",
        "frames": 3,
        "frame_time": "middle",
        "codes_sha256": "ab",
        "values_sha256": hashlib.sha256(npy.read_bytes()).hexdigest(),
        "producers": [entry],
    }
    assert np.load(npy, allow_pickle=False).dtype == np.float16


def test_what_is_written_is_read(paths):
    write(*paths, example())
    found = read(*paths)
    np.testing.assert_array_equal(found.values, VALUES)
    assert (found.names, found.units) == (("position", "pitch"), ("", "MIDI note"))
    assert (found.frame_rate, found.tokens_sha256, found.schema_version) == (75.0, "ab", 1)
    assert found.producers == example().producers
    assert found.stats == compute_stats(VALUES)
    np.testing.assert_array_equal(found.column("pitch"), [64, 64, 64])
    with pytest.raises(KeyError, match=r"no column 'amp'; there are \['position', 'pitch'\]"):
        found.column("amp")


@pytest.mark.parametrize("dtype", schema.DTYPES)
def test_a_skeleton_has_rows_and_no_columns(paths, dtype):
    write(*paths, skeleton(7, 12.5, dtype, "ab"))
    found = read(*paths)
    assert found.values.shape == (7, 0)
    assert found.dtype == dtype
    assert found.stats == {"min": [], "max": [], "mean": [], "std": []}


def test_a_second_write_of_the_same_leaves_the_files_alone(paths):
    write(*paths, example())
    for path in paths:
        os.utime(path, ns=(1, 1))
    write(*paths, example())
    assert [path.stat().st_mtime_ns for path in paths] == [1, 1]
    write(*paths, example(units=("s", "MIDI note")))
    assert all(path.stat().st_mtime_ns > 1 for path in paths)


def test_version_2_is_read(paths):
    npy, meta = paths
    np.save(npy, VALUES.astype(np.float32))
    feature = {"min": 0, "max": 1, "mean": 0.5, "std": 0.4, "units": "s", "doc_string": "where"}
    features = {"position": feature, "pitch": feature | {"units": ""}}
    meta.write_text(json.dumps({"schema_version": 2, "fps": 75, "features": features}))
    found = read(npy, meta)
    assert (found.names, found.units, found.schema_version) == (("position", "pitch"), ("s", ""), 2)
    assert found.stats["std"] == [0.4, 0.4]
    assert (found.frame_rate, found.tokens_sha256) == (75.0, None)


def test_a_file_of_the_earlier_project_is_read(paths):
    npy, meta = paths
    np.save(npy, VALUES)
    norm = {"min": [], "max": [], "mean": [], "std": []}
    content = {"schema_version": 1, "fps": 75, "source_rate": 75, "names": ["a", "b"], "norm": norm, "other": 1}
    meta.write_text(json.dumps(content))
    found = read(npy, meta)
    assert (found.names, found.units, found.producers) == (("a", "b"), ("", ""), ())
    assert (found.stats, found.tokens_sha256, found.values_sha256) == (norm, None, None)


GOOD = {"schema_version": 1, "fps": 75, "names": ["a", "b"]}
BROKEN = {
    "no values": (None, GOOD, r"missing_sidecar: there is no take.*\.cond\.npy"),
    "no json": (VALUES, None, r"missing_json: there is no take.*\.cond\.json"),
    "not numpy": (b"hello", GOOD, r"bad_sidecar: take.*npy is not a NumPy array file"),
    "pickled": (np.array([[None]]), GOOD, "bad_sidecar: .* is not a NumPy array file"),
    "flat": (np.zeros(3, np.float16), GOOD, r"bad_shape: .* has shape \(3,\); needs \(frames, columns\)"),
    "integers": (np.zeros((3, 2), int), GOOD, "bad_sidecar: .* holds int64; needs float16 or float32"),
    "not json": (VALUES, b"{", "bad_sidecar: .*json is not readable JSON"),
    "a list": (VALUES, [], "bad_sidecar: .* holds a list; needs an object"),
    "version 3": (VALUES, GOOD | {"schema_version": 3}, "has schema_version 3; readable are 1 and 2"),
    "no version": (VALUES, {"names": ["a", "b"]}, "has schema_version None"),
    "names": (VALUES, GOOD | {"names": [1, 2]}, r"`names` in .* is \[1, 2\]; needs a list of strings"),
    "too few": (VALUES, GOOD | {"names": ["a"]}, "names_length_mismatch: .* names 1 columns, .* has 2"),
    "twice": (VALUES, GOOD | {"names": ["a", "a"]}, r"duplicate_names: .* names columns twice: \['a'\]"),
    "features": (VALUES, {"schema_version": 2, "features": [1]}, "`features` in .* is not an object of objects"),
}


@pytest.mark.parametrize(("values", "meta", "message"), BROKEN.values(), ids=BROKEN)
def test_what_can_not_be_read_is_named(paths, values, meta, message):
    for path, content in zip(paths, (values, meta), strict=True):
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, np.ndarray):
            np.save(path, content)
        elif content is not None:
            path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read(*paths)


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.floats(-60000, 60000, width=16),
    )
)
def test_statistics_equal_a_slow_sum_in_exact_numbers(values):
    stats = compute_stats(values)
    for n in range(values.shape[1]):
        column = [float(x) for x in values[:, n]]
        mean = sum(column) / len(column)
        deviation = (sum((x - mean) ** 2 for x in column) / len(column)) ** 0.5
        assert (stats["min"][n], stats["max"][n]) == (min(column), max(column))
        assert stats["mean"][n] == pytest.approx(mean, rel=1e-12, abs=1e-9)
        assert stats["std"][n] == pytest.approx(deviation, rel=1e-9, abs=1e-9)


def test_the_statistics_of_a_constant_are_exact():
    constant = np.full((1000, 1), 0.1, np.float32)
    assert compute_stats(constant) == {key: [float(np.float32(0.1))] for key in ("min", "max", "mean")} | {"std": [0.0]}


STEPS = ("nothing", "json waits", "values replaced", "done")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False], ids=["over an old one", "first"])
def test_a_write_that_was_killed_is_finished_or_undone(paths, step, before, monkeypatch):
    """Killed after each step, `recover` leaves one complete pair, and no third file."""
    npy, meta = paths
    if before:
        write(npy, meta, example())
    new = example(values=VALUES * 2)
    _killed_write(npy, meta, new, STEPS.index(step), monkeypatch)
    recover(npy, meta)
    finished = step in ("values replaced", "done")
    assert {path.name for path in npy.parent.iterdir()} == ({npy.name, meta.name} if before or finished else set())
    if before or finished:
        found = read(npy, meta)
        np.testing.assert_array_equal(found.values, new.values if finished else VALUES)
        assert found.stats == compute_stats(found.values)
        assert found.values_sha256 == hashlib.sha256(npy.read_bytes()).hexdigest()


def _killed_write(npy, meta, sidecar, steps, monkeypatch):
    """Call `write`, stopped after so many of its three changes to the folder."""
    done = 0

    def counted(change):
        def call(*args):
            nonlocal done
            if done == steps:
                raise KeyboardInterrupt
            done += 1
            return change(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(schema, "atomic_write_bytes", counted(schema.atomic_write_bytes))
        patch.setattr(type(npy), "replace", _replace_at_end(steps, type(npy).replace))
        try:
            write(npy, meta, sidecar)
        except KeyboardInterrupt:
            assert steps < 3


def _replace_at_end(steps, replace):
    """The last step is a rename; those inside atomic writes go through."""

    def call(self, target):
        if self.name.endswith(schema.PENDING_SUFFIX) and steps < 3:
            raise KeyboardInterrupt
        return replace(self, target)

    return call
