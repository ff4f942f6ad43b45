"""Which training frames are used: nothing is lost on average, and every rank draws the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.data.laughter_labels import Labels
from voxlab.errors import UserError
from voxlab.tasks.laughter.sampling import near, sample
from voxlab.tasks.laughter.settings import Sampling

RATE = 12.5


def labels(
    frames: int, positives: tuple[int, ...] = (), masked: tuple[int, ...] = (), onsets: tuple[int, ...] = ()
) -> Labels:
    y, mask = np.zeros(frames, np.float32), np.ones(frames, bool)
    y[list(positives)] = 1
    mask[list(masked)] = False
    return Labels(y, mask, np.array(onsets, np.int64), np.zeros((0, 2), np.int64), {"events": len(onsets)})


def many(number: int = 40, frames: int = 5000) -> list[Labels]:
    generator = np.random.default_rng(3)
    found = []
    for _ in range(number):
        onset = int(generator.integers(300, frames - 300))
        found.append(labels(frames, tuple(range(onset - 5, onset)), tuple(range(onset, onset + 8)), (onset,)))
    return found


@given(st.lists(st.integers(0, 59), max_size=5), st.floats(0, 30))
def test_near_is_the_slow_loop(onsets: list[int], reach: float) -> None:
    expected = [any(abs(t - onset) <= reach for onset in onsets) for t in range(60)]
    assert near(np.array(onsets, np.int64), 60, reach).tolist() == expected


def test_all_counts_every_unmasked_frame_once() -> None:
    sampled = sample([labels(10, (2, 3), (4,), (4,))], Sampling(mode="all"), RATE, 0)
    assert sampled.weights[0].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    assert (sampled.num_pos, sampled.num_neg, sampled.offset) == (2, 7, 0)
    assert sampled.prior == pytest.approx(2 / 9)


def test_subsampling_keeps_what_matters_and_weighs_up_the_rest() -> None:
    items = many()
    sampled = sample(items, Sampling(neg_per_pos=50, near_s=10), RATE, 0)
    rest = 0.0
    for item, weight in zip(items, sampled.weights, strict=True):
        close = near(item.onsets, 5000, 125)
        assert (weight[(close | (item.y > 0)) & item.mask] == 1).all()
        assert (weight[~item.mask] == 0).all()
        others = weight[~close & item.mask & (item.y == 0)]
        assert len(set(others.tolist()) - {0.0}) == 1  # 1 / r
        rest += float((others > 0).sum())
    assert rest == pytest.approx(50 * 200, rel=0.05)
    total = sum(float(weight.sum(dtype=np.float64)) for weight in sampled.weights)
    assert total == pytest.approx(sampled.num_pos + sampled.num_neg, rel=0.02)
    assert (sampled.num_pos, sampled.num_neg) == (200, 40 * (5000 - 8) - 200)


def test_few_frames_are_all_used() -> None:
    sampled = sample([labels(300, (9,), (), (10,))], Sampling(neg_per_pos=1000), RATE, 0)
    assert sampled.weights[0].tolist() == [1] * 300


def test_balancing_gives_the_rate_and_its_correction() -> None:
    items = many()
    sampled = sample(items, Sampling(mode="balanced", rate=0.25), RATE, 0)
    kept = np.concatenate(sampled.weights) > 0
    y = np.concatenate([item.y for item in items])
    assert y[kept].mean() == pytest.approx(0.25, rel=0.1)
    assert sampled.prior == pytest.approx(y[kept].mean(), rel=1e-6)
    before = 200 / (40 * (5000 - 8) - 200)  # odds
    after = sampled.num_pos / sampled.num_neg
    assert sampled.offset == pytest.approx(np.log(before / after), rel=1e-6)


def test_the_draw_depends_on_the_seed_only() -> None:
    items = many(4)
    first, again, other = (sample(items, Sampling(neg_per_pos=5), RATE, seed).weights for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_soft_targets_count_by_their_sum() -> None:
    item = labels(100, (), (), (50,))
    item.y[40:50] = 0.5
    sampled = sample([item], Sampling(mode="all"), RATE, 0)
    assert (sampled.num_pos, sampled.num_neg) == (5, 95)


WRONG: list[tuple[Any, str]] = [
    (lambda: sample([labels(50)], Sampling(), RATE, 0), "0 positive and 50 negative, from 0 events"),
    (lambda: sample([labels(3, (0, 1, 2))], Sampling(), RATE, 0), "3 positive and 0 negative"),
    (lambda: sample([labels(4, (0, 1))], Sampling(mode="balanced", rate=0.3), RATE, 0), "0.5000 already"),
    (lambda: sample(many(1), Sampling(neg_per_pos=0), RATE, 0), "sampling.neg_per_pos=0"),
    (lambda: Sampling(mode="some"), "sampling.mode=some: choose subsample, all or balanced"),
    (lambda: Sampling(rate=1.0), "sampling.rate=1.0"),
    (lambda: Sampling(near_s=-1), "sampling.near_s=-1"),
    (lambda: Sampling(neg_per_pos="many"), "sampling.neg_per_pos='many': give a number"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_settings(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
