"""Synthetic podcasts in PodcastFillers' layout: two voices that babble, laugh, breathe and hesitate, and some music.

Before most laughs the voice smiles for half a second or more: its upper formants rise, its loudness doesn't. So
laughter can be foretold from the spectrum, and hardly from loudness or voice activity.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from voxlab.audio import encode_wav
from voxlab.data.episodes import Event, Word
from voxlab.data.podcastfillers_files import (
    DIARIZATIONS,
    EVENT_SPEAKERS,
    EVENTS,
    TABLE,
    TRANSCRIPTS,
    VAD,
    sanitise,
)
from voxlab.data.sample.voices import Voice, breathe, chord, hum, laugh, speak
from voxlab.progress import track
from voxlab.storage import atomic_write_bytes

SAMPLE_RATE = 16_000
SPEAKERS = ("SPEAKER_00", "SPEAKER_01")
_SMILE = 0.4  # s before a laugh, or a word longer
_TICKS = 10_000_000


class _Show(NamedTuple):
    split: str
    name: str
    seconds: float
    laughs: float  # chance of a laugh at the end of a turn


_SHOWS = (
    _Show("train", "Second Cup_Episode 1, Warm", 100, 0.5),
    _Show("train", "Second Cup_Episode 2, Cold", 100, 0.6),
    _Show("train", "Harbour & Hill_What's In A Name?", 105, 0.35),
    _Show("train", "Low Tide_#12", 95, 0.7),
    _Show("train", "Nine Lives_Cats", 105, 0.5),
    _Show("train", "Paper Boats_Folding", 85, 0.0),
    _Show("train", "Quiet Hours_Part I", 105, 0.4),
    _Show("train", 'Rust_The "Red" One', 100, 0.6),
    _Show("train", "Slow Train_Platform 4", 100, 0.8),
    _Show("train", "Tin Roof_Rain", 105, 0.5),
    _Show("validation", "Under Way_Start", 100, 0.5),
    _Show("validation", "Violet_Ten, Or So", 100, 0.7),
    _Show("validation", "Window Seat_Row 7", 100, 0.4),
    _Show("test", "Yesterday's Bread_Crust", 95, 0.5),
    _Show("test", "Zero Sum_Half", 95, 0.7),
    _Show("test", "Amber Light_Wait", 95, 0.4),
    _Show("test", "Blue Door_Knock, Knock", 95, 0.6),
    _Show("test", "Clay_Wheel", 95, 0.5),
)
_COLUMNS = (
    *("podcast_filename", "pfID", "label_full_vocab", "label_consolidated_vocab", "event_start_inepisode"),
    *("event_end_inepisode", "event_start_inclip", "event_end_inclip", "clip_start_inepisode", "clip_end_inepisode"),
    *("duration", "episode_split_subset", "clip_split_subset", "clip_name", "n_annotators", "confidence", "pitch_cent"),
)
_OTHERS = {"Noise"}  # of the full vocabulary only


@dataclass
class _Tape:
    """An episode as it is recorded: what has sounded so far, and what is noted of it."""

    rng: np.random.Generator
    parts: list[np.ndarray] = field(default_factory=list)
    now: int = 0  # samples
    events: list[Event] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.now / SAMPLE_RATE

    def record(self, wav: np.ndarray) -> tuple[float, float]:
        """Append (T,) samples; returns when they start and end in seconds."""
        start = self.seconds
        self.parts.append(wav)
        self.now += len(wav)
        return start, self.seconds

    def pause(self, shortest: float, longest: float) -> None:
        """Append silence of a random length in seconds."""
        self.record(np.zeros(int(SAMPLE_RATE * self.rng.uniform(shortest, longest))))

    def note(self, label: str, wav: np.ndarray, speaker: str | None = None) -> None:
        """Append (T,) samples as an event."""
        start, end = self.record(wav)
        confidence = round(float(self.rng.uniform(0.6, 1.0)), 2)
        self.events.append(Event(label, round(start, 3), round(end, 3), confidence, speaker))


def write_sample(folder: Path) -> None:
    """Write the sample corpus as the folder PodcastFillers, unless it is there; the same bytes each time."""
    table = folder / "metadata" / TABLE
    if table.exists():  # it is written last
        return
    rows: list[dict[str, Any]] = []
    for number, show in enumerate(track(_SHOWS, "sample corpus", "episodes")):
        rows += _write_episode(folder, show, number, first_id=10_000 + len(rows))
    _write(table, _csv(rows))


def _write_episode(folder: Path, show: _Show, number: int, first_id: int) -> list[dict[str, Any]]:
    """Write the files of an episode; returns the rows of its table."""
    tape = _record(show, number)
    wav = np.concatenate(tape.parts)[: int(show.seconds * SAMPLE_RATE)]
    wav = 0.3 * wav + 3e-4 * tape.rng.standard_normal(len(wav))
    key = f"{show.split}/{sanitise(show.name)}"
    rows = [_row(show, event, first_id + place) for place, event in enumerate(tape.events)]
    metadata = folder / "metadata"
    _write(folder / f"audio/episode_wav/{key}.wav", encode_wav(torch.from_numpy(wav).float()[None], SAMPLE_RATE))
    _write(metadata / EVENTS / f"{key}.csv", _csv(rows))
    _write(metadata / TRANSCRIPTS / f"{key}.json", _json(_transcript(tape, show.seconds)))
    _write(metadata / VAD / f"{key}.csv", _vad(tape, show.seconds))
    _write(metadata / DIARIZATIONS / f"{key}.json", _json(_diarization(tape, show.seconds)))
    _write(metadata / EVENT_SPEAKERS / f"{key}.json", _json(_event_speakers(tape.events)))
    return rows


def _record(show: _Show, number: int) -> _Tape:
    """Let two voices take turns until the time is up, with what happens between the turns."""
    tape = _Tape(np.random.default_rng((7, number)))
    voices = [Voice(float(tape.rng.uniform(95, 130))), Voice(float(tape.rng.uniform(180, 230)))]
    turn = 0
    while tape.seconds < show.seconds - 11:
        who = turn % 2
        laughs = bool(tape.rng.random() < show.laughs)
        smiles = tape.rng.random() < (0.9 if laughs else 0.12)
        _take_turn(tape, voices[who], SPEAKERS[who], smiles=bool(smiles))
        if laughs:
            _laugh(tape, voices, who)
        tape.pause(0.15, 0.5)
        if tape.rng.random() < 0.35:
            _interrupt(tape, voices[who], SPEAKERS[who])
        turn += 1
    tape.record(np.zeros(max(0, int(show.seconds * SAMPLE_RATE) - tape.now)))
    return tape


def _take_turn(tape: _Tape, voice: Voice, speaker: str, *, smiles: bool) -> None:
    _talk(tape, voice, speaker, tape.rng.uniform(1.5, 4.5), smiling=False)
    if smiles:
        _talk(tape, voice, speaker, _SMILE, smiling=True)


def _talk(tape: _Tape, voice: Voice, speaker: str, seconds: float, *, smiling: bool) -> None:
    """Append words and pauses until they take longer than `seconds`."""
    end = tape.seconds + seconds
    while tape.seconds < end:
        text, wav = speak(voice, tape.rng, SAMPLE_RATE, smiling=smiling)
        start, stop = tape.record(wav)
        tape.words.append(Word(text, start, stop, speaker))
        if tape.rng.random() < 0.2:
            tape.pause(0.15, 0.5)


def _laugh(tape: _Tape, voices: Sequence[Voice], who: int) -> None:
    """Let the speaker or the listener laugh, three times in ten with a breath between two fragments."""
    laughing = who if tape.rng.random() < 0.6 else 1 - who
    tape.note("Laughter", laugh(voices[laughing], tape.rng, SAMPLE_RATE), SPEAKERS[laughing])
    if tape.rng.random() < 0.3:
        tape.pause(0.2, 0.5)
        tape.note("Laughter", laugh(voices[laughing], tape.rng, SAMPLE_RATE), SPEAKERS[laughing])


def _interrupt(tape: _Tape, voice: Voice, speaker: str) -> None:
    label = str(tape.rng.choice(["Um", "Uh", "Breath", "Music", "Noise"], p=[0.25, 0.2, 0.25, 0.15, 0.15]))
    if label in ("Um", "Uh"):
        tape.note(label, hum(voice, tape.rng, SAMPLE_RATE), speaker)
    elif label == "Music":
        tape.note(label, chord(tape.rng, SAMPLE_RATE))
    else:
        tape.note(label, breathe(tape.rng, SAMPLE_RATE, loud=label == "Noise"), None if label == "Noise" else speaker)
    tape.pause(0.1, 0.4)


# ---- files ----------------------------------------------------------------------------------------------------------


def _row(show: _Show, event: Event, number: int) -> dict[str, Any]:
    length, centre = event.end - event.start, (event.start + event.end) / 2
    inside = min(length, 1.0) / 2
    consolidated = "None" if event.label in _OTHERS else event.label
    values = (
        *(show.name, f"{number:05d}", event.label, consolidated, event.start, event.end),
        *(round(0.5 - inside, 3), round(0.5 + inside, 3), round(centre - 0.5, 3), round(centre + 0.5, 3)),
        *(round(length, 3), show.split, "extra" if event.label in _OTHERS else show.split, f"{number:05d}.wav"),
        *(3, event.confidence, ""),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _transcript(tape: _Tape, seconds: float) -> dict[str, Any]:
    def ticks(time: float) -> int:
        return round(time * _TICKS)

    segments = []
    for speaker, words in _turns(tape.words):
        start, end = words[0].start, words[-1].end
        spoken = [
            {
                "text": word.text,
                "confidence": 0.9,
                "offset": ticks(word.start),
                "duration": ticks(word.end - word.start),
            }
            for word in words
        ]
        best = [{"text": " ".join(word.text for word in words), "words": spoken}]
        segments.append({"speaker": speaker, "offset": ticks(start), "duration": ticks(end - start), "nbest": best})
    return {"duration": ticks(seconds), "language": "en-US", "segments": segments}


def _turns(words: Sequence[Word]) -> list[tuple[str | None, list[Word]]]:
    turns: list[tuple[str | None, list[Word]]] = []
    for word in words:
        if turns and turns[-1][0] == word.speaker:
            turns[-1][1].append(word)
        else:
            turns.append((word.speaker, [word]))
    return turns


def _vad(tape: _Tape, seconds: float) -> bytes:
    """Return a row for each 10 ms; a detector hears words well, and everything else of a voice somewhat less."""
    times = np.arange(int(seconds * 100)) / 100
    activity = np.full(len(times), 0.05)
    heard = [*((event, 0.7) for event in tape.events if event.speaker), *((word, 0.92) for word in tape.words)]
    for sound, level in heard:
        activity[round(sound.start * 100) : round(sound.end * 100)] = level
    activity = np.clip(activity + 0.04 * tape.rng.standard_normal(len(times)), 0, 1)
    lines = [f"{time:.2f},{value:.4f}\n" for time, value in zip(times, activity, strict=True)]
    return "".join(lines).encode()


def _diarization(tape: _Tape, seconds: float) -> dict[str, Any]:
    turns = [(speaker, words[0].start, words[-1].end) for speaker, words in _turns(tape.words)]
    turns += [(event.speaker, event.start, event.end) for event in tape.events if event.speaker]
    segments = [
        {"start": round(start, 3), "end": round(end, 3), "speaker_id": speaker}
        for speaker, start, end in sorted(turns, key=lambda turn: turn[1])
    ]
    totals = {name: sum(end - start for speaker, start, end in turns if speaker == name) for name in SPEAKERS}
    statistics = {
        name: {"total_time": round(total, 3), "speaking_ratio": round(total / seconds, 4)}
        for name, total in totals.items()
    }
    return {"num_speakers": len(SPEAKERS), "speaker_statistics": statistics, "segments": segments}


def _event_speakers(events: Sequence[Event]) -> dict[str, Any]:
    named = [event for event in events if event.speaker and event.label not in _OTHERS]
    return {
        "events": [
            {
                "label_consolidated_vocab": event.label,
                "speaker_id": event.speaker,
                "event_start_inepisode": event.start,
                "event_end_inepisode": event.end,
            }
            for event in named
        ]
    }


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _write(path: Path, data: bytes) -> None:
    if not path.exists():
        atomic_write_bytes(path, data)
