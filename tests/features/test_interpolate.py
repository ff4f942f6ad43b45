"""Times of rows and straight lines between them, against numpy's interpolation of single columns and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.features.interpolate import at_frames, frame_times
from voxlab.features.logmel import LogMelFeatures
from voxlab.features.mfcc import Mfcc


def test_times_are_the_middles_of_rows() -> None:
    wavlm = {"sample_rate": 16000, "frame_rate": 50.0, "centre": 200}
    np.testing.assert_array_equal(frame_times(wavlm, 3), np.array([200, 520, 840]) / 16000)
    np.testing.assert_array_equal(frame_times(Mfcc().fingerprint(), 3), [0.0, 0.02, 0.04])
    np.testing.assert_allclose(frame_times(LogMelFeatures(align="raw").fingerprint(), 2), [0.04, 0.12], atol=1e-12)
    decision = frame_times(LogMelFeatures().fingerprint(), 2)
    np.testing.assert_allclose(decision, [-0.04, 0.04], atol=1e-12)  # row 1 is what was heard in frame 0


def test_rows_that_hold_their_time_give_the_time_of_the_frame() -> None:
    times = frame_times({"sample_rate": 16000, "frame_rate": 50.0, "centre": 200}, 3204)
    found = at_frames(times[:, None], times, 1922, 30)[:, 0]
    middles = (np.arange(1922) + 0.5) / 30
    inside = middles <= times[-1]
    assert inside.sum() == 1922  # of a recording of 1,025,558 samples
    np.testing.assert_allclose(found[inside], middles[inside], rtol=1e-6)


def test_beyond_both_ends_the_row_there_is_kept() -> None:
    rows = np.array([[1.0, -1.0], [3.0, -3.0]], np.float16)
    found = at_frames(rows, np.array([0.1, 0.2]), 4, 10.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, -1], [2, -2], [3, -3], [3, -3]], atol=1e-5)


@given(st.integers(1, 40), st.integers(0, 60), st.floats(5, 60), st.floats(-0.5, 0.5), st.integers(0, 2**32 - 1))
def test_any_length_equals_single_columns(rows: int, frames: int, fps: float, begin: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = begin + np.cumsum(rng.uniform(0.005, 0.1, rows))
    values = rng.standard_normal((rows, 3)).astype(np.float16)
    found = at_frames(values, times, frames, fps)
    wanted = [np.interp((np.arange(frames) + 0.5) / fps, times, column.astype(np.float64)) for column in values.T]
    assert found.shape == (frames, 3)
    np.testing.assert_allclose(found, np.transpose(wanted), atol=1e-4)


def test_one_time_for_each_row() -> None:
    for rows, times in [(np.zeros((0, 2)), np.zeros(0)), (np.zeros((3, 2)), np.zeros(2))]:
        with pytest.raises(ValueError, match="one time for each row"):
            at_frames(rows, times, 2, 30)
