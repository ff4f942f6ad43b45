import json

import pytest
import torch
from moshi.models.loaders import get_mimi

from tests.tiny_models import write_tiny_mimi
from voxlab.codecs.base import single, stack, unstack
from voxlab.codecs.mimi import CHUNK_FRAMES, WEIGHTS_FILE, Mimi, load_network, seanet
from voxlab.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_mimi(tmp_path_factory.mktemp("mimi"))


@pytest.fixture(scope="module")
def upstream(folder):
    config = json.loads((folder / "mimi_config.json").read_text())
    return get_mimi(folder / "mimi.safetensors", config, num_codebooks=32)


@pytest.fixture(scope="module")
def codec(folder):
    return Mimi(weights=str(folder)).to("cpu")


def noise(samples: int, items: int = 1, seed: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(items, 1, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [1, 1919, 1920, 1921, 2048 * 5, 25 * 24000])
def test_encode_equals_the_package(codec, upstream, samples):
    wav = noise(samples)
    codes = codec.encode(wav, torch.tensor([samples]))
    with torch.no_grad():
        wanted = upstream.encode(wav)
    assert stack(codes).shape == (1, 32, -(-samples // 1920))
    assert torch.equal(stack(codes), wanted)
    assert codes.num_samples.tolist() == [samples]


def test_decode_equals_the_package(codec, upstream):
    codes = torch.randint(0, 2048, (1, 32, 140), generator=torch.Generator().manual_seed(0))
    wav, lengths = codec.decode(unstack(codes, torch.tensor([140])))
    with torch.no_grad():
        assert torch.equal(wav, upstream.decode(codes))
    assert lengths.tolist() == [140 * 1920]


def test_codes_vary(codec):
    codes = stack(codec.encode(noise(240000), torch.tensor([240000])))[0]
    assert min(len(book.unique()) for book in codes) > 5


def test_batch_equals_single(codec):
    lengths = torch.tensor([240000, 1, 1920, 1921, 100001, 30000, 77777, 200000])
    wav = noise(240000, items=8)
    codes = codec.encode(wav, lengths)
    decoded, samples = codec.decode(codes)
    same = total = 0
    for row, n in enumerate(lengths.tolist()):
        alone = stack(codec.encode(wav[row : row + 1, :, :n], torch.tensor([n])))
        batched = stack(single(codes, row))
        same, total = same + int((alone == batched).sum()), total + alone.numel()
        wanted, _ = codec.decode(single(codes, row))
        assert (decoded[row, :, : samples[row]] - wanted[0]).abs().max() <= 1e-5
    assert samples.tolist() == lengths.tolist()
    assert same >= 0.999 * total  # rounding may tip a near tie; see the latents below


def test_padding_leaves_latents_alone(codec):
    wav = noise(19200)
    with torch.no_grad():
        alone = codec._encode_latents(wav)
        padded = codec._encode_latents(torch.nn.functional.pad(wav, (0, 9600)))[..., :10]
    assert (alone - padded).abs().max() <= 1e-6


def test_samples_past_the_length_are_ignored(codec):
    wav = noise(9600)
    loud = wav.clone()
    loud[..., 5000:] = 1.0
    lengths = torch.tensor([5000])
    assert torch.equal(stack(codec.encode(wav, lengths)), stack(codec.encode(loud, lengths)))


def test_fewer_codebooks_are_a_prefix(codec, folder):
    wav, lengths = noise(19200), torch.tensor([19200])
    wanted = stack(codec.encode(wav, lengths))
    for count in (1, 8):
        fewer = Mimi(weights=str(folder), num_codebooks=count)
        codes = fewer.encode(wav, lengths)
        assert torch.equal(stack(codes), wanted[:, :count])
        assert fewer.decode(codes)[0].shape == (1, 1, 19200)


def test_weights_file_folder_and_published_name(folder, tmp_path):
    by_file = Mimi(weights=str(folder / "mimi.safetensors"))
    assert by_file.info == Mimi(weights=str(folder)).info
    for name in (WEIGHTS_FILE, "other.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    assert list(Mimi(weights=str(tmp_path))._files) == [WEIGHTS_FILE]
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / "third.safetensors")
    with pytest.raises(UserError, match=r"holds 2 \.safetensors files"):
        _ = Mimi(weights=str(tmp_path)).info


def test_a_file_that_holds_no_weights_is_a_user_error(tmp_path):
    (tmp_path / "notes.md").write_text("# notes")
    with pytest.raises(
        UserError, match=r"notes\.md is not a Mimi of moshi's format or of this architecture: it holds no"
    ):
        load_network(tmp_path / "notes.md", None, num_codebooks=8, seed=0)


def test_foreign_weights_are_a_user_error(folder):
    from safetensors.torch import save_file

    file = folder.parent / "foreign.safetensors"
    save_file({"encoder.layers.0.conv.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match=r"(?s)not a Mimi of moshi's format.*kyutai/mimi"):
        Mimi(weights=str(file)).to("cpu")


def test_numbers_of_codebooks(folder, tmp_path):
    with pytest.raises(UserError, match="num_codebooks=33; allowed: 1 to 32"):
        Mimi(num_codebooks=33)
    config = json.loads((folder / "mimi_config.json").read_text())
    config["quantizer"]["n_q"] = 4
    (tmp_path / "mimi_config.json").write_text(json.dumps(config))
    (tmp_path / "mimi.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match=r"num_codebooks=8; the model in .* has 4"):
        _ = Mimi(weights=str(tmp_path), num_codebooks=8).info


def test_streaming_equals_the_full_pass_for_ten_seconds(codec):
    wav = noise(120 * 1920, items=2)
    full = codec.encode(wav, torch.tensor([wav.shape[-1]] * 2))
    streamed = torch.cat(list(codec.stream_encode(wav.split(5000, -1))), dim=-1)
    assert (streamed == stack(full)).float().mean() >= 0.999
    heard = torch.cat(list(codec.stream_decode(stack(full).split(7, -1))), dim=-1)
    assert (heard - codec.decode(full)[0]).abs().max() <= 1e-5


def test_streaming_differs_after_the_ring_is_full(codec):
    """The documented limit: if this fails, moshi has changed and the docstring must."""
    wav = noise(200 * 1920)
    full = stack(codec.encode(wav, torch.tensor([wav.shape[-1]])))
    streamed = torch.cat(list(codec.stream_encode([wav], frames_per_step=10)), dim=-1)
    differs = (streamed != full)[0].any(0).nonzero().flatten()
    assert len(differs) > 5
    assert differs[differs > 110].numel() > 5


def test_streaming_pads_the_end_and_closes(codec):
    steps = list(codec.stream_encode([noise(1000), noise(0), noise(3000)]))
    assert [tuple(codes.shape) for codes in steps] == [(1, 32, 1)] * 3
    stream = codec.stream_encode(iter([noise(4000), noise(4000)]))
    next(stream)
    assert torch.is_grad_enabled()
    with pytest.raises(RuntimeError, match="a stream is open"):
        codec.encode(noise(1920), torch.tensor([1920]))
    stream.close()
    codec.encode(noise(1920), torch.tensor([1920]))
    assert list(codec.stream_encode([])) == []


def test_streaming_is_float32_only(folder):
    with pytest.raises(UserError, match="float32 only"):
        next(Mimi(weights=str(folder), dtype="bfloat16").stream_encode([noise(1920)]))


def test_bfloat16_runs(codec, folder):
    half = Mimi(weights=str(folder), dtype="bfloat16")
    wav, lengths = noise(19200), torch.tensor([19200])
    codes = codec.encode(wav, lengths)
    assert stack(half.encode(wav, lengths)).shape == (1, 32, 10)
    assert (half.decode(codes)[0] - codec.decode(codes)[0]).abs().max() < 0.1


@pytest.mark.training
def test_compiled_equals_eager(codec, folder):
    compiled = Mimi(weights=str(folder), compile=True)
    for samples in (48000, 50001):
        wav, lengths = noise(samples), torch.tensor([samples])
        codes = codec.encode(wav, lengths)
        assert (stack(compiled.encode(wav, lengths)) == stack(codes)).float().mean() >= 0.999
        assert (compiled.decode(codes)[0] - codec.decode(codes)[0]).abs().max() <= 1e-5


@pytest.mark.slow
def test_full_size_random_codes_vary():
    codec = Mimi(weights="random", num_codebooks=8)
    codes = stack(codec.encode(noise(48000), torch.tensor([48000])))[0]
    assert min(len(book.unique()) for book in codes) > 5


def test_long_signals_are_encoded_in_chunks_with_the_bits_of_one_pass(folder):
    codec = Mimi(weights=str(folder)).to("cpu")
    wav = torch.rand(2, 1, 1920 * (2 * CHUNK_FRAMES + 7) - 5) - 0.5
    assert codec._chunks(wav)
    with torch.inference_mode():
        padded = torch.nn.functional.pad(wav, (0, 5))
        whole = seanet(codec._model.encoder.model, padded)
        assert torch.equal(codec._encode_in_chunks(padded), whole)
    assert not codec._model.encoder.is_streaming
