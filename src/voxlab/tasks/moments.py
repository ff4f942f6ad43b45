"""Mean and squared deviations of numbers that come in parts."""

import numpy as np

Moments = tuple[int, np.ndarray, np.ndarray]  # frames, mean (D,), sum of squared deviations (D,)


def merge(first: Moments, second: Moments) -> Moments:
    """Return the moments of both sets of frames.

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    count = first[0] + second[0]
    if count == 0:
        return first
    delta = second[1] - first[1]
    share = second[0] / count
    return count, first[1] + delta * share, first[2] + second[2] + np.square(delta) * first[0] * share
