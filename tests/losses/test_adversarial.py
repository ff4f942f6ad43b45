"""Adversarial losses against closed forms."""

import pytest
import torch

from voxlab.losses.adversarial import adversarial_loss, discriminator_loss, feature_loss


def test_perfect_and_fooled_discriminators() -> None:
    ones, zeros = [torch.ones(2, 1, 3), torch.ones(2, 5)], [torch.zeros(2, 1, 3), torch.zeros(2, 5)]
    assert discriminator_loss(ones, zeros).item() == 0.0
    assert discriminator_loss(zeros, ones).item() == 4.0
    assert adversarial_loss(ones).item() == 0.0
    assert adversarial_loss(zeros).item() == 2.0


def test_values_and_gradients_equal_the_formula() -> None:
    real = torch.tensor([0.25, 0.75], dtype=torch.float64, requires_grad=True)
    fake = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    loss = discriminator_loss([real], [fake])
    loss.backward()
    assert loss.item() == pytest.approx((0.75**2 + 0.25**2) / 2 + (0.25 + 1) / 2)
    torch.testing.assert_close(real.grad, real.detach() - 1)
    torch.testing.assert_close(fake.grad, fake.detach())
    fake.grad = None
    adversarial_loss([fake]).backward()
    torch.testing.assert_close(fake.grad, fake.detach() - 1)


def test_feature_loss_sums_layer_means_and_moves_only_the_decoded_side() -> None:
    real = [torch.zeros(2, 3, requires_grad=True), torch.zeros(4, requires_grad=True)]
    fake = [torch.full((2, 3), 2.0, requires_grad=True), torch.full((4,), -3.0, requires_grad=True)]
    loss = feature_loss(real, fake)
    loss.backward()
    assert loss.item() == 5.0
    assert [part.grad for part in real] == [None, None]
    torch.testing.assert_close(fake[0].grad, torch.full((2, 3), 1 / 6))
    torch.testing.assert_close(fake[1].grad, torch.full((4,), -0.25))


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        feature_loss([torch.zeros(1)], [])
