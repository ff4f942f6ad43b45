"""Fréchet distance of two sets of features, each taken for a Gaussian: FGD where the features are of gestures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from voxlab.metrics.errors import NotMeasurable

ENOUGH = 2  # samples for each dimension: with fewer, the covariance is mostly noise


@dataclass(frozen=True)
class Gaussian:
    """What the distance needs of a set of features.

    Attributes:
        mean: (d,) float64.
        covariance: (d, d) float64, divided by n - 1.
        num_samples: n.
    """

    mean: np.ndarray
    covariance: np.ndarray
    num_samples: int

    @property
    def dim(self) -> int:
        """Numbers in a feature vector, d."""
        return len(self.mean)


def fit_gaussian(pieces: Iterable[np.ndarray]) -> Gaussian:
    """Return mean and covariance of features, in float64, piece by piece.

    Args:
        pieces: (n_i, d) features each, for example of one clip; n_i may be 0.

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".

    Raises:
        NotMeasurable: there are fewer than two samples.
    """
    count, mean, products = 0, np.zeros(1), np.zeros((1, 1))
    for piece in pieces:
        if not len(piece):
            continue
        data = np.asarray(piece, dtype=np.float64)
        own = data.mean(0)
        total, shift = count + len(data), own - mean
        products = products + (data - own).T @ (data - own) + np.outer(shift, shift) * (count * len(data) / total)
        mean = mean + shift * (len(data) / total)
        count = total
    if count < 2:
        raise NotMeasurable(f"a covariance needs two feature vectors or more, not {count}")
    return Gaussian(mean, products / (count - 1), count)


def check_enough(gaussian: Gaussian) -> None:
    """Refuse a covariance of too few samples.

    Raises:
        NotMeasurable: fewer than 2 d samples.
    """
    if gaussian.num_samples < ENOUGH * gaussian.dim:
        raise NotMeasurable(
            f"{gaussian.num_samples} feature vectors of {gaussian.dim} numbers: fewer than {ENOUGH * gaussian.dim} say "
            "little of a covariance. Evaluate more or longer clips, or set metrics.force=true to get the number anyway"
        )


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Return ‖μ₁−μ₂‖² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), at least 0.

    The trace of the root is the sum of the singular values of Σ₁^½ Σ₂^½: unlike a root of the product it needs no ε
    on the diagonal, and it is exact for singular covariances too.

    Source: Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions".

    Raises:
        ValueError: the two sets have features of different sizes.
    """
    if first.dim != second.dim:
        raise ValueError(f"features of {first.dim} and of {second.dim} numbers can't be compared")
    product = _root(first.covariance) @ _root(second.covariance)
    overlap = np.linalg.svd(product, compute_uv=False).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
    return max(0.0, float(((first.mean - second.mean) ** 2).sum() + spread))


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
