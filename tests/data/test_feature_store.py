"""A store of features opened for reading: what is found, and the message for each way in which it may be broken."""

import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.data.episodes import Event, View
from voxlab.data.feature_store import FeatureStore, StoredEpisode, features_file, open_store
from voxlab.data.frame_file import HEADER_BYTES, FrameFile, finite_rows, open_frames
from voxlab.data.store_writer import BadFrames, EpisodeFacts, EpisodeWriter, begin_store, episode_key, write_index
from voxlab.errors import UserError

FRAMES, DIM = 300, 4
EVENTS = [Event("Laughter", 1.0, 1.5, 0.9, "S1"), Event("Um", 3.0, 3.2)]


def settings_of(**changes) -> dict:
    features = {"name": "logmel", "dim": DIM, "frame_rate": 12.5, "dtype": "float16", "weights_id": "none"}
    features |= {"context": [1, 2]} | changes
    return {"store": 1, "features": features, "data": {"corpus": "PodcastFillers", "sample": True}, "resampler": "r"}


def values(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(FRAMES, DIM)).astype(np.float16)


def write_store(out: Path, splits=("train", "train", "test"), missing=(), accepted=True, **changes) -> Path:
    """Write a store whose episode number n has the features `values(n)`."""
    made_by = settings_of(**changes)
    store = begin_store(out, made_by, {"sample": True})
    for number, split in enumerate(splits):
        facts = EpisodeFacts(f"{split}/e{number}", f"Show_{number}", "Show", split, FRAMES / 12.5, FRAMES)
        with EpisodeWriter(store, facts, dim=DIM, dtype="float16") as writer:
            writer.add(0, 0, values(number)[:100])
            writer.add(0, 100, values(number)[100:])
            series = np.arange(FRAMES)
            writer.finish(settings=made_by, events=EVENTS, vad=series / FRAMES, energy=-series / 2, context=series)
    episodes = {f"{split}/e{number}": split for number, split in enumerate(splits)}
    lost = {item: item.partition("/")[0] for item in dict(missing)}
    write_index(store, episodes | lost, dict(missing), accepted)
    return store


def first_episode(out: Path) -> StoredEpisode:
    return open_store(out).split("train")[0]


def test_what_was_written_is_read(tmp_path):
    write_store(tmp_path)
    store = open_store(tmp_path)
    assert [(e.id, e.split) for e in store.episodes] == [
        ("test/e2", "test"),
        ("train/e0", "train"),
        ("train/e1", "train"),
    ]
    assert (store.features["dim"], store.flags) == (DIM, {"sample": True})
    for number, episode in enumerate(store.split("train")):
        frames = episode.features()
        assert (frames.shape, len(frames), frames.dtype) == ((FRAMES, DIM), FRAMES, np.float16)
        assert np.array_equal(np.asarray(frames), values(number))
        assert episode.events() == EVENTS
        assert np.allclose(episode.vad(), np.arange(FRAMES) / FRAMES, atol=1e-3)
        assert np.array_equal(episode.energy(), -np.arange(FRAMES) / 2)
        assert np.array_equal(episode.context_frames(), np.arange(FRAMES))
        assert (episode.show, episode.name, episode.duration) == ("Show", f"Show_{number}", 24.0)
    assert isinstance(open_store(store.folder), FeatureStore)


@settings(max_examples=50, deadline=None)
@given(start=st.integers(-400, 400), stop=st.one_of(st.none(), st.integers(-400, 400)))
def test_slices_are_those_of_an_array(tmp_path_factory, start, stop):
    path = tmp_path_factory.getbasetemp() / "slices.npy"
    if not path.exists():
        np.save(path, values())
    frames = open_frames(path, num_frames=FRAMES, dim=DIM, dtype="float16")
    assert np.array_equal(frames[start:stop], values()[start:stop])


def test_an_hour_of_4096_numbers_has_the_size_of_its_frames_and_a_header(tmp_path):
    facts = EpisodeFacts("train/e", "e", "e", "train", 3600.0, 45_000)
    with EpisodeWriter(tmp_path, facts, dim=4096, dtype="float16") as writer:
        block = np.zeros((4500, 4096), np.float16)
        for start in range(0, 45_000, 4500):
            writer.add(0, start, block)
        writer.finish(settings={})
    path = tmp_path / "train" / facts.key / features_file(0)
    assert path.stat().st_size == 368_640_128
    assert np.load(path, mmap_mode="r").shape == (45_000, 4096)


# ---- which store ---------------------------------------------------------------------------------------------------


def test_no_store_names_the_command(tmp_path):
    with pytest.raises(
        UserError,
        match=r"there are no features in .*\n  python main.py task=extract data=podcastfillers features=moshi out=",
    ):
        open_store(tmp_path / "none", features={"name": "moshi"}, data={"corpus": "PodcastFillers"})


def test_other_settings_are_named_with_the_command(tmp_path):
    write_store(tmp_path)
    with pytest.raises(UserError) as caught:
        open_store(tmp_path, features={"name": "logmel", "dim": 8, "align": "raw"}, data={"sample": False})
    text = str(caught.value)
    for line in ("features.dim: 4 -> 8", "features.align: (absent) -> raw", "data.sample: True -> False"):
        assert line in text
    assert f"task=extract data=podcastfillers features=logmel out={tmp_path}" in text


def test_of_several_stores_the_fitting_one_is_taken(tmp_path):
    write_store(tmp_path)
    write_store(tmp_path, context=[3, 4])
    assert open_store(tmp_path, features={"context": (3, 4)}).features["context"] == [3, 4]
    with pytest.raises(UserError, match=r"2 stores in .* fit; choose one with store=DIR:(.|\n)*features.context: "):
        open_store(tmp_path)


def test_missing_recordings_are_an_error_unless_they_were_accepted(tmp_path):
    write_store(tmp_path, missing={"train/e7": "not extracted yet"}, accepted=False)
    with pytest.raises(
        UserError, match=r"1 recordings have no features in (.|\n)*train/e7 \(not extracted yet\)\nRun python main"
    ):
        open_store(tmp_path)
    assert list(open_store(tmp_path, partial=True).missing) == ["train/e7"]
    write_store(tmp_path, missing={"train/e7": "broken"}, accepted=True)
    assert open_store(tmp_path).missing == {"train/e7": "broken"}


def test_an_index_keeps_what_is_missing_of_other_splits(tmp_path):
    store = write_store(tmp_path, missing={"train/e7": "broken", "test/e8": "broken"}, accepted=False)
    write_index(store, {"test/e2": "test", "test/e8": "test"}, {"test/e8": "silent"}, True)
    with pytest.raises(UserError, match=r"^1 recordings have no features in .*\n  train/e7 \(broken\)\nRun") as caught:
        open_store(tmp_path)
    assert "test/e8" not in str(caught.value)
    assert open_store(tmp_path, partial=True).missing == {"test/e8": "silent", "train/e7": "broken"}
    write_index(store, {"train/e0": "train"}, {}, True)
    found = open_store(tmp_path)
    assert found.missing == {"test/e8": "silent"}
    assert [episode.id for episode in found.episodes] == ["test/e2", "train/e0"]


@pytest.mark.parametrize("accepted", [False, True])
def test_an_index_that_accepts_all_splits_at_once_is_understood(tmp_path, accepted):
    store = write_store(tmp_path)
    index = json.loads((store / "index.json").read_text())
    lost = {"missing": [{"id": "train/e7", "reason": "broken"}], "accepted": accepted}
    (store / "index.json").write_text(json.dumps(index | lost))
    write_index(store, {"test/e2": "test"}, {}, True)
    assert open_store(tmp_path, partial=True).missing == {"train/e7": "broken"}
    for _ in range(2):
        if accepted:
            assert len(open_store(tmp_path).episodes) == 3
        else:
            with pytest.raises(UserError, match=r"train/e7 \(broken\)"):
                open_store(tmp_path)
        (store / "index.json").write_text(json.dumps(index | lost))


def test_a_damaged_index_is_not_written_over(tmp_path):
    store = write_store(tmp_path)
    (store / "index.json").write_text("{")
    with pytest.raises(UserError, match=r"index\.json can't be read .*Delete it, and extract all splits again"):
        write_index(store, {"test/e2": "test"}, {}, True)


def test_commands_for_different_splits_wait_for_each_other(tmp_path):
    """Each index is written from what the others have left, as if the commands had come one after another."""
    store = write_store(tmp_path)
    splits = [f"split{number}" for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda s: write_index(store, {f"{s}/x": s}, {f"{s}/x": "broken"}, False), splits))
    assert sorted(open_store(tmp_path, partial=True).missing) == sorted(f"{split}/x" for split in splits)


def test_of_two_folders_of_an_episode_one_is_listed(tmp_path):
    store = write_store(tmp_path)
    folder = first_episode(tmp_path).folder
    for other in ("a-00000000", "z-00000000"):
        shutil.copytree(folder, folder.with_name(other))
        record = json.loads((folder / "episode.json").read_text())
        (folder.with_name(other) / "episode.json").write_text(json.dumps(record | {"key": other}))
    write_index(store, {"test/e2": "test"}, {}, True)
    assert [e.id for e in open_store(tmp_path).episodes] == ["test/e2", "train/e0", "train/e1"]
    assert first_episode(tmp_path).folder == folder
    write_index(store, {"train/e0": "test"}, {}, True)  # it has moved to another split, and is not made anew yet
    assert [e.id for e in open_store(tmp_path).episodes] == ["train/e1"]


def test_an_empty_split_names_those_that_there_are(tmp_path):
    write_store(tmp_path)
    with pytest.raises(UserError, match=r"has no episode of the split validation; it has test, train"):
        open_store(tmp_path).split("validation")


# ---- damage --------------------------------------------------------------------------------------------------------


def _array(shape: tuple[int, ...], dtype: str = "float16") -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(shape, dtype))
    return buffer.getvalue()


GOOD = _array((FRAMES, DIM))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:-1], rf"has {len(GOOD) - 1} bytes instead of {len(GOOD)}\."),
        (GOOD + b"x", rf"has {len(GOOD) + 1} bytes instead of {len(GOOD)}\."),
        (b"\x00" * len(GOOD), rf"is no array file \(.*magic.*expected \(300, 4\) float16, {len(GOOD)} bytes"),
        (GOOD[:20], r"is no array file"),
        (_array((FRAMES, DIM), "float32"), r"holds \(300, 4\) float32; expected \(300, 4\) float16"),
        (_array((FRAMES, DIM + 1)), r"holds \(300, 5\) float16; expected \(300, 4\)"),
        (_array((FRAMES - 1, DIM)), r"holds \(299, 4\) float16; expected \(300, 4\)"),
        (_array((FRAMES * DIM,)), r"holds \(1200,\) float16; expected \(300, 4\)"),
        (None, r"can't be read: No such file or directory; expected \(300, 4\)"),
    ],
)
def test_damaged_features_are_named(tmp_path, data, message):
    write_store(tmp_path)
    path = first_episode(tmp_path).folder / "a0.features.npy"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        first_episode(tmp_path).features()
    assert str(path) in str(caught.value)
    assert "episode Show_0, view 0" in str(caught.value)
    assert "task=extract" in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_found_when_its_part_is_read_first(tmp_path, bad):
    write_store(tmp_path)
    path = first_episode(tmp_path).folder / "a0.features.npy"
    array = values()
    array[270, 1] = bad
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + array.tobytes())
    frames = first_episode(tmp_path).features()
    frames.read(0, 256)
    with pytest.raises(
        UserError, match=r"episode Show_0.*: 1 of the frames 100 to 299 hold NaN or infinity, the first is 270"
    ):
        frames.read(100, 300)


def test_parts_are_checked_once(tmp_path, monkeypatch):
    write_store(tmp_path)
    frames, seen = first_episode(tmp_path).features(), []
    monkeypatch.setattr(FrameFile, "_check", _counting(FrameFile._check, seen))
    for _ in range(3):
        frames.read(0, 256)
        frames.read(256, 300)
        frames.read(10, 290)
    assert seen == [(0, 256), (256, 300)]


def _counting(check, seen):
    def counted(self, array, start, stop):
        seen.append((start, stop))
        check(self, array, start, stop)

    return counted


@pytest.mark.parametrize("dtype", ["float16", "float32", "int16"])
def test_finite_rows_are_those_of_isfinite(dtype):
    array = np.random.default_rng(0).integers(0, 2**16, (2000, 5)).astype(np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        array = array if dtype == "float16" else np.nan_to_num(array, posinf=9).astype(dtype)
    assert np.array_equal(finite_rows(array), np.isfinite(array).all(1))
    assert np.array_equal(finite_rows(array[::2]), np.isfinite(array[::2]).all(1))


@pytest.mark.parametrize("name", ["events.json", "vad.npy", "energy.npy", "context.npy", "episode.json"])
def test_damage_of_a_small_file_is_named(tmp_path, name):
    write_store(tmp_path)
    path = first_episode(tmp_path).folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=rf"{name} can't be read"):
        (lambda e: (e.events(), e.vad(), e.energy(), e.context_frames()))(first_episode(tmp_path))


def test_a_series_of_another_length_and_unknown_views_are_named(tmp_path):
    write_store(tmp_path)
    np.save(first_episode(tmp_path).folder / "vad.npy", np.zeros(7, np.float16))
    with pytest.raises(UserError, match=r"vad.npy has the shape \(7,\); expected \(300,\)"):
        first_episode(tmp_path).vad()
    with pytest.raises(UserError, match="has 1 views; there is no view 1"):
        first_episode(tmp_path).features(1)


def test_a_corpus_without_events_is_named(tmp_path):
    facts = EpisodeFacts("train/x", "x", "x", "train", 1.0, 2)
    store = begin_store(tmp_path, settings_of(), {})
    with EpisodeWriter(store, facts, dim=DIM, dtype="float16") as writer:
        writer.add(0, 0, values()[:2])
        writer.finish(settings={})
    write_index(store, {"train/x": "train"}, {}, True)
    episode = first_episode(tmp_path)
    assert (episode.vad(), episode.energy(), episode.context_frames(), episode.has_events) == (None, None, None, False)
    with pytest.raises(UserError, match=r"has no events.json: its corpus knows no events"):
        episode.events()


# ---- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "array", "message"),
    [
        (5, values()[5:], "frames 5 to 299 came after 0 of 300"),
        (0, np.zeros((301, DIM), np.float16), "frames 0 to 300 came after 0 of 300"),
        (0, np.zeros((9, DIM + 1), np.float16), r"frames of the shape \(9, 5\); expected \(k, 4\)"),
        (
            0,
            np.full((9, DIM), 65505.0, np.float32),
            "9 of the frames 0 to 8 hold NaN, infinity or more than float16 can",
        ),
        (0, np.full((9, DIM), np.nan, np.float32), "hold NaN, infinity"),
        (0, np.full((9, DIM), np.inf, np.float16), "hold NaN, infinity"),
    ],
)
def test_frames_that_cant_be_stored_are_refused(tmp_path, start, array, message):
    facts = EpisodeFacts("train/x", "x", "x", "train", 24.0, FRAMES)
    with EpisodeWriter(tmp_path, facts, dim=DIM, dtype="float16") as writer, pytest.raises(BadFrames, match=message):
        writer.add(0, start, array)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_largest_number_of_float16_is_kept_and_integers_have_limits(tmp_path):
    facts = EpisodeFacts("train/x", "x", "x", "train", 1.0, 1)
    with EpisodeWriter(tmp_path, facts, dim=1, dtype="float16") as writer:
        writer.add(0, 0, np.array([[65504.0]], np.float32))
        writer.finish(settings={})
    assert np.load(tmp_path / "train" / facts.key / "a0.features.npy") == 65504.0
    with (
        EpisodeWriter(tmp_path, facts, dim=1, dtype="int16") as writer,
        pytest.raises(BadFrames, match="more than int16"),
    ):
        writer.add(0, 0, np.array([[32768]], np.int64))


def test_what_is_unfinished_leaves_no_episode(tmp_path):
    views = (View(0, "a", (), None), View(1, "b", (), None))
    facts = EpisodeFacts("train/x", "x", "x", "train", 24.0, FRAMES, views)
    with EpisodeWriter(tmp_path, facts, dim=DIM, dtype="float16") as writer:
        writer.add(0, 0, values())
        assert not writer.is_complete
        with pytest.raises(BadFrames, match=r"of 300 frames, these were given: \{'a0.features.npy': 300\}"):
            writer.finish(settings={})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_keys_are_plain_short_and_different(tmp_path):
    names = ['Show & "Co", #1? it\'s', "a/b\\c:d*e", "a/b:c/d*e", "…" * 200, "日本語" * 60, "..", "", "x" * 300]
    keys = [episode_key(f"train/{name}", "train") for name in [*names, "x" * 301]]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert len(key.encode()) <= 129
        assert not set(key) & set(" \"'/\\:*?<>|#&,")
        (tmp_path / key).mkdir()


def test_a_manifest_is_readable_json(tmp_path):
    store = write_store(tmp_path)
    manifest = json.loads((store / "manifest.json").read_text())
    assert manifest["fingerprint"] == store.name
    assert len(store.name) == 12
