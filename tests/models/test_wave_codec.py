"""The waveform codec: lengths, batch = single, transformers' DAC blocks as oracle, chunks, streams."""

import copy
import json
from dataclasses import asdict
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.snake import Snake, SnakeDecoder, SnakeEncoder
from voxlab.models.tokenizer.wave_codec import WaveArchitecture, WaveCodec

PRESETS = {(2, 5, 6, 8): 480, (2, 4, 5, 8): 320, (4, 5, 6, 8): 960, (4, 6, 8, 10): 1920}
BACKBONES: dict[str, dict[str, Any]] = {
    "snake": {},
    "causal": {"causal": True},
    "seanet": {"causal": True, "backbone": "seanet"},
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(strides: tuple[int, ...] = (2, 3, 5), **changes: Any) -> WaveCodec:
    """Return a network in eval mode whose codes vary."""
    torch.manual_seed(0)
    quantizer = QuantizerSettings(num_codebooks=3, codebook_size=16, codebook_dim=8)
    network = WaveArchitecture(strides=strides, width=4, latent=16, quantizer=quantizer, **changes).build().eval()
    latents, _ = network.latents(noise(4, 1, 4000, seed=9), torch.full((4,), 4000))
    network.quantizer.initialize(latents.transpose(1, 2).flatten(0, 1).detach(), 100, seed=0)
    return network


@pytest.mark.parametrize(("strides", "hop_length"), PRESETS.items(), ids=[str(hop) for hop in PRESETS.values()])
def test_lengths_of_every_preset(strides: tuple[int, ...], hop_length: int) -> None:
    network = tiny(strides)
    assert network.architecture.hop_length == hop_length
    for samples in (1, hop_length - 1, hop_length, hop_length + 1, 10001):
        codes = network.encode(noise(1, 1, samples), torch.tensor([samples]))
        frames = -(-samples // hop_length)
        assert (codes.shape, codes.dtype) == ((1, 3, frames), torch.int64)
        assert network.decode(codes).shape == (1, 1, frames * hop_length)


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 72000, 100001])
def test_frames_of_the_default_strides(samples: int) -> None:
    codes = tiny((2, 5, 6, 8)).encode(noise(1, 1, samples), torch.tensor([samples]))
    assert codes.shape[-1] == -(-samples // 480)


@pytest.mark.parametrize("causal", [False, True], ids=["centred", "causal"])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
def test_every_stride_keeps_the_length(stride: int, causal: bool) -> None:
    encoder, decoder = SnakeEncoder((stride,), 2, 4, causal), SnakeDecoder((stride,), 2, 4, causal)
    latents = encoder(noise(1, 1, 12 * stride))
    assert latents.shape == (1, 4, 12)
    assert decoder(latents).shape == (1, 1, 12 * stride)


def test_rates_and_sizes_of_the_default() -> None:
    architecture = WaveArchitecture()
    assert (architecture.frame_rate, architecture.bitrate, architecture.tokens_per_second) == (50, 4000, 400)
    faster = WaveArchitecture(strides=(2, 4, 5, 8))
    assert (faster.frame_rate, faster.bitrate, faster.tokens_per_second) == (75, 6000, 600)
    sizes = [_num_weights(part(architecture.strides, 32, 512, False)) for part in (SnakeEncoder, SnakeDecoder)]
    assert [round(size / 1e6, 2) for size in sizes] == [5.46, 6.51]


def _num_weights(network: nn.Module) -> int:
    """Count weights and biases, each kernel once (weight norm holds its norms besides)."""
    convs = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    snakes = [m.alpha.numel() for m in network.modules() if isinstance(m, Snake)]
    return sum(m.weight.numel() + m.bias.numel() for m in convs if m.bias is not None) + sum(snakes)


def test_the_description_is_plain_json_and_bad_ones_are_refused() -> None:
    described = json.loads(json.dumps(asdict(WaveArchitecture())))
    described["quantizer"] = QuantizerSettings(**described["quantizer"])
    assert WaveArchitecture(**described) == WaveArchitecture()
    with pytest.raises(UserError, match="strides"):
        WaveArchitecture(strides=(1, 4))
    with pytest.raises(UserError, match="snake, seanet"):
        WaveArchitecture(backbone="lstm")
    with pytest.raises(UserError, match="causal=true"):
        WaveArchitecture(backbone="seanet")
    with pytest.raises(UserError, match=r"codec.architecture.latent=0: must be above 0"):
        WaveArchitecture(latent=0)


def test_snake_equals_its_formula_and_its_derivative() -> None:
    snake = Snake(2).double()
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([[1.0], [2.5]]))
    x = noise(3, 2, 5).double().requires_grad_()
    y = snake(x)
    slope = torch.autograd.grad(y.sum(), x)[0]
    a = snake.alpha.detach()
    torch.testing.assert_close(y, x + torch.sin(a * x) ** 2 / (a + 1e-9))
    torch.testing.assert_close(slope, 1 + torch.sin(2 * a * x.detach()) * a / (a + 1e-9))
    assert torch.autograd.gradcheck(lambda x, _: snake(x), (x, snake.alpha))
    with torch.no_grad():
        assert torch.equal(snake(x), y)


@pytest.mark.parametrize("kind", ["snake", "seanet"])
def test_autocast_does_not_round_the_audio(kind: str) -> None:
    network, wav = NETWORKS[kind], noise(1, 1, 900)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(wav, torch.tensor([900])).output
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())


def _dac_config(strides: tuple[int, ...], width: int, latent: int) -> Any:
    from transformers import DacConfig

    return DacConfig(
        encoder_hidden_size=width,
        downsampling_ratios=list(strides),
        upsampling_ratios=list(reversed(strides)),
        decoder_hidden_size=width * 2 ** len(strides),
        hidden_size=latent,
    )


def _copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy convolutions and Snake slopes, both networks listing them in the order of their layers."""
    kinds = nn.Conv1d | nn.ConvTranspose1d
    theirs = [m for m in source.modules() if isinstance(m, kinds) or type(m).__name__ == "Snake1d"]
    for kind in (nn.Conv1d, nn.ConvTranspose1d):
        pairs = [[m for m in net.modules() if isinstance(m, kind)] for net in (source, target)]
        for from_, to in zip(*pairs, strict=True):
            to.weight, to.bias = from_.weight.detach(), from_.bias
    slopes = [m for m in theirs if type(m).__name__ == "Snake1d"]
    ours = [m for m in target.modules() if isinstance(m, Snake)]
    for from_, to in zip(slopes, ours, strict=True):
        to.alpha.copy_(torch.rand(to.alpha.shape, generator=torch.Generator().manual_seed(len(slopes))) + 0.5)
        from_.alpha.copy_(to.alpha[None])


def test_encoder_and_decoder_equal_transformers_dac_with_equal_weights() -> None:
    from transformers.models.dac.modeling_dac import DacDecoder, DacEncoder

    strides = (2, 4, 8)  # even ones: with odd strides theirs loses samples
    config = _dac_config(strides, 4, 12)
    encoder, decoder = SnakeEncoder(strides, 4, 12, False), SnakeDecoder(strides, 4, 12, False)
    their_encoder, their_decoder = DacEncoder(config), DacDecoder(config)
    with torch.no_grad():
        _copy_in_order(their_encoder, encoder)
        _copy_in_order(their_decoder, decoder)
        wav = noise(2, 1, 640)
        latents = encoder(wav)
        torch.testing.assert_close(latents, their_encoder(wav), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(decoder(latents), their_decoder(latents), rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 900), min_size=1, max_size=4), kind=st.sampled_from(sorted(BACKBONES)))
def test_batch_equals_single(lengths: list[int], kind: str) -> None:
    network = NETWORKS[kind]
    wavs = [noise(1, 1, n, seed=i) for i, n in enumerate(lengths)]
    batch = torch.cat([nn.functional.pad(wav, (0, max(lengths) - wav.shape[-1]), value=0.7) for wav in wavs])
    sizes = torch.tensor(lengths)
    with torch.no_grad():
        codes = network.encode(batch, sizes)
        frames = -(-sizes // 30)
        audio = network.decode(codes, frames)
        output = network(batch, sizes)
        for i, (wav, n, count) in enumerate(zip(wavs, lengths, frames.tolist(), strict=True)):
            alone = network.encode(wav, torch.tensor([n]))
            torch.testing.assert_close(codes[i, :, :count], alone[0], rtol=0, atol=0)
            assert not codes[i, :, count:].any()
            torch.testing.assert_close(audio[i, :, : count * 30], network.decode(alone)[0], rtol=0, atol=1e-5)
            assert not audio[i, :, count * 30 :].any()
            torch.testing.assert_close(output.output[i, :, :n], audio[i, :, :n], rtol=0, atol=1e-5)
            assert not output.output[i, :, n:].any()
            torch.testing.assert_close(output.target[i, :, :n], wav[0])


NETWORKS = {kind: tiny(**changes) for kind, changes in BACKBONES.items()}


@pytest.mark.parametrize("kind", BACKBONES)
def test_forward_in_evaluation_equals_decode_of_encode(kind: str) -> None:
    network, wav = NETWORKS[kind], noise(2, 1, 1234)
    lengths = torch.tensor([1234, 1234])
    with torch.no_grad():
        output = network(wav, lengths)
        codes = network.encode(wav, lengths)
        assert torch.equal(output.quantized.codes, codes)
        torch.testing.assert_close(output.output[..., :1234], network.decode(codes)[..., :1234], rtol=0, atol=1e-6)
    assert bool(((codes >= 0) & (codes < 16)).all())
    assert len(codes[:, 0].unique()) > 4
    assert output.mask.sum(1).tolist() == [1234, 1234]


def test_every_prefix_decodes_and_bad_codes_are_refused() -> None:
    network = NETWORKS["snake"]
    codes = network.encode(noise(1, 1, 600), torch.tensor([600]))
    with torch.no_grad():
        prefixes = [network.decode(codes[:, :q]) for q in (1, 2, 3)]
    assert {prefix.shape for prefix in prefixes} == {(1, 1, 600)}
    assert not torch.equal(prefixes[0], prefixes[1])
    with pytest.raises(ValueError, match="16"):
        network.decode(codes.clone().fill_(16))


def test_full_lengths_on_the_cpu_skip_the_masks_without_changing_anything() -> None:
    network, wav = NETWORKS["snake"], noise(2, 1, 600)
    with torch.no_grad():
        fast, _ = network.latents(wav, torch.tensor([600, 600]))
        masked = network.encoder(wav, torch.ones(2, 20, dtype=torch.bool))
    assert torch.equal(fast, masked)


def test_what_lies_past_the_end_gets_no_gradient() -> None:
    network = copy.deepcopy(NETWORKS["snake"]).train()
    wav = noise(2, 1, 600).requires_grad_()
    network(wav, torch.tensor([600, 250])).output.square().sum().backward()
    assert wav.grad is not None
    assert bool(wav.grad[0].any())
    assert bool(wav.grad[1, :, :250].any())
    assert not wav.grad[1, :, 250:].any()


@pytest.mark.parametrize("kind", BACKBONES)
def test_context_frames_suffice_for_exact_chunks(kind: str) -> None:
    network, hop_length = NETWORKS[kind], 30
    left, right = network.architecture.context_frames
    total = left + right + 40
    wav = noise(1, 1, total * hop_length)
    start, stop = left + 10, left + 20
    window = slice((start - left) * hop_length, (stop + right) * hop_length)
    with torch.no_grad():
        whole, _ = network.latents(wav, torch.tensor([wav.shape[-1]]))
        part, _ = network.latents(wav[..., window], torch.tensor([window.stop - window.start]))
        torch.testing.assert_close(part[..., left : left + 10], whole[..., start:stop], rtol=0, atol=1e-5)
        codes = network.encode(wav, torch.tensor([wav.shape[-1]]))
        audio = network.decode(codes)[..., start * hop_length : stop * hop_length]
        chunk = network.decode(codes[..., start - left : stop + right])
    inside = slice(left * hop_length, (left + 10) * hop_length)
    torch.testing.assert_close(chunk[..., inside], audio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["causal", "seanet"])
def test_the_causal_networks_never_look_ahead(kind: str) -> None:
    network = NETWORKS[kind]
    wav = noise(1, 1, 900).requires_grad_()
    latents, _ = network.latents(wav, torch.tensor([900]))
    latents[..., 11].sum().backward()
    assert wav.grad is not None
    assert not wav.grad[..., 12 * 30 :].any()
    assert bool(wav.grad[..., 11 * 30 : 12 * 30].any())


@pytest.mark.parametrize("kind", ["causal", "seanet"])
@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_streamed_equals_offline(kind: str, chunk: int) -> None:
    network, frames = NETWORKS[kind], 60
    wav = noise(2, 1, frames * 30)
    with torch.no_grad():
        codes = network.encode(wav, torch.full((2,), wav.shape[-1]))
        audio = network.decode(codes)
    for _ in range(2):  # a second stream starts afresh
        with network.streaming(2):
            starts = range(0, frames, chunk)
            streamed = [network.encode_chunk(wav[..., s * 30 : (s + chunk) * 30]) for s in starts]
            heard = [network.decode_chunk(part) for part in streamed]
        assert torch.equal(torch.cat(streamed, dim=-1), codes)
        torch.testing.assert_close(torch.cat(heard, dim=-1), audio, rtol=0, atol=1e-5)


def test_a_network_that_looks_ahead_refuses_to_stream() -> None:
    with pytest.raises(UserError, match="causal=true"), NETWORKS["snake"].streaming():
        pass


@pytest.mark.parametrize("kind", BACKBONES)
def test_copies_and_saved_weights_give_the_same_network(kind: str) -> None:
    network, wav, lengths = NETWORKS[kind], noise(1, 1, 900), torch.tensor([900])
    rebuilt = network.architecture.build().eval()
    rebuilt.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = network(wav, lengths).output
        for other in (rebuilt, copy.deepcopy(network)):
            assert torch.equal(other(wav, lengths).output, expected)
