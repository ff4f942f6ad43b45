"""Who speaks when in an episode: diarizations, whose an event or a word is, and the audio of some speakers only.

These files are not part of the published data set: a diarizer and a separator of one's own make them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from voxlab.audio import Seconds, compute_num_samples
from voxlab.data.episodes import Event, View, Word
from voxlab.data.podcastfillers_tables import field, number_field, read_json
from voxlab.errors import UserError

_TOLERANCE = 0.01  # s: by how much the times of one event differ between tables


@dataclass(frozen=True)
class Diarization:
    """Who speaks when.

    Attributes:
        ratios: speaker -> share of the recording, the one who speaks longest first.
        segments: start and end in seconds, and the speaker.
    """

    ratios: dict[str, float]
    segments: tuple[tuple[Seconds, Seconds, str], ...]

    def spans(self, speakers: Iterable[str]) -> list[tuple[Seconds, Seconds]]:
        """Return when any of these speaks."""
        chosen = set(speakers)
        return [(start, end) for start, end, speaker in self.segments if speaker in chosen]


def read_diarization(path: Path) -> Diarization:
    """Read `{speaker_statistics: {id: {total_time, speaking_ratio}}, segments: [{start, end, speaker_id}]}`.

    Raises:
        UserError: the file has another form, or a segment is of a speaker without statistics or ends before it starts.
    """
    content = read_json(path)
    times: dict[str, tuple[float, float]] = {}
    for speaker, values in field(path, content, "speaker_statistics", dict).items():
        where = f"speaker_statistics.{speaker}"
        times[speaker] = (
            number_field(path, values, "total_time", where),
            number_field(path, values, "speaking_ratio", where),
        )
    segments: list[tuple[Seconds, Seconds, str]] = []
    for number, segment in enumerate(field(path, content, "segments", list)):
        where = f"segments[{number}]"
        start, end = (number_field(path, segment, name, where) for name in ("start", "end"))
        speaker = field(path, segment, "speaker_id", str, where)
        if speaker not in times or end < start:
            raise UserError(
                f"{path}: {where}: {speaker} from {start:g} to {end:g} s: expected one of {', '.join(sorted(times))}, "
                "and an end after the start."
            )
        segments.append((start, end, speaker))
    ranked = sorted(times, key=lambda speaker: (-times[speaker][0], speaker))
    return Diarization({speaker: times[speaker][1] for speaker in ranked}, tuple(sorted(segments)))


def views_of(diarization: Diarization, speakers: str, min_share: float) -> list[View]:
    """Return whose laughter is looked at.

    Args:
        diarization: of the recording.
        speakers: "separated": the two who speak longest, either way round; "diarized": each who speaks for
            `min_share` of the recording, against all others.
        min_share: 0 to 1.

    Returns:
        The views, none where speakers are too few or too brief.
    """
    ranked = list(diarization.ratios)
    if speakers == "separated":
        pairs = [(ranked[0], ranked[1]), (ranked[1], ranked[0])] if len(ranked) > 1 else []
        return [View(index, user, (other,), diarization.ratios[user]) for index, (user, other) in enumerate(pairs)]
    users = [speaker for speaker in ranked if diarization.ratios[speaker] >= min_share]
    return [
        View(index, user, tuple(other for other in ranked if other != user), diarization.ratios[user])
        for index, user in enumerate(users)
    ]


def name_events(events: Sequence[Event], path: Path) -> list[Event]:
    """Return the events with their speakers from `{events: [{label_consolidated_vocab, speaker_id, ...}]}`.

    Raises:
        UserError: the file has another form, or names an event that is not annotated.
    """
    named = list(events)
    starts = np.array([event.start for event in events])
    for number, entry in enumerate(field(path, read_json(path), "events", list)):
        where = f"events[{number}]"
        label, speaker = (field(path, entry, name, str, where) for name in ("label_consolidated_vocab", "speaker_id"))
        start, end = (number_field(path, entry, f"event_{name}_inepisode", where) for name in ("start", "end"))
        near = np.flatnonzero(np.abs(starts - start) <= _TOLERANCE)
        same = [i for i in near if events[i].label == label and abs(events[i].end - end) <= _TOLERANCE]
        if not same:
            raise UserError(
                f"{path}: {where}: {label} from {start:g} to {end:g} s is not among the annotated events of the "
                "episode. Make the file again from the same annotations."
            )
        for i in same:
            named[i] = replace(named[i], speaker=speaker)
    return named


def name_words(words: Sequence[Word], diarization: Diarization) -> tuple[Word, ...]:
    """Return the words with the speakers who speak most of them; None where nobody does."""
    speakers = list(diarization.ratios)
    starts, ends = np.array([segment[:2] for segment in diarization.segments]).reshape(-1, 2).T
    owner = np.array([speakers.index(segment[2]) for segment in diarization.segments], dtype=np.int64)

    def speaker_of(word: Word) -> str | None:
        overlap = np.clip(np.minimum(ends, word.end) - np.maximum(starts, word.start), 0, None)
        total = np.bincount(owner, overlap, minlength=len(speakers))
        return speakers[int(total.argmax())] if total.any() else None

    return tuple(replace(word, speaker=speaker_of(word)) for word in words)


# ---- audio of some speakers ------------------------------------------------------------------------------------------


def keep(wav: Tensor, spans: Iterable[tuple[Seconds, Seconds]], sample_rate: int) -> Tensor:
    """Return (1, T) with zeros outside the spans."""
    return wav - silence(wav, spans, sample_rate)


def silence(wav: Tensor, spans: Iterable[tuple[Seconds, Seconds]], sample_rate: int) -> Tensor:
    """Return (1, T) with zeros inside the spans."""
    silenced = wav.clone()
    for start, end in spans:
        silenced[:, compute_num_samples(start, sample_rate) : compute_num_samples(end, sample_rate)] = 0
    return silenced
