"""What `task=extract features=...` leaves behind, opened for training: a folder per fingerprint, a folder per episode.

<out>/<fingerprint>/{manifest.json, index.json}, <split>/<episode>/{a0.features.npy, events.json, ..., episode.json}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from voxlab.data.episodes import EpisodeCorpus, Event
from voxlab.data.frame_file import FrameFile, open_frames
from voxlab.data.items import AudioCorpus
from voxlab.data.names import listed
from voxlab.data.store_search import as_stored, command, differing, explain, find
from voxlab.errors import UserError
from voxlab.storage import MANIFEST

INDEX, EPISODE = "index.json", "episode.json"
EVENTS, VAD, ENERGY, CONTEXT = "events.json", "vad.npy", "energy.npy", "context.npy"
VERSION = 1  # of the layout; part of the fingerprint


def features_file(view: int, name: str = "features") -> str:
    """Return the file name of a view's features or codes."""
    return f"a{view}.{name}.npy"


def as_episodes(corpus: AudioCorpus) -> EpisodeCorpus | None:
    """Return a corpus as one of annotated episodes; None: it has recordings only."""
    return cast("EpisodeCorpus", corpus) if hasattr(corpus, "annotation") else None


def corpus_settings(corpus: AudioCorpus) -> dict[str, Any]:
    """Return what of a corpus decides the features: part of the fingerprint of a store."""
    episodes = as_episodes(corpus)
    sample = getattr(corpus, "source", None) == "sample"
    own = {"downmix": True} if episodes is None else dict(episodes.settings)
    return {"corpus": type(corpus).__name__, "sample": sample, **own}


@dataclass(frozen=True)
class StoredEpisode:
    """One recording of a store; all files are as `episode.json` describes them, or reading one is a UserError.

    Attributes:
        folder: of its files.
        key: name of that folder.
        id: of the recording in its corpus.
        name: as the corpus calls it.
        show: what it belongs to, the unit of statistics; its own name where nothing is known.
        split: train, validation or test.
        num_frames: T of every array.
        duration: in seconds.
        frame_rate: frames a second.
        dim: numbers per frame.
        dtype: of the numbers.
        views: a dict each: index, user, others, user_ratio.
        speakers: that are known; None where speakers aren't told apart.
        files: names of the files that there are.
        source: what it was made from: path and stamp of the audio, at least.
        again: the command that makes them again.
    """

    folder: Path
    key: str
    id: str
    name: str
    show: str
    split: str
    num_frames: int
    duration: float
    frame_rate: float
    dim: int
    dtype: str
    views: tuple[Mapping[str, Any], ...]
    speakers: tuple[str, ...] | None
    files: tuple[str, ...]
    source: Mapping[str, Any]
    again: str

    def features(self, view: int = 0) -> FrameFile:
        """Open the (T, D) features of a view; the file's size and shape are checked now, its values as they are read.

        Raises:
            UserError: there is no such view, or the file is damaged or of another shape or type.
        """
        if view not in range(len(self.views)):
            raise UserError(f"{self.folder} has {len(self.views)} views; there is no view {view}.")
        path = self.folder / features_file(view)
        owner = f"episode {self.name}, view {view}"
        return open_frames(
            path, num_frames=self.num_frames, dim=self.dim, dtype=self.dtype, owner=owner, again=self.again
        )

    @property
    def has_events(self) -> bool:
        """Whether its corpus has annotated it."""
        return EVENTS in self.files

    def events(self) -> list[Event]:
        """Return all annotated events.

        Raises:
            UserError: the recording has no annotation, or the file is damaged.
        """
        path = self.folder / EVENTS
        if not self.has_events:
            raise UserError(
                f"{self.folder} has no {EVENTS}: its corpus knows no events. Labels need a corpus that has them, for "
                "example data=podcastfillers."
            )
        try:
            return [Event(**fields) for fields in json.loads(path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} can't be read ({error}). Run {self.again} again.") from error

    def vad(self) -> np.ndarray | None:
        """Return the voice activity (T,) float32, mean of each frame, 0 to 1; None where the corpus has none."""
        return self._series(VAD)

    def energy(self) -> np.ndarray | None:
        """Return the level of all that is heard in each frame (not those before it), (T,) float32 RMS in dB."""
        return self._series(ENERGY)

    def context_frames(self) -> np.ndarray | None:
        """Return how many past frames each frame has seen, (T,); None: all that there are."""
        return self._series(CONTEXT)

    def _series(self, name: str) -> np.ndarray | None:
        if name not in self.files:
            return None
        path = self.folder / name
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} can't be read ({error}). Run {self.again} again.") from error
        if values.shape != (self.num_frames,):
            raise UserError(
                f"{path} has the shape {values.shape}; expected ({self.num_frames},). Run {self.again} again."
            )
        return values.astype(np.float32) if values.dtype == np.float16 else values


@dataclass(frozen=True)
class FeatureStore:
    """The features of a corpus.

    Attributes:
        folder: named after the fingerprint.
        settings: what decides the bytes: "features" (with name, dim, frame_rate, sample_rate, dtype, weights_id),
            "data", "resampler", "store".
        fingerprint: of the settings, 12 hexadecimal digits.
        episodes: by split and name.
        missing: id -> reason of recordings that have no features, though their number was accepted.
        flags: remarks for every figure made from the features: random_weights, sample, uses_oracle_mask,
            uses_oracle_text.
        asked: by what name the weights were asked for, see `store_writer.begin_store`; empty where nothing is told.
    """

    folder: Path
    settings: Mapping[str, Any]
    fingerprint: str
    episodes: tuple[StoredEpisode, ...]
    missing: Mapping[str, str]
    flags: Mapping[str, bool]
    asked: Mapping[str, Any]

    @property
    def features(self) -> Mapping[str, Any]:
        """What the features are: name, dim, frame_rate, sample_rate, dtype, weights_id and their own settings."""
        return self.settings["features"]

    def split(self, name: str) -> list[StoredEpisode]:
        """Return the episodes of a split.

        Raises:
            UserError: there are none; names the splits that there are.
        """
        found = [episode for episode in self.episodes if episode.split == name]
        if not found:
            splits = sorted({episode.split for episode in self.episodes})
            raise UserError(f"{self.folder} has no episode of the split {name}; it has {', '.join(splits) or 'none'}.")
        return found


def open_store(
    root: Path | str,
    *,
    features: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    partial: bool = False,
    extraction: str | None = None,
    key: str = "store",
    known: str | None = None,
) -> FeatureStore:
    """Open the store below `root` that fits.

    Args:
        root: the folder `out` of task=extract, or that of one fingerprint in it; with a `*` in its name, all folders
            that are named so.
        features: settings that the features must have, any part of them; None takes what there is.
        data: settings that the corpus must have, any part of `corpus_settings`.
        partial: take an unfinished store as well.
        extraction: words of the command line that choose corpus and features, for messages; None: their names.
        key: of the configuration that holds `root`, for messages.
        known: fingerprint of the store to take where several fit.

    Raises:
        UserError: no store, none or several that fit (with the keys that differ), or an unfinished extraction.
    """
    root = Path(root)
    found, wanted = find(root), as_stored(features, data)
    if not found:
        cheaper = "" if features else "\nfeatures=moshi needs its weights, features=logmel none."
        cheaper += "" if features or wanted["data"].get("sample") else " Without any data: data.source=sample."
        raise UserError(
            f"there are no features in {root}: no folder in it has a {MANIFEST} of task=extract. Make them with\n"
            f"  {command(root, wanted, extraction)}{cheaper}"
        )
    changed = {folder: differing(manifest["settings"], wanted) for folder, manifest in found.items()}
    fitting = [folder for folder, lines in changed.items() if not lines]
    if len(fitting) > 1:
        fitting = [folder for folder in fitting if found[folder]["fingerprint"] == known] or fitting
    if len(fitting) != 1:
        raise UserError(explain(root, found, changed, fitting, wanted, extraction, key))
    return _open(fitting[0], found[fitting[0]], partial, extraction)


def has_finished(root: Path | str, data: Mapping[str, Any]) -> bool:
    """Whether `root`, as in `open_store`, holds features of every recording of a corpus with these settings."""
    wanted = as_stored(None, data)
    return any(
        not differing(manifest["settings"], wanted)
        and (folder / INDEX).is_file()
        and not _refused(_read_json(folder / INDEX, command(folder.parent, manifest["settings"])))
        for folder, manifest in find(Path(root)).items()
    )


def _open(folder: Path, manifest: Mapping[str, Any], partial: bool, extraction: str | None) -> FeatureStore:
    settings = manifest["settings"]
    again = command(folder.parent, settings, extraction)
    index = _read_json(folder / INDEX, again)
    missing = {entry["id"]: entry["reason"] for entry in index["missing"]}
    refused = _refused(index)
    if refused and not partial:
        shown = listed([f"{key} ({missing[key]})" for key in refused], "\n  ")
        raise UserError(f"{len(refused)} recordings have no features in {folder}:\n  {shown}\nRun {again} again.")
    paths = [folder / entry["split"] / entry["key"] for entry in index["episodes"]]
    episodes = tuple(_read_episode(path, settings["features"], again) for path in paths)
    asked = manifest.get("asked", {})
    return FeatureStore(folder, settings, manifest["fingerprint"], episodes, missing, manifest["flags"], asked)


def _refused(index: Mapping[str, Any]) -> list[str]:
    """Return the recordings without features, by the index of a store, whose number was not accepted."""
    accepted = index.get("accepted", False)  # of all splits at once, in stores of earlier versions
    return [entry["id"] for entry in index["missing"] if not entry.get("accepted", accepted)]


def _read_episode(folder: Path, features: Mapping[str, Any], again: str) -> StoredEpisode:
    record = _read_json(folder / EPISODE, again)
    speakers = record["speakers"]
    return StoredEpisode(
        folder=folder,
        key=record["key"],
        id=record["id"],
        name=record["name"],
        show=record["show"],
        split=record["split"],
        num_frames=record["num_frames"],
        duration=record["duration"],
        frame_rate=features["frame_rate"],
        dim=features["dim"],
        dtype=features["dtype"],
        views=tuple(record["views"]),
        speakers=None if speakers is None else tuple(speakers),
        files=tuple(record["files"]),
        source=record["source"],
        again=again,
    )


def _read_json(path: Path, again: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}). Run {again} again.") from error
