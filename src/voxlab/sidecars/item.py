"""What a producer of columns is given: `SidecarItem`, one token file with the recording that it was made from.

A producer is a function `produce(item, times, **settings) -> {column name: (T,) numbers}`; `times` holds the time of
each token frame in seconds, its middle, float64 (T,).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Columns = dict[str, np.ndarray]
Producer = Callable[..., Mapping[str, Any]]


@dataclass(frozen=True)
class SidecarItem:
    """One token file and where it comes from.

    Attributes:
        id: relative POSIX path of the recording without suffix.
        tokens: the token file.
        source: the recording (or the container that holds it).
        metadata: the corpus's values for the recording, by name.
        num_samples: samples that were encoded, at `sample_rate`.
        sample_rate: Hz, of the codec.
        frame_rate: token frames per second.
        frames: number of token frames T.
        load_wav: returns what was encoded: mono waveform (1, num_samples) float32 array at `sample_rate`, and that.
        used: producers add each further file that they look for (also in vain): when one of them appears, changes or
            goes, the columns are made again.
        units: producers add the units of their columns.
    """

    id: str
    tokens: Path
    source: Path
    metadata: Mapping[str, Any]
    num_samples: int
    sample_rate: int
    frame_rate: float
    frames: int
    load_wav: Callable[[], tuple[np.ndarray, int]]
    used: list[Path] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Last part of the id: the recording's file name without suffix."""
        return self.id.rpartition("/")[2]

    @property
    def duration(self) -> float:
        """Length of the recording in seconds."""
        return self.num_samples / self.sample_rate


def companion(item: SidecarItem, suffix: str, folder: str | None = None) -> Path | None:
    """Find a file that belongs to a recording: its labels, its MIDI, its table.

    Args:
        item: the recording.
        suffix: end of the file name, after the recording's own without suffix (".mid", "_labels.txt").
        folder: where to look, at `<folder>/<id><suffix>`; None: beside the recording.

    Returns:
        The file, or None where there is none.
    """
    path = Path(folder) / f"{item.id}{suffix}" if folder else item.source.with_name(item.name + suffix)
    item.used.append(path)
    return path if path.is_file() else None


def need_companion(item: SidecarItem, suffix: str, folder: str | None = None) -> Path:
    """Find a file as `companion` does.

    Raises:
        ValueError: "missing_companion: ..." says which file was expected.
    """
    path = companion(item, suffix, folder)
    if path is None:
        raise ValueError(f"missing_companion: {item.id} has no {item.used[-1]}")
    return path
