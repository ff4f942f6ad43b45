"""Nearest neighbours by Euclidean distance, in bounded memory."""

import torch
from torch import Tensor

_ROWS = 16384  # of the distance matrix at a time: 64 MB at 1,024 entries in float32


def find_nearest(vectors: Tensor, entries: Tensor) -> Tensor:
    """Return for each of the vectors (P, D) the (P,) int64 index of the nearest of the entries (K, D).

    |v|^2 is the same for all entries, so |e|^2 - 2 v.e orders them; that is one matrix product.
    """
    norms = entries.square().sum(dim=1)
    return torch.cat([torch.addmm(norms, rows, entries.T, alpha=-2).argmin(dim=1) for rows in vectors.split(_ROWS)])
