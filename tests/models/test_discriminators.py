"""Discriminators against the encodec package, slow obvious forms, and their published sizes."""

import importlib.util

import pytest
import torch
from torch import nn

from voxlab.errors import UserError
from voxlab.models.tokenizer.discriminators import (
    BandDiscriminator,
    DiscriminatorArchitecture,
    PeriodDiscriminator,
    StftDiscriminator,
)

TINY = DiscriminatorArchitecture(
    kinds=("msstft", "mpd", "mrd"), windows=(256, 128), periods=(2, 3), channels=4, period_channels=(4, 8, 8)
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Set the effective weights of `target`'s convolutions, in order of their creation, to those of `source`."""
    pairs = [[m for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (source, target)]
    with torch.no_grad():
        for theirs, ours in zip(*pairs, strict=True):
            ours.weight = theirs.weight.detach()
            assert ours.bias is not None
            assert theirs.bias is not None
            ours.bias.copy_(theirs.bias)


@pytest.mark.skipif(importlib.util.find_spec("encodec") is None, reason="the extra [encodec] is not installed")
@pytest.mark.parametrize("window", [512, 1024])
def test_stft_discriminator_equals_encodec_with_equal_weights(window: int) -> None:
    from encodec.msstftd import DiscriminatorSTFT

    theirs = DiscriminatorSTFT(8, n_fft=window, hop_length=window // 4, win_length=window)
    ours = StftDiscriminator(window, 8)
    copy_weights(theirs, ours)
    wav = noise(2, 1, 4000)
    expected, expected_features = theirs(wav)
    scores, features = ours(wav)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert len(features) == len(expected_features) == 5
    for layer, reference in zip(features, expected_features, strict=True):
        torch.testing.assert_close(layer, reference, rtol=1e-4, atol=1e-5)


def test_period_discriminator_convolves_each_phase_alone() -> None:
    network = PeriodDiscriminator(3, (4, 8, 8))
    wav = noise(2, 1, 300)
    scores, features = network(wav)
    assert len(features) == 3
    for phase in range(3):
        x = wav[..., phase::3]
        for layer in [*network.layers, network.last]:
            stride, padding = layer.stride[0], layer.padding[0]
            x = nn.functional.conv1d(x, layer.weight[..., 0], layer.bias, stride, padding)
            x = nn.functional.leaky_relu(x, 0.1) if layer is not network.last else x
        torch.testing.assert_close(scores[..., phase], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [300, 301, 302])
def test_period_discriminator_reflects_an_incomplete_last_period(samples: int) -> None:
    network = PeriodDiscriminator(3, (4, 8, 8))
    wav = noise(1, 1, samples)
    missing = -samples % 3
    padded = torch.cat([wav, wav[..., -1 - missing : -1].flip(-1)], dim=-1)
    torch.testing.assert_close(network(wav)[0], network(padded)[0])


def test_band_discriminator_sees_each_band_with_its_own_weights() -> None:
    network = BandDiscriminator(256, 4)
    assert network.bounds == [0, 12, 32, 64, 96, 129]
    scores, features = network(noise(2, 1, 2000))
    assert len(features) == 25
    assert sum(layer.shape[-1] for layer in features[4::5]) == scores.shape[-1]
    with torch.no_grad():
        for part in network.bands[2].children():
            part.bias.add_(1.0)  # type: ignore[union-attr]
    _, changed = network(noise(2, 1, 2000))
    moved = [not torch.equal(a, b) for a, b in zip(features, changed, strict=True)]
    assert moved == [False] * 10 + [True] * 5 + [False] * 10


def test_band_discriminator_input_is_the_scipy_stft() -> None:
    import numpy as np

    from voxlab.models.tokenizer.discriminators import _spectrum

    wav = noise(1, 1, 1000)
    window = torch.hann_window(256)
    padded = np.pad(wav[0, 0].numpy(), 128, mode="reflect")
    frame = np.fft.rfft(padded[3 * 64 : 3 * 64 + 256] * window.numpy())
    ours = _spectrum(wav, window, center=True)[0, :, 3]
    np.testing.assert_allclose(ours[0].numpy() + 1j * ours[1].numpy(), frame, atol=1e-4)


@pytest.mark.parametrize(("kinds", "millions"), [(("msstft",), 0.28), (("mpd",), 41.1)], ids=["msstft", "mpd"])
def test_published_sizes(kinds: tuple[str, ...], millions: float) -> None:
    network = DiscriminatorArchitecture(kinds=kinds).build()
    weights = sum(m.weight.numel() + m.bias.numel() for m in network.modules() if isinstance(m, nn.Conv2d))  # type: ignore[union-attr]
    assert weights / 1e6 == pytest.approx(millions, abs=0.05)


def test_offset_and_gain_do_not_matter() -> None:
    network = TINY.build()
    wav = noise(2, 1, 1024)
    first, second = network(wav), network(3.0 * wav + 0.5)
    for a, b in zip(first.scores, second.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_real_and_decoded_in_one_batch_equal_two_calls() -> None:
    network = TINY.build()
    real, fake = noise(2, 1, 1024), noise(2, 1, 1024, seed=1)
    joined = network(torch.cat([real, fake])).split()
    for part, alone in zip(joined, (network(real), network(fake)), strict=True):
        for a, b in zip([*part.scores, *part.features], [*alone.scores, *alone.features], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_silence_gives_finite_scores_and_gradients() -> None:
    wav = torch.zeros(1, 1, 1024, requires_grad=True)
    torch.stack([score.sum() for score in TINY.build()(wav).scores]).sum().backward()
    assert wav.grad is not None
    assert bool(wav.grad.isfinite().all())


@pytest.mark.parametrize("kinds", [(), ("msd",), ("msstft", "nope")], ids=["none", "unknown", "one-unknown"])
def test_unknown_kinds_are_refused(kinds: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="msstft, mpd, mrd"):
        DiscriminatorArchitecture(kinds=kinds)
