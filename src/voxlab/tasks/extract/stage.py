"""What the stages of `task=extract` share: where they work, which items there are, and what they leave to the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlab.audio import Seconds
from voxlab.data.items import AudioItem
from voxlab.parallel import Ranks

NORMALIZED, TOKENS, DATASET = "normalized", "tokens", "dataset"


@dataclass(frozen=True)
class Stage:
    """The surroundings of a stage.

    Attributes:
        out: output folder; stages write `normalized/`, `tokens/` and `dataset/` below it.
        items: all recordings of the corpus, sorted by id.
        ranks: this process among its peers.
        seed: of everything random.
        max_batch_seconds: largest padded batch in seconds of audio.
        dry_run: plan only, write nothing.
    """

    out: Path
    items: tuple[AudioItem, ...]
    ranks: Ranks
    seed: int = 0
    max_batch_seconds: float = 0.0
    dry_run: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a stage did, the same on all ranks.

    Attributes:
        done: items worked on in this run, by all ranks, that now have a result; in a dry run, those to work on.
        kept: items that were up to date.
        failed: id -> reason of every item that has none of the stage's results (also found by earlier runs).
        warnings: lines for the summary and the report.
        facts: further lines of the summary.
        expected: in a dry run, seconds that the stage takes; None: they were not measured.
        basis: what they rest on, or why there are none.
    """

    done: int = 0
    kept: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    expected: Seconds | None = None
    basis: str = "not measured"
