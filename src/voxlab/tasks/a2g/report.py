"""The page of a test: the table of metrics with baselines, videos, curves of training, and what it was made from."""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlab import report
from voxlab.metrics import beats
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.skeleton import UPPER_JOINTS, Skeleton
from voxlab.plots import plot_curves
from voxlab.report import Section
from voxlab.tasks.a2g.evaluate import Pair
from voxlab.tasks.a2g.fgd import mean_speeds
from voxlab.tasks.a2g.metric_plots import plot_joints, plot_speed
from voxlab.tasks.a2g.predictor import Predictor
from voxlab.tasks.a2g.protocols import Metrics
from voxlab.tasks.a2g.tables import metric_table, published_table
from voxlab.tasks.history import FILE, curve, read_history

FLAGS = {
    "random_weights": "The audio features come from random weights: these figures say nothing about trained ones.",
    "sample": "Synthetic corpus: these figures say nothing about real speech.",
}
_CURVES = {  # title -> (names, unit)
    "Cross entropy": (("train/ce", "val/ce"), "nats"),
    "Accuracy of hidden codes": (("train/accuracy", "val/accuracy"), "share"),
    "Decoded motion": (("train/rec", "val/rec", "train/velocity", "val/velocity"), "error, normalised"),
    "Gradient norm": (("train/grad_norm",), "norm"),
    "Learning rate": (("train/lr",), "rate"),
    "Speed": (("train/steps_per_s",), "steps a second"),
}
_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}
_LEAST_SHOWN: beats.Seconds = 0.5
_MAX_VIDEO = 20_000_000  # bytes; a larger one is named only


def write(
    results: Mapping[str, Mapping[str, Any]],
    metrics: Metrics,
    files: Mapping[str, Sequence[Path]],
    predictor: Predictor,
    flags: Mapping[str, bool],
    run_dir: Path,
    shown: Sequence[Pair],
    skeleton: Skeleton,
) -> Path:
    """Write report.html and return its path.

    Args:
        results: method -> record of `evaluate_methods`, the model first.
        metrics: settings.
        files: clip -> its video.
        predictor: the model.
        flags: remarks on the figures.
        run_dir: has the history of the training, if any.
        shown: clips whose speed is drawn beside the onsets of their audio.
        skeleton: gives positions of joints.
    """
    page = [report.notice(text) for flag, text in FLAGS.items() if flags.get(flag)]
    page += metric_table(results, metrics.protocol)
    page += [report.figure("Errors by joint", plot_joints(results))]
    if not flags.get("sample"):
        page.append(published_table())
    page += [videos("Videos", files)] if files else []
    page += [*speeds(shown, skeleton), *curves(run_dir), report.facts("Made from", describe_predictor(predictor))]
    return report.write_report(run_dir / "report.html", "Gestures from speech", str(run_dir), page)


def describe_predictor(predictor: Predictor) -> dict[str, Any]:
    """Return the plain facts of a model, for people."""
    record = predictor.record
    kept = (
        "fps",
        "trans",
        "codecs",
        "tokenizers",
        "speakers",
        "stores",
        "motion",
        "seed",
        "step",
        "fit",
        "loss",
        "optim",
    )
    facts = {name: record[name] for name in kept if name in record}
    parameters = sum(weight.numel() for weight in predictor.model.parameters())
    return {"checkpoint": str(predictor.path), "layout": predictor.layout.name, "parameters": parameters, **facts}


def videos(title: str, files: Mapping[str, Sequence[Path]]) -> Section:
    """Show videos, which become part of the page."""
    return Section(title, "".join(_video(name, path) for name, found in files.items() for path in found))


def _video(name: str, path: Path) -> str:
    kind, label = _TYPES.get(path.suffix), html.escape(name)
    if kind is None:
        return ""
    if path.stat().st_size > _MAX_VIDEO:
        return f"<p>{label}: {html.escape(str(path))}</p>"
    source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
    shown = (
        f'<img src="{source}" alt="{label}">' if path.suffix == ".gif" else f'<video controls src="{source}"></video>'
    )
    return f"<figure><div>{shown}</div><figcaption>{label}</figcaption></figure>"


def speeds(pairs: Sequence[Pair], skeleton: Skeleton) -> Iterator[Section]:
    """Yield a figure of the speed of each clip's upper body; none for a clip that is hardly longer than its edges.

    Args:
        pairs: of the clips; speeds are over the mean speed of each joint in all their references.
        skeleton: gives positions of joints.
    """
    usual = mean_speeds((joint_positions(pair.reference, skeleton), pair.reference.fps) for pair in pairs)
    if not (usual[list(UPPER_JOINTS)] > 0).all():
        return
    for pair in pairs:
        frames = min(pair.reference.num_frames, pair.predicted.num_frames)
        if frames / pair.reference.fps > 2 * beats.EDGE + _LEAST_SHOWN and np.isfinite(pair.predicted.poses).all():
            title = f"Speed of the upper body, {pair.id} (ticks: beats of the prediction; lines: onsets)"
            yield report.figure(title, plot_speed(pair, skeleton, usual))


def curves(run_dir: Path) -> Iterator[Section]:
    """Yield a figure of each curve that `history.jsonl` has; none where there is no such file."""
    rows = read_history(run_dir / FILE)
    for title, (names, unit) in _CURVES.items():
        present = {name: points for name in names if (points := curve(rows, name))[0]}
        if present:
            yield report.figure(title, plot_curves(present, "step", unit))
