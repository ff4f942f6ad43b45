"""Features at the times of motion frames, so that a window of them is a slice of rows, as it is of motion.

Made once: <motion store>/features/<name>-<fingerprint of their store>/<clip>.npy, (T, D) float16, memory-mapped.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.data.motion_store import FRAMES, MotionStore, StoredClip
from voxlab.errors import UserError
from voxlab.features.interpolate import at_frames
from voxlab.parallel import Ranks, barrier
from voxlab.progress import track
from voxlab.storage import atomic_path
from voxlab.tasks.a2g.features import FeatureTracks, Track

log = logging.getLogger(__name__)

FOLDER = "features"


def align(store: MotionStore, features: Mapping[str, FeatureTracks], ranks: Ranks) -> None:
    """Make what is not there; collective, each rank works on its share of the clips.

    Args:
        store: of the motion.
        features: "features", "acoustic" -> those of all clips.
        ranks: this process among its peers.
    """
    made = 0
    for tracks in features.values():
        for clip in track(list(store.clips)[ranks.rank :: ranks.world], "features at motion frames", "clips"):
            found, path = tracks.tracks[clip.id], _path(store, tracks, clip)
            if not _is_current(path, found, clip):
                _write(path, at_frames(np.asarray(found.rows), found.times, clip.num_frames, store.fps))
                made += 1
    barrier(ranks)
    if made:
        log.info("features at motion frames in %s: %d files", store.folder / FOLDER, made)


def is_aligned(store: MotionStore, features: Mapping[str, FeatureTracks]) -> bool:
    """Tell whether the features of all clips are there at the times of motion frames."""
    return all(
        _is_current(_path(store, tracks, clip), tracks.tracks[clip.id], clip)
        for tracks in features.values()
        for clip in store.clips
    )


def open_aligned(store: MotionStore, tracks: FeatureTracks, clips: Sequence[StoredClip]) -> list[np.ndarray]:
    """Open the (T, D) float16 features of some clips, memory-mapped.

    Raises:
        UserError: a file is damaged.
        RuntimeError: `align` was not called before.
    """
    return [_open(_path(store, tracks, clip), (clip.num_frames, tracks.dim)) for clip in clips]


def _open(path: Path, shape: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        raise RuntimeError(f"{path} is not there")
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} can't be read ({error}). Delete it: the same command again makes it anew.") from error
    if rows.shape != shape or rows.dtype != np.float16:
        raise UserError(f"{path} holds {rows.shape} {rows.dtype.name}, expected {shape} float16. Delete it.")
    return np.asarray(rows)  # not as np.memmap, whose slices cost several times as much


def _path(store: MotionStore, tracks: FeatureTracks, clip: StoredClip) -> Path:
    name = f"{tracks.record['name']}-{tracks.record['fingerprint']}"
    return store.folder / FOLDER / name / f"{clip.id}.npy"


def _is_current(path: Path, track: Track, clip: StoredClip) -> bool:
    """Tell whether a file is younger than what it is made from: the features, and the times of the motion."""
    sources: list[Any] = [track.rows.path, clip.folder / FRAMES]
    return path.is_file() and path.stat().st_mtime_ns >= max(source.stat().st_mtime_ns for source in sources)


def _write(path: Path, rows: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows.astype(np.float16), allow_pickle=False)
