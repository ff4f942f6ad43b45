"""PodcastFillers' layout: what is read, what is left out or refused, and the sample corpus."""

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.data.podcastfillers_trees import (
    EPISODES,
    noise,
    rows_of,
    transcript,
    write_audio,
    write_events,
    write_json,
    write_rows,
    write_tree,
)
from voxlab.audio import load
from voxlab.data.episodes import MIX, Event
from voxlab.data.laughter_labels import LabelSettings, compute_labels
from voxlab.data.podcastfillers import PodcastFillers
from voxlab.data.sample import podcastfillers as writer
from voxlab.errors import UserError


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "PodcastFillers")


def corpus(root, **options):
    return PodcastFillers(**{"root": str(root), **options})


def table_of(root, split="train", name="Apple_One"):
    return root / "metadata" / "episode_annotations" / split / f"{name}.csv"


def audio_of(root, split="train", name="Apple_One"):
    return root / "audio" / "episode_wav" / split / f"{name}.wav"


def first(found):
    return found, found.items()[-3]  # train/Apple_One, after test/Corn_One


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_episodes_of_all_splits(root):
    items = corpus(root).items()
    assert [item.id for item in items] == sorted(f"{split}/{name}" for split, name in EPISODES)
    for item in items:
        assert item.path == audio_of(root, item.split, item.id.partition("/")[2])
        assert item.metadata == {"episode": item.path.stem, "show": item.path.stem.partition("_")[0]}
    assert corpus(root.parent).items() == items
    assert [item.split for item in corpus(root, splits=["test"]).items()] == ["test"]


def test_events_of_the_consolidated_vocabulary(root):
    found, item = first(corpus(root))
    assert item.id == "train/Apple_One"
    annotation = found.annotation(item)
    assert annotation.events == (Event("Laughter", 1.0, 1.5, 0.9), Event("Um", 2.0, 2.25, 0.8))
    assert annotation.words is None
    assert annotation.vad is None
    assert found.views(item) == [MIX]
    assert found.speakers_of(item) is None


def test_the_mix_is_on_the_other_side_and_resampled_as_a_whole(root):
    found, item = first(corpus(root))
    agent, other = found.sides(item, MIX, 24_000)
    assert agent is None
    assert torch.equal(other, load(item.path, 24_000)[0])


def test_the_names_of_the_projects_page_are_understood(root):
    rename = {"label_full_vocab": "fullvoc_label", "label_consolidated_vocab": "consolidated_label"}
    found, item = first(corpus(root))
    before = found.annotation(item)
    write_events(table_of(root), "Apple_One", "train", rename=rename)
    assert found.annotation(item) == before


def test_the_table_of_all_events_stands_in_for_tables_of_episodes(root):
    found = corpus(root)
    before = [found.annotation(item) for item in found.items()]
    rows = [row for split, name in EPISODES for row in rows_of(name, split)]
    shutil.rmtree(root / "metadata" / "episode_annotations")
    write_rows(root / "metadata" / "PodcastFillers.csv", rows)
    assert [found.annotation(item) for item in found.items()] == before
    write_rows(root / "metadata" / "PodcastFillers.csv", [row for row in rows if row["podcast_filename"] != "Corn_One"])
    with pytest.raises(UserError, match=r"test: 1 episode has no annotation: Corn_One"):
        found.items()


def test_the_other_spelling_of_the_metadata_folder(tmp_path):
    found = corpus(write_tree(tmp_path / "PodcastFillers", metadata="meta_data"))
    assert len(found.annotation(found.items()[0]).events) == 2


def test_names_that_copies_sanitise_are_matched_either_way(tmp_path):
    root = tmp_path / "PodcastFillers"
    names = {'Who: "Me"?_It, & #1': "Who_ _Me___It, & #1", "Plain_<b>": "Plain_<b>"}
    for name, spelt in names.items():
        write_audio(root / "audio" / "episode_wav" / "train" / f"{spelt}.wav")
        write_events(table_of(root, name=name.replace("/", "_")), name, "train")
    found = corpus(root, splits=["train"])
    items = {item.metadata["episode"]: item for item in found.items()}
    assert items.keys() == names.keys()
    assert [item.id for item in items.values()] == ["train/Plain__b_", "train/Who_ _Me___It, & #1"]
    assert items['Who: "Me"?_It, & #1'].metadata["show"] == 'Who: "Me"?'
    assert all(len(found.annotation(item).events) == 2 for item in items.values())


def test_the_table_of_all_events_tells_the_names(tmp_path):
    root = tmp_path / "PodcastFillers"
    names = {'Rust_The "Red" One': "Rust_The _Red_ One", "Show: A_One": "Show_ A_One", "Show: B_One": "Show_ B_One"}
    for spelt in names.values():
        write_audio(root / "audio" / "episode_wav" / "train" / f"{spelt}.wav")
    rows = [row for name in names for row in rows_of(name, "train")]
    write_rows(root / "metadata" / "PodcastFillers.csv", rows)
    found = corpus(root, splits=["train"])
    before = found.items()
    assert {item.id.partition("/")[2]: item.metadata["episode"] for item in before} == {
        spelt: name for name, spelt in names.items()
    }
    assert [item.metadata["show"] for item in before] == ["Rust", "Show: A", "Show: B"]
    for name in names:
        write_events(table_of(root, name=name), name, "train")
    after = found.items()
    assert [(item.id, item.metadata) for item in after] == [(item.id, item.metadata) for item in before]


def test_two_spellings_of_one_episode_are_refused(root):
    write_audio(audio_of(root, name="Apple_On?"))
    write_audio(audio_of(root, name="Apple_On_"))
    with pytest.raises(UserError, match=r"'Apple_On\?\.wav' and 'Apple_On_\.wav' are one episode"):
        corpus(root).items()


def test_mp3_is_read_where_there_is_no_wav(root):
    rate, stereo = 44_100, noise(8.0, rate=44_100, channels=2)
    for split, name in EPISODES:
        path = root / "audio" / "episode_mp3" / split / f"{name}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(str(path), stereo.T.numpy(), rate, format="MP3")
    assert {item.path.suffix for item in corpus(root).items()} == {".wav"}
    assert {item.path.suffix for item in corpus(root, audio="mp3").items()} == {".mp3"}
    shutil.rmtree(root / "audio" / "episode_wav")
    found, item = first(corpus(root))
    assert item.path.suffix == ".mp3"
    assert found.settings["audio"] == "mp3"
    wav = found.sides(item, MIX, rate)[1]
    assert torch.allclose(wav, load(item.path)[0].mean(0, keepdim=True), atol=1e-7)
    assert found.check() == [f"{s}: {n} of {m} episodes are here" for s, n, m in COUNTS]


COUNTS = (("train", 2, 173), ("validation", 1, 6), ("test", 1, 20))


def test_transcripts_and_voice_activity(root):
    words = [("so", 0.1, 0.3), ("it", 0.3, 0.5), ("goes", 7.0, 7.9)]
    path = root / "metadata" / "episode_transcripts" / "train" / "Apple_One.json"
    write_json(path, transcript(words))
    activity = root / "metadata" / "episode_vad" / "train" / "Apple_One.csv"
    activity.parent.mkdir(parents=True)
    activity.write_text("0.0,0.1\n0.01,0.9\n0.02,1.0\n")
    found, item = first(corpus(root))
    annotation = found.annotation(item)
    assert [word.text for word in annotation.words] == ["so", "it", "goes"]
    assert [word.start for word in annotation.words] == pytest.approx([0.1, 0.3, 7.0])
    assert [word.end for word in annotation.words] == pytest.approx([0.3, 0.5, 7.9])
    assert annotation.vad.tolist() == [[0.0, 0.1], [0.01, 0.9], [0.02, 1.0]]
    write_json(path, transcript(words, ticks=1_000_000))  # microseconds, as the page says
    assert [word.end for word in found.annotation(item).words] == pytest.approx([0.3, 0.5, 7.9])


def test_the_stamp_follows_every_file_that_is_read(root):
    path = root / "metadata" / "episode_transcripts" / "train" / "Apple_One.json"
    write_json(path, transcript([("so", 0.1, 7.9)]))
    found = corpus(root)
    for changed in (path, table_of(root), audio_of(root)):
        before = {item.id: item.stamp for item in found.items()}
        os.utime(changed, ns=(1, 1))
        after = {item.id: item.stamp for item in found.items()}
        assert [name for name in before if before[name] != after[name]] == ["train/Apple_One"]


def test_settings_that_decide_the_features_are_told(root):
    plain = corpus(root).settings
    assert plain == {"audio": "wav", "speakers": "mix", "mask_laughter": "none", "downmix": True}
    assert corpus(root, speakers="diarized").settings["min_speaker_share"] == 0.2
    assert not corpus(root).uses_oracle_mask
    assert corpus(root, mask_laughter="all").uses_oracle_mask


def test_the_kind_of_audio_is_not_told_where_there_is_none(root, tmp_path):
    assert corpus(root, audio="mp3").settings["audio"] == "mp3"
    (root / "audio" / "episode_wav").rename(root / "audio" / "episode_mp3")
    made_from = corpus(root).settings
    assert made_from["audio"] == "mp3"
    elsewhere = corpus(tmp_path / "not mounted").settings
    assert elsewhere == {name: value for name, value in made_from.items() if name != "audio"}
    assert corpus(tmp_path / "not mounted", audio="wav").settings["audio"] == "wav"


def test_masked_laughter_is_silent_in_a_mix_and_warned_of(root, caplog):
    found, item = first(corpus(root, mask_laughter="all"))
    assert "data.mask_laughter=all writes the annotated laughter into the audio" in caplog.text
    wav, masked = load(item.path)[0], found.sides(item, MIX, 16_000)[1]
    assert masked[:, 16_000:24_000].abs().max() == 0
    assert torch.equal(masked[:, :16_000], wav[:, :16_000])
    assert torch.equal(masked[:, 24_000:], wav[:, 24_000:])


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_missing_root_and_a_missing_split(tmp_path, root):
    with pytest.raises(
        UserError, match=r"no folder .*nowhere/audio/episode_wav/train \(.*nowhere is not there at all\)"
    ):
        corpus(tmp_path / "nowhere").items()
    shutil.rmtree(audio_of(root, "test").parent)
    with pytest.raises(UserError, match=r"no folder .*episode_wav/test; expected:\n  audio/(.|\n)*data\.root=DIR"):
        corpus(root).items()
    audio_of(root, "test").parent.mkdir()
    with pytest.raises(UserError, match=r"no \.wav file in .*episode_wav/test"):
        corpus(root).items()
    assert len(corpus(root, splits=["train", "validation"]).items()) == 3
    shutil.rmtree(root / "metadata")
    with pytest.raises(UserError, match=r"neither metadata/episode_annotations nor metadata/PodcastFillers\.csv"):
        corpus(root).items()


def test_episodes_without_audio_or_annotation_are_all_named(root, caplog):
    for number in range(12):
        write_audio(audio_of(root, name=f"Apple_More {number:02d}"))
    audio_of(root, "validation", "Bean_One").rename(audio_of(root, "validation", "Bean_Two"))
    with pytest.raises(UserError) as error:
        corpus(root).items()
    names = "; ".join(f"Apple_More {number:02d}" for number in range(10))
    assert str(error.value).splitlines()[1:] == [
        f"  train: 12 episodes have no annotation: {names} and 2 more",
        "  validation: 1 episode has no annotation: Bean_Two",
        "  validation: 1 annotation has no audio: Bean_One",
        "Add the missing files, or leave these episodes out: data.missing=skip.",
    ]
    assert [item.id for item in corpus(root, missing="skip").items()] == [
        *("test/Corn_One", "train/Apple_One", "train/Apple_Two, Again")
    ]
    assert "left out: train: 12 episodes have no annotation" in caplog.text


def test_nothing_left_is_an_error(root):
    shutil.rmtree(table_of(root, "test").parent)
    with pytest.raises(UserError, match=r"no episode is left:\n  test: 1 episode has no annotation: Corn_One"):
        corpus(root, splits=["test"], missing="skip").items()


def test_an_annotation_without_events_is_valid(root):
    write_rows(table_of(root), [])
    found, item = first(corpus(root))
    assert found.annotation(item).events == ()
    assert found.check() == [f"{s}: {n} of {m} episodes are here" for s, n, m in COUNTS]


def test_a_show_in_two_splits_is_refused(root):
    write_audio(audio_of(root, "test", "Apple_Three"))
    write_events(table_of(root, "test", "Apple_Three"), "Apple_Three", "test")
    with pytest.raises(
        UserError, match=r"1 show is in two splits.*Apple \(test, train\)(.|\n)*allow_show_overlap=true"
    ):
        corpus(root).items()
    assert len(corpus(root, allow_show_overlap=True).items()) == 5


def test_a_table_of_another_episode_or_split_is_refused(root):
    found, item = first(corpus(root))
    write_events(table_of(root), "Corn_One", "train")
    with pytest.raises(UserError, match=r"Apple_One\.csv:2: a row of 'Corn_One' in the split 'train'"):
        found.annotation(item)
    write_events(table_of(root), "Apple_One", "test")
    with pytest.raises(UserError, match=r"Apple_One\.csv:2: a row of 'Apple_One' in the split 'test'"):
        found.annotation(item)


def test_events_beyond_the_audio_are_refused(root):
    found, item = first(corpus(root))
    write_events(table_of(root), "Apple_One", "train", [("Um", "Um", 7.0, 8.1, 1.0)])
    assert found.annotation(item).events[0].end == 8.1
    write_events(table_of(root), "Apple_One", "train", [("Um", "Um", 7.0, 8.2, 1.0)])
    with pytest.raises(
        UserError, match=r"annotation does not match audio: its last event ends at 8\.20 s, .* at 8\.00 s"
    ):
        found.annotation(item)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": "train"}, r"data\.splits=train: give a list of train, validation, test"),
        ({"splits": ["dev"]}, r"data\.splits=\['dev'\]: give a list"),
        ({"splits": []}, r"data\.splits=\[\]: give a list"),
        ({"audio": "flac"}, r"data\.audio=flac: choose auto, wav, mp3"),
        ({"speakers": "one"}, r"data\.speakers=one: choose mix, diarized, separated"),
        ({"mask_laughter": "user"}, r"data\.mask_laughter=user: choose none, agent, all"),
        ({"mask_laughter": "agent"}, r"data\.mask_laughter=agent needs data\.speakers=diarized"),
        ({"missing": "ignore"}, r"data\.missing=ignore: choose error, skip"),
        ({"min_speaker_share": 20}, r"data\.min_speaker_share=20: give a share from 0 to 1"),
    ],
)
def test_settings_out_of_range_are_refused(root, options, message):
    with pytest.raises(UserError, match=message):
        corpus(root, **options).items()


def test_download_says_how_and_other_sources_are_refused(root):
    with pytest.raises(UserError, match=r"records/7121457(.|\n)*zip -s 0(.|\n)*unzip(.|\n)*data\.root="):
        corpus(root, source="download").prepare()
    with pytest.raises(UserError, match=r"data\.source=web: choose disk, sample or download"):
        corpus(root, source="web").prepare()


# ---- audio -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"RIFF"), r"can't be read"),
        (lambda path: path.write_bytes(b""), r"can't be read"),
        (lambda path: soundfile.write(path, np.zeros((0, 1)), 16_000), r"is empty: it holds no samples"),
        (lambda path: write_audio(path, noise(channels=2)), r"has 2 channels, .* data\.downmix=true"),
        (lambda path: write_audio(path, rate=7_999), r"has 7999 Hz, where 8000 Hz or more"),
        (lambda path: soundfile.write(path, [0.0, np.nan], 16_000, subtype="FLOAT"), r"sample 1 is NaN or infinite"),
    ],
)
def test_damaged_audio_is_refused(root, spoil, message):
    found, item = first(corpus(root, downmix=False))
    spoil(item.path)
    with pytest.raises(UserError, match=rf"Apple_One\.wav.*{message}"):
        found.sides(item, MIX, 16_000)


def test_digital_silence_is_warned_of(root, caplog):
    found, item = first(corpus(root))
    write_audio(item.path, torch.zeros(1, 16_000))
    assert not found.sides(item, MIX, 16_000)[1].any()
    assert "Apple_One.wav is digital silence" in caplog.text


def test_stereo_is_averaged(root):
    stereo = noise(channels=2)
    write_audio(audio_of(root), stereo)
    found, item = first(corpus(root))
    wav = found.sides(item, MIX, 16_000)[1]
    assert torch.allclose(wav, stereo.mean(0, keepdim=True), atol=1e-4)


def test_everything_that_is_wrong_is_reported_at_once(root):
    write_audio(audio_of(root, "test", "Corn_One"), rate=4_000)
    write_audio(audio_of(root, "test", "Apple_Three"))
    write_events(table_of(root, "test", "Apple_Three"), "Apple_Three", "test")
    write_audio(audio_of(root, "test", "Corn_Two"))
    audio_of(root, "validation", "Bean_One").write_bytes(b"no audio")
    write_events(table_of(root), "Apple_One", "train", [("Um", "Um", 3.0, 2.0, 2.0)])
    write_json(root / "metadata" / "episode_transcripts" / "train" / "Apple_One.json", {"segments": [{}]})
    activity = root / "metadata" / "episode_vad" / "train" / "Apple_One.csv"
    activity.parent.mkdir(parents=True)
    activity.write_text("0.0,1.5\n")
    found = corpus(root).check()
    expected = [
        *("test: 1 episode has no annotation: Corn_Two", "1 show is in two splits"),
        *("Apple_One.csv:2", "Apple_One.json: segments[0].nbest", "Apple_One.csv:1: 0,1.5"),
        *("Bean_One.wav can't be read", "Corn_One.wav has 4000 Hz"),
        *("train: 2 of 173", "validation: 1 of 6", "test: 2 of 20"),
    ]
    assert len(found) == len(expected)
    assert all(what in line for what, line in zip(expected, found, strict=True))
    assert "no folder" in corpus(root / "nowhere").check()[0]
    assert corpus(root, audio="flac").check() == ["data.audio=flac: choose auto, wav, mp3."]


# ---- the sample ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    found = PodcastFillers(source="sample", root=str(tmp_path_factory.mktemp("sample") / "PodcastFillers"))
    found.prepare()
    return found


def test_the_sample_is_read_like_the_real_corpus(sample):
    items = sample.items()
    assert Counter(item.split for item in items) == {"train": 10, "validation": 3, "test": 5}
    assert len({item.metadata["show"] for item in items if item.split == "test"}) == 5
    assert sample.check() == []
    assert any("?" in item.metadata["episode"] and "?" not in item.id for item in items)
    labels = Counter(event.label for item in items for event in sample.annotation(item).events)
    assert labels.keys() == {"Laughter", "Breath", "Um", "Uh", "Music"}
    assert min(len(sample.annotation(item).words or ()) for item in items) > 50
    for item in items[:2]:
        wav = sample.sides(item, MIX, 16_000)[1]
        assert len(sample.annotation(item).vad) == wav.shape[-1] // 160
        assert 0.05 < wav.abs().max() < 0.95


def test_the_sample_is_the_same_each_time_and_left_alone_when_there(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_SHOWS", writer._SHOWS[:2])
    writer.write_sample(tmp_path)
    names = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(names) == 2 * 6 + 1
    names.remove(Path("metadata/PodcastFillers.csv"))
    assert all((tmp_path / name).read_bytes() == (sample.folder / name).read_bytes() for name in names)
    assert sum(path.stat().st_size for path in sample.folder.rglob("*.*")) < 80e6
    (tmp_path / names[0]).write_bytes(b"mine")
    writer.write_sample(tmp_path)
    assert (tmp_path / names[0]).read_bytes() == b"mine"


def test_a_sample_of_a_dry_run_is_not_there_yet(tmp_path):
    with pytest.raises(UserError, match="holds no sample corpus yet"):
        PodcastFillers(source="sample", root=str(tmp_path / "PodcastFillers")).items()


def test_the_samples_laughter_is_foretold_by_timbre_and_not_by_loudness(sample):
    """The level around 3.4 kHz against that around 2.5 kHz rises before a laugh; loudness and voice activity don't."""
    smile, loud, activity, target = [], [], [], []
    for item in sample.items():
        annotation, wav = sample.annotation(item), sample.sides(item, MIX, 16_000)[1][0]
        num_frames = len(wav) // 1280
        labels = compute_labels(annotation.events, num_frames, LabelSettings())
        spectrum = torch.stft(wav, 512, 160, window=torch.hann_window(512), return_complex=True).abs().square()
        power = spectrum[:, : 8 * num_frames].unflatten(1, (num_frames, 8)).mean(2) + 1e-9
        frames = np.flatnonzero(labels.mask[1:]) + 1
        ratio = (power[100:118].sum(0) / power[72:90].sum(0)).log().numpy()
        smile.append(ratio[frames - 1])
        loud.append(power.sum(0).log().numpy()[frames - 1])
        activity.append(annotation.vad[: 8 * num_frames, 1].reshape(-1, 8).mean(1)[frames - 1])
        target.append(labels.y[frames])
    y = np.concatenate(target) > 0
    assert 0.02 < y.mean() < 0.06
    assert area(np.concatenate(smile), y) > 0.8
    assert 0.35 < area(np.concatenate(loud), y) < 0.65
    assert 0.35 < area(np.concatenate(activity), y) < 0.65


def area(scores, y):
    """Area under the ROC curve, by ranks."""
    ranks = scores.argsort().argsort()
    return (ranks[y].mean() - (y.sum() - 1) / 2) / (~y).sum()


# ---- real files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def real():
    folder = os.environ.get("VOXLAB_REAL_DATA")
    if not folder:
        pytest.skip("VOXLAB_REAL_DATA is not set to a folder with real recordings")
    root = Path(folder) / "podcastfillers" / "PodcastFillers"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    return PodcastFillers(root=str(root), splits=["train", "validation"], allow_show_overlap=True)


def test_real_recordings_in_the_real_layout(real):
    items = real.items()
    assert {item.split for item in items} == {"train", "validation"}
    problems = [line for line in real.check() if "episodes are here" not in line]
    assert problems == []
    for item in items:
        wav = real.sides(item, MIX, 24_000)[1]
        labels = compute_labels(real.annotation(item).events, wav.shape[-1] // 1920, LabelSettings(), name=item.id)
        assert labels.counts["n_past_end"] == 0


def test_the_real_table_of_all_events_has_what_the_tables_of_episodes_have(real, tmp_path):
    shutil.copytree(real.folder / "audio", tmp_path / "audio")
    (tmp_path / "metadata").mkdir()
    shutil.copy(real.folder / "metadata" / "PodcastFillers.csv", tmp_path / "metadata")
    whole = PodcastFillers(root=str(tmp_path), splits=["train"], allow_show_overlap=True)
    each = {item.id: real.annotation(item).events for item in real.items() if item.split == "train"}
    assert {item.id: whole.annotation(item).events for item in whole.items()} == each
    assert sum(map(len, each.values())) > 0


def test_a_show_of_the_real_files_is_in_two_splits(real):
    overlapping = PodcastFillers(root=real.root, splits=["train", "validation"])
    with pytest.raises(UserError, match="in two splits"):
        overlapping.items()
