"""Motion as numbers for networks, one file a clip, built once for each set of settings; windows are ranges of it.

<store>/<fingerprint>/{manifest.json, clips/<id>/frames.npy, clips/<id>/clip.json}; the manifest is written last.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from voxlab.audio import Seconds
from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_clips import (
    WARN_MISMATCH_S,
    Clip,
    Extent,
    Reading,
    describe_mismatch,
    digest,
    load_clip,
    read_clip_motion,
)
from voxlab.data.beat2_files import describe_splits
from voxlab.data.build_lock import alone
from voxlab.data.episodes import Word
from voxlab.data.names import inflected, listed
from voxlab.data.textgrid import read_words
from voxlab.errors import UserError
from voxlab.motion.clip import Motion
from voxlab.motion.representation import FRAME_DIM, TransMode, to_frames
from voxlab.parallel import Ranks, gather
from voxlab.progress import track
from voxlab.storage import (
    MANIFEST,
    atomic_path,
    atomic_write_json,
    differences,
    fingerprint,
    read_manifest,
    remove_temporaries,
)

log = logging.getLogger(__name__)

VERSION = 1  # of the layout; part of the fingerprint
FRAMES, RECORD, CLIPS = "frames.npy", "clip.json", "clips"
Record = dict[str, Any]


@dataclass(frozen=True)
class StoredClip:
    """A clip of the store.

    Attributes:
        id: such as 2_scott_0_1_1.
        split: train, validation or test.
        speaker: number, as text.
        emotion: see `beat2_files.ClipName`.
        num_frames: that motion and audio share.
        wav: audio of any rate.
        wav_start: second of the wav that belongs to frame 0; frame i is at wav_start + (i + 0.5) / fps.
        folder: of its files in the store.
        source: where it is from.
        extent: which part of the motion file it is.
        reading: how the motion file is read.
    """

    id: str
    split: str
    speaker: str
    emotion: str
    num_frames: int
    wav: Path
    wav_start: Seconds
    folder: Path
    source: Clip
    extent: Extent
    reading: Reading

    def frames(self) -> np.ndarray:
        """Open the (T, 433) float32 frames of `motion.representation`, memory-mapped."""
        return _open_frames(self.folder / FRAMES, self.num_frames)

    def motion(self) -> Motion:
        """Read the motion as it was recorded, T frames."""
        return read_clip_motion(self.source, self.reading, self.extent)

    def words(self) -> list[Word] | None:
        """Return the words that are spoken within the T frames, in seconds from frame 0; None without TextGrid.

        Raises:
            UserError: the TextGrid is malformed.
        """
        if self.source.textgrid is None:
            return None
        end = self.num_frames / self.reading.fps
        spoken = read_words(self.source.textgrid)
        words = [(word.text, word.start - self.wav_start, word.end - self.wav_start) for word in spoken]
        return [Word(text, max(0.0, start), min(end, stop)) for text, start, stop in words if stop > 0 and start < end]


@dataclass(frozen=True)
class MotionStore:
    """The stored clips of a corpus.

    Attributes:
        folder: of these settings; what others derive from the motion may lie beside it.
        clips: all usable ones, sorted by id.
        fps: frames a second.
        fingerprint: of the settings.
        skipped: id -> why a chosen clip is not among them.
    """

    folder: Path
    clips: tuple[StoredClip, ...]
    fps: int
    fingerprint: str
    skipped: Mapping[str, str]

    def split(self, name: str) -> list[StoredClip]:
        """Return the clips of a split.

        Raises:
            UserError: there are none; lists speakers and splits.
        """
        found = [clip for clip in self.clips if clip.split == name]
        if not found:
            there = describe_splits({clip.id: clip.split for clip in self.clips})
            raise UserError(
                f"no clip is in the split {name}. There are: {there}.\nOther splits never stand in for it: correct the "
                "split file, choose other speakers (data.speakers=null: all), or set data.splits=auto."
            )
        return found


def open_motion_store(corpus: Beat2, ranks: Ranks | None = None) -> MotionStore:
    """Open the store of a corpus; the first rank builds what is missing, damaged or out of date, others wait for it.

    Of several processes one builds, and the others wait. The bytes are the same however often building was broken off.

    Raises:
        UserError: the corpus is unusable, or too many of its clips are, or all.
    """
    ranks = ranks or Ranks()
    settings = {"store": VERSION, **corpus.settings}
    folder = Path(corpus.store) / fingerprint(settings)
    problem = ""
    if ranks.is_first:
        try:
            _build(corpus, folder, settings)
        except UserError as error:
            problem = str(error)
    if problem := gather(ranks, problem)[0]:
        raise UserError(problem)
    return _open(corpus, folder)


def find_motion_store(corpus: Beat2) -> MotionStore | None:
    """Open the store of a corpus as it is; None where it is not built, or out of date. Writes nothing."""
    folder = Path(corpus.store) / fingerprint({"store": VERSION, **corpus.settings})
    records, (clips, _) = _manifest(folder), corpus.find_clips()
    if not all(clip.id in records and _renewed(corpus, folder, clip, records[clip.id]) for clip in clips):
        return None
    return _open(corpus, folder)


# ---- open -----------------------------------------------------------------------------------------------------------


def _open(corpus: Beat2, folder: Path) -> MotionStore:
    records = _manifest(folder)
    clips, skipped = corpus.find_clips()
    total = len(clips) + len(skipped)
    stored = []
    for clip in clips:
        record = records[clip.id]
        reason = record.get("error") or corpus.too_unequal(clip, record["extent"]["mismatch_s"])
        if reason:
            skipped[clip.id] = reason
        else:
            stored.append(_stored(folder, clip, record, corpus.reading))
    corpus.judge(skipped, total)
    _warn_of_text(clips)
    return MotionStore(folder, tuple(stored), corpus.fps, folder.name, skipped)


def _stored(folder: Path, clip: Clip, record: Record, reading: Reading) -> StoredClip:
    extent = Extent(**record["extent"])
    return StoredClip(
        id=clip.id,
        split=clip.split,
        speaker=clip.speaker,
        emotion=clip.emotion,
        num_frames=extent.num_frames,
        wav=clip.wav,
        wav_start=extent.wav_start,
        folder=folder / CLIPS / clip.id,
        source=clip,
        extent=extent,
        reading=reading,
    )


def _warn_of_text(clips: Sequence[Clip]) -> None:
    without = [clip.id for clip in clips if clip.textgrid is None]
    if without:
        log.warning(
            "no TextGrid for %d of %d clips: no words are known of %s", len(without), len(clips), listed(without)
        )


def _open_frames(path: Path, num_frames: int) -> np.ndarray:
    try:
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"can't read {path}: {error}. Delete it: the same command again makes it anew.") from None
    if frames.shape != (num_frames, FRAME_DIM) or frames.dtype != np.float32:
        raise UserError(
            f"{path} holds {frames.shape} {frames.dtype}, expected ({num_frames}, {FRAME_DIM}) float32. Delete it: the "
            "same command again makes it anew."
        )
    return frames


# ---- build ----------------------------------------------------------------------------------------------------------


def _build(corpus: Beat2, folder: Path, settings: Mapping[str, Any]) -> None:
    """Bring the store up to date: only clips that are missing, damaged, or made from other files are read."""
    corpus.prepare()
    clips, _ = corpus.find_clips()
    records = _manifest(folder)
    if all(records.get(clip.id, {}) == _renewed(corpus, folder, clip, records.get(clip.id)) for clip in clips):
        return
    with alone(folder):
        records = _manifest(folder)  # another process may have written it by now
        if not records:
            _tell_of_others(folder, settings)
        remarks: dict[str, list[str]] = {}
        for clip in track(clips, "motion store", "clips"):
            records[clip.id] = (
                _renewed(corpus, folder, clip, records.get(clip.id))
                or _renewed(corpus, folder, clip, _finished(folder, clip))
                or _build_clip(corpus, folder, clip, remarks)
            )
            atomic_write_json(folder / CLIPS / clip.id / RECORD, records[clip.id])
        for text, ids in sorted(remarks.items()):
            log.warning("%s: %s", text, listed(ids))
        atomic_write_json(folder / MANIFEST, {"settings": dict(settings), "clips": dict(sorted(records.items()))})
    log.info("motion store %s: %s", folder, inflected("{} [clip|clips]", len(records)))


def _build_clip(corpus: Beat2, folder: Path, clip: Clip, remarks: dict[str, list[str]]) -> Record:
    """Write the frames of a clip and return its record; what is wrong with a clip is its record, too."""
    own = folder / CLIPS / clip.id
    remove_temporaries([own])
    record: Record = {"sources": _sources(corpus, clip), "offset_s": clip.offset_s}
    try:
        loaded = load_clip(clip, corpus.reading)
    except UserError as error:
        (own / FRAMES).unlink(missing_ok=True)
        return record | {"error": str(error)}
    frames = to_frames(loaded.motion, cast(TransMode, corpus.trans))
    with atomic_path(own / FRAMES) as temporary, temporary.open("wb") as file:
        np.save(file, frames)
    unequal = abs(loaded.extent.mismatch_s) > WARN_MISMATCH_S
    for remark in (*loaded.remarks, *([describe_mismatch(loaded.extent.mismatch_s)] if unequal else [])):
        remarks.setdefault(remark, []).append(clip.id)
    size = (own / FRAMES).stat().st_size
    return record | {"digests": loaded.digests, "extent": asdict(loaded.extent), "size": size}


def _finished(folder: Path, clip: Clip) -> Record | None:
    """Return the record of a clip that an earlier process has finished before it was broken off."""
    try:
        return json.loads((folder / CLIPS / clip.id / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _renewed(corpus: Beat2, folder: Path, clip: Clip, record: Record | None) -> Record | None:
    """Return the record of a clip as it holds now, with new times of change where files have the same content.

    None: there is no record, its file is damaged, or it was made from other files; the clip has to be read.
    """
    if record is None or record["offset_s"] != clip.offset_s:
        return None
    now, then = _sources(corpus, clip), record["sources"]
    if "error" in record:
        return record if now == then else None
    path, paths = folder / CLIPS / clip.id / FRAMES, {"motion": clip.motion, "wav": clip.wav}
    if not path.is_file() or path.stat().st_size != record["size"]:
        return None
    touched = [name for name in now if now[name] != then[name]]
    same = all(
        now[name]["size"] == then[name]["size"] and digest(paths[name].read_bytes()) == record["digests"][name]
        for name in touched
    )
    return record | {"sources": now} if same else None


def _sources(corpus: Beat2, clip: Clip) -> dict[str, dict[str, Any]]:
    found = {}
    for name, path in (("motion", clip.motion), ("wav", clip.wav)):
        status = path.stat()
        shown = path.relative_to(corpus.folder).as_posix()
        found[name] = {"path": shown, "size": status.st_size, "changed_ns": status.st_mtime_ns}
    return found


def _manifest(folder: Path) -> dict[str, Record]:
    manifest = read_manifest(folder)
    return {} if manifest is None else manifest["clips"]


def _tell_of_others(folder: Path, settings: Mapping[str, Any]) -> None:
    """Say in what a new store differs from those beside it, so that nobody wonders why all is read again."""
    for other in sorted(folder.parent.glob(f"*/{MANIFEST}")):
        manifest = read_manifest(other.parent)
        if manifest is not None and other.parent != folder:
            log.info(
                "new motion store %s; unlike %s: %s",
                folder.name,
                other.parent.name,
                "; ".join(differences(manifest["settings"], settings)),
            )
