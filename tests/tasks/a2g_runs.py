"""Runs of task=a2g for the tests: corpus, stores and tokenizers made once, and stages in this process."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.tasks import motion_runs
from voxlab.data.beat2 import Beat2
from voxlab.data.motion_store import open_motion_store
from voxlab.features.logmel import LogMelFeatures
from voxlab.features.mfcc import Mfcc
from voxlab.losses.gesture import A2gLoss
from voxlab.models.gesture.fusion import FusionSettings
from voxlab.models.gesture.gesture_model import A2gModel
from voxlab.models.gesture.motion_codec import RECORD, part_record
from voxlab.models.tokenizer import files
from voxlab.motion.parts import columns, read_layout
from voxlab.motion.statistics import part_moments
from voxlab.parallel import Ranks
from voxlab.tasks.a2g.task import a2g
from voxlab.tasks.extract.features import extract_features
from voxlab.tasks.motion_statistics import train_statistics
from voxlab.tasks.optim import AdamWCosine

ROOT = Path(__file__).resolve().parents[2]
CONF = yaml.safe_load((ROOT / "conf" / "task" / "a2g.yaml").read_text())
PARTS = ("upper", "hands", "lower_trans", "face")
FEATURES: dict[str, Any] = {
    "features": Mfcc(num_coefficients=16, num_bins=64),
    "acoustic": LogMelFeatures(num_bins=16, align="raw"),
}
MODEL = A2gModel(
    text_width=16,
    audio_width=32,
    gesture_width=32,
    layers=1,
    heads=2,
    head_dim=16,
    streams=2,
    condition_dim=32,
    word_dim=8,
    head_width=32,
    dropout=0.0,
    fusion=FusionSettings(heads=2, layers=1, dropout=0.0),
)
NODES: dict[str, dict[str, Any]] = {
    "fit": {
        **CONF["fit"],
        "batch_size": 8,
        "ema_decay": 0.9,
        "masking": {**CONF["fit"]["masking"], "seed_tokens": CONF["sampling"]["seed_tokens"]},
    },
    "sampling": {**CONF["sampling"], "steps": 2},
    "generate": CONF["generate"],
    "metrics": {**CONF["metrics"], "fgd": {**CONF["metrics"]["fgd"], "width": 8, "dim": 4, "steps": 2}},
    "body": CONF["body"],
    "trainer": {"max_steps": 4, "log_every_n_steps": 1, "enable_progress_bar": False, "gradient_clip_val": 1.0},
}


@dataclass(frozen=True)
class Made:
    """What runs start from."""

    corpus: Beat2
    stores: dict[str, str]
    tokenizers: str


def make(folder: Path) -> Made:
    """Write the sample corpus, extract its features, and train four tokenizers for a few steps."""
    corpus: Any = motion_runs.sample(folder)
    corpus.prepare()
    stores = {name: str(folder / name) for name in FEATURES}
    for name, features in FEATURES.items():
        place: dict[str, Any] = {"ranks": Ranks(), "run_dir": folder / "extract" / name}
        extract_features(corpus, features, stores[name], verify="size", max_bad=0.0, dry_run=False, **place)
    for part in PARTS:
        write_tokenizer(corpus, part, folder / "tokenizers" / part)
    return Made(corpus, stores, str(folder / "tokenizers"))


def write_tokenizer(corpus: Any, part: str, folder: Path, seed: int = 0) -> None:
    """Write a tokenizer whose codebooks are latents of its random encoder: codes vary, though nothing is learned."""
    store, layout = open_motion_store(corpus), read_layout(corpus.layout)
    chosen = layout.part(part)
    architecture = motion_runs.TINY.of_part(chosen)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = architecture.build().eval()
    statistics = train_statistics(store, Ranks())
    network.set_statistics(*map(torch.from_numpy, part_moments(statistics, chosen, layout)))
    with torch.no_grad():
        frames = torch.from_numpy(store.split("train")[0].frames()[:, columns(chosen)].copy())
        latents = network.encode_latents(network.normalize(frames)[None])[0]
        network.quantizer.initialize(latents, len(latents), seed)
    facts = {RECORD: part_record(chosen, layout, store.fps, corpus.trans)}
    files.export(network, architecture, folder / files.SUBFOLDER, facts)


def run(made: Made, run_dir: Path, **changes: Any) -> dict[str, Any]:
    """Run a stage in this process; changes of NODES are merged into them."""
    from lightning import Trainer

    run_dir.mkdir(parents=True, exist_ok=True)
    nodes = {name: {**node, **changes.pop(name, {})} for name, node in NODES.items()}
    given: dict[str, Any] = {
        **{"corpus": made.corpus, "model": MODEL, "loss": A2gLoss(), "optim": AdamWCosine(lr=3e-3)},
        **{"features": FEATURES["features"], "acoustic": FEATURES["acoustic"], "stores": made.stores},
        **{"stage": "fit", "tokenizers": made.tokenizers, "audio": None, "predicted": None, "reference": None},
        **{
            "out": None,
            "render": "none",
            "any_fps": False,
            "max_bad_fraction": 0.05,
            "ckpt": None,
            "seed": 0,
            "dry_run": False,
            "ranks": Ranks(),
        },
        **{"extraction": {"features": "data=beat2 features=mfcc", "acoustic": "data=beat2 features=logmel"}},
        "trainer": partial(Trainer, **nodes.pop("trainer")),
    }
    return a2g(run_dir=run_dir, **{**given, **nodes, **changes})
