import json

import pytest
import torch
from snac import SNAC
from torch.nn.utils import parametrize

from tests.tiny_models import write_tiny_snac
from voxlab.codecs.base import Codes, collate, single
from voxlab.codecs.snac import CONFIG_24KHZ, Snac
from voxlab.errors import UserError

GROUPS = (12, 17, 23, 31, 40, 44, 52, 60)  # the batch of the acceptance check


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_snac(tmp_path_factory.mktemp("snac"))


@pytest.fixture(scope="module")
def upstream(folder):
    return SNAC.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def codec(folder):
    return Snac(weights=str(folder)).to("cpu")


def draw(groups: int, seed: int = 0) -> Codes:
    generator = torch.Generator().manual_seed(seed)
    books = [torch.randint(0, 4096, (1, groups * k), generator=generator) for k in (1, 2, 4)]
    return Codes(tuple(books), torch.tensor([4 * groups]))


def reference(model, codes: Codes, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return model.decode(list(codes.codebooks))


@pytest.mark.parametrize("groups", [1, 5, 40])
def test_seeded_decode_equals_the_package_bit_for_bit(codec, upstream, groups):
    codes = draw(groups)
    assert torch.equal(codec.decode(codes, [77])[0], reference(upstream, codes, 77))


@pytest.mark.parametrize("groups", [1, 5, 40])
def test_noise_off_equals_the_package_with_zero_magnitude(folder, groups):
    model = SNAC.from_pretrained(str(folder))
    for name, parameter in model.named_parameters():
        if name.endswith("linear.parametrizations.weight.original0"):
            parameter.data.zero_()
    codes = draw(groups)
    quiet = Snac(weights=str(folder), noise="off")
    assert torch.equal(quiet.decode(codes)[0], reference(model, codes, 0))


def test_native_noise_follows_the_global_generator(folder, upstream):
    codes = draw(4)
    native = Snac(weights=str(folder), noise="native")
    torch.manual_seed(3)
    assert torch.equal(native.decode(codes)[0], reference(upstream, codes, 3))


def test_batch_equals_single_over_all_samples(codec):
    items = [draw(groups, groups) for groups in GROUPS]
    wav, lengths = codec.decode(collate(items), seeds=GROUPS)
    assert lengths.tolist() == [2048 * groups for groups in GROUPS]
    for row, (item, groups) in enumerate(zip(items, GROUPS, strict=True)):
        alone, _ = codec.decode(item, [groups])
        assert (wav[row, :, : lengths[row]] - alone[0]).abs().max() <= 5e-6
        assert wav[row, :, lengths[row] :].abs().sum() == 0


def test_naive_padding_would_be_wrong(upstream):
    """The control: the same batch through the package errs where ours does not."""
    items = [draw(groups, groups) for groups in (4, 8)]
    padded = collate(items)
    for block in upstream.modules():
        if type(block).__name__ == "NoiseBlock":
            block.forward = lambda x: x
    naive = reference(upstream, padded, 0)[0, :, : 4 * 2048]
    error = (naive - reference(upstream, items[0], 0)[0]).abs()
    for block in upstream.modules():
        block.__dict__.pop("forward", None)
    assert error[:, -512:].max() > 1e-3
    assert error[:, :2048].max() < 1e-6


def test_order_of_items_and_batch_do_not_matter(codec):
    items = [draw(groups, groups) for groups in (3, 9, 6)]
    forward, _ = codec.decode(collate(items), [1, 2, 3])
    backward, _ = codec.decode(collate(items[::-1]), [3, 2, 1])
    assert (forward - backward.flip(0)).abs().max() <= 1e-6


def test_seeds_follow_from_the_codes_when_not_given(codec):
    items = [draw(3, 1), draw(5, 2)]
    batch, lengths = codec.decode(collate(items))
    alone, _ = codec.decode(items[0])
    assert (batch[0, :, : lengths[0]] - alone[0]).abs().max() <= 1e-6
    with pytest.raises(ValueError, match="got 1 seeds for 2 items"):
        codec.decode(collate(items), [1])


@pytest.mark.parametrize("groups", [(35,), (35, 10, 11, 13, 21, 2)])
def test_chunks_equal_one_shot(codec, folder, groups):
    items = collate([draw(n, n) for n in groups])
    chunked = Snac(weights=str(folder), chunk_groups=10)
    assert (chunked.decode(items, groups)[0] - codec.decode(items, groups)[0]).abs().max() <= 5e-6


def test_encode_equals_the_package_and_batches(codec, upstream):
    lengths = torch.tensor([30000, 1, 2048, 2049, 12345])
    wav = 0.1 * torch.randn(5, 1, 30000, generator=torch.Generator().manual_seed(0))
    codes = codec.encode(wav, lengths)
    assert codes.lengths.tolist() == [60, 4, 4, 8, 28]
    for row, samples in enumerate(lengths.tolist()):
        with torch.no_grad():
            wanted = upstream.encode(wav[row : row + 1, :, :samples])
        assert all(torch.equal(a, b) for a, b in zip(wanted, single(codes, row).codebooks, strict=True))
    assert len(codes.codebooks[2][0].unique()) > 5


def test_decode_keeps_the_original_length(codec):
    wav = 0.1 * torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(0))
    decoded, lengths = codec.decode(codec.encode(wav, torch.tensor([5000, 3000])))
    assert lengths.tolist() == [5000, 3000]
    assert decoded.shape == (2, 1, 5000)
    assert decoded[1, :, 3000:].abs().sum() == 0


def test_weight_norm_is_folded(codec):
    assert not any(parametrize.is_parametrized(module) for module in codec._model.modules())


def test_attention_models_are_refused(tmp_path):
    folder = write_tiny_snac(tmp_path / "snac")
    config = json.loads((folder / "config.json").read_text()) | {"attn_window_size": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"windowed attention.*snac_24khz"):
        _ = Snac(weights=str(folder)).info


def test_bad_arguments():
    with pytest.raises(UserError, match="noise='loud' is unknown; allowed: seeded, off, native"):
        Snac(noise="loud")
    with pytest.raises(UserError, match="chunk_groups=0"):
        Snac(chunk_groups=0)


def test_random_weights_follow_the_seed_and_leave_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    codec = Snac(weights="random", random_seed=1)
    codec._config = CONFIG_24KHZ | {"encoder_dim": 4, "decoder_dim": 16}  # the full size takes seconds
    wav, _ = codec.to("cpu").decode(draw(2), [0])
    assert torch.equal(before, torch.random.get_rng_state())
    assert codec.info.weights_id == "random:1"
    assert wav.std() > 0


def test_bfloat16_is_close_and_stamped(codec, folder):
    half = Snac(weights=str(folder), dtype="bfloat16")
    codes = draw(6)
    wav, _ = half.decode(codes, [1])
    assert wav.dtype == torch.float32
    assert (wav - codec.decode(codes, [1])[0]).abs().max() < 0.05
    assert half.fingerprint()["dtype"] == "bfloat16"


@pytest.mark.slow
def test_compiled_equals_eager(codec, folder):
    compiled = Snac(weights=str(folder), compile=True)
    for items in ([draw(7), draw(3)], [draw(5), draw(9), draw(2)]):
        codes, seeds = collate(items), list(range(len(items)))
        assert (compiled.decode(codes, seeds)[0] - codec.decode(codes, seeds)[0]).abs().max() <= 1e-5


@pytest.mark.slow
def test_full_size_batch_equals_single_and_the_package():
    codec = Snac(weights="random")
    torch.manual_seed(0)
    model = SNAC(**CONFIG_24KHZ).eval()
    items = [draw(groups, groups) for groups in (3, 12, 6)]
    wav, lengths = codec.decode(collate(items), [1, 2, 3])
    for row, item in enumerate(items):
        alone, _ = codec.decode(item, [row + 1])
        assert torch.equal(alone, reference(model, item, row + 1))
        assert (wav[row, :, : lengths[row]] - alone[0]).abs().max() <= 5e-6
