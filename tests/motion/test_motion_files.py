"""Motion files: what is read, the types and bytes that are written, and the message of each thing that can be wrong."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from tests.data.beat2_trees import real
from voxlab.errors import UserError
from voxlab.motion.clip import Motion
from voxlab.motion.files import KEYS, inspect_motion, read_motion, write_motion
from voxlab.motion.resample import bridge_gaps, resample

TYPES = {"betas": "<f4", "poses": "<f4", "expressions": "<f8", "trans": "<f8", "model": "<U9", "gender": "<U7"}
TYPES |= {"mocap_frame_rate": "<i4"}


def moving(num_frames=40, fps=30, seed=0):
    """A smooth random motion with large angles."""
    rng = np.random.default_rng(seed)
    times = np.arange(num_frames)[:, None] / fps
    poses = 1.2 * np.sin(2 * np.pi * rng.uniform(0.2, 1, 165) * times + rng.uniform(0, 6, 165))
    return Motion(
        poses=poses.astype(np.float32),
        trans=0.1 * np.cos(times) + rng.uniform(0, 1, 3),
        expressions=rng.standard_normal((num_frames, 100)).astype(np.float32),
        betas=rng.standard_normal(300).astype(np.float32),
        fps=fps,
    )


@pytest.fixture
def arrays(tmp_path):
    """The arrays of a good file, to be spoilt."""
    write_motion(tmp_path / "good.npz", moving())
    with np.load(tmp_path / "good.npz") as file:
        return {key: file[key] for key in file.files}


def save(tmp_path, content):
    path = tmp_path / "spoilt.npz"
    np.savez(path, **content)
    return path


def refusal(path, **options):
    with pytest.raises(UserError) as caught:
        read_motion(path, **options)
    return str(caught.value)


def test_written_files_have_the_seven_arrays_of_beat2_in_their_types_and_equal_bytes(tmp_path):
    motion = moving()
    for name in ("one", "two"):
        write_motion(tmp_path / name / "clip.npz", motion)
    assert (tmp_path / "one/clip.npz").read_bytes() == (tmp_path / "two/clip.npz").read_bytes()
    with np.load(tmp_path / "one/clip.npz", allow_pickle=False) as file:
        assert tuple(file.files) == KEYS
        assert {key: file[key].dtype.str for key in file.files} == TYPES
        assert file["betas"].shape == (300,)
        assert [str(file[key]) for key in ("model", "gender", "mocap_frame_rate")] == ["smplx2020", "neutral", "30"]


def test_what_was_written_is_read_without_loss(tmp_path):
    motion = moving()
    write_motion(tmp_path / "clip.npz", motion)
    again, remarks = inspect_motion(tmp_path / "clip.npz")
    assert remarks == []
    for name in ("poses", "trans", "expressions", "betas"):
        before, after = getattr(motion, name), getattr(again, name)
        assert after.dtype == before.dtype
        assert np.array_equal(after, before)
    assert again.fps == 30


def test_numbers_that_are_not_finite_are_not_written(tmp_path):
    motion = moving()
    motion.poses[3, 4] = np.nan
    with pytest.raises(ValueError, match="poses"):
        write_motion(tmp_path / "clip.npz", motion)
    assert not list(tmp_path.iterdir())


# ---- damaged and foreign files -------------------------------------------------------------------------------------


def test_an_absent_file_is_named(tmp_path):
    assert "there is no motion file" in refusal(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "kind", ["text", "truncated", "npy", "pickle", "objects", "empty", "flipped", "bytes", "locked"]
)
def test_damaged_files_are_named_and_never_unpickled(tmp_path, arrays, kind):
    path = save(tmp_path, arrays)
    whole = path.read_bytes()
    if kind == "text":
        path.write_text("not an archive")
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "npy":
        np.save(path.with_suffix(".npy"), arrays["poses"])
        path.write_bytes(path.with_suffix(".npy").read_bytes())
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"poses": [1, 2]}))
    elif kind == "objects":
        np.savez(path, **{**arrays, "poses": np.array([{"a": 1}], object)})
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "bytes":
        with zipfile.ZipFile(path, "w") as archive:
            for key in arrays:
                archive.writestr(f"{key}.npy", b"no array")
    elif kind == "locked":
        # The bit of the flags that says "encrypted", in the header of each entry and in the list at the end.
        for start, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            pieces = whole.split(start)
            marked = [bytes([piece[place - 4] | 1]) for piece in pieces[1:]]
            changed = [
                piece[: place - 4] + mark + piece[place - 3 :] for piece, mark in zip(pieces[1:], marked, strict=True)
            ]
            whole = start.join([pieces[0], *changed])
        path.write_bytes(whole)
    else:
        path.write_bytes(whole.replace(arrays["poses"].tobytes()[400:416], bytes(16), 1))
    message = refusal(path)
    assert f"corrupt motion file {path}" in message
    assert "never loaded" in message


def test_a_pickle_in_a_file_is_not_run(tmp_path, arrays):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = save(tmp_path, arrays)
    data = io.BytesIO()
    np.save(data, np.array([Trap()], object), allow_pickle=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("poses.npy", data.getvalue())
    assert "corrupt motion file" in refusal(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("key", "array", "shown"),
    [
        ("poses", None, "poses        missing"),
        ("poses", np.zeros((40, 156)), "(40, 156) float64"),
        ("poses", np.zeros((40, 55, 3)), "(40, 55, 3)"),
        ("poses", np.zeros((0, 165)), "(0, 165)"),
        ("poses", np.full((40, 165), "a"), "<U1"),
        ("expressions", np.zeros((40, 50)), "(40, 50) float64"),
        ("expressions", None, "expressions  missing"),
        ("trans", np.zeros((40, 2)), "(40, 2) float64"),
        ("betas", np.zeros(301), "(301,) float64"),
        ("betas", np.full(300, np.nan), "(300,) float64"),
        ("betas", None, "betas        missing"),
    ],
)
def test_other_layouts_are_refused_with_a_table(tmp_path, arrays, key, array, shown):
    content = {name: value for name, value in {**arrays, key: array}.items() if value is not None}
    message = refusal(save(tmp_path, content))
    assert f"(see {key})" in message
    assert shown in message
    assert "(frames, 165)" in message
    assert "AMASS" in message


def test_different_numbers_of_frames_are_refused(tmp_path, arrays):
    message = refusal(save(tmp_path, {**arrays, "trans": arrays["trans"][:-1]}))
    assert "poses has 40" in message
    assert "trans has 39" in message


def test_short_and_repeated_betas_are_taken_with_a_remark(tmp_path, arrays):
    motion, remarks = inspect_motion(save(tmp_path, {**arrays, "betas": np.arange(16.0)}))
    assert motion.betas.shape == (300,)
    assert np.array_equal(motion.betas[:17], [*range(16), 0])
    assert "16 numbers instead of 300" in remarks[0]
    rows = np.repeat(arrays["betas"][None], 40, 0)
    motion, remarks = inspect_motion(save(tmp_path, {**arrays, "betas": rows}))
    assert np.array_equal(motion.betas, rows[0])
    assert remarks == []
    rows[5] += 1
    assert "differ from frame to frame" in inspect_motion(save(tmp_path, {**arrays, "betas": rows}))[1][0]


# ---- numbers that can't be right -----------------------------------------------------------------------------------


def test_nan_is_refused_with_its_first_place(tmp_path, arrays):
    arrays["poses"][7:9, 3 * 18 + 1] = np.nan
    message = refusal(save(tmp_path, arrays))
    assert "poses is NaN or infinite in 2 frames, first in frame 7, joint 18" in message
    assert "data.fix=interpolate" in message
    arrays["poses"] = np.nan_to_num(arrays["poses"])
    arrays["expressions"][4, 60] = np.inf
    assert "expressions is NaN or infinite in 1 frames, first in frame 4, column 60" in refusal(save(tmp_path, arrays))


def test_short_gaps_are_filled_on_request_and_long_ones_are_not(tmp_path, arrays):
    good = arrays["trans"].copy()
    arrays["trans"][10:15] = np.nan
    motion, remarks = inspect_motion(save(tmp_path, arrays), fix="interpolate")
    weight = np.arange(1, 6)[:, None] / 6
    assert np.allclose(motion.trans[10:15], good[9] * (1 - weight) + good[15] * weight, atol=1e-12)
    assert np.array_equal(np.delete(motion.trans, range(10, 15), 0), np.delete(good, range(10, 15), 0))
    assert "interpolated" in remarks[0]
    arrays["trans"][15] = np.nan
    assert "there are longer ones" in refusal(save(tmp_path, arrays), fix="interpolate")
    arrays["trans"][:] = good
    arrays["trans"][-1] = np.nan
    assert "some at an end" in refusal(save(tmp_path, arrays), fix="interpolate")
    with pytest.raises(ValueError, match="fix is 'zeros'"):
        read_motion(save(tmp_path, arrays), fix="zeros")


def test_wraps_and_spikes_are_told_with_their_frames(tmp_path, arrays):
    poses = np.zeros_like(arrays["poses"])
    poses[12:, 30] = 1.6
    _, remarks = inspect_motion(save(tmp_path, {**arrays, "poses": poses}))
    assert remarks == ["wraps or spikes: jumps of more than 1.5 rad a frame in 1 frames (12)"]
    poses[:] = 4.0
    _, remarks = inspect_motion(save(tmp_path, {**arrays, "poses": poses}))
    assert remarks == ["wraps or spikes: angles of more than 2 pi in 40 frames (0, 1, 2, 3, 4, ...)"]


# ---- frame rates ---------------------------------------------------------------------------------------------------


def test_another_frame_rate_is_refused_unless_resampling_is_allowed(tmp_path, arrays):
    path = save(tmp_path, {**arrays, "mocap_frame_rate": np.array(60)})
    message = refusal(path)
    assert "mocap_frame_rate is 60, and data.fps=30 is wanted" in message
    assert "data.allow_resample=true" in message
    motion = read_motion(path, allow_resample=True)
    assert motion.fps == 30
    assert np.array_equal(motion.poses, arrays["poses"][::2])
    assert read_motion(path, fps=None).fps == 60
    assert "expected one number" in refusal(save(tmp_path, {**arrays, "mocap_frame_rate": np.array([30, 30])}))


def test_a_missing_frame_rate_counts_as_30(tmp_path, arrays):
    content = {key: array for key, array in arrays.items() if key != "mocap_frame_rate"}
    motion, remarks = inspect_motion(save(tmp_path, content))
    assert motion.fps == 30
    assert "no mocap_frame_rate" in remarks[0]


@given(rate=st.sampled_from([25.0, 29.97, 30.0, 60.0, 120.0]), fps=st.sampled_from([15, 20, 30]))
def test_resampled_rotations_equal_scipys_slerp_and_the_rest_is_linear(rate, fps):
    motion = moving(23, seed=3)
    values = {"poses": motion.poses.astype(np.float64), "trans": motion.trans}
    found = resample(values, rate, fps)
    times = np.arange(len(found["poses"])) / fps
    source = np.arange(23) / rate
    assert times[-1] <= source[-1] + 1e-9
    assert times[-1] + 1 / fps > source[-1] - 1e-9
    inside = np.minimum(times, source[-1])
    for joint in (0, 17, 40):
        part = slice(3 * joint, 3 * joint + 3)
        wanted = Slerp(source, Rotation.from_rotvec(values["poses"][:, part]))(inside)
        error = (wanted.inv() * Rotation.from_rotvec(found["poses"][:, part])).magnitude()
        assert error.max() < 1e-6
    for column in range(3):
        wanted = np.interp(inside, source, values["trans"][:, column])
        assert np.allclose(found["trans"][:, column], wanted, atol=1e-9)


def test_gaps_in_rotations_are_bridged_the_short_way():
    poses = np.zeros((6, 6))
    poses[0, :3], poses[5, :3] = (0, 3.0, 0), (0, -3.0, 0)  # 0.28 rad apart, through pi
    poses[1:5] = np.nan
    assert bridge_gaps(poses, 5, rotations=True)
    wanted = Slerp([0, 5], Rotation.from_rotvec([[0, 3.0, 0], [0, -3.0, 0]]))(range(6))
    assert (wanted.inv() * Rotation.from_rotvec(poses[:, :3])).magnitude().max() < 1e-7
    assert np.array_equal(poses[:, 3:], np.zeros((6, 3)))


# ---- the real clip -------------------------------------------------------------------------------------------------


def test_the_real_clip_is_read_as_it_is_and_written_as_it_was(tmp_path):
    path = real("BEAT2", "beat_english_v2.0.0", "smplxflame_30", "2_scott_0_1_1.npz")
    motion, remarks = inspect_motion(path)
    assert remarks == []
    length = motion.num_frames
    assert (motion.poses.shape, motion.poses.dtype) == ((length, 165), np.float32)
    assert (motion.trans.shape, motion.trans.dtype) == ((length, 3), np.float64)
    assert (motion.expressions.shape, motion.betas.shape, motion.fps) == ((length, 100), (300,), 30)
    sums = [np.abs(array.astype(np.float64)).sum() for array in (motion.poses, motion.trans, motion.expressions)]
    whole = {1906: (58313.503, 3068.318, 157759.217), 953: (29362.030, 1617.813, 80640.186)}
    assert np.allclose(sums, whole[length], rtol=0, atol=(0.02, 0.02, 1.0))
    write_motion(tmp_path / "again.npz", motion)
    with np.load(path) as before, np.load(tmp_path / "again.npz") as after:
        assert before.files == after.files
        for key in before.files:
            assert before[key].dtype == after[key].dtype
            exact = key != "expressions" or np.array_equal(before[key], before[key].astype(np.float32))
            assert np.array_equal(before[key], after[key]) if exact else np.allclose(before[key], after[key], atol=1e-6)
