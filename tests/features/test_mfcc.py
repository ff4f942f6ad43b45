"""MFCC against librosa and scipy, and against torchaudio; where a row is; any length and any pieces."""

from typing import Any

import librosa
import numpy as np
import pytest
import scipy.fft
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.recordings import frames_of, make_recording
from voxlab.errors import UserError
from voxlab.features.base import Recording
from voxlab.features.mfcc import Mfcc

TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-3}  # of float16


def of_wav(wav: torch.Tensor, **options: int) -> np.ndarray:
    return frames_of(Mfcc(**options), Recording("a", -(-wav.shape[-1] // 320), lambda: (None, wav)))


def by_librosa(wav: np.ndarray, coefficients: int, bins: int) -> np.ndarray:
    options: dict[str, Any] = {
        "n_fft": 2048,
        "hop_length": 320,
        "center": True,
        "pad_mode": "constant",
        "htk": True,
        "norm": None,
    }
    energies = librosa.feature.melspectrogram(y=wav, sr=16000, n_mels=bins, window="hann", **options)
    rows = scipy.fft.dct(np.log(energies + 1e-6), axis=0, norm="ortho")[:coefficients].T
    return rows[: -(-len(wav) // 320)]


@pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
@pytest.mark.parametrize(("coefficients", "bins"), [(128, 256), (13, 40)])
@pytest.mark.parametrize("samples", [1, 320, 321, 5000, 64_000])
def test_rows_are_those_of_librosa_and_scipy(coefficients: int, bins: int, samples: int) -> None:
    wav = make_recording("a", samples, 1, short=0).load()[1]
    found = of_wav(wav, num_coefficients=coefficients, num_bins=bins)
    np.testing.assert_allclose(found, by_librosa(wav[0].numpy(), coefficients, bins), **TOLERANCE)


def test_rows_are_those_of_torchaudio() -> None:
    wav = make_recording("long", 3500, 320).load()[1]  # more than one piece
    spectrogram = {"n_fft": 2048, "hop_length": 320, "n_mels": 256, "center": True, "pad_mode": "constant"}
    transform = torchaudio.transforms.MFCC(16000, 128, log_mels=True, melkwargs=spectrogram)
    np.testing.assert_allclose(of_wav(wav), transform(wav)[0].T[:3500], **TOLERANCE)


def test_a_click_is_loudest_in_the_row_that_is_centred_on_it() -> None:
    wav = torch.zeros(1, 40 * 320)
    wav[0, 17 * 320] = 1.0
    rows = of_wav(wav)
    assert rows[:, 0].argmax() == 17
    silent = np.log(1e-6) * 16  # 256 equal energies, cosine transform of unit length
    np.testing.assert_allclose(rows[[13, 21], 0], silent, rtol=1e-3)
    assert (rows[14:21, 0] > silent + 1).all()  # 1024 samples to either side


@given(st.integers(1, 9000), st.integers(1, 4000))
@settings(max_examples=25, deadline=None)
def test_live_pieces_of_any_length_equal_the_whole(samples: int, size: int) -> None:
    wav = make_recording("a", samples, 1, short=0).load()[1]
    live = list(Mfcc().live(wav.split(size, dim=-1)))
    assert {row.shape for row in live} == {(1, 128)}
    np.testing.assert_allclose(np.concatenate(live), of_wav(wav), **TOLERANCE)


def test_a_live_row_comes_64_ms_after_its_middle() -> None:
    heard = 0

    def pieces():
        nonlocal heard
        for piece in torch.zeros(1, 10 * 320).split(64, dim=-1):
            heard += 64
            yield piece

    assert [heard - 320 * row for row, _ in enumerate(Mfcc().live(pieces()))][:6] == [1024] * 6


def test_context_is_the_hops_that_the_window_touches() -> None:
    hops = np.arange(20 * 320) // 320
    touched = [len(set(hops[max(0, row * 320 - 1024) : row * 320 + 1024])) for row in range(20)]
    assert Mfcc().context_frames(20).tolist() == touched


def test_settings_out_of_range() -> None:
    with pytest.raises(UserError, match="num_coefficients=128, num_bins=80; needed is 1 <= num_coefficients"):
        Mfcc(num_bins=80)
    with pytest.raises(UserError, match="num_bins=300"):
        Mfcc(num_bins=300)


def test_no_band_is_empty() -> None:
    bank = torchaudio.functional.melscale_fbanks(1025, 0.0, 8000.0, 256, 16000)
    assert float(bank.sum(0).min()) > 0
