"""Motions survive frames and parts: rotations, the path of the root at any frame rate, and the face."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tests.motions import random_motion, real_folder, real_motion
from voxlab.motion.clip import Motion
from voxlab.motion.parts import FRAME_DIM, PRESETS, columns, read_layout
from voxlab.motion.representation import assemble, differentiate, from_frames, integrate, to_frames
from voxlab.motion.rotations import axis_angle_to_matrix, geodesic
from voxlab.motion.skeleton import EYES, JAW
from voxlab.motion.statistics import load_legacy


def _parts(frames: np.ndarray, name: str) -> dict[str, np.ndarray]:
    return {part.name: frames[:, columns(part)] for part in read_layout(name).parts}


def _degrees(first: Motion, second: Motion) -> np.ndarray:
    """Return the (T, 55) angles between two motions."""
    ends = [axis_angle_to_matrix(torch.from_numpy(m.poses).double().unflatten(-1, (55, 3))) for m in (first, second)]
    return torch.rad2deg(geodesic(ends[0], ends[1])).numpy()


@pytest.mark.parametrize("fps", [15, 30, 120])
def test_a_motion_survives_its_frames(fps: int) -> None:
    motion = random_motion(40, fps=fps, spread=1.0)
    frames = to_frames(motion)
    assert frames.shape == (40, FRAME_DIM)
    assert frames.dtype == np.float32
    back = from_frames(frames, fps=fps, betas=motion.betas, start_xz=(motion.trans[0, 0], motion.trans[0, 2]))
    assert _degrees(motion, back).max() < 1e-4
    np.testing.assert_allclose(back.trans, motion.trans, atol=2e-7)
    np.testing.assert_array_equal(back.expressions, motion.expressions)
    np.testing.assert_array_equal(back.betas, motion.betas)
    assert (back.poses.dtype, back.trans.dtype, back.fps) == (np.float32, np.float64, fps)


def test_columns_of_a_frame() -> None:
    motion = random_motion(3)
    matrices = Rotation.from_rotvec(motion.poses.reshape(-1, 3)).as_matrix()
    frames = to_frames(motion)
    np.testing.assert_allclose(frames[:, :330], matrices[:, :2].reshape(3, 330), atol=1e-6)
    steps = np.diff(motion.trans, axis=0)
    np.testing.assert_allclose(frames[1:, 330:333], np.stack([steps[:, 0], motion.trans[1:, 1], steps[:, 2]], 1), 1e-5)
    assert frames[0, 330] == frames[0, 332] == 0


def test_steps_have_the_size_of_thirty_frames_a_second_at_any_rate() -> None:
    motion = random_motion(9)
    motion.trans[:] = np.arange(9)[:, None] * (0.02, 0, 0.04) + (0, 1, 0)
    slower = Motion(motion.poses[::2], motion.trans[::2], motion.expressions[::2], motion.betas, 15)
    for moved in (motion, slower):
        np.testing.assert_allclose(to_frames(moved)[1:, 330:333], [[0.02, 1, 0.04]] * (moved.num_frames - 1), 1e-6)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_path_comes_back_exactly(num_frames: int, seed: int) -> None:
    path = np.cumsum(np.random.default_rng(seed).normal(size=(num_frames, 3), scale=0.02), axis=0)
    back = integrate(differentiate(path), start_xz=(path[0, 0], path[0, 2]))
    assert np.abs(back - path).max() < 1e-12


def test_the_legacy_path_is_off_by_its_first_step() -> None:
    path = random_motion(20).trans
    off = integrate(differentiate(path, "legacy"), start_xz=(path[0, 0], path[0, 2])) - path
    step = path[1] - path[0]
    np.testing.assert_allclose(off, np.tile([step[0], 0, step[2]], (20, 1)), atol=1e-12)
    assert differentiate(path[:1], "legacy").tolist() == [[0, path[0, 1], 0]]


def test_in_place_keeps_the_height_only() -> None:
    motion = random_motion(7)
    assert np.abs(to_frames(motion, "none")[:, [330, 332]]).max() == 0
    back = from_frames(to_frames(motion), fps=30, trans="none", start_xz=(1.0, -2.0))
    np.testing.assert_allclose(back.trans, motion.trans * (0, 1, 0) + (1, 0, -2), atol=2e-7)


@pytest.mark.parametrize("name", PRESETS)
def test_parts_make_the_whole_but_for_what_no_part_holds(name: str) -> None:
    motion, layout = random_motion(11), read_layout(name)
    frames = to_frames(motion)
    jaw = np.array([0.8, 0.6, 0, -0.6, 0.8, 0], np.float32)
    whole = assemble(_parts(frames, name), layout, jaw_mean=jaw)
    back = from_frames(whole, fps=30, betas=motion.betas, start_xz=(motion.trans[0, 0], motion.trans[0, 2]))
    covered = [joint for joint in range(55) if joint not in layout.uncovered]
    assert _degrees(motion, back)[:, covered].max() < 1e-4
    assert np.abs(back.poses.reshape(-1, 55, 3)[:, EYES]).max() == 0
    np.testing.assert_array_equal(whole[:, 330:], frames[:, 330:])
    expected = jaw if name == "legacy415" else frames[:, 6 * JAW : 6 * JAW + 6]
    np.testing.assert_array_equal(whole[:, 6 * JAW : 6 * JAW + 6], np.broadcast_to(expected, (11, 6)))


def test_a_base_gives_what_the_parts_do_not_hold() -> None:
    frames, other = (to_frames(random_motion(5, seed=seed)) for seed in (0, 1))
    hands = read_layout("full421").part("hands")
    mixed = assemble({"hands": other[:, columns(hands)]}, read_layout("full421"), base=frames)
    changed = np.isin(np.arange(FRAME_DIM), columns(hands))
    np.testing.assert_array_equal(mixed, np.where(changed, other, frames))
    np.testing.assert_array_equal(frames, to_frames(random_motion(5, seed=0)))  # the base itself is left alone


def test_impossible_parts_are_named() -> None:
    parts = _parts(to_frames(random_motion(5)), "legacy415")
    legacy = read_layout("legacy415")
    with pytest.raises(ValueError, match="jaw_mean"):
        assemble(parts, legacy)
    with pytest.raises(ValueError, match=r"\['face', 'hands', 'lower_trans', 'upper'\]"):
        assemble({"upper": parts["upper"]}, legacy)
    with pytest.raises(ValueError, match="legs"):
        assemble(parts | {"legs": parts["upper"]}, legacy)
    with pytest.raises(ValueError, match=r"part face has shape \(5, 100\); \(5, 106\)"):
        assemble(parts, read_layout("full421"))


def test_impossible_frames_are_named() -> None:
    frames = to_frames(random_motion(5))
    with pytest.raises(ValueError, match=r"\(5, 432\).*\(T, 433\)"):
        from_frames(frames[:, 1:], fps=30)
    frames[3, 17] = np.nan
    with pytest.raises(ValueError, match="frame 3 of 5"):
        from_frames(frames, fps=30)


def test_real_clip_survives_frames_and_its_path_is_exact() -> None:
    motion = real_motion()
    start = (motion.trans[0, 0], motion.trans[0, 2])
    back = from_frames(to_frames(motion), fps=30, betas=motion.betas, start_xz=start)
    assert _degrees(motion, back).max() < 0.05
    np.testing.assert_allclose(back.poses, motion.poses, atol=1e-5)
    assert np.abs(integrate(differentiate(motion.trans), start) - motion.trans).max() < 1e-9
    off = np.abs(integrate(differentiate(motion.trans, "legacy"), start) - motion.trans).max(axis=0)
    np.testing.assert_allclose(off, [2.0e-4, 0, 2.4e-4], atol=1e-5)


def test_real_statistics_are_of_rows_not_of_columns() -> None:
    motion = real_motion()
    mean = load_legacy(real_folder() / "metadata" / "beatx_speaker2_stats.npz").mean[:330]
    matrices = axis_angle_to_matrix(torch.from_numpy(motion.poses).unflatten(-1, (55, 3)))
    rows, turned = (
        to_frames(motion)[:, :330],
        matrices.mT[..., :2, :].flatten(-3).numpy(),
    )
    distances = [np.abs(values.mean(axis=0) - mean).mean() for values in (rows, turned)]
    assert distances[0] < 0.1
    assert distances[1] > 2 * distances[0]
