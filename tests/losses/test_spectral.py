"""Spectral losses against closed forms, slow loops and librosa's filters."""

import math

import librosa
import numpy as np
import pytest
import torch

from voxlab.losses.spectral import FLOOR, NUM_BINS, WINDOWS, MultiScaleMel, masked_mean, mel_losses


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_distance(output: np.ndarray, target: np.ndarray, sample_rate: int) -> float:
    """DAC's formula written out with numpy and librosa."""
    total = 0.0
    for window, bins in zip(WINDOWS, NUM_BINS, strict=True):
        filters = librosa.filters.mel(sr=sample_rate, n_fft=window, n_mels=bins, dtype=np.float64)
        logs = []
        for wav in (output, target):
            padded = np.pad(wav.astype(np.float64), window // 2, mode="reflect")
            hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
            starts = range(0, len(padded) - window + 1, window // 4)
            frames = np.stack([np.abs(np.fft.rfft(padded[s : s + window] * hann)) for s in starts])
            logs.append(np.log10(np.maximum(frames @ filters.T, FLOOR)))
        total += float(np.abs(logs[0] - logs[1]).mean())
    return total


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("sample_rate", [16000, 24000])
def test_distance_equals_numpy_and_librosa(sample_rate: int) -> None:
    output, target = 0.1 * noise(1, 1, 5001), 0.2 * noise(1, 1, 5001, seed=1)
    expected = slow_distance(output[0, 0].numpy(), target[0, 0].numpy(), sample_rate)
    assert MultiScaleMel(sample_rate)(output, target).item() == pytest.approx(expected, rel=1e-4)


def test_gain_scores_its_logarithm_at_each_resolution() -> None:
    wav = 100 * noise(2, 1, 8192).double()  # so loud that no magnitude meets the floor
    distance = MultiScaleMel(24000).double()
    assert distance(0.5 * wav, wav).item() == pytest.approx(7 * math.log10(2), rel=1e-6)
    assert distance(-wav, wav).item() == 0.0


def test_distance_is_symmetric_and_a_batch_is_the_mean_of_its_items() -> None:
    distance = MultiScaleMel(24000)
    a, b = 0.1 * noise(3, 1, 4096), 0.3 * noise(3, 1, 4096, seed=1)
    assert distance(a, b).item() == pytest.approx(distance(b, a).item(), rel=1e-6)
    singles = [distance(x[None], y[None]).item() for x, y in zip(a, b, strict=True)]
    assert distance(a, b).item() == pytest.approx(sum(singles) / 3, rel=1e-5)


def test_a_mask_of_everything_changes_nothing() -> None:
    distance = MultiScaleMel(24000)
    a, b = 0.1 * noise(2, 1, 4096), 0.3 * noise(2, 1, 4096, seed=1)
    everything = torch.ones(2, 4096, dtype=torch.bool)
    assert distance(a, b, everything).item() == pytest.approx(distance(a, b).item(), rel=1e-6)


def test_padding_does_not_dilute_the_distance() -> None:
    distance = MultiScaleMel(24000)
    a, b = 0.1 * noise(1, 1, 8192), 0.3 * noise(1, 1, 8192, seed=1)
    alone = distance(a, b).item()
    mask = torch.arange(16384)[None] < 8192
    padded = [torch.nn.functional.pad(x, (0, 8192)) for x in (a, b)]
    # Only the frames across the end see zeros instead of a reflection.
    assert distance(*padded, mask).item() == pytest.approx(alone, rel=0.03)
    assert distance(*padded).item() < 0.7 * alone


def test_gradients_are_finite_on_silence() -> None:
    output = torch.zeros(1, 1, 4096, requires_grad=True)
    MultiScaleMel(24000)(output, 0.1 * noise(1, 1, 4096)).backward()
    assert output.grad is not None
    assert bool(output.grad.isfinite().all())


def test_bfloat16_input_is_measured_in_float32() -> None:
    distance = MultiScaleMel(24000)
    a, b = (0.1 * noise(1, 1, 4096)).bfloat16(), (0.3 * noise(1, 1, 4096, seed=1)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = distance(a, b)
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(distance(a.float(), b.float()).item(), rel=1e-6)


def test_masked_mean_equals_a_loop() -> None:
    x, lengths = noise(3, 4, 7), [7, 2, 5]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    values = [x[i, c, t].item() for i, n in enumerate(lengths) for c in range(4) for t in range(n)]
    assert masked_mean(x, mask).item() == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_masked_mean_ignores_what_is_not_finite_past_the_end() -> None:
    x = torch.tensor([[1.0, 3.0, math.nan]], requires_grad=True)
    mean = masked_mean(x, torch.tensor([[True, True, False]]))
    mean.backward()
    assert mean.item() == 2.0
    assert x.grad is not None
    assert x.grad.tolist() == [[0.5, 0.5, 0.0]]


def test_mel_losses_closed_form() -> None:
    target = torch.zeros(2, 3, 4)
    output = torch.full((2, 3, 4), 0.5)
    output[1, :, 2:] = 100.0
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    l1, mse = mel_losses(output, target, mask)
    assert (l1.item(), mse.item()) == (0.5, 0.25)
