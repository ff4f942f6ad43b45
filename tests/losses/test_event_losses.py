"""Losses of rare events against closed forms, a slow loop, and their reference values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.errors import UserError
from voxlab.losses.events import AdaptiveFocal, BinaryCrossEntropy, EventLoss, Focal

Z, Y = torch.tensor([-2.0, 0.0, 3.0, -5.0]), torch.tensor([1.0, 0.0, 1.0, 0.0])
ONES, ALL = torch.ones(4), torch.ones(4, dtype=torch.bool)


def prepared(loss: EventLoss, num_pos: float = 5, num_neg: float = 995) -> EventLoss:
    loss.prepare(num_pos, num_neg)
    return loss


def mean(loss: EventLoss, z: torch.Tensor = Z, y: torch.Tensor = Y) -> float:
    total, count = loss(z, y, torch.ones_like(z), torch.ones_like(z, dtype=torch.bool))
    return float(total / count)


def test_reference_values() -> None:
    focal = prepared(Focal())
    each = focal.per_frame(Z, Y)
    assert each.tolist() == pytest.approx([0.412520, 0.129965, 2.73208e-5, 2.25607e-7], rel=1e-5)
    total, count = focal(Z, Y, ONES, ALL)
    assert float(total) == pytest.approx(0.542512, abs=1e-5)
    assert float(total / count) == pytest.approx(0.135628, abs=1e-5)
    adaptive = prepared(AdaptiveFocal())
    assert adaptive.class_weights.tolist() == pytest.approx([0.005, 0.995])
    assert mean(adaptive) == pytest.approx(0.410701, abs=1e-5)
    weighted = prepared(BinaryCrossEntropy())
    assert float(weighted.class_weights[1]) == 199
    assert mean(weighted) == pytest.approx(108.40685, abs=1e-4)
    half = prepared(Focal(alpha=0.5, gamma=0))
    plain = prepared(BinaryCrossEntropy(pos_weight=1))
    assert mean(half) == pytest.approx(mean(plain) / 2, rel=1e-6)


def test_cross_entropy_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = 5 * torch.randn(200, generator=generator), torch.rand(200, generator=generator)
    loss = prepared(BinaryCrossEntropy(pos_weight=3.5))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(3.5))
    assert mean(loss, z, y) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.9, 0.5), (0.5, 0.0), (0.25, 5.0)])
def test_focal_is_the_formula(alpha: float, gamma: float) -> None:
    z = np.linspace(-6, 6, 41)
    for target in (0, 1):
        p = 1 / (1 + np.exp(-z))
        p_t, a_t = (p, alpha) if target else (1 - p, 1 - alpha)
        expected = (-a_t * (1 - p_t) ** gamma * np.log(p_t)).mean()
        found = mean(prepared(Focal(alpha=alpha, gamma=gamma)), torch.tensor(z), torch.full((41,), float(target)))
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_gradients_are_finite_everywhere(gamma: float, dtype: torch.dtype) -> None:
    for loss in (Focal(gamma=gamma), AdaptiveFocal(gamma=gamma), BinaryCrossEntropy()):
        z = torch.tensor([-60.0, -16.75, -1.0, 0.0, 1.0, 16.75, 60.0] * 2).to(dtype).requires_grad_()
        y = torch.cat([torch.zeros(7), torch.ones(7)]).to(dtype)
        total, _ = prepared(loss)(z, y, torch.ones(14, dtype=dtype), torch.ones(14, dtype=torch.bool))
        assert total.dtype == torch.float32
        total.backward()
        assert z.grad is not None
        assert bool(z.grad.isfinite().all())
        assert float(z.grad[-7]) < 0  # a positive frame at -60 is pushed up, without underflow


def test_losses_ignore_autocast() -> None:
    loss = prepared(Focal())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = loss(Z.bfloat16(), Y, ONES, ALL)
    assert total.dtype == torch.float32
    assert float(total) == pytest.approx(0.542512, abs=1e-5)


@pytest.mark.parametrize("loss", [BinaryCrossEntropy(), Focal(), AdaptiveFocal()])
def test_masked_frames_have_no_gradient_whatever_they_hold(loss: EventLoss) -> None:
    z = torch.tensor([1.0, float("nan"), -2.0, float("inf")], requires_grad=True)
    mask = torch.tensor([True, False, True, False])
    y = torch.tensor([1.0, float("nan"), 0.0, 1.0])
    total, count = prepared(loss)(z, y, torch.tensor([2.0, 7.0, 1.0, float("nan")]), mask)
    total.backward()
    assert float(count) == 3.0
    assert z.grad is not None
    assert z.grad[~mask].tolist() == [0.0, 0.0]
    assert bool((z.grad[mask] != 0).all())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 39), st.integers(0, 2**31 - 1))
def test_the_mean_does_not_depend_on_how_a_batch_is_split(cut: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z, weight = torch.randn(2, 40, generator=generator, dtype=torch.float64)
    y, mask = (torch.rand(2, 40, generator=generator) < 0.5).unbind()
    given_ = (z, y.double(), weight.abs(), mask)
    loss = prepared(Focal())
    whole = loss(*given_)
    parts = [loss(*(row[part] for row in given_)) for part in (slice(cut), slice(cut, None))]
    for whole_value, values in zip(whole, zip(*parts, strict=True), strict=True):
        assert float(sum(values)) == pytest.approx(float(whole_value), rel=1e-9, abs=1e-12)


def test_weights_are_repetitions() -> None:
    loss = prepared(BinaryCrossEntropy(pos_weight=1))
    twice = loss(torch.cat([Z, Z[:1]]), torch.cat([Y, Y[:1]]), torch.ones(5), torch.ones(5, dtype=torch.bool))
    weighted = loss(Z, Y, torch.tensor([2.0, 1, 1, 1]), ALL)
    assert [float(value) for value in weighted] == pytest.approx([float(value) for value in twice])


@pytest.mark.parametrize(("prior", "expected"), [(0.001, -6.907), (0.005, -5.293), (0.01, -4.595)])
def test_initial_bias(prior: float, expected: float) -> None:
    num = (prior * 1e6, (1 - prior) * 1e6)
    assert prepared(BinaryCrossEntropy(pos_weight=1), *num).initial_bias(prior) == pytest.approx(expected, abs=1e-3)
    assert prepared(BinaryCrossEntropy(), *num).initial_bias(prior) == pytest.approx(0, abs=1e-6)
    assert prepared(AdaptiveFocal(), *num).initial_bias(prior) == pytest.approx(0, abs=1e-6)
    focal = prepared(Focal(alpha=0.25)).initial_bias(prior)
    weighted = 0.25 * prior / (0.25 * prior + 0.75 * (1 - prior))
    assert focal == pytest.approx(math.log(weighted / (1 - weighted)), rel=1e-9)


def test_focal_starts_lower_from_the_prior() -> None:
    """Reference values at prior 0.005: 0.1295 from bias 0, 0.00656 from logit(prior)."""
    y = torch.zeros(200, dtype=torch.float64)
    y[0] = 1
    loss = prepared(Focal())
    assert mean(loss, torch.zeros(200, dtype=torch.float64), y) == pytest.approx(0.1295, abs=1e-4)
    start = math.log(0.005 / 0.995)
    assert mean(loss, torch.full((200,), start, dtype=torch.float64), y) == pytest.approx(0.00656, abs=1e-5)


@pytest.mark.parametrize(("prior", "best"), [(0.001, 0.0503), (0.005, 0.0863), (0.01, 0.1084)])
def test_the_best_constant_of_focal_is_no_probability(prior: float, best: float) -> None:
    p = torch.linspace(0.001, 0.3, 3000, dtype=torch.float64)
    loss, z = prepared(Focal()), torch.logit(p)
    risk = prior * loss.per_frame(z, torch.ones_like(z)) + (1 - prior) * loss.per_frame(z, torch.zeros_like(z))
    assert float(p[risk.argmin()]) == pytest.approx(best, abs=2e-4)


def test_the_running_prior_follows_the_batches() -> None:
    loss = prepared(AdaptiveFocal(adapt="ema"), 1, 99)
    assert loss.class_weights.tolist() == pytest.approx([0.01, 0.99])
    share = 0.01  # of positive frames: the weight of negative ones
    for num_pos in (10.0, 0.0, 3.0):
        loss.observe(torch.tensor(num_pos), torch.tensor(20.0))
        share = 0.99 * share + 0.01 * num_pos / 20
    assert loss.class_weights.tolist() == pytest.approx([share, 1 - share], rel=1e-6)
    fixed = prepared(AdaptiveFocal(), 1, 99)
    fixed.observe(torch.tensor(10.0), torch.tensor(20.0))
    assert fixed.class_weights.tolist() == pytest.approx([0.01, 0.99])


def test_auto_weights_can_be_capped() -> None:
    assert float(prepared(BinaryCrossEntropy(pos_weight_max=50)).class_weights[1]) == 50
    assert float(prepared(BinaryCrossEntropy(pos_weight=80, pos_weight_max=50)).class_weights[1]) == 80


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Focal(alpha=1.5), "loss.alpha=1.5: give a number from 0 to 1"),
        (lambda: Focal(alpha=-0.1), "loss.alpha=-0.1"),
        (lambda: Focal(gamma=-1), "loss.gamma=-1: give a number of 0 or more"),
        (lambda: Focal(gamma=float("nan")), "loss.gamma=nan"),
        (lambda: Focal(reduction="max"), "choose mean or sum"),
        (lambda: AdaptiveFocal(gamma=-0.5), "loss.gamma=-0.5"),
        (lambda: AdaptiveFocal(adapt="often"), "choose none or ema"),
        (lambda: BinaryCrossEntropy(pos_weight=0), "loss.pos_weight=0: give a number above 0 or auto"),
        (lambda: BinaryCrossEntropy(pos_weight="much"), "loss.pos_weight='much'"),
        (lambda: BinaryCrossEntropy(pos_weight_max=-3), "loss.pos_weight_max=-3"),
        (lambda: BinaryCrossEntropy().prepare(0, 10), "0 positive and 10 negative"),
        (lambda: AdaptiveFocal().prepare(3, 0), "3 positive and 0 negative"),
    ],
)
def test_wrong_settings(make, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        make()
