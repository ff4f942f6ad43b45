"""Mean and standard deviation of the training clips of a motion store, computed once and kept beside it."""

import hashlib
import logging

from voxlab.data.motion_store import RECORD, MotionStore
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
    clips = store.split("train")
    contents = {clip.id: hashlib.sha256((clip.folder / RECORD).read_bytes()).hexdigest() for clip in clips}
    about = {"store": store.fingerprint, "split": "train", "clips": fingerprint(contents)}
    path = store.folder / FOLDER / f"{fingerprint(about)}.safetensors"
    if ranks.is_first and not path.is_file():
        record = {**about, "fps": store.fps, "num_clips": len(clips)}
        statistics = compute_statistics((clip.frames() for clip in clips), record=record)
        save_statistics(path, statistics)
        log.info("statistics of %d frames in %d training clips: %s", statistics.num_frames, len(clips), path)
    barrier(ranks)
    return load_statistics(path)
