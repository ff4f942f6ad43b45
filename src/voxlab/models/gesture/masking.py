"""Which motion tokens a training step hides, and which conditions it withholds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from voxlab.errors import UserError, check_types
from voxlab.models.gesture.conditions import Drop

MODES = ("random", "always")


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How training hides tokens and conditions.

    Args:
        mode: "random": a share cos(pi u / 2) of the tokens, u uniform | "always": all of them, for one-shot models.
        joint: share of items that hide the same moments in all parts.
        full: share of items that hide everything.
        seed_tokens: first steps (of the coarsest part) that an item may see even so, as generation continues motion.
        seed: share of items that see them.
        drop_audio: share of items without audio; these have no text either, as in guidance.
        drop_text: share of items without text, at least `drop_audio`.
        drop_speaker: share of items of an unknown speaker.

    Raises:
        UserError: a value is out of range.
    """

    mode: str = "random"
    joint: float = 0.5
    full: float = 0.1
    seed_tokens: int = 4
    seed: float = 0.5
    drop_audio: float = 0.1
    drop_text: float = 0.2
    drop_speaker: float = 0.1

    def __post_init__(self) -> None:
        check_types(self, "fit.masking.")
        if self.mode not in MODES:
            raise UserError(f"fit.masking.mode={self.mode}: choose {' or '.join(MODES)}.")
        for name in ("joint", "full", "seed", "drop_audio", "drop_text", "drop_speaker"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"fit.masking.{name}={getattr(self, name)}: give a share, 0 to 1.")
        if self.seed_tokens < 0:
            raise UserError(f"fit.masking.seed_tokens={self.seed_tokens}: give a whole number of 0 or more.")
        if self.drop_text < self.drop_audio:
            raise UserError(
                f"fit.masking.drop_text={self.drop_text} is less than drop_audio={self.drop_audio}: items without "
                "audio have no text either."
            )


def draw_visible(
    masking: Masking, token_masks: Mapping[str, Tensor], strides: Mapping[str, int], generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the tokens that B items show, (B, N_p) bool by part.

    Each item hides one at least, unless it sees them all as its start. Tokens past an item's end count as shown: what
    is not visible is what a loss counts.

    Args:
        masking: how many.
        token_masks: (B, N_p) bool by part, True = valid; on the generator's device.
        strides: frames a token by part; each divides the largest.
        generator: of the random draws.
    """
    batch = len(next(iter(token_masks.values())))
    coarsest = max(strides.values())

    def uniform() -> Tensor:
        return torch.rand(batch, 1, generator=generator, device=generator.device)

    ratio = torch.cos(math.pi / 2 * uniform())
    hide_all = (uniform() < masking.full) | (masking.mode == "always")
    joint, seeded = uniform() < masking.joint, uniform() < masking.seed
    steps = max(-(-mask.shape[1] * strides[name] // coarsest) for name, mask in token_masks.items())
    common = torch.rand(batch, steps, generator=generator, device=generator.device)
    visible = {}
    for name, mask in token_masks.items():
        each = coarsest // strides[name]
        own = torch.rand(mask.shape, generator=generator, device=generator.device)
        score = torch.where(joint, common.repeat_interleave(each, dim=1)[:, : mask.shape[1]], own)
        shown = ~_lowest(score.masked_fill(~mask, math.inf), ratio * mask.sum(dim=1, keepdim=True)) & ~hide_all
        shown[:, : masking.seed_tokens * each] |= seeded
        visible[name] = shown | ~mask
    return visible


def _lowest(score: Tensor, count: Tensor) -> Tensor:
    """Mark the `count` (B, 1), rounded up and one at least, lowest scores of each row (B, N)."""
    rank = score.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < count.ceil().clamp_min(1)


def draw_drop(masking: Masking, batch: int, generator: torch.Generator) -> Drop:
    """Draw the conditions to withhold from `batch` items."""
    speech, speaker = torch.rand(2, batch, generator=generator, device=generator.device)
    return Drop(speech < masking.drop_audio, speech < masking.drop_text, speaker < masking.drop_speaker)


def masked_share(visible: Mapping[str, Tensor], token_masks: Mapping[str, Tensor]) -> Tensor:
    """Return the share (B,) of each item's valid tokens, over all parts, that are not visible."""
    hidden = sum((~visible[name] & mask).sum(dim=1) for name, mask in token_masks.items())
    valid = sum(mask.sum(dim=1) for mask in token_masks.values())
    return torch.as_tensor(hidden) / torch.as_tensor(valid)
