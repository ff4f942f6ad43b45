"""task=a2g through main.py: killed and resumed, and on two ranks."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.main_process import kill_when, random_step, run, start
from tests.tasks.a2g_runs import Made
from voxlab.tasks.history import read_history

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    checked(run([*words(made), "hydra.run.dir=whole"], folder))
    return folder


def words(made: Made) -> list[str]:
    return [
        *["task=a2g", "data.source=sample", f"data.root={made.corpus.root}", f"data.store={made.corpus.store}"],
        *["features=mfcc", "features.num_coefficients=16", "features.num_bins=64", "features@acoustic=none"],
        *[f"stores.features={made.stores['features']}", f"tokenizers={made.tokenizers}", "model=a2g_tiny"],
        *["model.layers=1", "model.fusion.dropout=0", "fit.batch_size=10", "fit.save_every=2", "sampling.steps=1"],
        *["metrics.fgd.width=8", "metrics.fgd.dim=4", "metrics.fgd.steps=2", "render=none", "logger=none"],
        *["trainer.max_epochs=3", "trainer.log_every_n_steps=1", "optim.lr=0.001", "device=cpu"],
    ]


def checked(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def state(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["state_dict"]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    found = read_history(run_dir / "history.jsonl")
    return [{name: value for name, value in row.items() if name != "train/steps_per_s"} for row in found]


def test_a_killed_run_goes_on_to_the_same_bytes(made: Made, whole: Path) -> None:
    history = whole / "cut" / "history.jsonl"
    process = start([*words(made), "hydra.run.dir=cut"], whole)
    step = random_step(3, 16)
    kill_when(process, lambda: any(row["step"] >= step for row in read_history(history)))
    assert read_history(history)[-1]["step"] < 21
    checked(run([*words(made), "resume=cut"], whole))
    assert rows(whole / "cut") == rows(whole / "whole")
    for name in ("last.ckpt", "best.ckpt"):
        before, after = state(whole / "whole", name), state(whole / "cut", name)
        assert [key for key in before if not torch.equal(before[key], after[key])] == []
    for path in (whole / "whole" / "predicted").iterdir():
        assert path.read_bytes() == (whole / "cut" / "predicted" / path.name).read_bytes()


def test_a_repeated_run_gives_the_same_figures_and_motion(whole: Path) -> None:
    checked(run(["rerun=whole", "hydra.run.dir=repeated"], whole))
    assert json.loads((whole / "repeated" / "rerun.json").read_text())["same_figures"] is True
    assert rows(whole / "repeated") == rows(whole / "whole")
    for path in (whole / "whole" / "predicted").iterdir():
        assert path.read_bytes() == (whole / "repeated" / "predicted" / path.name).read_bytes()


def test_two_ranks_train_as_one(made: Made, whole: Path) -> None:
    checked(run([*words(made), "hydra.run.dir=two"], whole, world=2))
    one, two = rows(whole / "whole"), rows(whole / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for before, after in zip(one, two, strict=True):
        names = {name for name in before if name.endswith(("/ce", "/rec", "/velocity", "/loss"))}
        assert {name: before[name] for name in names} == pytest.approx({name: after[name] for name in names}, rel=1e-3)
    before, after = state(whole / "whole", "last.ckpt"), state(whole / "two", "last.ckpt")
    moved = [float((before[key] - after[key]).abs().max()) for key in before]
    assert max(moved) < 5e-3
