"""K-means, used to start codebooks."""

import torch
from torch import Tensor

from voxlab.models.tokenizer.distance import find_nearest

ROUNDS = 10


def cluster(vectors: Tensor, num_clusters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Run Lloyd's algorithm from random vectors; a cluster left empty restarts at a random vector.

    Args:
        vectors: (P, D), P >= 1; with P < num_clusters some centres coincide.
        num_clusters: K.
        generator: on the CPU, so that every device draws the same.

    Returns:
        (K, D) centres and the (P,) int64 index of each vector's nearest centre.
    """
    centers = _draw(vectors, num_clusters, generator)
    for _ in range(ROUNDS):
        nearest = find_nearest(vectors, centers)
        counts = torch.bincount(nearest, minlength=num_clusters)[:, None]
        sums = torch.zeros_like(centers).index_add_(0, nearest, vectors)
        centers = torch.where(counts > 0, sums / counts.clamp_min(1), _draw(vectors, num_clusters, generator))
    return centers, find_nearest(vectors, centers)


def _draw(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random vectors, all different ones as long as there are enough."""
    order = torch.randperm(max(len(vectors), count), generator=generator)[:count] % len(vectors)
    return vectors[order.to(vectors.device)]
