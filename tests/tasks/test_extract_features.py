"""task=extract with features, in this process: what the store holds, reruns, failures, leases."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tasks.feature_fakes import HOP, SAMPLE_RATE, FakeCorpus, FakeFeatures, values_of
from voxlab import audio
from voxlab.data.episodes import Annotation, Event
from voxlab.data.feature_store import corpus_settings, open_store
from voxlab.data.laughter_labels import LabelSettings, compute_labels
from voxlab.errors import TooManyBadItems, UserError
from voxlab.parallel import Ranks
from voxlab.tasks.extract import feature_lease, feature_plan
from voxlab.tasks.extract.feature_lease import acquire
from voxlab.tasks.extract.feature_load import frame_levels, pool_vad
from voxlab.tasks.extract.features import extract_features

SECONDS = {"a": 31.0, "b one": 12.5, "c": 20.01, "t": 9.0}


@pytest.fixture
def corpus(tmp_path):
    return FakeCorpus(tmp_path / "in", SECONDS)


def run(corpus, out, features=None, **options):
    """Extract, one rank unless told otherwise."""
    settings = {"verify": "size", "max_bad": 0.0, "dry_run": False, "ranks": Ranks(), "run_dir": out.parent / "run"}
    return extract_features(corpus, features or FakeFeatures(), str(out), **(settings | options))


def files(out: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".state" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_the_store_holds_features_events_and_levels(corpus, tmp_path):
    summary = run(corpus, tmp_path / "out")
    assert (summary["recordings"], summary["extracted"], summary["failed"]) == (4, 4, 0)
    store = open_store(tmp_path / "out", features={"name": "fake"}, data=corpus_settings(corpus))
    assert [episode.id for episode in store.episodes] == ["test/t", "train/a", "train/b one", "train/c"]
    assert [episode.show for episode in store.split("train")] == ["a", "b", "c"]
    assert len(store.fingerprint) == 12
    for item, episode in zip(corpus.items(), sorted(store.episodes, key=lambda e: e.id[-1]), strict=False):
        if item.id != episode.id:
            continue
        wav = audio.load(item.path, SAMPLE_RATE)[0]
        assert episode.num_frames == -(-wav.shape[-1] // HOP)
        assert np.array_equal(np.asarray(episode.features(0)), values_of(wav))
        assert episode.events() == list(corpus.annotation(item).events)
        assert np.array_equal(episode.energy(), frame_levels(wav, HOP))
        assert np.array_equal(episode.context_frames(), np.arange(episode.num_frames))
        assert episode.name == item.metadata["episode"]
        assert np.load(episode.folder / "a0.codes.npy").tolist() == [
            [2 * t, 2 * t + 1] for t in range(episode.num_frames)
        ]
        record = json.loads((episode.folder / "episode.json").read_text())
        for name, facts in record["files"].items():
            data = (episode.folder / name).read_bytes()
            assert facts == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert record["source"] == {
            "path": item.path.name,
            "stamp": item.stamp,
            "frames": wav.shape[-1],
            "sample_rate": SAMPLE_RATE,
            "channels": 1,
        }
    text = (store.folder / "LICENSES.txt").read_text()
    assert "made up: no licence" in text
    assert "no weights" in text


def test_priors_are_those_of_the_labels(corpus, tmp_path):
    summary = run(corpus, tmp_path / "out")
    for shift in (1, 5, 10, 25):
        positive = known = 0
        for item in corpus.items():
            if item.split == "train":
                frames = -(-soundfile.info(item.path).frames // HOP)
                labels = compute_labels(corpus.annotation(item).events, frames, LabelSettings(shift=shift))
                positive, known = positive + labels.y[labels.mask].sum(), known + labels.mask.sum()
        assert summary[f"prior/train/{shift}"] == pytest.approx(positive / known)


def test_levels_and_voice_activity_by_a_slow_loop():
    rng = np.random.default_rng(0)
    wav = rng.uniform(-1, 1, (1, 10 * HOP + 100)).astype(np.float32)
    import torch

    levels = frame_levels(torch.from_numpy(wav), HOP)
    padded = np.pad(wav[0], (0, HOP - 100)).reshape(11, HOP).astype(np.float64)
    assert np.allclose(levels, [10 * np.log10((frame**2).mean()) for frame in padded], atol=1e-4)
    assert frame_levels(torch.zeros(1, HOP), HOP).tolist() == [-100.0]
    times = np.round(np.arange(0, 2.0, 0.01), 2)
    vad = np.stack([times, rng.random(len(times))], 1).astype(np.float32)
    pooled = pool_vad(vad, 30, 12.5)
    for frame in range(30):
        inside = [value for time_, value in vad.tolist() if frame <= round(time_, 2) * 12.5 + 1e-6 < frame + 1]
        assert pooled[frame] == pytest.approx(np.mean(inside) if inside else 0.0, abs=1e-6)


def test_bytes_depend_neither_on_rows_nor_on_ranks(corpus, tmp_path, monkeypatch):
    corpus.views_each = 2
    run(corpus, tmp_path / "one" / "out", FakeFeatures(rows=1))
    run(corpus, tmp_path / "three" / "out", FakeFeatures(rows=3))
    assert files(tmp_path / "one" / "out") == files(tmp_path / "three" / "out")


def test_views_get_their_own_features(corpus, tmp_path):
    corpus.views_each = 2
    run(corpus, tmp_path / "out")
    episode = open_store(tmp_path / "out").split("test")[0]
    wav = audio.load(corpus.folder / "t.wav", SAMPLE_RATE)[0]
    assert np.array_equal(np.asarray(episode.features(0)), values_of(wav))
    assert np.array_equal(np.asarray(episode.features(1)), values_of(wav * 0.5 - wav))
    assert [view["user"] for view in episode.views] == ["S0", "S1"]


def test_a_rerun_touches_nothing_and_a_damaged_or_changed_episode_is_made_again(corpus, tmp_path):
    out, features = tmp_path / "out", FakeFeatures()
    run(corpus, out)
    before = files(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert run(corpus, out, features)["up_to_date"] == 4
    assert features.seen == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == times

    episode = open_store(out).split("test")[0]
    path = episode.folder / "a0.features.npy"
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(UserError, match=r"a0\.features\.npy .*bytes instead of.*task=extract"):
        episode.features(0)
    run(corpus, out, features)
    assert features.seen == ["test/t#0"]
    assert files(out) == before

    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert run(corpus, out)["extracted"] == 0
    assert run(corpus, out, verify="hash")["extracted"] == 1
    assert files(out) == before

    soundfile.write(corpus.folder / "c.wav", np.full(SAMPLE_RATE * 3, 0.1), SAMPLE_RATE)
    os.utime(corpus.folder / "c.wav", (1, 1))
    assert run(corpus, out)["extracted"] == 1
    assert {e.id: e.num_frames for e in open_store(out).episodes}["train/c"] == 38


@pytest.mark.parametrize(
    ("trouble", "stage", "message"),
    [
        (
            {"b one": "nan"},
            "write",
            "1 of the frames 77 to 83 hold NaN, infinity or more than float16 can; the first is 78",
        ),
        ({"b one": "short"}, "extract", "the features ended before the recording did"),
        ({"b one": "raise"}, "extract", "RuntimeError: out of memory"),
        ({"b one": "words"}, "extract", "train/b one has no transcript"),
    ],
)
@pytest.mark.parametrize("rows", [1, 3])
def test_one_bad_episode_costs_no_other(corpus, tmp_path, trouble, stage, message, rows):
    run(corpus, tmp_path / "good" / "out")
    out = tmp_path / "out"
    with pytest.raises(TooManyBadItems, match=r"1 of 4 recordings have no features \(allowed: 0.0%\)"):
        run(corpus, out, FakeFeatures(rows=rows, trouble=trouble))
    store = next(out.iterdir())
    lines = (store / "failures.jsonl").read_text().splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["id"], line["stage"]) == ("train/b one", stage)
    assert message in line["error"]
    assert line["traceback"]
    with pytest.raises(UserError, match=r"1 recordings have no features in .*\n  train/b one \(" + stage):
        open_store(out)
    assert len(open_store(out, partial=True).episodes) == 3
    assert [path.name for path in out.rglob("*.tmp-*")] == []

    summary = run(corpus, out, FakeFeatures(trouble=trouble), max_bad=0.25)
    assert (summary["extracted"], summary["failed"], summary["up_to_date"]) == (0, 1, 3)
    assert list(open_store(out).missing) == ["train/b one"]
    assert run(corpus, out)["extracted"] == 1
    assert files(out) == files(tmp_path / "good" / "out")


def test_unreadable_silent_and_mismatched_recordings(corpus, tmp_path, caplog):
    corpus.prepare()
    (corpus.folder / "broken.wav").write_bytes(b"RIFF....")
    soundfile.write(corpus.folder / "deaf.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    soundfile.write(corpus.folder / "slow.wav", np.zeros(6000), 6000)
    corpus.late = {"c": 3.0}
    with pytest.raises(TooManyBadItems, match="3 of 7 recordings have no features"):
        run(corpus, tmp_path / "out")
    text = next((tmp_path / "out").glob("*/failures.jsonl")).read_text()
    errors = {line["id"]: line["error"] for line in map(json.loads, text.splitlines())}
    assert set(errors) == {"train/broken", "train/slow", "train/c"}
    assert "its sample rate is 6000 Hz; at least 8000 are needed" in errors["train/slow"]
    assert "annotation does not match audio: its last event ends at 23.01 s, the audio at 20.01 s" in errors["train/c"]
    assert "deaf.wav is digital silence" in caplog.text


def test_too_little_room_is_refused_before_anything_is_written(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_plan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match=r"need about 0\.00 GB, and .* has 0\.00 GB free"):
        run(corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(corpus, tmp_path):
    corpus.prepare()
    plan = run(corpus, tmp_path / "out", dry_run=True)
    assert (plan["to_do"], plan["up_to_date"]) == (4, 0)
    assert plan["hours"] == pytest.approx(sum(SECONDS.values()) / 3600, abs=0.005)
    assert not (tmp_path / "out").exists()


def test_a_wrong_choice_is_named(corpus, tmp_path):
    with pytest.raises(UserError, match="verify=md5: choose size or hash"):
        run(corpus, tmp_path / "out", verify="md5")


def test_the_index_follows_the_corpus_and_leaves_other_splits(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out)
    (corpus.folder / "a.wav").unlink()
    (corpus.folder / "t.wav").unlink()
    corpus.seconds = {}
    run(corpus, out)
    assert [episode.id for episode in open_store(out).episodes] == ["test/t", "train/b one", "train/c"]


def only(corpus, split):
    """The corpus as data.splits=[split] has it."""
    chosen = FakeCorpus(corpus.folder, corpus.seconds)
    chosen.items = lambda: [item for item in corpus.items() if item.split == split]
    return chosen


def test_a_run_for_one_split_forgets_no_failure_of_another(corpus, tmp_path):
    out, trouble = tmp_path / "out", FakeFeatures(trouble={"b one": "nan"})
    with pytest.raises(TooManyBadItems, match="train/b one"):
        run(corpus, out, trouble)
    log = next(out.glob("*/failures.jsonl"))
    before = log.read_text()
    assert run(only(corpus, "test"), out)["failed"] == 0
    assert log.read_text() == before
    with pytest.raises(UserError, match=r"1 recordings have no features in (.|\n)*train/b one \(write: "):
        open_store(out)
    run(only(corpus, "train"), out, trouble, max_bad=0.5)
    run(only(corpus, "test"), out)
    assert list(open_store(out).missing) == ["train/b one"]
    assert log.read_text() == before
    assert run(only(corpus, "train"), out)["extracted"] == 1
    assert not log.exists()
    assert len(open_store(out).episodes) == 4


def test_an_episode_whose_name_is_known_later_is_listed_once(corpus, tmp_path, monkeypatch):
    out, item_of = tmp_path / "out", FakeCorpus._item

    def renamed(self, path, split):
        item = item_of(self, path, split)
        return replace(item, stamp=item.stamp + "!", metadata={"episode": f'"{path.stem}"', "show": "the show"})

    run(corpus, out)
    monkeypatch.setattr(FakeCorpus, "_item", renamed)
    run(only(corpus, "train"), out)
    store = open_store(out)
    assert [episode.name for episode in store.episodes] == ["Show, t: t?", '"a"', '"b one"', '"c"']
    assert len(list(out.rglob("episode.json"))) == 4


def test_laughs_of_unknown_speakers_are_stored_and_counted(corpus, tmp_path, caplog):
    known = corpus.annotation

    def annotation(item):
        found = known(item)
        laughs = (Event("Laughter", 3.0, 3.5, 0.9, "S1"), Event("Laughter", 8.0, 8.5, 0.9, "S9"))
        return replace(found, events=(*found.events, *laughs))

    corpus.annotation, corpus.speakers_of = annotation, lambda item: ["S0", "S1"]
    summary = run(corpus, tmp_path / "out")
    assert (summary["failed"], summary["laughs_of_unknown_speakers"]) == (0, 4)
    assert "Show, a: a?: 1 laughter event is of speakers whom its diarization doesn't know (S0, S1)" in caplog.text
    episode = open_store(tmp_path / "out").split("train")[0]
    given = {"known_speakers": episode.speakers, "name": episode.name}
    with pytest.raises(UserError, match="unknown speaker S9"):
        compute_labels(episode.events(), episode.num_frames, LabelSettings(), **given)
    settings = LabelSettings(unknown_speaker="ignore")
    assert compute_labels(episode.events(), episode.num_frames, settings, **given).counts["n_unknown_speaker"] == 1


@pytest.mark.parametrize(("start", "end"), [(3.0, 2.0), (-1.0, 1.0), (np.nan, 1.0)])
def test_what_is_wrong_with_events_is_told_without_settings_of_another_task(corpus, tmp_path, start, end):
    broken = (Event("Laughter", start, end, 0.9, "S9"),)
    corpus.annotation = lambda item: Annotation(broken, (), None)
    corpus.speakers_of = lambda item: ["S1"]
    with pytest.raises(TooManyBadItems, match=r"Mend the annotation") as caught:
        run(corpus, tmp_path / "out")
    assert "labels." not in str(caught.value)


def test_the_longest_go_to_the_rank_with_least_to_do(corpus, tmp_path):
    corpus.prepare()
    episodes = feature_plan.plan_episodes(corpus, corpus.items(), tmp_path)
    todo = feature_plan.pending(episodes, verify_hash=False)
    shares = [[e.item.path.stem for e in feature_plan.share(todo, rank, 2)] for rank in range(2)]
    assert shares == [["a", "t"], ["c", "b one"]]


# ---- leases --------------------------------------------------------------------------------------------------------


def test_a_lease_keeps_others_out_until_it_is_released(tmp_path):
    path = tmp_path / "leases" / "a.json"
    lease = acquire(path)
    assert lease is not None
    assert acquire(path) is None
    lease.release()
    assert not path.exists()
    again = acquire(path)
    assert again is not None
    again.release()
    assert list(path.parent.iterdir()) == []


def test_a_lease_of_a_dead_process_or_an_old_one_is_taken_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"host": feature_lease.platform.node(), "pid": 1}))  # nobody holds its lock
    lease = acquire(path)
    assert lease is not None
    lease.release()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert acquire(path) is None
    os.utime(path, (time.time() - 7300, time.time() - 7300))
    taken = acquire(path)
    assert taken is not None
    assert acquire(path) is None


def test_an_episode_that_another_command_works_on_is_left_to_it(corpus, tmp_path):
    out = tmp_path / "out"
    corpus.prepare()
    settings = feature_plan.settings_of(FakeFeatures(), corpus)
    store = feature_plan.plan_episodes(corpus, corpus.items(), out / "x")
    key = next(episode.folder.name for episode in store if episode.item.id == "train/c")
    from voxlab.data.store_writer import store_folder

    lease = acquire(store_folder(out, settings) / ".state" / "leases" / f"{key}.json")
    assert lease is not None
    summary = run(corpus, out)
    assert (summary["extracted"], summary["in_work_elsewhere"], summary["failed"]) == (3, 1, 0)
    with pytest.raises(UserError, match=r"train/c \(in work: another command has begun it\)"):
        open_store(out)
    lease.release()
    assert run(corpus, out)["extracted"] == 1
