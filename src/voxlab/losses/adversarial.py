"""Least-squares adversarial losses of generator and discriminators, and the distance of discriminator features.

Source: Mao et al. 2017, "Least Squares Generative Adversarial Networks"; Kong et al. 2020, "HiFi-GAN", section 2.3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return sum_i mean (1 - D_i(x))^2 + mean D_i(x')^2 over the scores of the discriminators (any shapes)."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(1 - r).square().mean() + f.square().mean() for r, f in pairs]).sum()


def adversarial_loss(fake: Sequence[Tensor]) -> Tensor:
    """Return sum_i mean (1 - D_i(x'))^2: what the generator minimises."""
    return torch.stack([(1 - scores).square().mean() for scores in fake]).sum()


def feature_loss(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Return the sum over all layers of the mean absolute difference; no gradient flows into the real features."""
    pairs = zip(real, fake, strict=True)
    return torch.stack([(f - r.detach()).abs().mean() for r, f in pairs]).sum()
