"""What merges and producers once got wrong: leftover columns and units, their order, rounding, MIDI modes, points."""

import unicodedata
from functools import partial

import mido
import numpy as np
import pytest

from tests.sidecar_items import item_of, times_of
from tests.token_corpus import TokenCorpus
from voxlab.data.tokens import TokenDataset
from voxlab.sidecars import calls, schema
from voxlab.sidecars.columns import Made, convert_column, merge
from voxlab.sidecars.producers.basic import lin
from voxlab.sidecars.producers.labels import from_labels
from voxlab.sidecars.producers.midi import from_midi
from voxlab.sidecars.producers.table import from_table
from voxlab.sidecars.schema import skeleton
from voxlab.tasks.extract.build import build
from voxlab.tasks.extract.sidecars import sidecars

T = 4
EMPTY = skeleton(T, 75.0, "float32", "now")


def a_producer(item, times, **args):
    raise NotImplementedError


def made(name, args, **columns):
    call = calls.prepare({name: partial(a_producer, **args)})[0]
    return Made(call, {key: np.full(T, float(value)) for key, value in columns.items()})


def joined(old, *new, mode="append", remove=(), empty=EMPTY):
    return merge(old, new, {}, empty, mode=mode, remove=remove, file="x.cond.npy")


def content(sidecar):
    return {name: float(sidecar.column(name)[0]) for name in sidecar.names}


# ---- merge ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_a_column_that_its_producer_no_longer_makes_goes(mode):
    old, _ = joined(None, made("labels", {}, foo=1, both=2), made("lin", {}, position=3))
    sidecar, notes = joined(old, made("labels", {}, both=5, bar=6), mode=mode)
    assert content(sidecar) == {"both": 5, "bar": 6, "position": 3}
    assert notes.as_record() == {"dropped": ["foo"]}
    assert [(entry["name"], entry["columns"]) for entry in sidecar.producers] == [
        ("lin", ["position"]),
        ("labels", ["both", "bar"]),
    ]


def test_other_settings_drop_what_they_no_longer_make_in_overwrite_only():
    old, _ = joined(None, made("labels", {"x": 1}, foo=1))
    new = made("labels", {"x": 2}, bar=2)
    assert content(joined(old, new)[0]) == {"bar": 2, "foo": 1}
    assert content(joined(old, new, mode="overwrite")[0]) == {"bar": 2}


def test_a_column_that_moved_to_another_producer_is_made_by_that():
    old, _ = joined(None, made("one", {}, a=1, b=2))
    sidecar, notes = joined(old, made("one", {}, b=3), made("two", {}, a=4), mode="overwrite")
    assert (content(sidecar), notes.as_record()) == ({"b": 3, "a": 4}, {})


def test_leftovers_for_other_tokens_are_dropped_without_an_error():
    old, _ = joined(None, made("labels", {}, foo=1))
    later = skeleton(T, 75.0, "float32", "later")
    sidecar, notes = joined(old, made("labels", {}, bar=2), empty=later)
    assert (content(sidecar), notes.as_record()) == ({"bar": 2}, {"dropped": ["foo"]})


def test_a_leftover_that_is_removed_on_demand_counts_as_removed():
    old, _ = joined(None, made("labels", {}, foo=1))
    assert joined(old, made("labels", {}, bar=2), remove=["foo"])[1].as_record() == {"removed": ["foo"]}


def test_the_order_of_columns_does_not_depend_on_what_was_there():
    position, pitch = made("lin", {}, position=1), made("from_filename", {}, pitch=2)
    by_and_by, _ = joined(joined(None, position)[0], pitch, position)
    at_once, _ = joined(None, pitch, position)
    assert by_and_by.names == at_once.names == ("pitch", "position")
    np.testing.assert_array_equal(by_and_by.values, at_once.values)


def test_kept_columns_have_their_place_among_those_of_the_calls():
    old, _ = joined(None, made("other", {}, z=9), made("one", {"x": 1}, a=1))
    sidecar, notes = joined(old, made("two", {}, b=3), made("one", {"x": 2}, a=2))
    assert list(content(sidecar).items()) == [("b", 3), ("a", 1), ("z", 9)]
    assert notes.as_record() == {"kept": ["a"]}


# ---- rounding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dtype", "advice"),
    [(20011, "float16", "2048 exactly; set sidecars.dtype=float32"), (2**24 + 1, "float32", "16777216 exactly; scale")],
    ids=["float16", "float32"],
)
def test_whole_numbers_are_not_rounded(value, dtype, advice):
    message = (
        rf"rounded: x\.npy: column 'scene_id' is {value}\.0 at frame 1; {dtype} holds whole numbers up to {advice}"
    )
    with pytest.raises(ValueError, match=message):
        convert_column("scene_id", [1, value], 2, dtype, "x.npy")


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ([2048, -2048, 4096], "float16"),
        ([20011, 0.5], "float16"),
        ([20011], "float32"),
        ([1e30], "float32"),
        ([], "float16"),
    ],
    ids=["exact", "measured", "single", "huge", "empty"],
)
def test_other_columns_are_stored(column, dtype):
    found = convert_column("x", column, len(column), dtype, "x.npy")
    np.testing.assert_array_equal(found, np.array(column, np.float64).astype(dtype))


# ---- stage ---------------------------------------------------------------------------------------------------------


def run(corpus, producers, **changes):
    settings = {"info": corpus.info, "container": corpus.container, "mode": "append", "dtype": "float32", "remove": []}
    return sidecars(corpus.stage(), producers=producers, **settings | changes)


def with_units(item, times, *, level, unit=None):
    if unit is not None:
        item.units["level"] = unit
    return {"level": np.full(len(times), level)}


def test_a_unit_goes_with_the_settings_that_gave_it(tmp_path):
    corpus = TokenCorpus(tmp_path / "out").add("a", 9, columns=None)
    keep = partial(lin, columns=None)
    run(corpus, {"lin": keep, "mine": partial(with_units, level=1.0, unit="dB")})
    assert schema.read(corpus.path("a", ".cond.npy"), corpus.path("a", ".cond.json")).units[-1] == "dB"
    run(corpus, {"lin": keep, "mine": partial(with_units, level=1.0)}, mode="overwrite")
    found = schema.read(corpus.path("a", ".cond.npy"), corpus.path("a", ".cond.json"))
    assert (found.names[-1], found.units[-1]) == ("level", "")


def test_columns_in_several_orders_are_one_set(tmp_path):
    corpus = TokenCorpus(tmp_path / "out").add("a", 9, columns=("x", "y")).add("b", 5, columns=("y", "x"))
    build(
        corpus.stage(), info=corpus.info, container=corpus.container, materialize="none", inline=False, push_to_hub=None
    )
    dataset = TokenDataset(corpus.out / "dataset")
    assert dataset.columns == ("x", "y")
    np.testing.assert_array_equal(dataset[0]["cond"].numpy(), corpus.values["a"])
    np.testing.assert_array_equal(dataset[1]["cond"].numpy(), corpus.values["b"][:, ::-1])


# ---- producers -----------------------------------------------------------------------------------------------------


def midi_columns(tmp_path, messages, **args):
    """Columns of messages that come a beat (half a second) apart, from 0 s."""
    file, track = mido.MidiFile(ticks_per_beat=480), mido.MidiTrack()
    for n, message in enumerate(messages):
        track.append(message.copy(time=480 if n else 0))
    file.tracks.append(track)
    file.save(tmp_path / "take.mid")
    item = item_of(tmp_path)
    return from_midi(item, times_of(item), **args)


def beats(column, count):
    return [float(column[int((n + 0.5) * 37.5)]) for n in range(count)]


@pytest.mark.parametrize("control", [120, *range(123, 128)])
def test_mode_messages_end_the_notes_of_their_channel(tmp_path, control):
    notes = [mido.Message("note_on", note=60 + n, channel=channel) for n, channel in enumerate((0, 0, 1))]
    columns = midi_columns(tmp_path, [*notes, mido.Message("control_change", control=control, channel=0)])
    assert beats(columns["polyphony"], 4) == [1, 2, 3, 1]
    assert beats(columns["pitch"], 4) == [60, 61, 62, 62]


@pytest.mark.parametrize("control", [119, 121, 122])
def test_other_controls_end_no_notes(tmp_path, control):
    messages = [mido.Message("note_on", note=60), mido.Message("control_change", control=control)]
    assert beats(midi_columns(tmp_path, messages)["gate"], 2) == [1, 1]


def test_a_reset_ends_bend_and_pedals_and_leaves_the_volume(tmp_path):
    change = partial(mido.Message, "control_change")
    messages = [
        change(control=64, value=127),
        change(control=7, value=90),
        change(control=11, value=40),
        mido.Message("pitchwheel", pitch=4096),
        change(control=121),
    ]
    numbers = {"sustain": 64, "volume": 7, "expression": 11}
    columns = midi_columns(tmp_path, messages, features=["pitch_bend"], controllers=numbers)
    last = {name: beats(column[:150], 4)[3] for name, column in columns.items()}
    assert last == {"pitch_bend": 0.5, "sustain": 127, "volume": 90, "expression": 40}
    item = item_of(tmp_path, frames=200)
    after = {
        name: float(column[-1])
        for name, column in from_midi(item, times_of(item), features=["pitch_bend"], controllers=numbers).items()
    }
    assert after == {"pitch_bend": 0, "sustain": 0, "volume": 90, "expression": 127}


@pytest.mark.parametrize(
    ("second", "frame"), [(-0.5, None), (2.5, None), (0.0, 0), (2.0, 149)], ids=["before", "after", "start", "end"]
)
def test_points_outside_the_recording_mark_no_frame(tmp_path, second, frame):
    (tmp_path / "take.txt").write_text(f"{second}\t{second}\tclick\n")
    item = item_of(tmp_path)  # 2 s
    column = from_labels(item, times_of(item), suffix=".txt")["click"]
    assert np.flatnonzero(column).tolist() == ([] if frame is None else [frame])


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")], ids=["table NFD", "table NFC"])
def test_tables_for_all_find_names_however_accents_are_written(tmp_path, forms):
    of_item, of_table = (unicodedata.normalize(form, "été") for form in forms)
    (tmp_path / "all.csv").write_text(f"file_name,amp\n{of_table}.wav,3\n", encoding="utf-8")
    item = item_of(tmp_path, name=of_item)
    columns = from_table(item, times_of(item), file=str(tmp_path / "all.csv"))
    np.testing.assert_array_equal(columns["amp"], np.full(150, 3.0))
