"""What every audio corpus yields: `AudioItem`, one recording with its split and metadata, without its samples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class AudioItem:
    """One recording of a corpus.

    Attributes:
        id: stable name, a relative POSIX path without suffix ("session1/take_pitch_64"); unique in the corpus.
        path: the file that holds the audio.
        split: name of its split, valid for `datasets` (letters, digits, "_" and ".").
        stamp: changes when the file does (size and time of change).
        metadata: values by name, from the corpus's tables: str, int, float, bool or None.
        content: returns the bytes of a complete audio file, where `path` is a container of many; None: `path` itself.
    """

    id: str
    path: Path
    split: str
    stamp: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content: Callable[[], bytes] | None = None

    def read(self) -> bytes:
        """Return the complete audio file.

        Raises:
            OSError: it can't be read.
        """
        return self.path.read_bytes() if self.content is None else self.content()


class AudioCorpus(Protocol):
    """A corpus of recordings, as `task=extract` reads it."""

    @property
    def folder(self) -> Path:
        """The folder that is read."""
        ...

    def prepare(self) -> None:
        """Write the sample or download the files, when asked to. To be called on one rank only."""
        ...

    def items(self) -> list[AudioItem]:
        """Return all recordings, sorted by id, without loading audio.

        Raises:
            UserError: no recording, or several with one id; names all problems at once.
        """
        ...

    def check(self) -> list[str]:
        """Report everything that is wrong with the corpus, one line a finding."""
        ...


def file_stamp(path: Path) -> str:
    """Return "<size>:<time of change in ns>" of a file."""
    status = path.stat()
    return f"{status.st_size}:{status.st_mtime_ns}"
