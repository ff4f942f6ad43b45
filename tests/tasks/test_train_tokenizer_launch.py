"""task=train_tokenizer through main.py: killed and resumed, on two ranks, and on real speech."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.main_process import kill_when, random_step, start
from tests.tasks.tokenizer_runs import SMALL, run, states
from voxlab.tasks.history import read_history

pytestmark = pytest.mark.slow
STEPS = ["trainer.max_steps=80", "trainer.val_check_interval=20", "fit.warmup_steps=10", "fit.save_every=10"]


def _losses(folder: Path) -> list[dict[str, Any]]:
    rows = read_history(folder / "history.jsonl")
    return [{name: value for name, value in row.items() if name != "train/audio_s_per_s"} for row in rows]


def _checked(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """SIGKILL at a random step of 80, and another number of workers after it."""
    _checked(run(tmp_path, *STEPS, "hydra.run.dir=whole", "fit.num_workers=2"))
    history = tmp_path / "cut" / "history.jsonl"
    process = start([*SMALL, *STEPS, "hydra.run.dir=cut", "fit.num_workers=2"], tmp_path)
    step = random_step(12, 65)
    kill_when(process, lambda: any(row["step"] >= step for row in read_history(history)))
    assert step <= read_history(history)[-1]["step"] < 80
    _checked(run(tmp_path, "resume=cut", *STEPS, "fit.num_workers=0"))
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")
    for name in ("codec.safetensors", "codec.json"):
        assert (tmp_path / "cut" / "codec" / name).read_bytes() == (tmp_path / "whole" / "codec" / name).read_bytes()
    expected, found = states(tmp_path / "whole"), states(tmp_path / "cut")
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_two_ranks_with_half_the_batch_are_one(tmp_path: Path) -> None:
    """After 50 steps with quantizer, dropout and revival; figures of validation and training too."""
    settings = ["trainer.max_steps=60", "trainer.val_check_interval=30", "fit.warmup_steps=10", "fit.num_workers=0"]
    settings += ["trainer.precision=64-true"]
    _checked(run(tmp_path, *settings, "hydra.run.dir=one"))
    _checked(run(tmp_path, *settings, "hydra.run.dir=two", world=2))
    one, two = states(tmp_path / "one"), states(tmp_path / "two")
    assert one.keys() == two.keys()
    assert int(one["network.quantizer.steps"]) == 60  # of which 50 after the start of the codebooks
    assert max(float((one[name].double() - two[name].double()).abs().max()) for name in one) < 1e-6
    for first, second in zip(_losses(tmp_path / "one"), _losses(tmp_path / "two"), strict=True):
        first.pop("train/z_std", None), second.pop("train/z_std", None)  # the mean of two ranks' deviations
        known = {name: value for name, value in first.items() if value is not None}  # null: a codebook nobody used
        assert known == pytest.approx({name: second[name] for name in known}, rel=1e-6, abs=1e-9)
        assert first.keys() == second.keys()


def test_loggers_get_the_curves_and_the_run_folder_serves_as_codec(tmp_path: Path) -> None:
    steps = [
        "trainer.max_steps=10",
        "trainer.val_check_interval=5",
        "logger=local",
        "fit.audio_every=10",
        "vocoder.iterations=2",
    ]
    _checked(run(tmp_path, *steps, "fit.num_clips=1", "hydra.run.dir=trained"))
    header = (tmp_path / "trained" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/loss", "vq/use/1", "step"} <= set(header)
    events = next((tmp_path / "trained").glob("events.out.tfevents.*")).read_bytes()
    assert b"clip-1/coded" in events
    assert (tmp_path / "trained" / "metrics.json").is_file()
    done = run(tmp_path, "stage=export", "codec.weights=trained", "out=exported", "hydra.run.dir=export")
    _checked(done)
    exported, trained = tmp_path / "exported", tmp_path / "trained" / "codec"
    assert (exported / "codec.safetensors").read_bytes() == (trained / "codec.safetensors").read_bytes()


# ---- real speech ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Path:
    folder = Path(os.environ.get("VOXLAB_REAL_DATA", "")) / "librispeech"
    if "VOXLAB_REAL_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("VOXLAB_REAL_DATA names no folder with librispeech/ in it")
    return folder


def _train_on(real: Path, folder: Path, *settings: str) -> tuple[dict[str, float], dict[str, float]]:
    """Train the tiny preset without speaker 3331; return the mean of the last 20 steps, and the row of validation."""
    own = [
        *["codec.architecture.hidden=128", "codec.architecture.quantizer.codebook_size=64", "fit.loudness=null"],
        *["data.source=disk", f"data.root={real}", "data.split_fractions={train:0.9,validation:0.1}"],
        *["data.split_seed=14", "fit.batch_size=8", "fit.segment_seconds=2", "fit.warmup_steps=60"],
        *["fit.ema_decay=0.98", "fit.quantizer_dropout=0", "trainer.max_steps=300", "trainer.val_check_interval=300"],
    ]
    _checked(run(folder, *own, *settings, "hydra.run.dir=run"))
    rows = read_history(folder / "run" / "history.jsonl")
    last = [row for row in rows if "train/loss" in row][-20:]
    mean = {name: sum(row[name] for row in last) / len(last) for name in last[-1] if name != "step"}
    return mean, [row for row in rows if "val/loss" in row][-1]


@pytest.mark.training
def test_it_learns_and_uses_its_codes(real: Path, tmp_path: Path) -> None:
    """A constant frame is off by 1.36 nats here."""
    train, val = _train_on(real, tmp_path)
    use = [train[f"vq/use/{book}"] for book in range(1, 9)]
    bits = [train[f"vq/entropy_bits/{book}"] for book in range(1, 9)]
    print(f"training {train['train/mel_l1']:.3f}, held out {val['val/mel_l1']:.3f} nats, {use=}, {bits=}")
    assert train["train/mel_l1"] <= 0.75
    assert val["val/mel_l1"] <= 1.0
    assert use[0] >= 0.95
    assert min(use) >= 0.75
    assert sum(bits) / 8 >= 5.0


@pytest.mark.training
def test_larger_codebooks_are_used_as_well(real: Path, tmp_path: Path) -> None:
    size = ["codec.architecture.quantizer.codebook_size=256", "trainer.max_steps=600", "trainer.val_check_interval=600"]
    train, val = _train_on(real, tmp_path, *size)
    use = [train[f"vq/use/{book}"] for book in range(1, 9)]
    print(f"training {train['train/mel_l1']:.3f}, held out {val['val/mel_l1']:.3f} nats, {use=}")
    assert sum(use) / 8 >= 0.75
