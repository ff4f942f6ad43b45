"""The evaluation of a model: calibrate and choose a threshold on validation, then measure, draw and write test.

From arrays of scores alone; no model, no data set. One process does it.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from voxlab import plots as drawing
from voxlab import storage
from voxlab.metrics import bootstrap
from voxlab.metrics.events import EpisodeScores
from voxlab.metrics.thresholds import FRAME_OBJECTIVES, threshold_spread
from voxlab.progress import BulkProgress
from voxlab.report import Section
from voxlab.tasks.laughter import baselines, event_plots, outputs, plots, report
from voxlab.tasks.laughter.compare import compare
from voxlab.tasks.laughter.decide import Decision, decide
from voxlab.tasks.laughter.eval_settings import EvalSettings
from voxlab.tasks.laughter.measures import Resampling, SplitMeasures, draw_ranking, measure, put_oracle
from voxlab.tasks.sweeps import sweep_of

log = logging.getLogger(__name__)

_BASELINE_FIGURES = (
    *("ap", "ap/ci", "ap_lift", "auroc", "auroc/ci", "f1", "macro/ap", "macro/auroc"),
    *("event/recall", "event/fa_per_hour", "event/recall_at_5_fa_per_hour"),
)


@dataclass(eq=False)
class Evaluation:
    """All figures of a model and its baselines.

    Args:
        decision: calibration and threshold.
        splits: "val" and "test", where there are episodes.
        summary: flat names -> figures.
        baselines: name -> figures on test.
    """

    decision: Decision
    splits: dict[str, SplitMeasures]
    summary: dict[str, Any]
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)


def evaluate(
    *,
    train: Sequence[EpisodeScores],
    validation: Sequence[EpisodeScores],
    test: Sequence[EpisodeScores],
    settings: EvalSettings,
    record: Mapping[str, Any],
    seed: int,
    run_dir: Path,
    decision: Decision | None = None,
    sections: Sequence[Section] = (),
    loggers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure a model, write every file of its evaluation, and return the summary.

    Args:
        train: labels, energy and VAD, which baselines are fitted on; scores only for thr.source=cv.
        validation: episodes with scores that the threshold is chosen on.
        test: episodes with scores that are reported.
        settings: of the evaluation.
        record: what the model was made from: labels, features, model, loss; noted with the figures.
        seed: of resamples and folds.
        run_dir: where to write.
        decision: calibration and threshold of a checkpoint, used as they are; None: chosen on validation.
        sections: what else the page is to show.
        loggers: Lightning loggers by name; TensorBoard gets the plots.

    Returns:
        Flat names -> figures: `test/ap`, `test/ap/ci`, `val/...`, `baseline/loudness/ap`, `threshold`, ...

    Raises:
        UserError: no threshold can be chosen.
    """
    chosen = decision or decide(validation, settings, train=train, seed=seed)
    # First of all, so that nothing that fails later takes the scores with it.
    outputs.write_decision(chosen, run_dir)
    outputs.write_predictions([*validation, *test], chosen, run_dir)
    if settings.eval.csv:
        outputs.write_csv([*validation, *test], chosen, run_dir / "predictions.csv")
    evaluation = measure_all(train, validation, test, settings, chosen, seed)
    evaluation.summary |= record
    charts, arrays = draw(evaluation, seed) if settings.eval.plots == "all" else ({}, {})
    outputs.write_arrays(run_dir / "curves.npz", arrays)
    images = {name: drawing.render_png(chart) for name, chart in charts.items()}
    for name, image in images.items():
        storage.atomic_write_bytes(run_dir / "plots" / f"{name}.png", image)
    storage.atomic_write_json(run_dir / "metrics.json", evaluation.summary)
    report.write(evaluation.splits, evaluation.summary, evaluation.baselines, images, record, run_dir, sections)
    _log_images(loggers or {}, images)
    _tell(evaluation.summary)
    if test and (runs := sweep_of(run_dir)):
        write = partial(compare_runs, runs, settings.eval.bootstrap, seed)
        storage.write_settled(lambda: storage.stamps(runs, "*/metrics.json"), lambda _: write())
    return evaluation.summary


def compare_runs(runs: Path, resamples: int, seed: int) -> dict[str, Any]:
    """Compare the runs of a folder, and log which run is best; see `compare.compare`."""
    done = compare(runs, resamples=resamples, seed=seed)
    log.info("best of %d runs by AP over the prior: %s", done["runs"], done["best_ap_lift"] or "not defined")
    return done


def measure_all(
    train: Sequence[EpisodeScores],
    validation: Sequence[EpisodeScores],
    test: Sequence[EpisodeScores],
    settings: EvalSettings,
    decision: Decision,
    seed: int,
) -> Evaluation:
    """Measure the model and the baselines, with paired intervals of how much better the model is."""
    splits: dict[str, SplitMeasures] = {}
    fitted = list(baselines.make_baselines(train, [*validation, *test])) if test else []
    total = bool(validation) + bool(test) + len(fitted)
    with BulkProgress(total, "measuring", "models and baselines", stays=False) as bar:
        if validation:
            splits["val"] = measure(validation, decision, settings, seed)
            bar.advance()
        if test:
            lead = _mean_lead(splits["val"]) if validation else None
            splits["test"] = measure(test, decision, settings, seed, lead=lead)
            put_oracle(splits["test"])
            bar.advance()
        summary = {f"{name}/{key}": value for name, split in splits.items() for key, value in split.values.items()}
        summary |= _threshold_summary(decision, splits.get("val"), settings)
        evaluation = Evaluation(decision, splits, summary)
        for name, predict in fitted:
            _add_baseline(evaluation, name, predict, validation, settings, seed)
            bar.advance()
    return evaluation


def _mean_lead(split: SplitMeasures) -> float | None:
    leads = [found.leads for found in split.matches]
    joined = np.concatenate(leads) if leads else np.zeros(0)
    return float(joined.mean()) if len(joined) else None


def _threshold_summary(decision: Decision, split: SplitMeasures | None, settings: EvalSettings) -> dict[str, Any]:
    threshold = decision.threshold
    summary: dict[str, Any] = {
        "threshold": threshold.value,
        "threshold/raw": threshold.raw,
        "threshold/logit": threshold.logit,
        "threshold/objective": threshold.objective,
        "calibration/slope": decision.platt.slope,
        "calibration/intercept": decision.platt.intercept,
        "calibration/reason": decision.platt.reason or None,
    }
    thr = settings.thr
    if split is None or threshold.objective not in FRAME_OBJECTIVES or not split.values["positives"]:
        return summary
    spread = split.resampling.draw(lambda weights: threshold_spread(split.table, weights, thr.objective, thr.target))
    if spread is not None:
        low, high = bootstrap.interval(spread)
        summary["threshold/ci"] = [float(decision.platt.probability(end)) for end in (low, high)]
    else:
        summary["threshold/ci/reason"] = split.resampling.reason
    return summary


def _add_baseline(
    evaluation: Evaluation,
    name: str,
    predict: baselines.Predict,
    validation: Sequence[EpisodeScores],
    settings: EvalSettings,
    seed: int,
) -> None:
    """Measure a baseline on test, its threshold chosen on validation even with thr.source=cv."""
    test = evaluation.splits["test"]
    alone = replace(settings, thr=replace(settings.thr, source="validation"))
    scored = baselines.score(test.episodes, predict)
    own = decide(baselines.score(validation, predict), alone) if _can_decide(validation, settings) else None
    measured = measure(scored, own or evaluation.decision, settings, seed)
    figures = {key: measured.values.get(key) for key in _BASELINE_FIGURES if key in measured.values}
    if own is None:
        figures = {key: value for key, value in figures.items() if key.startswith(("ap", "auroc", "macro"))}
    figures |= _gain(test, measured)
    evaluation.baselines[name] = figures
    evaluation.summary |= {f"baseline/{name}/{key}": value for key, value in figures.items()}


def _can_decide(validation: Sequence[EpisodeScores], settings: EvalSettings) -> bool:
    positives = any((episode.y[episode.mask] > 0).any() for episode in validation)
    return positives and settings.thr.value is None and settings.thr.objective in ("f1", "fbeta", "youden")


def _gain(model: SplitMeasures, baseline: SplitMeasures) -> dict[str, Any]:
    """Return by how much the model's AP is above the baseline's, with the paired interval."""
    ours, theirs = model.values["ap"], baseline.values["ap"]
    if ours is None or theirs is None:
        return {"ap_gain": None}
    gain = paired_gain(model, baseline, model.resampling, "ap")
    return {"ap_gain": ours - theirs, "ap_gain/ci": gain}


def paired_gain(ours: SplitMeasures, theirs: SplitMeasures, resampling: Resampling, name: str) -> list[float] | None:
    """Return the interval of the difference of a ranking measure on the same resamples; None without resamples."""
    if resampling.weights is None:
        return None
    first, second = (draw_ranking(split.table, resampling.weights)[name] for split in (ours, theirs))
    low, high = bootstrap.interval(first - second)
    return None if np.isnan(low) else [low, high]


def draw(evaluation: Evaluation, seed: int) -> tuple[dict[str, Figure], dict[str, np.ndarray]]:
    """Draw every plot of test (of validation where there is no test), and collect the numbers in them."""
    decision, splits = evaluation.decision, evaluation.splits
    split = splits.get("test") or splits["val"]
    drawn = {
        "01_roc": plots.plot_roc(split, decision),
        "02_precision_recall": plots.plot_precision_recall(split, decision),
        "03_confusion": plots.plot_confusion(split),
        "04_thresholds": plots.plot_thresholds(splits, decision),
        "06_onset_locked": event_plots.plot_onset_locked(split, decision, seed),
        "07_leads": event_plots.plot_leads(split),
        "08_event_recall": event_plots.plot_event_curve(split),
        "09_reliability": plots.plot_reliability(split.reliability, split.name),
        "11_episodes": plots.plot_episode_rates(split.per_episode),
        "12_scores": plots.plot_scores(split, decision),
    }
    charts = {name: chart for name, (chart, _) in drawn.items()}
    charts |= {f"05_{name}": chart for name, chart in event_plots.plot_timelines(split, decision).items()}
    arrays = {name: values for _, data in drawn.values() for name, values in data.items()}
    return dict(sorted(charts.items())), arrays


def _log_images(loggers: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
    """Show the plots in TensorBoard too."""
    if "tensorboard" not in loggers or not images:
        return
    import io

    from matplotlib import image as reader

    for name, png in images.items():
        pixels = reader.imread(io.BytesIO(png))
        loggers["tensorboard"].experiment.add_image(f"test/{name}", pixels, dataformats="HWC")


def _tell(summary: Mapping[str, Any]) -> None:
    for split in ("val", "test"):
        if f"{split}/ap" in summary:
            events = [f"{node}/{name}" for node in ("event", "event_h25") for name in ("recall", "fa_per_hour")]
            names = [name for name in ("ap", "auroc", "f1", "macro/auroc", *events) if f"{split}/{name}" in summary]
            shown = ", ".join(f"{name} {_show(summary[f'{split}/{name}'])}" for name in names)
            log.info("%s: prior %s, %s", split, _show(summary[f"{split}/prior"]), shown)


def _show(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
