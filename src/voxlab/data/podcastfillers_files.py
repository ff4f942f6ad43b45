"""Where PodcastFillers keeps what: its folders under their spellings, and file names matched however they are spelt."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from voxlab.data.librispeech_files import entries
from voxlab.errors import UserError

SPLITS = ("train", "validation", "test")
TABLE = "PodcastFillers.csv"
EVENTS, TRANSCRIPTS, VAD = "episode_annotations", "episode_transcripts", "episode_vad"
DIARIZATIONS, EVENT_SPEAKERS = "episode_diarizations", "episode_event_speaker_mapping"
SEPARATED = "episode_wav_dial"
_SUFFIXES = {EVENTS: ".csv", TRANSCRIPTS: ".json", VAD: ".csv", DIARIZATIONS: ".json", EVENT_SPEAKERS: ".json"}
_METADATA = ("metadata", "meta_data")
_UNSAFE = re.compile(r'[?"|\\/:*<>]')
LAYOUT = """expected:
  audio/episode_wav/<split>/<show>_<episode>.wav (or audio/episode_mp3/<split>/<show>_<episode>.mp3)
  metadata/episode_annotations/<split>/<show>_<episode>.csv (or metadata/PodcastFillers.csv)
with the splits train, validation and test"""


def sanitise(name: str) -> str:
    """Return the name of an episode as copies of the data set spell it that put `_` for what some systems refuse."""
    return _UNSAFE.sub("_", name)


def show_of(episode: str) -> str:
    """Return the show of an episode: `<show>_<episode>`."""
    return episode.partition("_")[0]


@dataclass(frozen=True)
class Tree:
    """The folders below a root; an episode goes by its key, the sanitised name."""

    base: Path

    @property
    def metadata(self) -> Path:
        """The folder of tables and transcripts, in either spelling."""
        return next((path for name in _METADATA if (path := self.base / name).is_dir()), self.base / _METADATA[0])

    @property
    def table(self) -> Path:
        """The table of all events."""
        return self.metadata / TABLE

    def has(self, kind: str) -> bool:
        """Tell whether there is a folder of this kind."""
        return (self.metadata / kind).is_dir()

    def files(self, kind: str, split: str) -> dict[str, Path]:
        """Return key -> file of a kind of metadata; empty where there is no such folder."""
        folder = self.metadata / kind / split
        return _by_key(folder, _SUFFIXES[kind]) if folder.is_dir() else {}

    def audio(self, kind: str, split: str) -> dict[str, Path]:
        """Return key -> audio file of a split.

        Args:
            kind: "wav" or "mp3".
            split: its name.

        Raises:
            UserError: there is no such folder, or nothing in it.
        """
        folder = self.base / "audio" / f"episode_{kind}" / split
        if not folder.is_dir():
            state = "" if self.base.is_dir() else f" ({self.base} is not there at all)"
            raise UserError(
                f"there is no folder {folder}{state}; {LAYOUT}.\nSet data.root=DIR to the folder PodcastFillers, "
                "choose what is there with data.splits=[train] or data.audio=mp3, or try data.source=sample."
            )
        found = _by_key(folder, f".{kind}")
        if not found:
            raise UserError(f"no .{kind} file in {folder}: unpack the archive completely, or see data.audio.")
        return found

    def separated(self, split: str) -> dict[str, Path]:
        """Return key -> folder with a file for each speaker."""
        folder = self.base / "audio" / SEPARATED / split
        return _by_key(folder, "", folders=True) if folder.is_dir() else {}


def _by_key(folder: Path, suffix: str, *, folders: bool = False) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in entries(folder):
        if entry.is_dir() == folders and entry.name.lower().endswith(suffix):
            key = sanitise(entry.name[: len(entry.name) - len(suffix)])
            if key in found:
                raise UserError(
                    f"{folder}: {found[key].name!r} and {entry.name!r} are one episode; delete one of them."
                )
            found[key] = Path(entry.path)
    return found


def original_name(stem: str, table: Path) -> str:
    """Return the name that an episode has in the first row of its table, where that is this episode, else `stem`."""
    with table.open(encoding="utf-8-sig", newline="", errors="replace") as file:
        row = next(iter(csv.DictReader(file)), {})
    name = row.get("podcast_filename")
    return name if name and sanitise(name) == sanitise(stem) else stem
