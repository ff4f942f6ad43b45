"""Measures of decoded audio against closed forms, slow loops, the packages behind them, and real speech."""

import math
import os
import sys
from pathlib import Path

import librosa
import numpy as np
import pesq as pesq_package
import pystoi
import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab import audio
from voxlab.metrics import audio as measures
from voxlab.metrics.errors import NotMeasurable

REAL = os.environ.get("VOXLAB_REAL_DATA")


def noise(seconds: float, sample_rate: int = 16000, seed: int = 0, level: float = 0.1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return level * torch.randn(round(seconds * sample_rate), generator=generator)


def bursts(seconds: float = 3.0, sample_rate: int = 16000, seed: int = 0) -> torch.Tensor:
    """Noise in syllables of a quarter of a second, which PESQ takes for utterances."""
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    return noise(seconds, sample_rate, seed) * (0.02 + torch.sin(2 * math.pi * 2 * time).clamp_min(0))


def frames_of(wav: np.ndarray, size: int) -> np.ndarray:
    """Hann-windowed, centred, reflect-padded frames, one at a time."""
    padded = np.pad(wav, size // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    starts = range(0, len(wav) + 1, size // 4)
    return np.stack([np.abs(np.fft.rfft(padded[at : at + size] * window)) for at in starts])


def slow_superb(reference: np.ndarray, output: np.ndarray, bins: dict[int, int] | None) -> float:
    total = 0.0
    for size in (2048, 512):
        a, b = frames_of(reference, size), frames_of(output, size)
        if bins:
            filters = librosa.filters.mel(sr=16000, n_fft=size, n_mels=bins[size])
            a, b = a @ filters.T, b @ filters.T
        logs = np.log10(np.maximum(a, 1e-5) ** 2) - np.log10(np.maximum(b, 1e-5) ** 2)
        total += np.abs(logs).mean() + np.abs(a - b).mean()
    return total


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_the_benchmark_distances_equal_a_slow_loop():
    reference, output = noise(0.7), noise(0.7, seed=1) * 0.4
    pair = reference.double().numpy(), output.double().numpy()
    assert measures.mel_superb(reference, output) == pytest.approx(slow_superb(*pair, {2048: 150, 512: 80}), rel=2e-4)
    assert measures.stft_distance(reference, output) == pytest.approx(slow_superb(*pair, None), rel=2e-4)


@pytest.mark.parametrize("measure", [measures.ms_mel, measures.mel_l1, measures.mel_superb, measures.stft_distance])
def test_spectral_distances_of_equal_flipped_and_short_signals(measure):
    wav = noise(0.5)
    assert measure(wav, wav) == 0
    assert measure(wav, -wav) == pytest.approx(0, abs=1e-6)
    with pytest.raises(NotMeasurable, match="too short"):
        measure(wav[:400], wav[:400])


@pytest.mark.parametrize("gain", [0.5, 0.9])
def test_a_gain_moves_the_log_mel_by_its_logarithm(gain):
    wav = noise(1.0, 24000)
    assert measures.mel_l1(wav, gain * wav) == pytest.approx(-math.log(gain), rel=1e-4)


def test_the_limit_leaves_out_what_lies_above_it():
    wav = noise(1.0, 24000)
    spectrum = torch.fft.rfft(wav)
    spectrum[9000:] = 0  # a bin a hertz
    low_passed = torch.fft.irfft(spectrum, len(wav))
    assert measures.mel_l1(wav, low_passed, limit=8000.0) < 0.01 < 0.3 < measures.mel_l1(wav, low_passed)


def test_the_bins_below_a_limit_are_those_whose_filters_end_there():
    filters = measures._log_mel().filterbank
    hertz = torch.linspace(0, 12000, len(filters))
    tops = torch.stack([hertz[column > 0].max() for column in filters.T])
    step = float(hertz[1])
    count = measures._bins_below(8000.0)
    assert count is not None
    assert bool((tops[:count] <= 8000).all())
    assert tops[count] > 8000 - step
    assert measures._bins_below(None) is None


def test_si_sdr_equals_its_closed_form_and_ignores_gain_and_sign():
    time = torch.arange(16000) / 16000
    tone, other = torch.sin(2 * math.pi * 200 * time), 0.1 * torch.sin(2 * math.pi * 300 * time)
    for gain in (1.0, -0.3):
        assert measures.si_sdr(tone, gain * (tone + other)) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize(("band", "rate"), [("wb", 16000), ("nb", 8000)], ids=["wide", "narrow"])
def test_pesq_is_that_of_the_package(band, rate):
    reference, output = bursts(3, rate), bursts(3, rate) + noise(3, rate, seed=2, level=0.01)
    expected = pesq_package.pesq(rate, reference.numpy(), output.numpy(), band)
    assert measures.pesq(reference, output, band) == pytest.approx(expected, abs=1e-5)
    assert measures.pesq(reference, reference, band) > 4.5


@pytest.mark.parametrize("extended", [False, True], ids=["stoi", "estoi"])
def test_stoi_is_that_of_the_package(extended):
    reference, output = bursts(), bursts() + noise(3, seed=2, level=0.05)
    expected = pystoi.stoi(reference.numpy(), output.numpy(), 16000, extended=extended)
    assert measures.stoi(reference, output, extended=extended) == pytest.approx(expected, abs=1e-6)
    assert 0.1 < expected < 0.95


def test_what_can_not_be_measured_is_missing_and_not_a_number():
    wav, silent = bursts(), torch.zeros(48000)
    for measure in (measures.si_sdr, lambda a, b: measures.pesq(a, b, "wb")):
        for pair in ((silent, wav), (wav, silent), (silent, silent)):
            with pytest.raises(NotMeasurable, match="is silent"):
                measure(*pair)
    with pytest.raises(NotMeasurable, match="original is silent"):
        measures.stoi(silent, wav)
    with pytest.raises(NotMeasurable, match="too short"):
        measures.pesq(wav[:4000], wav[:4000], "wb")
    with pytest.raises(NotMeasurable, match="too short"):
        measures.stoi(wav[:6000], wav[:6000])
    with pytest.raises(NotMeasurable, match="too short"):
        measures.si_sdr(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.1]))
    clicks = torch.zeros(48000)
    clicks[1000:3000] = 0.5
    with pytest.raises(NotMeasurable, match="30 frames"):
        measures.stoi(clicks, clicks)


def test_pesq_is_missing_where_its_package_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(NotMeasurable, match="the package pesq is not installed"):
        measures.pesq(bursts(), bursts(), "wb")


def test_what_pesq_refuses_is_missing(monkeypatch):
    def refuse(*_, **__):
        raise pesq_package.NoUtterancesError(b"No utterances detected")

    monkeypatch.setattr("torchmetrics.functional.audio.perceptual_evaluation_speech_quality", refuse)
    with pytest.raises(NotMeasurable, match="no utterance"):
        measures.pesq(bursts(), bursts(), "wb")


@settings(max_examples=30, deadline=None)
@given(late=st.integers(-480, 480), sign=st.sampled_from([1, -1]))
def test_a_shift_is_found_and_undone(late, sign):
    wav = noise(0.3, 24000)
    output = sign * torch.roll(wav, late)
    reference, aligned, found = measures.align(wav, output, 24000)
    assert found == late
    assert len(reference) == len(aligned) == len(wav) - abs(late)
    assert torch.equal(reference, sign * aligned)


def test_a_larger_shift_is_left_alone():
    wav = noise(0.3, 24000)
    assert abs(measures.align(wav, torch.roll(wav, 2000), 24000)[2]) <= 480


def test_the_shorter_signal_decides():
    one, other = measures.crop(noise(1.0), noise(0.5))
    assert len(one) == len(other) == 8000


def test_plain_differences():
    reference, output = torch.tensor([0.0, 0.5, -0.5]), torch.tensor([0.1, 0.5, 0.3])
    assert measures.mean_squared_error(reference, output) == pytest.approx((0.01 + 0.64) / 3)
    assert measures.mean_absolute_error(reference, output) == pytest.approx(0.3)
    assert measures.peak_error(reference, output) == pytest.approx(0.8)


@pytest.mark.skipif(REAL is None, reason="VOXLAB_REAL_DATA names no folder with LibriSpeech excerpts")
def test_anchors_on_real_speech():
    files = sorted(Path(str(REAL), "librispeech").rglob("*.flac"))[::4]
    found: dict[str, list[float]] = {}
    for path in files:
        # The anchors were taken with this resampler; the house's leaves less above 8 kHz (10.3, 1.63, 1.04, 0).
        wav = torchaudio.functional.resample(audio.load(path)[0], 16000, 24000)[0]
        changed = {
            "silence": torch.zeros_like(wav),
            "-6 dB": wav * 10 ** (-6 / 20),
            "flip": -wav,
            "5 ms": torch.nn.functional.pad(wav, (120, 0))[: len(wav)],
        }
        for name, output in changed.items():
            found.setdefault(name, []).append(measures.ms_mel(wav, output))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means["silence"] == pytest.approx(10.5, abs=0.1)
    assert means["-6 dB"] == pytest.approx(1.69, abs=0.03)
    assert means["5 ms"] == pytest.approx(1.03, abs=0.05)
    assert means["flip"] == pytest.approx(0, abs=1e-6)
