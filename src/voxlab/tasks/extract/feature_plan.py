"""What `task=extract features=...` has to do: episodes with their views and sizes, which are done, who does which."""

import heapq
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxlab.audio import Seconds
from voxlab.codecs.weights import RANDOM
from voxlab.data.episodes import MIX, View
from voxlab.data.feature_store import VERSION, as_episodes, corpus_settings
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.data.recordings import Header, read_header
from voxlab.data.store_writer import EpisodeFacts, episode_key, is_current
from voxlab.errors import UserError
from voxlab.features.base import FeatureInfo, Features

_SLOWEST_RATE = 8_000  # Hz: below, nothing of what the features were made for is left
_RESAMPLER = "soxr VHQ"
_SMALL_FILES = 64 << 10  # bytes an episode, besides its features


@dataclass(frozen=True)
class Episode:
    """One recording to extract.

    Attributes:
        item: the recording.
        folder: of its files in the store.
        views: at least one, unless `error` is set.
        duration: in seconds, by the header of the file.
        speakers: that are known; None where speakers aren't told apart.
        source: what it is made from, as `episode.json` has it.
        error: why it can't be extracted; "" if it can.
    """

    item: AudioItem
    folder: Path
    views: tuple[View, ...] = (MIX,)
    duration: Seconds = 0.0
    speakers: tuple[str, ...] | None = None
    source: dict[str, Any] | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """As the corpus calls it."""
        return name_of(self.item)

    def facts(self, num_frames: int, duration: Seconds) -> EpisodeFacts:
        """Describe it for `episode.json`."""
        show = str(self.item.metadata.get("show") or self.name)
        source, item = self.source or {}, self.item
        return EpisodeFacts(
            item.id, self.name, show, item.split, duration, num_frames, self.views, self.speakers, source
        )


def name_of(item: AudioItem) -> str:
    """Return what the corpus calls a recording: its metadata `episode`, or its id."""
    return str(item.metadata.get("episode") or item.id)


def settings_of(features: Features, corpus: AudioCorpus) -> dict[str, Any]:
    """Return what decides the bytes of a store; hashes weights, loads no model."""
    return {
        "store": VERSION,
        "features": features.fingerprint(),
        "data": corpus_settings(corpus),
        "resampler": _RESAMPLER,
    }


def flags_of(settings: Mapping[str, Any]) -> dict[str, bool]:
    """Return the remarks that belong to every figure made from the features."""
    features, data = settings["features"], settings["data"]
    return {
        "random_weights": str(features["weights_id"]).startswith(RANDOM),
        "sample": data["sample"],
        "uses_oracle_mask": data.get("mask_laughter", "none") != "none",
        "uses_oracle_text": bool(features.get("uses_oracle_text")),
    }


def plan_episodes(corpus: AudioCorpus, items: Sequence[AudioItem], store: Path) -> list[Episode]:
    """Look at all recordings' headers and views, in several threads; what is wrong with one is its `error`."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda item: _plan(corpus, item, store), items))


def _plan(corpus: AudioCorpus, item: AudioItem, store: Path) -> Episode:
    folder = store / item.split / episode_key(item.id, item.split)
    try:
        header = read_header(item)
        _check_rate(header)
        episodes = as_episodes(corpus)
        views = (MIX,) if episodes is None else tuple(episodes.views(item))
        speakers = None if episodes is None else episodes.speakers_of(item)
    except (ValueError, UserError) as error:
        return Episode(item, folder, error=str(error))
    source = {"path": _shown(item.path, corpus.folder), "stamp": item.stamp, **header._asdict()}
    return Episode(item, folder, views, header.duration, None if speakers is None else tuple(speakers), source)


def _check_rate(header: Header) -> None:
    if header.sample_rate < _SLOWEST_RATE:
        raise ValueError(f"its sample rate is {header.sample_rate} Hz; at least {_SLOWEST_RATE} are needed")


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def pending(episodes: Sequence[Episode], *, verify_hash: bool) -> list[Episode]:
    """Return the episodes that the store doesn't hold as they are now, the longest first."""
    with ThreadPoolExecutor(8) as pool:
        current = list(pool.map(lambda episode: is_done(episode, verify_hash=verify_hash), episodes))
    todo = [episode for episode, done in zip(episodes, current, strict=True) if not done]
    return sorted(todo, key=lambda episode: (-episode.duration, episode.item.id))


def is_done(episode: Episode, *, verify_hash: bool) -> bool:
    """Tell whether the store holds an episode as it is now: its files have their size, or their hash."""
    return not episode.error and is_current(episode.folder, episode.source or {}, verify_hash=verify_hash)


def share(episodes: Sequence[Episode], rank: int, world: int) -> list[Episode]:
    """Return the episodes of a rank: each goes, the longest first, to the rank that has least to do so far."""
    loads = [(0.0, number) for number in range(world)]
    own = []
    for episode in episodes:
        load, number = heapq.heappop(loads)
        heapq.heappush(loads, (load + episode.duration * len(episode.views), number))
        if number == rank:
            own.append(episode)
    return own


def estimate_bytes(episodes: Sequence[Episode], info: FeatureInfo) -> int:
    """Estimate the size of the files of some episodes."""
    frame = info.dim * 2
    frames = sum(episode.duration * len(episode.views) * info.frame_rate for episode in episodes)
    return round(frames * frame) + _SMALL_FILES * len(episodes)


def check_space(out: Path, needed: int) -> None:
    """Refuse to begin what the disk can't hold.

    Raises:
        UserError: names what is needed and what is free.
    """
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UserError(
            f"the features need about {needed / 1e9:.2f} GB, and {existing} has {free / 1e9:.2f} GB free. Free some "
            "space, choose another folder (out=...), fewer splits, or features with fewer numbers per frame."
        )
