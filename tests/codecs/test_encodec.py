import pytest
import torch
from transformers import EncodecModel

from tests.tiny_models import write_tiny_encodec
from voxlab.codecs.base import Codes, single, stack
from voxlab.codecs.encodec import Encodec, overlap_add
from voxlab.codecs.encodec_package import to_package
from voxlab.errors import UserError

LENGTHS = {24000: (1, 319, 320, 321, 1921, 24000, 24001, 48123), 48000: (1, 321, 24001, 47521, 48000, 48123, 96001)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        24000: write_tiny_encodec(tmp_path_factory.mktemp("mono")),
        48000: write_tiny_encodec(tmp_path_factory.mktemp("stereo"), stereo=True),
    }


@pytest.fixture(scope="module")
def packages(folders):
    pytest.importorskip("encodec")
    return {rate: to_package(EncodecModel.from_pretrained(folder)).eval() for rate, folder in folders.items()}


def noise(rate, items=1, seed=1):
    samples, channels = max(LENGTHS[rate]), 1 if rate == 24000 else 2
    return 0.1 * torch.randn(items, channels, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("backend", ["transformers", "encodec"])
@pytest.mark.parametrize(("rate", "bandwidth"), [(24000, 1.5), (24000, 24.0), (48000, 3.0), (48000, 24.0)])
def test_codes_and_audio_equal_the_package(folders, packages, backend, rate, bandwidth):
    codec, package = Encodec(weights=str(folders[rate]), bandwidth=bandwidth, backend=backend), packages[rate]
    package.set_target_bandwidth(bandwidth)
    for samples in LENGTHS[rate]:
        wav = noise(rate)[..., :samples]
        with torch.no_grad():
            frames = package.encode(wav)
            wanted = package.decode(frames)[..., :samples]
        codes = codec.encode(wav, torch.tensor([samples]))
        assert torch.equal(stack(codes), torch.cat([frame[0] for frame in frames], dim=-1))
        if rate == 48000:
            assert torch.equal(codes.scales, torch.cat([frame[1] for frame in frames], dim=-1))
        decoded, lengths = codec.decode(codes)
        assert lengths.tolist() == [samples]
        assert (decoded - wanted).abs().max() <= 1e-6


@pytest.mark.parametrize("samples", LENGTHS[24000])
def test_codes_equal_transformers_called_directly(folders, samples):
    codec, wav = Encodec(weights=str(folders[24000])), noise(24000)[..., :samples]
    with torch.no_grad():
        wanted = EncodecModel.from_pretrained(folders[24000]).encode(wav, bandwidth=6.0).audio_codes[0]
    assert torch.equal(stack(codec.encode(wav, torch.tensor([samples]))), wanted)


@pytest.mark.parametrize(
    ("rate", "bandwidth", "books"),
    [(24000, kbps, n) for kbps, n in zip((1.5, 3.0, 6.0, 12.0, 24.0), (2, 4, 8, 16, 32), strict=True)]
    + [(48000, kbps, n) for kbps, n in zip((3.0, 6.0, 12.0, 24.0), (2, 4, 8, 16), strict=True)],
)
def test_bandwidths_are_codebooks_and_prefixes(folders, rate, bandwidth, books):
    codec = Encodec(weights=str(folders[rate]), bandwidth=bandwidth)
    full = Encodec(weights=str(folders[rate]), bandwidth=24.0)
    wav, lengths = noise(rate)[..., :9600], torch.tensor([9600])
    assert codec.info.num_codebooks == books
    assert codec.info.bitrate == bandwidth * 1000
    assert torch.equal(stack(codec.encode(wav, lengths)), stack(full.encode(wav, lengths))[:, :books])


@pytest.mark.parametrize("rate", [24000, 48000])
def test_batch_equals_single(folders, rate):
    codec = Encodec(weights=str(folders[rate]), bandwidth=3.0)
    samples = torch.tensor([*LENGTHS[rate], LENGTHS[rate][-1]])
    wav = noise(rate, items=len(samples))
    codes = codec.encode(wav, samples)
    decoded, lengths = codec.decode(codes)
    assert lengths.tolist() == samples.tolist()
    for row, n in enumerate(samples.tolist()):
        alone = codec.encode(wav[row : row + 1, :, :n], torch.tensor([n]))
        assert (stack(alone) == stack(single(codes, row))).float().mean() >= 0.999
        wanted, _ = codec.decode(single(codes, row))
        assert (decoded[row, :, :n] - wanted[0]).abs().max() <= 1e-5
        assert decoded[row, :, n:].abs().sum() == 0


def test_zero_tail_batches_any_lengths(folders):
    codec = Encodec(weights=str(folders[24000]), tail="zeros")
    samples = torch.tensor(LENGTHS[24000])
    wav = noise(24000, items=len(samples))
    codes = codec.encode(wav, samples)
    for row, n in enumerate(samples.tolist()):
        alone = codec.encode(wav[row : row + 1, :, :n], torch.tensor([n]))
        assert (stack(alone) == stack(single(codes, row))).float().mean() >= 0.999
        padded = torch.nn.functional.pad(wav[row : row + 1, :, :n], (0, -n % 320))
        whole = Encodec(weights=str(folders[24000])).encode(padded, torch.tensor([padded.shape[-1]]))
        assert torch.equal(stack(alone), stack(whole))


def test_latents_of_a_zero_padded_item_do_not_move(folders):
    codec, wav = Encodec(weights=str(folders[24000])).to("cpu"), noise(24000)[..., :9600]
    with torch.no_grad():
        alone = codec._model.encoder(wav)
        padded = codec._model.encoder(torch.nn.functional.pad(wav, (0, 3200)))[..., :30]
    assert (alone - padded).abs().max() <= 1e-6


def test_codes_vary(folders):
    codes = stack(Encodec(weights=str(folders[24000])).encode(noise(24000), torch.tensor([48123])))[0]
    assert min(len(book.unique()) for book in codes) > 4


def test_long_items_are_refused(folders):
    codec = Encodec(weights=str(folders[24000]), max_seconds=1)
    with pytest.raises(ValueError, match=r"an item of 2\.0 s; allowed are 1\..*codec\.max_seconds"):
        codec.encode(noise(24000)[..., :48000], torch.tensor([48000]))


def test_stereo_decode_needs_its_segments(folders):
    codec = Encodec(weights=str(folders[48000]))
    codes = codec.encode(noise(48000), torch.tensor([96001]))
    with pytest.raises(ValueError, match="need num_samples and scales"):
        codec.decode(Codes(codes.codebooks, codes.lengths))
    with pytest.raises(ValueError, match="num_samples asks for"):
        codec.decode(Codes(codes.codebooks, codes.lengths, codes.scales, torch.tensor([48000])))


def test_bad_arguments(folders):
    for arguments, message in [
        ({"backend": "jax"}, "backend='jax' is unknown; allowed: transformers, encodec"),
        ({"tail": "ones"}, "tail='ones' is unknown; allowed: reference, zeros"),
        ({"sample_rate": 16000}, "sample_rate=16000; allowed: 24000, 48000"),
        ({"compile": True}, "compile=true gains nothing"),
    ]:
        with pytest.raises(UserError, match=message):
            Encodec(**arguments)
    for arguments, message in [
        ({"sample_rate": 48000}, "holds a model of 24000 Hz"),
        ({"bandwidth": 5.0}, r"bandwidth=5\.0; allowed: \[1\.5"),
    ]:
        with pytest.raises(UserError, match=message):
            _ = Encodec(weights=str(folders[24000]), **arguments).info
    with pytest.raises(UserError, match="tail=zeros works with the causal"):
        _ = Encodec(weights=str(folders[48000]), tail="zeros").info


def test_overlap_add_keeps_a_constant():
    parts = [torch.ones(2, 100), torch.ones(2, 100), torch.ones(2, 7)]
    assert torch.allclose(overlap_add(parts, 99), torch.ones(2, 205))


@pytest.mark.slow
def test_full_size_random_weights_have_varied_codes():
    codec = Encodec(weights="random")
    codes = stack(codec.encode(noise(24000), torch.tensor([24000])))[0]
    assert min(len(book.unique()) for book in codes) > 5
    assert codec.info.weights_id == "random:0"
