"""Plots of scores: ROC, precision and recall, thresholds, calibration; each gives its figure and the numbers in it."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from voxlab.metrics import ranking
from voxlab.metrics.calibration import Reliability
from voxlab.plots import INK
from voxlab.tasks.laughter.charts import (
    CHOSEN,
    GREY,
    TALL,
    add_legend,
    add_reference,
    blank,
    make_chart,
    make_figure,
    show_decades,
    show_shares,
    style,
)
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.measures import SplitMeasures

Plot = tuple[Figure, dict[str, np.ndarray]]

_POINTS = 2000  # of a drawn curve
_BAND_RESAMPLES = 200
_COLOURS = {"precision": "C0", "recall": "C1", "f1": "C2"}
_DASHES: dict[str, Literal["-", "--"]] = {"test": "-", "val": "--"}
_EQUAL_F1 = (0.1, 0.2, 0.4, 0.6, 0.8)


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
    about = (f"Frames of {split.name}: receiver operating characteristic", "false positive rate", "recall")
    if reason := missing_class(split):
        return blank(*about, reason), {}
    points = ranking.curve(split.frames.logit, split.frames.y)
    kept = thin(len(points.thresholds))
    x, y = np.r_[0, points.fall_out[kept]], np.r_[0, points.recall[kept]]
    chart, axes = make_chart(*about, TALL)
    axes.plot(x, y, linewidth=1.2, label=f"AUROC {split.values['auroc']:.3f}")
    data = {"roc_fpr": x, "roc_tpr": y}
    band = _roc_band(split)
    if band is not None:
        axes.fill_between(*band, alpha=0.2, linewidth=0, label="95 % of resamples")
        data |= dict(zip(("roc_band_fpr", "roc_band_low", "roc_band_high"), band, strict=True))
    add_reference(axes, [0, 1], [0, 1], "chance")
    _mark(axes, points, decision, points.fall_out, points.recall)
    show_shares(axes, x=True)
    add_legend(axes)
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
        label = f"at the chosen threshold ({decision.threshold.value:.3g})"
        axes.plot([x[above - 1]], [y[above - 1]], "o", color=CHOSEN, markersize=5, label=label)


def _draw_threshold(axes: Axes, decision: Decision) -> None:
    """Draw the calibrated logit of the threshold."""
    place = float(decision.platt.logit(decision.threshold.logit))
    axes.axvline(place, color=CHOSEN, linewidth=0.8, label=f"chosen threshold ({decision.threshold.value:.3g})")


def plot_precision_recall(split: SplitMeasures, decision: Decision) -> Plot:
    """Draw precision over recall, with the prior and lines of equal F1."""
    about = (f"Frames of {split.name}: precision and recall", "recall", "precision")
    if reason := missing_class(split):
        return blank(*about, reason), {}
    points = ranking.curve(split.frames.logit, split.frames.y)
    kept = thin(len(points.thresholds))
    x, y, prior = points.recall[kept], points.precision[kept], split.values["prior"]
    chart, axes = make_chart(*about, TALL)
    axes.plot(x, y, linewidth=1.2, label=f"AP {split.values['ap']:.4f}")
    add_reference(axes, [0, 1], [prior, prior], f"prior {prior:.4f}")
    _mark(axes, points, decision, points.recall, points.precision)
    show_shares(axes, x=True)
    axes.set(yscale="log", ylim=(max(1e-4, prior / 3), 1.05))
    show_decades(axes.yaxis)
    _draw_equal_f1(axes)
    add_legend(axes)
    return chart, {"pr_recall": x, "pr_precision": y, "pr_threshold": points.thresholds[kept]}


def _draw_equal_f1(axes: Axes) -> None:
    """Draw the lines on which F1 is equal, each named at its right end."""
    for f1 in _EQUAL_F1:
        recall = np.linspace(f1 / 2 + 1e-6, 1, 200)
        precision = f1 * recall / (2 * recall - f1)
        shown = precision <= 1
        axes.plot(recall[shown], precision[shown], color=GREY, linewidth=0.5, linestyle=":")
        if precision[-1] > axes.get_ylim()[0]:
            axes.text(1.015, precision[-1], f"F1 {f1:g}", fontsize=6, color=GREY, va="center")


def plot_confusion(split: SplitMeasures) -> Plot:
    """Show the counts of frames at the threshold and at one half, with the share of each row."""
    chart = make_figure(f"Frames of {split.name}: true and predicted class, with shares of each row", (6.0, 2.8))
    data = {}
    for place, (prefix, title) in enumerate((("", "at the chosen threshold"), ("at_half/", "at probability 0.5"))):
        tp, fp, fn, tn = (split.values[f"{prefix}{name}"] for name in ("tp", "fp", "fn", "tn"))
        grid = np.array([[tn, fp], [fn, tp]])
        share = grid / np.maximum(grid.sum(1, keepdims=True), 1)
        axes = chart.add_subplot(1, 2, place + 1, facecolor="none")
        style(axes, "predicted", "true")
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1.6)
        for row, column in np.ndindex(2, 2):
            text = f"{grid[row, column]:,}\n{share[row, column]:.1%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="#1c2430")
        axes.set_xticks([0, 1], ["negative", "positive"])
        axes.set_yticks([0, 1], ["negative", "positive"])
        axes.set_title(title, fontsize=8, color=INK)
        data[f"confusion_{'half' if prefix else 'threshold'}"] = grid
    return chart, data


def plot_thresholds(splits: Mapping[str, SplitMeasures], decision: Decision) -> Plot:
    """Draw precision, recall and F1 over the calibrated logit of the threshold, on validation and test."""
    about = ("Frames: precision, recall and F1 at each threshold", "threshold (calibrated logit)", "share")
    drawn = {name: split for name, split in splits.items() if not missing_class(split)}
    if not drawn:
        return blank(*about, "no split with both classes"), {}
    chart, axes = make_chart(*about, TALL)
    data = {}
    for name, split in drawn.items():
        points = ranking.curve(split.frames.logit, split.frames.y)
        kept = thin(len(points.thresholds))
        x = data[f"threshold_{name}_logit"] = decision.platt.logit(points.thresholds[kept])
        for measure, colour in _COLOURS.items():
            y = data[f"threshold_{name}_{measure}"] = getattr(points, measure)[kept]
            axes.plot(x, y, color=colour, linestyle=_DASHES[name], linewidth=1.2)
    _draw_threshold(axes, decision)
    show_shares(axes)
    names = [Line2D([], [], color=colour, label=name) for name, colour in _COLOURS.items()]
    names += [Line2D([], [], color=GREY, linestyle=_DASHES[name], label=split.name) for name, split in drawn.items()]
    add_legend(axes, [*names, axes.get_lines()[-1]])
    return chart, data


def plot_reliability(bins: Mapping[str, Reliability], split: str) -> Plot:
    """Draw how often what was promised came true, before and after calibration, on logarithmic axes.

    Args:
        bins: "" after calibration, "uncalibrated/" before it.
        split: its name, for the title.
    """
    what = f"Frames of {split}" if split else "Frames"
    about = (f"{what}: promised and true share of positives", "mean probability of a bin", "share of positives")
    named = {"calibrated": bins[""], "before": bins["uncalibrated/"]}
    if not any(each.frequency.any() for each in named.values()):
        return blank(*about, "no positives"), {}
    chart, axes = make_chart(*about, TALL)
    data = {}
    for place, (name, each) in enumerate(named.items()):
        low, high = binomial_interval(each.frequency, each.frames)
        _draw_bins(axes, each, low, high, f"C{place}", f"{name} (ECE {each.error:.4f})")
        parts = {"probability": each.probability, "frequency": each.frequency, "low": low, "high": high}
        data |= {f"reliability_{name}_{part}": values for part, values in parts.items()}
    both = np.concatenate([each.probability for each in named.values()])
    ends = [float(max(1e-6, both.min())), float(max(1e-6, both.max()))]
    add_reference(axes, ends, ends, "ideal")
    if not all(each.frequency.all() for each in named.values()):
        axes.plot([], [], "v", color=GREY, markerfacecolor="none", markersize=4, label="below: no positives")
    axes.set(xscale="log", yscale="log")
    show_decades(axes.xaxis)
    show_decades(axes.yaxis)
    add_legend(axes)
    return chart, data


def _draw_bins(axes: Axes, bins: Reliability, low: np.ndarray, high: np.ndarray, colour: str, label: str) -> None:
    """Draw points with bars; of a bin without positives, which no logarithmic axis has, the upper end of its bar."""
    some = bins.frequency > 0
    share, x = bins.frequency[some], bins.probability[some]
    bars = np.stack([share - low[some], high[some] - share])
    axes.errorbar(x, share, bars, fmt="o", markersize=3.5, capsize=2, linewidth=1, color=colour, label=label)
    if not some.all():
        axes.plot(bins.probability[~some], high[~some], "v", color=colour, markerfacecolor="none", markersize=4)


def binomial_interval(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share.

    Args:
        share: (K,) 0 to 1.
        count: (K,) how many it is a share of, 1 or more.

    Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    z = 1.959964
    scale = 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / scale
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / scale
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def plot_scores(split: SplitMeasures, decision: Decision) -> Plot:
    """Draw how often each calibrated logit occurs in either class, counts on a logarithmic scale."""
    about = (f"Frames of {split.name}: scores of both classes", "calibrated logit", "frames")
    logit = decision.platt.logit(split.frames.logit)
    if not len(logit):
        return blank(*about, "no frames"), {}
    edges = np.histogram_bin_edges(logit, 80)
    chart, axes = make_chart(*about)
    data = {"score_edges": edges}
    for place, (name, chosen) in enumerate((("negative", ~split.frames.y), ("positive", split.frames.y))):
        counts = data[f"score_{name}"] = np.histogram(logit[chosen], edges)[0]
        axes.stairs(counts, edges, fill=True, alpha=0.5, color=f"C{place}", label=name)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    _draw_threshold(axes, decision)
    add_legend(axes)
    return chart, data


def plot_episode_rates(rows: Sequence[Mapping[str, float | str | None]]) -> Plot:
    """Draw the AP of each episode over its events per hour."""
    name = f"Episodes of {rows[0]['split']}" if rows else "Episodes"
    about = (f"{name}: how well each is predicted", "events per hour", "AP of the episode")
    x = np.array([row["events_per_hour"] for row in rows], dtype=np.float64)
    y, prior = (np.array([row[key] for row in rows], dtype=np.float64) for key in ("ap", "prior"))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return blank(*about, "no episode with events"), {}
    chart, axes = make_chart(*about)
    axes.plot(x[known], y[known], "o", markersize=4, alpha=0.7, color="C0", label="the model")
    axes.plot(x[known], prior[known], "_", markersize=7, color=GREY, label="prior of the episode")
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(axes)
    return chart, {"episode_events_per_hour": x, "episode_ap": y}
