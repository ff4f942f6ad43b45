"""Long recordings with annotated events: what an episode holds besides its audio, and whose side of it is looked at."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from voxlab.audio import Seconds
from voxlab.data.items import AudioCorpus, AudioItem

FRAME_RATE = 12.5
# Times are decimal numbers of seconds, and binary fractions fall just short of them: 2.32 * 12.5 = 28.999999999999996.
_SLACK = 1e-6


@dataclass(frozen=True)
class Event:
    """Something that is heard: its label, start and end in seconds from the start of the recording.

    Attributes:
        confidence: of the annotators, 0 to 1; None where it is not known.
        speaker: who is heard; None where that is not known.
    """

    label: str
    start: Seconds
    end: Seconds
    confidence: float | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Word:
    """A word of a transcript with its time in seconds; `speaker` is None where that is not known."""

    text: str
    start: Seconds
    end: Seconds
    speaker: str | None = None


@dataclass(frozen=True)
class Annotation:
    """All that is known of a recording besides its audio.

    Attributes:
        events: by start.
        words: by start; None without transcript.
        vad: (n, 2) float32: time in seconds, voice activity 0 to 1; None without such a file.
    """

    events: tuple[Event, ...]
    words: tuple[Word, ...] | None
    vad: np.ndarray | None


@dataclass(frozen=True)
class View:
    """Whose laughter is looked at: one recording with K views gives K sequences of features.

    Attributes:
        index: 0 to K - 1.
        user: the speaker on the "other" stream, whom the model listens to; None: all, mixed.
        others: the speakers on the "agent" stream.
        user_ratio: share of the recording that the user speaks.
    """

    index: int
    user: str | None
    others: tuple[str, ...]
    user_ratio: float | None


MIX = View(0, None, (), None)


class EpisodeCorpus(AudioCorpus, Protocol):
    """A corpus of episodes: what feature extraction and labels need beyond the recordings themselves."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What of the corpus's options decides the features; plain values, part of the store's fingerprint."""
        ...

    @property
    def uses_oracle_mask(self) -> bool:
        """Whether annotations decide which parts of the audio are silenced."""
        ...

    def annotation(self, item: AudioItem) -> Annotation:
        """Read what is annotated.

        Raises:
            UserError: a file is damaged; names file, row and column.
        """
        ...

    def views(self, item: AudioItem) -> list[View]:
        """Return the views, one at least, `index` counting from 0.

        Raises:
            UserError: the files that tell speakers apart are missing or damaged.
        """
        ...

    def speakers_of(self, item: AudioItem) -> list[str] | None:
        """Return the speakers that are known of a recording; None where speakers aren't told apart."""
        ...

    def sides(self, item: AudioItem, view: View, sample_rate: int) -> tuple[Tensor | None, Tensor]:
        """Return the agent's and the other side's audio, both (1, T) float32; None is digital silence of that length.

        Raises:
            UserError: the audio is damaged, or not what the options allow.
        """
        ...

    def words_of(self, item: AudioItem, view: View) -> list[Word]:
        """Return the words of the agent's side, by start.

        Raises:
            UserError: there is no transcript.
        """
        ...


def frame_of(seconds: Seconds, frame_rate: float = FRAME_RATE) -> int:
    """Return the frame that holds an instant: frame t covers t / frame_rate <= seconds < (t + 1) / frame_rate."""
    return math.floor(seconds * frame_rate + _SLACK)


def end_frame_of(seconds: Seconds, frame_rate: float = FRAME_RATE) -> int:
    """Return the first frame that begins at or after an instant."""
    return math.ceil(seconds * frame_rate - _SLACK)
