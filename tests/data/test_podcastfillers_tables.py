"""PodcastFillers' metadata files: what is read of them, and how damage is named."""

import numpy as np
import pytest

from tests.data.podcastfillers_trees import COLUMNS, rows_of, transcript, write_json, write_rows
from voxlab.data.episodes import Event
from voxlab.data.podcastfillers_tables import read_events, read_table, read_transcript, read_vad
from voxlab.errors import UserError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def write_cells(path, **cells):
    row = {**rows_of("A_1", "train")[0], **cells}
    write_rows(path, [rows_of("A_1", "train")[1], row])


# ---- events ----------------------------------------------------------------------------------------------------------


def test_rows_with_quotes_commas_and_newlines(path):
    name = 'The "A", & B?\n_One, Two'
    write_rows(path, rows_of(name, "test"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # a byte order mark, as spreadsheets write it
    rows = read_events(path)
    assert {(row.episode.replace("\r\n", "\n"), row.split) for row in rows} == {(name, "test")}
    assert [row.event.label for row in rows] == ["Laughter", "Um", "None"]
    assert rows[0].event == Event("Laughter", 1.0, 1.5, 0.9)
    assert list(read_table(path)) == [rows[0].episode]


def test_confidence_may_be_empty_or_not_there(path):
    write_cells(path, confidence="")
    assert [row.event.confidence for row in read_events(path)] == [0.8, None]
    rows = [{key: value for key, value in row.items() if key != "confidence"} for row in rows_of("A_1", "train")]
    path.write_text(",".join(rows[0]) + "\n" + "\n".join(",".join(map(str, row.values())) for row in rows))
    assert {row.event.confidence for row in read_events(path)} == {None}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"event_start_inepisode": "soon"}, r"event_start_inepisode='soon': expected seconds, 0 or more"),
        ({"event_start_inepisode": ""}, r"event_start_inepisode='': expected seconds"),
        ({"event_end_inepisode": "nan"}, r"event_end_inepisode='nan': expected seconds"),
        ({"event_end_inepisode": "inf"}, r"event_end_inepisode='inf': expected seconds"),
        ({"event_start_inepisode": "-0.1"}, r"event_start_inepisode='-0\.1': expected seconds"),
        ({"event_end_inepisode": "0.5"}, r"event_end_inepisode=0\.5 is before event_start_inepisode=1"),
        ({"confidence": "90"}, r"confidence='90': expected a number from 0 to 1"),
    ],
)
def test_wrong_cells_are_named_by_file_line_and_column(path, cells, message):
    write_cells(path, **cells)
    with pytest.raises(UserError, match=rf"file:3: {message}"):
        read_events(path)


def test_all_wrong_cells_are_named_at_once(path):
    write_cells(path, event_start_inepisode="x", event_end_inepisode="y")
    with pytest.raises(UserError) as error:
        read_events(path)
    assert [line.split(": ", 1)[0] for line in str(error.value).splitlines()[:2]] == [f"{path}:3"] * 2


@pytest.mark.parametrize(
    "missing", ["label_consolidated_vocab", "event_start_inepisode", "podcast_filename", "episode_split_subset"]
)
def test_missing_columns_are_named(path, missing):
    write_rows(path, rows_of("A_1", "train"), rename={missing: "other"})
    with pytest.raises(UserError, match=rf"no column {missing}; found .*other"):
        read_events(path)


def test_empty_and_unreadable_tables(path):
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"no column .*; found nothing"):
        read_events(path)
    path.write_bytes(",".join(COLUMNS).encode() + b"\n\xff\xfe")
    with pytest.raises(UserError, match=r"can't be read"):
        read_events(path)
    with pytest.raises(UserError, match=r"gone can't be read"):
        read_events(path.with_name("gone"))


# ---- voice activity --------------------------------------------------------------------------------------------------


def test_voice_activity(path):
    path.write_text("0.0,0.25\n0.01,1.0\n")
    assert np.array_equal(read_vad(path), [[0, 0.25], [0.01, 1]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0,0.5\n0.01,high\n", r"not a table of time and voice activity"),
        ("0.0,0.5,1\n", r"3 columns, where time and voice activity"),
        ("0.0,0.5\n0.01,1.5\n", r"file:2: 0\.01,1\.5: expected a later time"),
        ("0.0,0.5\n0.0,0.5\n", r"file:2: 0,0\.5: expected a later time"),
        ("0.0,nan\n", r"file:1: 0,nan: expected"),
        ("-0.01,0.5\n", r"file:1: -0\.01,0\.5: expected"),
    ],
)
def test_damaged_voice_activity(path, text, message):
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_vad(path)


# ---- transcripts -----------------------------------------------------------------------------------------------------

WORDS = [("one", 1.0, 1.4), ("two", 1.4, 2.0), ("three", 50.0, 58.0)]


@pytest.mark.parametrize("ticks", [10_000_000, 1_000_000])
@pytest.mark.parametrize("duration", [58.0, 57.0, 115.0])
def test_the_length_of_a_tick_is_found_by_the_duration(path, ticks, duration):
    write_json(path, transcript(WORDS, ticks))
    words = read_transcript(path, duration)
    assert [word.text for word in words] == ["one", "two", "three"]
    assert [word.start for word in words] == pytest.approx([1.0, 1.4, 50.0])
    assert [word.end for word in words] == pytest.approx([1.4, 2.0, 58.0])
    assert {word.speaker for word in words} == {"1"}


@pytest.mark.parametrize("duration", [56.8, 116.2, 5.6, 1170.0])
def test_a_transcript_of_other_audio_is_refused(path, duration):
    write_json(path, transcript(WORDS))
    with pytest.raises(UserError, match=r"transcript does not match audio: its last word ends at 58\.00 s"):
        read_transcript(path, duration)


def test_words_are_sorted_and_there_may_be_none(path):
    write_json(path, transcript([("late", 8.0, 9.0), ("early", 1.0, 2.0)]))
    assert [word.text for word in read_transcript(path, 9.0)] == ["early", "late"]
    write_json(path, {"segments": [{"speaker": 1, "nbest": []}]})
    assert read_transcript(path, 9.0) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"segments: expected a list, found 'None'"),
        ({"segments": [{}]}, r"segments\[0\]\.nbest: expected a list"),
        ({"segments": [{"nbest": [{}]}]}, r"segments\[0\]\.nbest\[0\]\.words: expected a list"),
        (
            {"segments": [{"nbest": [{"words": [{"text": "a", "offset": "1", "duration": 1}]}]}]},
            r"segments\[0\]\.nbest\[0\]\.words\[0\]\.offset: expected a number of 0 or more, found '1'",
        ),
        (
            {"segments": [{"nbest": [{"words": [{"text": 1, "offset": 1, "duration": 1}]}]}]},
            r"words\[0\]\.text: expected a str, found '1'",
        ),
        (
            {"segments": [{"nbest": [{"words": [{"text": "a", "offset": 1, "duration": -1}]}]}]},
            r"words\[0\]\.duration: expected a number of 0 or more, found '-1'",
        ),
    ],
)
def test_damaged_transcripts(path, content, message):
    write_json(path, content)
    with pytest.raises(UserError, match=message):
        read_transcript(path, 9.0)


def test_a_transcript_that_is_cut_short(path):
    path.write_text('{"segments": [')
    with pytest.raises(UserError, match="is not valid JSON"):
        read_transcript(path, 9.0)
