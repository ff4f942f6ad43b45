"""Training of networks that return audio (wave codec, vocoder): multi-scale mel distance and discriminators."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.losses.adversarial import adversarial_loss, discriminator_loss, feature_loss
from voxlab.losses.spectral import MultiScaleMel
from voxlab.models.tokenizer.discriminators import DiscriminatorArchitecture, Judgement
from voxlab.models.tokenizer.output import Output
from voxlab.tasks.train_tokenizer.module import Batch, TokenizerModule

DISCRIMINATORS = {"msstft": ("msstft",), "mpd_mrd": ("mpd", "mrd")}


class GanModule(TokenizerModule):
    """Trains on 15 mel + 1 adversarial + 2 feature + 0.25 commitment (weights as given), after `adv_start_step`.

    Each batch is first a descent of the discriminators, then one of the network, whose pass leaves the discriminators
    without gradients. Earlier batches train the network alone.

    Args:
        network: returns an `Output` of audio.
        architecture: what built it.
        settings: those of `TokenizerModule`; `loss` has the keys of conf/loss/tokenizer.yaml.

    Raises:
        UserError: `loss.<family>.discriminators` is unknown, or the segments are shorter than their longest window.

    Source: weights and losses of Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN" (DAC).
    """

    monitor = "val/mel_ms"

    def __init__(self, network: nn.Module, architecture: Any, **settings: Any) -> None:
        super().__init__(network, architecture, **settings)
        key, kinds = f"loss.{architecture.family}.discriminators", self.loss["discriminators"]
        if kinds not in DISCRIMINATORS:
            raise UserError(f"{key}={kinds!r} is unknown; allowed: {', '.join(DISCRIMINATORS)}")
        described = DiscriminatorArchitecture(kinds=DISCRIMINATORS[kinds])
        shortest = max(described.windows) / architecture.sample_rate
        if self.fit.segment_seconds < shortest:
            raise UserError(
                f"fit.segment_seconds={self.fit.segment_seconds}: the discriminators need at least {shortest:.3f} s "
                f"({max(described.windows)} samples at {architecture.sample_rate} Hz)"
            )
        self.discriminators = described.build()
        self.mel_distance = MultiScaleMel(architecture.sample_rate)

    @property
    def is_adversarial(self) -> bool:
        """True from `adv_start_step` on."""
        return self.step >= self.loss["adv_start_step"]

    def descended(self) -> list[Sequence[nn.Module]]:
        """Return the network, and the discriminators."""
        return [[self.network], [self.discriminators]]

    def losses(self, output: Output, *, training: bool) -> dict[str, Tensor]:
        """Return the distance to the target and, of a codec, the commitment; "loss" is their weighted sum."""
        distance = self.mel_distance(output.output, output.target, output.mask, across_ranks=training)
        losses = {"mel_ms": distance, "loss": self.loss["mel"] * distance}
        if output.quantized is not None:
            losses["commit"] = output.quantized.commitment
            losses["loss"] = losses["loss"] + self.loss["commitment"] * output.quantized.commitment
        return losses

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Train on one batch: the discriminators, then the network."""
        output = self.run_network(batch)
        judged = self._train_discriminators(output) if self.is_adversarial else {}
        losses = self.losses(output, training=True)
        if self.is_adversarial:
            losses |= self._fooling(output)
            losses["loss"] = (
                losses["loss"]
                + self.loss["adversarial"] * losses["gan/adv"]
                + self.loss["feature"] * losses["gan/feat"]
            )
        self.descend(0, losses["loss"])
        self.finish_step(losses | judged, output)

    def _train_discriminators(self, output: Output) -> dict[str, Tensor]:
        """Make their descent; return their loss, and their mean scores of real and decoded audio."""
        both = torch.cat([output.target, output.output.detach().to(output.target.dtype)])
        real, fake = self.discriminators(both).split()
        loss = discriminator_loss(real.scores, fake.scores)
        self.descend(1, loss)
        return {"gan/d_loss": loss, "gan/d_real": _mean_score(real), "gan/d_fake": _mean_score(fake)}

    def _fooling(self, output: Output) -> dict[str, Tensor]:
        """Return how far the discriminators, now fixed, tell the output from its target."""
        with _fixed(self.discriminators):
            with torch.no_grad():
                real = self.discriminators(output.target)
            fake = self.discriminators(output.output)
        return {"gan/adv": adversarial_loss(fake.scores), "gan/feat": feature_loss(real.features, fake.features)}


def _mean_score(judgement: Judgement) -> Tensor:
    return torch.stack([scores.detach().float().mean() for scores in judgement.scores]).mean()


@contextmanager
def _fixed(network: nn.Module) -> Iterator[None]:
    """Leave the parameters out of graphs made inside."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
