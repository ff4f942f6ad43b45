"""The files of one episode of PodcastFillers, read together and held against each other."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from voxlab.audio import Seconds, resample
from voxlab.data import podcastfillers_files as files
from voxlab.data.episodes import Event, View, Word
from voxlab.data.items import AudioItem
from voxlab.data.podcastfillers_audio import check_header, load_mono
from voxlab.data.podcastfillers_files import Tree, sanitise
from voxlab.data.podcastfillers_speakers import Diarization, name_events, name_words, read_diarization
from voxlab.data.podcastfillers_tables import Row, read_events, read_table, read_transcript, read_vad
from voxlab.data.recordings import Header, read_header
from voxlab.errors import UserError

_BEYOND = 1.02


@dataclass(frozen=True)
class Episode:
    """One episode: where its files are, and whether its speakers are told apart."""

    tree: Tree
    item: AudioItem
    told_apart: bool

    def events(self) -> tuple[Event, ...]:
        """Return the events of the consolidated vocabulary by start, with speakers where these are told apart.

        Raises:
            UserError: the table is damaged (names line and column), is of another episode, or goes on for more than
                2 % beyond the audio.
        """
        table, rows = self._rows()
        for row in rows:
            if sanitise(row.episode) != self._key or row.split != self.item.split:
                raise UserError(
                    f"{table}:{row.line}: a row of {row.episode!r} in the split {row.split!r}, where {self.item.id!r} "
                    "is expected. Put the file where it belongs."
                )
        self._refuse_beyond(table, max((row.event.end for row in rows), default=0.0), "event")
        consolidated = [row.event for row in rows if row.event.label != "None"]
        events = sorted(consolidated, key=lambda event: (event.start, event.end))
        return tuple(name_events(events, self._needed(files.EVENT_SPEAKERS)) if self.told_apart else events)

    def words(self) -> tuple[Word, ...] | None:
        """Return the words by start, with the speakers of the diarization where there is one; None without transcript.

        Raises:
            UserError: the transcript is damaged or doesn't fit the length of the audio.
        """
        path = self._file(files.TRANSCRIPTS)
        if path is None:
            return None
        words = read_transcript(path, self._header().duration)
        return name_words(words, self.diarization()) if self.told_apart else words

    def vad(self) -> np.ndarray | None:
        """Return (n, 2) float64 time in seconds and voice activity; None without such a file."""
        path = self._file(files.VAD)
        return None if path is None else read_vad(path)

    def diarization(self) -> Diarization:
        """Return who speaks when.

        Raises:
            UserError: the file is missing or damaged.
        """
        return read_diarization(self._needed(files.DIARIZATIONS))

    def separated(self, view: View, sample_rate: int, *, downmix: bool) -> tuple[Tensor, Tensor]:
        """Return the audio of the first of the others and of the user, (1, T) float32 each, from files of their own.

        Raises:
            UserError: a file is missing or damaged, or the two differ in sample rate or length.
        """
        folder = self.tree.separated(self.item.split)[self._key]
        loaded = [load_mono(folder / f"{name}.wav", None, downmix=downmix) for name in (view.others[0], view.user)]
        shapes = [f"{wav.shape[-1]} samples at {rate} Hz" for wav, rate in loaded]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{folder}: {view.others[0]}.wav has {shapes[0]}, {view.user}.wav {shapes[1]}: the speakers of an "
                "episode must have equal lengths and sample rates. Separate it again."
            )
        agent, other = (resample(wav, rate, sample_rate) for wav, rate in loaded)
        return agent, other

    def failures(self, *, downmix: bool) -> list[str]:
        """Return what is wrong with the files, each read apart."""
        parts: list[Callable[[], object]] = [lambda: self._check_audio(downmix), self.events, self.words, self.vad]
        if self.told_apart:
            parts += [self.diarization, self._check_speakers]
        found: dict[str, None] = {}
        for part in parts:
            try:
                part()
            except UserError as error:
                found[str(error)] = None
        return list(found)

    def _header(self) -> Header:
        try:
            return read_header(self.item)
        except ValueError as error:
            raise UserError(f"{self.item.path} can't be read ({error}). Fetch it again.") from None

    @property
    def _key(self) -> str:
        return sanitise(self.item.path.stem)

    def _file(self, kind: str) -> Path | None:
        return self.tree.files(kind, self.item.split).get(self._key)

    def _needed(self, kind: str) -> Path:
        path = self._file(kind)
        if path is None:
            raise UserError(f"{self.item.id}: no file in {self.tree.metadata / kind / self.item.split}.")
        return path

    def _rows(self) -> tuple[Path, list[Row]]:
        if self.tree.has(files.EVENTS):
            table = self._needed(files.EVENTS)
            return table, read_events(table)
        by_key = {sanitise(name): rows for name, rows in read_table(self.tree.table).items()}
        return self.tree.table, by_key[self._key]

    def _refuse_beyond(self, path: Path, end: Seconds, what: str) -> None:
        duration = self._header().duration
        if end > _BEYOND * duration:
            raise UserError(
                f"{path}: annotation does not match audio: its last {what} ends at {end:.2f} s, {self.item.path} at "
                f"{duration:.2f} s. Put the right files together."
            )

    def _check_audio(self, downmix: bool) -> None:
        header = self._header()
        check_header(self.item.path, header.sample_rate, header.channels, downmix=downmix)

    def _check_speakers(self) -> None:
        known = self.diarization().ratios
        unknown = sorted({event.speaker for event in self.events() if event.speaker} - known.keys())
        if unknown:
            raise UserError(
                f"{self._needed(files.EVENT_SPEAKERS)}: events of the unknown speaker {', '.join(unknown)}; known are "
                f"{', '.join(known)}. Mend the file, or mask these events when you train: task=laughter "
                "labels.unknown_speaker=ignore."
            )
