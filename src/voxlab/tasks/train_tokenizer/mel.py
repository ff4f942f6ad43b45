"""Training of the mel-domain codec: its losses on the standardised log-mel, logged in nats and decibels too."""

import math

import torch
from torch import Tensor

from voxlab.losses.spectral import masked_mean, mel_losses
from voxlab.models.tokenizer.output import Output
from voxlab.tasks.train_tokenizer.module import TokenizerModule

SPEECH_BAND = 8000.0  # Hz: nothing above it in audio of 16 kHz


class MelModule(TokenizerModule):
    """Trains a `MelCodec`: loss = l1 + mse + commitment, each with its weight."""

    def losses(self, output: Output, *, training: bool) -> dict[str, Tensor]:
        """Return "loss", "mel_l1" (nats), "mel_l1_db", "mel_mse" (standardised), "commit"; "mel_l1_8k" in evaluation.

        Natural logarithms of the mel's own unit: a factor e of magnitude is one nat where `power` is 1.
        """
        l1, mse = mel_losses(output.output, output.target, output.mask, across_ranks=training)
        commitment = output.quantized.commitment if output.quantized is not None else l1.new_zeros(())
        weights = self.loss
        loss = weights["l1"] * l1 + weights["mse"] * mse
        if not self.is_warming_up:
            loss = loss + weights["commitment"] * commitment
        mel = self.architecture.mel
        unit = self.network.mel_std * mel.nats
        nats = l1.detach() * unit
        losses = {"loss": loss, "mel_l1": nats, "mel_l1_db": nats * 20 / math.log(10) / mel.power, "mel_mse": mse}
        losses["commit"] = commitment
        if not training:
            difference = (output.output - output.target)[:, self._speech_bins()]
            losses["mel_l1_8k"] = masked_mean(difference.abs(), output.mask) * unit
        return losses

    def _speech_bins(self) -> Tensor:
        """Return a (bins,) mask of those that hear nothing above 8 kHz."""
        weights = self.network.log_mel.filterbank
        frequencies = torch.linspace(0, self.architecture.sample_rate / 2, len(weights), device=weights.device)
        return ~((weights > 0) & (frequencies > SPEECH_BAND)[:, None]).any(0)
