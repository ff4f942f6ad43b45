"""A look at every clip of BEAT2 as a whole: what there is of each speaker and split, and everything that is wrong.

python main.py task=extract data=beat2 stage=check
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxlab.audio import Seconds
from voxlab.data.beat2_clips import (
    WARN_MISMATCH_S,
    Clip,
    LoadedClip,
    Reading,
    describe_mismatch,
    load_clip,
)
from voxlab.data.beat2_files import MOTION, SPLITS, parse_id, read_semantic
from voxlab.data.names import counted, inflected, listed
from voxlab.data.textgrid import read_words
from voxlab.errors import UserError

if TYPE_CHECKING:
    from voxlab.data.beat2 import Beat2

_THREADS = 4


@dataclass(frozen=True)
class ClipFacts:
    """What was found of a clip that can be read.

    Attributes:
        clip: the clip.
        num_frames: that motion and audio share.
        motion_s: length of the motion file.
        audio_s: length of the wav.
        mismatch_s: how much longer the audio is.
        num_words: None without TextGrid.
        num_labels: semantic ones; None without such a file.
    """

    clip: Clip
    num_frames: int
    motion_s: Seconds
    audio_s: Seconds
    mismatch_s: Seconds
    num_words: int | None
    num_labels: int | None


@dataclass(frozen=True)
class Survey:
    """What all clips hold.

    Attributes:
        clips: those that can be read, sorted by id.
        unusable: id -> why it can't be used.
        findings: everything that is wrong or odd, one line a kind.
        remarks: id -> what is odd about it.
        fps: frames a second.
    """

    clips: tuple[ClipFacts, ...]
    unusable: dict[str, str]
    findings: list[str]
    remarks: dict[str, list[str]]
    fps: int

    def totals(self) -> list[dict[str, Any]]:
        """Return a row for each speaker and split: clips, minutes, words, the largest mismatch."""
        groups: dict[tuple[int, str], list[ClipFacts]] = defaultdict(list)
        for facts in self.clips:
            groups[int(facts.clip.speaker), facts.clip.split].append(facts)
        order = list(dict.fromkeys(SPLITS.values()))
        ordered = sorted(groups.items(), key=lambda entry: (entry[0][0], order.index(entry[0][1])))
        return [self._total(speaker, split, found) for (speaker, split), found in ordered]

    def _total(self, speaker: int, split: str, found: Sequence[ClipFacts]) -> dict[str, Any]:
        return {
            "speaker": speaker,
            "name": parse_id(found[0].clip.id).name,
            "split": split,
            "clips": len(found),
            "frames": sum(facts.num_frames for facts in found),
            "minutes": round(sum(facts.num_frames for facts in found) / self.fps / 60, 2),
            "words": sum(facts.num_words or 0 for facts in found),
            "emotions": len({facts.clip.emotion for facts in found}),
            "largest mismatch (s)": round(max((facts.mismatch_s for facts in found), key=abs), 3),
        }


def survey(corpus: "Beat2") -> Survey:
    """Read all motion, audio and text of the chosen speakers, in a few threads.

    Raises:
        UserError: there is no corpus, its split file is wrong, or nobody is chosen.
    """
    clips, unusable = corpus.find_clips()
    with ThreadPoolExecutor(_THREADS) as pool:
        looked = list(pool.map(lambda clip: _look(clip, corpus.reading), clips))
    remarks: dict[str, list[str]] = {}
    found: list[ClipFacts] = []
    for clip, (facts, odd) in zip(clips, looked, strict=True):
        if isinstance(facts, str):
            unusable[clip.id] = facts
        else:
            found.append(facts)
            if reason := corpus.too_unequal(clip, facts.mismatch_s):
                unusable[clip.id] = reason
        if odd:
            remarks[clip.id] = odd
    unequal = [facts for facts in found if abs(facts.mismatch_s) > WARN_MISMATCH_S and facts.clip.id not in unusable]
    findings = [
        *counted("{} [clip|clips] can't be used", [f"{key} ({reason})" for key, reason in sorted(unusable.items())]),
        *counted(
            "{} [clip is|clips are] cut to the shorter of audio and motion",
            [f"{facts.clip.id} ({describe_mismatch(facts.mismatch_s)})" for facts in unequal],
        ),
        *_of_remarks(remarks),
        *_of_files(corpus, clips),
    ]
    return Survey(tuple(found), unusable, findings, remarks, corpus.fps)


def _look(clip: Clip, reading: Reading) -> tuple[ClipFacts | str, list[str]]:
    """Return what is known of a clip, or why it can't be used; and what is odd about it."""
    odd: list[str] = []
    words = _count(read_words, clip.textgrid, odd)
    labels = _count(read_semantic, clip.sem, odd)
    try:
        loaded = load_clip(clip, reading)
    except UserError as error:
        return str(error), odd
    return _facts(clip, loaded, words, labels), [*loaded.remarks, *odd]


def _facts(clip: Clip, loaded: LoadedClip, words: int | None, labels: int | None) -> ClipFacts:
    audio_s = loaded.sound.num_samples / loaded.sound.sample_rate
    mismatch = loaded.extent.mismatch_s
    motion_s = audio_s - (clip.offset_s or 0.0) - mismatch
    return ClipFacts(clip, loaded.extent.num_frames, motion_s, audio_s, mismatch, words, labels)


def _count(read: Any, path: Path | None, odd: list[str]) -> int | None:
    """Count what a file beside a clip holds; None where there is none, or none that can be read."""
    if path is None:
        return None
    try:
        return len(read(path))
    except UserError as error:
        odd.append(str(error))
        return None


def _of_remarks(remarks: dict[str, list[str]]) -> Iterator[str]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for clip_id, odd in sorted(remarks.items()):
        for remark in odd:
            kinds[remark].append(clip_id)
    for remark, ids in kinds.items():
        yield f"{inflected('{} [clip|clips]', len(ids))}: {remark}: {listed(ids)}"


def _of_files(corpus: "Beat2", clips: Sequence[Clip]) -> Iterator[str]:
    without = [clip.id for clip in clips if clip.textgrid is None]
    yield from counted("{} [clip has|clips have] no TextGrid, so no words", without)
    if corpus.splits == "file":
        known, files = corpus.listed(), sorted(path.stem for path in (corpus.folder / MOTION).glob("*.npz"))
        yield from counted("{} motion [file is|files are] in no split", [name for name in files if name not in known])
