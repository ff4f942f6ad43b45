"""Networks that map frames of features to one logit a frame, all causal: the logit of frame t sees no frame after t.

A frozen dataclass describes a network (conf/model/*.yaml) and builds it; `LaughterModel` adds the normaliser.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxlab.errors import UserError, check_types
from voxlab.models.laughter_heads import FrameHead, GruHead, Head, State, TcnHead

NORMS = ("standard", "layernorm", "none")
BIAS_INITS = ("auto", "prior", "zero")
SMALLEST_STD = 1e-4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """Base of the descriptions of networks.

    Args:
        bias_init: of the output layer. "auto": the prior of the training frames under the loss's class weights |
            "prior": without these | "zero".

    Raises:
        UserError: a value is out of range.
    """

    family: ClassVar[str]
    bias_init: str = "auto"

    def __post_init__(self) -> None:
        check_types(self, "model.")
        if self.bias_init not in BIAS_INITS:
            raise UserError(f"model.bias_init={self.bias_init}: choose {', '.join(BIAS_INITS)}.")

    @property
    def context(self) -> int:
        """Number of frames before the current one that matter in training; 0: each frame by itself."""
        return 0

    def build_head(self, dim: int) -> Head:
        """Return the network for features of `dim` numbers, with random weights."""
        raise NotImplementedError

    def build(self, dim: int, norm: str = "standard") -> "LaughterModel":
        """Return normaliser and network for features of `dim` numbers, with random weights."""
        return LaughterModel(self, dim, norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear(Architecture):
    """One weight a feature: logistic regression."""

    family = "linear"

    def build_head(self, dim: int) -> Head:
        """Return the linear layer."""
        return FrameHead(nn.Identity(), dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LnLinear(Architecture):
    """Layer norm with gains and shifts, then a linear layer."""

    family = "ln_linear"

    def build_head(self, dim: int) -> Head:
        """Return both layers."""
        return FrameHead(nn.LayerNorm(dim), dim)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mlp(Architecture):
    """One hidden layer with GELU and dropout.

    Args:
        hidden: its width.
        dropout: share of hidden values set to 0 in training, 0 to below 1.
    """

    family = "mlp"
    hidden: int = 512
    dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_widths(self, "hidden")
        _check_dropout(self.dropout)

    def build_head(self, dim: int) -> Head:
        """Return both layers."""
        body = nn.Sequential(nn.Linear(dim, self.hidden), nn.GELU(), nn.Dropout(self.dropout))
        return FrameHead(body, self.hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tcn(Architecture):
    """Residual blocks of causal convolutions whose dilation doubles: 1, 2, 4, ...

    Args:
        hidden: width.
        layers: number of blocks; the last frames that matter are 1 + (kernel - 1) (2^layers - 1), 63 by default
            (5 s at 12.5 frames a second).
        kernel: frames of each convolution, 2 or more.
        dropout: share of values set to 0 in training, 0 to below 1.
    """

    family = "tcn"
    hidden: int = 128
    layers: int = 5
    kernel: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_widths(self, "hidden", "layers")
        if self.kernel < 2:
            raise UserError(f"model.kernel={self.kernel}: give 2 or more frames; model=mlp sees single frames.")
        _check_dropout(self.dropout)

    @property
    def context(self) -> int:
        """Return the frames before the current one that it sees."""
        return (self.kernel - 1) * (2**self.layers - 1)

    def build_head(self, dim: int) -> Head:
        """Return the stack of blocks."""
        return TcnHead(dim, self.hidden, self.layers, self.kernel, self.dropout)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gru(Architecture):
    """A gated recurrent unit from the start of the recording on.

    Args:
        hidden: width.
        layers: number of stacked units.
        warmup: frames before a training sequence in which its state forms (100: 8 s at 12.5 frames a second).
    """

    family = "gru"
    hidden: int = 256
    layers: int = 1
    warmup: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_widths(self, "hidden", "layers", "warmup")

    @property
    def context(self) -> int:
        """Return the warm-up."""
        return self.warmup

    def build_head(self, dim: int) -> Head:
        """Return the recurrent network."""
        return GruHead(dim, self.hidden, self.layers)


FAMILIES: dict[str, type[Architecture]] = {kind.family: kind for kind in (Linear, LnLinear, Mlp, Tcn, Gru)}


class LaughterModel(nn.Module):
    """Normaliser, network, and the correction of a changed class balance.

    Args:
        architecture: describes the network.
        dim: numbers of a feature frame.
        norm: "standard": (x - mean) / std per number, see `standardize` | "layernorm": each frame to mean 0 and
            variance 1 | "none".

    Attributes:
        offset: added to the logits in evaluation: the log odds ratio by which training frames were chosen.

    Raises:
        UserError: an unknown norm.
    """

    mean: Tensor
    std: Tensor
    offset: Tensor

    def __init__(self, architecture: Architecture, dim: int, norm: str) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UserError(f"fit.norm={norm}: choose {', '.join(NORMS)}.")
        self.architecture, self.dim, self.norm = architecture, dim, norm
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.register_buffer("offset", torch.zeros(()))
        self.head = architecture.build_head(dim)

    @property
    def context(self) -> int:
        """Number of frames before the current one that matter in training; 0: each frame by itself."""
        return self.architecture.context

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Set what norm=standard subtracts and divides by, (dim,) each; deviations below 1e-4 count as that."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=SMALLEST_STD))

    def set_output_bias(self, bias: float) -> None:
        """Set the bias of the output layer, and its weights to 0: every frame starts from the same logit."""
        nn.init.zeros_(self.head.output.weight)
        nn.init.constant_(self.head.output.bias, bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map whole recordings, or pieces that begin one, to logits.

        Args:
            features: (B, L, dim) float32; padding at the end of an item does no harm to the frames before it.

        Returns:
            (B, L).
        """
        return self.stream(features, None)[0]

    def stream(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """Map the next frames of B recordings to logits; pieces of any length give the logits of the whole.

        Args:
            features: (B, L, dim).
            state: what the call before returned; None at the start.

        Returns:
            logits (B, L) and the state after them.
        """
        logits, state = self.head(self._normalized(features), state)
        return (logits if self.training else logits + self.offset), state

    def step(self, frame: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Map the next frame (1, dim) of one recording to its logit (1,) and the state after it."""
        logits, state = self.stream(frame[None], state)
        return logits[0], state

    def _normalized(self, features: Tensor) -> Tensor:
        if self.norm == "standard":
            return (features - self.mean) / self.std
        return F.layer_norm(features, (self.dim,)) if self.norm == "layernorm" else features


def describe(model: LaughterModel) -> dict[str, Any]:
    """Return what rebuilds a model without its weights, as plain values."""
    settings = dataclasses.asdict(model.architecture)
    return {"family": model.architecture.family, **settings, "dim": model.dim, "norm": model.norm}


def rebuild(description: Mapping[str, Any]) -> LaughterModel:
    """Return the model that `describe` described, with random weights.

    Raises:
        UserError: it was written by another version.
    """
    settings = dict(description)
    family, dim, norm = (settings.pop(name, None) for name in ("family", "dim", "norm"))
    if family not in FAMILIES:
        raise UserError(f"the checkpoint holds a model {family!r}; this version knows {', '.join(FAMILIES)}.")
    known = {field.name for field in dataclasses.fields(FAMILIES[family])}
    if set(settings) != known:
        odd = ", ".join(sorted(set(settings) ^ known))
        raise UserError(f"the checkpoint was written by another version: model={family} differs in {odd}.")
    return FAMILIES[family](**settings).build(int(dim or 0), str(norm))


def _check_widths(settings: Architecture, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise UserError(f"model.{name}={getattr(settings, name)}: give a whole number of 1 or more.")


def _check_dropout(dropout: float) -> None:
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout={dropout}: give a number from 0 to below 1.")
