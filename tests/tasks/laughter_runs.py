"""Runs of task=laughter for the tests: in this process, or through main.py as users start them."""

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from tests import main_process
from voxlab.losses.events import BinaryCrossEntropy
from voxlab.models.laughter import Linear
from voxlab.parallel import Ranks
from voxlab.tasks.laughter.task import laughter
from voxlab.tasks.optim import AdamWCosine

ROOT = Path(__file__).resolve().parents[2]
CONF = yaml.safe_load((ROOT / "conf" / "task" / "laughter.yaml").read_text())
NODES: dict[str, dict[str, Any]] = {
    "labels": CONF["labels"],
    "sampling": CONF["sampling"],
    "fit": {**CONF["fit"], "read_ahead": 0},
    "thr": CONF["thr"],
    "events": {**CONF["events"], "horizon": 5},
    "eval": {**CONF["eval"], "plots": "none", "bootstrap": 0},
    "optim": {**CONF["optim"], "lr": 1e-2},
    "trainer": {"max_epochs": 3, "log_every_n_steps": 10, "enable_progress_bar": False, "gradient_clip_val": 1.0},
}
SMALL = [
    *["task=laughter", "features=logmel", "features.num_bins=16", "device=cpu", "logger=none", "optim.lr=0.01"],
    *["eval.plots=none", "eval.bootstrap=0", "trainer.log_every_n_steps=10", "trainer.max_epochs=3"],
]


def run(store: Path | str, run_dir: Path, **changes: Any) -> dict[str, Any]:
    """Run in this process; changes of NODES are merged into them."""
    from lightning import Trainer

    run_dir.mkdir(parents=True, exist_ok=True)
    nodes = {name: {**node, **changes.pop(name, {})} for name, node in NODES.items()}
    given: dict[str, Any] = {
        **{"corpus": None, "features": None, "model": Linear(), "loss": BinaryCrossEntropy(pos_weight=1)},
        **{"stage": "fit", "shift": 5, "store": str(store), "ckpt": None, "runs": None, "audio": None, "seed": 0},
        **{"extraction": None},
        **{"dry_run": False, "ranks": Ranks(), "run_dir": run_dir},
        "optim": AdamWCosine(**nodes.pop("optim")),
        "trainer": partial(Trainer, **nodes.pop("trainer")),
    }
    return laughter(**{**given, **nodes, **changes})


def main(folder: Path, *settings: str, world: int = 1) -> subprocess.CompletedProcess[str]:
    """Run main.py in `folder`; its output is text."""
    return main_process.run([*SMALL, *settings], folder, world=world)


def state(run_dir: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's modules."""
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["state_dict"]
