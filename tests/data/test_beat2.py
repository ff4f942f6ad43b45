"""BEAT2's layout: where it is found, which clips are taken, what a survey tells, and the message of each mistake."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.beat2_trees import FOLDER, IDS, change, copy_speaker, corpus, real, wav_of
from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_files import MOTION, SEMANTIC, SPLIT_TABLE, TEXT
from voxlab.data.beat2_survey import survey
from voxlab.data.items import file_stamp
from voxlab.errors import UserError


@pytest.fixture
def folder(written, tmp_path):
    """The clips of speaker 4 below the root `tmp_path`, for a test to spoil."""
    return copy_speaker(written, tmp_path)


def refusal(found, what="clips"):
    with pytest.raises(UserError) as caught:
        getattr(found, what)()
    return str(caught.value)


def split_table(folder, *rows, header="id,type"):
    (folder / SPLIT_TABLE).write_text("\n".join([header, *rows]) + "\n")


# ---- where it is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "a", "a/b", "a/b/c"])
def test_the_corpus_is_found_up_to_three_levels_below_the_root(folder, tmp_path, above):
    root = tmp_path / "moved"
    (root / above).mkdir(parents=True)
    target = Path(shutil.move(folder, root / above / "anything")) if above else Path(shutil.move(folder, root / FOLDER))
    if above == "a/b/c":
        assert "also not up to 3 levels below" in refusal(corpus(root))
        root = root / "a"
    assert corpus(root).folder == target
    assert corpus(target).folder == target
    assert [clip.id for clip in corpus(root).clips()] == sorted(IDS)


def test_an_absent_root_names_the_three_sources(tmp_path):
    message = refusal(corpus(tmp_path / "none"))
    assert "no such folder" in message
    for word in ("data.root=DIR", "data.source=download", "data.source=sample"):
        assert word in message
    assert "holds no sample corpus yet" in refusal(corpus(tmp_path / "none", source="sample"))
    with pytest.raises(UserError, match="choose disk, sample or download"):
        corpus(tmp_path, source="web").prepare()


def test_the_language_chooses_between_folders(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "beat_chinese_v2.0.0")
    assert corpus(tmp_path).folder == folder
    assert corpus(tmp_path, language="chinese").folder.name == "beat_chinese_v2.0.0"
    message = refusal(corpus(tmp_path, language="french"))
    assert "holds chinese, english" in message
    shutil.copytree(folder, tmp_path / "copy" / FOLDER)
    assert "holds several" in refusal(corpus(tmp_path))
    chinese = tmp_path / "beat_chinese_v2.0.0"
    message = refusal(corpus(chinese))
    assert f"data.language=english: data.root={chinese} holds chinese. Set data.language=chinese" in message
    assert corpus(chinese, language="chinese").folder == chinese


# ---- which clips ---------------------------------------------------------------------------------------------------


def test_clips_and_items_hold_what_names_and_tables_say(folder, tmp_path):
    clips = {clip.id: clip for clip in corpus(tmp_path).clips()}
    assert sorted(clips) == sorted(IDS)
    clip = clips["4_lawrence_0_67_67"]
    assert (clip.split, clip.speaker, clip.emotion) == ("train", "4", "happiness")
    assert clip.motion == folder / MOTION / f"{clip.id}.npz"
    assert clip.textgrid == folder / TEXT / f"{clip.id}.TextGrid"
    assert clip.sem == folder / SEMANTIC / f"{clip.id}.txt"
    assert clip.offset_s is None
    assert {clip.split for clip in clips.values()} == {"train", "validation", "test"}
    items = corpus(tmp_path).items()
    assert [item.id for item in items] == sorted(IDS)
    assert items[0].metadata == {"speaker": "4", "name": "lawrence", "emotion": "neutral", "kind": "speech"}
    assert items[0].stamp == file_stamp(items[0].path)
    assert corpus(tmp_path).check() == []


def test_additional_clips_are_left_out_unless_asked_for(written):
    assert "2_scott_1_1_1" not in [clip.id for clip in Beat2(root=str(written)).clips()]
    more = {clip.id: clip.split for clip in Beat2(root=str(written), additional=True).clips()}
    assert more["2_scott_1_1_1"] == "train"
    assert len(Beat2(root=str(written), speakers=None).clips()) == 18


def test_speakers_without_clips_are_refused_with_what_there_is(written):
    message = refusal(Beat2(root=str(written), speakers=[2, 9]))
    assert "no clips of 9" in message
    assert "speaker 2: train 8, validation 2, test 3; speaker 4: train 3, validation 1, test 1" in message


@pytest.mark.parametrize("speakers", [[], "2", 2, 2.0, ["scott"], [2.0], [True], ["2"], {"2": 3}])
@pytest.mark.parametrize("what", ["prepare", "items", "clips"])
def test_speakers_that_are_no_list_of_numbers_are_refused(written, speakers, what):
    message = refusal(Beat2(root=str(written), speakers=speakers), what)
    assert f"data.speakers={speakers}: give a list of numbers, '[2]', or null (all)" in message


def test_without_a_split_file_nothing_is_guessed(folder, tmp_path):
    (folder / SPLIT_TABLE).unlink()
    message = refusal(corpus(tmp_path))
    assert "there is no split file" in message
    assert "data.splits=auto" in message
    assert "data.split_file=FILE" in message
    dealt = [(clip.id, clip.split) for clip in corpus(tmp_path, splits="auto").clips()]
    assert [clip_id for clip_id, _ in dealt] == sorted(IDS)
    assert dealt == [(clip.id, clip.split) for clip in corpus(tmp_path, splits="auto").clips()]
    shutil.copy(folder / MOTION / f"{IDS[0]}.npz", folder / MOTION / "backup.npz")
    message = refusal(corpus(tmp_path, splits="auto"))
    assert f"{folder / MOTION}: backup.npz: no name of a clip" in message
    (tmp_path / "mine.csv").write_text(f"type, id\ntest,{IDS[0]}\n")
    found = corpus(tmp_path, split_file=str(tmp_path / "mine.csv")).clips()
    assert [(clip.id, clip.split) for clip in found] == [(IDS[0], "test")]
    assert "choose file or auto" in refusal(corpus(tmp_path, splits="hash"))


def test_a_wrong_split_file_is_refused_with_all_its_rows(folder, tmp_path):
    split_table(folder, f"{IDS[0]},train", header="name,type")
    assert "has no column id" in refusal(corpus(tmp_path))
    split_table(folder, f"{IDS[0]},train", f"{IDS[1]},dev", f"{IDS[0]},test", "4-lawrence,test")
    message = refusal(corpus(tmp_path))
    assert f"line 2: {IDS[0]} is there 2 times (train)" in message
    assert f"line 4: {IDS[0]} is there 2 times (test)" in message
    assert f"line 3: {IDS[1]} has the type 'dev'; expected train, val, test, additional" in message
    assert "line 5: '4-lawrence' is no <speaker>_<name>_<kind>_<start>_<end>" in message
    split_table(folder)
    assert "no row" in refusal(corpus(tmp_path))
    split_table(folder, f"{IDS[0]},train", "", f'"{IDS[1]},train', f"{IDS[2]},test")
    assert "after line 2: unexpected end of data. Is a quotation mark never closed" in refusal(corpus(tmp_path))
    split_table(folder, f"{IDS[0]},train", header='"id,type')
    assert "after line 0: unexpected end of data" in refusal(corpus(tmp_path))


def test_missing_files_are_passed_over_up_to_a_fraction(folder, tmp_path, caplog):
    (folder / MOTION / f"{IDS[0]}.npz").unlink()
    wav_of(folder, IDS[1]).unlink()
    message = refusal(corpus(tmp_path))
    assert f"2 clips of 5 can't be used:\n  {IDS[0]}: no smplxflame_30/{IDS[0]}.npz" in message
    assert f"{IDS[1]}: no wave16k/{IDS[1]}.wav" in message
    assert "data.max_bad_fraction=0.05" in message
    lenient = {"max_bad_fraction": 0.4}
    assert [clip.id for clip in corpus(tmp_path, **lenient).clips()] == sorted(IDS[2:])
    assert "2 clips of 5 can't be used" in caplog.text
    assert [item.id for item in corpus(tmp_path, **lenient).items()] == sorted({*IDS} - {IDS[1]})
    assert "data.strict=false" in refusal(corpus(tmp_path, strict=True, **lenient))
    shutil.rmtree(folder / MOTION)
    assert "No clip is left" in refusal(corpus(tmp_path, max_bad_fraction=1.0))
    assert len(corpus(tmp_path, max_bad_fraction=1.0).items()) == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"trans": "position"}, "data.trans=position: choose velocity, legacy or none"),
        ({"fix": "interp"}, "data.fix=interp: choose none or interpolate"),
        ({"source": "web"}, "data.source=web: choose disk, sample or download"),
        ({"fps": 0}, "data.fps=0"),
        ({"fps": 29.97}, "data.fps=29.97: give whole frames a second"),
        ({"clean_final_seconds": "two"}, "data.clean_final_seconds=two: give seconds, 0 or more"),
        ({"clean_first_seconds": -1.0}, "data.clean_first_seconds=-1.0: give seconds, 0 or more"),
        ({"offsets": "none.csv"}, "can't read none.csv"),
    ],
)
def test_wrong_settings_are_refused(folder, tmp_path, options, told):
    assert told in refusal(corpus(tmp_path, **options))


def test_offsets_are_read_from_a_table(folder, tmp_path):
    table = tmp_path / "offsets.csv"
    table.write_text(f"id,offset_s\n{IDS[0]},0.25\n")
    offsets = {clip.id: clip.offset_s for clip in corpus(tmp_path, offsets=str(table)).clips()}
    assert offsets == {**dict.fromkeys(IDS), IDS[0]: 0.25}
    table.write_text(f"id,offset_s\n{IDS[0]},late\n")
    assert "line 2: offset_s is 'late'; expected seconds" in refusal(corpus(tmp_path, offsets=str(table)))


@pytest.mark.parametrize("value", ["nan", "inf", "-1e999", ""])
def test_offsets_are_finite(folder, tmp_path, value):
    table = tmp_path / "offsets.csv"
    table.write_text(f"id,offset_s\n{IDS[0]},{value}\n")
    assert f"line 2: offset_s is {value!r}; expected seconds" in refusal(corpus(tmp_path, offsets=str(table)))


def test_offsets_are_of_clips_of_the_corpus_and_each_there_once(folder, tmp_path):
    table, other = tmp_path / "offsets.csv", "4_lawrence_0_50_50"
    table.write_text(f"id,offset_s\n{IDS[0]},0.25\n{IDS[1]},1\n{IDS[0]},0.25\n")
    message = refusal(corpus(tmp_path, offsets=str(table)))
    assert f"line 4: {IDS[0]} is there a second time" in message
    table.write_text(f"id,offset_s\n{IDS[0]},0.25\n{other},1\n")
    for how in ("file", "auto"):
        message = refusal(corpus(tmp_path, splits=how, offsets=str(table)))
        assert f"has {other}. Correct or leave out these rows" in message
    # A table of the whole corpus goes with a smaller split file.
    shutil.copy(folder / MOTION / f"{IDS[0]}.npz", folder / MOTION / f"{other}.npz")
    assert len(corpus(tmp_path, offsets=str(table)).clips()) == 5


# ---- the survey ----------------------------------------------------------------------------------------------------


def test_the_survey_reports_everything_at_once(folder, tmp_path):
    with np.load(folder / MOTION / f"{IDS[0]}.npz") as file:
        poses, trans, expressions = (file[key] for key in ("poses", "trans", "expressions"))
    change(folder, IDS[1], poses=poses[:-150], trans=trans[:-150], expressions=expressions[:-150])
    change(folder, IDS[2], poses=poses[:, :156])
    (folder / TEXT / f"{IDS[3]}.TextGrid").write_text('File type = "ooTextFile"\nObject class = "Pitch"\n')
    (folder / TEXT / f"{IDS[4]}.TextGrid").unlink()
    soundfile.write(wav_of(folder, IDS[4]), np.zeros(8 * 44100), 44100)
    shutil.copy(folder / MOTION / f"{IDS[0]}.npz", folder / MOTION / "4_lawrence_0_50_50.npz")
    found = survey(corpus(tmp_path))
    told = "\n".join(found.findings)
    assert "2 clips can't be used" in told
    assert f"{IDS[1]} (its audio is 5.200 s longer than its motion (data.max_len_mismatch_s=3; a row in" in told
    assert "(40, 156)" in told or "(240, 156)" in told
    assert 'line 2: found "Pitch"' in told
    assert f"1 clip: the audio is digital silence: {IDS[4]}" in told
    assert "audio of 44100 Hz, 1 channels" in told
    assert f"1 clip has no TextGrid, so no words: {IDS[4]}" in told
    assert "1 motion file is in no split: 4_lawrence_0_50_50" in told
    assert found.unusable.keys() == {IDS[1], IDS[2]}
    rows = {row["split"]: row for row in found.totals()}
    assert rows["train"]["clips"] == 3
    assert rows["train"]["frames"] == 240 + 90 + 240
    assert rows["validation"]["words"] == 0
    assert corpus(tmp_path).check() == found.findings


# ---- download ------------------------------------------------------------------------------------------------------


def test_downloading_asks_the_hub_for_the_chosen_speakers_only(written, tmp_path, monkeypatch):
    asked = {}

    def fetch(repository, **options):
        asked.update(options, repository=repository)
        copy_speaker(written, Path(options["local_dir"]))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    found = corpus(tmp_path / "new", source="download")
    found.prepare()
    assert asked["repository"] == "H-Liu1997/BEAT2"
    assert asked["repo_type"] == "dataset"
    assert f"{FOLDER}/smplxflame_30/4_*" in asked["allow_patterns"]
    assert f"{FOLDER}/{SPLIT_TABLE}" in asked["allow_patterns"]
    assert len(found.clips()) == 5

    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match="no network\nRun the same command again"):
        found.prepare()


# ---- the real files ------------------------------------------------------------------------------------------------


def test_the_real_folder_is_read_though_two_clips_have_no_motion():
    root = real("BEAT2")
    assert "2 clips of 3 can't be used" in refusal(Beat2(root=str(root)))
    found = Beat2(root=str(root), max_bad_fraction=0.7)
    assert [(clip.id, clip.split) for clip in found.clips()] == [("2_scott_0_1_1", "test")]
    assert [item.id for item in found.items()] == ["2_scott_0_1_1", "2_scott_0_2_2", "2_scott_0_3_3"]
    table = real("metadata", "train_test_split_speaker2.csv")
    counts = {}
    for split in Beat2(root=str(root), split_file=str(table), max_bad_fraction=1.0)._split_of().values():
        counts[split] = counts.get(split, 0) + 1
    assert counts == {"test": 15, "validation": 8, "train": 95}
