"""The motion store: what it holds, when it is built anew, and that kills, races and damage leave equal bytes."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.data.beat2_trees import IDS, change, copy_speaker, corpus, real, wav_of
from voxlab.data import motion_store
from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_clips import WARN_MISMATCH_S
from voxlab.data.beat2_files import MOTION, TEXT
from voxlab.data.build_lock import LOCK
from voxlab.data.episodes import Word
from voxlab.data.motion_store import open_motion_store
from voxlab.data.textgrid import read_words
from voxlab.errors import UserError
from voxlab.motion.files import read_motion
from voxlab.motion.representation import to_frames
from voxlab.parallel import Ranks

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def folder(written, tmp_path):
    """The clips of speaker 4 below the root `tmp_path`, for a test to spoil."""
    return copy_speaker(written, tmp_path)


@pytest.fixture
def reads(monkeypatch):
    """The ids of the clips that were read, in order."""
    seen, load = [], motion_store.load_clip

    def spy(clip, reading):
        seen.append(clip.id)
        return load(clip, reading)

    monkeypatch.setattr(motion_store, "load_clip", spy)
    return seen


def by_id(store):
    return {clip.id: clip for clip in store.clips}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(found):
    with pytest.raises(UserError) as caught:
        open_motion_store(found)
    return str(caught.value)


def test_a_clip_holds_its_frames_motion_and_words(folder, tmp_path):
    store = open_motion_store(corpus(tmp_path))
    assert [clip.id for clip in store.clips] == sorted(IDS)
    assert store.folder == tmp_path / "store" / store.fingerprint
    assert (store.fps, store.skipped) == (30, {})
    assert [clip.id for clip in store.split("test")] == ["4_lawrence_0_1_1"]
    clip = store.split("test")[0]
    motion = read_motion(folder / MOTION / f"{clip.id}.npz")
    assert (clip.num_frames, clip.wav_start, clip.speaker, clip.emotion) == (240, 0.0, "4", "neutral")
    frames = clip.frames()
    assert isinstance(frames, np.memmap)
    assert np.array_equal(frames, to_frames(motion))
    assert all(np.array_equal(getattr(clip.motion(), key), getattr(motion, key)) for key in ("poses", "trans", "betas"))
    words = clip.words()
    assert words == [Word(w.text, w.start, w.end) for w in read_words(folder / TEXT / f"{clip.id}.TextGrid")]
    assert sorted(path.name for path in store.folder.iterdir()) == ["clips", "manifest.json"]


def test_a_split_without_clips_is_refused_with_what_there_is(folder, tmp_path):
    store = open_motion_store(corpus(tmp_path))
    with pytest.raises(UserError, match="no clip is in the split dev") as caught:
        store.split("dev")
    assert "speaker 4: train 3, validation 1, test 1" in str(caught.value)


# ---- what makes it new ----------------------------------------------------------------------------------------------


def test_what_is_stored_is_not_read_again(folder, tmp_path, reads):
    first = open_motion_store(corpus(tmp_path))
    assert sorted(reads) == sorted(IDS)
    before = tree(first.folder)
    stamps = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    open_motion_store(corpus(tmp_path))
    # Copies of the corpus have other times of change, and other speakers, splits or limits concern no bytes.
    for path in folder.rglob("*.npz"):
        os.utime(path)
    assert open_motion_store(corpus(tmp_path, max_len_mismatch_s=1.0)).folder == first.folder
    assert open_motion_store(corpus(tmp_path, layout="legacy415")).folder == first.folder
    assert len(reads) == 5
    frames = {name: data for name, data in tree(first.folder).items() if name.endswith(".npy")}
    assert frames == {name: data for name, data in before.items() if name.endswith(".npy")}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items() if path.suffix == ".npy")
    # The new times are noted once, so that nothing is hashed again.
    noted = (first.folder / "manifest.json").stat().st_mtime_ns
    open_motion_store(corpus(tmp_path))
    assert (first.folder / "manifest.json").stat().st_mtime_ns == noted


def test_another_frame_rate_gets_a_store_of_its_own(folder, tmp_path, reads, caplog):
    caplog.set_level("INFO")
    first = open_motion_store(corpus(tmp_path))
    assert "mocap_frame_rate is 30, and data.fps=15 is wanted" in refusal(corpus(tmp_path, fps=15))
    second = open_motion_store(corpus(tmp_path, fps=15, allow_resample=True))
    assert second.folder != first.folder
    assert "fps: 30 -> 15" in caplog.text
    assert [clip.num_frames for clip in second.clips] == [120] * 5
    assert second.clips[0].motion().fps == 15
    assert np.array_equal(second.clips[0].motion().poses, first.clips[0].motion().poses[::2])
    assert np.allclose(second.clips[0].frames()[:, :330], first.clips[0].frames()[::2, :330], atol=1e-6)
    assert len(reads) == 15


def test_resampled_clips_are_not_taken_from_the_store_once_that_is_not_allowed(folder, tmp_path):
    for clip_id in IDS[:2]:
        change(folder, clip_id, mocap_frame_rate=np.array(60))
    lenient = {"max_len_mismatch_s": 9.0, "max_bad_fraction": 0.4}
    assert len(open_motion_store(corpus(tmp_path, allow_resample=True, **lenient)).clips) == 5
    store = open_motion_store(corpus(tmp_path, **lenient))
    assert store.skipped.keys() == {*IDS[:2]}
    assert all("data.allow_resample=true" in reason for reason in store.skipped.values())
    for clip in store.clips:
        assert clip.motion().num_frames == clip.num_frames
    assert "data.allow_resample=true" in refusal(corpus(tmp_path))


def test_a_store_without_any_clip_is_an_error_however_many_may_be_bad(folder, tmp_path):
    for clip_id in IDS:
        (folder / MOTION / f"{clip_id}.npz").write_bytes(b"")
    message = refusal(corpus(tmp_path, max_bad_fraction=1.0))
    assert "5 clips of 5 can't be used" in message
    assert "No clip is left" in message


def test_only_changed_and_damaged_clips_are_read_again(folder, tmp_path, reads):
    store = open_motion_store(corpus(tmp_path))
    clean = tree(store.folder)
    reads.clear()
    path = store.folder / "clips" / IDS[0] / "frames.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="makes it anew"):
        by_id(store)[IDS[0]].frames()
    open_motion_store(corpus(tmp_path))
    assert reads == [IDS[0]]
    assert tree(store.folder) == clean
    with np.load(folder / MOTION / f"{IDS[1]}.npz") as file:
        poses = file["poses"] * 0.5
    change(folder, IDS[1], poses=poses)
    again = open_motion_store(corpus(tmp_path))
    assert reads == [IDS[0], IDS[1]]
    assert np.array_equal(by_id(again)[IDS[1]].motion().poses, poses)
    assert np.array_equal(by_id(again)[IDS[1]].frames(), to_frames(by_id(again)[IDS[1]].motion()))


def test_a_manifest_of_others_is_refused(folder, tmp_path):
    store = open_motion_store(corpus(tmp_path))
    (store.folder / "manifest.json").write_text("{}")
    assert "was not written by voxlab" in refusal(corpus(tmp_path))


# ---- kills and races ------------------------------------------------------------------------------------------------


def test_a_killed_builder_leaves_what_the_next_one_finishes(folder, tmp_path, reads):
    clean = tree(open_motion_store(corpus(tmp_path, store=str(tmp_path / "clean"))).folder)
    reads.clear()
    load = motion_store.load_clip

    def build():
        torch.set_num_threads(1)  # the threads of OpenMP don't live through a fork
        count = iter(range(10))

        def deadly(clip, reading):
            if next(count) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return load(clip, reading)

        motion_store.load_clip = deadly
        open_motion_store(corpus(tmp_path))

    process = FORK.Process(target=build)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    [half] = (tmp_path / "store").iterdir()
    assert not (half / "manifest.json").exists()
    assert json.loads((half / LOCK).read_text())["pid"] == process.pid
    store = open_motion_store(corpus(tmp_path))
    assert reads == sorted(IDS)[3:]
    assert tree(store.folder) == clean


def test_of_two_processes_one_builds_and_the_other_waits(folder, tmp_path):
    log = tmp_path / "reads.txt"
    load = motion_store.load_clip

    def build():
        torch.set_num_threads(1)

        def slow(clip, reading):
            with log.open("a") as file:
                file.write(f"{os.getpid()} {clip.id}\n")
            time.sleep(0.05)
            return load(clip, reading)

        motion_store.load_clip = slow
        assert len(open_motion_store(corpus(tmp_path)).clips) == 5

    processes = [FORK.Process(target=build) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [clip_id for _, clip_id in lines] == sorted(IDS)
    assert len({pid for pid, _ in lines}) == 1
    [folder_of] = (tmp_path / "store").iterdir()
    assert not (folder_of / LOCK).exists()


def test_the_first_rank_builds_and_all_ranks_hear_of_its_problem(folder, tmp_path, reads, monkeypatch):
    open_motion_store(corpus(tmp_path))
    reads.clear()
    monkeypatch.setattr(motion_store, "gather", lambda ranks, value: [value if ranks.is_first else "", value])
    assert len(open_motion_store(corpus(tmp_path), Ranks(1, 2)).clips) == 5
    assert reads == []
    monkeypatch.setattr(motion_store, "gather", lambda ranks, value: ["no clips at all", value])
    with pytest.raises(UserError, match="no clips at all"):
        open_motion_store(corpus(tmp_path), Ranks(1, 2))


# ---- bad clips ------------------------------------------------------------------------------------------------------


def test_unreadable_clips_are_passed_over_up_to_a_fraction(folder, tmp_path, reads, caplog):
    path = folder / MOTION / f"{IDS[2]}.npz"
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    message = refusal(corpus(tmp_path))
    assert "1 clip of 5 can't be used" in message
    assert "corrupt motion file" in message
    assert "corrupt motion file" in refusal(corpus(tmp_path, strict=True, max_bad_fraction=1.0))
    assert len(reads) == 5
    store = open_motion_store(corpus(tmp_path, max_bad_fraction=0.2))
    assert len(store.clips) == 4
    assert "corrupt motion file" in store.skipped[IDS[2]]
    assert "1 clip of 5 can't be used" in caplog.text
    path.write_bytes(content)
    assert len(open_motion_store(corpus(tmp_path)).clips) == 5


def test_too_unequal_clips_are_left_out_unless_a_table_accepts_them(folder, tmp_path, caplog):
    wav, rate = soundfile.read(wav_of(folder, IDS[0]))
    soundfile.write(wav_of(folder, IDS[0]), np.pad(wav, (0, 4 * rate)), rate)
    lenient = {"max_bad_fraction": 0.2}
    store = open_motion_store(corpus(tmp_path, **lenient))
    assert store.skipped.keys() == {IDS[0]}
    assert "its audio is 4.200 s longer than its motion (data.max_len_mismatch_s=3" in store.skipped[IDS[0]]
    assert f"its audio is 4.200 s longer than its motion: {IDS[0]}" in caplog.text
    assert len(open_motion_store(corpus(tmp_path, max_len_mismatch_s=5.0)).clips) == 5
    table = tmp_path / "offsets.csv"
    table.write_text(f"id,offset_s\n{IDS[0]},0.5\n")
    clip = by_id(open_motion_store(corpus(tmp_path, offsets=str(table))))[IDS[0]]
    assert (clip.num_frames, clip.wav_start) == (240, 0.5)


def test_words_are_counted_from_the_first_stored_frame(folder, tmp_path):
    spoken = read_words(folder / TEXT / f"{IDS[0]}.TextGrid")
    clip = by_id(open_motion_store(corpus(tmp_path, clean_first_seconds=2.0, clean_final_seconds=1.0)))[IDS[0]]
    assert (clip.num_frames, clip.wav_start) == (150, 2.0)
    inside = [word for word in spoken if word.end > 2 and word.start < 7]
    words = clip.words()
    assert words is not None
    assert [word.text for word in words] == [word.text for word in inside]
    assert [word.start for word in words] == pytest.approx([max(0, word.start - 2) for word in inside])
    assert [word.end for word in words] == pytest.approx([min(5, word.end - 2) for word in inside])
    whole = read_motion(folder / MOTION / f"{IDS[0]}.npz")
    assert np.array_equal(clip.motion().poses, whole.poses[60:210])
    assert np.array_equal(clip.frames(), to_frames(clip.motion()))


def test_clips_without_text_have_no_words_and_one_warning_tells(folder, tmp_path, caplog):
    shutil.rmtree(folder / TEXT)
    store = open_motion_store(corpus(tmp_path))
    assert store.clips[0].words() is None
    assert sum("no TextGrid for 5 of 5 clips" in record.message for record in caplog.records) == 1


def test_a_malformed_textgrid_is_an_error_with_its_line(folder, tmp_path):
    (folder / TEXT / f"{IDS[0]}.TextGrid").write_text('File type = "ooTextFile"\nObject class = "TextGrid"\n\nx')
    clip = by_id(open_motion_store(corpus(tmp_path)))[IDS[0]]
    with pytest.raises(UserError, match="line 4: the file ends"):
        clip.words()


def test_clips_that_cleaning_eats_up_are_told(folder, tmp_path):
    message = refusal(corpus(tmp_path, clean_first_seconds=5.0, clean_final_seconds=4.0))
    assert "share no frame" in message
    assert "data.clean_*_seconds" in message


# ---- the real clip --------------------------------------------------------------------------------------------------


def test_the_real_pair_gives_all_frames_of_its_motion(tmp_path, caplog):
    root = real("BEAT2")
    found = Beat2(root=str(root), max_bad_fraction=0.7, store=str(tmp_path))
    [clip] = open_motion_store(found).split("test")
    audio_s = soundfile.info(clip.wav).duration
    motion = read_motion(clip.source.motion)
    assert clip.num_frames == min(motion.num_frames, int(audio_s * 30 + 1e-6))
    assert clip.num_frames in (953, 1906)
    assert clip.frames().shape == (clip.num_frames, 433)
    assert clip.extent.mismatch_s == pytest.approx(audio_s - motion.num_frames / 30, abs=1e-9)
    warned = "longer than its motion: 2_scott_0_1_1" in caplog.text
    assert warned == (abs(clip.extent.mismatch_s) > WARN_MISMATCH_S) == (clip.num_frames == 1906)
    if clip.num_frames == 1906:
        assert clip.extent.mismatch_s == pytest.approx(0.564, abs=0.001)
    assert clip.words() is None
