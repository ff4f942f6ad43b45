"""Runs of task=train_tokenizer codec=motion_rvq for the tests: in this process, on the sample corpus."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from voxlab.data.beat2 import Beat2
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvq
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.parallel import Ranks
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.task import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = MotionRvq(
    architecture=MotionArchitecture(
        width=32,
        depth=1,
        dropout=0.0,
        code_dim=16,
        quantizer=QuantizerSettings(num_codebooks=2, codebook_size=32, decay=0.95),
    )
)
TASK = yaml.safe_load((ROOT / "conf" / "task" / "train_tokenizer.yaml").read_text())
LOSS = yaml.safe_load((ROOT / "conf" / "loss" / "tokenizer.yaml").read_text())
FIT = {**TASK["fit"], "batch_size": 8, "save_every": 2, "warmup_steps": 2}
TRAINER = {"max_steps": 6, "val_check_interval": 3, "log_every_n_steps": 1, "enable_progress_bar": False}


def sample(folder: Path, **settings: Any) -> Beat2:
    """The sample corpus, written below a folder."""
    settings = {"source": "sample", "root": str(folder / "BEAT2"), "store": str(folder / "store"), **settings}
    return Beat2(**settings)


def with_weights(weights: str | Path, codec: MotionRvq = TINY) -> MotionRvq:
    return replace(codec, weights=str(weights))


def run(run_dir: Path, corpus: Any, **changes: Any) -> dict[str, Any]:
    """Run a stage in this process; changes of `fit`, `trainer` and `test` are merged into the defaults above."""
    from lightning import Trainer

    run_dir.mkdir(parents=True, exist_ok=True)
    merged: dict[str, Any] = {
        "trainer": partial(Trainer, **{**TRAINER, **changes.pop("trainer", {})}),
        "fit": {**FIT, **changes.pop("fit", {})},
        "test": {**TASK["test"], "clips": 0, **changes.pop("test", {})},
    }
    given: dict[str, Any] = {
        **{"codec": TINY, "loss": LOSS, "optim": AdamWCosine(lr=3e-3), "part": "upper", "stage": "fit"},
        **{"audio": None, "out": None, "max_bad_fraction": 0.05, "ckpt": None, "seed": 0, "dry_run": False},
        "ranks": Ranks(),
    }
    return train_tokenizer(corpus=corpus, run_dir=run_dir, **{**given, **merged, **changes})
