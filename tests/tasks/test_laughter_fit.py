"""Training of task=laughter in this process: what is learnt, kept, stopped, resumed, tested again, and refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.laughter_stores import write_store
from tests.tasks.laughter_runs import run, state
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.feature_store import open_store
from voxlab.errors import UserError
from voxlab.features.logmel import LogMelFeatures
from voxlab.features.moshi import MoshiFeatures
from voxlab.losses.events import AdaptiveFocal, BinaryCrossEntropy, Focal
from voxlab.metrics.events import EpisodeScores, pool
from voxlab.metrics.ranking import auroc, average_precision
from voxlab.models.laughter import Gru, Linear, LnLinear, Mlp, Tcn
from voxlab.parallel import Ranks
from voxlab.storage import read_manifest
from voxlab.tasks.history import FILE, read_history
from voxlab.tasks.laughter.data import read_split
from voxlab.tasks.laughter.predict import load_predictor, predict, without_scores
from voxlab.tasks.laughter.settings import read_labels
from voxlab.tasks.laughter.validation import validate
from voxlab.tasks.optim import AdamWPlateau

LABELS = read_labels({}, 5)
ALL = {"sampling": {"mode": "all"}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small store: seconds a run."""
    root = tmp_path_factory.mktemp("small")
    return write_store(root, splits={"train": 8, "validation": 3, "test": 3}, dim=16, frames=1200, events=6)


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, run(store, folder)


def scored(store: Path, folder: Path, split: str = "test") -> list[EpisodeScores]:
    return predict(load_predictor(folder).model, read_split(open_store(store), split, LABELS), Ranks(), "cpu")


# ---- what is learnt ------------------------------------------------------------------------------------------------


def test_a_run_learns_and_leaves_everything_behind(trained: tuple[Path, dict[str, Any]], store: Path) -> None:
    folder, summary = trained
    assert summary["test/auroc"] > 0.9
    assert summary["test/ap"] > 10 * summary["test/prior"]
    frames = pool(scored(store, folder))
    assert summary["test/ap"] == pytest.approx(average_precision(frames.logit, frames.y), rel=1e-9)
    rows = read_history(folder / FILE)
    validations = [row for row in rows if "val/ap" in row]
    assert len(validations) == 3
    assert validations[0]["step"] == summary["steps_per_epoch"]
    assert {"train/loss", "train/lr", "train/grad_norm", "train/prior"} <= set(rows[0])
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"best.ckpt", "last.ckpt", "history.jsonl", "report.html", "threshold.json"} <= files
    assert not [name for name in files if "tmp" in name or "next" in name]


def test_the_checkpoint_tells_all_and_rebuilds_the_model(trained: tuple[Path, dict[str, Any]], store: Path) -> None:
    folder, summary = trained
    predictor = load_predictor(folder)
    record = predictor.record
    assert record["labels"]["mode"] == "window"
    assert record["labels"]["shift"] == 5
    assert record["features"]["fingerprint"] == open_store(store).fingerprint
    assert record["features"]["features"]["name"] == "logmel"
    assert record["loss"]["name"] == "BinaryCrossEntropy"
    assert predictor.decision is not None
    assert predictor.model.norm == "standard"
    train = read_split(open_store(store), "train", LABELS)
    frames = np.concatenate([np.asarray(view.features)[view.labels.mask] for view in train]).astype(np.float64)
    assert predictor.model.mean.numpy() == pytest.approx(frames.mean(0), abs=1e-5)
    assert predictor.model.std.numpy() == pytest.approx(frames.std(0), rel=1e-4)
    assert summary["initial_bias"] == pytest.approx(math.log(summary["train_prior"] / (1 - summary["train_prior"])))
    for name in ("best.ckpt", "last.ckpt"):
        assert load_predictor(folder / "checkpoints" / name).model.dim == 16


def test_a_store_is_not_touched_by_another_shift(
    trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()}
    run(store, tmp_path / "run", shift=10, events={"horizon": 10}, trainer={"max_epochs": 1})
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize("loss", [BinaryCrossEntropy(pos_weight=1), Focal(), AdaptiveFocal()])
def test_three_epochs_of_a_linear_model(loss: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    """The ideal direction reaches AUROC 0.983 in expectation; calibration brings the mean to the prior."""
    big = tmp_path_factory.getbasetemp() / "big"
    store = big if big.is_dir() else write_store(big)
    summary = run(store, tmp_path / "run", loss=loss)
    assert summary["test/prior"] == pytest.approx(0.0067, abs=1e-4)
    assert summary["test/auroc"] >= 0.97
    assert summary["test/ap"] >= 0.55
    assert summary["test/macro/auroc"] == pytest.approx(summary["test/auroc"], abs=0.01)
    raw = {"BinaryCrossEntropy": (0.005, 0.012), "Focal": (0.01, 0.06), "AdaptiveFocal": (0.1, 0.4)}
    low, high = raw[type(loss).__name__]
    assert low < summary["test/uncalibrated/mean_probability"] < high
    assert summary["test/mean_probability"] == pytest.approx(summary["test/prior"], rel=0.1)
    settings: dict[str, Any] = {"loss": loss, "fit": {"shuffle_labels": True}, "trainer": {"max_epochs": 1}}
    shuffled = [run(store, tmp_path / f"shuffled{seed}", seed=seed, **settings)["test/auroc"] for seed in range(4)]
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.03)  # 240 positives: sigma is 0.019 each, 0.009 of the mean


@pytest.mark.slow
def test_the_closed_form_agrees_with_descent(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    big = tmp_path_factory.getbasetemp() / "big"
    store = big if big.is_dir() else write_store(big)
    descent, solved = run(store, tmp_path / "sgd"), run(store, tmp_path / "lbfgs", fit={"solver": "lbfgs"})
    assert solved["test/ap"] == pytest.approx(descent["test/ap"], abs=0.01)


def test_lbfgs_is_logistic_regression(store: Path, tmp_path: Path) -> None:
    """Against scikit-learn, whose C is 1 / (l2 N)."""
    from sklearn.linear_model import LogisticRegression

    run(store, tmp_path / "run", fit={"solver": "lbfgs", "l2": 1e-2}, sampling={"mode": "all"})
    model = load_predictor(tmp_path / "run").model
    train = read_split(open_store(store), "train", LABELS)
    frames = np.concatenate([np.asarray(view.features)[view.labels.mask] for view in train]).astype(np.float64)
    y = np.concatenate([view.labels.y[view.labels.mask] for view in train])
    scaled = (frames - frames.mean(0)) / frames.std(0)
    reference = LogisticRegression(C=1 / (1e-2 * len(y)), tol=1e-8, max_iter=1000).fit(scaled, y)
    weight, bias = model.head.output.weight[0].numpy(), model.head.output.bias[0].item()
    assert weight == pytest.approx(reference.coef_[0], abs=2e-3)
    assert bias == pytest.approx(float(reference.intercept_[0]), abs=5e-3)


@pytest.mark.parametrize("model", [Mlp(hidden=16), LnLinear(), Tcn(hidden=8, layers=2), Gru(hidden=8, warmup=20)])
def test_every_model_learns(model: Any, store: Path, tmp_path: Path) -> None:
    fit = {"batch_size": 64 if model.context == 0 else 8, "block": 64}
    summary = run(store, tmp_path / "run", model=model, fit=fit, trainer={"max_epochs": 4})
    assert summary["test/auroc"] > 0.85
    assert load_predictor(tmp_path / "run").model.architecture == model


def test_balanced_frames_are_taken_back(store: Path, tmp_path: Path) -> None:
    fit = {"batch_size": 32}
    summary = run(store, tmp_path / "run", sampling={"mode": "balanced"}, fit=fit, trainer={"max_epochs": 6})
    assert summary["train_prior_used"] == pytest.approx(0.5, abs=0.05)
    assert summary["initial_bias"] == pytest.approx(0, abs=0.2)
    assert float(load_predictor(tmp_path / "run").model.offset) < -2
    assert summary["test/uncalibrated/mean_probability"] == pytest.approx(summary["test/prior"], rel=1.0)


def test_horizon_labels_are_a_soft_target(store: Path, tmp_path: Path) -> None:
    summary = run(store, tmp_path / "run", labels={"mode": "horizon"})
    assert summary["test/auroc"] > 0.9
    with pytest.raises(UserError, match=r"labels.mode=horizon has targets between 0 and 1: use loss=bce"):
        run(store, tmp_path / "focal", labels={"mode": "horizon"}, loss=Focal())


def test_views_of_an_episode_are_averaged_and_counted_once(tmp_path: Path) -> None:
    store = write_store(tmp_path / "two", splits={"train": 3, "validation": 2, "test": 2}, dim=16, frames=800, views=2)
    summary = run(store, tmp_path / "run")
    found = scored(store, tmp_path / "run")
    assert [sorted(item.view_logits or {}) for item in found] == [[0, 1]] * 2
    assert summary["test_frames"] == 1600
    one = 1 / (1 + np.exp(-np.stack([found[0].view_logits[view].astype(np.float64) for view in (0, 1)])))  # type: ignore[index]
    assert 1 / (1 + np.exp(-found[0].logit.astype(np.float64))) == pytest.approx(one.mean(0), rel=1e-5)


def test_views_with_labels_of_their_own_are_scored_one_by_one(tmp_path: Path) -> None:
    store = write_store(tmp_path / "two", splits={"train": 1}, dim=16, frames=800, views=2)
    (path,) = store.glob("*/train/*/events.json")
    events = json.loads(path.read_text())
    path.write_text(json.dumps([{**event, "speaker": f"S{n % 2}"} for n, event in enumerate(events)]))
    views = read_split(open_store(store), "train", read_labels({"speakers": "user"}, 5))
    found = without_scores(views)
    assert [item.key[-3:] for item in found] == ["-a0", "-a1"]
    assert [len(item.onsets) for item in found] == [3, 3]
    assert not np.array_equal(found[0].y, found[1].y)


# ---- when it ends, and how it goes on ------------------------------------------------------------------------------


def test_a_run_in_two_parts_is_the_whole(store: Path, tmp_path: Path) -> None:
    """Stopped in the middle of an epoch; dropout and all."""
    given: dict[str, Any] = {"model": Mlp(hidden=8), "fit": {"batch_size": 64, "save_every": 7}}
    run(store, tmp_path / "whole", **given)
    partial = {**given, "fit": {**given["fit"]}, "trainer": {"max_epochs": 3}}
    with pytest.MonkeyPatch.context() as patch:
        from voxlab.tasks.laughter import callbacks

        class Killed(Exception):
            pass

        before = callbacks.keep
        calls: list[int] = []

        def dies(trainer: Any, run_dir: Path, ranks: Ranks, *, is_best: bool) -> None:
            before(trainer, run_dir, ranks, is_best=is_best)
            calls.append(trainer.lightning_module.step)
            if calls[-1] == 21:
                raise Killed

        patch.setattr(callbacks, "keep", dies)
        with pytest.raises(Killed):
            run(store, tmp_path / "cut", **partial)
    assert 21 in calls
    run(store, tmp_path / "cut", **partial)
    whole, cut = state(tmp_path / "whole"), state(tmp_path / "cut")
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []
    rows = [
        [{k: v for k, v in row.items() if k != "train/frames_per_s"} for row in read_history(tmp_path / name / FILE)]
        for name in ("whole", "cut")
    ]
    assert rows[0] == rows[1]


def test_a_finished_run_is_only_evaluated_again(trained: tuple[Path, dict[str, Any]], store: Path) -> None:
    folder, summary = trained
    before = state(folder)
    again = run(store, folder)
    assert {name: value for name, value in again.items() if name.startswith("test/")} == {
        name: value for name, value in summary.items() if name.startswith("test/")
    }
    assert all(torch.equal(before[name], value) for name, value in state(folder).items())


def test_patience_ends_a_run_and_the_best_stays(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No epoch is better than the first by 1, so the third is the last."""
    caplog.set_level("INFO")
    summary = run(store, tmp_path / "run", fit={"patience": 2, "min_delta": 1.0}, trainer={"max_epochs": 20})
    validations = [row for row in read_history(tmp_path / "run" / FILE) if "val/ap" in row]
    assert len(validations) == 3
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["voxlab"]["step"] == validations[0]["step"] == summary["steps_per_epoch"]
    assert caplog.text.count("ends after epoch 3 of 20: no better val/ap in the last 2 (fit.patience=2;") == 1


def test_steps_can_be_limited(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(store, tmp_path / "run", trainer={"max_steps": 5, "max_epochs": None})
    assert "ends after epoch" not in caplog.text
    rows = read_history(tmp_path / "run" / FILE)
    assert [row["step"] for row in rows if "val/ap" in row] == [5]


def test_plateau_is_torchs() -> None:
    scores = [0.1, 0.2, 0.2, 0.15, 0.19, 0.18, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=0.5)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, "max", factor=0.5, patience=3, threshold=0.0)
    ours = AdamWPlateau(lr=0.5)
    for number, score in enumerate(scores):
        torchs.step(score)
        assert ours.rate(0, 100, scores[: number + 1]) == pytest.approx(optimiser.param_groups[0]["lr"])
    assert [AdamWPlateau(lr=1.0, warmup_steps=4).rate(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_linear_weights_decay_and_biases_do_not() -> None:
    optimiser = AdamWPlateau(weight_decay=0.1).build([Linear().build(8)], fused=False)
    assert {tuple(p.shape): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]} == {
        (1, 8): 0.1,
        (1,): 0.0,
    }


# ---- testing again, start weights ----------------------------------------------------------------------------------


def test_the_test_stage_repeats_the_result(trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path) -> None:
    folder, summary = trained
    again = run(store, tmp_path / "test", stage="test", ckpt=str(folder))
    shared = [name for name in summary if name.startswith("test/")]
    assert {name: again[name] for name in shared} == {name: summary[name] for name in shared}
    threshold = [json.loads((place / "threshold.json").read_text()) for place in (folder, tmp_path / "test")]
    assert threshold[0] == threshold[1]


def test_folds_choose_the_threshold_in_training_and_testing(store: Path, tmp_path: Path) -> None:
    thr = {"source": "cv"}
    summary = run(store, tmp_path / "run", thr=thr)
    record = json.loads((tmp_path / "run" / "threshold.json").read_text())
    assert (record["source"], record["split"], len(record["folds"])) == ("cv", "train+validation", 5)
    assert record["logit"] == sorted(fold["logit"] for fold in record["folds"])[2]
    assert summary["threshold/logit"] == record["logit"]
    assert summary["baseline/loudness/f1"] is not None
    decision = load_predictor(tmp_path / "run").decision
    assert decision is not None
    assert decision["threshold"]["logit"] == record["logit"]
    again = run(store, tmp_path / "test", stage="test", ckpt=str(tmp_path / "run"), thr=thr)
    assert again["threshold/logit"] == record["logit"]
    other = run(store, tmp_path / "other", stage="test", ckpt=str(tmp_path / "run"))
    assert json.loads((tmp_path / "other" / "threshold.json").read_text())["source"] == "validation"
    assert other["test/ap"] == summary["test/ap"]
    anew = run(store, tmp_path / "anew", stage="test", ckpt=str(tmp_path / "run"), thr={**thr, "objective": "youden"})
    assert anew["threshold/objective"] == "youden"


def test_too_few_shows_for_folds_are_found_before_training(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", splits={"train": 4, "validation": 2, "test": 1}, dim=16, frames=600)
    with pytest.raises(UserError, match=r"thr.source=cv needs 5 shows .* there are 3"):
        run(store, tmp_path / "run", thr={"source": "cv"})
    assert list((tmp_path / "run").iterdir()) == []


def test_a_dry_run_of_test_writes_nothing(
    trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        plan = run(store, tmp_path / "run", stage="test", ckpt=str(trained[0]), dry_run=True)
    assert list((tmp_path / "run").iterdir()) == []
    assert plan["threshold"] == trained[1]["threshold"]
    assert (plan["test_episodes"], plan["test_hours"]) == (3, round(3 * 96 / 3600, 4))
    assert "test episodes: 3" in caplog.text
    anew = run(store, tmp_path / "run", stage="test", ckpt=str(trained[0]), dry_run=True, thr={"objective": "youden"})
    assert anew["threshold"] == "chosen anew: best youden, source validation"


def test_features_of_another_name_are_refused_before_the_store_is_opened(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"stage": "test", "ckpt": str(trained[0])}
    with pytest.raises(UserError, match=r"trained on features=logmel: set features=logmel and, .*store="):
        run(tmp_path / "nowhere", tmp_path / "run", features=MoshiFeatures(), **given)
    with pytest.raises(UserError, match=r"num_bins: 8 -> 20"):
        run(tmp_path / "nowhere", tmp_path / "run", features=LogMelFeatures(num_bins=20), **given)


def test_the_best_epoch_is_told(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        run(store, tmp_path / "run", fit={"patience": 2, "min_delta": 1.0}, trainer={"max_epochs": 20})
    first = next(row for row in read_history(tmp_path / "run" / FILE) if "val/ap" in row)
    assert f"best: epoch 1, val/ap {first['val/ap']:.4f}" in caplog.text
    assert "event_h25/recall" in caplog.text


def test_a_diverged_model_names_its_checkpoint(
    trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    checkpoint = torch.load(trained[0] / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["state_dict"]["model.head.output.weight"].fill_(math.inf)
    torch.save(checkpoint, tmp_path / "inf.ckpt")
    with pytest.raises(UserError, match=r"inf\.ckpt: \d+ of the 1200 scores of .* not finite.*Lower optim\.lr"):
        run(store, tmp_path / "run", stage="test", ckpt=str(tmp_path / "inf.ckpt"))
    with pytest.raises(UserError, match=r"best\.ckpt: its scores are too large for probabilities .*Lower optim\.lr"):
        run(store, tmp_path / "fit", optim={"lr": 1e36, "weight_decay": 0.0, "warmup_steps": 0})


def test_recordings_without_events_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"AudioFolder has recordings without events.*data=podcastfillers"):
        run(store, tmp_path / "run", corpus=AudioFolder(root="nowhere"))
    other = write_store(tmp_path / "s", splits={"train": 2}, dim=16, frames=400, events=2)
    for path in other.glob("*/*/*/episode.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"files": [n for n in record["files"] if n != "events.json"]}))
    with pytest.raises(UserError, match=r"has no events: .*data=podcastfillers"):
        run(other, tmp_path / "run")


def test_other_labels_or_features_are_refused(
    trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    folder = str(trained[0])
    with pytest.raises(UserError, match=r"labels.shift: 5 -> 10"):
        run(store, tmp_path / "a", stage="test", ckpt=folder, shift=10)
    with pytest.raises(UserError, match=r"labels.mode: window -> interval"):
        run(store, tmp_path / "b", stage="test", ckpt=folder, labels={"mode": "interval"})
    other = write_store(tmp_path / "other", splits={"train": 1, "validation": 1, "test": 1}, dim=20, frames=600)
    with pytest.raises(UserError, match=r"features.features.dim: 16 -> 20"):
        run(other, tmp_path / "c", stage="test", ckpt=folder)


def test_training_can_start_from_weights(trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path) -> None:
    folder = str(trained[0])
    run(store, tmp_path / "run", ckpt=folder, optim={"lr": 0.0, "final_lr": 0.0}, trainer={"max_epochs": 1})
    ours, start = state(tmp_path / "run"), state(trained[0], "best.ckpt")
    assert all(torch.equal(ours[name], start[name]) for name in start)
    with pytest.raises(UserError, match=r"holds Linear.* this run has Mlp"):
        run(store, tmp_path / "mlp", ckpt=folder, model=Mlp())


def test_foreign_checkpoints_are_refused(store: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "voxlab": {"task": "train_tokenizer"}}, tmp_path / "codec.ckpt")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.ckpt")
    (tmp_path / "text.ckpt").write_text("no tensors")
    for name, words in (
        ("codec.ckpt", "is a checkpoint of task=train_tokenizer"),
        ("foreign.ckpt", "is a checkpoint of another program"),
        ("text.ckpt", "can't be read as a checkpoint"),
        ("absent", "no checkpoint is there"),
    ):
        with pytest.raises(UserError, match=words):
            load_predictor(tmp_path / name)
    with pytest.raises(UserError, match="stage=test needs a trained model"):
        run(store, tmp_path / "run", stage="test")


# ---- refusals before training --------------------------------------------------------------------------------------


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stage": "generate"}, "stage=generate: task=laughter has fit, test, stream, compare"),
    ({"stage": "compare"}, "stage=compare needs the folder of a sweep"),
    ({"stage": "stream"}, "stage=stream needs a trained run and a file"),
    ({"shift": 0}, "shift=0: shift must be an integer number of 80 ms frames >= 1"),
    ({"shift": 2.5}, "shift=2.5: shift must be an integer"),
    ({"shift": 1200}, "shift=1200 where the recording has 1200 frames"),
    ({"model": None}, "task=laughter needs a model: model=linear"),
    ({"loss": None}, "task=laughter needs a loss: loss=bce"),
    ({"optim": None}, None),  # type: ignore[list-item]
    ({"loss": {"mel": 1}}, "task=laughter takes loss=bce, focal, focal_sum or adaptive_focal"),
    ({"fit": {"norm": "batch"}}, "fit.norm=batch: choose standard or layernorm or none"),
    ({"fit": {"batchsize": 3}}, "fit.batchsize: there is no such key. Known: batch_size"),
    ({"fit": {"read_ahead": -1}}, "fit.read_ahead=-1"),
    ({"fit": {"patience": 0}}, "fit.patience=0"),
    ({"fit": {"monitor": "val/f1"}}, "fit.monitor=val/f1: choose val/ap or val/loss"),
    ({"fit": {"solver": "lbfgs"}, "model": Mlp()}, "fit.solver=lbfgs goes with model=linear, not model=mlp"),
    ({"sampling": {"rates": 1}}, "sampling.rates: there is no such key"),
    ({"labels": {"min_confidence": 1.5}}, "labels.min_confidence=1.5"),
    ({"labels": {"label": "Chuckle"}}, "no validation frame is positive"),
    ({"labels": {"label": "Chuckle"}, "fit": {"monitor": "val/loss"}, "thr": {"value": 0.5}}, "0 positive and"),
    ({"thr": {"value": 3}}, "thr.value=3"),
    ({"thr": {"beta": 2}}, "thr.beta: there is no such key. Known: objective"),
    ({"trainer": {"max_epochs": 0}}, "trainer.max_epochs=0"),
    ({"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches=2 does not go with task=laughter"),
    ({"trainer": {"val_check_interval": 10}}, "trainer.val_check_interval=10 does not go with"),
    ({"trainer": {"devices": 4}}, "ask for 4 processes, but 1 were started"),
    ({"trainer": {"gradient_clip_val": -1}}, "trainer.gradient_clip_val=-1"),
]


@pytest.mark.parametrize(
    ("changes", "words"), [case for case in REFUSED if case[1]], ids=[c[1] for c in REFUSED if c[1]]
)
def test_wrong_settings_are_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        run(store, tmp_path / "run", **changes)
    assert words in str(error.value)
    assert list((tmp_path / "run").iterdir()) == []


def test_validation_without_laughter_needs_another_monitor_and_a_threshold(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", splits={"train": 4, "validation": 1, "test": 1}, dim=16, frames=800)
    (path,) = store.glob("*/validation/*/events.json")
    path.write_text("[]")
    with pytest.raises(UserError, match=r"set fit.monitor=val/loss and thr.value"):
        run(store, tmp_path / "a")
    summary = run(store, tmp_path / "b", fit={"monitor": "val/loss"}, thr={"value": 0.02})
    assert summary["test/auroc"] > 0.8
    assert [row["val/ap"] for row in read_history(tmp_path / "b" / FILE) if "val/loss" in row] == [None] * 3


def test_codes_are_no_features(tmp_path: Path, store: Path) -> None:
    manifest = store.glob("*/manifest.json")
    (path,) = write_store(tmp_path / "s", splits={"train": 1}, dim=16, frames=400, events=2).glob("*/manifest.json")
    found = read_manifest(path.parent)
    assert found is not None
    found["settings"]["features"]["dtype"] = "int16"
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match="holds codes: names of sounds"):
        run(tmp_path / "s", tmp_path / "run")
    assert len(list(manifest)) == 1


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", splits={"train": 2, "validation": 1, "test": 1}, dim=16, frames=400, events=2)
    path = next(store.glob("*/train/*/a0.features.npy"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a0.features.npy .* instead of 12928"):
        run(store, tmp_path / "run")


def test_a_dry_run_tells_the_plan_and_writes_nothing(store: Path, tmp_path: Path) -> None:
    plan = run(store, tmp_path / "run", dry_run=True)
    assert list((tmp_path / "run").iterdir()) == []
    assert plan["train_events"] == 48
    assert plan["max_steps"] == 3 * plan["steps_per_epoch"]
    assert plan["test_prior"] == pytest.approx(30 / (1200 - 6 * 7), rel=0.02)


def test_too_large_steps_end_with_the_step(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the gradient has the norm (nan|inf).*Lower optim.lr"):
        run(store, tmp_path / "run", optim={"lr": 1e39, "weight_decay": 0.0}, fit={"norm": "none"})


# ---- figures of validation -----------------------------------------------------------------------------------------


def test_validation_figures_are_those_of_the_pooled_frames(store: Path, trained: tuple[Path, dict[str, Any]]) -> None:
    loss = BinaryCrossEntropy(pos_weight=1)
    loss.prepare(1, 1)
    episodes = scored(store, trained[0], "validation")
    row = validate(episodes, loss)
    z, y = (np.concatenate([getattr(item, name)[item.mask] for item in episodes]) for name in ("logit", "y"))
    assert row["val/ap"] == average_precision(z, y > 0)
    assert row["val/auroc"] == auroc(z, y > 0)
    assert row["val/prior"] == pytest.approx(y.mean())
    losses = np.logaddexp(0, z.astype(np.float64)) - z.astype(np.float64) * y
    assert row["val/loss"] == pytest.approx(losses.mean(), rel=1e-9)


# ---- what depends on the settings of a run -------------------------------------------------------------------------


def test_a_store_without_test_split_trains_and_shows_validation(tmp_path: Path) -> None:
    root = write_store(tmp_path / "s", splits={"train": 5, "validation": 2}, dim=16, frames=800, events=4)
    summary = run(root, tmp_path / "run", trainer={"max_epochs": 1})
    assert summary["val/ap"] > summary["val/prior"]
    assert not [name for name in summary if name.startswith("test/")]


def test_a_detector_has_no_alarms_to_announce(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"thr\.objective=event_f1 counts alarms before a laugh, labels\.mode=detect"):
        run(store, tmp_path / "a", labels={"mode": "detect"}, thr={"objective": "event_f1"})
    run(store, tmp_path / "b", labels={"mode": "detect"}, trainer={"max_epochs": 1})
    assert "they don't judge a detector" in caplog.text


def test_another_calibration_is_fitted_anew_and_not_passed_over(
    trained: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    plain = run(store, tmp_path / "run", stage="test", ckpt=str(trained[0]), eval={"calibrate": "none"})
    assert (plain["calibration/slope"], plain["calibration/intercept"]) == (1.0, 0.0)
    assert trained[1]["calibration/slope"] != 1.0
    assert plain["test/ap"] == trained[1]["test/ap"]


def test_the_record_says_how_a_model_was_trained(trained: tuple[Path, dict[str, Any]]) -> None:
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert metrics["optim"]["lr"] == 1e-2
    assert metrics["sampling"]["mode"] == "subsample"
    assert metrics["loop"]["max_epochs"] == 3


@pytest.mark.parametrize("shift", [0, -1])
def test_a_shift_that_is_none_is_refused_by_its_own_name(shift: int, store: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="shift must be an integer number of 80 ms frames"):
        run(store, tmp_path / "run", shift=shift)
