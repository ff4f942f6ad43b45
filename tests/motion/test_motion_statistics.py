"""Statistics computed in pieces equal those of the whole, standardise parts, and survive their files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.motions import WHOLE_CLIP, random_motion, real_folder, real_motion
from voxlab.errors import UserError
from voxlab.motion.parts import FRAME_DIM, columns, read_layout
from voxlab.motion.representation import to_frames
from voxlab.motion.statistics import (
    Statistics,
    compute_statistics,
    load_legacy,
    load_statistics,
    part_moments,
    save_statistics,
)

FULL, LEGACY = read_layout("full421"), read_layout("legacy415")


def _clips() -> list[np.ndarray]:
    return [to_frames(random_motion(length, seed=length)) for length in (3, 50, 1, 17)]


def test_pieces_give_what_the_whole_gives() -> None:
    clips = _clips()
    whole = np.concatenate(clips).astype(np.float64)
    found = compute_statistics([*clips, clips[0][:0]], std_floor=1e-9)
    np.testing.assert_allclose(found.mean, whole.mean(axis=0), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.std, whole.std(axis=0), rtol=1e-6)
    assert found.num_frames == 71


def test_a_large_mean_costs_no_digits() -> None:
    clips = [1e4 + clip.astype(np.float64) for clip in _clips()]
    found = compute_statistics(clips)
    np.testing.assert_allclose(found.std, np.maximum(np.concatenate(clips).std(axis=0), 1e-3), rtol=1e-6)


def test_channels_that_hardly_move_get_the_floor() -> None:
    clip = np.zeros((9, FRAME_DIM))
    clip[:, 5] = np.arange(9) * 1e-5
    clip[:, 7] = np.arange(9)
    std = compute_statistics([clip]).std
    assert std[5] == np.float32(1e-3)
    assert std[7] == np.float32(np.arange(9).std())


def test_parts_are_standardised_and_brought_back() -> None:
    frames = np.concatenate(_clips())
    statistics = compute_statistics([frames])
    for part in FULL.parts:
        raw = frames[:, columns(part)]
        standard = statistics.normalize(raw, part, FULL)
        np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(standard.std(axis=0), 1, rtol=1e-4)
        np.testing.assert_allclose(statistics.denormalize(standard, part, FULL), raw, atol=1e-6)
        as_tensor = statistics.normalize(torch.from_numpy(raw).double(), part, FULL)
        np.testing.assert_allclose(as_tensor, standard, atol=1e-5)
        assert as_tensor.dtype == torch.float64


def test_the_legacy_face_is_left_as_it_is() -> None:
    statistics = compute_statistics(_clips())
    mean, std = part_moments(statistics, LEGACY.part("face"), LEGACY)
    assert (mean == 0).all()
    assert (std == 1).all()
    moments = part_moments(statistics, FULL.part("face"), FULL)
    chosen = columns(FULL.part("face"))
    np.testing.assert_array_equal(moments, [statistics.mean[chosen], statistics.std[chosen]])
    lower = part_moments(statistics, LEGACY.part("lower_trans"), LEGACY)
    np.testing.assert_array_equal(lower[1], statistics.std[columns(LEGACY.part("lower_trans"))])


def test_jaw_of_the_training_set() -> None:
    clips = _clips()
    mean = np.concatenate(clips).mean(axis=0)
    np.testing.assert_allclose(compute_statistics(clips).jaw_mean, mean[132:138], atol=1e-6)


def test_a_file_gives_back_what_was_written_and_equal_bytes(tmp_path: Path) -> None:
    made = compute_statistics(_clips(), record={"fps": 30, "trans": "velocity"})
    for name in ("a", "b"):
        save_statistics(tmp_path / name, made)
    found = load_statistics(tmp_path / "a")
    np.testing.assert_array_equal(found.mean, made.mean)
    np.testing.assert_array_equal(found.std, made.std)
    assert (found.num_frames, found.record) == (made.num_frames, {"fps": 30, "trans": "velocity"})
    assert found.fingerprint == made.fingerprint
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_fingerprint_tells_numbers_and_records_apart() -> None:
    made = compute_statistics(_clips(), record={"fps": 30})
    others = [
        Statistics(made.mean + 1, made.std, made.num_frames, made.record),
        Statistics(made.mean, made.std, made.num_frames, {"fps": 15}),
    ]
    assert len({made.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_no_frames_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training frames"):
        compute_statistics([np.zeros((0, FRAME_DIM))])
    from safetensors.numpy import save_file

    (tmp_path / "text").write_text("hello")
    save_file({"mean": np.zeros(3, np.float32), "std": np.zeros(3, np.float32)}, tmp_path / "other")
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "weights")
    for name in ("absent", "text", "other", "weights"):
        with pytest.raises(UserError, match=f"{name} holds no statistics"):
            load_statistics(tmp_path / name)


def _legacy_arrays() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    sizes = {"x_330_mean": 330, "x_330_std": 330, "x_trans_mean": 3, "x_trans_std": 3}
    return {name: generator.uniform(1e-5, 1, size) for name, size in sizes.items()}


def test_statistics_of_earlier_projects_keep_their_std(tmp_path: Path) -> None:
    arrays = _legacy_arrays()
    np.savez(tmp_path / "old.npz", **arrays)
    found = load_legacy(tmp_path / "old.npz")
    np.testing.assert_array_equal(found.mean[:330], arrays["x_330_mean"].astype(np.float32))
    np.testing.assert_array_equal(found.std[:330], arrays["x_330_std"].astype(np.float32))
    np.testing.assert_array_equal(found.std[330:333], arrays["x_trans_std"].astype(np.float32))
    assert (found.mean[333:] == 0).all()
    assert (found.std[333:] == 1).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x_330_std": None}, r"\(330,\) whose name ends in 330_std"),
        ({"x_trans_mean": np.zeros(4)}, r"trans_mean.*trans_mean \(4,\)"),
        ({"x_trans_std": np.zeros(3)}, "not positive"),
    ],
)
def test_wrong_statistics_of_earlier_projects_are_named(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    arrays = {name: array for name, array in (_legacy_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "old.npz", **arrays)
    with pytest.raises(UserError, match=told):
        load_legacy(tmp_path / "old.npz")


def test_real_clip_is_near_standard() -> None:
    statistics = load_legacy(real_folder() / "metadata" / "beatx_speaker2_stats.npz")
    motion = real_motion()
    frames = to_frames(motion, "legacy")
    figures = {"upper": (-0.055, 0.8985), "hands": (0.059, 0.768), "lower_trans": (-0.049, 0.9088)}
    for name, (mean, std) in figures.items():
        part = LEGACY.part(name)
        standard = statistics.normalize(frames[:, columns(part)], part, LEGACY)[:, : 6 * len(part.joints)]
        whole = motion.num_frames == WHOLE_CLIP
        assert abs(float(standard.std()) - std) < (0.002 if whole else 0.15)
        assert abs(float(standard.mean()) - mean) < (0.002 if whole else 0.15)


def test_a_missing_file_of_earlier_projects_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"old.npz is not an npz"):
        load_legacy(tmp_path / "old.npz")
