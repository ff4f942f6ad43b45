"""The page of a training run: curves, use of the codebooks, clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxlab import audio
from voxlab.plots import plot_curves
from voxlab.report import Clip, Section, facts, figure, notice, players, write_report
from voxlab.tasks.history import FILE, curve, read_history
from voxlab.tasks.train_tokenizer.samples import clip_pairs

_CURVES = {  # title -> (names, unit)
    "Loss": (("train/loss", "val/loss"), "loss"),
    "Mel L1": (("train/mel_l1", "val/mel_l1", "val/mel_l1_8k"), "nats"),
    "Multi-scale mel distance": (("train/mel_ms", "val/mel_ms"), "distance"),
    "Adversary": (("gan/d_loss", "train/adv", "train/feat", "gan/adv", "gan/feat"), "loss"),
    "Error of normalised motion": (("val/rec_mse", "val/rec_l1", "val/velocity_l1"), "error"),
    "Angle between rotations": (("train/degrees", "val/degrees"), "degrees"),
    "Distance of the joints": (("train/joints_cm", "val/joints_cm"), "cm"),
    "Commitment": (("train/commit", "val/commit"), "mean square"),
    "Gradient norm": (("train/grad_norm", "gan/grad_norm_d"), "norm"),
    "Learning rate": (("train/lr",), "rate"),
    "Speed": (("train/audio_s_per_s",), "audio seconds a second"),
}
_PER_CODEBOOK = {"Use of the codebooks": "vq/use/", "Entropy of the codebooks (bits)": "vq/entropy_bits/"}
_KEPT = "val/rec_mse_first/"


def write(run_dir: Path, summary: Mapping[str, Any], monitor: str) -> Path:
    """Write `report.html` of a run from its history file and its clips; returns the path."""
    rows = read_history(run_dir / FILE)
    shown = {name.replace("_", " "): value for name, value in summary.items()}
    sections: list[Section] = [facts("Result", shown)]
    if not any(monitor in row for row in rows):
        sections.insert(
            0, notice(f"There was no validation: {monitor} is not known, the last step counts as the best.")
        )
    for title, (names, unit) in _CURVES.items():
        sections += _curves(title, {name: curve(rows, name) for name in names}, unit)
    for title, prefix in _PER_CODEBOOK.items():
        names = sorted({name for row in rows for name in row if name.startswith(prefix)}, key=_number)
        sections += _curves(title, {f"codebook {_number(name)}": curve(rows, name) for name in names}, "")
    kept = sorted({name for row in rows for name in row if name.startswith(_KEPT)}, key=_number)
    curves = {f"first {_number(name)}": curve(rows, name) for name in kept}
    sections += _curves("Error of motion with fewer codebooks", curves, "MSE (normalised)")
    clips = [
        Clip(f"{number} {kind}", *audio.load(path))
        for number, original, coded in clip_pairs(run_dir)
        for kind, path in (("original", original), ("coded", coded))
    ]
    if clips:
        sections.append(players("Validation clips", clips))
    return write_report(run_dir / "report.html", "Tokenizer training", str(run_dir), sections)


def _curves(title: str, curves: dict[str, tuple[list[float], list[float]]], unit: str) -> list[Section]:
    present = {name: points for name, points in curves.items() if points[0]}
    return [figure(title, plot_curves(present, "step", unit))] if present else []


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])
