"""trainer=fsdp: a model divided over two ranks is trained as on one, and goes on from checkpoints of either."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.laughter_stores import write_store
from tests.tasks.laughter_runs import main, state
from voxlab.tasks.history import read_history

pytestmark = pytest.mark.slow
# min_delta: the first epoch remains the best, and so best.ckpt is a state from which much is left to do
SETTINGS = [
    "model=mlp",
    "model.hidden=24",
    "model.dropout=0",
    "fit.read_ahead=0",
    "fit.block=64",
    "fit.min_delta=1",
    "fit.patience=null",
]

HOLDS = re.compile(r"this rank holds (\d+) of the model's (\d+) parameters")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run once on one rank, as `one`, and once divided over two, as `two`."""
    folder = tmp_path_factory.mktemp("fsdp")
    write_store(folder / "store", splits={"train": 6, "validation": 3, "test": 3}, frames=1500, events=5)
    train(folder, "one")
    train(folder, "two", "trainer=fsdp", world=2)
    return folder


def train(folder: Path, name: str, *more: str, world: int = 1) -> None:
    done = main(folder, f"store={folder / 'store'}", *SETTINGS, f"hydra.run.dir={name}", *more, world=world)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    found = read_history(run_dir / "history.jsonl")
    return [{name: value for name, value in row.items() if name != "train/frames_per_s"} for row in found]


def assert_close(one: Path, two: Path) -> None:
    for first, second in zip(rows(one), rows(two), strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
    for name in ("last.ckpt", "best.ckpt"):
        before, after = state(one, name), state(two, name)
        assert before.keys() == after.keys()
        assert max(float((before[key] - after[key]).abs().max()) for key in before) < 1e-5
    before, after = (json.loads((folder / "metrics.json").read_text()) for folder in (one, two))
    names = [name for name in before if name.startswith("test/") and isinstance(before[name], float)]
    assert len(names) > 15
    assert {key: after[key] for key in names} == pytest.approx({key: before[key] for key in names}, rel=1e-4, abs=1e-6)


def test_two_ranks_with_half_a_model_each_train_as_one(place: Path) -> None:
    """Losses, gradient norms of clipping, averages of the optimiser, figures of test."""
    assert_close(place / "one", place / "two")
    assert {"train/grad_norm", "train/loss"} <= rows(place / "two")[0].keys()
    logs = [(place / "two" / f"rank{rank}.log").read_text() for rank in (0, 1)]
    (first, all_of_it), (second, _) = (map(int, HOLDS.findall(text)[0]) for text in logs)
    assert first + second == all_of_it
    assert max(first, second) < 0.6 * all_of_it


def test_checkpoints_hold_the_whole_and_resume_exactly(place: Path) -> None:
    shutil.copytree(place / "two", place / "again")
    cut(place / "again")
    train(place, "again", "trainer=fsdp", world=2)
    assert rows(place / "again") == rows(place / "two")
    before, after = state(place / "two"), state(place / "again")
    assert all(torch.equal(before[key], after[key]) for key in before)


def cut(run_dir: Path) -> None:
    """Put a run back to its first epoch."""
    shutil.copyfile(run_dir / "checkpoints" / "best.ckpt", run_dir / "checkpoints" / "last.ckpt")


def test_what_does_not_go_with_it_is_said(place: Path) -> None:
    settings = [f"store={place / 'store'}", *SETTINGS, "trainer=fsdp", "dry_run=true"]
    alone = main(place, *settings)
    assert (alone.returncode, "and there is one. Use torchrun" in alone.stderr) == (2, True)
    half = main(place, *settings, "trainer.precision=16-mixed", world=2)
    assert (half.returncode, "choose 32-true or bf16-mixed" in half.stderr) == (2, True)
