"""BEAT2: 60 hours of speech with the motion of body, hands and face, 25 speakers, in SMPL-X and FLAME parameters.

Licence and layout: https://huggingface.co/datasets/H-Liu1997/BEAT2 (non-commercial research).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from voxlab.audio import Seconds
from voxlab.data import splits
from voxlab.data.beat2_clips import Clip, Reading, describe_mismatch
from voxlab.data.beat2_files import (
    ADDITIONAL,
    MOTION,
    SEMANTIC,
    SPLIT_TABLE,
    SPLITS,
    TEXT,
    WAV,
    ClipName,
    describe_splits,
    find_corpus,
    is_id,
    parse_id,
    read_offsets,
    read_split_table,
)
from voxlab.data.items import AudioItem, file_stamp
from voxlab.data.names import inflected, listed
from voxlab.data.sample.beat2 import write_sample
from voxlab.errors import UserError
from voxlab.motion.files import FIXES

__all__ = ["Beat2", "Clip"]

log = logging.getLogger(__name__)

REPOSITORY = "H-Liu1997/BEAT2"
_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
_CHOICES = {
    "source": ("disk", "sample", "download"),
    "splits": ("file", "auto"),
    "trans": ("velocity", "legacy", "none"),
    "fix": FIXES,
}


@dataclass(frozen=True, kw_only=True)
class Beat2:
    """Clips of some speakers; as a corpus of audio, all of theirs that have a wav.

    Args:
        source: "disk" reads `root`; "sample" writes a small synthetic corpus beside it (`<root>-sample`) and reads
            that; "download" fetches the chosen speakers from the Hugging Face hub into `root` first.
        root: the folder with train_test_split.csv, or one up to 3 levels above it.
        language: which of the folders beat_<language>_v2.0.0.
        speakers: their numbers; None: all. The published benchmark is [2].
        splits: "file" reads `split_file`; "auto" deals clips out by a hash of their ids, 80/10/10 %.
        split_file: CSV with the columns id and type; None: train_test_split.csv of the corpus.
        additional: clips of the type "additional" (conversations) belong to train; else they are left out.
        strict: one missing, unreadable or unequal clip is an error.
        max_bad_fraction: more of them than this always are, and if none is left.
        fps: frames a second of all motion.
        allow_resample: change files of another frame rate; else they are bad clips.
        fix: "none", or "interpolate" fills gaps of up to 5 frames of NaN.
        max_len_mismatch_s: clips whose audio and motion differ by more seconds are bad, unless `offsets` names them.
        offsets: CSV with the columns id and offset_s: second of the wav at which the motion starts.
        clean_first_seconds: left out at the start of every clip.
        clean_final_seconds: left out at the end.
        layout: parts of the body, see `motion.parts.read_layout`.
        trans: "velocity", "legacy" or "none", see `motion.representation.differentiate`.
        store: folder of the stored motion; each set of settings has a folder of its own below it.
    """

    licence: ClassVar[str] = (
        "BEAT2: non-commercial research only, terms at https://huggingface.co/datasets/H-Liu1997/BEAT2."
    )

    source: str = "disk"
    root: str = "data/BEAT2"
    language: str = "english"
    speakers: Sequence[int] | None = (2,)
    splits: str = "file"
    split_file: str | None = None
    additional: bool = False
    strict: bool = False
    max_bad_fraction: float = 0.05
    fps: int = 30
    allow_resample: bool = False
    fix: str = "none"
    max_len_mismatch_s: Seconds = 3.0
    offsets: str | None = None
    clean_first_seconds: Seconds = 0.0
    clean_final_seconds: Seconds = 0.0
    layout: str | Mapping[str, Any] = "full421"
    trans: str = "velocity"
    store: str = "extracted/beat2-motion"

    @cached_property
    def folder(self) -> Path:
        """The folder that holds smplxflame_30 and wave16k.

        Raises:
            UserError: there is none below the root.
        """
        if self.source == "sample" and not self._root.is_dir():
            raise UserError(f"{self._root} holds no sample corpus yet; a run without dry_run=true writes it.")
        found = find_corpus(self._root, self.language)
        if found != self._root:
            log.info("BEAT2: %s", found)
        return found

    @property
    def _root(self) -> Path:
        root = Path(self.root)
        return root.with_name(f"{root.name}-sample") if self.source == "sample" else root

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the stored motion, the same for all clips."""
        return {
            "corpus": type(self).__name__,
            "sample": self.source == "sample",
            "language": self.language,
            "fps": self.fps,
            "trans": self.trans,
            "fix": self.fix,
            "allow_resample": self.allow_resample,
            "clean_first_seconds": float(self.clean_first_seconds),
            "clean_final_seconds": float(self.clean_final_seconds),
        }

    @property
    def reading(self) -> Reading:
        """How motion files are read."""
        return Reading(
            self.fps, self.allow_resample, self.fix, float(self.clean_first_seconds), float(self.clean_final_seconds)
        )

    def prepare(self) -> None:
        """Write the sample or download the clips, when asked to. To be called on one rank only.

        Raises:
            UserError: wrong settings, or the download fails.
        """
        self._check_settings()
        if self.source == "sample":
            if write_sample(self._root / f"beat_{self.language}_v2.0.0"):
                log.info("sample corpus: %s", self._root)
        elif self.source == "download":
            self._download()

    def items(self) -> list[AudioItem]:
        """Return the recordings of the chosen speakers, sorted by id, whether they have motion or not.

        Raises:
            UserError: wrong settings, a wrong split file, no such speaker, or too many wavs are missing.
        """
        chosen, items, missing = self._chosen(), [], {}
        for clip_id, split in chosen.items():
            path, name = self._path(WAV, clip_id, "wav"), parse_id(clip_id)
            if path.is_file():
                items.append(AudioItem(clip_id, path, split, file_stamp(path), _metadata(name)))
            else:
                missing[clip_id] = f"no {WAV}/{clip_id}.wav"
        self.judge(missing, len(chosen))
        return items

    def clips(self) -> list[Clip]:
        """Return the clips of the chosen speakers that have motion and audio, sorted by id, without opening them.

        Raises:
            UserError: as for `items`.
        """
        clips, missing = self.find_clips()
        self.judge(missing, len(clips) + len(missing))
        return clips

    def find_clips(self) -> tuple[list[Clip], dict[str, str]]:
        """Return the clips that have motion and audio, and id -> what is missing of all others."""
        chosen, offsets = self._chosen(), self._offsets()
        clips: list[Clip] = []
        missing: dict[str, str] = {}
        for clip_id, split in chosen.items():
            motion, wav = self._path(MOTION, clip_id, "npz"), self._path(WAV, clip_id, "wav")
            absent = [f"no {path.parent.name}/{path.name}" for path in (motion, wav) if not path.is_file()]
            if absent:
                missing[clip_id] = " and ".join(absent)
                continue
            name = parse_id(clip_id)
            text, semantic = self._path(TEXT, clip_id, "TextGrid"), self._path(SEMANTIC, clip_id, "txt")
            beside = [path if path.is_file() else None for path in (text, semantic)]
            offset = offsets.get(clip_id)
            clips.append(Clip(clip_id, split, name.speaker, name.emotion, motion, wav, *beside, offset_s=offset))
        return clips, missing

    def judge(self, bad: Mapping[str, str], total: int) -> None:
        """Pass over some bad clips, with a warning that names them.

        Args:
            bad: id -> what is wrong.
            total: number of chosen clips.

        Raises:
            UserError: there are too many, or any with `strict`, or no other clips.
        """
        if not bad:
            return
        what = inflected("{} [clip|clips]", len(bad)) + f" of {total} can't be used:\n  "
        lines = what + listed([f"{clip_id}: {reason}" for clip_id, reason in sorted(bad.items())], "\n  ")
        if self.strict:
            raise UserError(f"{self.folder}: {lines}\ndata.strict=false passes over them.")
        if len(bad) == total:
            raise UserError(f"{self.folder}: {lines}\nNo clip is left. Complete the corpus or correct the settings.")
        if len(bad) > self.max_bad_fraction * total:
            raise UserError(
                f"{self.folder}: {lines}\nThat is more than data.max_bad_fraction={self.max_bad_fraction:g} allows. "
                "Complete the corpus, take the clips out of the split file, or raise the fraction."
            )
        log.warning("%s: %s", self.folder, lines)

    def too_unequal(self, clip: Clip, mismatch_s: Seconds) -> str:
        """Say that audio and motion of a clip are too unequal; "" if not, or if the table of offsets vouches for it."""
        if clip.offset_s is not None or abs(mismatch_s) <= self.max_len_mismatch_s:
            return ""
        limit = f"data.max_len_mismatch_s={self.max_len_mismatch_s:g}; a row in data.offsets accepts it"
        return f"{describe_mismatch(mismatch_s)} ({limit})"

    def check(self) -> list[str]:
        """Report everything that is wrong with the clips, one line a finding; reads all motion and audio."""
        from voxlab.data.beat2_survey import survey

        try:
            return survey(self).findings
        except UserError as error:
            return [str(error)]

    # ---- which clips -----------------------------------------------------------------------------------------------

    def _chosen(self) -> dict[str, str]:
        """Return id -> split of the chosen speakers' clips, sorted by id."""
        self._check_settings()
        split_of = self._split_of()
        names = {clip_id: parse_id(clip_id) for clip_id in split_of}
        wanted = None if self.speakers is None else {str(speaker) for speaker in self.speakers}
        chosen = {
            key: split for key, split in sorted(split_of.items()) if wanted is None or names[key].speaker in wanted
        }
        absent = (wanted or set()) - {names[key].speaker for key in chosen}
        if absent or not chosen:
            raise UserError(
                f"data.speakers={sorted(map(int, wanted or ()))}: no clips of {', '.join(sorted(absent)) or 'anybody'} "
                f"in {self.folder}.\nThere are: {describe_splits(split_of)}. Choose data.speakers='[2]' or null (all)."
            )
        return chosen

    def listed(self) -> dict[str, str]:
        """Return id -> type ("train", "val", "test" or "additional") of everybody's clips, as the split file has it.

        Raises:
            UserError: there is no such file, or it is wrong.
        """
        path = self.folder / SPLIT_TABLE if self.split_file is None else Path(self.split_file)
        if not path.is_file():
            raise UserError(
                f"there is no split file {path}. Give one with the columns id and type (data.split_file=FILE), or let "
                "data.splits=auto deal the clips out by a hash of their ids."
            )
        return read_split_table(path)

    def _split_of(self) -> dict[str, str]:
        if self.splits == "auto":
            ids = self._recorded()
            strange = sorted(clip_id for clip_id in ids if not is_id(clip_id))
            if strange:
                raise UserError(
                    f"{self.folder / MOTION}: {listed([f'{name}.npz' for name in strange])}: no name of a clip "
                    "(<speaker>_<name>_<kind>_<start>_<end>). Take it away, or name the clips in a split file."
                )
            return splits.by_fraction({clip_id: clip_id for clip_id in ids}, _FRACTIONS, 0)
        return {key: SPLITS[kind] for key, kind in self.listed().items() if kind != ADDITIONAL or self.additional}

    def _recorded(self) -> set[str]:
        return {path.stem for path in (self.folder / MOTION).glob("*.npz")}

    def _offsets(self) -> dict[str, Seconds]:
        """Read the table of offsets; what it names has to be a clip, though not of the chosen ones."""
        if self.offsets is None:
            return {}
        offsets = read_offsets(Path(self.offsets))
        known = self._recorded() | (self.listed().keys() if self.splits == "file" else set())
        unknown = sorted(offsets.keys() - known)
        if unknown:
            raise UserError(
                f"data.offsets={self.offsets}: no split and no file of {self.folder / MOTION} has {listed(unknown)}. "
                "Correct or leave out these rows."
            )
        return offsets

    def _check_settings(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                spelled = f"{', '.join(choices[:-1])} or {choices[-1]}"
                raise UserError(f"data.{name}={getattr(self, name)}: choose {spelled}.")
        if self.speakers is not None and not _are_numbers(self.speakers):
            raise UserError(f"data.speakers={self.speakers}: give a list of numbers, '[2]', or null (all).")
        if type(self.fps) is not int or not 1 <= self.fps <= 1000:
            raise UserError(f"data.fps={self.fps}: give whole frames a second, 30 as in the files or fewer.")
        for name in ("max_len_mismatch_s", "clean_first_seconds", "clean_final_seconds"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise UserError(f"data.{name}={value}: give seconds, 0 or more.")

    def _path(self, kind: str, clip_id: str, suffix: str) -> Path:
        return self.folder / kind / f"{clip_id}.{suffix}"

    # ---- download --------------------------------------------------------------------------------------------------

    def _download(self) -> None:
        from huggingface_hub import snapshot_download

        base = f"beat_{self.language}_v2.0.0"
        starts = ["*"] if self.speakers is None else [f"{speaker}_*" for speaker in self.speakers]
        patterns = [f"{base}/{kind}/{start}" for kind in (MOTION, WAV, TEXT, SEMANTIC) for start in starts]
        try:
            snapshot_download(
                REPOSITORY,
                repo_type="dataset",
                local_dir=self.root,
                allow_patterns=[f"{base}/{SPLIT_TABLE}", *patterns],
            )
        except Exception as error:  # the hub's client raises many kinds
            raise UserError(
                f"can't fetch {REPOSITORY} from the Hugging Face hub: {error}\nRun the same command again to go on, or "
                f"copy {base} to {self.root} by hand."
            ) from error


def _are_numbers(speakers: Any) -> bool:
    is_list = isinstance(speakers, list | tuple)
    return is_list and len(speakers) > 0 and all(type(speaker) is int for speaker in speakers)


def _metadata(name: ClipName) -> dict[str, str]:
    return {"speaker": name.speaker, "name": name.name, "emotion": name.emotion, "kind": name.kind}
