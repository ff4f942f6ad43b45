"""Speakers told apart: views, sides, whose an event or a word is, and what is refused."""

import numpy as np
import pytest
import torch

from tests.data.podcastfillers_trees import (
    EPISODES,
    diarization,
    event_speakers,
    noise,
    transcript,
    write_audio,
    write_json,
    write_tree,
)
from voxlab.audio import load
from voxlab.data.episodes import View
from voxlab.data.laughter_labels import LabelSettings, compute_labels
from voxlab.data.podcastfillers import PodcastFillers
from voxlab.data.sample import podcastfillers as writer
from voxlab.errors import UserError

A, B, C = "SPEAKER_00", "SPEAKER_01", "SPEAKER_02"
SEGMENTS = [(0.0, 2.0, B), (2.0, 5.0, A), (4.5, 5.5, B), (5.5, 6.0, C)]
SPOKEN = [("Laughter", 1.0, 1.5, A), ("Um", 2.0, 2.25, B)]
RATE = 16_000


@pytest.fixture
def root(tmp_path):
    root = write_tree(tmp_path / "PodcastFillers")
    for split, name in EPISODES:
        folder = root / "metadata"
        write_json(folder / "episode_diarizations" / split / f"{name}.json", diarization(SEGMENTS))
        write_json(folder / "episode_event_speaker_mapping" / split / f"{name}.json", event_speakers(SPOKEN))
    return root


def corpus(root, **options):
    return PodcastFillers(**{"root": str(root), "splits": ["test"], "speakers": "diarized", **options})


def file_of(root, kind, split="test", name="Corn_One"):
    return root / "metadata" / kind / split / f"{name}.json"


def inside(length, *spans):
    mask = np.zeros(length, dtype=bool)
    for start, end in spans:
        mask[int(start * RATE) : int(end * RATE)] = True
    return torch.from_numpy(mask)


# ---- diarized --------------------------------------------------------------------------------------------------------


def test_a_view_for_each_speaker_with_enough_to_say(root):
    found = corpus(root)
    item = found.items()[0]
    assert found.views(item) == [View(0, A, (B, C), 0.375), View(1, B, (A, C), 0.375)]
    assert found.speakers_of(item) == [A, B, C]
    every = corpus(root, min_speaker_share=0.05)
    assert [view.user for view in every.views(item)] == [A, B, C]


def test_sides_are_cut_out_of_the_mix(root):
    found = corpus(root)
    item = found.items()[0]
    wav = load(item.path)[0]
    agent, other = found.sides(item, found.views(item)[0], RATE)
    assert torch.equal(other, wav * inside(wav.shape[-1], (2, 5)))
    assert torch.equal(agent, wav * inside(wav.shape[-1], (0, 2), (4.5, 6)))


def test_a_single_speaker_has_a_silent_agent(root):
    write_json(file_of(root, "episode_diarizations"), diarization([(0.0, 4.0, A)]))
    write_json(file_of(root, "episode_event_speaker_mapping"), event_speakers([]))
    found = corpus(root)
    item = found.items()[0]
    assert found.views(item) == [View(0, A, (), 0.5)]
    assert found.sides(item, found.views(item)[0], RATE)[0] is None


@pytest.mark.parametrize(("mask", "agent_masked", "other_masked"), [("agent", False, False), ("all", True, True)])
def test_laughter_is_masked(root, mask, agent_masked, other_masked):
    """The laugh at 1.0 to 1.5 s is speaker A's, while B is talking."""
    plain, masked = corpus(root), corpus(root, mask_laughter=mask)
    item = plain.items()[0]
    laugh = inside(8 * RATE, (1.0, 1.5))
    for view, whose in zip(plain.views(item), ("user", "agent"), strict=True):
        before, after = plain.sides(item, view, RATE), masked.sides(item, view, RATE)
        on_agent = agent_masked or whose == "agent"
        assert torch.equal(after[0], before[0] * ~laugh if on_agent else before[0])
        assert torch.equal(after[1], before[1] * ~laugh if other_masked else before[1])


def test_events_have_speakers_and_labels_follow_the_user(root):
    found = corpus(root)
    item = found.items()[0]
    events = found.annotation(item).events
    assert [(event.label, event.speaker) for event in events] == [("Laughter", A), ("Um", B)]
    counts = [
        compute_labels(
            *(events, 100, LabelSettings(speakers="user")), user=view.user, known_speakers=found.speakers_of(item)
        ).counts["events"]
        for view in found.views(item)
    ]
    assert counts == [1, 0]


def test_words_are_those_of_whoever_speaks_most_of_them(root):
    words = [("b", 0.5, 1.0), ("most", 1.2, 2.4), ("a", 3.0, 3.5), ("tie", 4.6, 5.4), ("none", 7.0, 7.5)]
    write_json(file_of(root, "episode_transcripts"), transcript(words))
    found = corpus(root)
    item = found.items()[0]
    assert [word.speaker for word in found.annotation(item).words] == [B, B, A, B, None]
    users_a, users_b = found.views(item)
    assert [word.text for word in found.words_of(item, users_a)] == ["b", "most", "tie"]
    assert [word.text for word in found.words_of(item, users_b)] == ["a"]


def test_words_need_a_transcript_and_speakers(root):
    found = corpus(root)
    item = found.items()[0]
    with pytest.raises(UserError, match=r"test/Corn_One: no transcript in .*; set features\.text=pad"):
        found.words_of(item, found.views(item)[0])
    mix = corpus(root, speakers="mix")
    with pytest.raises(UserError, match=r"features\.text=transcript needs data\.speakers=diarized"):
        mix.words_of(item, mix.views(item)[0])


# ---- separated -------------------------------------------------------------------------------------------------------


def separate(root, rate=24_000, seconds=8.0):
    folder = root / "audio" / "episode_wav_dial" / "test" / "Corn_One"
    for number, speaker in enumerate((A, B)):
        write_audio(folder / f"{speaker}.wav", noise(seconds, seed=number, rate=rate), rate=rate)
    return folder


def test_the_two_who_speak_longest_either_way_round(root):
    folder = separate(root)
    found = corpus(root, speakers="separated")
    item = found.items()[0]
    first, second = found.views(item)
    assert (first, second) == (View(0, A, (B,), 0.375), View(1, B, (A,), 0.375))
    wavs = {name: load(folder / f"{name}.wav")[0] for name in (A, B)}
    for view in (first, second):
        agent, other = found.sides(item, view, 24_000)
        assert torch.equal(agent, wavs[view.others[0]])
        assert torch.equal(other, wavs[view.user])


def test_separated_files_must_match(root):
    folder = separate(root)
    found = corpus(root, speakers="separated")
    item = found.items()[0]
    write_audio(folder / f"{B}.wav", noise(7.0, rate=24_000), rate=24_000)
    with pytest.raises(UserError, match=r"SPEAKER_01\.wav has 168000 samples at 24000 Hz, SPEAKER_00\.wav 192000"):
        found.sides(item, found.views(item)[0], 24_000)
    (folder / f"{B}.wav").unlink()
    with pytest.raises(UserError, match=r"SPEAKER_01\.wav can't be read"):
        found.sides(item, found.views(item)[0], 24_000)


def test_episodes_with_one_speaker_are_left_out_and_counted(root, caplog):
    separate(root)
    write_json(file_of(root, "episode_diarizations"), diarization([(0.0, 4.0, A)]))
    with pytest.raises(UserError, match=r"no episode is left:\n  1 episode has fewer than two"):
        corpus(root, speakers="separated").items()
    quiet = file_of(root, "episode_diarizations", "train", "Apple_One")
    write_json(quiet, diarization([(0.0, 1.0, A), (1.0, 2.0, B)]))
    assert [item.id for item in corpus(root, splits=["train"]).items()] == ["train/Apple_Two, Again"]
    assert "left out: 1 episode has no speaker with 20%: train/Apple_One" in caplog.text


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_missing_files_are_named_from_the_start(root):
    file_of(root, "episode_diarizations").unlink()
    file_of(root, "episode_event_speaker_mapping").unlink()
    with pytest.raises(UserError) as error:
        corpus(root, speakers="separated").items()
    assert str(error.value).splitlines()[1:4] == [
        f"  test: 1 episode has no {what}: Corn_One"
        for what in ("diarization", "speakers of events", "separated audio")
    ]


def test_a_speaker_whom_the_diarization_lacks(root):
    write_json(file_of(root, "episode_event_speaker_mapping"), event_speakers([("Laughter", 1.0, 1.5, "SPEAKER_09")]))
    found = corpus(root)
    item = found.items()[0]
    assert any("unknown speaker SPEAKER_09; known are SPEAKER_00, SPEAKER_01, SPEAKER_02" in f for f in found.check())
    assert any("when you train: task=laughter labels.unknown_speaker=ignore" in finding for finding in found.check())
    with pytest.raises(UserError, match="unknown speaker SPEAKER_09; known are SPEAKER_00"):
        compute_labels(
            found.annotation(item).events, 100, LabelSettings(), known_speakers=found.speakers_of(item), name=item.id
        )


@pytest.mark.parametrize("event", [("Laughter", 1.02, 1.5, A), ("Breath", 1.0, 1.5, A), ("Laughter", 1.0, 1.52, A)])
def test_speakers_of_events_that_are_not_annotated(root, event):
    write_json(file_of(root, "episode_event_speaker_mapping"), event_speakers([event]))
    found = corpus(root)
    with pytest.raises(UserError, match=r"events\[0\]: .* is not among the annotated events"):
        found.annotation(found.items()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": [{"start": 0, "end": 1, "speaker_id": "X"}]}, r"segments\[0\]: X from 0 to 1 s: expected one of"),
        ({"segments": [{"start": 2, "end": 1, "speaker_id": A}]}, r"segments\[0\]: SPEAKER_00 from 2 to 1 s"),
        ({"segments": [{"start": 2, "speaker_id": A}]}, r"segments\[0\]\.end: expected a number of 0 or more"),
        ({"segments": None}, r"segments: expected a list"),
        ({"speaker_statistics": {A: {"total_time": 1}}}, r"speaker_statistics\.SPEAKER_00\.speaking_ratio: expected"),
        ({"speaker_statistics": []}, r"speaker_statistics: expected a dict"),
    ],
)
def test_damaged_diarizations(root, change, message):
    write_json(file_of(root, "episode_diarizations"), {**diarization(SEGMENTS), **change})
    with pytest.raises(UserError, match=message):
        corpus(root).items()


def test_the_samples_speakers(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SHOWS", writer._SHOWS[:1])
    found = PodcastFillers(
        source="sample", root=str(tmp_path / "PodcastFillers"), splits=["train"], speakers="diarized"
    )
    found.prepare()
    (item,) = found.items()
    assert found.check() == []
    assert sorted(str(view.user) for view in found.views(item)) == [A, B]
    assert {event.speaker for event in found.annotation(item).events if event.label == "Laughter"} == {A, B}
    words = [found.words_of(item, view) for view in found.views(item)]
    assert sum(map(len, words)) == len(found.annotation(item).words)
