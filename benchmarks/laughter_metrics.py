"""Seconds of the evaluation's costly parts on many hours of frames, against the obvious way with scikit-learn.

Made-up scores of 145 hours by default (6.5 million frames, 0.5 % positive). The obvious bootstrap concatenates the
drawn shows and sorts them again each time; it is timed on a few resamples, which must give our numbers.

.venv/bin/python benchmarks/laughter_metrics.py [--hours 145] [--resamples 1000] [--slow 3]
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics

from voxlab.metrics import alarms, thresholds
from voxlab.metrics.bootstrap import draw_counts
from voxlab.metrics.events import EpisodeScores, Frames, pool
from voxlab.metrics.ranking import auroc, average_precision, measure_mixtures, rank_table

_FRAMES_PER_HOUR = 45_000
_HOURS_EACH = 0.75


def make_episodes(hours: float) -> list[EpisodeScores]:
    """Make episodes of three quarters of an hour with 45 events an hour, five frames before each positive."""
    generator = np.random.default_rng(0)
    length = round(_HOURS_EACH * _FRAMES_PER_HOUR)
    episodes = []
    for number in range(max(5, round(hours / _HOURS_EACH))):
        onsets = np.sort(generator.choice(np.arange(50, length, 40), round(45 * _HOURS_EACH), replace=False))
        y = np.zeros(length, np.float32)
        for onset in onsets:
            y[onset - 5 : onset] = 1
        about = {"key": f"e{number}", "name": f"e{number}", "show": f"show {number // 2}", "split": "test"}
        rows = {"logit": (generator.standard_normal(length) + 1.5 * y - 5).astype(np.float32), "y": y}
        spans = np.stack([onsets, onsets + 5], axis=1)
        episodes.append(EpisodeScores(**about, **rows, mask=np.ones(length, bool), onsets=onsets, spans=spans))
    return episodes


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of one call, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def resample_slowly(frames: Frames, group: np.ndarray, counts: np.ndarray) -> list[tuple[float, float]]:
    """Draw, concatenate and sort again for each row of counts."""
    members = [np.flatnonzero(group == number) for number in range(counts.shape[1])]
    values = []
    for row in counts:
        drawn = np.concatenate([members[number] for number, times in enumerate(row) for _ in range(times)])
        y, scores = frames.y[drawn], frames.logit[drawn]
        values.append((metrics.average_precision_score(y, scores), metrics.roc_auc_score(y, scores)))
    return values


def resample_quickly(frames: Frames, group: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count once, then mix the counts."""
    return measure_mixtures(rank_table(frames.logit, frames.y, group, counts.shape[1]), counts)


def main() -> None:
    """Print one row per part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=145)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=3, help="resamples of the obvious way")
    options = parser.parse_args()
    episodes = make_episodes(options.hours)
    frames, group = pool(episodes), np.repeat(np.arange(len(episodes)) // 2, [len(each.y) for each in episodes])
    counts = draw_counts(int(group.max()) + 1, resamples=options.resamples, seed=0)
    print(f"{len(frames.y):,} frames, {int(frames.y.sum()):,} positive, {counts.shape[1]} shows.\n")
    print("| | ours | the obvious way | ratio |\n|---|---|---|---|")

    slow, expected = timed(lambda: resample_slowly(frames, group, counts[: options.slow]))
    quick, found = timed(lambda: resample_quickly(frames, group, counts))
    np.testing.assert_allclose(np.array(found).T[: options.slow], expected, rtol=1e-9)
    whole = slow / options.slow * options.resamples
    row(f"AP and AUROC of {options.resamples:,} resamples of shows", quick, whole)

    ours, _ = timed(lambda: (average_precision(frames.logit, frames.y), auroc(frames.logit, frames.y)))
    theirs, _ = timed(
        lambda: (metrics.average_precision_score(frames.y, frames.logit), metrics.roc_auc_score(frames.y, frames.logit))
    )
    row("AP and AUROC once", ours, theirs)

    grid, _ = timed(lambda: [metrics.f1_score(frames.y, frames.logit >= place) for place in np.linspace(-5, 0, 3)])
    exact, _ = timed(lambda: thresholds.best_frame_threshold(frames, "f1"))
    row("best F1: every distinct score against 100 thresholds", exact, grid / 3 * 100)

    places = alarms.rank_thresholds(frames.logit, 200)
    sweep, _ = timed(lambda: alarms.sweep_alarms(episodes, places, 5, 25, (1.0, 0.0)))
    print(f"| alarms matched with events at {len(places)} thresholds | {sweep:.1f} s | | |")


def row(name: str, ours: float, theirs: float) -> None:
    """Print seconds and their ratio."""
    print(f"| {name} | {ours:.1f} s | {theirs:,.1f} s | {theirs / ours:,.1f} |")


if __name__ == "__main__":
    main()
