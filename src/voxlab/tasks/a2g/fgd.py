"""The features that FGDs compare, each under a name of its own: distances of different features don't compare."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from voxlab.data.motion_store import MotionStore
from voxlab.errors import UserError
from voxlab.metrics import beats
from voxlab.metrics.errors import NotMeasurable
from voxlab.metrics.frechet import Gaussian, fit_gaussian
from voxlab.motion.clip import NUM_JOINTS
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.parts import Part, columns
from voxlab.motion.skeleton import UPPER_JOINTS, Skeleton
from voxlab.motion.statistics import Statistics
from voxlab.tasks.a2g.fgd_training import encode_clip, obtain_net
from voxlab.tasks.a2g.protocols import Metrics
from voxlab.tasks.motion_statistics import train_fingerprint

RAW_WINDOW = 16  # frames
_UPPER = columns(Part("upper", UPPER_JOINTS))


@dataclass(frozen=True)
class FeatureNet:
    """A way from motion to feature vectors.

    Attributes:
        name: of the metric: fgd_raw, fgd_ae, fgd_emage.
        id: tells weights or definition apart.
        features: (T, 433) raw frames of a clip -> (n, d); n may be 0 for a short clip.
    """

    name: str
    id: str
    features: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TrainReference:
    """What the train split gives to the evaluation.

    Attributes:
        mean_speeds: (55,) m/s that beats are relative to.
        source: where they come from: "train", "file", or "references" (the clips evaluated).
        features: name of a net -> Gaussian of the train split's features, for the distance that real motion has.
    """

    mean_speeds: np.ndarray
    source: str
    features: Mapping[str, Gaussian] = field(default_factory=dict)


def raw_net(statistics: Statistics) -> FeatureNet:
    """Return features that need no training: of each 16 frames the upper body's mean pose and its joints' speeds.

    78 means of the normalised 6D values and 13 means of the norm of a joint's change from frame to frame; a window
    begins at each frame.
    """
    mean, std = statistics.mean[_UPPER], statistics.std[_UPPER]

    def features(frames: np.ndarray) -> np.ndarray:
        if len(frames) <= RAW_WINDOW:
            return np.zeros((0, len(_UPPER) + len(UPPER_JOINTS)))
        values = (frames[:, _UPPER].astype(np.float64) - mean) / std
        steps = np.linalg.norm(np.diff(values, axis=0).reshape(len(values) - 1, -1, 6), axis=-1)
        return np.concatenate([_sliding_mean(values[:-1]), _sliding_mean(steps)], axis=1)

    return FeatureNet("fgd_raw", f"upper 6D and speeds over {RAW_WINDOW} frames", features)


def _sliding_mean(values: np.ndarray) -> np.ndarray:
    sums = np.cumsum(np.concatenate([np.zeros_like(values[:1]), values]), axis=0)
    return (sums[RAW_WINDOW:] - sums[:-RAW_WINDOW]) / RAW_WINDOW


def trained_net(store: MotionStore, statistics: Statistics, settings: Metrics, device: str = "cpu") -> FeatureNet:
    """Return the features of our own autoencoder, trained on the train split at the first call."""
    clips, source = [clip.frames() for clip in store.split("train")], train_fingerprint(store)
    network, identity = obtain_net(clips, statistics, settings.fgd, store.folder, source, device)
    return FeatureNet("fgd_ae", identity, lambda frames: encode_clip(network, frames))


def emage_net(path: Path) -> FeatureNet:
    """Return the features of EMAGE's autoencoder, which the published figures compare.

    Raises:
        UserError: the file is missing or of another network.
    """
    from voxlab.models.gesture.skeleton_encoder import CROP, NUM_CHANNELS, load_skeleton_encoder

    encoder = load_skeleton_encoder(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]

    @torch.no_grad()
    def features(frames: np.ndarray) -> np.ndarray:
        kept = len(frames) // CROP * CROP
        if not kept:
            return np.zeros((0, encoder.dim))
        return encoder.encode(torch.tensor(frames[None, :kept, :NUM_CHANNELS]))[0].numpy()

    return FeatureNet("fgd_emage", digest, features)


def feature_nets(
    store: MotionStore, statistics: Statistics, settings: Metrics, device: str = "cpu"
) -> list[FeatureNet]:
    """Return all features that the settings ask for: fgd_raw, fgd_ae, and fgd_emage where its weights are given."""
    nets = [raw_net(statistics), trained_net(store, statistics, settings, device)]
    return nets + ([emage_net(Path(settings.fgd_emage))] if settings.fgd_emage else [])


def train_reference(
    store: MotionStore, skeleton: Skeleton, nets: Sequence[FeatureNet], settings: Metrics
) -> TrainReference:
    """Go through the train split: how fast joints move, and where its features lie.

    Raises:
        UserError: metrics.mean_speeds is no file of 55 positive numbers.
    """
    clips = store.split("train")
    if settings.mean_speeds:
        speeds, source = read_mean_speeds(Path(settings.mean_speeds)), "file"
    else:
        motions = (clip.motion() for clip in clips)
        speeds, source = mean_speeds((joint_positions(motion, skeleton), motion.fps) for motion in motions), "train"
    features: dict[str, Gaussian] = {}
    for net in nets:
        with contextlib.suppress(NotMeasurable):  # a train split shorter than a window has no distance to show
            features[net.name] = fit_gaussian(net.features(clip.frames()) for clip in clips)
    return TrainReference(speeds, source, features)


def mean_speeds(clips: Iterable[tuple[np.ndarray, int]]) -> np.ndarray:
    """Return the (55,) mean speed in m/s of each joint over clips of positions (T, 55, 3) with translation, and fps.

    A clip of a single frame has no speed and doesn't count.
    """
    total, frames = np.zeros(NUM_JOINTS), 0
    for positions, fps in clips:
        if len(positions) < 2:
            continue
        total += beats.joint_speeds(positions, fps).sum(0)
        frames += len(positions)
    return total / max(frames, 1)


def read_mean_speeds(path: Path) -> np.ndarray:
    """Read (55,) mean joint speeds in m/s from an .npy file.

    Raises:
        UserError: the file is missing, or holds something else.
    """
    try:
        speeds = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"metrics.mean_speeds={path}: can't be read as .npy ({error}).") from None
    if speeds.shape != (NUM_JOINTS,) or not (speeds > 0).all():
        raise UserError(
            f"metrics.mean_speeds={path}: an array {speeds.shape} from {np.min(speeds, initial=0):g}; needed: "
            f"({NUM_JOINTS},) positive speeds in m/s, or metrics.mean_speeds=null for those of the train split."
        )
    return speeds.astype(np.float64)
