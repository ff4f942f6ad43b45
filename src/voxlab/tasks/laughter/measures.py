"""Every figure of one split under flat names (`test/ap`, `test/event/recall`), with intervals over shows.

A value that is not defined is None, with the reason beside it; an interval is `<name>/ci`: [low, high].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from voxlab.metrics import alarms, bootstrap, calibration, ranking
from voxlab.metrics.events import FRAME_RATE, EpisodeScores, Frames, pool
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.eval_settings import EvalSettings

MACRO_EVENTS = 5  # events that an episode needs for figures of its own
FA_PER_HOUR = (1, 5, 20)
WIDER_HORIZONS = (25, 62)
_SWEEP = 200  # thresholds of the curve of recall over false alarms

Statistic = Callable[[np.ndarray], np.ndarray]  # (B, C) how often each resample holds each cluster -> (B,) values


@dataclass(frozen=True, eq=False)
class Resampling:
    """How the episodes of a split are drawn again.

    Args:
        cluster: (E,) which cluster each episode is of.
        weights: (B, C) how often each resample holds each cluster; None: there are no intervals.
        names: of the clusters.
        reason: why there are none.
    """

    cluster: np.ndarray
    weights: np.ndarray | None
    names: list[str]
    reason: str = ""

    def draw(self, statistic: Statistic) -> np.ndarray | None:
        """Return the (B,) values of a statistic in all resamples, or None."""
        return None if self.weights is None else statistic(self.weights)

    def per_cluster(self, rows: np.ndarray) -> np.ndarray:
        """Add up (E, ...) rows of episodes to (C, ...) of clusters."""
        total = np.zeros((len(self.names), *rows.shape[1:]))
        np.add.at(total, self.cluster, rows)
        return total


def resample(episodes: Sequence[EpisodeScores], settings: EvalSettings, seed: int) -> Resampling:
    """Draw the resamples of a split: the same for every model measured on these episodes."""
    by_show = settings.eval.cluster == "show"
    cluster, names = bootstrap.number_clusters([each.show if by_show else each.key for each in episodes])
    if not settings.eval.bootstrap:
        return Resampling(cluster, None, names, "eval.bootstrap=0")
    if len(names) < bootstrap.MIN_CLUSTERS:
        unit = f"{settings.eval.cluster}{'' if len(names) == 1 else 's'}"
        return Resampling(cluster, None, names, f"{len(names)} {unit}, {bootstrap.MIN_CLUSTERS} are needed")
    return Resampling(cluster, bootstrap.draw_counts(len(names), resamples=settings.eval.bootstrap, seed=seed), names)


@dataclass(eq=False)
class SplitMeasures:
    """The figures of a split, and what the plots of it are drawn from.

    Args:
        episodes: of the split.
        frames: those that count.
        resampling: of its clusters.
        table: counts of each cluster at the scores of positives.
        values: the figures under their names, without the prefix.
        matches: alarms and events of each episode.
        sweep: (K, E, 6) counts of alarms at thresholds from the highest down.
        per_episode: one row of figures for each.
        reliability: before and after calibration.
    """

    episodes: Sequence[EpisodeScores]
    frames: Frames
    resampling: Resampling
    table: ranking.RankTable
    values: dict[str, Any] = field(default_factory=dict)
    matches: list[alarms.Matches] = field(default_factory=list)
    sweep: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 6)))
    per_episode: list[dict[str, Any]] = field(default_factory=list)
    reliability: dict[str, calibration.Reliability] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the split: train, validation or test; "nothing" without episodes."""
        return self.episodes[0].split if self.episodes else "nothing"

    def put(self, name: str, value: Any, draws: np.ndarray | None = None, reason: str = "") -> None:
        """Note a figure, NaN as None with the reason, with the interval of its draws."""
        undefined = not np.isfinite(value)
        self.values[name] = None if undefined else (int(value) if isinstance(value, int | np.integer) else float(value))
        if undefined:
            self.values[f"{name}/reason"] = reason or "not defined"
        elif draws is not None:
            low, high = bootstrap.interval(draws)
            self.values[f"{name}/ci"] = None if np.isnan(low) else [low, high]


def measure(
    episodes: Sequence[EpisodeScores],
    decision: Decision,
    settings: EvalSettings,
    seed: int,
    *,
    lead: float | None = None,
) -> SplitMeasures:
    """Measure everything about one model on one split.

    Args:
        episodes: of the split.
        decision: calibration and threshold, as they are.
        settings: of the evaluation.
        seed: of the resamples.
        lead: mean frames from alarm to event on validation, for the measure of sound event detection; None: not yet
            known, half the horizon.
    """
    frames, resampling = pool(episodes), resample(episodes, settings, seed)
    member = resampling.cluster[frames.episode] if len(episodes) else frames.episode
    table = ranking.rank_table(frames.logit, frames.y, member, len(resampling.names))
    split = SplitMeasures(episodes, frames, resampling, table)
    _put_facts(split)
    _put_ranking(split)
    _put_decisions(split, decision)
    _put_calibration(split, decision)
    _put_macro(split)
    _put_events(split, decision, settings)
    _put_sweep(split, decision, settings)
    sed_lead = settings.events.horizon / 2 if lead is None else lead
    rule = decision.rule(settings.refractory)
    for name, value in alarms.collar_f1(episodes, rule, sed_lead).items():
        split.put(f"sed/{name}", value, reason=_no_events(split))
    return split


def _put_facts(split: SplitMeasures) -> None:
    episodes = split.episodes
    hours, events = sum(each.hours for each in episodes), sum(len(each.onsets) for each in episodes)
    split.put("episodes", len(episodes))
    split.put("shows", len({each.show for each in episodes}))
    split.put("episodes_without_events", sum(not len(each.onsets) for each in episodes))
    split.put("hours_counted", float(hours))
    split.put("frames", sum(len(each.logit) for each in episodes))
    split.put("frames_counted", len(split.frames.y))
    split.put("events", events)
    split.put("events_per_hour", events / hours if hours else np.nan, reason="no frames")
    split.put("positives", int(split.frames.y.sum()))
    split.put("prior", float(split.frames.y.mean()) if len(split.frames.y) else np.nan, reason="no frames")
    if split.resampling.reason:
        split.values["ci/reason"] = split.resampling.reason


def _one_class(split: SplitMeasures) -> str:
    positives, total = split.values["positives"], split.values["frames_counted"]
    return "" if 0 < positives < total else ("no positives" if not positives else "only positives")


def _no_events(split: SplitMeasures) -> str:
    return "no alarms" if split.values["events"] else "no events"


def _put_ranking(split: SplitMeasures) -> None:
    ones = np.ones((1, len(split.resampling.names)))
    ap, auroc = (float(value[0]) for value in ranking.measure_mixtures(split.table, ones))
    drawn = None if split.resampling.weights is None else draw_ranking(split.table, split.resampling.weights)
    prior = split.values["prior"] or np.nan
    names = ("ap", "auroc", "ap_lift")
    for name, value in zip(names, (ap, auroc, ap / prior), strict=True):
        split.put(name, value, drawn[name] if drawn else None, _one_class(split))


def draw_ranking(table: ranking.RankTable, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return AP, AUROC and AP over prior of all resamples; equal weights make those of two models paired."""
    ap, auroc = ranking.measure_mixtures(table, weights)
    positives = weights @ table.positives
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"ap": ap, "auroc": auroc, "ap_lift": ap * (positives + weights @ table.negatives) / positives}


def confusion_rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of (..., 4) counts tp, fp, fn, tn; NaN where one is not defined."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, specificity = tp / (tp + fn), tn / (tn + fp)
        return {
            "precision": tp / (tp + fp),
            "recall": recall,
            "f1": np.where(tp + fn > 0, 2 * tp / (2 * tp + fp + fn), np.nan),
            "specificity": specificity,
            "balanced_accuracy": (recall + specificity) / 2,
            "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
            "youden": recall + specificity - 1,
            "accuracy": (tp + tn) / (tp + fp + fn + tn),
        }


def confusion(frames: Frames, predicted: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the (G, 4) counts tp, fp, fn, tn of each group of frames."""
    kind = np.where(frames.y, np.where(predicted, 0, 2), np.where(predicted, 1, 3))
    return np.bincount(groups * 4 + kind, minlength=4 * num_groups).reshape(num_groups, 4)


def _put_decisions(split: SplitMeasures, decision: Decision) -> None:
    logit, groups = split.frames.logit, split.frames.episode.astype(np.int64)
    half = decision.platt.raw(0.0)
    for prefix, predicted in (("", logit >= decision.threshold.logit), ("at_half/", logit >= half)):
        counts = confusion(split.frames, predicted, groups, len(split.episodes))
        for name, value in zip(("tp", "fp", "fn", "tn"), counts.sum(0), strict=True):
            split.put(f"{prefix}{name}", int(value))
        clusters = split.resampling.per_cluster(counts)
        weights = split.resampling.weights
        drawn = {} if weights is None or prefix else confusion_rates(weights @ clusters)
        for name, value in confusion_rates(counts.sum(0)).items():
            split.put(f"{prefix}{name}", float(value), drawn.get(name), _one_class(split) or "nothing predicted")


def put_oracle(split: SplitMeasures) -> None:
    """Note the highest F1 of any threshold, chosen on this very split: a bound, not a result."""
    points = ranking.curve(split.frames.logit, split.frames.y)
    best = int(np.argmax(points.f1)) if points.positives else -1
    split.put("oracle/f1", float(points.f1[best]) if points.positives else np.nan, reason="no positives")
    split.put("oracle/logit", float(points.thresholds[best]) if points.positives else np.nan, reason="no positives")


def _put_calibration(split: SplitMeasures, decision: Decision) -> None:
    y = split.frames.y
    raw = split.frames.logit.astype(np.float64)
    for prefix, logit in (("", decision.platt.logit(raw)), ("uncalibrated/", raw)):
        probability = calibration.sigmoid(logit)
        bins = calibration.reliability(probability, y)
        split.reliability[prefix] = bins
        split.put(f"{prefix}log_loss", calibration.log_loss(logit, y), reason="no frames")
        split.put(f"{prefix}brier", calibration.brier(probability, y), reason="no frames")
        split.put(f"{prefix}ece", bins.error, reason="no frames")
        mean = float(probability.mean()) if len(y) else np.nan
        split.put(f"{prefix}mean_probability", mean, reason="no frames")


def _put_macro(split: SplitMeasures) -> None:
    """Measure each episode alone: what a score knows besides how much an episode laughs."""
    for index, episode in enumerate(split.episodes):
        chosen = split.frames.episode == index
        row: dict[str, Any] = {name: getattr(episode, name) for name in ("key", "name", "show", "split")}
        row["hours_counted"] = episode.hours
        row |= {"events": len(episode.onsets), "events_per_hour": _ratio(len(episode.onsets), episode.hours)}
        table = ranking.rank_table(split.frames.logit[chosen], split.frames.y[chosen])
        ap, auroc = (float(value[0]) for value in ranking.measure_mixtures(table, np.ones((1, 1))))
        prior = _ratio(int(table.positives[0]), int(chosen.sum()))
        split.per_episode.append({**row, "prior": prior, "ap": ap, "auroc": auroc, "ap_lift": _ratio(ap, prior)})
    for name in ("ap", "auroc", "ap_lift"):
        values = np.array([row[name] for row in split.per_episode], dtype=np.float64)
        counted = np.array([row["events"] >= MACRO_EVENTS for row in split.per_episode], dtype=bool) & ~np.isnan(values)
        sums = split.resampling.per_cluster(np.stack([np.where(counted, values, 0.0), counted.astype(float)], axis=1))
        drawn = split.resampling.draw(lambda weights, sums=sums: _mean_of(weights @ sums))
        mean = float(values[counted].mean()) if counted.any() else np.nan
        split.put(f"macro/{name}", mean, drawn, f"no episode with {MACRO_EVENTS} events")
        split.values["macro/episodes"] = int(counted.sum())


def _ratio(value: float, total: float) -> float:
    return value / total if total else float("nan")


def _mean_of(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[:, 0] / sums[:, 1]


def _put_events(split: SplitMeasures, decision: Decision, settings: EvalSettings) -> None:
    rule = decision.rule(settings.refractory)
    for horizon in dict.fromkeys((settings.events.horizon, *WIDER_HORIZONS)):
        main = horizon == settings.events.horizon
        seconds = horizon / (split.episodes[0].frame_rate if split.episodes else FRAME_RATE)
        prefix = "event/" if main else f"event_h{horizon}/"
        matches = [alarms.match_episode(episode, rule, horizon) for episode in split.episodes]
        rows = [alarms.count(found, each.hours) for found, each in zip(matches, split.episodes, strict=True)]
        counts = np.array(rows).reshape(-1, 6)
        if main:
            split.matches = matches
        weights = split.resampling.weights if main else None
        drawn = {} if weights is None else alarms.event_rates(weights @ split.resampling.per_cluster(counts))
        rates = alarms.event_rates(counts.sum(0))
        for name in ("recall", "precision", "f1", "fa_per_hour"):
            split.put(f"{prefix}{name}", float(rates[name]), drawn.get(name), _no_events(split))
        split.put(f"{prefix}horizon_s", seconds)
        for place, name in enumerate(("matched", "events", "false_alarms", "duplicates")):
            split.put(f"{prefix}{name}", int(counts[:, place].sum()))
        _put_leads(split, prefix, matches)


def _put_leads(split: SplitMeasures, prefix: str, matches: Sequence[alarms.Matches]) -> None:
    leads = leads_in_seconds(split.episodes, matches)
    for name, value in (("mean", np.mean), ("median", np.median), ("p10", _p10), ("p90", _p90)):
        split.put(f"{prefix}lead_s/{name}", float(value(leads)) if len(leads) else np.nan, reason="no event announced")


def leads_in_seconds(episodes: Sequence[EpisodeScores], matches: Sequence[alarms.Matches]) -> np.ndarray:
    """Return the seconds from alarm to event of all events that have one."""
    rows = [found.leads / each.frame_rate for found, each in zip(matches, episodes, strict=True)]
    return np.concatenate(rows) if rows else np.zeros(0)


def _p10(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.1))


def _p90(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.9))


def _put_sweep(split: SplitMeasures, decision: Decision, settings: EvalSettings) -> None:
    thresholds = alarms.rank_thresholds(split.frames.logit, _SWEEP)
    if not len(thresholds):
        return
    about = (settings.events.horizon, settings.refractory, decision.line)
    split.sweep = alarms.sweep_alarms(split.episodes, thresholds, *about)
    per_cluster = split.resampling.per_cluster(split.sweep.transpose(1, 0, 2))
    weights = split.resampling.weights
    drawn = None if weights is None else np.einsum("bc,ckn->bkn", weights, per_cluster, optimize=True)
    for allowed in FA_PER_HOUR:
        value = float(alarms.recall_at(split.sweep.sum(1), allowed))
        draws = None if drawn is None else alarms.recall_at(drawn, allowed)
        split.put(f"event/recall_at_{allowed}_fa_per_hour", value, draws, _no_events(split))
