"""The mel-domain network: lengths and rates of every preset, padded batches, chunks, gradients, and its parts."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.mel import LogMel, Mel
from voxlab.models.tokenizer.masked_layers import MaskedGroupNorm, upsampling_conv
from voxlab.models.tokenizer.mel_codec import MelArchitecture, MelCodec
from voxlab.models.tokenizer.quantizer import QuantizerSettings

TINY = MelArchitecture(hidden=16, mel=Mel(num_bins=20), quantizer=QuantizerSettings(num_codebooks=3, codebook_size=32))
LEGACY_MEL = Mel(n_fft=2048, hop_length=480, num_bins=80, f_max=8000.0, scale="slaney", norm="slaney", power=2.0)
SHAPES = {
    "rvq": (Mel(), (1, 2, 2, 2), 937.5, 93.75),
    "rvq_legacy50": (LEGACY_MEL, (1, 2, 2, 2), 500, 50),
    "rvq_16k": (Mel(sample_rate=16000, num_bins=80), (1, 2, 2, 2), 625, 62.5),
    "four frames per code": (Mel(), (1, 1, 2, 2), 1875, 187.5),
    "one frame per code": (Mel(), (1,), 7500, 750),
    "odd strides": (Mel(), (3, 5), 500, 50),
    "not centred": (Mel(center=False), (1, 2, 2, 2), 937.5, 93.75),
}


def make(architecture: MelArchitecture = TINY, seed: int = 0) -> MelCodec:
    """A network in evaluation mode, with codebooks that fit its latents."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build()
    network.standardize(-2.0, 2.4)
    pool, mask = network.latents(*batch([40_000, 30_000], seed=5))
    network.quantizer.initialize(pool.transpose(1, 2)[mask].detach(), 30, seed=0)
    return network.eval()


def batch(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise of changing loudness; what lies past an item's end is loud rubbish."""
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randn(len(lengths), 1, max(lengths), generator=generator)
    envelope = torch.rand(len(lengths), 1, 1 + max(lengths) // 500, generator=generator).repeat_interleave(500, dim=2)
    return wav * envelope[..., : max(lengths)], torch.tensor(lengths)


@pytest.mark.parametrize("name", SHAPES)
def test_lengths_and_rates(name: str) -> None:
    mel, down, bitrate, tokens_per_second = SHAPES[name]
    full_size = MelArchitecture(mel=mel, down=down)
    assert full_size.bitrate == pytest.approx(bitrate)
    assert full_size.tokens_per_second == pytest.approx(tokens_per_second)
    assert full_size.frame_rate == mel.sample_rate / full_size.hop_length
    architecture = replace(TINY, mel=mel, down=down)
    network, hop = architecture.build().eval(), architecture.hop_length
    for samples in (1, 2047, 2048, 2049, 72000, 100001):
        wav, lengths = batch([samples])
        codes = network.encode(wav, lengths)
        assert codes.shape == (1, 3, -(-samples // hop))
        output = network(wav, lengths)
        frames = codes.shape[-1] * architecture.frames_per_code
        assert output.target.shape == output.output.shape == (1, mel.num_bins, frames)
        assert frames * mel.hop_length == codes.shape[-1] * hop >= samples
        assert network.decode(codes[:, :1]).shape == (1, mel.num_bins, frames)


def test_default_size() -> None:
    network = MelArchitecture().build()
    encoder, decoder = (nn.ModuleList(parts) for parts in network_parts(network))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 6_656_512
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 6_654_564
    assert network.quantizer.sums.numel() == 4_194_304


def network_parts(network: MelCodec) -> tuple[list[nn.Module], list[nn.Module]]:
    return [*network.encoder, network.to_latents], [*network.decoder, network.to_mel]


@pytest.mark.parametrize("norm", ["group", "channel"])
@pytest.mark.parametrize(
    "lengths", [[160 * 256, 96 * 256], [40_000, 2047, 20_481, 1]], ids=["whole frames", "any samples"]
)
def test_a_batch_equals_its_items(norm: str, lengths: list[int]) -> None:
    # Wide enough that a group of one frame has a variance well above rounding.
    network = make(replace(TINY, norm=norm, hidden=64))
    wav, sizes = batch(lengths)
    together = network(wav, sizes)
    codes = network.encode(wav, sizes)
    assert torch.equal(codes, together.quantized.codes)
    decoded = network.decode(codes, -(-sizes // 2048))
    for item, samples in enumerate(lengths):
        alone = network(wav[item : item + 1, :, :samples], sizes[item : item + 1])
        frames, codes_alone = alone.mask.shape[1], network.encode(wav[item : item + 1, :, :samples], sizes[[item]])
        assert alone.mask.all()
        for name in ("target", "output"):
            result = getattr(together, name)[item]
            torch.testing.assert_close(result[:, :frames], getattr(alone, name)[0], rtol=0, atol=1e-5)
            assert not result[:, frames:].any()
        steps = codes_alone.shape[-1]
        torch.testing.assert_close(together.latents[item, :, :steps], alone.latents[0], rtol=0, atol=1e-5)
        assert together.mask[item].sum() == frames
        assert torch.equal(codes[item, :, :steps], codes_alone[0])
        assert not codes[item, :, steps:].any()
        torch.testing.assert_close(decoded[item, :, :frames], network.decode(codes_alone)[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            decoded[item, :, frames:], torch.full_like(decoded[item, :, frames:], TINY.mel.log_floor)
        )


@pytest.mark.parametrize("norm", ["group", "channel"])
def test_gradients_of_a_batch_are_those_of_its_items(norm: str) -> None:
    lengths = [9_000, 3_000]
    wav, sizes = batch(lengths)
    network = make(replace(TINY, norm=norm)).double()
    bypass = torch.zeros(2, dtype=torch.int64)

    def gradient(wav: Tensor, sizes: Tensor) -> list[Tensor]:
        network.zero_grad()
        result = network(wav, sizes, bypass[: len(wav)])
        (result.output - result.target).square().sum().backward()
        return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]

    together = gradient(wav, sizes)
    first, second = (gradient(wav[[i], :, :n], sizes[[i]]) for i, n in enumerate(lengths))
    assert len(together) == len(list(network.parameters()))
    for whole, one, other in zip(together, first, second, strict=True):
        torch.testing.assert_close(whole, one + other, rtol=1e-9, atol=1e-9)


def test_mel_is_the_plain_one_away_from_the_end() -> None:
    network = make()
    wav, sizes = batch([30_000])
    log_mel, mask = network.compute_log_mel(wav, sizes)
    plain = LogMel(TINY.mel)(wav)
    inside = (30_000 - 512) // 256
    assert log_mel.shape[-1] == mask.shape[-1] == 120
    torch.testing.assert_close(log_mel[..., :inside], plain[..., :inside], rtol=0, atol=1e-5)
    result = network(wav, sizes)
    torch.testing.assert_close(result.target * 2.4 - 2.0, log_mel, rtol=0, atol=1e-5)


@pytest.mark.parametrize("down", [(1, 2, 2, 2), (3, 2), (1, 1, 2, 2)], ids=str)
def test_chunks_with_context_equal_the_whole(down: tuple[int, ...]) -> None:
    architecture = replace(TINY, norm="channel", down=down)
    network, hop = make(architecture), architecture.hop_length
    context = architecture.context_frames
    assert context is not None
    before, after = context
    wav, sizes = batch([40 * hop])
    codes, start, stop = network.encode(wav, sizes), 15, 25
    piece = wav[..., (start - before) * hop : (stop + after) * hop]
    chunk = network.encode(piece, torch.tensor([piece.shape[-1]]))
    assert torch.equal(chunk[..., before : before + stop - start], codes[..., start:stop])
    decoded = network.decode(codes[..., start - before : stop + after])
    frames = architecture.frames_per_code
    torch.testing.assert_close(
        decoded[..., before * frames : (before + stop - start) * frames],
        network.decode(codes)[..., start * frames : stop * frames],
        rtol=0,
        atol=1e-5,
    )


def test_four_frames_of_context_are_nearly_enough() -> None:
    """Two-second chunks with 4 code frames on each side: the start's reflection reaches a little further."""
    network = make(replace(TINY, norm="channel"))
    wav, sizes = batch([400 * 2048])
    codes, equal = network.encode(wav, sizes), []
    for start in range(4, 370, 24):
        piece = wav[..., (start - 4) * 2048 : (start + 28) * 2048]
        chunk = network.encode(piece, torch.tensor([piece.shape[-1]]))[..., 4:-4]
        equal.append((chunk == codes[..., start : start + 24]).float().mean())
    assert torch.stack(equal).mean() >= 0.99


def test_codes_of_a_group_norm_depend_on_the_whole_item() -> None:
    network = make()
    assert TINY.context_frames is None
    wav, sizes = batch([40 * 2048])
    half = network.encode(wav[..., : 20 * 2048], torch.tensor([20 * 2048]))
    assert not torch.equal(half[..., :10], network.encode(wav, sizes)[..., :10])


def test_forward_equals_decoding_the_codes() -> None:
    network = make()
    wav, sizes = batch([30_000, 11_000])
    result = network(wav, sizes)
    log_mel = network.decode(network.encode(wav, sizes), torch.tensor([15, 6]))
    standardized = ((log_mel + 2.0) / 2.4).masked_fill(~result.mask[:, None], 0)
    torch.testing.assert_close(standardized, result.output, rtol=0, atol=1e-5)
    for count in (1, 2):
        limited = network(wav, sizes, torch.full((2,), count)).output
        log_mel = network.decode(network.encode(wav, sizes)[:, :count], torch.tensor([15, 6]))
        torch.testing.assert_close(((log_mel + 2.0) / 2.4 - limited) * result.mask[:, None], torch.zeros_like(limited))


def test_bad_codes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codebook 0, frame 2: code 32 is out of range; allowed 0\.\.31"):
        make().decode(torch.tensor([[[0, 1, 32]]]))


def test_bfloat16_keeps_mel_and_quantizer_exact() -> None:
    network = make().train()
    wav, sizes = batch([20_000, 9_000])
    target = network(wav, sizes).target
    with torch.autocast("cpu", torch.bfloat16):
        result = network(wav, sizes)
    assert torch.equal(result.target, target)
    assert result.output.dtype == result.quantized.output.dtype == torch.float32
    assert bool(result.output.isfinite().all())


def test_saved_weights_hold_everything() -> None:
    network, fresh = make(), make(seed=1)
    fresh.load_state_dict(network.state_dict())
    wav, sizes = batch([20_000])
    assert torch.equal(fresh(wav, sizes).output, network(wav, sizes).output)
    assert float(fresh.mel_std) == pytest.approx(2.4)


@pytest.mark.parametrize(("mean", "std"), [(float("nan"), 1.0), (0.0, 0.0), (0.0, float("inf"))], ids=str)
def test_bad_statistics(mean: float, std: float) -> None:
    with pytest.raises(ValueError, match="needs finite numbers, std above 0"):
        TINY.build().standardize(mean, std)


def test_group_norm_equals_torch_where_all_is_valid() -> None:
    x, mask = torch.randn(3, 16, 20, dtype=torch.float64), torch.ones(3, 20, dtype=torch.bool)
    theirs, ours = nn.GroupNorm(8, 16).double(), MaskedGroupNorm(8, 16).double()
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(ours(x, mask), theirs(x))
    mask[1, 7:] = False
    torch.testing.assert_close(ours(x, mask)[1, :, :7], theirs(x[1:2, :, :7])[0])


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
def test_upsampling_multiplies_the_length(stride: int) -> None:
    assert upsampling_conv(8, stride)(torch.zeros(1, 8, 11)).shape[-1] == 11 * stride


def test_descriptions_survive_json() -> None:
    plain = json.loads(json.dumps(asdict(TINY)))
    plain |= {"mel": Mel(**plain["mel"]), "quantizer": QuantizerSettings(**plain["quantizer"])}
    assert MelArchitecture(**plain) == TINY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"down": ()}, r"codec.architecture.down=\[\]: each must be from 1 to kernel \(7\)"),
        ({"down": (1, 8)}, r"codec.architecture.down=\[1, 8\]"),
        ({"kernel": 4}, "codec.architecture.kernel=4: must be odd"),
        ({"hidden": 12}, "codec.architecture.hidden=12: must be a multiple of 8"),
        ({"norm": "batch"}, "codec.architecture.norm='batch' is unknown; allowed: group, channel"),
        ({"down": 4}, "codec.architecture.down=4: give a list, each a whole number"),
        ({"down": [1, 2.5]}, r"codec.architecture.down=\[1, 2.5\]: give a list, each a whole number"),
        ({"hidden": "wide"}, "codec.architecture.hidden='wide': give a whole number"),
    ],
    ids=["no strides", "stride", "kernel", "hidden", "norm", "no list", "half a stride", "text"],
)
def test_bad_architectures_name_their_key(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TINY, **changes)  # pyright: ignore[reportArgumentType]
