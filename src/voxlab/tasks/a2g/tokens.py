"""Codes of whole clips, made once for each tokenizer: `<motion store>/codes/<part>-<hash>/<clip>.npy`, (N, Q) int16."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.data.motion_store import FRAMES, MotionStore, StoredClip
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.parallel import Ranks, barrier
from voxlab.progress import track
from voxlab.storage import atomic_path

log = logging.getLogger(__name__)

FOLDER = "codes"


def folder_of(store: MotionStore, codec: MotionCodec) -> Path:
    """Return the folder of one tokenizer's codes: named after the part and its weights."""
    return store.folder / FOLDER / f"{codec.part.name}-{codec.weights_id}"


def tokenize(store: MotionStore, codecs: Mapping[str, MotionCodec], ranks: Ranks) -> dict[str, int]:
    """Make the codes that are not there; collective.

    Args:
        store: of the motion.
        codecs: part -> tokenizer.
        ranks: this process among its peers; each works on its share of the clips.

    Returns:
        part -> clips that this rank has coded.
    """
    made = dict.fromkeys(codecs, 0)
    for clip in track(list(store.clips)[ranks.rank :: ranks.world], "motion codes", "clips"):
        for name, codec in codecs.items():
            if _read(store, codec, clip) is None:
                _write(_path(store, codec, clip), codec.tokenize(clip.frames()))
                made[name] += 1
    barrier(ranks)
    if any(made.values()):
        log.info("codes of %s: %s", store.folder / FOLDER, ", ".join(f"{name} {count}" for name, count in made.items()))
    return made


def is_tokenized(store: MotionStore, codecs: Mapping[str, MotionCodec]) -> bool:
    """Tell whether the codes of all clips are there."""
    return all(_read(store, codec, clip) is not None for codec in codecs.values() for clip in store.clips)


def read_codes(
    store: MotionStore, codecs: Mapping[str, MotionCodec], clips: Sequence[StoredClip]
) -> dict[str, list[np.ndarray]]:
    """Return part -> codes (N, Q) int16 of each clip.

    Raises:
        RuntimeError: `tokenize` was not called before.
    """
    return {name: [_present(store, codec, clip) for clip in clips] for name, codec in codecs.items()}


def _present(store: MotionStore, codec: MotionCodec, clip: StoredClip) -> np.ndarray:
    codes = _read(store, codec, clip)
    if codes is None:
        raise RuntimeError(f"{_path(store, codec, clip)} is not there")
    return codes


def _path(store: MotionStore, codec: MotionCodec, clip: StoredClip) -> Path:
    return folder_of(store, codec) / f"{clip.id}.npy"


def _read(store: MotionStore, codec: MotionCodec, clip: StoredClip) -> np.ndarray | None:
    """Read the codes of a clip; None: there are none, they are damaged, or older than the clip's frames."""
    path = _path(store, codec, clip)
    try:
        if path.stat().st_mtime_ns < (clip.folder / FRAMES).stat().st_mtime_ns:
            return None
        codes: Any = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    shape = (codec.num_tokens(clip.num_frames), codec.num_codebooks)
    fits = codes.shape == shape and codes.dtype == np.int16
    return codes if fits and codes.min() >= 0 and codes.max() < codec.codebook_size else None


def _write(path: Path, codes: np.ndarray) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(codes, np.int16), allow_pickle=False)
