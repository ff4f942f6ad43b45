"""Columns measured on audio: against closed forms, slow loops and librosa's own framing."""

import os
from pathlib import Path

import librosa
import numpy as np
import pyloudnorm
import pytest

from tests.sidecar_items import item_of, times_of
from voxlab.audio import load
from voxlab.errors import UserError
from voxlab.sidecars.producers.sound import FEATURES, from_audio

RATE, HOP, FRAMES = 24000, 320, 150
N = HOP * FRAMES
TIME = np.arange(N) / RATE


def measured(wav, *features, frames=FRAMES, frame_rate=75.0, times=None, **args):
    item = item_of(Path(), frames=frames, wav=wav, frame_rate=frame_rate)
    columns = from_audio(item, times_of(item) if times is None else times, features=list(features), **args)
    assert all(np.shape(column) == (frames,) and np.isfinite(column).all() for column in columns.values())
    return columns, item


def noise(seed=0, length=N):
    return (np.random.default_rng(seed).normal(size=length) * 0.1).astype(np.float32)


@pytest.mark.parametrize("length", [N, N - 17, N + 40], ids=["whole", "short", "long"])
def test_rms_db_is_that_of_each_frames_samples(length):
    wav = noise(length=length)
    columns, item = measured(wav, "rms_db")
    padded = np.pad(wav.astype(np.float64), (0, HOP))[:N].reshape(FRAMES, HOP)
    expected = [20 * np.log10(np.sqrt(np.mean(block**2) + 1e-12) + 1e-12) for block in padded]
    np.testing.assert_allclose(columns["rms_db"], expected, rtol=1e-9)
    assert item.units == {"rms_db": "dB"}


def test_silence():
    columns, _ = measured(np.zeros(N), *[name for name in FEATURES if name != "f0"])
    np.testing.assert_allclose(columns["rms_db"], -120, atol=1e-4)
    np.testing.assert_allclose(columns["loudness"], -120.691)
    assert set(columns["centroid"]) == {0.0}
    assert set(columns["onset"]) == {0.0}


def test_a_sine_is_known_in_closed_form():
    wav = 0.5 * np.sin(2 * np.pi * 1500 * TIME)  # 20 periods in a frame
    columns, _ = measured(wav, "rms_db", "centroid", "flatness")
    np.testing.assert_allclose(columns["rms_db"], 20 * np.log10(0.5 / np.sqrt(2)), atol=1e-4)
    inner = slice(10, -10)
    np.testing.assert_allclose(columns["centroid"][inner], 1500, atol=1)
    assert columns["flatness"][inner].max() < 1e-3


def framed(wav, n_fft, frames=FRAMES, hop=HOP):
    """Every frame's window, cut one by one around its middle."""
    padded = np.pad(wav, n_fft)
    middles = [round((n + 0.5) * hop) + n_fft for n in range(frames)]
    return np.stack([padded[middle - n_fft // 2 : middle + n_fft // 2] for middle in middles])


@pytest.mark.parametrize("n_fft", [512, 2048])
def test_the_spectral_features_are_those_of_librosa(n_fft):
    wav = noise() * np.linspace(0, 1, N, dtype=np.float32) + np.sin(2 * np.pi * 440 * TIME).astype(np.float32) * 0.1
    columns, _ = measured(wav, "centroid", "flatness", "chroma", "onset", n_fft=n_fft)
    window = librosa.filters.get_window("hann", n_fft)
    spectrum = np.abs(np.fft.rfft(framed(wav, n_fft).astype(np.float64) * window)).T
    np.testing.assert_allclose(
        columns["centroid"], librosa.feature.spectral_centroid(S=spectrum, sr=RATE)[0], rtol=1e-4
    )
    np.testing.assert_allclose(columns["flatness"], librosa.feature.spectral_flatness(S=spectrum)[0], rtol=1e-3)
    chroma = librosa.feature.chroma_stft(S=spectrum**2, sr=RATE, n_fft=n_fft, tuning=0.0)
    np.testing.assert_allclose([columns[f"chroma_{n}"] for n in range(12)], chroma, atol=1e-4)
    level = librosa.power_to_db(librosa.feature.melspectrogram(S=spectrum**2, sr=RATE, n_fft=n_fft), top_db=80)
    onset = librosa.onset.onset_strength(S=level, sr=RATE, center=False)
    np.testing.assert_allclose(columns["onset"], onset, atol=1e-3)


def test_chroma_finds_the_pitch_class():
    wav = np.sin(2 * np.pi * 440 * TIME)
    columns, _ = measured(wav, "chroma")
    assert {max(range(12), key=lambda n, f=f: columns[f"chroma_{n}"][f]) for f in range(10, 140)} == {9}  # A


def test_an_onset_is_where_the_sound_starts():
    wav = np.where(TIME >= 1.0, noise(), 0)
    columns, _ = measured(wav, "onset", n_fft=512)
    assert abs(int(columns["onset"].argmax()) - 75) <= 1


def test_loudness_is_that_of_the_standard():
    """The value amid a long steady sound equals the integrated loudness by pyloudnorm."""
    wav = noise(length=RATE * 3)
    columns, item = measured(wav, "loudness", frames=225, loudness_window=2.9)
    expected = pyloudnorm.Meter(RATE).integrated_loudness(wav.astype(np.float64))
    assert columns["loudness"][112] == pytest.approx(expected, abs=0.05)
    assert item.units == {"loudness": "LUFS"}


def test_loudness_equals_a_slow_mean_over_the_window():
    wav = noise() * np.where(TIME < 1, 1, 1e-3)
    columns, _ = measured(wav, "loudness", loudness_window=0.1)
    weighted = wav.astype(np.float64)
    for stage in pyloudnorm.Meter(RATE)._filters.values():
        weighted = stage.apply_filter(weighted)
    for frame in (0, 3, 70, 75, 149):
        start = round((frame + 0.5) * HOP - 1200)
        part = weighted[max(start, 0) : start + 2400]
        assert columns["loudness"][frame] == pytest.approx(-0.691 + 10 * np.log10(np.mean(part**2)), abs=1e-6)


def test_f0_follows_a_glide_and_knows_silence():
    pitch = np.linspace(150, 300, N)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    wav = np.where(TIME < 1.5, sum(np.sin(k * phase) / k for k in range(1, 6)) * 0.3, 0)
    columns, item = measured(wav, "f0", fmin=80, fmax=600)
    sounding = slice(5, 105)
    middles = pitch[(np.arange(FRAMES) * HOP + HOP // 2)]
    np.testing.assert_allclose(columns["f0"][sounding], middles[sounding], rtol=0.02)
    assert columns["voiced"][sounding].all()
    assert not columns["voiced"][-30:].any()
    assert not columns["f0"][-30:].any()
    assert item.units == {"f0": "Hz"}


@pytest.mark.parametrize(("frame_rate", "sample_rate"), [(12.5, 24000), (46.875, 24000)], ids=["mimi", "snac"])
def test_other_frame_rates(frame_rate, sample_rate):
    hop = round(sample_rate / frame_rate)
    wav = np.repeat([0.1, 0.2, 0.4], hop)
    columns, _ = measured(wav, "rms_db", "loudness", "centroid", frames=3, frame_rate=frame_rate)
    np.testing.assert_allclose(columns["rms_db"], 20 * np.log10([0.1, 0.2, 0.4]), atol=1e-6)


def test_frames_of_overlapping_segments_are_measured_where_they_lie():
    """Times that jump back, as those of EnCodec 48 kHz do: equal times give equal numbers."""
    wav = noise()
    times = np.concatenate([(np.arange(75) + 0.5) / 75, (np.arange(75) + 0.5) / 75])
    columns, _ = measured(wav, "rms_db", "centroid", times=times)
    for column in columns.values():
        np.testing.assert_array_equal(column[:75], column[75:])


def test_a_recording_shorter_than_the_window():
    columns, _ = measured(noise(length=100), *[name for name in FEATURES if name != "f0"], frames=1)
    assert len(columns) == 17


@pytest.mark.parametrize("features", [[], ["rms_db", "mood"]], ids=["none", "unknown"])
def test_unknown_features_stop_the_run(features):
    with pytest.raises(UserError, match="choose some of rms_db, loudness, centroid"):
        measured(noise(), *features)


@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="needs real recordings: set VOXLAB_REAL_DATA")
def test_real_speech_is_partly_voiced_at_the_pitch_of_a_voice():
    wav = load(Path(os.environ["VOXLAB_REAL_DATA"]) / "speech/ljspeech/LJ002-0020.wav", 24000)[0]
    frames = wav.shape[-1] // HOP
    columns, _ = measured(wav[0].numpy(), *FEATURES, frames=frames)
    voiced = columns["voiced"] > 0
    assert 0.2 < voiced.mean() < 0.9
    assert 120 < np.median(columns["f0"][voiced]) < 320  # a woman reads
    loud = columns["loudness"] > np.median(columns["loudness"])
    assert columns["rms_db"][loud].mean() > columns["rms_db"][~loud].mean()
