import hashlib

import pytest
import torch

from voxlab.codecs.base import (
    CodecInfo,
    Codes,
    check_codes,
    check_wav,
    collate,
    item_seed,
    single,
    stack,
    strides_of,
    unstack,
    zero_past,
)

SNAC = CodecInfo("snac", 24000, 1, 512, 3, 4096, (4, 2, 1), "random:0")
FLAT = CodecInfo("flat", 24000, 1, 1920, 2, 2048, (1, 1), "random:0")


def hierarchical(*groups: int) -> Codes:
    items = [Codes(tuple(torch.arange(1, 1 + n * k)[None] for k in (1, 2, 4)), torch.tensor([4 * n])) for n in groups]
    return collate(items)


def test_rates():
    assert SNAC.frame_rate == 46.875
    assert SNAC.bitrate == 984.375
    assert FLAT.bitrate == 275


def test_collate_pads_and_single_undoes_it():
    codes = hierarchical(3, 1)
    assert [tuple(book.shape) for book in codes.codebooks] == [(2, 3), (2, 6), (2, 12)]
    assert strides_of(codes) == (4, 2, 1)
    assert codes.codebooks[1][1].tolist() == [1, 2, 0, 0, 0, 0]
    assert [book.tolist() for book in single(codes, 1).codebooks] == [[[1]], [[1, 2]], [[1, 2, 3, 4]]]


def test_collate_refuses_mixed_fields():
    book = (torch.zeros(1, 1, dtype=torch.int64),)
    with_samples = Codes(book, torch.tensor([1]), num_samples=torch.tensor([5]))
    assert collate([with_samples, with_samples]).num_samples.tolist() == [5, 5]
    with pytest.raises(ValueError, match="1 of 2 items have num_samples"):
        collate([with_samples, Codes(book, torch.tensor([1]))])
    with pytest.raises(ValueError, match="nothing to collate"):
        collate([])


def test_stack_and_unstack():
    codes = unstack(torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]]), torch.tensor([2, 1]))
    assert stack(codes).tolist() == [[[1, 2], [3, 4]], [[5, 0], [7, 0]]]
    with pytest.raises(ValueError, match="different rates"):
        stack(hierarchical(2))


def test_check_codes_names_item_codebook_value_and_range():
    codes = hierarchical(2, 1)
    codes.codebooks[1][0, 3] = 4096
    with pytest.raises(ValueError, match=r"item 0, codebook 1, frame 3: code 4096 .* allowed 0\.\.4095"):
        check_codes(codes, SNAC)


def test_check_codes_ignores_padding_and_catches_negatives():
    codes = hierarchical(2, 1)
    codes.codebooks[0][1, 1] = 9999
    check_codes(codes, SNAC)
    codes.codebooks[0][1, 0] = -1
    with pytest.raises(ValueError, match="item 1, codebook 0, frame 0: code -1"):
        check_codes(codes, SNAC)


@pytest.mark.parametrize(("widths", "frames"), [((1, 2, 3), 3), ((1, 2, 4), 0), ((1, 2, 4), 2), ((1, 2, 4), 8)])
def test_check_codes_refuses_other_ratios_and_lengths(widths, frames):
    codes = Codes(tuple(torch.zeros(1, n, dtype=torch.int64) for n in widths), torch.tensor([frames]))
    with pytest.raises(ValueError, match=r"codebooks of|frames; allowed"):
        check_codes(codes, SNAC)


def test_check_codes_refuses_other_numbers_of_codebooks():
    with pytest.raises(ValueError, match="got 3 codebooks, needs 2"):
        check_codes(hierarchical(1), FLAT)


def test_check_wav_and_zero_past():
    wav = torch.ones(2, 1, 4)
    assert check_wav(wav, torch.tensor([4, 1]), FLAT).tolist() == [4, 1]
    assert zero_past(wav, torch.tensor([4, 1]))[:, 0].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    for bad_wav, bad_lengths in (
        (wav[0], [4]),
        (wav.expand(2, 2, 4), [4, 4]),
        (wav, [5, 1]),
        (wav, [0, 1]),
        (wav, [4]),
    ):
        with pytest.raises(ValueError, match="flat: "):
            check_wav(bad_wav, torch.tensor(bad_lengths), FLAT)


def test_item_seed_is_the_documented_hash():
    digest = hashlib.sha256(b"7|# 1 2 3").digest()
    assert item_seed(7, "# 1 2 3") == int.from_bytes(digest[:8], "little") % 2**63
    assert item_seed(8, "# 1 2 3") != item_seed(7, "# 1 2 3")
