"""Weights of `Rvq`: do they fit the configured architecture, and what untrained ones look like."""

from typing import Any

import torch

from voxlab.codecs.random_init import shrink_biases, spread_entries
from voxlab.errors import UserError
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.wave_codec import WaveArchitecture
from voxlab.storage import flatten

Architecture = MelArchitecture | WaveArchitecture
NAMES = {"mel": "rvq", "wave": "rvq_wave"}


def refuse_other(given: Architecture, trained: Any, name: str, weights: str) -> None:
    """Check that no field of the given architecture contradicts that of the weights; default values say nothing.

    Raises:
        UserError: another family, or lists every differing field with both values.
    """
    if trained.family != given.family:
        use = f"codec={NAMES[trained.family]}" if trained.family in NAMES else "vocoder=istft vocoder.weights=..."
        raise UserError(f"codec {name}: {weights} holds a network of family {trained.family}; use {use}")
    wanted, found, default = (flatten(files.architecture_to_dict(shape)) for shape in (given, trained, type(given)()))
    lines = [
        f"architecture.{key}: {value}, but trained with {found[key]}"
        for key, value in wanted.items()
        if value not in (found[key], default[key])
    ]
    if lines:
        raise UserError(
            f"codec {name}: {weights} has another architecture:\n  " + "\n  ".join(lines) + "\nDrop these settings "
            "(codec=rvq and codec=rvq_wave take any architecture of their family), or train anew."
        )


@torch.no_grad()
def fill_codebooks(network: Any, architecture: Architecture, seed: int) -> None:
    """Give an untrained network codebooks spread like its latents, so that codes vary."""
    shrink_biases(network)
    generator = torch.Generator().manual_seed(seed)
    samples = 64 * architecture.hop_length
    wav = torch.randn(1, 1, samples, generator=generator) * torch.linspace(0.01, 0.3, samples)
    quantizer = network.eval().quantizer
    vectors = quantizer.project_in(network.latents(wav, torch.tensor([samples]))[0])[0]
    shape, std = quantizer.sums.shape[1:], vectors.std(dim=1)
    entries = [spread_entries(shape, std, generator) for _ in range(architecture.num_codebooks)]
    entries[0] += vectors.mean(dim=1)  # latents share a mean, which the first codebook takes away
    quantizer.sums.copy_(torch.stack(entries) * quantizer.counts[..., None])
