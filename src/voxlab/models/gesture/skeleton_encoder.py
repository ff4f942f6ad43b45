"""The encoder of EMAGE's motion autoencoder (AESKConv_240_100), whose features published FGD figures rest on.

Everything about its shape, which joint sees which and what is pooled included, is read from the weights file.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint

CROP = 32  # frames: the published tool cuts clips to a multiple of this, although 16 would do
NUM_CHANNELS = 330
_GROUPS = 10
_WANTED = "Needed: AESKConv_240_100.bin of EMAGE's evaluation tools, with `model_state`; or metrics.fgd_emage=null."
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.0\.residual\.0\.weight")


class SkeletonLayer(nn.Module):
    """Halve the frame rate: convolution and group norm, plus a shortcut; mean over joined bones; tanh.

    Args:
        weights: of this layer, by their names in the file without the layer's prefix; a convolution's mask says which
            bones see which, and is multiplied into it here.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor
    offset: Tensor
    shortcut: Tensor
    shortcut_bias: Tensor
    pool: Tensor | None

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", weights["residual.0.weight"] * weights["residual.0.mask"])
        self.register_buffer("bias", weights["residual.0.bias"])
        self.register_buffer("scale", weights["residual.1.weight"])
        self.register_buffer("offset", weights["residual.1.bias"])
        self.register_buffer("shortcut", weights["shortcut.weight"] * weights["shortcut.mask"])
        self.register_buffer("shortcut_bias", weights["shortcut.bias"])
        self.register_buffer("pool", weights.get("common.0.weight"))

    def forward(self, values: Tensor) -> Tensor:
        """Turn (B, C, T) into (B, C', T // 2)."""
        residual = F.conv1d(values, self.weight, self.bias, stride=2, padding=1)
        residual = F.group_norm(residual, _GROUPS, self.scale, self.offset)
        joined = residual + F.conv1d(values, self.shortcut, self.shortcut_bias, stride=2)
        return torch.tanh(joined if self.pool is None else self.pool @ joined)


class SkeletonEncoder(nn.Module):
    """The layers in turn; frozen.

    Args:
        state: the file's tensors, without "module." in their names.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        numbers = sorted(int(found[1]) for name in state if (found := _LAYER.fullmatch(name)))
        prefixes = [f"encoder.layers.{number}.0." for number in numbers]
        layers = [
            SkeletonLayer({name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)})
            for prefix in prefixes
        ]
        self.layers = nn.Sequential(*layers)
        self.dim = len(layers[-1].bias if layers[-1].pool is None else layers[-1].pool)

    def encode(self, rotations: Tensor) -> Tensor:
        """Turn (B, T, 330) 6D rotations of all joints, not normalised, into (B, T // 2^layers, dim) features."""
        return self.layers(rotations.mT).mT


def load_skeleton_encoder(path: Path) -> SkeletonEncoder:
    """Read the published weights: a dictionary whose `model_state` holds the tensors.

    Raises:
        UserError: the file is missing, no such file, or of another network.
    """
    found = load_checkpoint(path, key="metrics.fgd_emage", wanted=_WANTED)
    try:
        state = {name.removeprefix("module."): tensor.float() for name, tensor in found["model_state"].items()}
        encoder = SkeletonEncoder(state).eval()
        encoder.encode(torch.zeros(1, CROP, NUM_CHANNELS))
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise UserError(
            f"metrics.fgd_emage={path}: not EMAGE's motion autoencoder ({type(error).__name__}: {error}). {_WANTED}"
        ) from None
    return encoder
