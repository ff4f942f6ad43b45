"""task=laughter through main.py: killed and resumed, on one to three ranks, stopped early on all, with its loggers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.laughter_stores import write_store
from tests.main_process import kill_when, random_step, run, start
from tests.tasks.laughter_runs import ROOT, SMALL, main, state
from voxlab.tasks.history import read_history

pytestmark = pytest.mark.slow
PREDICT = """
import json, sys
from pathlib import Path
import torch
from voxlab import parallel
from voxlab.data.feature_store import open_store
from voxlab.losses.events import BinaryCrossEntropy
from voxlab.metrics.events import pool
from voxlab.models.laughter import Gru
from voxlab.tasks.laughter.validation import validate
from voxlab.tasks.laughter.data import read_split
from voxlab.tasks.laughter.predict import predict
from voxlab.tasks.laughter.settings import read_labels

ranks = parallel.launched("cpu")
views = read_split(open_store(Path(sys.argv[1])), "test", read_labels({}, 5))
torch.manual_seed(0)
model = Gru(hidden=8).build(16)
loss = BinaryCrossEntropy(pos_weight=1)
loss.prepare(1, 1)
episodes = predict(model, views, ranks, "cpu")
frames = sum(len(episode.y) for episode in episodes)
row = validate(episodes, loss) | {"frames": frames, "keys": [episode.key for episode in episodes]}
Path(sys.argv[2], f"{ranks.world}-{ranks.rank}.json").write_text(json.dumps(row))
parallel.shutdown(ranks)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stores") / "s"
    return write_store(root, splits={"train": 12, "validation": 4, "test": 3}, dim=32, frames=3000, events=8)


def checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in row.items() if k != "train/frames_per_s"} for row in read_history(folder / "history.jsonl")
    ]


def test_a_killed_run_goes_on_to_the_same_bytes(store: Path, tmp_path: Path) -> None:
    """SIGKILL at a random step of the first four of six epochs, and another number of batches read ahead after it."""
    settings = [f"store={store}", "model=mlp", "model.hidden=16", "fit.batch_size=256", "fit.save_every=10"]
    settings += ["trainer.max_epochs=6", "trainer.log_every_n_steps=5"]
    checked(main(tmp_path, *settings, "hydra.run.dir=whole", "fit.read_ahead=4"))
    per_epoch = json.loads((tmp_path / "whole" / "metrics.json").read_text())["steps_per_epoch"]
    history = tmp_path / "cut" / "history.jsonl"
    process = start([*SMALL, *settings, "hydra.run.dir=cut", "fit.read_ahead=4"], tmp_path)
    step = random_step(30, 4 * per_epoch)
    kill_when(process, lambda: any(row["step"] >= step for row in read_history(history)))
    assert read_history(history)[-1]["step"] < 6 * per_epoch
    checked(main(tmp_path, "resume=cut", *settings, "fit.read_ahead=0"))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    for name in ("last.ckpt", "best.ckpt"):
        whole, cut = state(tmp_path / "whole", name), state(tmp_path / "cut", name)
        assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "cut")]
    assert {k: v for k, v in metrics[0].items() if k.startswith("test/")} == {
        k: v for k, v in metrics[1].items() if k.startswith("test/")
    }


@pytest.mark.parametrize("model", ["linear", pytest.param("gru", marks=pytest.mark.training)])
def test_two_ranks_give_the_metrics_of_one(model: str, store: Path, tmp_path: Path) -> None:
    settings = [f"store={store}", f"model={model}", "fit.read_ahead=0", "fit.block=64"]
    settings += ["model.hidden=8"] if model == "gru" else []
    checked(main(tmp_path, *settings, "hydra.run.dir=one"))
    checked(main(tmp_path, *settings, "hydra.run.dir=two", world=2))
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    names = [name for name in one if name.startswith(("test/", "val/")) and isinstance(one[name], int | float)]
    assert len(names) > 30
    assert {name: two[name] for name in names} == pytest.approx({name: one[name] for name in names}, abs=1e-6, rel=1e-6)
    for first, second in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)


def test_early_stopping_ends_all_ranks(store: Path, tmp_path: Path) -> None:
    settings = [f"store={store}", "fit.patience=1", "fit.min_delta=1", "trainer.max_epochs=50", "fit.read_ahead=0"]
    checked(main(tmp_path, *settings, "hydra.run.dir=run", world=2))
    assert len([row for row in rows(tmp_path / "run") if "val/ap" in row]) == 2


def test_scores_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    """73 episodes of 137 frames, 10,001 in all, on 1, 2 and 3 processes."""
    store = write_store(tmp_path / "s", splits={"test": 73}, dim=16, frames=137, events=1)
    script = tmp_path / "predict.py"
    script.write_text(PREDICT)
    for processes in (1, 2, 3):
        checked(run([store, tmp_path], tmp_path, script=script, world=processes))
    found = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*-*.json"))]
    assert len(found) == 6
    assert all(row == found[0] for row in found)
    assert found[0]["frames"] == 10001


def test_loggers_get_the_curves(store: Path, tmp_path: Path) -> None:
    settings = [f"store={store}", "trainer.max_epochs=2", "logger=local", "eval.plots=all"]
    checked(main(tmp_path, *settings, "hydra.run.dir=run"))
    header = (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/ap", "val/auroc", "step"} <= set(header)
    assert next((tmp_path / "run").glob("events.out.tfevents.*")).stat().st_size > 0
    assert "Learning rate" in (tmp_path / "run" / "report.html").read_text()


def test_what_users_see_when_the_store_does_not_fit(store: Path, tmp_path: Path) -> None:
    done = main(tmp_path, f"store={store}", "features.num_bins=20", "hydra.run.dir=run")
    assert done.returncode == 2
    assert "num_bins: 16 -> 20" in done.stderr + done.stdout
    changes = ["data.source=sample", "data.root='my corpus/P'", "features.num_bins=20"]
    done = main(tmp_path, *changes, "hydra.run.dir=run2")
    assert done.returncode == 2
    text = done.stderr + done.stdout
    assert "there are no features in extracted/podcastfillers-logmel" in text
    wanted = "data=podcastfillers data.source=sample 'data.root='\"'\"'my corpus/P'\"'\"'' features=logmel"
    assert f"python main.py task=extract {wanted} features.num_bins=20 out=extracted/podcastfillers-logmel" in text


def test_what_is_wrong_is_said_before_lightning_is_imported(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['main.py', 'task=laughter', 'features=logmel', 'dry_run=true', 'device=cpu']; "
        "from voxlab.tasks.laughter import fit, test, stream, chosen, task; "
        "assert not {'lightning', 'transformers', 'torchmetrics'} & set(sys.modules), 'imported'"
    )
    checked(subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False))
