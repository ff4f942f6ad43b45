"""Batches of windows against an obvious loop over clips, the same for any ranks and first step; aligned features."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.beat2_trees import change
from tests.tasks import motion_runs
from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_files import MOTION
from voxlab.data.motion_store import MotionStore, open_motion_store
from voxlab.errors import UserError
from voxlab.features.interpolate import at_frames
from voxlab.features.mfcc import Mfcc
from voxlab.models.gesture.masking import Masking
from voxlab.models.gesture.motion_codec import MotionCodec, part_record
from voxlab.models.gesture.text import WordTable
from voxlab.motion.parts import columns, read_layout
from voxlab.parallel import Ranks
from voxlab.tasks.a2g import fit as predictor_fit
from voxlab.tasks.a2g.aligned import align, open_aligned
from voxlab.tasks.a2g.data import TrainData
from voxlab.tasks.a2g.features import FeatureTracks, Moments32, open_tracks
from voxlab.tasks.a2g.windows import ClipData, Windows
from voxlab.tasks.extract.features import extract_features
from voxlab.tasks.train_tokenizer.motion import fit as tokenizer_fit
from voxlab.tasks.train_tokenizer.motion.data import Windows as PartWindows

LENGTH, STRIDE, FPS = 32, 20, 30
MFCC = Mfcc(num_coefficients=8, num_bins=32)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[MotionStore, FeatureTracks]:
    folder = tmp_path_factory.mktemp("windows")
    corpus: Beat2 = motion_runs.sample(folder)
    store, out = open_motion_store(corpus), str(folder / "mfcc")
    place: dict[str, Any] = {"ranks": Ranks(), "run_dir": folder / "run"}
    extract_features(corpus, MFCC, out, verify="size", max_bad=0.0, dry_run=False, **place)
    return store, open_tracks(out, MFCC, corpus, store.clips, key="features", extraction=None)


@pytest.fixture(scope="module")
def windows(opened: tuple[MotionStore, FeatureTracks]) -> Windows:
    store, tracks = opened
    layout, clips = read_layout("full421"), store.split("train")
    align(store, {"features": tracks}, Ranks())
    codecs = {}
    for part in layout.parts:
        network = motion_runs.TINY.of_part(part).build().eval()
        network.mean.copy_(torch.linspace(-1, 1, part.dim))
        network.std.copy_(torch.linspace(0.5, 2, part.dim))
        codecs[part.name] = MotionCodec(part, part_record(part, layout, FPS, "velocity"), network, "x")
    words = [tuple((word.text, word.start, word.end) for word in clip.words() or ()) for clip in clips]
    words[0] = ()
    rows = open_aligned(store, tracks, clips)
    data = [
        ClipData(
            clip=clip,
            speaker=number % 3,
            aligned={"features": rows[number]},
            codes={name: codec.tokenize(clip.frames()) for name, codec in codecs.items()},
            words=words[number],
        )
        for number, clip in enumerate(clips)
    ]
    moments = {"features": Moments32(torch.linspace(-3, 3, 8), torch.linspace(1, 4, 8))}
    table = WordTable.from_texts([text for spoken in words for text, _, _ in spoken], min_count=1)
    return Windows(data, codecs, moments, table, length=LENGTH, stride=STRIDE, fps=FPS)


def test_a_batch_is_what_an_obvious_loop_finds(windows: Windows, opened: tuple[MotionStore, FeatureTracks]) -> None:
    chosen = [0, 5, len(windows.places) - 1, 30, 31]
    batch = windows.collate(chosen)
    for row, index in enumerate(chosen):
        number, start = windows.places[index]
        data, span = windows.clips[number], slice(start, start + LENGTH)
        assert (batch["id"][row], int(batch["start_frame"][row])) == (data.clip.id, start)
        assert int(batch["speaker"][row]) == data.speaker
        for name, codec in windows.codecs.items():
            wanted = codec.normalize(data.clip.frames()[span][:, columns(codec.part)])
            np.testing.assert_allclose(batch["motion"][name][row], wanted, rtol=1e-5, atol=1e-6)
            codes = data.codes[name][start // codec.stride : (start + LENGTH) // codec.stride]
            np.testing.assert_array_equal(batch["codes"][name][row], codes)
            assert batch["codes"][name].dtype == torch.int64
        track, moments = opened[1].tracks[data.clip.id], windows.moments["features"]
        exact = at_frames(np.asarray(track.rows), track.times, data.clip.num_frames, FPS)[span]
        wanted = (exact - moments.mean.numpy()) / moments.std.numpy()
        np.testing.assert_allclose(batch["features"][row], wanted, rtol=2e-3, atol=2e-3)
        begin, end = start / FPS, (start + LENGTH) / FPS
        middles = [(text, (first + last) / 2) for text, first, last in data.words]
        said = [(text, middle - begin) for text, middle in middles if begin <= middle < end]
        mask = batch["word_mask"][row]
        assert mask.tolist() == [place < len(said) for place in range(len(mask))]
        assert batch["word_ids"][row][mask].tolist() == [windows.table.index(text) for text, _ in said]
        np.testing.assert_allclose(batch["word_times"][row][mask], [time for _, time in said], atol=1e-6)
    assert batch["word_mask"].any()
    assert not batch["word_mask"][0].any()  # no transcript
    assert batch["frame_mask"].shape == (5, LENGTH)


def test_gathering_leaves_the_stores_alone(windows: Windows) -> None:
    raw = windows.gather([3, 4])
    before = raw["frames"].clone(), raw["features"].clone()
    first, again = windows.finish(raw), windows.finish(raw)
    assert torch.equal(first["motion"]["upper"], again["motion"]["upper"])
    assert torch.equal(raw["frames"], before[0])
    assert torch.equal(raw["features"], before[1])


def flat(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """Tensors of nested dicts, by joined names."""
    if isinstance(value, dict):
        return {key: part for item in value for key, part in flat(value[item], f"{name}/{item}").items()}
    return {name: value} if isinstance(value, torch.Tensor) else {}


def test_ranks_share_a_batch_and_any_step_can_come_first(windows: Windows) -> None:
    def data() -> TrainData:
        return TrainData(windows, 6, Masking(), seed=3, world=2)

    steady = data()
    whole = [steady.batch(step) for step in range(40)]  # more than one epoch, and more than one block of draws
    assert steady.per_epoch < 40
    for step in (37, 0, 16, 15):
        own = [data().batch(step, rank, 2) for rank in range(2)]
        assert own[0]["id"] == whole[step]["id"][::2]
        parts = [flat(batch) for batch in own]
        for name, value in flat(whole[step]).items():
            if name.startswith("/word"):
                continue  # padded to the longest of each rank
            for rank in range(2):
                assert torch.equal(parts[rank][name], value[rank::2]), name
    one, two = (flat(whole[step])["/visible/upper"] for step in (0, 1))
    assert not torch.equal(one, two)
    epoch = [
        index
        for batch in whole[: steady.per_epoch]
        for index in zip(batch["id"], batch["start_frame"].tolist(), strict=True)
    ]
    assert len(set(epoch)) == len(epoch)


def test_aligned_features_are_made_once_and_again_when_what_they_are_from_changes(
    opened: tuple[MotionStore, FeatureTracks], windows: Windows
) -> None:
    store, tracks = opened
    folder = next((store.folder / "features").iterdir())
    files = sorted(folder.iterdir())
    assert [path.stem for path in files] == [clip.id for clip in store.clips]
    made = {path: path.stat().st_mtime_ns for path in files}
    align(store, {"features": tracks}, Ranks())
    assert {path: path.stat().st_mtime_ns for path in files} == made
    source: Any = tracks.tracks[store.clips[2].id].rows
    before = files[2].read_bytes()
    files[2].write_bytes(b"")
    was = made[files[2]]
    os.utime(files[2], ns=(was, was))
    os.utime(source.path, ns=(was + 10**6, was + 10**6))
    align(store, {"features": tracks}, Ranks())
    assert files[2].read_bytes() == before
    assert [path for path in files if path.stat().st_mtime_ns != made[path]] == [files[2]]


def test_aligned_features_that_are_damaged_or_absent(
    opened: tuple[MotionStore, FeatureTracks], windows: Windows
) -> None:
    store, tracks = opened
    clip = store.clips[0]
    path: Path = next((store.folder / "features").iterdir()) / f"{clip.id}.npy"
    content = path.read_bytes()
    path.write_bytes(content[:100])
    with pytest.raises(UserError, match=f"{clip.id}.npy can't be read"):
        open_aligned(store, tracks, [clip])
    np.save(path, np.zeros((3, 8), np.float16))
    with pytest.raises(UserError, match=r"holds \(3, 8\) float16, expected"):
        open_aligned(store, tracks, [clip])
    path.unlink()
    with pytest.raises(RuntimeError, match="is not there"):
        open_aligned(store, tracks, [clip])
    path.write_bytes(content)


def test_clips_that_are_all_too_short(windows: Windows) -> None:
    given: dict[str, Any] = {"length": 4000, "stride": 20, "fps": FPS}
    with pytest.raises(UserError, match=r"no clip is as long as a window: the longest of \d+ has \d+ frames"):
        Windows(windows.clips, windows.codecs, windows.moments, windows.table, **given)


def test_clips_shorter_than_a_window_are_left_out_counted_and_told(tmp_path: Path) -> None:
    corpus, short = motion_runs.sample(tmp_path, speakers=[4]), "4_lawrence_0_18_18"
    corpus.prepare()
    with np.load(corpus.folder / MOTION / f"{short}.npz") as file:
        arrays = {key: file[key][:200] for key in ("poses", "trans", "expressions")}
    change(corpus.folder, short, **arrays)
    layout, store = read_layout("full421"), open_motion_store(corpus)
    clips = store.split("train")
    assert {clip.id: clip.num_frames for clip in clips}[short] == 200
    rows = [ClipData(clip=clip, speaker=0, aligned={}, codes={}, words=()) for clip in clips]
    given: dict[str, Any] = {"codecs": {}, "moments": {}, "table": WordTable.from_texts([]), "stride": 20, "fps": FPS}
    for length, skipped in ((200, []), (201, [short])):
        found = Windows(rows, **given, length=length)
        assert found.skipped == skipped
        assert (short in {clips[number].id for number, _ in found.places}) == (not skipped)
        of_part = PartWindows(clips, layout.parts[0], length, 20)
        assert (of_part.num_short, len(of_part)) == (len(skipped), len(found.places))

        plain: dict[str, Any] = {"store": store, "layout": layout, "fps": FPS, "codecs": {}}
        material: Any = SimpleNamespace(**plain, has_split=lambda _: False)
        chosen: Any = SimpleNamespace(loop=SimpleNamespace(steps=lambda _: 1))
        data: Any = SimpleNamespace(windows=found, batch_size=2, per_epoch=1)
        ready: Any = SimpleNamespace(data=data, validation=found, model=torch.nn.Identity())
        facts = predictor_fit._facts(material, chosen, ready)
        assert facts["train_clips_too_short"] == len(skipped)
        motion: Any = SimpleNamespace(train_set=of_part, val_set=None)
        settings: Any = SimpleNamespace(batch_size=2, max_steps=1)
        amounts = tokenizer_fit._amounts(motion, FPS, settings, settings)
        assert (amounts["train_clips"], amounts["train_clips_too_short"]) == (3 - len(skipped), len(skipped))
