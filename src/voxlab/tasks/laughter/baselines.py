"""What a model has to beat: guesses from the prior, the last laugh, loudness and voice activity, and an oracle."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from voxlab.metrics.events import EpisodeScores, logit_of, sigmoid

_WINDOW_S = 1.0
_TAUS = np.geomspace(0.5, 512, 41)  # seconds
_RIDGE = 1e-6
_STEPS = 50
_FLOOR = 1e-9

Predict = Callable[[EpisodeScores], np.ndarray]


def make_baselines(
    train: Sequence[EpisodeScores], others: Sequence[EpisodeScores] = ()
) -> Iterator[tuple[str, Predict]]:
    """Fit every baseline whose inputs are there; yields its name and what gives the (T,) logits of an episode.

    Args:
        train: episodes whose labels, events, energy and VAD are used; their scores are not. Without positives among
            them only the oracle is left.
        others: episodes that are to be scored.
    """
    y = np.concatenate([episode.y[episode.mask] > 0 for episode in train]) if train else np.zeros(0, bool)
    if y.any() and not y.all():
        prior = float(logit_of(y.mean()))
        yield "prior", lambda episode: np.full(len(episode.logit), prior, dtype=np.float32)
        yield "last_laugh", _fit_last_laugh(train, y)
        kinds: dict[str, tuple[str, ...]] = {
            "loudness": ("energy",),
            "vad": ("vad",),
            "loudness_vad": ("energy", "vad"),
        }
        for name, inputs in kinds.items():
            if all(getattr(episode, source) is not None for episode in (*train, *others) for source in inputs):
                yield name, _fit_logistic(train, y, lambda episode, inputs=inputs: _levels(episode, inputs))
    yield "episode_rate_oracle", _episode_rate


def score(episodes: Sequence[EpisodeScores], predict: Predict) -> list[EpisodeScores]:
    """Return the episodes with the scores of a baseline in place of the model's."""
    return [
        dataclasses.replace(episode, logit=predict(episode).astype(np.float32), view_logits=None)
        for episode in episodes
    ]


def _episode_rate(episode: EpisodeScores) -> np.ndarray:
    """Score an episode by its own rate of positives, which nobody knows beforehand."""
    rate = float((episode.y[episode.mask] > 0).mean()) if episode.mask.any() else 0.0
    return np.full(len(episode.logit), float(logit_of(np.clip(rate, _FLOOR, 1 - _FLOOR))), dtype=np.float32)


def seconds_since(episode: EpisodeScores) -> np.ndarray:
    """Return the (T,) seconds since the last event ended, 0 within one, infinite before the first."""
    frames = np.arange(len(episode.logit))
    if not len(episode.spans):
        return np.full(len(frames), np.inf)
    ends = np.maximum.accumulate(episode.spans[:, 1])
    begun = np.searchsorted(episode.spans[:, 0], frames, side="right")
    since = np.maximum(frames - ends[np.maximum(begun, 1) - 1], 0) / episode.frame_rate
    return np.where(begun > 0, since, np.inf)


def _fit_last_laugh(train: Sequence[EpisodeScores], y: np.ndarray) -> Predict:
    """Fit a line on exp(-t / tau), t the time since the last event, with the tau of the highest likelihood."""
    since = np.concatenate([seconds_since(episode)[episode.mask] for episode in train])
    times, place, frames = np.unique(since, return_inverse=True, return_counts=True)  # few: multiples of a frame
    share = np.bincount(place, weights=y) / frames
    fits = [(*fit_logistic(np.exp(-times / tau)[:, None], share, frames), tau) for tau in _TAUS]
    weights, _, best = min(fits, key=lambda fit: fit[1])
    return lambda episode: weights[0] + weights[1] * np.exp(-seconds_since(episode) / best)


def _levels(episode: EpisodeScores, inputs: Sequence[str]) -> np.ndarray:
    """Return (T, 2 K): the mean over the last second and the last value of each input, from frames before each."""
    width = round(_WINDOW_S * episode.frame_rate)
    columns = []
    for source in inputs:
        values = np.asarray(getattr(episode, source), dtype=np.float64)
        past = np.concatenate([values[:1], values[:-1]])  # frame t decides before it has been heard
        total = np.concatenate([[0.0], np.cumsum(past)])
        stop = np.arange(1, len(past) + 1)
        start = np.maximum(stop - width, 0)
        columns += [(total[stop] - total[start]) / (stop - start), past]
    return np.stack(columns, axis=1)


def _fit_logistic(
    train: Sequence[EpisodeScores], y: np.ndarray, read: Callable[[EpisodeScores], np.ndarray]
) -> Predict:
    columns = np.concatenate([read(episode)[episode.mask] for episode in train])
    middle, spread = columns.mean(0), np.maximum(columns.std(0), 1e-6)
    weights, _ = fit_logistic((columns - middle) / spread, y)
    return lambda episode: weights[0] + (read(episode) - middle) / spread @ weights[1:]


def fit_logistic(columns: np.ndarray, y: np.ndarray, frames: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    """Fit a logistic regression by Newton's method with a tiny ridge.

    Args:
        columns: (N, K) inputs of about unit size.
        y: (N,) share of positives in each row, both classes among them.
        frames: (N,) how many frames each row stands for; None: one.

    Returns:
        (1 + K,) intercept and weights, and the mean loss in nats.
    """
    inputs = np.concatenate([np.ones((len(y), 1)), columns], axis=1)
    share = np.full(len(y), 1 / len(y)) if frames is None else frames / frames.sum()
    weights = np.zeros(inputs.shape[1])
    weights[0] = float(logit_of(share @ y))
    ridge = _RIDGE * np.diag(np.r_[0.0, np.ones(columns.shape[1])])
    loss = _mean_loss(inputs @ weights, y, share)
    for _ in range(_STEPS):
        p = sigmoid(inputs @ weights)
        gradient = inputs.T @ (share * (p - y)) + ridge @ weights
        hessian = (inputs * (share * p * (1 - p))[:, None]).T @ inputs + ridge + 1e-12 * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        while (now := _mean_loss(inputs @ (weights - step), y, share)) > loss + 1e-12 and np.abs(step).max() > 1e-9:
            step = step / 2
        weights, loss = weights - step, now
        if np.abs(step).max() < 1e-8:
            break
    return weights, loss


def _mean_loss(logit: np.ndarray, y: np.ndarray, share: np.ndarray) -> float:
    return float(share @ (np.logaddexp(0, logit) - logit * y))
