"""Audio: exact values, exact lengths, exact round trips."""

import io
import math
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab import audio

RATES = st.sampled_from([8000, 11025, 16000, 22050, 24000, 44100, 48000])


def sine(frequency: float, sample_rate: int, duration: float, level: float = 0.5) -> torch.Tensor:
    time = torch.arange(audio.compute_num_samples(duration, sample_rate), dtype=torch.float64) / sample_rate
    return (level * torch.sin(2 * math.pi * frequency * time)).float()[None]


def file_bytes(samples: np.ndarray, sample_rate: int = 24000, container: str = "WAV", subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_16", 2**-14),
        ("WAV", "PCM_24", 2**-22),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 0.02),
        ("FLAC", "PCM_24", 2**-22),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_load_reads_every_width_and_channel_count(container, subtype, tolerance, channels):
    wav = torch.cat([sine(100 * (1 + channel), 24000, 0.1) for channel in range(channels)])
    loaded, sample_rate = audio.load(file_bytes(wav.T.numpy(), 24000, container, subtype))
    assert sample_rate == 24000
    assert loaded.dtype == torch.float32
    assert loaded.is_contiguous()
    torch.testing.assert_close(loaded, wav, atol=tolerance, rtol=0)


def test_load_takes_paths_and_bytes_alike(tmp_path):
    path = tmp_path / "å 1.wav"
    path.write_bytes(audio.encode_wav(sine(440, 22050, 0.2), 22050))
    for source in (path, str(path), path.read_bytes()):
        wav, sample_rate = audio.load(source)
        assert (tuple(wav.shape), sample_rate) == ((1, 4410), 22050)
    wav, sample_rate = audio.load(path, 24000)
    assert (tuple(wav.shape), sample_rate) == ((1, 4800), 24000)
    torch.testing.assert_close(audio.decode_audio_bytes(path.read_bytes(), 24000), wav, atol=0, rtol=0)


def test_load_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.wav"):
        audio.load(tmp_path / "absent.wav")


def valid_flac() -> bytes:
    return audio.encode_flac(torch.rand(1, 24000, generator=torch.Generator().manual_seed(0)) - 0.5, 24000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "unreadable"),
        (b"RIFF", "unreadable"),
        (bytes(range(256)) * 8, "unreadable"),
        (file_bytes(np.zeros(100))[:30], "unreadable"),
        (valid_flac()[:5000], "unreadable"),
        (file_bytes(np.zeros((0, 1), np.int16)), "empty"),
        (file_bytes(np.zeros(100), sample_rate=1), "sample_rate"),
        (file_bytes(np.array([0, np.nan, 0]), subtype="FLOAT"), "nonfinite"),
        (file_bytes(np.array([0, -np.inf, 0]), subtype="DOUBLE"), "nonfinite"),
    ],
    ids=["nothing", "stub", "noise", "header", "cut_flac", "no_samples", "rate", "nan", "infinity"],
)
def test_bad_audio_gives_its_reason(data, reason):
    with pytest.raises(ValueError, match=f"^bad_audio:{reason}(: |$)"):
        audio.decode_audio_bytes(data, 24000)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 60))
def test_damaged_headers_never_raise_anything_else(noise, position):
    data = bytearray(file_bytes(np.zeros(400)))
    data[position : position + len(noise)] = noise
    try:
        wav, sample_rate = audio.load(bytes(data))
    except ValueError as error:
        outcome = str(error)
    else:
        outcome = "good" if wav.ndim == 2 and wav.numel() and sample_rate > 0 else "malformed"
    assert outcome == "good" or outcome.startswith("bad_audio:")


def test_to_mono_averages_channels():
    wav = torch.tensor([[1.0, 0.0, -0.5], [0.0, 0.5, -0.5]])
    assert audio.to_mono(wav).tolist() == [[0.5, 0.25, -0.5]]
    assert audio.to_mono(wav[None].expand(3, -1, -1)).shape == (3, 1, 3)


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [audio.encode_flac, audio.encode_wav])
@pytest.mark.parametrize("channels", [1, 2])
def test_stored_audio_equals_quantise_pcm16_exactly(encode, channels):
    wav = 1.5 * torch.randn(channels, 10007, generator=torch.Generator().manual_seed(1))
    loaded, sample_rate = audio.load(encode(wav, 24000))
    assert sample_rate == 24000
    assert torch.equal(loaded, audio.quantise_pcm16(wav))
    assert encode(wav, 24000) == encode(wav, 24000) == encode(audio.quantise_pcm16(wav), 24000)


@pytest.mark.parametrize("encode", [audio.encode_flac, audio.encode_wav])
def test_encoders_refuse_what_could_not_be_read_back(encode):
    with pytest.raises(ValueError, match="bad_audio:empty"):
        encode(torch.zeros(1, 0), 24000)
    with pytest.raises(ValueError, match="bad_audio:nonfinite"):
        encode(torch.tensor([[0.0, math.nan]]), 24000)


def test_one_sample_round_trips():
    for encode in (audio.encode_flac, audio.encode_wav):
        assert audio.load(encode(torch.tensor([[0.25]]), 24000))[0].tolist() == [[0.25]]


def test_quantise_pcm16_values():
    step = 2.0**-15
    wav = torch.tensor([0.0, 0.4 * step, 0.6 * step, 1.0, 7.0, -1.0, -7.0, 0.5, math.nan, math.inf])
    quantised = audio.quantise_pcm16(wav)
    assert quantised[:8].tolist() == [0.0, 0.0, step, 1 - step, 1 - step, -1.0, -1.0, 0.5]
    assert not torch.isfinite(quantised[8:]).any()


@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=50))
def test_quantise_pcm16_is_idempotent_and_near(values):
    wav = torch.tensor(values)
    once = audio.quantise_pcm16(wav)
    assert torch.equal(audio.quantise_pcm16(once), once)
    assert float((once - wav.clamp(-1, 1 - 2**-15)).abs().max()) <= 2**-16


def test_encode_float32_is_interleaved_little_endian():
    wav = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert np.frombuffer(audio.encode_float32(wav), "<f4").tolist() == [1.0, 3.0, 2.0, 4.0]


# ---- resampling ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("from_rate", "to_rate"), [(22050, 24000), (44100, 24000), (24000, 16000), (48000, 24000)])
@pytest.mark.parametrize("frequency", [60.0, 1000.0, 7000.0])
def test_resampled_sine_is_the_sine_at_the_new_rate(from_rate, to_rate, frequency):
    resampled = audio.resample(sine(frequency, from_rate, 1.0), from_rate, to_rate)
    wanted = sine(frequency, to_rate, 1.0)
    assert resampled.shape == wanted.shape
    edge = to_rate // 20  # the filter rings where the tone starts and stops
    error = (resampled - wanted)[:, edge:-edge].abs().max()
    assert float(error) < 1e-5


def test_resample_removes_what_would_alias():
    tone = audio.resample(sine(15000, 48000, 1.0), 48000, 24000)[:, 1200:-1200]
    assert float(tone.abs().max()) < 1e-6


def test_resample_keeps_a_constant_and_the_position_of_a_click():
    constant = audio.resample(torch.full((1, 4000), 0.25), 16000, 24000)[0, 500:-500]
    torch.testing.assert_close(constant, torch.full_like(constant, 0.25), atol=1e-6, rtol=0)
    click = torch.zeros(1, 4000)
    click[0, 2000] = 1.0
    assert int(audio.resample(click, 16000, 24000).argmax()) == 3000


def test_resample_same_rate_is_identity():
    wav = torch.randn(2, 100)
    assert audio.resample(wav, 24000, 24000) is wav


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2000), st.tuples(RATES, RATES), st.integers(0, 99))
def test_padded_batch_resamples_like_single_items(num_samples, padding, rates, seed):
    wav = torch.randn(2, num_samples, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)
    alone = audio.resample(wav[:1], *rates)
    assert alone.shape[-1] == audio.compute_resampled_length(num_samples, *rates)
    batch = audio.resample(torch.nn.functional.pad(wav, (0, padding))[:, None], *rates)
    torch.testing.assert_close(batch[0, :, : alone.shape[-1]], alone, atol=1e-6, rtol=0)


# ---- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "sample_rate", "num_samples"),
    [
        (0, 24000, 0),
        (1.0, 24000, 24000),
        (0.1, 24000, 2400),
        (0.3, 10, 3),
        (0.5, 1, 1),  # round() would give 0
        (2.5, 1, 3),  # and 2 here
        (1.15, 10, 12),  # 1.15 is stored as 1.1499...; what was typed counts
        (1e-5, 48000, 0),
        (0.08, 24000, 1920),
        (36000.00003125, 16000, 576000001),
    ],
)
def test_compute_num_samples(duration, sample_rate, num_samples):
    assert audio.compute_num_samples(duration, sample_rate) == num_samples


@pytest.mark.parametrize("duration", [-1e-9, math.inf, -math.inf, math.nan])
def test_compute_num_samples_refuses(duration):
    with pytest.raises(ValueError, match="give a finite one >= 0"):
        audio.compute_num_samples(duration, 24000)


@given(st.integers(0, 10**11), st.integers(1, 384000))
def test_samples_to_seconds_and_back(num_samples, sample_rate):
    assert audio.compute_num_samples(audio.compute_duration(num_samples, sample_rate), sample_rate) == num_samples


@given(st.floats(0, 1e6), st.integers(1, 384000))
def test_num_samples_is_the_nearest_integer(duration, sample_rate):
    distance = audio.compute_num_samples(duration, sample_rate) - Fraction(str(duration)) * sample_rate
    assert -Fraction(1, 2) < distance <= Fraction(1, 2)


@given(st.integers(0, 10**12), st.integers(1, 10**5))
def test_frames_cover_samples_without_a_spare_one(num_samples, hop_length):
    spare = audio.compute_num_frames(num_samples, hop_length) * hop_length - num_samples
    assert 0 <= spare < hop_length


@pytest.mark.parametrize(("num_samples", "num_frames"), [(0, 0), (1, 1), (1920, 1), (1921, 2), (2048 * 5, 6)])
def test_mimi_frame_counts(num_samples, num_frames):
    assert audio.compute_num_frames(num_samples, 1920) == num_frames


# ---- spectrogram ---------------------------------------------------------------------------------------------------


def test_spectrogram_of_a_sine_peaks_at_its_bin_with_its_level():
    frequency = 24000 / 1024 * 64
    spectrogram = audio.compute_spectrogram(sine(frequency, 24000, 1.0, level=0.5))
    assert spectrogram.shape == (513, 1 + 24000 // 256)
    middle = spectrogram[:, 10:-10]
    assert (middle.argmax(0) == 64).all()
    torch.testing.assert_close(middle[64], torch.full_like(middle[64], 20 * math.log10(0.5)), atol=0.01, rtol=0)
    assert float(middle[200:].max()) == -100.0


@pytest.mark.parametrize("num_samples", [1, 100, 5000])
def test_spectrogram_of_short_and_silent_audio(num_samples):
    spectrogram = audio.compute_spectrogram(torch.zeros(2, num_samples), floor=-80.0)
    assert spectrogram.shape == (513, 1 + num_samples // 256)
    assert (spectrogram == -80.0).all()
