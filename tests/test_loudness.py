"""Loudness against slow loops, closed forms and the reference signals of the standards."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab import loudness
from voxlab.loudness import integrated_loudness, peak_windowed_rms, true_peak


def slow_peak(wav, sample_rate, window_ms, hop):
    """The definition, one window at a time, with exact sums."""
    samples = [[float(x) ** 2 for x in channel] for channel in np.atleast_2d(wav.numpy())]
    window, length = int(sample_rate * window_ms / 1000), len(samples[0])
    step = 1 if hop == "sample" else max(1, window // 4)
    starts = range(0, length - window + 1, step) if length > window else [0]
    energies = [math.fsum(x for channel in samples for x in channel[start : start + window]) for start in starts]
    return math.sqrt(max(energies) / (min(window, length) * len(samples)))


def passages(levels, length, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(channels, length, generator=generator)
    gains = torch.tensor([10.0**level for level in levels]).repeat_interleave(-(-length // len(levels)))
    return (noise * gains[:length]).float()


@settings(max_examples=150, deadline=None)
@given(
    length=st.integers(1, 400),
    channels=st.sampled_from([1, 2]),
    window_ms=st.sampled_from([1, 2.5, 10, 33, 250]),
    hop=st.sampled_from(loudness.HOPS),
    levels=st.lists(st.integers(-7, 0), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_peak_windowed_rms_is_that_of_the_slow_loop(length, channels, window_ms, hop, levels, seed):
    wav = passages(levels, length, channels, seed)
    expected = slow_peak(wav, 1000, window_ms, hop)
    assert peak_windowed_rms(wav, 1000, window_ms, hop) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("hop", loudness.HOPS)
@pytest.mark.parametrize("piece", [1, 64, 100, 300])
def test_pieces_leave_no_window_out(monkeypatch, piece, hop):
    monkeypatch.setattr(loudness, "_PIECE", piece)
    for loudest in range(0, 700, 23):
        wav = torch.full((1, 700), 1e-3)
        wav[0, loudest : loudest + 50] = 0.5
        expected = slow_peak(wav, 1000, 50, hop)
        assert peak_windowed_rms(wav, 1000, 50, hop) == pytest.approx(expected, rel=1e-12), loudest


def test_quiet_windows_keep_their_digits_after_loud_ones():
    samples = np.concatenate([np.ones(5000), 1e-7 * np.random.default_rng(0).standard_normal(5000)])[None]
    sums = loudness._window_sums(samples, 100)
    for start in (0, 4950, 5000, 5001, 5137, 9900):
        assert sums[start] == pytest.approx(math.fsum(samples[0, start : start + 100] ** 2), rel=1e-12)


def test_a_sine_has_its_amplitude_over_the_root_of_two():
    wav = torch.sin(2 * math.pi * 100 * torch.arange(24000, dtype=torch.float64) / 24000).float() * 0.3
    assert peak_windowed_rms(wav, 24000) == pytest.approx(0.3 / math.sqrt(2), rel=1e-6)
    assert peak_windowed_rms(wav[None].expand(2, -1), 24000) == pytest.approx(0.3 / math.sqrt(2), rel=1e-6)


def test_a_clip_shorter_than_the_window_counts_as_a_whole():
    assert peak_windowed_rms(torch.tensor([0.6, -0.8]), 24000) == pytest.approx(math.sqrt(0.5), rel=1e-7)
    assert peak_windowed_rms(torch.tensor([0.5]), 24000) == 0.5
    assert peak_windowed_rms(torch.zeros(1, 7), 24000) == 0.0


def test_a_coarse_hop_misses_the_end():
    wav = torch.full((1, 6000 + 1499), 0.1)
    wav[0, -1499:] = 0.9
    assert peak_windowed_rms(wav, 24000, hop="quarter") == pytest.approx(0.1, rel=1e-6)
    assert peak_windowed_rms(wav, 24000) > 0.4


@pytest.mark.parametrize(
    ("wav", "window_ms", "hop"),
    [(torch.zeros(1, 0), 250, "sample"), (torch.ones(9), 0.5, "sample"), (torch.ones(9), 250, "half")],
    ids=["no samples", "window below a sample", "unknown hop"],
)
def test_impossible_measurements_are_refused(wav, window_ms, hop):
    with pytest.raises(ValueError, match="allowed"):
        peak_windowed_rms(wav, 1000, window_ms, hop)


def faded(frequency, phase, sample_rate=24000, length=24000):
    """A sine that swells and fades slowly, so that its ends ring nowhere; and itself at 16 times the rate."""

    def at(rate, count):
        times = np.arange(count) / rate
        return np.sin(2 * np.pi * frequency * times + phase) * np.hanning(count)

    return torch.from_numpy(at(sample_rate, length)).float()[None], np.abs(at(16 * sample_rate, 16 * length)).max()


def test_true_peak_lies_between_the_samples():
    wav, _ = faded(6000, math.pi / 4)
    assert wav.abs().max() == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert true_peak(wav, 24000) == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("frequency", [997, 4001, 7999, 9990])
def test_true_peak_follows_the_waveform(frequency):
    wav, expected = faded(frequency, 0.3)
    # The densest grid of the standard under-reads by up to 1 - cos(pi * f / (4 * 24000)).
    assert expected * math.cos(math.pi * frequency / 96000) * 0.999 <= true_peak(wav, 24000) <= expected * 1.002


def test_true_peak_in_pieces_equals_the_whole(monkeypatch):
    wav = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    whole = true_peak(wav, 24000)
    monkeypatch.setattr(loudness, "_PIECE", 333)
    assert true_peak(wav, 24000) == pytest.approx(whole, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(1, 300), channels=st.sampled_from([1, 2]), seed=st.integers(0, 1000))
def test_true_peak_is_never_below_the_samples(length, channels, seed):
    wav = passages([0, -3, -1], length, channels, seed)
    assert true_peak(wav, 24000) >= wav.abs().max()
    assert true_peak(wav * 0.25, 24000) == pytest.approx(true_peak(wav, 24000) * 0.25, rel=1e-6)


@pytest.mark.parametrize("sample_rate", [24000, 48000])
@pytest.mark.parametrize(("level", "expected"), [(-23.0, -23.0), (-33.0, -33.0)])
def test_loudness_of_the_reference_tone(sample_rate, level, expected):
    """EBU Tech 3341, cases 1 and 2: a stereo sine of 1 kHz at so many dBFS reads as many LUFS, within 0.1."""
    times = torch.arange(5 * sample_rate, dtype=torch.float64) / sample_rate
    tone = (10 ** (level / 20) * torch.sin(2 * math.pi * 1000 * times)).float()
    assert integrated_loudness(tone.expand(2, -1), sample_rate) == pytest.approx(expected, abs=0.1)
    assert integrated_loudness(tone[None], sample_rate) == pytest.approx(expected - 10 * math.log10(2), abs=0.1)


def test_loudness_of_silence_and_of_very_short_clips():
    assert integrated_loudness(torch.zeros(1, 24000), 24000) == -math.inf
    with pytest.raises(ValueError, match=r"too_short: 0\.399 s; EBU R128 needs 0\.4 s"):
        integrated_loudness(torch.ones(1, 9576), 24000)
