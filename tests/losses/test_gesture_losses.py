"""Losses of codes and of decoded motion, against values computed by hand or by a slow loop."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from voxlab.errors import UserError
from voxlab.losses.gesture import A2gLoss, Mean, code_accuracy, code_cross_entropy, motion_losses, soft_latents

LOGITS = 3 * torch.randn(2, 5, 3, 8, generator=torch.Generator().manual_seed(0))
CODES = torch.randint(8, (2, 5, 3), generator=torch.Generator().manual_seed(1))
MASKED = torch.tensor([[True, False, True, True, False], [False, False, True, False, False]])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_a_loop(smoothing: float) -> None:
    weights = [1, 2**-0.5, 0.5]
    total = 0.0
    for item, token in zip(*MASKED.nonzero(as_tuple=True), strict=True):
        for layer, weight in enumerate(weights):
            logs = LOGITS[item, token, layer].double().log_softmax(0)
            true = logs[CODES[item, token, layer]]
            total += weight / sum(weights) * float(-((1 - smoothing) * true + smoothing * logs.mean()))
    loss = code_cross_entropy(LOGITS, CODES, MASKED, label_smoothing=smoothing)
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert int(loss.count) == 4
    assert float(loss.value) == pytest.approx(total / 4, rel=1e-5)


def test_equal_logits_cost_ln_k_whatever_the_weights() -> None:
    for weights in (None, [5.0, 0.0, 1.0]):
        loss = code_cross_entropy(torch.zeros(2, 5, 3, 8), CODES, MASKED, layer_weights=weights)
        assert float(loss.value) == pytest.approx(math.log(8), rel=1e-6)


def test_visible_tokens_get_no_gradient_and_no_tokens_cost_nothing() -> None:
    logits = LOGITS.clone().requires_grad_()
    code_cross_entropy(logits, CODES, MASKED).value.backward()
    assert logits.grad is not None
    assert torch.equal((logits.grad != 0).any(dim=(2, 3)), MASKED)
    assert float(code_cross_entropy(LOGITS, CODES, torch.zeros_like(MASKED)).value) == 0.0


def test_two_ranks_weighted_by_their_counts_equal_one() -> None:
    both = code_cross_entropy(LOGITS, CODES, MASKED)
    parts = [code_cross_entropy(LOGITS[[row]], CODES[[row]], MASKED[[row]]) for row in range(2)]
    total = torch.stack([part.total for part in parts]).sum()
    count = torch.stack([part.count for part in parts]).sum()
    torch.testing.assert_close(Mean(total, count).value, both.value)


def test_accuracy_counts_hits() -> None:
    counts = {"top1": 0, "top5": 0}
    for item, token in zip(*MASKED.nonzero(as_tuple=True), strict=True):
        for layer in range(3):
            order = LOGITS[item, token, layer].argsort(descending=True).tolist()
            place = order.index(int(CODES[item, token, layer]))
            counts["top1"] += place < 1
            counts["top5"] += place < 5
    accuracy = code_accuracy(LOGITS, CODES, MASKED)
    assert {name: int(mean.total) for name, mean in accuracy.items()} == counts
    assert int(accuracy["top1"].count) == 12
    assert 0 < counts["top1"] < counts["top5"] < 12


@pytest.mark.parametrize("straight_through", [False, True])
def test_soft_latents_equal_a_loop(straight_through: bool) -> None:
    codebooks = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(2))
    found = soft_latents(LOGITS, codebooks, straight_through)
    for item, token in itertools.product(range(2), range(5)):
        rows = LOGITS[item, token]
        shares = F.one_hot(rows.argmax(1), 8).float() if straight_through else rows.softmax(1)
        expected = sum(shares[layer] @ codebooks[layer] for layer in range(3))
        torch.testing.assert_close(found[item, token], expected)


def test_straight_through_latents_have_the_gradient_of_soft_ones() -> None:
    codebooks, direction = torch.randn(3, 8, 4), torch.randn(2, 5, 4)
    gradients = []
    for straight_through in (False, True):
        logits = LOGITS.clone().requires_grad_()
        (soft_latents(logits, codebooks, straight_through) * direction).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def _values(decoded: Tensor, target: Tensor, mask: Tensor) -> dict[str, float]:
    return {name: float(mean.value) for name, mean in motion_losses(decoded, target, mask).items()}


def test_motion_that_is_off_by_a_constant_or_by_a_ramp() -> None:
    target, mask = torch.randn(2, 9, 4), torch.ones(2, 9, dtype=torch.bool)
    ramp = 0.25 * torch.arange(9.0)[:, None]
    assert _values(target, target, mask) == {"rec": 0.0, "velocity": 0.0, "acceleration": 0.0}
    small, large = _values(target + 0.5, target, mask), _values(target + 3, target, mask)
    assert [small["rec"], large["rec"]] == pytest.approx([0.5**2 / 2, 3 - 0.5], rel=1e-5)
    assert [small["velocity"], large["acceleration"]] == pytest.approx([0, 0], abs=1e-6)
    ramped = _values(target + ramp, target, mask)
    assert [ramped["velocity"], ramped["acceleration"]] == pytest.approx([0.25, 0], abs=1e-6)
    parabola = _values(target + 0.5 * torch.arange(9.0)[:, None] ** 2, target, mask)
    assert parabola["acceleration"] == pytest.approx(1, rel=1e-5)


def test_frames_past_the_end_count_nowhere() -> None:
    decoded, target = torch.randn(2, 2, 9, 4)
    mask = torch.arange(9) < torch.tensor([[9], [5]])
    noisy = torch.where(mask[..., None], decoded, 1000 * torch.randn(2, 9, 4))
    assert _values(noisy, target, mask) == pytest.approx(_values(decoded, target, mask))
    counts = {name: int(mean.count) for name, mean in motion_losses(decoded, target, mask).items()}
    assert counts == {"rec": 4 * 14, "velocity": 4 * 12, "acceleration": 4 * 10}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ce": -1.0}, "loss.ce=-1.0"),
        ({"label_smoothing": 1.0}, "give a share below 1"),
        ({"ce": 0.0, "rec": 0.0, "velocity": 0.0, "acceleration": 0.0}, "nothing to learn"),
        ({"rec": "much"}, "loss.rec='much'"),
    ],
)
def test_weights_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        A2gLoss(**wrong)  # type: ignore[arg-type]
