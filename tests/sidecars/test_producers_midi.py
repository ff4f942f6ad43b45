"""Columns from MIDI, on files written by mido itself."""

import mido
import numpy as np
import pytest

from tests.sidecar_items import item_of, times_of
from voxlab.errors import UserError
from voxlab.sidecars.producers.midi import from_midi

ALL = ("pitch", "velocity", "gate", "polyphony", "pitch_bend")
TICKS = 480


@pytest.fixture
def midi(tmp_path):
    """Write messages, given as (second, message), and return the producer's columns."""

    def call(events, tempos=((0, 500_000),), **args):
        file = mido.MidiFile(ticks_per_beat=TICKS)
        for part in ([(at, mido.MetaMessage("set_tempo", tempo=tempo)) for at, tempo in tempos], events):
            track, before = mido.MidiTrack(), 0
            for at, message in part:
                track.append(message.copy(time=at - before))
                before = at
            file.tracks.append(track)
        file.save(tmp_path / "take.mid")
        item = item_of(tmp_path)
        columns = from_midi(item, times_of(item), **{"features": ALL} | args)
        return columns, item

    return call


def note(kind, pitch, velocity=64, channel=0):
    return mido.Message(f"note_{kind}", note=pitch, velocity=velocity, channel=channel)


def at(columns, second):
    """The columns in the frame that holds a time; frames are 1/75 s."""
    return {name: column[int(second * 75)] for name, column in columns.items()}


def test_the_latest_key_down_counts(midi):
    # at 120 beats a minute a beat is 480 ticks and half a second
    columns, item = midi(
        [(240, note("on", 60, 100)), (480, note("on", 64, 50)), (960, note("off", 64)), (1440, note("on", 60, 0))]
    )
    silent = {"pitch": 0, "velocity": 0, "gate": 0, "polyphony": 0, "pitch_bend": 0}
    assert at(columns, 0.1) == silent
    assert at(columns, 0.3) == {"pitch": 60, "velocity": 100, "gate": 1, "polyphony": 1, "pitch_bend": 0}
    assert at(columns, 0.7) == {"pitch": 64, "velocity": 50, "gate": 1, "polyphony": 2, "pitch_bend": 0}
    assert at(columns, 1.2) == {"pitch": 60, "velocity": 100, "gate": 1, "polyphony": 1, "pitch_bend": 0}
    assert at(columns, 1.6) == silent
    assert item.units == {"pitch": "MIDI note"}


def test_a_note_starts_in_the_frame_whose_middle_follows_it(midi):
    columns, _ = midi([(480, note("on", 60))])
    assert int(columns["gate"].argmax()) == next(n for n in range(150) if (n + 0.5) / 75 >= 0.5)


def test_times_follow_the_tempo(midi):
    columns, _ = midi([(960, note("on", 60))], tempos=((0, 500_000), (480, 1_000_000)))
    start = 0.5 + 1.0  # a beat at 120, one at 60 beats a minute
    assert int(columns["gate"].argmax()) == next(n for n in range(150) if (n + 0.5) / 75 >= start)


def test_the_same_key_twice_needs_two_releases(midi):
    columns, _ = midi([(0, note("on", 60)), (240, note("on", 60)), (480, note("off", 60)), (960, note("off", 60))])
    assert [at(columns, second)["polyphony"] for second in (0.1, 0.3, 0.7, 1.2)] == [1, 2, 1, 0]


def test_controllers_and_bend(midi):
    change = mido.Message("control_change", control=64, value=127)
    bend = mido.Message("pitchwheel", pitch=-4096)
    columns, _ = midi([(480, change), (960, bend)], controllers={"sustain": 64, "modulation": 1})
    assert at(columns, 0.3)["sustain"] == 0
    assert at(columns, 0.7)["sustain"] == 127
    assert (at(columns, 0.7)["pitch_bend"], at(columns, 1.2)["pitch_bend"]) == (0, -0.5)
    assert set(columns["modulation"]) == {0}
    assert list(columns) == [*ALL, "sustain", "modulation"]


def test_one_channel(midi):
    events = [(0, note("on", 60, channel=0)), (0, note("on", 72, channel=1))]
    assert at(midi(events, channel=1)[0], 0.5)["pitch"] == 60
    assert at(midi(events, channel=2)[0], 0.5)["pitch"] == 72
    assert at(midi(events)[0], 0.5)["polyphony"] == 2


def test_a_missing_file_is_an_error_or_silence(tmp_path):
    item = item_of(tmp_path)
    with pytest.raises(ValueError, match=r"missing_companion: take has no .*take\.mid"):
        from_midi(item, times_of(item))
    columns = from_midi(item, times_of(item), missing="zeros", controllers={"sustain": 64})
    assert {name: set(column) for name, column in columns.items()} == {
        name: {0.0} for name in ("pitch", "velocity", "gate", "polyphony", "sustain")
    }
    assert item.used == [tmp_path / "take.mid"] * 2


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "take.mid").write_bytes(b"MThd\x00\x00")
    item = item_of(tmp_path)
    with pytest.raises(ValueError, match=r"bad_midi: take\.mid: "):
        from_midi(item, times_of(item))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"features": ["loudness"]}, "choose some of pitch, velocity, gate, polyphony, pitch_bend"),
        ({"features": []}, "choose some of"),
        ({"controllers": {"x": 128}}, "a number from 0 to 127"),
        ({"controllers": {"pitch": 1}}, "a name that is no feature"),
        ({"channel": 0}, "channel is null or 1 to 16"),
        ({"missing": "skip"}, "missing is error or zeros"),
    ],
    ids=["unknown", "none", "controller", "clash", "channel", "missing"],
)
def test_wrong_settings_stop_the_run(tmp_path, args, message):
    item = item_of(tmp_path)
    with pytest.raises(UserError, match=message):
        from_midi(item, times_of(item), **args)
    assert np.size(item.used) == 0
