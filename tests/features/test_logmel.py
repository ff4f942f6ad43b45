"""Log-mel frames against librosa on the samples that they may see."""

import librosa
import numpy as np
import pytest
import torch

from tests.features.recordings import frames_of, make_recording
from voxlab.errors import UserError
from voxlab.features.base import Recording
from voxlab.features.logmel import LogMelFeatures

FRAME = 1280


def by_librosa(wav: np.ndarray, bins: int) -> np.ndarray:
    """Mean and maximum over eight windows of 512 samples that end with the 10 ms hops of each frame."""
    padded = np.pad(wav, (512 - 160, 0))
    bank = librosa.filters.mel(sr=16000, n_fft=512, n_mels=bins, htk=False, norm=None)
    window = np.hanning(513)[:-1]
    hops = np.stack([padded[start : start + 512] for start in range(0, len(wav), 160)])
    levels = np.log(np.maximum(np.abs(np.fft.rfft(hops * window)) @ bank.T, 1e-5)).reshape(-1, 8, bins)
    return np.concatenate([levels.mean(1), levels.max(1)], axis=1)


@pytest.mark.parametrize("bins", [8, 64])
@pytest.mark.parametrize("num_frames", [1, 90])
def test_frames_are_those_of_librosa(bins: int, num_frames: int) -> None:
    features = LogMelFeatures(num_bins=bins, align="raw")
    recording = make_recording("a", num_frames, FRAME, short=33)
    wav = np.pad(recording.load()[1][0].numpy().astype(np.float64), (0, 33))
    np.testing.assert_allclose(frames_of(features, recording), by_librosa(wav, bins), rtol=1e-3, atol=2e-3)


def test_pieces_of_a_minute_leave_no_seam() -> None:
    features = LogMelFeatures(align="raw")
    recording = make_recording("long", 1000, FRAME)
    wav = np.pad(recording.load()[1][0].numpy().astype(np.float64), (0, 77))
    np.testing.assert_allclose(frames_of(features, recording), by_librosa(wav, 64), rtol=1e-3, atol=2e-3)


def test_silence_is_the_floor() -> None:
    rows = frames_of(LogMelFeatures(), Recording("a", 5, lambda: (None, torch.zeros(1, 5 * FRAME))))
    assert (rows[0] == 0).all()
    np.testing.assert_allclose(rows[1:], np.log(1e-5), rtol=1e-3)


def test_no_band_is_empty() -> None:
    assert float(LogMelFeatures().mel.filterbank.sum(0).min()) > 0


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match="num_bins=80; allowed: 8 to 64"):
        LogMelFeatures(num_bins=80)
