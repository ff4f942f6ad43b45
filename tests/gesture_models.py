"""A small gesture model with random codebooks, and random conditions for it."""

from typing import Any

import torch
from torch import Tensor

from voxlab.models.gesture.conditions import Conditions
from voxlab.models.gesture.fusion import FusionSettings
from voxlab.models.gesture.gesture_model import A2gModel, GestureModel, TokenPart

FPS, FEATURES, ACOUSTIC, SPEAKERS, WORDS, CODE_DIM = 30, 24, 10, 3, 7, 6
PARTS = (TokenPart("upper", 4, 2, 32), TokenPart("face", 2, 3, 16))  # parts of different rates
SMALL = {
    "text_width": 16,
    "audio_width": 32,
    "gesture_width": 48,
    "layers": 2,
    "heads": 2,
    "head_dim": 16,
    "streams": 2,
    "condition_dim": 24,
    "word_dim": 8,
    "head_width": 32,
    "dropout": 0.0,
    "fusion": FusionSettings(heads=2, layers=2, dropout=0.0),
}


def small_codebooks() -> dict[str, Tensor]:
    """Codebooks of `PARTS`, at a scale that isn't 1."""
    generator = torch.Generator().manual_seed(5)
    shapes = {part.name: (part.num_codebooks, part.codebook_size, CODE_DIM) for part in PARTS}
    return {name: 4 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def small_model(seed: int = 0, acoustic: bool = True, **settings: Any) -> GestureModel:
    """A model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    model = A2gModel(**{**SMALL, **settings}).build(
        PARTS,
        small_codebooks(),
        feature_dim=FEATURES,
        acoustic_dim=ACOUSTIC if acoustic else None,
        num_speakers=SPEAKERS,
        fps=FPS,
        num_words=WORDS,
    )
    return model.eval()


def stir(model: GestureModel) -> GestureModel:
    """Move all weights away from their start, where norms and mixing do nothing yet."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.1 * torch.randn(weights.shape, generator=generator))
    return model


def random_conditions(lengths: list[int], words: int = 3, seed: int = 1, acoustic: bool = True) -> Conditions:
    """Conditions of items of these lengths, padded with noise; item i has `words` - i words."""
    generator = torch.Generator().manual_seed(seed)
    batch, frames = len(lengths), max(lengths)
    return Conditions(
        features=torch.randn(batch, frames, FEATURES, generator=generator),
        acoustic=torch.randn(batch, frames, ACOUSTIC, generator=generator) if acoustic else None,
        frame_mask=torch.arange(frames) < torch.tensor(lengths)[:, None],
        speaker=torch.arange(batch) % (SPEAKERS + 1) - 1,
        word_ids=torch.randint(WORDS, (batch, words), generator=generator),
        word_times=torch.rand(batch, words, generator=generator) * frames / FPS,
        word_mask=torch.arange(words) < (words - torch.arange(batch))[:, None],
    )


def random_codes(model: GestureModel, conditions: Conditions, seed: int = 2) -> dict[str, Tensor]:
    """Codes for all tokens."""
    generator = torch.Generator().manual_seed(seed)
    masks = model.token_masks(conditions.frame_mask)
    return {
        name: torch.randint(part.codebook_size, (*masks[name].shape, part.num_codebooks), generator=generator)
        for name, part in model.parts.items()
    }


def generators(*seeds: int) -> list[torch.Generator]:
    """One generator a seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
