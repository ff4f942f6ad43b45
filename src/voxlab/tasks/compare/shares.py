"""Shares of positives: where runs differ in theirs, most figures of a classifier can't be ranked against one another.

A run tells its share as `<split>/prior` among its figures.
"""

import re
from collections.abc import Mapping, Sequence

from voxlab.tasks.compare.figures import Figure

_NAME = "prior"
_ANY_SHARE = re.compile(r"(.*/)?(ap_lift|auroc|mcc|youden|balanced_accuracy)")  # what chance gets is the same at any
_TOLERANCE = 0.01  # of the larger share: far below what intervals can tell

Shares = dict[str, tuple[float, float]]  # split -> the lowest and the highest share of positives


def differing(runs: Sequence[Mapping[str, Figure]]) -> Shares:
    """Return the splits in which runs have other shares of positives, e.g. {"test": (0.04, 0.08)}."""
    found: dict[str, list[float]] = {}
    for name, figure in (pair for figures in runs for pair in figures.items()):
        split, _, last = name.rpartition("/")
        if last == _NAME and "/" not in split:
            found.setdefault(split, []).append(figure.value)
    ends = {split: (min(values), max(values)) for split, values in found.items()}
    return {split: (low, high) for split, (low, high) in ends.items() if high - low > _TOLERANCE * high}


def can_rank(name: str, shares: Shares) -> bool:
    """Tell whether a figure means the same in all runs, whatever their shares of positives."""
    return name.partition("/")[0] not in shares or _ANY_SHARE.fullmatch(name) is not None
