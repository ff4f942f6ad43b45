"""The numbers of a run: intervals, which direction is better, which are shown first."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from voxlab.errors import UserError

# Parts of a name, the last that is known decides: test/mse/upper is an mse.
_HIGHER = re.compile(
    r"ap|ap_lift|auroc|f1|mcc|youden|precision|recall(_at_\w+)?|(balanced_)?accuracy|specificity|top\d+|pesq_\w+|e?stoi"
    r"|si_sdr|speaker_similarity|codebook_use|use(_\d+)?|(rows|audio_seconds|audio_s|steps)_per_s(econd)?"
    r"|generated_s_per_s"
)
_LOWER = re.compile(
    r"loss|log_loss|ce|brier|ece|fa_per_hour|fgd_\w+|ms_mel|mel_\w+|stft|d?wer|mse|l1|rec\w*|velocity\w*|acceleration"
    r"|degrees|geodesic_deg|joints_cm|mpjpe_cm|face_coef_\w+|failed\w*|unusable|findings|audit_errors"
    r"|audit_warnings|seconds_per_hour"
)
_NEUTRAL = re.compile(r"mel_l1_constant|recordings|\w+_shifted")  # would match above, and say nothing of quality
_ASIDE = re.compile(r"(baseline|oracle|prior|calibration|threshold)/|.*/(uncalibrated|at_half|event_h\d+)/")
_FIRST = (  # what a reader looks for first, where a run has it
    *("test/ap_lift", "test/ap", "test/auroc", "test/f1", "test/event/recall", "test/event/fa_per_hour"),
    *("test/fgd_*", "test/mpjpe_cm", "test/geodesic_deg", "test/face_coef_mse"),
    *("ms_mel", "mel_l1", "pesq_wb", "stoi", "si_sdr", "bitrate", "codebook_use"),
    *("val_loss", "val_mel_l1", "val_rec", "val_joints_cm", "best_step"),
    *("rows", "items", "failed_rows", "failed_items", "audit_errors", "rows_per_second", "audio_hours"),
    *("extracted", "failed", "hours", "seconds_per_hour"),
)
_COLUMNS = 12  # figures that are shown unasked


@dataclass(frozen=True)
class Figure:
    """A number of a run.

    Args:
        value: the number.
        interval: ends of its 95 % interval; None where the run has none.
    """

    value: float
    interval: tuple[float, float] | None = None


def read_figures(metrics: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the numbers at the top level of a metrics.json, with the intervals that stand beside them."""
    details = metrics.get("details")
    found = {}
    for name, value in metrics.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            ends = metrics.get(f"{name}/ci") or _ends(details.get(name) if isinstance(details, Mapping) else None)
            found[name] = Figure(value, (ends[0], ends[1]) if isinstance(ends, list | tuple) else None)
    return found


def _ends(detail: Any) -> tuple[float, float] | None:
    low, high = (detail.get(end) if isinstance(detail, Mapping) else None for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def direction(name: str) -> int:
    """Return 1 where a higher value is better, -1 where a lower one is, 0 where that is not known."""
    if _ASIDE.match(name):
        return 0
    for part in reversed(name.split("/")):
        word = re.sub(r"^(val|test|valid|validation)_", "", part)
        if _NEUTRAL.fullmatch(word):
            return 0
        if _HIGHER.fullmatch(word):
            return 1
        if _LOWER.fullmatch(word):
            return -1
    return 0


def choose(runs: Sequence[Mapping[str, Figure]], wanted: Sequence[str] | None) -> list[str]:
    """Return the names of the figures to show.

    Args:
        runs: figures of each.
        wanted: names, which may have * in them; None: those that matter most.

    Raises:
        UserError: no run has a figure of such a name.
    """
    present = list(dict.fromkeys(name for figures in runs for name in figures))
    if wanted is not None:
        return list(dict.fromkeys(name for pattern in wanted for name in _matching("metrics", pattern, present)))
    first = [name for pattern in _FIRST for name in present if fnmatchcase(name, pattern)]
    judged = [name for name in present if direction(name)]
    return list(dict.fromkeys(first or judged or present))[:_COLUMNS]


def _matching(key: str, pattern: str, present: Sequence[str]) -> list[str]:
    found = [name for name in present if name == pattern] or [name for name in present if fnmatchcase(name, pattern)]
    if not found:
        close = difflib.get_close_matches(pattern, present, n=5, cutoff=0.3) or list(present)[:5]
        raise UserError(
            f"{key}={pattern}: no run has such a figure.\nThe runs have {len(present)} figures"
            + (f", among them: {', '.join(close)}" if close else "; those of a run are there when it is done.")
        )
    return found


def order(runs: Sequence[Mapping[str, Figure]], name: str) -> list[int]:
    """Return the numbers of the runs by a figure, the best first; the largest where no direction is known.

    Runs without it come last.

    Raises:
        UserError: no run has a figure of that name.
    """
    present = list(dict.fromkeys(key for figures in runs for key in figures))
    (key, *_) = _matching("sort", name, present)
    sign = direction(key) or 1

    def place(number: int) -> tuple[bool, float]:
        figure = runs[number].get(key)
        return figure is None, -sign * figure.value if figure else 0.0

    return sorted(range(len(runs)), key=place)


def best(name: str, figures: Iterable[Figure | None]) -> float | None:
    """Return the best value of a figure; None where no direction is known, or nothing to choose from."""
    values = {figure.value for figure in figures if figure is not None}
    sign = direction(name)
    return max(values, key=lambda value: sign * value) if sign and len(values) > 1 else None
