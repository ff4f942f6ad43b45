"""Settings of `task=train_tokenizer stage=test`, checked before anything is loaded, and the recordings they choose."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from voxlab.audio import Seconds
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.tasks.train_tokenizer.measure import spread

log = logging.getLogger(__name__)

_SPLITS = ("test", "validation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What conf/task/train_tokenizer.yaml describes under `test`.

    Raises:
        UserError: a value is out of range.
    """

    split: str | None = None
    limit: int | None = 100
    max_seconds: Seconds = 30.0
    resamples: int = 1000
    clips: int = 5
    prefix_files: int = 20
    stability_files: int = 10
    speed_seconds: Seconds = 10.0
    speed_repeats: int = 20
    speed_batch: int | None = None
    asr: str | None = None
    speaker: str | None = None

    def __post_init__(self) -> None:
        lowest = {"limit": 1, "resamples": 100, "speed_batch": 1}
        for name in ("limit", "resamples", "clips", "prefix_files", "stability_files", "speed_repeats", "speed_batch"):
            value, least = getattr(self, name), lowest.get(name, 0)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"test.{name}={value!r}: give a whole number of {least} or more.")
        for name in ("max_seconds", "speed_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.5 <= value < float("inf"):
                raise UserError(f"test.{name}={value!r}: give half a second or more.")
        for name in ("asr", "speaker"):
            folder = getattr(self, name)
            if folder is not None and not Path(folder).is_dir():
                raise UserError(
                    f"test.{name}={folder}: there is no such folder. Give a local copy of a model, or null."
                )


def choose_items(items: Sequence[AudioItem], split: str | None, limit: int | None) -> list[AudioItem]:
    """Return the recordings to measure: `limit` of a split, evenly spaced over their sorted ids.

    Args:
        items: all recordings of a corpus.
        split: its name; None takes test, else validation, else all.
        limit: None takes all.

    Raises:
        UserError: the corpus has no such split.
    """
    splits = {item.split for item in items}
    if split is not None and split not in splits:
        raise UserError(f"test.split={split}: the corpus has {', '.join(sorted(splits)) or 'no recordings'}.")
    wanted = split or next((name for name in _SPLITS if name in splits), None)
    if wanted is None and "train" in splits:
        log.warning("no split test or validation: all recordings are measured, those that a codec was trained on too")
    chosen = sorted((item for item in items if wanted in (None, item.split)), key=lambda item: item.id)
    if not chosen:
        raise UserError("no recordings to measure.")
    return [chosen[index] for index in spread(len(chosen), limit)]


def check_texts(items: Sequence[AudioItem]) -> None:
    """Stop at a recording without transcript in a corpus with some: its word errors would be left out in silence."""
    lacking = [item.id for item in items if "text" in item.metadata and not item.metadata["text"]]
    if lacking:
        raise UserError(
            f"test.asr needs the transcripts of all recordings; {len(lacking)} of {len(items)} have none "
            f"({', '.join(lacking[:5])}). Add them to their trans.txt, or set test.asr=null."
        )
