"""Windows: how many there are, and that a batch holds what slices hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.data.motion_windows import gather, window_starts


def test_the_windows_of_the_published_benchmark():
    starts = window_starts(1906, 64, 20)
    assert len(starts) == 93
    assert starts[-1] + 64 == 1904
    assert len(window_starts(953, 64, 20)) == 45


@given(num_frames=st.integers(0, 300), length=st.integers(1, 100), stride=st.integers(1, 40))
def test_every_window_fits_and_none_is_left_out(num_frames, length, stride):
    starts = window_starts(num_frames, length, stride)
    assert list(starts) == [start for start in range(0, num_frames, stride) if start + length <= num_frames]
    assert len(starts) == max(0, (num_frames - length) // stride + 1)


def test_a_batch_holds_what_slices_hold(tmp_path):
    rng = np.random.default_rng(0)
    clips = [rng.standard_normal((length, 433)).astype(np.float32) for length in (70, 100)]
    for number, clip in enumerate(clips):
        np.save(tmp_path / f"{number}.npy", clip)
    mapped = [np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in range(2)]
    which, starts, columns = [1, 0, 1], [36, 6, 0], np.array([5, 3, 400])
    wanted = np.stack([clips[clip][start : start + 64] for clip, start in zip(which, starts, strict=True)])
    assert np.array_equal(gather(mapped, which, starts, 64), wanted)
    assert np.array_equal(gather(mapped, which, starts, 64, columns), wanted[:, :, columns])
    with pytest.raises(ValueError, match="clip 0 has 70 frames"):
        gather(mapped, [0], [7], 64)
