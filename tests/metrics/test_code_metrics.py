"""Use, entropy and rates of codebooks against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxlab.codecs.base import CodecInfo
from voxlab.metrics import codes


def test_even_use_has_ten_bits_of_1024_entries():
    even = codes.describe_use(torch.full((1024,), 3))
    assert (even.entropy, even.normalized_entropy, even.perplexity) == pytest.approx((10.0, 1.0, 1024.0))
    assert (even.used, even.use, even.num_codes) == (1024, 1.0, 3072)
    assert not even.is_enough
    assert codes.describe_use(torch.full((1024,), 5)).is_enough


def test_5120_even_draws_use_99_percent():
    drawn = torch.randint(1024, (5120,), generator=torch.Generator().manual_seed(0))
    found = codes.describe_use(codes.count_codes(drawn, 1024))
    assert found.use == pytest.approx(0.993, abs=0.005)
    assert found.ceiling == pytest.approx(0.9933, abs=1e-4)


@pytest.mark.parametrize(("draws", "share"), [(0, 0.0), (1, 1 / 1024), (1024, 0.632), (2048, 0.865), (5120, 0.993)])
def test_the_ceiling(draws, share):
    assert codes.use_ceiling(draws, 1024) == pytest.approx(share, abs=1e-3)
    assert codes.use_ceiling(draws, 1024) == pytest.approx(1 - (1 - 1 / 1024) ** draws)


def test_edges():
    nothing = codes.describe_use(torch.zeros(16, dtype=torch.int64))
    assert (nothing.entropy, nothing.use, nothing.ceiling, nothing.perplexity) == (0, 0, 0, 1)
    assert codes.entropy_bits(torch.tensor([7, 0, 0])) == 0
    assert codes.describe_use(torch.tensor([7])).normalized_entropy == 0
    with pytest.raises(ValueError, match=r"codes from 0 to 4; a codebook of 4 entries has 0\.\.3"):
        codes.count_codes(torch.tensor([0, 4]), 4)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_entropy_is_that_of_its_definition(counts):
    total = sum(counts)
    expected = -sum(c / total * math.log2(c / total) for c in counts if c) if total else 0.0
    found = codes.entropy_bits(torch.tensor(counts))
    assert found == pytest.approx(expected, abs=1e-9)
    assert found <= math.log2(max(1, sum(c > 0 for c in counts))) + 1e-9


def test_even_use_costs_the_nominal_bitrate():
    info = CodecInfo("snac", 24000, 1, 512, 3, 4096, (4, 2, 1), "random:0")
    even = [torch.ones(4096, dtype=torch.int64)] * 3
    assert codes.entropy_coded_bitrate(even, info.frame_rate, info.strides) == pytest.approx(info.bitrate)
    halves = [torch.tensor([1, 1])] * 3
    assert codes.entropy_coded_bitrate(halves, 46.875, (4, 2, 1)) == pytest.approx(46.875 * 1.75)


def test_agreement_counts_the_shared_frames():
    one = [torch.tensor([1, 2, 3]), torch.tensor([5])]
    other = [torch.tensor([1, 9]), torch.tensor([5, 6])]
    assert codes.agreement(one, other) == [(1, 2), (1, 1)]
