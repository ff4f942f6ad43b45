"""Columns from a MIDI file beside the recording: notes, controllers, pitch bend; times follow its tempo changes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem, companion, need_companion

_BEND_STEPS = 8192
# Numbers of control changes that are no controllers. Source: MIDI 1.0, channel mode messages.
_ENDS_NOTES = {120, *range(123, 128)}
_RESET = 121
# What a reset leaves alone (bank, volume, pan, sound, effects), and what it sets to another value than 0 (expression).
# Source: MIDI recommended practice RP-015.
_LASTING = {0, 32, 7, 10, *range(70, 80), *range(91, 96)}
_AFTER_RESET = {11: 127}


@dataclass
class _Keys:
    """What sounds and how the controllers stand, after the messages so far."""

    notes: list[tuple[int, int, int]] = field(default_factory=list)  # channel, pitch, velocity; the latest last
    controllers: dict[int, int] = field(default_factory=dict)
    bend: int = 0

    def apply(self, message: Any) -> None:
        if message.type == "control_change":
            self._control(message)
        elif message.type == "pitchwheel":
            self.bend = message.pitch
        elif message.type == "note_on" and message.velocity > 0:
            self.notes.append((message.channel, message.note, message.velocity))
        elif message.type in ("note_on", "note_off"):  # a note_on without velocity ends a note, too
            self._release(message.channel, message.note)

    def _control(self, message: Any) -> None:
        self.controllers[message.control] = message.value
        if message.control in _ENDS_NOTES:
            self.notes = [note for note in self.notes if note[0] != message.channel]
        elif message.control == _RESET:
            lasting = {number: value for number, value in self.controllers.items() if number in _LASTING}
            self.controllers, self.bend = lasting | _AFTER_RESET, 0

    def _release(self, channel: int, pitch: int) -> None:
        for n in reversed(range(len(self.notes))):
            if self.notes[n][:2] == (channel, pitch):
                del self.notes[n]
                return


FEATURES: dict[str, Callable[[_Keys], float]] = {
    "pitch": lambda keys: keys.notes[-1][1] if keys.notes else 0,
    "velocity": lambda keys: keys.notes[-1][2] if keys.notes else 0,
    "gate": lambda keys: min(len(keys.notes), 1),
    "polyphony": lambda keys: len(keys.notes),
    "pitch_bend": lambda keys: keys.bend / _BEND_STEPS,
}
UNITS = {"pitch": "MIDI note"}


def from_midi(
    item: SidecarItem,
    times: np.ndarray,
    *,
    features: Sequence[str] = ("pitch", "velocity", "gate", "polyphony"),
    controllers: Mapping[str, int] | None = None,
    channel: int | None = None,
    suffix: str = ".mid",
    folder: str | None = None,
    missing: str = "error",
) -> Columns:
    """Read which keys are down at each token frame.

    Features: `pitch` (note number of the latest key still down, 0 without), `velocity` (its, 0 to 127), `gate` (1 while
    a key is down), `polyphony` (keys down), `pitch_bend` (-1 to 1 of the wheel's range). The sustain pedal doesn't
    prolong notes: take it as a column of its own with controllers={sustain: 64}. "All sound off" and "all notes off"
    end the notes of their channel; "reset all controllers" ends the bend and lets the pedals up.

    Args:
        item: the recording.
        times: (T,) seconds.
        features: columns to make.
        controllers: column name -> controller number 0 to 127; values 0 to 127, 0 before the first message.
        channel: only messages of this channel, 1 to 16; None: of all.
        suffix: end of the MIDI file's name, after the recording's without suffix.
        folder: where the MIDI files lie, as `<folder>/<id><suffix>`; None: beside the recordings.
        missing: what a recording without MIDI file gets: "error" | "zeros".

    Raises:
        UserError: unknown settings.
        ValueError: missing_companion or bad_midi.
    """
    numbers = dict(controllers or {})
    check_midi(features=features, controllers=numbers, channel=channel, missing=missing)
    find = need_companion if missing == "error" else companion
    path = find(item, suffix, folder)
    item.units.update({name: UNITS[name] for name in features if name in UNITS})
    marks, rows = [0.0], [_row(_Keys(), features, numbers)]
    keys = _Keys()
    for time, message in _messages(path, channel) if path else []:
        keys.apply(message)
        marks.append(time)
        rows.append(_row(keys, features, numbers))
    state = np.array(rows, dtype=np.float64)[np.searchsorted(marks, times, side="right") - 1]
    return {name: state[:, n] for n, name in enumerate((*features, *numbers))}


def check_midi(
    *,
    features: Sequence[str] = ("pitch", "velocity", "gate", "polyphony"),
    controllers: Mapping[str, int] | None = None,
    channel: int | None = None,
    missing: str = "error",
    **_: Any,
) -> None:
    """Check the settings of `from_midi`; raises UserError."""
    controllers = controllers or {}
    unknown = [name for name in features if name not in FEATURES]
    if unknown or not (features or controllers):
        raise UserError(f"producers.from_midi.features={list(features)}: choose some of {', '.join(FEATURES)}.")
    wrong = {name: number for name, number in controllers.items() if number not in range(128) or name in features}
    if wrong:
        raise UserError(
            f"producers.from_midi.controllers={wrong}: give a name that is no feature, and a number from 0 to 127, "
            "for example {sustain: 64}."
        )
    if (channel is not None and channel not in range(1, 17)) or missing not in ("error", "zeros"):
        raise UserError(
            f"producers.from_midi: channel={channel}, missing={missing}: channel is null or 1 to 16, missing is "
            "error or zeros."
        )


def _row(keys: _Keys, features: Sequence[str], controllers: Mapping[str, int]) -> list[float]:
    notes = [FEATURES[name](keys) for name in features]
    return notes + [keys.controllers.get(number, 0) for number in controllers.values()]


def _messages(path: Path, channel: int | None) -> Iterable[tuple[float, Any]]:
    """All tracks' messages of a channel, in order, with their times in seconds."""
    import mido

    try:
        found, time = [], 0.0
        for message in mido.MidiFile(path):
            time += message.time
            if not message.is_meta and getattr(message, "channel", None) in ({channel - 1} if channel else range(16)):
                found.append((time, message))
    except Exception as error:  # mido raises whatever its parser stumbles over
        raise ValueError(f"bad_midi: {path.name}: {type(error).__name__}: {error}") from error
    return found
