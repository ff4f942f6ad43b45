"""Runs of task=train_tokenizer for the tests: in this process, or through main.py as users start them."""

import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from tests import main_process
from voxlab.codecs.rvq import Rvq
from voxlab.data.librispeech import LibriSpeech
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.parallel import Ranks
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.task import train_tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = MelArchitecture(
    hidden=16, down=(1, 2, 2), quantizer=QuantizerSettings(num_codebooks=3, codebook_size=8, decay=0.9)
)
LOSS = yaml.safe_load((ROOT / "conf" / "loss" / "tokenizer.yaml").read_text())
FIT = {
    **yaml.safe_load((ROOT / "conf" / "task" / "train_tokenizer.yaml").read_text())["fit"],
    **{"batch_size": 4, "segment_seconds": 0.5, "num_workers": 0, "warmup_steps": 3, "audio_every": 0, "save_every": 2},
}
TRAINER = {"max_steps": 8, "val_check_interval": 4, "log_every_n_steps": 1, "enable_progress_bar": False}
SMALL = [
    *["task=train_tokenizer", "codec=rvq_tiny", "codec.architecture.hidden=32", "device=cpu", "logger=none"],
    *["codec.architecture.quantizer.codebook_size=16", "data.source=sample", "data.subsets=null", "optim.lr=0.001"],
    *["data.split_fractions={train:0.75,validation:0.25}", "trainer.log_every_n_steps=1", "fit.batch_size=4"],
    *["fit.segment_seconds=1", "fit.audio_every=0"],
]


def sample(root: Path) -> LibriSpeech:
    """The sample corpus, with one of its speakers for validation."""
    fractions = {"train": 0.75, "validation": 0.25}
    return LibriSpeech(source="sample", root=str(root / "LibriSpeech"), subsets=None, split_fractions=fractions)


def train(run_dir: Path, corpus: Any, **changes: Any) -> dict[str, Any]:
    """Train in this process; changes of `fit` and `trainer` are merged into the defaults above."""
    from lightning import Trainer

    run_dir.mkdir(exist_ok=True)
    trainer = {**TRAINER, **changes.pop("trainer", {})}
    given: dict[str, Any] = {
        "codec": Rvq(weights=None, architecture=TINY, vocoder=GriffinLim(iterations=2)),
        "loss": LOSS,
        "optim": AdamWCosine(lr=1e-3),
        "trainer": partial(Trainer, **trainer),
        "fit": {**FIT, **changes.pop("fit", {})},
        **{"part": None, "stage": "fit", "test": {}, "audio": None, "out": None, "max_bad_fraction": 0.05},
        **{"ckpt": None, "seed": 0, "dry_run": False, "ranks": Ranks()},
    }
    return train_tokenizer(corpus=corpus, run_dir=run_dir, **{**given, **changes})


def run(folder: Path, *settings: str, world: int = 1) -> subprocess.CompletedProcess[str]:
    """Run main.py in `folder`; its output is text."""
    return main_process.run([*SMALL, *settings], folder, world=world)


def states(run_dir: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """All tensors of a checkpoint by name: modules, optimisers."""
    checkpoint = torch.load(run_dir / "checkpoints" / name, weights_only=True)
    moments = {
        f"optimizer.{number}.{index}.{key}": value
        for number, state in enumerate(checkpoint["optimizer_states"])
        for index, values in state["state"].items()
        for key, value in values.items()
    }
    return {**checkpoint["state_dict"], **moments}
