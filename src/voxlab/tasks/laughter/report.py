"""The page of an evaluation: figures with intervals, baselines beside them, plots, episodes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import report
from voxlab.report import Section
from voxlab.tasks.laughter.measures import SplitMeasures

_FIGURES = {  # name -> what it is
    "ap": "average precision (AP)",
    "ap_lift": "AP over the prior",
    "auroc": "AUROC",
    "macro/ap": "AP, mean of episodes",
    "macro/auroc": "AUROC, mean of episodes",
    "precision": "precision of frames",
    "recall": "recall of frames",
    "f1": "F1 of frames",
    "mcc": "MCC",
    "event/recall": "events announced, within the horizon",
    "event/precision": "alarms that announce one",
    "event/fa_per_hour": "false alarms per hour",
    "event/lead_s/mean": "mean lead (s)",
    "event_h25/recall": "events announced up to 2 s before",
    "event_h25/fa_per_hour": "false alarms per hour then",
    "event/recall_at_1_fa_per_hour": "events announced at 1 false alarm per hour",
    "event/recall_at_5_fa_per_hour": "at 5 per hour",
    "event/recall_at_20_fa_per_hour": "at 20 per hour",
    "sed/f1": "onset F1, collar 0.2 s",
    "log_loss": "log loss (nats)",
    "brier": "Brier score",
    "ece": "calibration error",
    "uncalibrated/ece": "calibration error before",
}
_TITLES = {
    "01_roc": "ROC",
    "02_precision_recall": "Precision and recall",
    "03_confusion": "Confusion",
    "04_thresholds": "Thresholds",
    "05_timeline": "Episodes over time",
    "05_timeline_best": "Episode of the highest AP",
    "05_timeline_median": "Episode of the middle AP",
    "05_timeline_worst": "Episode of the lowest AP",
    "06_onset_locked": "Around an onset",
    "07_leads": "Lead times",
    "08_event_recall": "Events announced over false alarms",
    "09_reliability": "Calibration",
    "11_episodes": "Episodes",
    "12_scores": "Scores of both classes",
}
_CAPTIONS = {
    "05": "Line: probability; dashed: threshold; blue: frames to predict; grey: frames left out; orange on top: "
    "laughter; triangles: alarms (green announces a laugh, orange does so again, red announces none).",
    "06": "What rises before 0 anticipates; what rises after it only detects.",
    "03": "Frames; shares of each row.",
}

_FLAGS = {  # of the store of features
    "random_weights": "The features come from random weights: these figures say nothing.",
    "sample": "Synthetic corpus: these figures say nothing about speech.",
    "uses_oracle_mask": "Laughter was silenced in the audio with the labels (data.mask_laughter): too good.",
    "uses_oracle_text": "The features know words before they are spoken (features.text=transcript).",
}


def write(
    splits: Mapping[str, SplitMeasures],
    summary: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, bytes],
    record: Mapping[str, Any],
    run_dir: Path,
    sections: Sequence[Section] = (),
) -> Path:
    """Write report.html and return its path."""
    page = [*_notices(splits, summary), _facts(splits), _figures(splits, summary), _baselines(summary, baselines)]
    page += [_threshold(summary), *_plots(images), *_episodes(splits), *sections, _record(record)]
    return report.write_report(run_dir / "report.html", "Laughter prediction", str(run_dir), page)


def _notices(splits: Mapping[str, SplitMeasures], summary: Mapping[str, Any]) -> Iterator[Section]:
    if "test" not in splits:
        yield report.notice("There are no test episodes: the plots show validation, which the threshold was chosen on.")
    for name, split in splits.items():
        if split.values.get("auroc/reason"):
            yield report.notice(f"{name}: {split.values['auroc/reason']}, so most figures are not defined.")
        if split.resampling.reason:
            yield report.notice(f"{name}: no intervals ({split.resampling.reason}).", "info")
    if summary["calibration/reason"]:
        yield report.notice(f"Probabilities are not calibrated: {summary['calibration/reason']}.", "info")
    for flag, text in _FLAGS.items():
        if summary.get("flags", {}).get(flag):
            yield report.notice(text)
    if summary.get("fit", {}).get("shuffle_labels"):
        yield report.notice("Labels were shuffled (fit.shuffle_labels): nothing can be learned, AUROC must be 0.5.")


def _facts(splits: Mapping[str, SplitMeasures]) -> Section:
    names = ("episodes", "shows", "episodes_without_events", "hours", "frames_counted", "events", "events_per_hour")
    names = (*names, "positives", "prior")
    rows = [[split, *(measured.values[name] for name in names)] for split, measured in splits.items()]
    return report.table("Data", ["split", *(name.replace("_", " ") for name in names)], rows)


def _figures(splits: Mapping[str, SplitMeasures], summary: Mapping[str, Any]) -> Section:
    columns = ["measure"] + [text for split in splits for text in (split, "95 % interval")]
    rows = []
    for name, label in _FIGURES.items():
        cells = [[summary.get(f"{split}/{name}"), interval_text(summary.get(f"{split}/{name}/ci"))] for split in splits]
        rows.append([label, *(cell for pair in cells for cell in pair)])
    return report.table("Figures", columns, rows)


def interval_text(ends: Sequence[float] | None) -> str | None:
    """Spell an interval, e.g. "0.0112 to 0.0145"."""
    return None if ends is None else f"{ends[0]:.3g} to {ends[1]:.3g}"


def _baselines(summary: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> Section:
    names = ("ap", "ap_lift", "auroc", "macro/auroc", "event/recall_at_5_fa_per_hour")
    rows = [["this model", *(summary.get(f"test/{name}") for name in names), None, None]]
    for baseline, figures in baselines.items():
        gain = [figures.get("ap_gain"), interval_text(figures.get("ap_gain/ci"))]
        rows.append([baseline.replace("_", " "), *(figures.get(name) for name in names), *gain])
    columns = ["on test", "AP", "AP over prior", "AUROC", "AUROC, mean of episodes", "events announced at 5 FA/h"]
    return report.table("Baselines", [*columns, "AP of the model above it", "95 % interval"], rows)


def _threshold(summary: Mapping[str, Any]) -> Section:
    shown = {
        "threshold (probability)": summary["threshold"],
        "before calibration": summary["threshold/raw"],
        "chosen for": summary["threshold/objective"],
        "95 % of resamples": interval_text(summary.get("threshold/ci")),
        "slope": summary["calibration/slope"],
        "intercept": summary["calibration/intercept"],
    }
    return report.facts("Threshold and calibration", shown)


def _plots(images: Mapping[str, bytes]) -> Iterator[Section]:
    for name, image in images.items():
        yield report.figure(_TITLES[name], image, _CAPTIONS.get(name[:2], ""))


def _episodes(splits: Mapping[str, SplitMeasures]) -> Iterator[Section]:
    columns = ("name", "show", "hours", "events", "events_per_hour", "prior", "ap", "ap_lift", "auroc")
    for split, measured in splits.items():
        rows = [[_known(row[name]) for name in columns] for row in measured.per_episode]
        yield report.table(f"Episodes of {split}", [name.replace("_", " ") for name in columns], rows)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _record(record: Mapping[str, Any]) -> Section:
    return report.facts("Made from", record)
