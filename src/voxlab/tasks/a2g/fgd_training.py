"""The network of `fgd_ae`: trained on the train split, kept beside the motion store, rebuilt from its file alone."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from voxlab.errors import UserError
from voxlab.models.gesture.motion_autoencoder import NUM_CHANNELS, STRIDE, MotionAutoencoder
from voxlab.motion.statistics import Statistics
from voxlab.progress import track
from voxlab.storage import atomic_write_bytes, fingerprint
from voxlab.tasks.a2g.protocols import FgdNet

SCHEMA = 2  # raise it when architecture or training change: kept networks are then trained anew
FOLDER = "fgd"
_log = logging.getLogger(__name__)


def obtain_net(
    clips: Sequence[np.ndarray],
    statistics: Statistics,
    settings: FgdNet,
    folder: Path,
    source: str,
    device: str = "cpu",
) -> tuple[MotionAutoencoder, str]:
    """Return the network and its id; trained at the first call, read from `folder` later.

    Args:
        clips: (T, 433) raw frames each, of the train split.
        statistics: of the same frames.
        settings: size and training.
        folder: of the motion store; the file goes into its folder fgd/.
        source: fingerprint of the motion of the train split.
        device: that it is trained on; the file is the same wherever it is read.

    Raises:
        UserError: there is no clip as long as a window.
    """
    record = {"schema": SCHEMA, "motion": source, "statistics": statistics.fingerprint}
    identity = fingerprint({**record, **dataclasses.asdict(settings)})
    path = folder / FOLDER / f"{identity}.safetensors"
    if not path.is_file():
        _log.info("training the network of fgd_ae: %d steps", settings.steps)
        network, loss = train_net(clips, statistics, settings, device)
        save_net(path, network, {**record, "settings": dataclasses.asdict(settings), "loss": loss})
    return load_net(path), identity


def train_net(
    clips: Sequence[np.ndarray], statistics: Statistics, settings: FgdNet, device: str = "cpu"
) -> tuple[MotionAutoencoder, float]:
    """Train from scratch; equal arguments give equal weights on a CPU.

    Args:
        clips: (T, 433) raw frames each.
        statistics: of the same frames.
        settings: size and training.
        device: to train on.

    Returns:
        the network, on the CPU, and its last loss.

    Raises:
        UserError: there is no clip as long as a window.
    """
    usable = [clip for clip in clips if len(clip) >= settings.window]
    if not usable:
        raise UserError(
            f"metrics.fgd.window={settings.window}: no clip of the train split has so many frames "
            f"(longest: {max(map(len, clips), default=0)}). Choose a smaller multiple of {STRIDE}, or more data."
        )
    mean, std = statistics.mean[:NUM_CHANNELS], statistics.std[:NUM_CHANNELS].astype(np.float64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = MotionAutoencoder(
            torch.as_tensor(mean), float(np.sqrt((std**2).mean())), settings.width, settings.dim
        )
    network.to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), settings.lr)
    draws, loss = np.random.default_rng(settings.seed), torch.zeros(())
    for _ in track(range(settings.steps), "training fgd_ae", "steps"):
        windows = torch.from_numpy(_draw_windows(usable, settings, draws)).to(device)
        loss = _loss(*network(windows))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.cpu().eval()
    network.fix_scale(torch.from_numpy(np.concatenate([encode_clip(network, clip) for clip in usable])))
    return network, float(loss.detach())


def _draw_windows(clips: Sequence[np.ndarray], settings: FgdNet, draws: np.random.Generator) -> np.ndarray:
    """Return (B, L, 330) windows, each place of each clip equally likely."""
    places = np.cumsum([len(clip) - settings.window + 1 for clip in clips])
    chosen = draws.integers(places[-1], size=settings.batch_size)
    owners = np.searchsorted(places, chosen, side="right")
    starts = chosen - np.r_[0, places][owners]
    return np.stack(
        [clips[owner][at : at + settings.window, :NUM_CHANNELS] for owner, at in zip(owners, starts, strict=True)]
    )


def _loss(reconstruction: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(reconstruction, target) + F.l1_loss(reconstruction.diff(dim=1), target.diff(dim=1))


def save_net(path: Path, network: MotionAutoencoder, record: dict[str, Any]) -> None:
    """Write network and record as one safetensors file."""
    from safetensors.torch import save

    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    atomic_write_bytes(path, save(tensors, {"voxlab": json.dumps(record, sort_keys=True)}))


def load_net(path: Path) -> MotionAutoencoder:
    """Rebuild what `save_net` wrote.

    Raises:
        UserError: the file is missing or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["voxlab"])["settings"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        network = MotionAutoencoder(torch.zeros(NUM_CHANNELS), 1.0, settings["width"], settings["dim"])
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise UserError(
            f"{path} holds no network of fgd_ae ({error}). Delete the file: the next evaluation trains it anew."
        ) from None
    return network.eval()


@torch.no_grad()
def encode_clip(network: MotionAutoencoder, frames: np.ndarray) -> np.ndarray:
    """Return (T // 16, dim) float32 features of (T, 433) raw frames; up to 15 frames at the end are left out."""
    kept = len(frames) // STRIDE * STRIDE
    if not kept:
        return np.zeros((0, network.dim), np.float32)
    return network.encode(torch.from_numpy(np.ascontiguousarray(frames[None, :kept, :NUM_CHANNELS])))[0].numpy()
