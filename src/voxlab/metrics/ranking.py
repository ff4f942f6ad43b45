"""How well scores rank positives above negatives: exact AP and AUROC, also of weighted groups, and their curves.

Only the scores of positives matter: between two of them all negatives may be counted together. So a table of counts per
group and positive score gives the exact measures of any mixture of groups without sorting again (`measure_mixtures`).
"""

from dataclasses import dataclass

import numpy as np

_BLOCK = 1 << 24  # numbers per block of work


@dataclass(frozen=True, eq=False)
class RankTable:
    """Counts of G groups at the K distinct scores of positives, from the highest down.

    Args:
        scores: (K,) descending.
        tp: (G, K) positives at or above each score.
        fp: (G, K) negatives at or above it.
        ties: (G, K) negatives with exactly this score.
        positives: (G,) in all.
        negatives: (G,) in all.
    """

    scores: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    ties: np.ndarray
    positives: np.ndarray
    negatives: np.ndarray


def rank_table(scores: np.ndarray, y: np.ndarray, group: np.ndarray | None = None, num_groups: int = 1) -> RankTable:
    """Count positives and negatives at each distinct score of a positive.

    Args:
        scores: (N,) finite; higher = more likely positive.
        y: (N,) bool.
        group: (N,) int below `num_groups`; None: all in one.
        num_groups: G.
    """
    levels = np.unique(scores[y])  # ascending
    size = len(levels) + 1
    member = np.zeros(len(scores), dtype=np.int64) if group is None else group.astype(np.int64)
    place = np.searchsorted(levels, scores, side="right")  # number of levels at or below each score
    on_level = (
        (place > 0) & (levels[np.maximum(place, 1) - 1] == scores) if len(levels) else np.zeros(len(scores), bool)
    )
    slot = member * size + place

    def tally(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(slot[chosen], minlength=num_groups * size).reshape(num_groups, size)

    # column k of the reversed counts: scores whose highest level at or below is the k-th from the top
    tp, fp = (np.cumsum(tally(chosen)[:, ::-1], axis=1) for chosen in (y, ~y))
    ties = tally(~y & on_level)[:, ::-1]
    return RankTable(levels[::-1], tp[:, :-1], fp[:, :-1], ties[:, :-1], tp[:, -1], fp[:, -1])


def measure_mixtures(table: RankTable, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return AP and AUROC of mixtures of the groups; NaN where a class is absent.

    AP sums precision over the steps of recall, without interpolation; AUROC counts ties as half.

    Args:
        table: of G groups.
        weights: (B, G) how often each mixture holds each group, >= 0.

    Returns:
        (B,) AP and (B,) AUROC.
    """
    rows = max(1, _BLOCK // max(1, len(table.scores)))
    parts = [_measure_block(table, weights[start : start + rows]) for start in range(0, len(weights), rows)]
    ap, auroc = (np.concatenate(values) for values in zip(*parts, strict=True))
    return ap, auroc


def _measure_block(table: RankTable, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mixed = weights.astype(np.float64)
    tp, fp, ties = mixed @ table.tp, mixed @ table.fp, mixed @ table.ties
    positives, negatives = mixed @ table.positives, mixed @ table.negatives
    gained = np.diff(tp, axis=1, prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(gained > 0, tp / (tp + fp), 0.0)
        ap = (gained * precision).sum(1) / positives
        auroc = 1.0 - (gained * (fp - 0.5 * ties)).sum(1) / (positives * negatives)
    return np.where(positives > 0, ap, np.nan), np.where((positives > 0) & (negatives > 0), auroc, np.nan)


def average_precision(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the exact AP of (N,) scores and (N,) bool labels; NaN without positives."""
    return float(measure_mixtures(rank_table(scores, y), np.ones((1, 1)))[0][0])


def auroc(scores: np.ndarray, y: np.ndarray) -> float:
    """Return the exact area under the ROC curve; NaN where a class is absent."""
    return float(measure_mixtures(rank_table(scores, y), np.ones((1, 1)))[1][0])


@dataclass(frozen=True, eq=False)
class Curve:
    """Counts at each distinct score, from the highest down: predicted positive = score >= threshold.

    Args:
        thresholds: (K,) descending.
        tp: (K,) positives at or above.
        fp: (K,) negatives at or above.
        positives: in all.
        negatives: in all.
    """

    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    positives: int
    negatives: int

    @property
    def recall(self) -> np.ndarray:
        """(K,) share of the positives that is found; NaN without positives."""
        return self.tp / self.positives if self.positives else np.full(len(self.tp), np.nan)

    @property
    def precision(self) -> np.ndarray:
        """(K,) share of what is found that is positive."""
        return self.tp / (self.tp + self.fp)

    @property
    def fall_out(self) -> np.ndarray:
        """(K,) share of the negatives that is found, wrongly; NaN without negatives."""
        return self.fp / self.negatives if self.negatives else np.full(len(self.fp), np.nan)

    @property
    def f1(self) -> np.ndarray:
        """(K,) 2 TP / (2 TP + FP + FN)."""
        return 2 * self.tp / (self.tp + self.fp + self.positives)


def curve(scores: np.ndarray, y: np.ndarray) -> Curve:
    """Count true and false positives at every distinct score."""
    order = np.argsort(scores)[::-1]
    ranked, hits = scores[order], np.cumsum(y[order], dtype=np.int64)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, np.int64)
    tp = hits[last]
    positives = int(y.sum())
    return Curve(ranked[last], tp, last + 1 - tp, positives, len(y) - positives)
