"""A small convolutional autoencoder of body motion, whose bottleneck `fgd_ae` compares."""

import itertools

import torch
from torch import Tensor, nn

NUM_CHANNELS = 330  # 6D rotations of 55 joints
_HALVINGS = 4
_LEAST_SHARE = 1e-3  # of the largest deviation of a feature, for those that hardly vary
STRIDE = 2**_HALVINGS  # frames for each feature vector


class MotionAutoencoder(nn.Module):
    """Convolutions over time that halve the frame rate four times, and their mirror image.

    Channels are centred, and divided by one common number, so that joints that hardly move weigh little.

    Args:
        mean: (330,) of the training frames.
        scale: root mean square of the centred channels.
        width: channels within.
        dim: numbers in a feature vector.
    """

    mean: Tensor
    scale: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, mean: Tensor, scale: float, width: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))
        self.register_buffer("feature_mean", torch.zeros(dim))
        self.register_buffer("feature_std", torch.ones(dim))
        sizes = [NUM_CHANNELS, *[width] * _HALVINGS]
        down: list[nn.Module] = []
        up: list[nn.Module] = [nn.Conv1d(dim, width, 3, padding=1)]
        for wide, narrow in itertools.pairwise(sizes):
            down += [nn.Conv1d(wide, narrow, 4, stride=2, padding=1), nn.SiLU()]
        for wide, narrow in itertools.pairwise(reversed(sizes)):
            up += [nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv1d(wide, narrow, 3, padding=1)]
        self.encoder = nn.Sequential(*down, nn.Conv1d(width, dim, 3, padding=1))
        self.decoder = nn.Sequential(*up)

    def encode(self, rotations: Tensor) -> Tensor:
        """Turn (B, T, 330) 6D rotations, T a multiple of 16, into (B, T/16, dim) features."""
        return (self._bottleneck(rotations).mT - self.feature_mean) / self.feature_std

    def forward(self, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the target, both (B, T, 330) standardised."""
        return self.decoder(self._bottleneck(rotations)).mT, self._standardise(rotations)

    def fix_scale(self, features: Tensor) -> None:
        """Let `encode` give features of mean 0 and variance 1 over (n, dim) what it gives now.

        Training leaves their scale, and with it that of distances, to chance.
        """
        std = features.std(0, correction=0)
        self.feature_mean.copy_(features.mean(0))
        self.feature_std.copy_(std.clamp(min=_LEAST_SHARE * float(std.max()) or 1.0))

    def _bottleneck(self, rotations: Tensor) -> Tensor:
        return self.encoder(self._standardise(rotations).mT)

    def _standardise(self, rotations: Tensor) -> Tensor:
        return (rotations - self.mean) / self.scale
