"""The page of an evaluation: figures with intervals, baselines beside them, plots, episodes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import report
from voxlab.report import Section, spell
from voxlab.tasks.laughter.labels import FIGURES
from voxlab.tasks.laughter.measures import SplitMeasures

_ELSEWHERE = ("prior", "threshold", "loss")  # in tables of their own, or in the curves
_COMPARED = (  # with the baselines
    *("ap", "ap_lift", "auroc", "macro/auroc"),
    *("event/recall", "event/fa_per_hour", "event/recall_at_5_fa_per_hour"),
)
_CHAPTERS: dict[str, dict[str, str]] = {  # chapter -> its plots, without their numbers -> heading
    "Frames": {
        "roc": "ROC",
        "precision_recall": "Precision and recall",
        "confusion": "Confusion",
        "thresholds": "Thresholds",
        "reliability": "Calibration",
        "scores": "Scores of both classes",
    },
    "Alarms and events": {
        "timeline": "Episodes over time",
        "timeline_best": "Episode of the highest AP",
        "timeline_median": "Episode of the middle AP",
        "timeline_worst": "Episode of the lowest AP",
        "onset_locked": "Around an onset",
        "leads": "Lead times",
        "event_recall": "Events announced over false alarms",
    },
    "Episodes": {"episodes": "How well each episode is predicted"},
}
_TIMELINE = (
    "Green alarms announce a laugh within the horizon; violet ones come before it, but within 2 s of a laugh: they "
    "count as false alarms unless events.horizon is raised. Of a long episode the pages with the most laughs are shown."
)
_CAPTIONS = {
    "confusion": "Frames; shares of each row.",
    "thresholds": "Chosen on validation (dashed); how far the lines of test lie beside says what that costs.",
    "timeline_best": _TIMELINE,
    "timeline_median": _TIMELINE,
    "timeline_worst": _TIMELINE,
    "onset_locked": "What rises before 0 anticipates; what rises after it only detects.",
    "event_recall": "At each rate the curve shows the best of all thresholds that raise at most so many false alarms, "
    "chosen on these very episodes: a bound. The marks are what the threshold chosen on validation does, its alarms "
    "counted within the horizon and within 2 s.",
    "reliability": "Bins of equally many frames. Bars: binomial 95 % intervals, too narrow since neighbouring frames "
    "are alike. Triangles: bins without positives.",
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
    page.append(_threshold(summary))
    chapters = _plots(images)
    chapters["Episodes"] += _episodes(splits)
    page += [section for name, parts in chapters.items() for section in report.chapter(name, parts)]
    page += [*report.chapter("Training", sections), _record(record)]
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
    yield from map(report.notice, caveats(summary))


def caveats(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the data of a run and its training mean for its figures, from its metrics.json."""
    for flag, text in _FLAGS.items():
        if summary.get("flags", {}).get(flag):
            yield text
    if summary.get("fit", {}).get("shuffle_labels"):
        yield "Labels were shuffled (fit.shuffle_labels): nothing can be learned, AUROC must be 0.5."


def _facts(splits: Mapping[str, SplitMeasures]) -> Section:
    names = (
        "episodes",
        "shows",
        "episodes_without_events",
        "hours_counted",
        "frames_counted",
        "events",
        "events_per_hour",
    )
    names = (*names, "positives", "prior")
    rows = [[split, *(measured.values[name] for name in names)] for split, measured in splits.items()]
    return report.table("Data", ["split", *(name.replace("_", " ") for name in names)], rows)


def _figures(splits: Mapping[str, SplitMeasures], summary: Mapping[str, Any]) -> Section:
    columns = ["measure"] + [text for split in splits for text in (split, f"95 % interval of {split}")]
    rows = []
    for name, label in FIGURES.items():
        if name in _ELSEWHERE:
            continue
        cells = [[summary.get(f"{split}/{name}"), interval_text(summary.get(f"{split}/{name}/ci"))] for split in splits]
        rows.append([label, *(cell for pair in cells for cell in pair)])
    return report.table("Figures", columns, rows)


def interval_text(ends: Sequence[float] | None) -> str | None:
    """Spell an interval as the figures are spelled, e.g. "0.0112 to 0.0145" and "974.3 to 1345"."""
    return None if ends is None else " to ".join(map(spell, ends))


def _baselines(summary: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> Section:
    """Set the model, in the first row, beside the baselines, each at the threshold chosen for it on validation."""
    rows = [["this model", *(summary.get(f"test/{name}") for name in _COMPARED), None, None]]
    for baseline, figures in baselines.items():
        gain = [figures.get("ap_gain"), interval_text(figures.get("ap_gain/ci"))]
        rows.append([baseline.replace("_", " "), *(figures.get(name) for name in _COMPARED), *gain])
    labels = [FIGURES[name] for name in _COMPARED]
    gain = "AP of the model above it"
    return report.table("Baselines", ["on test", *labels, gain, f"95 % interval of {gain}"], rows)


def _threshold(summary: Mapping[str, Any]) -> Section:
    shown = {
        FIGURES["threshold"]: summary["threshold"],
        "threshold before calibration": summary["threshold/raw"],
        "threshold chosen for": summary["threshold/objective"],
        "threshold, 95 % of resamples": interval_text(summary.get("threshold/ci")),
        "calibration: slope": summary["calibration/slope"],
        "calibration: intercept": summary["calibration/intercept"],
    }
    return report.facts("Threshold and calibration", shown)


def _plots(images: Mapping[str, bytes]) -> dict[str, list[Section]]:
    """Return the plots of each chapter."""
    chapters = {chapter: list[Section]() for chapter in _CHAPTERS}
    for name, image in images.items():
        plot = name.partition("_")[2]
        (chapter,) = (chapter for chapter, titles in _CHAPTERS.items() if plot in titles)
        chapters[chapter].append(report.figure(_CHAPTERS[chapter][plot], image, _CAPTIONS.get(plot, "")))
    return chapters


def _episodes(splits: Mapping[str, SplitMeasures]) -> Iterator[Section]:
    columns = ("name", "show", "hours_counted", "events", "events_per_hour", "prior", "ap", "ap_lift", "auroc")
    for split, measured in splits.items():
        rows = [[_known(row[name]) for name in columns] for row in measured.per_episode]
        yield report.table(f"Episodes of {split}", [name.replace("_", " ") for name in columns], rows)


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value


def _record(record: Mapping[str, Any]) -> Section:
    return report.facts("Made from", record)
