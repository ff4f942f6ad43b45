"""Mean and standard deviation of the training clips of a motion store, computed once and kept beside it."""

import json
import logging
from pathlib import Path
from typing import Any

from voxlab.data.motion_store import RECORD, MotionStore, StoredClip
from voxlab.motion.statistics import Statistics, compute_statistics, load_statistics, save_statistics
from voxlab.parallel import Ranks, barrier
from voxlab.storage import fingerprint

log = logging.getLogger(__name__)

FOLDER = "statistics"


def train_statistics(store: MotionStore, ranks: Ranks) -> Statistics:
    """Return the statistics of the training clips; the first rank computes them, the others wait.

    Raises:
        UserError: there are no training clips.
    """
    clips, about, path = store.split("train"), _about(store), _path(store)
    if ranks.is_first and not path.is_file():
        record = {**about, "fps": store.fps, "num_clips": len(clips)}
        statistics = compute_statistics((clip.frames() for clip in clips), record=record)
        save_statistics(path, statistics)
        log.info("statistics of %d frames in %d training clips: %s", statistics.num_frames, len(clips), path)
    barrier(ranks)
    return load_statistics(path)


def has_statistics(store: MotionStore) -> bool:
    """Tell whether the statistics of the training clips are there already."""
    return _path(store).is_file()


def _about(store: MotionStore) -> dict[str, Any]:
    return {"store": store.fingerprint, "split": "train", "clips": train_fingerprint(store)}


def _path(store: MotionStore) -> Path:
    return store.folder / FOLDER / f"{fingerprint(_about(store))}.safetensors"


def train_fingerprint(store: MotionStore) -> str:
    """Return 16 hex digits that change with the motion of any training clip, or with which clips there are."""
    contents = {clip.id: _content(clip) for clip in store.split("train")}
    return fingerprint({"store": store.fingerprint, "clips": contents})


def _content(clip: StoredClip) -> dict[str, Any]:
    record = json.loads((clip.folder / RECORD).read_text(encoding="utf-8"))
    return {name: value for name, value in record.items() if name != "sources"}  # which tell times of change
