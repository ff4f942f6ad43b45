"""PodcastFillers: 199 English podcast episodes, 145 hours, with annotated laughter, fillers, breath and music.

Layout and columns: https://podcastfillers.github.io/dataset. Annotations, transcripts and voice activity are under the
Adobe research licence (non-commercial), the episodes under CC BY, BY-SA or BY-ND 3.0 each.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from voxlab.data import podcastfillers_files as files
from voxlab.data.episodes import MIX, Annotation, View, Word
from voxlab.data.items import AudioItem, file_stamp
from voxlab.data.names import inflected, listed
from voxlab.data.podcastfillers_audio import load_mono
from voxlab.data.podcastfillers_episode import Episode
from voxlab.data.podcastfillers_files import Tree, sanitise
from voxlab.data.podcastfillers_speakers import keep, silence, views_of
from voxlab.data.podcastfillers_tables import read_table
from voxlab.data.sample.podcastfillers import write_sample
from voxlab.errors import UserError

log = logging.getLogger(__name__)

PUBLISHED = {"train": 173, "validation": 6, "test": 20}
_FOLDER = "PodcastFillers"
_LISTED = 10
_LAUGHTER = "Laughter"
_CHOICES = {
    "audio": ("auto", "wav", "mp3"),
    "speakers": ("mix", "diarized", "separated"),
    "mask_laughter": ("none", "agent", "all"),
    "missing": ("error", "skip"),
}
_DOWNLOAD = """data.source=download: the archive is in several parts and under licences to accept, so fetch it by hand:
  1. read the licences at https://zenodo.org/records/7121457 and download PodcastFillers.zip, .z01, .z02 and .z03
  2. zip -s 0 PodcastFillers.zip --out joined.zip
  3. unzip joined.zip
  4. set data.source=disk data.root=DIR/PodcastFillers"""


@dataclass(frozen=True, kw_only=True)
class PodcastFillers:
    """The episodes of some splits; the id is `<split>/<episode>`, with `_` for what some systems refuse in names.

    Metadata: `episode` (the name as the annotations spell it) and `show` (its start, up to the first `_`).

    Args:
        source: "disk" reads `root`; "sample" writes a small synthetic corpus beside it (`<root>-sample`) and reads
            that; "download" says how to get the archive.
        root: the folder PodcastFillers, or the one that holds it.
        splits: some of train, validation, test.
        audio: "wav" (16 kHz mono), "mp3" (44.1 kHz stereo), or "auto": wav where that folder is there.
        speakers: "mix": one view, all speakers; "diarized": a view for each speaker against all others, cut out of the
            mix; "separated": the two who speak longest, from files of their own. The latter two need diarizations and
            speakers of events.
        min_speaker_share: speakers="diarized": who speaks for less of the recording has no view; 0 to 1.
        mask_laughter: "agent" silences the agent's laughter on the agent's side, "all" everybody's on both sides. It
            tells the features where laughter is annotated, and is there for comparisons only.
        missing: "error", or "skip" episodes that lack audio, annotation or another file that is needed.
        downmix: average the channels of stereo files; False refuses them.
        allow_show_overlap: let a show be in two splits.
    """

    licence: ClassVar[str] = (
        "PodcastFillers. Annotations, transcripts, voice activity: Adobe research licence, non-commercial use only.\n"
        "Episodes: CC BY 3.0, CC BY-SA 3.0 or CC BY-ND 3.0 each, see LICENSE_AUDIO.csv of the data set."
    )

    source: str = "disk"
    root: str = "data/PodcastFillers"
    splits: Sequence[str] = files.SPLITS
    audio: str = "auto"
    speakers: str = "mix"
    min_speaker_share: float = 0.2
    mask_laughter: str = "none"
    missing: str = "error"
    downmix: bool = True
    allow_show_overlap: bool = False

    @property
    def folder(self) -> Path:
        """The folder with `audio` and `metadata`: the root, PodcastFillers in it, or the sample beside it."""
        root = Path(self.root)
        if self.source == "sample":
            return root.with_name(f"{root.name}-sample") / _FOLDER
        return root / _FOLDER if (root / _FOLDER).is_dir() else root

    @property
    def settings(self) -> dict[str, Any]:
        """What of the options decides the features; without `audio`, where that is up to folders that aren't here."""
        share = {"min_speaker_share": self.min_speaker_share} if self.speakers == "diarized" else {}
        audio = {} if self._audio is None else {"audio": self._audio}
        return {
            **audio,
            "speakers": self.speakers,
            **share,
            "mask_laughter": self.mask_laughter,
            "downmix": self.downmix,
        }

    @property
    def uses_oracle_mask(self) -> bool:
        """Whether annotated laughter is silenced."""
        return self.mask_laughter != "none"

    def prepare(self) -> None:
        """Write the sample, when asked to. To be called on one rank only.

        Raises:
            UserError: `source` is unknown, or "download", which has to be done by hand.
        """
        if self.source == "sample":
            write_sample(self.folder)
            log.info("sample corpus: %s", self.folder)
        elif self.source == "download":
            raise UserError(_DOWNLOAD)
        elif self.source != "disk":
            raise UserError(f"data.source={self.source}: choose disk, sample or download.")

    def items(self) -> list[AudioItem]:
        """Return all episodes, sorted by id, without opening their audio; those left out go to the log.

        Raises:
            UserError: wrong settings, a missing folder, an episode without a file that is needed, or a show in two
                splits.
        """
        self._check_settings()
        lacks: list[str] = []
        found = [item for split in self.splits for item in self._read_split(split, lacks)]
        if lacks and self.missing == "error":
            raise UserError(
                "\n  ".join([f"{self.folder}: incomplete episodes:", *lacks])
                + "\nAdd the missing files, or leave these episodes out: data.missing=skip."
            )
        overlap = self._overlap(found)
        if overlap and not self.allow_show_overlap:
            raise UserError(overlap)
        items, skipped = self._with_views(found)
        for finding in (*lacks, *skipped):
            log.warning("%s: left out: %s", self.folder, finding)
        if not items:
            raise UserError("\n  ".join([f"{self.folder}: no episode is left:", *lacks, *skipped]))
        if self.uses_oracle_mask:
            log.warning("data.mask_laughter=%s writes the annotated laughter into the audio", self.mask_laughter)
        return sorted(items, key=lambda item: item.id)

    def check(self) -> list[str]:
        """Report everything that is wrong with the episodes, one finding each; reads all but the samples."""
        found: list[AudioItem] = []
        problems: list[str] = []
        try:
            self._check_settings()
        except UserError as error:
            return [str(error)]
        for split in self.splits:
            try:
                found += self._read_split(split, problems)
            except UserError as error:
                problems.append(str(error))
        problems += [] if self.allow_show_overlap else filter(None, [self._overlap(found)])
        for item in found:
            problems += self._episode(item).failures(downmix=self.downmix)
        counts = Counter(item.split for item in found)
        if self.source != "sample":
            problems += [
                f"{split}: {counts[split]} of {PUBLISHED[split]} episodes are here"
                for split in self.splits
                if counts[split] != PUBLISHED[split]
            ]
        return problems

    def annotation(self, item: AudioItem) -> Annotation:
        """Read events, words and voice activity of an episode.

        Raises:
            UserError: a file is damaged (names file, row and column), or doesn't match the audio.
        """
        episode = self._episode(item)
        return Annotation(episode.events(), episode.words(), episode.vad())

    def views(self, item: AudioItem) -> list[View]:
        """Return the views of an episode, see `speakers`; `items` leaves out episodes without."""
        if self.speakers == "mix":
            return [MIX]
        return views_of(self._episode(item).diarization(), self.speakers, self.min_speaker_share)

    def speakers_of(self, item: AudioItem) -> list[str] | None:
        """Return the speakers of an episode, who speaks longest first; None for a mix."""
        return None if self.speakers == "mix" else list(self._episode(item).diarization().ratios)

    def sides(self, item: AudioItem, view: View, sample_rate: int) -> tuple[Tensor | None, Tensor]:
        """Return the agent's and the other side's audio, (1, T) float32 each; None: the agent is silent throughout.

        Raises:
            UserError: the audio is damaged or not what the options allow.
        """
        agent, other = self._unmasked(item, view, sample_rate)
        if self.mask_laughter == "none":
            return agent, other
        laughs = [event for event in self._episode(item).events() if event.label == _LAUGHTER]
        if self.mask_laughter == "agent":
            laughs = [event for event in laughs if event.speaker in view.others]
        spans = [(event.start, event.end) for event in laughs]
        silent = None if agent is None else silence(agent, spans, sample_rate)
        return silent, silence(other, spans, sample_rate) if self.mask_laughter == "all" else other

    def words_of(self, item: AudioItem, view: View) -> list[Word]:
        """Return the words of the agent's side.

        Raises:
            UserError: there is no transcript, or the view is of a mix, whose agent says nothing.
        """
        if view.user is None:
            raise UserError(
                "features.text=transcript needs data.speakers=diarized or separated: in a mix the agent says nothing."
            )
        words = self._episode(item).words()
        if words is None:
            raise UserError(
                f"{item.id}: no transcript in {Tree(self.folder).metadata / files.TRANSCRIPTS / item.split}; set "
                "features.text=pad."
            )
        return [word for word in words if word.speaker in view.others]

    # ---- which episodes ----------------------------------------------------------------------------------------------

    @property
    def _audio(self) -> str | None:
        """The kind of audio files; None: there are none to choose from."""
        if self.audio != "auto":
            return self.audio
        here = [kind for kind in ("wav", "mp3") if (self.folder / "audio" / f"episode_{kind}").is_dir()]
        return here[0] if here else None

    def _check_settings(self) -> None:
        if isinstance(self.splits, str) or not self.splits or set(self.splits) - set(files.SPLITS):
            raise UserError(f"data.splits={self.splits}: give a list of {', '.join(files.SPLITS)}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"data.{name}={getattr(self, name)}: choose {', '.join(choices)}.")
        if self.source == "sample" and not self.folder.is_dir():
            raise UserError(f"{self.folder} holds no sample corpus yet; a run without dry_run=true writes it.")
        if not 0 <= self.min_speaker_share <= 1:
            raise UserError(f"data.min_speaker_share={self.min_speaker_share}: give a share from 0 to 1.")
        if self.speakers == "mix" and self.mask_laughter == "agent":
            raise UserError(
                "data.mask_laughter=agent needs data.speakers=diarized or separated: in a mix the agent is silent."
            )

    def _read_split(self, split: str, problems: list[str]) -> list[AudioItem]:
        tree = Tree(self.folder)
        audio = tree.audio(self._audio or "wav", split)
        tables = tree.files(files.EVENTS, split)
        names = {} if tree.has(files.EVENTS) else self._names_in_table(split)
        needed = {"annotation": {*tables, *names}}
        if self.speakers != "mix":
            needed["diarization"] = set(tree.files(files.DIARIZATIONS, split))
            needed["speakers of events"] = set(tree.files(files.EVENT_SPEAKERS, split))
        if self.speakers == "separated":
            needed["separated audio"] = set(tree.separated(split))
        for what, keys in needed.items():
            problems += _named(f"{split}: {{}} [episode has|episodes have] no {what}", audio.keys() - keys)
        problems += _named(
            f"{split}: {{}} [annotation has|annotations have] no audio", needed["annotation"] - audio.keys()
        )
        complete = [key for key in audio if all(key in keys for keys in needed.values())]
        apart = (files.DIARIZATIONS, files.EVENT_SPEAKERS) if self.speakers != "mix" else ()
        others = [tree.files(kind, split) for kind in (files.TRANSCRIPTS, files.VAD, *apart)]
        names |= {key: files.original_name(audio[key].stem, tables[key]) for key in complete if key in tables}
        read = {
            key: [tables.get(key, tree.table), *(found[key] for found in others if key in found)] for key in complete
        }
        return [_item(split, key, audio[key], names[key], read[key]) for key in complete]

    def _names_in_table(self, split: str) -> dict[str, str]:
        """Return key -> name of the episodes of a split in the table of all events."""
        table = Tree(self.folder).table
        if not table.is_file():
            raise UserError(
                f"{self.folder}: neither metadata/{files.EVENTS} nor metadata/{files.TABLE}; {files.LAYOUT}."
            )
        return {sanitise(name): name for name, rows in read_table(table).items() if rows[0].split == split}

    def _overlap(self, items: Sequence[AudioItem]) -> str | None:
        """Return what is wrong with shows that are in several splits."""
        splits: dict[str, set[str]] = {}
        for item in items:
            splits.setdefault(item.metadata["show"], set()).add(item.split)
        shared = [f"{show} ({', '.join(sorted(found))})" for show, found in splits.items() if len(found) > 1]
        if not shared:
            return None
        return (
            f"{self.folder}: {inflected('{} [show is|shows are]', len(shared))} in two splits, so its voices would be "
            f"known before they are tested: {listed(shared)}.\nMove the episodes, or accept that: "
            "data.allow_show_overlap=true."
        )

    def _with_views(self, items: list[AudioItem]) -> tuple[list[AudioItem], list[str]]:
        if self.speakers == "mix":
            return items, []
        viewed = [item for item in items if self.views(item)]
        without = sorted({item.id for item in items} - {item.id for item in viewed})
        rule = {"separated": "fewer than two speakers", "diarized": f"no speaker with {self.min_speaker_share:.0%}"}
        return viewed, _named(f"{{}} [episode has|episodes have] {rule[self.speakers]}", without)

    def _episode(self, item: AudioItem) -> Episode:
        return Episode(Tree(self.folder), item, told_apart=self.speakers != "mix")

    def _unmasked(self, item: AudioItem, view: View, sample_rate: int) -> tuple[Tensor | None, Tensor]:
        if self.speakers == "separated":
            return self._episode(item).separated(view, sample_rate, downmix=self.downmix)
        wav = load_mono(item.path, sample_rate, downmix=self.downmix)[0]
        if view.user is None:
            return None, wav
        diarization = self._episode(item).diarization()
        agent = keep(wav, diarization.spans(view.others), sample_rate) if view.others else None
        return agent, keep(wav, diarization.spans([view.user]), sample_rate)


def _item(split: str, key: str, path: Path, name: str, others: Sequence[Path]) -> AudioItem:
    """Return an episode, stamped with all files that its features and labels come from."""
    stamp = " ".join(file_stamp(file) for file in (path, *others))
    return AudioItem(f"{split}/{key}", path, split, stamp, {"episode": name, "show": files.show_of(name)})


def _named(text: str, names: Iterable[str]) -> list[str]:
    """Return no line for no names; else one with their number, in the form that goes with it, and ten of them."""
    found = sorted(names)
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return [f"{inflected(text, len(found))}: {'; '.join(found[:_LISTED])}{more}"] if found else []
