"""Plots of scores: ROC, precision and recall, thresholds, calibration; each gives its figure and the numbers in it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxlab.metrics import ranking
from voxlab.metrics.calibration import Reliability
from voxlab.plots import INK, plot_curves
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.measures import SplitMeasures

Plot = tuple[Figure, dict[str, np.ndarray]]
TALL = (9.0, 3.6)  # inches

_POINTS = 2000  # of a drawn curve
_BAND_RESAMPLES = 200
_GREY = "#9aa1ab"


def blank(xlabel: str, ylabel: str, reason: str) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    chart = plot_curves({"": ([], [])}, xlabel, ylabel)
    chart.axes[0].text(0.5, 0.5, reason, ha="center", va="center", color=INK, transform=chart.axes[0].transAxes)
    return chart


def thin(length: int, limit: int = _POINTS) -> np.ndarray:
    """Return up to about `limit` places of a curve, dense at its beginning, the last one among them."""
    if length <= limit:
        return np.arange(length)
    return np.unique(np.r_[np.geomspace(1, length, limit // 2), np.linspace(1, length, limit // 2)].astype(int)) - 1


def missing_class(split: SplitMeasures) -> str:
    """Return why curves over both classes can't be drawn, or ""."""
    positives, frames = split.values["positives"], split.values["frames_counted"]
    if not frames:
        return "no frames"
    return "" if 0 < positives < frames else f"{'no' if not positives else 'only'} positives among {frames} frames"


def plot_roc(split: SplitMeasures, decision: Decision) -> Plot:
    """Draw recall over the share of negatives taken for positives, with the band of the resamples."""
    axes_of = ("false positive rate", "recall")
    if reason := missing_class(split):
        return blank(*axes_of, reason), {}
    points = ranking.curve(split.frames.logit, split.frames.y)
    kept = thin(len(points.thresholds))
    x, y = np.r_[0, points.fall_out[kept]], np.r_[0, points.recall[kept]]
    curves = {f"AUROC {split.values['auroc']:.3f}": (x, y), "chance": ([0, 1], [0, 1])}
    chart = plot_curves(curves, *axes_of, size=TALL)  # type: ignore[arg-type]  # arrays are sequences of numbers here
    data = {"roc_fpr": x, "roc_tpr": y}
    band = _roc_band(split)
    if band is not None:
        chart.axes[0].fill_between(*band, alpha=0.2, linewidth=0)
        data |= dict(zip(("roc_band_fpr", "roc_band_low", "roc_band_high"), band, strict=True))
    _mark(chart.axes[0], points, decision, points.fall_out, points.recall)
    return chart, data


def _roc_band(split: SplitMeasures) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    table, weights = split.table, split.resampling.weights
    if weights is None:
        return None
    grid = np.linspace(0, 1, 201)
    rows = []
    for weight in weights[:_BAND_RESAMPLES].astype(float):
        positives, negatives = weight @ table.positives, weight @ table.negatives
        if positives and negatives:
            fall_out, recall = weight @ table.fp / negatives, weight @ table.tp / positives
            rows.append(np.interp(grid, np.r_[0, fall_out, 1], np.r_[0, recall, 1]))
    if not rows:
        return None
    low, high = np.quantile(np.stack(rows), [0.025, 0.975], axis=0)
    return grid, low, high


def _mark(axes: Axes, points: ranking.Curve, decision: Decision, x: np.ndarray, y: np.ndarray) -> None:
    """Mark where the threshold lies on a curve."""
    above = int(np.searchsorted(-points.thresholds, -decision.threshold.logit, side="right"))
    if above:
        axes.plot([x[above - 1]], [y[above - 1]], "o", color="#d1495b", markersize=5)


def plot_precision_recall(split: SplitMeasures, decision: Decision) -> Plot:
    """Draw precision over recall on two scales, with the prior and lines of equal F1."""
    axes_of = ("recall", "precision")
    if reason := missing_class(split):
        return blank(*axes_of, reason), {}
    points = ranking.curve(split.frames.logit, split.frames.y)
    kept = thin(len(points.thresholds))
    x, y, prior = points.recall[kept], points.precision[kept], split.values["prior"]
    curves = {f"AP {split.values['ap']:.4f}": (x, y), f"prior {prior:.4f}": ([0, 1], [prior, prior])}
    chart = plot_curves(curves, *axes_of, size=TALL)  # type: ignore[arg-type]
    axes = chart.axes[0]
    for f1 in (0.1, 0.2, 0.4, 0.6, 0.8):
        recall = np.linspace(f1 / 2 + 1e-6, 1, 200)
        precision = f1 * recall / (2 * recall - f1)
        shown = precision <= 1
        axes.plot(recall[shown], precision[shown], color=_GREY, linewidth=0.5, linestyle=":")
    axes.set(xlim=(0, 1), yscale="log", ylim=(max(1e-4, prior / 3), 1.05))
    _mark(axes, points, decision, points.recall, points.precision)
    return chart, {"pr_recall": x, "pr_precision": y, "pr_threshold": points.thresholds[kept]}


def plot_confusion(split: SplitMeasures) -> Plot:
    """Show the counts of frames at the threshold and at one half, with the share of each row."""
    chart = Figure(figsize=(6.0, 2.6), facecolor="none")
    data = {}
    for place, (prefix, title) in enumerate((("", "at the threshold"), ("at_half/", "at probability 0.5"))):
        tp, fp, fn, tn = (split.values[f"{prefix}{name}"] for name in ("tp", "fp", "fn", "tn"))
        grid = np.array([[tn, fp], [fn, tp]])
        share = grid / np.maximum(grid.sum(1, keepdims=True), 1)
        axes = chart.add_subplot(1, 2, place + 1, facecolor="none")
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.6)
        for row, column in np.ndindex(2, 2):
            text = f"{grid[row, column]:,}\n{share[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="#1c2430")
        axes.set_xticks([0, 1], ["negative", "positive"], fontsize=8, color=INK)
        axes.set_yticks([0, 1], ["negative", "positive"], fontsize=8, color=INK)
        axes.set_title(title, fontsize=8, color=INK)
        axes.set_xlabel("predicted", fontsize=8, color=INK)
        axes.set_ylabel("true", fontsize=8, color=INK)
        data[f"confusion_{'half' if prefix else 'threshold'}"] = grid
    chart.tight_layout()
    return chart, data


def plot_thresholds(splits: Mapping[str, SplitMeasures], decision: Decision) -> Plot:
    """Draw precision, recall and F1 over the calibrated logit of the threshold, on validation and test."""
    axes_of = ("threshold (calibrated logit)", "")
    drawn = {name: split for name, split in splits.items() if not missing_class(split)}
    if not drawn:
        return blank(*axes_of, "no split with both classes"), {}
    curves, data = {}, {}
    for name, split in drawn.items():
        points = ranking.curve(split.frames.logit, split.frames.y)
        kept = thin(len(points.thresholds))
        x = decision.platt.logit(points.thresholds[kept])
        data[f"threshold_{name}_logit"] = x
        for measure in ("precision", "recall", "f1"):
            y = getattr(points, measure)[kept]
            curves[f"{measure}, {name}"], data[f"threshold_{name}_{measure}"] = (x, y), y
    chart = plot_curves(curves, *axes_of, size=TALL)
    chart.axes[0].axvline(float(decision.platt.logit(decision.threshold.logit)), color="#d1495b", linewidth=0.8)
    return chart, data


def plot_reliability(bins: Mapping[str, Reliability]) -> Plot:
    """Draw how often what was promised came true, before and after calibration, on logarithmic axes."""
    axes_of = ("mean probability", "share of positives")
    named = {"calibrated": bins[""], "before": bins["uncalibrated/"]}
    if not any(each.frequency.any() for each in named.values()):
        return blank(*axes_of, "no positives"), {}
    curves = {
        f"{name} (ECE {each.error:.4f})": (each.probability, np.where(each.frequency > 0, each.frequency, np.nan))
        for name, each in named.items()
    }
    shown = np.concatenate([[*each.probability, *each.frequency] for each in named.values()])
    ends = np.array([max(1e-6, float(shown[shown > 0].min())), float(shown.max())])
    curves["ideal"] = (ends, ends)
    chart = plot_curves(curves, *axes_of, size=TALL)  # type: ignore[arg-type]
    for line in chart.axes[0].get_lines()[:2]:
        line.set_marker(".")
    chart.axes[0].set(xscale="log", yscale="log")
    data = {f"reliability_{name}_probability": each.probability for name, each in named.items()}
    return chart, data | {f"reliability_{name}_frequency": each.frequency for name, each in named.items()}


def plot_scores(split: SplitMeasures, decision: Decision) -> Plot:
    """Draw how often each calibrated logit occurs in either class, counts on a logarithmic scale."""
    axes_of = ("calibrated logit", "frames")
    logit = decision.platt.logit(split.frames.logit)
    if not len(logit):
        return blank(*axes_of, "no frames"), {}
    edges = np.histogram_bin_edges(logit, 80)
    chart = plot_curves({"negative": ([], []), "positive": ([], [])}, *axes_of)
    data = {"score_edges": edges}
    for place, (name, chosen) in enumerate((("negative", ~split.frames.y), ("positive", split.frames.y))):
        data[f"score_{name}"] = np.histogram(logit[chosen], edges)[0]
        chart.axes[0].stairs(data[f"score_{name}"], edges, fill=True, alpha=0.5, color=f"C{place}")
    chart.axes[0].set_yscale("symlog", linthresh=1)
    chart.axes[0].axvline(float(decision.platt.logit(decision.threshold.logit)), color="#d1495b", linewidth=0.8)
    return chart, data


def plot_episode_rates(rows: Sequence[Mapping[str, float | None]]) -> Plot:
    """Draw the AP of each episode over its events per hour."""
    axes_of = ("events per hour", "AP of the episode")
    x = np.array([row["events_per_hour"] for row in rows], dtype=np.float64)
    y = np.array([row["ap"] for row in rows], dtype=np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return blank(*axes_of, "no episode with events"), {}
    chart = plot_curves({"": ([], [])}, *axes_of)
    chart.axes[0].plot(x[known], y[known], "o", markersize=4, alpha=0.7, color="C0")
    return chart, {"episode_events_per_hour": x, "episode_ap": y}
