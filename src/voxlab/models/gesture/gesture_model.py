"""The network of task=a2g: audio, words and speaker, and the motion codes known so far, to the codes that are not.

A masked-token model of motion codes: known tokens show their entries, the others a learned mask, and the state of
each token gives the logits of its residual codes.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types
from voxlab.models.gesture.conditions import Conditions, Drop
from voxlab.models.gesture.fusion import Fusion, FusionSettings
from voxlab.models.gesture.mmdit import BlockSettings, Mmdit, Tokens
from voxlab.models.gesture.part_codes import PartCodes, pick_entries
from voxlab.models.gesture.text import WordTokens

_RATIO_DIM = 256  # of the sinusoids of the mask ratio


@dataclass(frozen=True)
class TokenPart:
    """The tokens of one part of the body.

    Args:
        name: of the part.
        stride: frames a token.
        num_codebooks: codes a token, Q.
        codebook_size: entries K of each codebook.
    """

    name: str
    stride: int
    num_codebooks: int
    codebook_size: int


@dataclass(frozen=True, kw_only=True)
class A2gModel:
    """Description of a `GestureModel`.

    Args:
        text_width: of the stream of words.
        audio_width: of the stream of fused audio frames.
        gesture_width: of the stream of motion tokens.
        layers: blocks of the backbone.
        heads: of its attention.
        head_dim: width of a head, even.
        streams: residual streams; 1: the plain residual.
        condition_dim: width of what speaker and mask ratio are told in.
        word_dim: width of the learned word vectors, before they are projected.
        head_width: of the networks that predict codes.
        dropout: of the backbone's branches, 0 to below 1.
        fusion: of the two audio streams.

    Raises:
        UserError: a value is out of range, or widths don't divide.
    """

    text_width: int = 1024
    audio_width: int = 512
    gesture_width: int = 512
    layers: int = 8
    heads: int = 8
    head_dim: int = 64
    streams: int = 4
    condition_dim: int = 512
    word_dim: int = 300
    head_width: int = 512
    dropout: float = 0.1
    fusion: FusionSettings = dataclasses.field(default_factory=FusionSettings)

    def __post_init__(self) -> None:
        check_types(self, "model.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise UserError(f"model.{field.name}={value}: give a whole number of 1 or more.")
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout={self.dropout}: give a number from 0 to below 1.")
        if self.head_dim % 2:
            raise UserError(f"model.head_dim={self.head_dim}: give an even number; positions turn pairs of numbers.")
        if self.audio_width % (2 * self.fusion.heads):
            raise UserError(
                f"model.audio_width={self.audio_width} and model.fusion.heads={self.fusion.heads}: the width has to be "
                "a multiple of twice the heads."
            )

    def build(
        self,
        parts: Sequence[TokenPart],
        codebooks: Mapping[str, Tensor],
        *,
        feature_dim: int,
        acoustic_dim: int | None,
        num_speakers: int,
        fps: float,
        num_words: int,
    ) -> "GestureModel":
        """Return the network with random weights.

        Args:
            parts: whose codes it predicts.
            codebooks: (Q, K, C) entries, by name of the part; frozen, and left out of the state dict.
            feature_dim: width of the speech features.
            acoustic_dim: width of the acoustic features; None: there are none.
            num_speakers: known ones.
            fps: frames a second.
            num_words: size of the word table.

        Raises:
            UserError: codebooks don't fit the parts.
        """
        given = Inputs(feature_dim, acoustic_dim, num_speakers, fps, num_words)
        return GestureModel(self, parts, codebooks, given)


@dataclass(frozen=True)
class Inputs:
    """What a network is built for: see `A2gModel.build`."""

    feature_dim: int
    acoustic_dim: int | None
    num_speakers: int
    fps: float
    num_words: int


@dataclass(frozen=True)
class Context:
    """Conditions as the backbone sees them: its text and audio streams, and the speaker's vector (B, condition_dim)."""

    text: Tokens
    audio: Tokens
    speaker: Tensor


class GestureModel(nn.Module):
    """See `A2gModel.build`.

    Attributes:
        parts: by name.
        fps: frames a second.
    """

    def __init__(
        self, settings: A2gModel, parts: Sequence[TokenPart], codebooks: Mapping[str, Tensor], inputs: Inputs
    ) -> None:
        super().__init__()
        _check_codebooks(parts, codebooks)
        self.settings, self.inputs, self.fps = settings, inputs, inputs.fps
        self.parts = {part.name: part for part in parts}
        self.fusion = Fusion(inputs.feature_dim, inputs.acoustic_dim, settings.audio_width, settings.fusion)
        self.no_audio = nn.Parameter(torch.randn(settings.audio_width))
        self.words = WordTokens(inputs.num_words, settings.word_dim, settings.text_width)
        self.speakers = nn.Embedding(inputs.num_speakers + 1, settings.condition_dim)  # the last one: unknown
        self.ratio = nn.Sequential(
            nn.Linear(_RATIO_DIM, settings.condition_dim),
            nn.SiLU(),
            nn.Linear(settings.condition_dim, settings.condition_dim),
        )
        gesture, head = settings.gesture_width, settings.head_width
        self.codes = nn.ModuleDict({part.name: PartCodes(codebooks[part.name], gesture, head) for part in parts})
        widths = {"text": settings.text_width, "audio": settings.audio_width, "gesture": settings.gesture_width}
        self.backbone = Mmdit(widths, "gesture", settings.layers, _block_settings(settings))

    def forward(
        self,
        conditions: Conditions,
        codes: Mapping[str, Tensor],
        visible: Mapping[str, Tensor],
        mask_ratio: Tensor,
        drop: Drop | None = None,
    ) -> dict[str, Tensor]:
        """Return the states of all tokens, (B, N_p, gesture_width) by part.

        Args:
            conditions: of B items of T frames.
            codes: (B, N_p, Q) int64 with N_p = T / stride rounded up; anything in 0..K-1 where a token isn't visible.
            visible: (B, N_p) bool, True = the token shows its codes.
            mask_ratio: (B,) share of an item's tokens that are not visible, see `masking.masked_share`.
            drop: conditions to withhold.
        """
        return self.states(
            self.context(conditions, drop), self.token_masks(conditions.frame_mask), codes, visible, mask_ratio
        )

    def token_masks(self, frame_mask: Tensor) -> dict[str, Tensor]:
        """Return (B, N_p) bool by part, True = the token begins at a valid frame, from (B, T)."""
        return {name: frame_mask[:, :: part.stride] for name, part in self.parts.items()}

    def context(self, conditions: Conditions, drop: Drop | None = None) -> Context:
        """Return what doesn't depend on the codes; iterative sampling needs it once."""
        mask, device = conditions.frame_mask, conditions.frame_mask.device
        drop = drop or Drop.nothing(len(mask), device)
        times = ((torch.arange(mask.shape[1], device=device) + 0.5) / self.fps).expand(mask.shape)
        fused = self.fusion(conditions.features, conditions.acoustic, mask, times)
        fused = torch.where(drop.audio[:, None, None], self.no_audio, fused)
        words = self.words(conditions.word_ids)
        heard = conditions.word_mask & ~drop.text[:, None]
        text = Tokens(
            words, nn.functional.pad(conditions.word_times, (1, 0)), nn.functional.pad(heard, (1, 0), value=True)
        )
        known = (conditions.speaker >= 0) & ~drop.speaker
        speaker = self.speakers(torch.where(known, conditions.speaker, self.inputs.num_speakers))
        return Context(text, Tokens(fused, times, mask), speaker)

    def states(
        self,
        context: Context,
        token_masks: Mapping[str, Tensor],
        codes: Mapping[str, Tensor],
        visible: Mapping[str, Tensor],
        mask_ratio: Tensor,
    ) -> dict[str, Tensor]:
        """Return the states of all tokens, see `forward`.

        Raises:
            ValueError: a part has another number of codes than its tokens.
        """
        values, times = [], []
        for name, part in self.parts.items():
            if codes[name].shape[:2] != token_masks[name].shape:
                raise ValueError(
                    f"{name}: codes {tuple(codes[name].shape)} for tokens {tuple(token_masks[name].shape)}"
                )
            values.append(self.part(name).tokens(codes[name], visible[name]))
            middle = (torch.arange(codes[name].shape[1], device=mask_ratio.device) + 0.5) * part.stride / self.fps
            times.append(middle.expand(codes[name].shape[:2]))
        mask = torch.cat([token_masks[name] for name in self.parts], dim=1)
        gesture = Tokens(torch.cat(values, dim=1), torch.cat(times, dim=1), mask)
        condition = context.speaker + self.ratio(_sinusoids(mask_ratio))
        states = self.backbone({"text": context.text, "audio": context.audio, "gesture": gesture}, condition)
        pieces = states.split([codes[name].shape[1] for name in self.parts], dim=1)
        return dict(zip(self.parts, pieces, strict=True))

    def logits(self, states: Mapping[str, Tensor], codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return (B, N_p, Q, K) by part, each layer given the true codes of those before it.

        Args:
            states: what `forward` returned.
            codes: (B, N_p, Q) int64, the true ones.
        """
        return {name: self.part(name).logits(states[name], codes[name]) for name in self.parts}

    def latents(self, codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the latents (B, N_p, C) that codes (B, N_p, Q) stand for, as a decoder takes them."""
        return {name: pick_entries(codes[name], self.part(name).codebooks).sum(dim=-2) for name in self.parts}

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Compile the backbone for training and generation, block by block.

        Blocks of one kind share their code: many take no longer to compile than a few.
        """
        for block in self.backbone.blocks:
            block.compile(backend=backend)

    def part(self, name: str) -> "PartCodes":
        """Return the layers of one part."""
        return cast(PartCodes, self.codes[name])


def describe(model: GestureModel) -> dict[str, Any]:
    """Return what rebuilds a model without its weights and codebooks, as plain values."""
    return {
        "settings": dataclasses.asdict(model.settings),
        "parts": [dataclasses.asdict(part) for part in model.parts.values()],
        "inputs": dataclasses.asdict(model.inputs),
    }


def rebuild(description: Mapping[str, Any], codebooks: Mapping[str, Tensor]) -> GestureModel:
    """Return the model that `describe` described, with random weights.

    Raises:
        UserError: it was written by another version, or codebooks don't fit.
    """
    try:
        settings = dict(description["settings"])
        settings["fusion"] = FusionSettings(**settings["fusion"])
        parts = [TokenPart(**part) for part in description["parts"]]
        shape, inputs = A2gModel(**settings), Inputs(**description["inputs"])
    except (KeyError, TypeError) as error:
        raise UserError(f"the checkpoint's gesture model was written by another version: {error}.") from error
    return GestureModel(shape, parts, codebooks, inputs)


def _check_codebooks(parts: Sequence[TokenPart], codebooks: Mapping[str, Tensor]) -> None:
    for part in parts:
        wanted = (part.num_codebooks, part.codebook_size)
        found = tuple(codebooks[part.name].shape) if part.name in codebooks else None
        if found is None or found[:2] != wanted:
            raise UserError(
                f"the codebooks of part {part.name} are {found or 'missing'}; this model needs {wanted[0]} of "
                f"{wanted[1]} entries. Give the tokenizers that it was trained with: tokenizers=FOLDER."
            )


def _block_settings(settings: A2gModel) -> BlockSettings:
    return BlockSettings(
        heads=settings.heads,
        head_dim=settings.head_dim,
        streams=settings.streams,
        condition_dim=settings.condition_dim,
        dropout=settings.dropout,
    )


def _sinusoids(ratio: Tensor) -> Tensor:
    """Return (B, 256) of shares (B,) in 0..1, at rates from 1000 to 0.1 radians."""
    rates = 1000 * torch.exp(-math.log(10000) * torch.arange(_RATIO_DIM // 2, device=ratio.device) / (_RATIO_DIM // 2))
    angles = ratio.float()[:, None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=1)
