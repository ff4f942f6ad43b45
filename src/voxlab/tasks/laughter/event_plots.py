"""Plots of alarms and events over time: episodes, the mean score around an onset, leads, recall over false alarms."""

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from voxlab.metrics import alarms
from voxlab.metrics.events import EpisodeScores
from voxlab.plots import INK
from voxlab.tasks.laughter.charts import (
    CHOSEN,
    GREY,
    TALL,
    add_legend,
    add_shared_legend,
    blank,
    make_chart,
    make_figure,
    show_shares,
    style,
)
from voxlab.tasks.laughter.decide import Decision
from voxlab.tasks.laughter.measures import FA_PER_HOUR, WIDER_HORIZONS, SplitMeasures, leads_in_seconds
from voxlab.tasks.laughter.plots import Plot

BEFORE_S, AFTER_S = 5.0, 2.0
_PAGE_S = 120.0
_PAGES = 5
_TO_PREDICT, _LAUGHTER = "#5b8def", "#e9a23b"
_KINDS = {
    "hit": ("#2a9d5c", "announces a laugh"),
    "duplicate": ("#8fd0a8", "does so again"),
    "early": ("#8a5fd3", "early, within 2 s"),
    "false": (CHOSEN, "false"),
}
_RANKS = {"best": "highest", "median": "middle", "worst": "lowest"}


def plot_event_curve(split: SplitMeasures) -> Plot:
    """Draw the share of events announced over the false alarms per hour, and what the chosen threshold does."""
    title = f"Events of {split.name}: announced by the best threshold with at most so many false alarms per hour"
    about = (title, "false alarms per hour", "share of events announced")
    if not len(split.sweep) or not split.values["events"]:
        return blank(*about, "no events"), {}
    rates = alarms.event_rates(split.sweep.sum(1))
    order = np.argsort(
        rates["fa_per_hour"], kind="stable"
    )  # not in order: where a low threshold is passed for long, it is passed seldom
    x, y = rates["fa_per_hour"][order], np.maximum.accumulate(rates["recall"][order])
    chart, axes = make_chart(*about)
    axes.plot(x, y, linewidth=1.2, label=f"best, up to {split.values['event/horizon_s']:g} s before")
    for allowed in FA_PER_HOUR:
        line = axes.axvline(allowed, color=GREY, linewidth=0.6, linestyle=":")
    line.set_label(f"{', '.join(map(str, FA_PER_HOUR))} per hour")
    _mark_alarms(axes, split, "event", "o")
    _mark_alarms(axes, split, f"event_h{WIDER_HORIZONS[0]}", "D")
    show_shares(axes)
    axes.set(xscale="symlog", xlim=(0, None))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    add_legend(axes)
    return chart, {"event_fa_per_hour": x, "event_recall": y}


def _mark_alarms(axes: Axes, split: SplitMeasures, prefix: str, marker: str) -> None:
    """Mark what the alarms at the chosen threshold do, counted with one horizon."""
    x, y, horizon = (split.values.get(f"{prefix}/{name}") for name in ("fa_per_hour", "recall", "horizon_s"))
    if x is not None and y is not None:
        label = f"chosen threshold, up to {horizon:g} s before"
        axes.plot([x], [y], marker, color=CHOSEN, markersize=5, linestyle="", label=label, clip_on=False)


def plot_leads(split: SplitMeasures) -> Plot:
    """Draw how long before their events the alarms came."""
    about = (f"Events of {split.name}: how long before them alarms came", "seconds from alarm to event", "events")
    leads = leads_in_seconds(split.episodes, split.matches)
    if not len(leads):
        return blank(*about, "no event was announced"), {}
    rate = split.episodes[0].frame_rate
    frames = np.arange(1, round(float(leads.max()) * rate) + 1)
    counts = np.bincount(np.round(leads * rate).astype(int), minlength=len(frames) + 1)[1:]
    chart, axes = make_chart(*about)
    axes.bar(frames / rate, counts, width=1 / rate, color="C0", edgecolor="white", linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_xlim(0, None)
    return chart, {"lead_s": leads}


def plot_onset_locked(split: SplitMeasures, decision: Decision, seed: int) -> Plot:
    """Draw the mean probability around an onset, with its interval, beside that around random frames."""
    title = f"Events of {split.name}: mean probability around {split.values['events']} onsets, with 95 % intervals"
    about = (title, "seconds from the onset", "mean probability")
    if not split.values["events"]:
        return blank(*about, "no events"), {}
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
    chart, axes = make_chart(*about, TALL)
    for (name, rows), colour in zip(around.items(), ("C0", GREY), strict=True):
        mean, half = _mean_and_half(np.concatenate(rows))
        axes.plot(offsets / rate, mean, linewidth=1.2, color=colour, label=name)
        axes.fill_between(offsets / rate, mean - half, mean + half, alpha=0.2, linewidth=0, color=colour)
        data |= {f"onset_locked_{name.split()[0]}": mean, f"onset_locked_{name.split()[0]}_half": half}
    axes.axvline(0, color=INK, linewidth=0.6, label="laughter begins")
    add_legend(axes)
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


def plot_timeline(
    episode: EpisodeScores, matches: alarms.Matches, decision: Decision, title: str | None = None
) -> Figure:
    """Draw probability, threshold, windows to predict, events, frames left out and alarms, in pages of two minutes.

    Of a long episode the pages with the most events are drawn.
    """
    page = round(_PAGE_S * episode.frame_rate)
    starts = np.arange(0, max(1, len(episode.logit)), page)
    events = np.array([((episode.onsets >= start) & (episode.onsets < start + page)).sum() for start in starts])
    chosen = np.sort(np.argsort(-events, kind="stable")[:_PAGES])
    chart = make_figure(title or f"{episode.name} ({episode.split})", (9.0, 1.1 + 1.3 * len(chosen)))
    peak = decision.platt.probability(episode.logit).max(initial=decision.threshold.value)
    for row, start in enumerate(starts[chosen]):
        axes = chart.add_subplot(len(chosen), 1, row + 1, facecolor="none")
        style(axes, "time (s)" if row == len(chosen) - 1 else "", "probability")
        _draw_page(axes, episode, matches, decision, slice(int(start), min(int(start) + page, len(episode.logit))))
        axes.set_ylim(0, 1.15 * peak)
    add_shared_legend(chart, _timeline_names(), 5)
    return chart


def _timeline_names() -> list[Artist]:
    triangles = [
        Line2D([], [], color=colour, marker="v", linestyle="", markersize=5, label=f"alarm: {text}")
        for colour, text in _KINDS.values()
    ]
    return [
        Line2D([], [], linewidth=0.9, label="probability"),
        Line2D([], [], linewidth=0.7, color=INK, linestyle="--", label="chosen threshold"),
        Patch(color=_TO_PREDICT, alpha=0.25, label="frames to predict"),
        Patch(color=GREY, alpha=0.25, label="frames left out"),
        Patch(color=_LAUGHTER, label="laughter"),
        *triangles,
    ]


def kinds_of_alarms(matches: alarms.Matches) -> dict[str, np.ndarray]:
    """Return the (k,) bool of alarms of each kind: hit, duplicate, early (before the horizon, within 2 s), false."""
    hit = np.zeros(len(matches.alarms), dtype=bool)
    hit[matches.alarm_of[matches.alarm_of >= 0]] = True
    following = np.searchsorted(matches.onsets, matches.alarms, side="right")
    ahead = np.append(matches.onsets, np.iinfo(np.int64).max)[following] - matches.alarms
    early = matches.false & (ahead <= WIDER_HORIZONS[0])
    return {"hit": hit, "duplicate": matches.duplicates, "early": early, "false": matches.false & ~early}


def _draw_page(axes: Axes, episode: EpisodeScores, matches: alarms.Matches, decision: Decision, page: slice) -> None:
    rate = episode.frame_rate
    seconds = np.arange(page.start, page.stop) / rate
    axes.plot(seconds, decision.platt.probability(episode.logit[page]), linewidth=0.7)
    axes.axhline(decision.threshold.value, color=INK, linewidth=0.6, linestyle="--")
    _shade(axes, episode.y[page] > 0, page.start, rate, _TO_PREDICT)
    _shade(axes, ~episode.mask[page], page.start, rate, GREY)
    for first, end in episode.spans:
        if first < page.stop and end > page.start:
            axes.axvspan(first / rate, end / rate, ymin=0.93, color=_LAUGHTER, linewidth=0)
    for kind, chosen in kinds_of_alarms(matches).items():
        frames = matches.alarms[chosen]
        frames = frames[(frames >= page.start) & (frames < page.stop)]
        heights = np.full(len(frames), decision.threshold.value)
        axes.plot(frames / rate, heights, "v", color=_KINDS[kind][0], markersize=5)
    axes.set_xlim(page.start / rate, max(page.stop, page.start + 1) / rate)


def _shade(axes: Axes, frames: np.ndarray, start: int, rate: float, colour: str) -> None:
    """Shade each run of True frames."""
    edges = np.flatnonzero(np.diff(np.r_[False, frames, False].astype(int)))
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        axes.axvspan((start + first) / rate, (start + end) / rate, color=colour, alpha=0.25, linewidth=0)


def plot_timelines(split: SplitMeasures, decision: Decision) -> dict[str, Figure]:
    """Draw the best, the median and the worst episode by AP; a figure that says so where there is none."""
    chosen = choose_episodes(split)
    if not chosen:
        about = (f"Episodes of {split.name} over time", "time (s)", "probability")
        return {"timeline": blank(*about, "no episode with positives")}
    figures = {}
    for rank, index in chosen.items():
        episode, ap = split.episodes[index], split.per_episode[index]["ap"]
        title = f"{episode.name}: the {_RANKS[rank]} AP of {split.name} ({ap:.3g})"
        figures[f"timeline_{rank}"] = plot_timeline(episode, split.matches[index], decision, title)
    return figures
