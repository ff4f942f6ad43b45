"""Labels of each frame, computed from events when they are needed: what is to be predicted, and which frames count.

Frame t covers [t, t + 1) / frame_rate seconds. The onset of an event is the frame that holds its start.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from voxlab.audio import Seconds
from voxlab.data.episodes import FRAME_RATE, Event, end_frame_of, frame_of
from voxlab.errors import UserError, check_types

HORIZON = 10.0  # s: horizon labels are 0 beyond this
_MAX_PAST_END = 0.02
_CHOICES = {
    "mode": ("window", "exact", "interval", "detect", "horizon"),
    "in_event": ("ignore", "negative", "positive"),
    "speakers": ("all", "user"),
    "unknown_speaker": ("error", "ignore"),
    "past_end": ("drop", "mark"),
}
_SHIFT_RULE = "shift must be an integer number of 80 ms frames >= 1; use labels.mode=detect for current-frame detection"


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """What is to be predicted.

    Args:
        mode: y[t] = 1 means, for an event of frames s to e - 1: "window" 1 <= s - t <= shift; "exact" s - t = shift;
            "interval" s <= t + shift < e; "detect" s <= t < e; "horizon": y[t] = 1 / (1 + tau), tau the seconds to
            the next onset, 0 from 10 s on.
        shift: in frames.
        in_event: what the frames of an event are, where they aren't what is to be predicted: "ignore" (masked, with
            `guard_s` after them), "negative" or "positive". Ignored goes before positive before negative.
        guard_s: how long after an event frames are ignored as well.
        merge_gap_s: events of one speaker with a smaller gap between them are one event; 0 merges nothing.
        speakers: "all", or "user": only events of the view's user.
        unknown_speaker: what an event of a speaker whom nobody knows is: "error", or "ignore" masks its frames.
        min_confidence: events below it are neither positive nor negative: their frames are masked.
        min_context_s: frames for which the features have heard less than this are masked.
        past_end: "drop" leaves out events that start after the last frame; "mark" lets their windows reach into the
            recording, as the earlier project did.
        label: of the events.
        frame_rate: in Hz.
    """

    mode: str = "window"
    shift: int = 5
    in_event: str = "ignore"
    guard_s: Seconds = 0.24
    merge_gap_s: Seconds = 1.0
    speakers: str = "all"
    unknown_speaker: str = "error"
    min_confidence: float = 0.0
    min_context_s: Seconds = 0.0
    past_end: str = "drop"
    label: str = "Laughter"
    frame_rate: float = FRAME_RATE

    def check(self) -> None:
        """Check the settings.

        Raises:
            UserError: a value is out of range or of another type.
        """
        if self.mode != "detect" and (type(self.shift) is not int or self.shift < 1):
            raise UserError(f"shift={self.shift}: {_SHIFT_RULE}.")
        check_types(self, "labels.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"labels.{name}={getattr(self, name)}: choose {', '.join(choices)}.")
        for name in ("guard_s", "merge_gap_s", "min_context_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"labels.{name}={getattr(self, name)}: give seconds, 0 or more.")
        if not 0 <= self.min_confidence <= 1:
            raise UserError(f"labels.min_confidence={self.min_confidence}: give a number from 0 to 1.")

    def record(self) -> dict[str, Any]:
        """Return the settings as plain values, for checkpoints and metrics files."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Labels:
    """The labels of a recording of T frames.

    Attributes:
        y: (T,) float32, 0 or 1; "horizon": from 0 to 1.
        mask: (T,) bool; what is False counts nowhere.
        onsets: (n,) int64 frames of the onsets that can be predicted, ascending: those with a frame that counts among
            the `shift` frames before them ("detect": all).
        spans: (m, 2) int64 first frame and one past the last of each event after merging, ascending, within T.
        counts: events (before merging), merged (after), n_past_end, n_unpredictable, n_low_confidence,
            n_unknown_speaker, positives (unmasked frames above 0), ignored (masked frames).
    """

    y: np.ndarray
    mask: np.ndarray
    onsets: np.ndarray
    spans: np.ndarray
    counts: dict[str, int]


def compute_labels(
    events: Sequence[Event],
    num_frames: int,
    settings: LabelSettings,
    *,
    user: str | None = None,
    known_speakers: Collection[str] | None = None,
    context_frames: np.ndarray | None = None,
    name: str = "",
) -> Labels:
    """Label the frames of a recording.

    Args:
        events: of the recording; those with another label than `settings.label` are passed over.
        num_frames: T.
        settings: checked ones.
        user: speaker of the view, for `speakers="user"`.
        known_speakers: who may occur; None: anyone.
        context_frames: (T,) frames that the features have heard at each frame; None: all since the start.
        name: of the recording, for messages.

    Returns:
        The labels.

    Raises:
        UserError: an event has impossible times or an unknown speaker, more than one event and more than 2 % of all
            start past the end, or the recording is not longer than `shift`.
    """
    if settings.mode != "detect" and settings.shift >= num_frames:
        raise UserError(f"{name}: shift={settings.shift} where the recording has {num_frames} frames: {_SHIFT_RULE}.")
    chosen = _choose(events, num_frames, settings, user, known_speakers, name)
    rate = settings.frame_rate
    spans = frame_spans(merge_events(chosen.sure, settings.merge_gap_s), rate, num_frames)
    unsure = frame_spans(chosen.unsure, rate, num_frames)
    late = chosen.late if settings.past_end == "mark" else []
    y = _targets(spans, late, num_frames, settings)
    maybe = _targets(np.concatenate([spans, unsure]), late, num_frames, settings)
    mask = _mask(y, spans, unsure, maybe, settings)
    if settings.min_context_s:
        heard = np.arange(num_frames) if context_frames is None else context_frames
        mask &= heard >= end_frame_of(settings.min_context_s, rate)
    starts = np.unique(spans[:, 0])
    can = [settings.mode == "detect" or bool(mask[max(0, s - settings.shift) : s].any()) for s in starts]
    onsets = starts[np.array(can, dtype=bool)]
    counts = {
        **chosen.counts,
        "merged": len(spans),
        "n_unpredictable": len(starts) - len(onsets),
        "positives": int(((y > 0) & mask).sum()),
        "ignored": int((~mask).sum()),
    }
    return Labels(y, mask, onsets, spans, counts)


def merge_events(events: Iterable[Event], gap: Seconds) -> list[Event]:
    """Join events of one speaker that follow each other within less than `gap`; equal ones become one in any case.

    Returns:
        The events by start; a joined one has the label of its first part, and no confidence.
    """
    merged: list[Event] = []
    last: dict[str | None, int] = {}  # speaker -> place of the latest event
    for event in sorted(set(events), key=lambda event: (event.start, event.end)):
        before = merged[last[event.speaker]] if event.speaker in last else None
        if before is not None and gap > 0 and event.start - before.end < gap:
            joined = dataclasses.replace(before, end=max(before.end, event.end), confidence=None)
            merged[last[event.speaker]] = joined
        else:
            last[event.speaker] = len(merged)
            merged.append(event)
    return merged


def frame_spans(events: Sequence[Event], frame_rate: float, num_frames: int) -> np.ndarray:
    """Return (m, 2) int64: first frame and one past the last of each event, one frame at least, within `num_frames`."""
    starts = [frame_of(event.start, frame_rate) for event in events]
    ends = [end_frame_of(event.end, frame_rate) for event in events]
    spans = [(s, min(max(s + 1, e), num_frames)) for s, e in zip(starts, ends, strict=True) if s < num_frames]
    return np.array(sorted(spans), dtype=np.int64).reshape(-1, 2)


def _targets(spans: np.ndarray, late: Sequence[Event], num_frames: int, settings: LabelSettings) -> np.ndarray:
    """Return (T,) float32, for events of (m, 2) frames and events that start past the end."""
    beyond = np.array([frame_of(event.start, settings.frame_rate) for event in late], dtype=np.int64)
    starts = np.concatenate([spans[:, 0], beyond])
    if settings.mode == "horizon":
        y = _horizon(starts, num_frames, settings.frame_rate)
    else:
        y = np.zeros(num_frames, dtype=np.float32)
        for first, stop in _ranges(starts, spans, settings):
            y[max(0, first) : max(0, stop)] = 1
    if settings.in_event == "positive":
        for s, e in spans:
            y[s:e] = 1
    return y


def _ranges(starts: np.ndarray, spans: np.ndarray, settings: LabelSettings) -> Iterable[tuple[int, int]]:
    """Return the first frame and one past the last, in relation to each event, that are positive."""
    shift = settings.shift
    if settings.mode == "window":
        return [(s - shift, s) for s in starts]
    if settings.mode == "exact":
        return [(s - shift, s - shift + 1) for s in starts]
    ahead = shift if settings.mode == "interval" else 0
    return [(s - ahead, e - ahead) for s, e in spans]


def _horizon(starts: np.ndarray, num_frames: int, frame_rate: float) -> np.ndarray:
    onsets = np.append(np.unique(starts), np.iinfo(np.int64).max)
    frames = np.arange(num_frames)
    seconds = (onsets[np.searchsorted(onsets, frames, side="right")] - frames) / frame_rate
    return np.where(seconds <= HORIZON, 1 / (1 + seconds), 0).astype(np.float32)


def _mask(
    y: np.ndarray, sure: np.ndarray, unsure: np.ndarray, maybe: np.ndarray, settings: LabelSettings
) -> np.ndarray:
    """Return (T,) bool, False where a frame counts nowhere.

    Args:
        y: (T,) targets.
        sure: (m, 2) spans of the events that y tells of.
        unsure: (n, 2) spans of events that may not be what their label says.
        maybe: (T,) targets if those were sure, too: where they differ, nobody knows.
        settings: the settings.
    """
    mask = maybe == y
    guard = end_frame_of(settings.guard_s, settings.frame_rate)
    if settings.in_event == "ignore":
        for s, e in sure:
            mask[(e if settings.mode == "detect" else s) : e + guard] = False
        if settings.mode == "detect":
            mask |= y > 0  # an event may begin within the guard of another
    for s, e in unsure:
        mask[s : e + guard] = False
    return mask


# ---- which events ---------------------------------------------------------------------------------------------------


class _Chosen(NamedTuple):
    """Events that are what their label says, those that may not be, and those that start past the end."""

    sure: list[Event]
    unsure: list[Event]
    late: list[Event]
    counts: dict[str, int]


def _choose(
    events: Sequence[Event],
    num_frames: int,
    settings: LabelSettings,
    user: str | None,
    known_speakers: Collection[str] | None,
    name: str,
) -> _Chosen:
    chosen = [event for event in events if event.label == settings.label]
    _check_times(chosen, name)
    unknown = _unknown(chosen, settings, known_speakers, name)
    if settings.speakers == "user":
        chosen = _of_user(chosen, unknown, user, name)
    late = [event for event in chosen if frame_of(event.start, settings.frame_rate) >= num_frames]
    _refuse_late(late, len(chosen), num_frames, settings, name)
    doubtful = {event for event in chosen if event not in unknown and _is_doubtful(event, settings)}
    unsure = [event for event in chosen if event in unknown or event in doubtful]
    sure = [event for event in chosen if event not in unsure]
    counts = {
        "events": len(chosen),
        "n_past_end": len(late),
        "n_low_confidence": sum(event in doubtful for event in chosen),
        "n_unknown_speaker": sum(event in unknown for event in chosen),
    }
    sure_late = [event for event in late if event in sure]
    return _Chosen([event for event in sure if event not in late], unsure, sure_late, counts)


def _check_times(events: Sequence[Event], name: str) -> None:
    bad = [event for event in events if not 0 <= event.start <= event.end < math.inf]
    if bad:
        raise UserError(
            f"{name}: an event {bad[0].label} from {bad[0].start} to {bad[0].end} s; times must be numbers >= 0, the "
            "end not before the start. Mend the annotation, and extract again where it comes from a store."
        )


def _unknown(events: Sequence[Event], settings: LabelSettings, known: Collection[str] | None, name: str) -> set[Event]:
    """Return the events of speakers who can't be told."""
    needed = settings.speakers == "user"
    unknown = {
        event
        for event in events
        if (event.speaker is None and needed)
        or (event.speaker is not None and known is not None and event.speaker not in known)
    }
    if unknown and settings.unknown_speaker == "error":
        ids = sorted({event.speaker or "none" for event in unknown})
        raise UserError(
            f"{name}: events of the unknown speaker {', '.join(ids)}; known are {', '.join(sorted(known or ())) or '-'}"
            ".\nMend the files of speakers, or mask these events: labels.unknown_speaker=ignore."
        )
    return unknown


def _of_user(events: Sequence[Event], unknown: Collection[Event], user: str | None, name: str) -> list[Event]:
    if user is None:
        raise UserError(
            f"{name}: labels.speakers=user, where the features are those of all speakers mixed. Set "
            "labels.speakers=all, or extract with data.speakers=diarized or separated."
        )
    return [event for event in events if event.speaker == user or event in unknown]


def _is_doubtful(event: Event, settings: LabelSettings) -> bool:
    return event.confidence is not None and event.confidence < settings.min_confidence


def _refuse_late(late: Sequence[Event], count: int, num_frames: int, settings: LabelSettings, name: str) -> None:
    if len(late) > max(1, _MAX_PAST_END * count):  # a single one is a matter of rounding
        raise UserError(
            f"{name}: annotation does not match audio: {len(late)} of {count} events start after its "
            f"{num_frames / settings.frame_rate:.2f} s (at most one, or {_MAX_PAST_END:.0%}). Put the right files "
            "together, and extract again."
        )
