"""task=train_tokenizer codec=motion_rvq: what a run leaves, exact resume, ranks, what it learns, what is refused."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import main_process
from tests.tasks.launches import launch
from tests.tasks.motion_runs import LOSS, TINY, run, sample, with_weights
from tests.tasks.tokenizer_runs import states
from voxlab.data.beat2 import Beat2
from voxlab.data.motion_store import MotionStore, open_motion_store
from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import RECORD, find_tokenizers, load_motion_codec, part_record
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvq
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.output import Output
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.motion.kinematics import forward_kinematics
from voxlab.motion.parts import columns, read_layout
from voxlab.motion.rotations import geodesic, sixd_to_matrix
from voxlab.motion.skeleton import synthetic_skeleton
from voxlab.motion.statistics import part_moments
from voxlab.parallel import Ranks
from voxlab.tasks.history import read_history
from voxlab.tasks.motion_statistics import train_statistics
from voxlab.tasks.optim import AdamWCosine, AdamWSteps
from voxlab.tasks.train_tokenizer.motion import test as motion_test
from voxlab.tasks.train_tokenizer.motion.data import StepBatches, Windows
from voxlab.tasks.train_tokenizer.motion.fit import _usage
from voxlab.tasks.train_tokenizer.motion.module import MotionModule
from voxlab.tasks.train_tokenizer.settings import Loop, fit_settings

LAYOUT = read_layout("full421")
Whole = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Beat2:
    return sample(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="module")
def store(corpus: Beat2) -> MotionStore:
    return open_motion_store(corpus)


@pytest.fixture(scope="module")
def whole(corpus: Beat2, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A short run with dropout, so that random numbers matter."""
    folder = tmp_path_factory.mktemp("sweep") / "0"
    return folder, run(folder, corpus, codec=DROPOUT)


DROPOUT = replace(TINY, architecture=replace(TINY.architecture, dropout=0.2))


# ---- what a run leaves ---------------------------------------------------------------------------------------------


def test_a_run_leaves_a_codec_that_knows_its_data(whole: Whole, store: MotionStore) -> None:
    folder, summary = whole
    codec = load_motion_codec(folder)
    part = LAYOUT.part("upper")
    assert (codec.part, codec.fps, codec.trans, codec.stride) == (part, 30, "any", 4)
    statistics = train_statistics(store, Ranks())
    mean, std = part_moments(statistics, part, LAYOUT)
    np.testing.assert_array_equal(codec.mean, mean)
    np.testing.assert_array_equal(codec.std, std)
    frames = np.concatenate([clip.frames() for clip in store.split("train")]).astype(np.float64)
    np.testing.assert_allclose(codec.mean, frames.mean(0)[columns(part)], atol=1e-5)
    assert summary["train_windows"] == sum((clip.num_frames - 64) // 20 + 1 for clip in store.split("train"))
    found = json.loads((folder / "codec" / "codec.json").read_text())["facts"]
    assert found["data"]["statistics"] == statistics.fingerprint
    assert find_tokenizers({"upper": str(folder)}, replace(LAYOUT, parts=(part,)))["upper"].weights_id


def test_the_best_checkpoint_is_what_was_exported(whole: Whole) -> None:
    folder, _ = whole
    one, other = load_motion_codec(folder), load_motion_codec(folder / "checkpoints" / "best.ckpt")
    assert one.weights_id == other.weights_id
    assert dict(one.record) == dict(other.record)


def test_a_validation_tells_what_each_codebook_adds(whole: Whole) -> None:
    folder, summary = whole
    rows = [row for row in read_history(folder / "history.jsonl") if "val/rec_mse" in row]
    assert [row["step"] for row in rows] == [3, 6]
    last = rows[-1]
    assert last["val/rec_mse_first/2"] == last["val/rec_mse"]
    assert {"val/rec_l1", "val/velocity_l1", "val/degrees", "val/use/1", "val/use/2"} <= set(last)
    assert summary["val_rec_mse"] == min(row["val/rec_mse"] for row in rows)
    page = (folder / "report.html").read_text()
    assert "Error of motion with fewer codebooks" in page
    assert "Angle between rotations" in page


# ---- the same by other ways ----------------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_uninterrupted_one(
    whole: Whole, corpus: Beat2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = MotionModule.finish_step

    def stop(self: MotionModule, *given: Any) -> None:
        if self.step == 5:
            raise RuntimeError("power cut")
        finish(self, *given)

    monkeypatch.setattr(MotionModule, "finish_step", stop)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "cut", corpus, codec=DROPOUT)
    monkeypatch.undo()
    run(tmp_path / "cut", corpus, codec=DROPOUT)
    wanted, found = states(whole[0]), states(tmp_path / "cut")
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []
    for name in ("history.jsonl", "codec/codec.safetensors"):
        assert _untimed(whole[0] / name) == _untimed(tmp_path / "cut" / name)


def _untimed(path: Path) -> Any:
    if path.suffix != ".jsonl":
        return path.read_bytes()
    return [{name: value for name, value in row.items() if "_per_s" not in name} for row in read_history(path)]


def _of_two(rank: int, folder: Path, corpus: Beat2, port: int) -> None:
    """One of two processes that train together."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ.update({name: str(value) for name, value in place.items()})
    from voxlab.parallel import launched

    run(folder, corpus, ranks=launched("cpu"), trainer={"devices": 2, "max_steps": 4, "val_check_interval": 4})


@pytest.mark.slow
def test_two_ranks_are_one(corpus: Beat2, store: MotionStore, tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "two").mkdir()
    main_process.spawn(_of_two, (tmp_path / "two", corpus, port), 2)
    run(tmp_path / "one", corpus, trainer={"max_steps": 4, "val_check_interval": 4})
    one, two = states(tmp_path / "one"), states(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=2e-5, rtol=2e-4, msg=name)
    rows = [read_history(tmp_path / name / "history.jsonl")[-1]["val/rec_mse"] for name in ("one", "two")]
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_batches_are_passes_over_all_windows(store: MotionStore) -> None:
    part = LAYOUT.part("face")
    windows = Windows(store.split("train"), part, 64, 20)
    per_pass = len(windows)
    batches = StepBatches(windows, 8, 5, 0, 1)
    names = [name for step in range(2 * per_pass // 8) for name in batches[step]["id"]]
    assert sorted(names[:per_pass]) == sorted(names[per_pass : 2 * per_pass])
    assert len(set(names[:per_pass])) == per_pass
    assert names[:per_pass] != names[per_pass : 2 * per_pass]
    clip_id, start = names[0].split("@")
    clip = next(clip for clip in store.clips if clip.id == clip_id)
    wanted = clip.frames()[int(start) : int(start) + 64, columns(part)]
    np.testing.assert_array_equal(batches[0]["motion"][0].numpy(), wanted)
    halves = [StepBatches(windows, 8, 5, rank, 2)[3]["id"] for rank in (0, 1)]
    assert halves[0] + halves[1] == batches[3]["id"]


def test_a_batch_larger_than_all_windows_repeats_them(store: MotionStore) -> None:
    windows = Windows(store.split("validation"), LAYOUT.part("upper"), 64, 64)
    names = StepBatches(windows, 3 * len(windows), 0, 0, 1)[0]["id"]
    assert all(names.count(name) == 3 for name in names)


def test_statistics_are_computed_once(store: MotionStore) -> None:
    first = train_statistics(store, Ranks())
    paths = list((store.folder / "statistics").iterdir())
    before = [path.stat().st_mtime_ns for path in paths]
    assert train_statistics(store, Ranks()).fingerprint == first.fingerprint
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert len(paths) == 1


# ---- learning and the report of stage=test -------------------------------------------------------------------------


def test_each_term_of_the_loss_is_what_it_says(corpus: Beat2, store: MotionStore, tmp_path: Path) -> None:
    """All weights but one are 0: the loss is that term, against a frame by frame computation."""
    part, skeleton = LAYOUT.part("upper"), synthetic_skeleton()
    mean, std = part_moments(train_statistics(store, Ranks()), part, LAYOUT)
    target = torch.from_numpy(store.clips[0].frames()[None, :6, columns(part)].copy())
    made = target + 0.05 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    pair = [((x - torch.from_numpy(mean)) / torch.from_numpy(std)) for x in (made, target)]
    output = Output(pair[1], pair[0], torch.ones(1, 6, dtype=torch.bool))
    turned, placed = [], []
    for x in (made, target):
        rotations = torch.eye(3).repeat(6, 55, 1, 1)
        rotations[:, list(part.joints)] = sixd_to_matrix(x[0].unflatten(-1, (13, 6)))
        turned.append(rotations[:, list(part.joints)])
        placed.append(torch.stack([forward_kinematics(each, None, skeleton) for each in rotations]))
    difference = pair[0] - pair[1]
    wanted = {
        "rec": torch.where(difference.abs() < 1, difference.square() / 2, difference.abs() - 0.5).mean(),
        "velocity": (difference[:, 1:] - difference[:, :-1]).abs().mean(),
        "acceleration": (difference[:, 2:] - 2 * difference[:, 1:-1] + difference[:, :-2]).abs().mean(),
        "geodesic": geodesic(turned[0], turned[1]).mean(),
        "joints": (placed[0] - placed[1]).norm(dim=-1).mean(),
    }
    for name, value in wanted.items():
        weights = dict.fromkeys([*wanted, "commitment"], 0.0) | {name: 1.0}
        module = _module(weights)
        module.network.set_statistics(torch.from_numpy(mean), torch.from_numpy(std))
        for training in (True, False):
            loss = module.losses(output, training=training)["loss"]
            torch.testing.assert_close(loss, value, rtol=1e-3, atol=1e-6, msg=name)


def _module(weights: dict[str, float]) -> MotionModule:
    part = LAYOUT.part("upper")
    architecture = TINY.of_part(part)
    fit, loop = fit_settings({}, "motion"), Loop(max_steps=1)
    given: dict[str, Any] = {"optim": AdamWCosine(), "fit": fit, "loop": loop, "seed": 0, "facts": {}}
    return MotionModule(architecture.build(), architecture, loss=weights, part=part, **given)


def test_it_learns_and_the_test_report_says_so(corpus: Beat2, store: MotionStore, tmp_path: Path) -> None:
    fit = {"batch_size": 16, "warmup_steps": 15, "ema_decay": 0.95, "save_every": 1000}
    optim = AdamWCosine(lr=5e-3, warmup_steps=5, weight_decay=0.0)
    run(tmp_path / "0", corpus, fit=fit, optim=optim, trainer={"max_steps": 100, "val_check_interval": 100})
    summary = run(tmp_path / "test", corpus, codec=with_weights(tmp_path / "0"), part=None, stage="test")
    quality = json.loads((tmp_path / "test" / "quality.json").read_text())
    errors = quality["errors"]
    assert list(errors) == ["codec", "first 1 of 2 codebooks", "mean pose", "hold every 4th frame"]
    mse = {method: row["mse"] for method, row in errors.items()}
    assert mse["codec"] < mse["first 1 of 2 codebooks"] < 0.75 * mse["mean pose"]
    assert errors["codec"]["degrees"] < 0.6 * errors["mean pose"]["degrees"]
    assert min(book["use"] for book in quality["codebooks"]) > 0.5
    assert summary["mse"] == mse["codec"]
    assert (quality["split"], quality["clips"]) == ("test", len(store.split("test")))
    page = (tmp_path / "test" / "report.html").read_text()
    assert "hold every 4th frame" in page
    _check_against_loops(load_motion_codec(tmp_path / "0"), store, errors)


def _check_against_loops(codec: Any, store: MotionStore, errors: dict[str, dict[str, float]]) -> None:
    """Compute what the report says once more, frame by frame."""
    squares, angles, numbers, codes = 0.0, [], 0, []
    for clip in store.split("test"):
        values = codec.values(clip.frames())
        held = np.stack([values[frame - frame % 4] for frame in range(len(values))])
        squares += float((((held - values) / codec.std).astype(np.float64) ** 2).sum())
        numbers += values.size
        codes.append(codec.tokenize(clip.frames()))
        for frame, made in enumerate(codec.detokenize(codes[-1], len(values))):
            pair = [
                sixd_to_matrix(torch.from_numpy(row.astype(np.float64)).view(13, 6)) for row in (made, values[frame])
            ]
            angles.append(float(geodesic(*pair).rad2deg().mean()))
    assert errors["hold every 4th frame"]["mse"] == pytest.approx(squares / numbers, rel=1e-4)
    assert errors["codec"]["degrees"] == pytest.approx(np.mean(angles), rel=1e-3)


def test_ranks_share_the_test_clips(whole: Whole, corpus: Beat2, store: MotionStore, tmp_path: Path) -> None:
    codec = load_motion_codec(whole[0])
    clips = store.split("test")
    parts = [motion_test.measure(codec, clip.frames()) for clip in clips]
    together = motion_test._sum([motion_test._sum(parts[:1]), motion_test._sum(parts[1:])])  # type: ignore[list-item]
    assert together is not None
    alone = run(tmp_path, corpus, codec=with_weights(whole[0]), stage="test")
    assert alone["mse"] == pytest.approx(together[0]["codec"]["mse"] / together[0]["codec"]["frames"])
    assert motion_test._sum([]) is None


def test_a_video_shows_the_part_beside_the_recording(whole: Whole, corpus: Beat2, tmp_path: Path) -> None:
    given: dict[str, Any] = {"stage": "test", "codec": with_weights(whole[0].parent), "part": "upper"}  # of the sweep
    summary = run(tmp_path, corpus, test={"clips": 1, "max_seconds": 0.5, "limit": 1}, **given)
    (path,) = summary["video"]
    assert Path(path).stat().st_size > 1000
    assert summary["clips"] == 1


def test_a_video_that_fails_costs_nothing_else(
    whole: Whole, corpus: Beat2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no encoder")

    monkeypatch.setattr("voxlab.motion.stick_video.render_video", fail)
    given: dict[str, Any] = {"stage": "test", "codec": with_weights(whole[0])}
    summary = run(tmp_path, corpus, test={"clips": 1, "max_seconds": 0.5, "limit": 1}, **given)
    assert summary["video"] == []
    assert summary["mse"] > 0
    assert "no encoder" in caplog.text


def test_one_window_is_learnt_by_heart(corpus: Beat2, tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    table.write_text("id,type\n2_scott_0_17_17,train\n")
    one = replace(corpus, split_file=str(table))
    fit = {"batch_size": 1, "window": 240, "val_split": "train", "warmup_steps": 60, "ema_decay": 0.9}
    fit |= {"save_every": 1000, "quantizer_dropout": 0.0}
    loop = {"max_steps": 300, "val_check_interval": 300, "log_every_n_steps": 100}
    optim = AdamWCosine(lr=5e-3, warmup_steps=5, weight_decay=0.0)
    summary = run(tmp_path / "run", one, fit=fit, trainer=loop, optim=optim)
    assert summary["train_windows"] == 1
    assert summary["val_rec_mse"] < 0.05  # 1 is what the mean pose errs


# ---- a recorded clip -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Beat2:
    """The one clip of the real sample, for training and for validation."""
    root = Path(os.environ.get("VOXLAB_REAL_DATA", "")) / "beat2" / "BEAT2" / "beat_english_v2.0.0"
    if "VOXLAB_REAL_DATA" not in os.environ or not root.is_dir():
        pytest.skip("VOXLAB_REAL_DATA names no folder with beat2/ in it")
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "split.csv").write_text("id,type\n2_scott_0_1_1,train\n")
    return Beat2(root=str(root), split_file=str(folder / "split.csv"), store=str(folder / "store"))


def _learn(folder: Path, recorded: Beat2, codec: MotionRvq, lr: float, steps: int) -> dict[str, Any]:
    fit = {"batch_size": 32, "val_split": "train", "warmup_steps": 20, "save_every": 10_000}
    optim = AdamWCosine(lr=lr, final_lr=lr / 10, warmup_steps=10, betas=(0.9, 0.99), weight_decay=0.0)
    loop = {"max_steps": steps, "val_check_interval": steps, "log_every_n_steps": 100}
    return run(folder, recorded, codec=codec, fit=fit, optim=optim, trainer=loop)


def test_a_tiny_one_learns_a_recording_in_100_steps(recorded: Beat2, tmp_path: Path) -> None:
    summary = _learn(tmp_path / "run", recorded, TINY, 3e-3, 100)
    assert summary["val_rec_mse"] < 0.50  # the mean pose errs by 1 on this clip's own statistics
    assert min(summary["val_use_1"], summary["val_use_2"]) > 0.5


@pytest.mark.training
def test_a_small_one_learns_a_recording_in_600_steps(recorded: Beat2, tmp_path: Path) -> None:
    quantizer = QuantizerSettings(num_codebooks=4, codebook_size=64, decay=0.95)
    shape = MotionArchitecture(width=64, depth=1, dropout=0.0, code_dim=32, quantizer=quantizer)
    summary = _learn(tmp_path / "run", recorded, MotionRvq(architecture=shape), 2e-3, 600)
    assert summary["val_rec_mse"] < 0.06
    kept = [summary[f"val_rec_mse_first_{count}"] for count in range(1, 5)]
    assert kept == sorted(kept, reverse=True)


# ---- files ---------------------------------------------------------------------------------------------------------


def test_export_and_import_of_the_files_of_earlier_projects(whole: Whole, corpus: Beat2, tmp_path: Path) -> None:
    legacy = replace(corpus, layout="legacy415", trans="legacy")
    given: dict[str, Any] = {"part": None, "stage": "export", "out": str(tmp_path / "out")}
    summary = run(tmp_path, corpus, codec=with_weights(whole[0]), **given)
    one, again = load_motion_codec(whole[0]), load_motion_codec(tmp_path / "out")
    assert again.weights_id == one.weights_id == summary["weights_id"]
    rotation = {"a_330_mean": np.zeros(330, np.float32), "a_330_std": np.ones(330, np.float32)}
    np.savez(tmp_path / "s.npz", **rotation, a_trans_mean=np.zeros(3), a_trans_std=np.ones(3))
    hands = TINY.of_part(LAYOUT.part("hands"))
    facts = {RECORD: part_record(LAYOUT.part("hands"), LAYOUT, 30, "any")}
    files.export(hands.build(), hands, tmp_path / "hands", facts)
    with pytest.raises(
        UserError, match=r"out=\S+hands holds the codec of part=hands, which that of part=upper would re"
    ):
        run(
            tmp_path, corpus, codec=with_weights(whole[0]), **{**given, "out": str(tmp_path / "hands"), "dry_run": True}
        )
    run(tmp_path, corpus, codec=with_weights(whole[0]), **given)  # its own may be replaced
    codec = replace(with_weights(summary["net"]), statistics=str(tmp_path / "s.npz"))
    run(tmp_path, legacy, codec=codec, **{**given, "out": str(tmp_path / "in")})
    imported = load_motion_codec(tmp_path / "in")
    assert imported.record["layout"] == "legacy415"
    x = torch.randn(1, 16, 78)
    assert torch.equal(imported.network.encode(x), one.network.encode(x))
    torch.testing.assert_close(imported.network(x).output, one.network(x).output)


def test_a_last_checkpoint_that_is_cut_off_is_refused(whole: Whole, corpus: Beat2, tmp_path: Path) -> None:
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.write_bytes((whole[0] / "checkpoints" / "last.ckpt").read_bytes()[:-500])
    with pytest.raises(
        UserError, match=r"last\.ckpt can't be read as a checkpoint: it is cut off .*Delete it"
    ) as error:
        run(tmp_path / "run", corpus, codec=DROPOUT)
    assert "weights_only" not in str(error.value)


def test_a_run_says_how_its_codec_is_used(tmp_path: Path) -> None:
    assert _usage(tmp_path / "0", "upper") == f"task=a2g tokenizers='{{upper: {tmp_path / '0'}, ...}}'"
    launch(tmp_path / "0", "MULTIRUN")
    assert _usage(tmp_path / "0", "upper") == f"task=a2g tokenizers={tmp_path}"


def test_start_weights(whole: Whole, corpus: Beat2, tmp_path: Path) -> None:
    given: dict[str, Any] = {"ckpt": str(whole[0]), "codec": DROPOUT, "optim": AdamWCosine(lr=0.0, final_lr=0.0)}
    run(tmp_path / "run", corpus, trainer={"max_steps": 3}, fit={"warmup_steps": 0, "ema_decay": 0.0}, **given)
    one, other = load_motion_codec(whole[0]), load_motion_codec(tmp_path / "run")
    assert torch.equal(one.network.encoder[0].weight, other.network.encoder[0].weight)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"another architecture[\s\S]*dropout: 0.2 -> 0.0"):
        run(tmp_path / "no", corpus, ckpt=str(whole[0]))


def test_a_dry_run_writes_nothing(corpus: Beat2, tmp_path: Path) -> None:
    fresh = replace(corpus, store=str(tmp_path / "store"))
    plan = run(tmp_path / "run", fresh, dry_run=True)
    assert plan["parameters"] == 52_414
    assert plan["clips"]["train"] >= 6
    assert list((tmp_path / "run").iterdir()) == []
    assert not (tmp_path / "store").exists()


def test_the_rate_falls_once() -> None:
    optim = AdamWSteps(lr=1.0, drop_step=200, factor=0.05, warmup_steps=10)
    assert [optim.rate(step, 1000) for step in (0, 4, 9, 10, 199)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    assert optim.rate(200, 1000) == pytest.approx(0.05)
    with pytest.raises(UserError, match=r"optim\.factor=1"):
        AdamWSteps(factor=1)


# ---- what is refused -----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no part": (
        {"part": None},
        r"part=upper, or all of layout full421 in a sweep: -m part=upper,hands,lower_trans,face",
    ),
    "other part": ({"part": "lower"}, "part=lower: layout full421 has the parts upper, hands, lower_trans, face"),
    "window": ({"fit": {"window": 66}}, "fit.window=66 frames: a code covers 4 frames.*take 64 or 68"),
    "long window": ({"fit": {"window": 6400}}, r"train_split=train: no clip in this split has 6400 frames"),
    "split": ({"fit": {"val_split": "dev"}}, r"val_split=dev[\s\S]*train \(8 clips\)[\s\S]*fit.val_split=null"),
    "weights": ({"codec": with_weights("x")}, "codec.weights=x names a trained one"),
    "stage": ({"stage": "reconstruct"}, "stage=reconstruct: codec=motion_rvq has fit, test, export"),
    "no weights": ({"stage": "test"}, "stage=test needs a trained codec"),
    "loss": ({"loss": {"motion": {**LOSS["motion"], "rec": "much"}}}, "loss.motion.rec='much': give a number"),
    "other loss": ({"loss": {}}, "loss has no node motion"),
    "no loss": ({"loss": None}, "needs a loss and an optimiser"),
    "fit key": ({"fit": {"windows": 3}}, "fit.windows: there is no such key"),
    "gone": ({"stage": "test", "codec": with_weights("gone")}, "gone does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str, corpus: Beat2, store: MotionStore, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", corpus, **changes)


def test_refusals_of_a_trained_one(whole: Whole, corpus: Beat2, tmp_path: Path) -> None:
    test = partial(run, tmp_path, stage="test", codec=with_weights(whole[0]))
    with pytest.raises(UserError, match=r"part=hands, but codec.weights=.* was trained on part=upper"):
        test(corpus, part="hands")
    with pytest.raises(UserError, match="fps: 30 -> 15"):
        test(replace(corpus, fps=15))
    with pytest.raises(UserError, match="no clip is in the split dev"):
        test(corpus, test={"split": "dev"})


def test_sound_has_no_parts_and_motion_needs_data_with_motion(tmp_path: Path) -> None:
    from voxlab.data.librispeech import LibriSpeech

    corpus = LibriSpeech(source="sample", root=str(tmp_path / "L"))
    with pytest.raises(UserError, match="needs data with motion: data=beat2, not LibriSpeech"):
        run(tmp_path / "run", corpus)
    with pytest.raises(UserError, match="part=upper is a part of the body"):
        run(tmp_path / "run", corpus, codec=None)
