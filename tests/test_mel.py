"""Log-mel against librosa, a slow loop and closed forms; the description that decides what fits together."""

import json
import math
from dataclasses import asdict, replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.errors import UserError
from voxlab.mel import LogMel, Mel

MELS = {
    "default": Mel(),
    "legacy": Mel(n_fft=2048, hop_length=480, num_bins=80, f_max=8000.0, scale="slaney", norm="slaney", power=2.0),
    "16k": Mel(sample_rate=16000, num_bins=80, f_max=8000.0, log="log10", floor=1e-10),
}


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", MELS)
def test_equals_librosa(name: str) -> None:
    mel, wav = MELS[name], noise(12345)
    bands = librosa.feature.melspectrogram(
        y=wav.double().numpy(),
        sr=mel.sample_rate,
        n_fft=mel.n_fft,
        hop_length=mel.hop_length,
        n_mels=mel.num_bins,
        fmin=mel.f_min,
        fmax=mel.top,
        htk=mel.scale == "htk",
        norm=mel.norm,
        power=mel.power,
        pad_mode="reflect",
        dtype=np.float64,
    )
    log = np.log if mel.log == "ln" else np.log10
    result = LogMel(mel)(wav[None])
    assert result.dtype == torch.float32
    assert result.shape == (1, mel.num_bins, 1 + 12345 // mel.hop_length)
    np.testing.assert_allclose(result[0].numpy(), log(np.maximum(bands, mel.floor)), atol=2e-5)


def test_frames_that_are_not_centred_cover_their_hop() -> None:
    """Frame n sees n_fft samples around the middle of hop n; both ends are reflected."""
    mel, wav = Mel(center=False, num_bins=20), noise(2000).double()
    result = LogMel(mel).double()(wav[None])[0].numpy()
    samples, window = wav.numpy(), 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    filters = LogMel(mel).filterbank.double().numpy()
    assert result.shape == (20, 2000 // 256)
    for frame in range(7):
        at = np.arange(1024) + frame * 256 + 128 - 512
        at = np.where(at < 0, -at, at)
        at = np.where(at > 1999, 2 * 1999 - at, at)
        bands = np.abs(np.fft.rfft(samples[at] * window)) @ filters
        np.testing.assert_allclose(result[:, frame], np.log(np.maximum(bands, 1e-5)), atol=1e-9)


@pytest.mark.parametrize("log", ["ln", "log10"])
def test_silence_is_the_floor_and_gain_a_shift(log: str) -> None:
    mel = Mel(log=log)
    module, wav = LogMel(mel), noise(4000)
    floor = {"ln": math.log(1e-5), "log10": -5.0}[log]
    assert mel.log_floor == pytest.approx(floor)
    torch.testing.assert_close(module(torch.zeros(1, 4000)), torch.full((1, 100, 16), floor))
    shift = {"ln": math.log(10), "log10": 1.0}[log]
    torch.testing.assert_close(module(10 * wav[None]), module(wav[None]) + shift, atol=1e-4, rtol=0)


def test_precision_is_that_of_the_buffers() -> None:
    module, wav = LogMel(Mel()), noise(4000)[None]
    expected = module(wav)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(wav), expected)
        assert torch.equal(module(wav[:, None].bfloat16().float()), module(wav.bfloat16()))
    assert module.double()(wav).dtype == torch.float64


@settings(max_examples=25, deadline=None)
@given(samples=st.integers(600, 5000), hop=st.sampled_from([100, 256, 300]), center=st.booleans())
def test_number_of_frames(samples: int, hop: int, center: bool) -> None:
    mel = Mel(hop_length=hop, center=center)
    assert LogMel(mel)(torch.zeros(1, samples)).shape[-1] == samples // hop + center


def test_differences_name_what_does_not_fit() -> None:
    mel = Mel()
    assert mel.differences(Mel(f_max=12000.0)) == []
    assert mel.differences(replace(mel, floor=1e-7)) == []
    other = replace(mel, num_bins=80, f_max=8000.0, norm="slaney")
    assert mel.differences(other) == ["num_bins: 100 -> 80", "f_max: 12000.0 -> 8000.0", "norm: None -> slaney"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "bark"}, "mel.scale='bark' is unknown; allowed: htk, slaney"),
        ({"norm": "area"}, "mel.norm='area' is unknown; allowed: null, slaney"),
        ({"log": "log2"}, "mel.log='log2' is unknown; allowed: ln, log10"),
        ({"floor": 0.0}, "mel.floor=0.0: must be above 0"),
        ({"hop_length": 2048}, r"mel.hop_length=2048 skips samples; allowed: 1..1024 \(mel.n_fft\)"),
        ({"f_max": 16000.0}, "mel.f_max=16000.0: needed is 0 <= f_min < f_max <= 12000.0"),
        ({"f_min": 9000.0, "f_max": 8000.0}, "mel.f_min=9000.0 and mel.f_max=8000.0"),
    ],
    ids=["scale", "norm", "log", "floor", "hop", "f_max", "f_min"],
)
def test_bad_descriptions_name_their_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Mel(**changes)  # pyright: ignore[reportArgumentType]


def test_descriptions_survive_json() -> None:
    assert Mel(**json.loads(json.dumps(asdict(MELS["legacy"])))) == MELS["legacy"]
