"""Plots of alarms and events over time: episodes, the mean score around an onset, leads, recall over false alarms."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from voxlab.metrics import alarms
from voxlab.metrics.events import EpisodeScores
from voxlab.plots import INK, plot_curves
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.measures import FA_PER_HOUR, SplitMeasures, leads_in_seconds
from voxlab.tasks.laughter.plots import TALL, Plot, blank

BEFORE_S, AFTER_S = 5.0, 2.0
_PAGE_S = 120.0
_PAGES = 5
_KINDS = {"hit": "#2a9d5c", "duplicate": "#e9a23b", "false": "#d1495b"}


def plot_event_curve(split: SplitMeasures) -> Plot:
    """Draw the share of events announced over the false alarms per hour."""
    axes_of = ("false alarms per hour", "event recall")
    if not len(split.sweep) or not split.values["events"]:
        return blank(*axes_of, "no events"), {}
    rates = alarms.event_rates(split.sweep.sum(1))
    order = np.argsort(
        rates["fa_per_hour"], kind="stable"
    )  # not in order: where a low threshold is passed for long, it is passed seldom
    x, y = rates["fa_per_hour"][order], np.maximum.accumulate(rates["recall"][order])
    chart = plot_curves({"": (x, y)}, *axes_of)  # type: ignore[arg-type]
    for allowed in FA_PER_HOUR:
        chart.axes[0].axvline(allowed, color=INK, linewidth=0.5, linestyle=":")
    own = split.values
    if own["event/fa_per_hour"] is not None and own["event/recall"] is not None:
        chart.axes[0].plot([own["event/fa_per_hour"]], [own["event/recall"]], "o", color="#d1495b", markersize=5)
    chart.axes[0].set(xscale="symlog", xlim=(0, None), ylim=(0, 1.02))
    return chart, {"event_fa_per_hour": x, "event_recall": y}


def plot_leads(split: SplitMeasures) -> Plot:
    """Draw how long before their events the alarms came."""
    axes_of = ("seconds from alarm to event", "events")
    leads = leads_in_seconds(split.episodes, split.matches)
    if not len(leads):
        return blank(*axes_of, "no event was announced"), {}
    rate = split.episodes[0].frame_rate
    edges = (np.arange(1, round(float(leads.max()) * rate) + 2) - 0.5) / rate
    chart = plot_curves({"": ([], [])}, *axes_of)
    chart.axes[0].stairs(np.histogram(leads, edges)[0], edges, fill=True, color="C0")
    return chart, {"lead_s": leads}


def plot_onset_locked(split: SplitMeasures, decision: Decision, seed: int) -> Plot:
    """Draw the mean probability around an onset, with its interval, beside that around random frames."""
    axes_of = ("seconds from the onset", "mean probability")
    if not split.values["events"]:
        return blank(*axes_of, "no events"), {}
    generator = np.random.default_rng(seed)
    rate = split.episodes[0].frame_rate
    offsets = np.arange(-round(BEFORE_S * rate), round(AFTER_S * rate) + 1)
    around = {"onsets": [], "random frames": []}
    for episode in split.episodes:
        probability = decision.platt.probability(episode.logit)
        counted = np.flatnonzero(episode.mask)
        drawn = generator.choice(counted, len(episode.onsets)) if len(counted) else counted
        for name, frames in (("onsets", episode.onsets), ("random frames", drawn)):
            around[name].append(_windows(probability, frames, offsets))
    data: dict[str, np.ndarray] = {"onset_locked_s": offsets / rate}
    curves = {}
    for name, rows in around.items():
        mean, half = _mean_and_half(np.concatenate(rows))
        curves[name] = (data["onset_locked_s"], mean)
        data |= {f"onset_locked_{name.split()[0]}": mean, f"onset_locked_{name.split()[0]}_half": half}
    chart = plot_curves(curves, *axes_of, size=TALL)  # type: ignore[arg-type]
    for name in around:
        mean, half = (data[f"onset_locked_{name.split()[0]}{end}"] for end in ("", "_half"))
        chart.axes[0].fill_between(data["onset_locked_s"], mean - half, mean + half, alpha=0.2, linewidth=0)
    chart.axes[0].axvline(0, color=INK, linewidth=0.6)
    return chart, data


def _windows(values: np.ndarray, frames: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the (n, K) values around each frame, NaN beyond the ends."""
    place = frames[:, None] + offsets[None]
    inside = (place >= 0) & (place < len(values))
    return np.where(inside, values[np.clip(place, 0, len(values) - 1)], np.nan)


def _mean_and_half(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and half width of its normal 95 % interval over what is known of each column."""
    known = np.maximum((~np.isnan(rows)).sum(0), 1)
    mean = np.nansum(rows, 0) / known
    spread = np.sqrt(np.nansum((rows - mean) ** 2, 0) / known)
    return mean, 1.96 * spread / np.sqrt(known)


def choose_episodes(split: SplitMeasures) -> dict[str, int]:
    """Return the episodes of the highest, the middle and the lowest AP, those without positives left out."""
    known = [index for index, row in enumerate(split.per_episode) if row["ap"] == row["ap"]]
    ranked = sorted(known, key=lambda index: split.per_episode[index]["ap"], reverse=True)
    if not ranked:
        return {}
    return dict(zip(("best", "median", "worst"), (ranked[0], ranked[len(ranked) // 2], ranked[-1]), strict=True))


def plot_timeline(episode: EpisodeScores, matches: alarms.Matches, decision: Decision) -> Figure:
    """Draw probability, threshold, windows to predict, events, frames left out and alarms, in pages of two minutes.

    Of a long episode the pages with the most events are drawn.
    """
    page = round(_PAGE_S * episode.frame_rate)
    starts = np.arange(0, max(1, len(episode.logit)), page)
    events = np.array([((episode.onsets >= start) & (episode.onsets < start + page)).sum() for start in starts])
    chosen = np.sort(np.argsort(-events, kind="stable")[:_PAGES])
    chart = Figure(figsize=(9.0, 0.4 + 1.3 * len(chosen)), facecolor="none", layout="constrained")
    for row, start in enumerate(starts[chosen]):
        axes = chart.add_subplot(len(chosen), 1, row + 1, facecolor="none")
        _draw_page(axes, episode, matches, decision, slice(int(start), min(int(start) + page, len(episode.logit))))
    chart.axes[-1].set_xlabel("time (s)", color=INK, fontsize=8)
    return chart


def _draw_page(axes: Axes, episode: EpisodeScores, matches: alarms.Matches, decision: Decision, page: slice) -> None:
    rate = episode.frame_rate
    seconds = np.arange(page.start, page.stop) / rate
    axes.plot(seconds, decision.platt.probability(episode.logit[page]), linewidth=0.7)
    axes.axhline(decision.threshold.value, color=INK, linewidth=0.6, linestyle="--")
    _shade(axes, episode.y[page] > 0, page.start, rate, "#5b8def")
    _shade(axes, ~episode.mask[page], page.start, rate, "#9aa1ab")
    for first, end in episode.spans:
        if first < page.stop and end > page.start:
            axes.axvspan(first / rate, end / rate, ymin=0.93, color="#e9a23b", linewidth=0)
    hit = np.zeros(len(matches.alarms), dtype=bool)
    hit[matches.alarm_of[matches.alarm_of >= 0]] = True
    for kind, chosen in (("hit", hit), ("duplicate", matches.duplicates), ("false", matches.false)):
        frames = matches.alarms[chosen]
        frames = frames[(frames >= page.start) & (frames < page.stop)]
        axes.plot(frames / rate, np.full(len(frames), decision.threshold.value), "v", color=_KINDS[kind], markersize=5)
    axes.set(xlim=(page.start / rate, max(page.stop, page.start + 1) / rate), ylim=(0, None))
    axes.tick_params(colors=INK, labelsize=7)
    axes.spines[:].set(color=INK, linewidth=0.6)


def _shade(axes: Axes, frames: np.ndarray, start: int, rate: float, colour: str) -> None:
    """Shade each run of True frames."""
    edges = np.flatnonzero(np.diff(np.r_[False, frames, False].astype(int)))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        axes.axvspan((start + first) / rate, (start + end) / rate, color=colour, alpha=0.25, linewidth=0)


def plot_timelines(split: SplitMeasures, decision: Decision) -> dict[str, Figure]:
    """Draw the best, the median and the worst episode by AP; a figure that says so where there is none."""
    chosen = choose_episodes(split)
    if not chosen:
        return {"timeline": blank("time (s)", "probability", "no episode with positives")}
    return {
        f"timeline_{name}": plot_timeline(split.episodes[index], split.matches[index], decision)
        for name, index in chosen.items()
    }
