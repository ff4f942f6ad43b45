import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EncodecModel

from tests.tiny_models import write_tiny_encodec
from voxlab.codecs import encodec_front
from voxlab.codecs.base import single, stack
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.encodec_front import build_front


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_encodec(tmp_path_factory.mktemp("mono"))


@pytest.fixture(scope="module")
def codec(folder):
    return Encodec(weights=str(folder)).to("cpu")


def noise(samples, seed=0):
    return 0.1 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(2241, 30_000),
    fine=st.sampled_from([2, 3, 7, 32]),
    coarse=st.sampled_from([2, 5, 9, 75]),
)
def test_chunks_equal_the_modules(codec, samples, fine, coarse):
    wav = noise(samples, seed=samples)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(encodec_front, "FINE_FRAMES", fine)
        patch.setattr(encodec_front, "COARSE_FRAMES", coarse)
        front = build_front(codec._model.encoder, codec._model.config)
        assert front is not None
        fast = front(wav[0, 0])
        wanted = torch.nn.Sequential(*codec._layers[0])(wav)[0]
    assert fast.shape == wanted.shape == (64, -(-samples // 320))
    assert (fast - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 9_000), min_size=1, max_size=6), tail=st.sampled_from(["reference", "zeros"]))
def test_mixed_batches_equal_single_items(folder, lengths, tail):
    codec = Encodec(weights=str(folder), tail=tail)
    wav = noise(max(lengths) * len(lengths)).reshape(len(lengths), 1, -1)
    codes = codec.encode(wav, torch.tensor(lengths))
    for row, samples in enumerate(lengths):
        alone = codec.encode(wav[row : row + 1, :, :samples], torch.tensor([samples]))
        assert torch.equal(stack(alone), stack(single(codes, row)))


def test_codes_equal_those_of_transformers_in_a_mixed_batch(folder, codec):
    lengths = [48_123, 2_241, 24_000, 9_999, 319]
    wav = noise(48_123 * 5).reshape(5, 1, -1)
    codes = codec.encode(wav, torch.tensor(lengths))
    reference = EncodecModel.from_pretrained(folder)
    for row, samples in enumerate(lengths):
        with torch.no_grad():
            wanted = reference.encode(wav[row : row + 1, :, :samples], bandwidth=6.0, return_dict=False)[0]
        assert wanted is not None
        assert torch.equal(stack(single(codes, row)), wanted[0])


def test_other_architectures_keep_their_modules(tmp_path, codec):
    assert codec._front is not None
    stereo = EncodecModel.from_pretrained(write_tiny_encodec(tmp_path, stereo=True))
    assert build_front(stereo.encoder, stereo.config) is None
    config = EncodecModel.from_pretrained(codec.weights).config
    config.num_residual_layers = 2
    assert build_front(EncodecModel(config).encoder, config) is None
