"""Features of recordings, brought to the times of motion frames: from the stores of task=extract, or from a file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.codecs.weights import RANDOM
from voxlab.data.feature_store import FeatureStore, StoredEpisode, corpus_settings, open_store
from voxlab.data.items import file_stamp
from voxlab.data.motion_store import StoredClip
from voxlab.data.names import listed
from voxlab.errors import UserError
from voxlab.features.base import Recording
from voxlab.features.interpolate import at_frames, frame_times
from voxlab.parallel import Ranks, gather
from voxlab.progress import track
from voxlab.storage import differences
from voxlab.tasks.moments import Moments, merge

_MIN_STD = 1e-5


@dataclass(frozen=True)
class Moments32:
    """Mean and standard deviation of each number of a feature over the training recordings, (D,) float32."""

    mean: Tensor
    std: Tensor

    def apply(self, features: Tensor) -> Tensor:
        """Return (..., D) features with mean 0 and standard deviation 1."""
        return (features - self.mean.to(features)) / self.std.to(features)


@dataclass(frozen=True)
class Track:
    """The features of one clip.

    Attributes:
        rows: (n, D) by slice, a `FrameFile` or an array.
        times: (n,) float64, seconds of the clip's own clock, on which motion frame i is at (i + 0.5) / fps.
    """

    rows: Any
    times: np.ndarray


@dataclass(frozen=True)
class FeatureTracks:
    """One kind of features for all clips of a motion store.

    Attributes:
        tracks: clip id -> its features.
        record: settings and fingerprint of the store, what a checkpoint keeps.
        dim: numbers a row.
        flags: remarks for every figure: random_weights, sample.
    """

    tracks: Mapping[str, Track]
    record: dict[str, Any]
    dim: int
    flags: Mapping[str, bool]


def open_tracks(
    root: str, features: Any, corpus: Any, clips: Sequence[StoredClip], *, key: str, extraction: str | None
) -> FeatureTracks:
    """Open the store of features that fits, with a track for each clip.

    Args:
        root: folder that task=extract wrote.
        features: the features node, not loaded.
        corpus: the data node.
        clips: of the motion store.
        key: of the configuration, for messages: "features" or "acoustic".
        extraction: words of the command line that choose corpus and features.

    Raises:
        UserError: no store fits, it holds codes, it lacks clips, or a recording has changed since.
    """
    store = open_features(root, features, corpus, key=key, extraction=extraction)
    episodes = {episode.id: episode for episode in store.episodes}
    again = f"python main.py task=extract {extraction or '...'} out={root}"
    missing = [clip.id for clip in clips if clip.id not in episodes]
    if missing:
        raise UserError(
            f"{store.folder} has no features of {len(missing)} of {len(clips)} clips, for example {missing[0]}. "
            f"Extract them: {again}"
        )
    stale = [line for clip in clips if (line := _stale(episodes[clip.id], clip))]
    if stale:
        raise UserError(
            f"{store.folder} holds features of recordings that have changed since, {len(stale)} of {len(clips)}:\n  "
            + listed(stale, "\n  ")
            + f"\nExtract them anew: {again}"
        )
    tracks = {clip.id: _track(episodes[clip.id], store.features, clip) for clip in clips}
    record = {"fingerprint": store.fingerprint, **plain(store.settings["features"])}
    return FeatureTracks(tracks, record, int(store.features["dim"]), dict(store.flags))


def open_features(root: str, features: Any, corpus: Any, *, key: str, extraction: str | None) -> FeatureStore:
    """Open the store of features that fits; arguments as in `open_tracks`.

    Raises:
        UserError: no store fits, it holds codes, or features of other weights.
    """
    wanted, data = plain(features.settings()) | _weights(features), corpus_settings(corpus)
    store = open_store(root, features=wanted, data=data, extraction=extraction, key=f"stores.{key}")
    if store.features["dtype"] == "int16":
        raise UserError(f"stores.{key}={root} holds codes: names of sounds, no quantities. Extract features=mfcc, ...")
    _check_weights(store, features, key)
    return store


def _weights(features: Any) -> dict[str, str]:
    """Return weights_id as a store has it, where it is known without a download; features without weights have none."""
    asked = getattr(features, "weights", None)
    if asked == RANDOM:
        return {"weights_id": f"{RANDOM}:{features.random_seed}"}
    return {} if asked is None or not Path(asked).expanduser().exists() else {"weights_id": features.info.weights_id}


def _check_weights(store: FeatureStore, features: Any, key: str) -> None:
    """Refuse weights of the hub, which are known by their name, that are not those of the store.

    Raises:
        UserError: names both.
    """
    asked, stored = getattr(features, "weights", None), str(store.features["weights_id"])
    if asked is None or _weights(features):
        return
    name = RANDOM if stored.startswith(RANDOM) else store.asked.get("weights", asked)
    if name != asked:
        raise UserError(
            f"{store.folder} was made with {key}.weights={name} ({stored}), now {key}.weights={asked}. Set "
            f"{key}.weights={name}, or extract with {asked}."
        )


def _stale(episode: StoredEpisode, clip: StoredClip) -> str:
    """Say how a recording differs from the one that its features were made from; empty where it does not."""
    was, now = str(episode.source.get("stamp")), file_stamp(clip.wav)
    if was == now:
        return ""
    sizes = [stamp.partition(":")[0] for stamp in (was, now)]
    return f"{clip.wav}: " + (" -> ".join(sizes) + " bytes" if sizes[0] != sizes[1] else "written at another time")


def _track(episode: StoredEpisode, settings: Mapping[str, Any], clip: StoredClip) -> Track:
    return Track(episode.features(0), frame_times(settings, episode.num_frames) - clip.wav_start)


def measure_moments(tracks: Mapping[str, Track], clips: Sequence[StoredClip], ranks: Ranks) -> Moments32:
    """Return the moments over all rows of some clips; collective, the same for any number of ranks."""
    own = {}
    for number in track(range(ranks.rank, len(clips), ranks.world), "feature statistics", "clips"):
        rows = tracks[clips[number].id].rows
        values = np.asarray(rows[0 : len(rows)], np.float64)
        mean = values.mean(0)
        own[number] = (len(values), mean, np.square(values - mean).sum(0))
    every: dict[int, Moments] = {number: value for part in gather(ranks, own) for number, value in part.items()}
    total = every[0]
    for number in range(1, len(clips)):
        total = merge(total, every[number])
    count, mean, squares = total
    std = np.sqrt(squares / count)
    std[std < _MIN_STD] = 1.0
    return Moments32(torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32)))


def plain(values: Any) -> Any:
    """Return nested mappings and sequences as JSON has them."""
    return json.loads(json.dumps(values))


def check_features(features: Any, record: Mapping[str, Any], path: Any, words: str) -> None:
    """Refuse other features than those that a model was trained on.

    Args:
        features: the features node, not loaded.
        record: of the checkpoint.
        path: of the checkpoint, for messages.
        words: of the command line that chose them.

    Raises:
        UserError: names the features to choose, or the settings that differ.
    """
    if features is None:
        raise UserError(f"{path} was trained with {words}: add these words.")
    now, was = plain(features.settings()), record["weights_id"].startswith(RANDOM)
    if (getattr(features, "weights", None) == RANDOM) != was:
        weights = "random weights" if was else "trained weights"
        raise UserError(f"{path} was trained with {words}, of {weights}, unlike those chosen now: add these words.")
    lines = differences({name: record[name] for name in now if name in record}, now)
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"{path} was trained with {words}, on other ones (checkpoint -> now):\n  {listed}\nAdd these words."
        )


def extract(features: Any, wav: Tensor, name: str, num_frames: int, fps: int) -> np.ndarray:
    """Compute the features of one recording at motion frames.

    Args:
        features: loaded.
        wav: (1, S) float32 at `features.info.sample_rate`.
        name: of the recording.
        num_frames: of the motion.
        fps: frames a second.

    Returns:
        (num_frames, D) float32.
    """
    rows = -(-wav.shape[-1] // features.info.hop_length)
    recording = Recording(key=name, num_frames=rows, load=lambda: (None, wav))
    chunks = [chunk.values for chunk in features.stream([recording]) if chunk.name == "features"]
    values = np.concatenate(chunks).astype(np.float32)
    return at_frames(values, frame_times(features.fingerprint(), len(values)), num_frames, fps)
