"""Files of a quality report beside its page: quality.json, tables, plots, and clips as WAV."""

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from voxlab import audio, plots, storage
from voxlab.tasks.train_tokenizer.measure import LABELS
from voxlab.tasks.train_tokenizer.summary import Quality

_DRAWN_BOOKS = 8
_FACTS = ("silent", "silent_output", "length_error", "late")


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """A recording and what the codec made of it.

    Attributes:
        id: of the recording.
        kind: "best", "worst" or "" for those that every codec shows.
        reference: (1, N) mono.
        reference_rate: Hz.
        output: (C, M).
        output_rate: Hz.
        text: what is said, or "".
    """

    id: str
    kind: str
    reference: Tensor
    reference_rate: int
    output: Tensor
    output_rate: int
    text: str


def clip_paths(folder: Path, name: str) -> tuple[Path, Path]:
    """Return where original and output of a recording are stored."""
    return folder / f"{name}.ref.wav", folder / f"{name}.rec.wav"


def write_clips(clips: Sequence[Reconstruction], folder: Path) -> Sequence[Reconstruction]:
    """Write `<id>.ref.wav` and `<id>.rec.wav` of each clip; returns the clips."""
    for clip in clips:
        reference, output = clip_paths(folder, clip.id)
        storage.atomic_write_bytes(reference, audio.encode_wav(clip.reference, clip.reference_rate))
        storage.atomic_write_bytes(output, audio.encode_wav(clip.output, clip.output_rate))
    return clips


def write_tables(quality: Quality, about: Mapping[str, Any], run_dir: Path) -> None:
    """Write quality.json, per_file.csv, codebooks.csv and the plots."""
    storage.atomic_write_json(run_dir / "quality.json", _as_json(quality, about))
    storage.atomic_write_bytes(run_dir / "per_file.csv", write_csv(_file_rows(quality)))
    storage.atomic_write_bytes(run_dir / "codebooks.csv", write_csv(_codebook_rows(quality)))
    for name, chart in draw_charts(quality).items():
        storage.atomic_write_bytes(run_dir / f"{name}.png", plots.render_png(chart))


def _as_json(quality: Quality, about: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **about,
        "rates": quality.rates,
        "entropy_bitrate": quality.entropy_bitrate,
        "recordings": [result.id for result in quality.results],
        "failed": {result.id: result.error for result in quality.results if result.error is not None},
        "measures": {name: dataclasses.asdict(mean) for name, mean in quality.means.items()},
        "codebooks": [dataclasses.asdict(book) for book in quality.codebooks],
        "prefixes": {str(count): values for count, values in quality.prefixes.items()},
        "stability": quality.stability,
        "speed": quality.speed,
    }


def write_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV; missing values are empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _file_rows(quality: Quality) -> list[dict[str, Any]]:
    return [
        {
            "id": result.id,
            "seconds": result.seconds,
            **{name: result.values.get(name) for name in quality.means},
            **{name: result.facts.get(name) for name in _FACTS},
            "missing": "; ".join(f"{name}: {reason}" for name, reason in result.missing.items()),
            "error": result.error,
        }
        for result in quality.results
    ]


def _codebook_rows(quality: Quality) -> list[dict[str, Any]]:
    return [{"codebook": index, **dataclasses.asdict(book)} for index, book in enumerate(quality.codebooks, 1)]


def draw_charts(quality: Quality) -> dict[str, Figure]:
    """Draw the plots of a report: file name -> figure."""
    charts = {"codebooks": draw_counts(quality), "codebook_use": draw_use(quality)}
    curves = {
        name: {LABELS[name].label: _curve(quality, name)} for name in ("mel_l1", "stoi") if _curve(quality, name)[0]
    }
    labels = {"mel_l1": ("prefix_curve", "mel L1 (nats)"), "stoi": ("prefix_curve_stoi", "STOI")}
    return charts | {
        labels[name][0]: plots.plot_curves(curve, "kbit/s of the first 1..K codebooks", labels[name][1])
        for name, curve in curves.items()
    }


def _curve(quality: Quality, name: str) -> tuple[list[float], list[float]]:
    points = [(point["kbit"], point[name]) for point in quality.prefixes.values() if name in point]
    return [x for x, _ in points], [y for _, y in points]


def draw_counts(quality: Quality) -> Figure:
    """Draw the share of all codes that the most frequent entries make up; even use is a straight line to 100 %."""
    curves = {}
    for index, counted in enumerate(quality.counts[:_DRAWN_BOOKS], 1):
        covered = 100 * counted.sort(descending=True).values.cumsum(0).double() / max(1, int(counted.sum()))
        curves[f"codebook {index}"] = (list(range(1, len(covered) + 1)), covered.tolist())
    return plots.plot_curves(curves, "most frequent entries", "% of the codes")


def draw_use(quality: Quality) -> Figure:
    """Draw use and entropy of the codebooks beside the ceiling that so few codes can reach."""
    books = list(range(1, len(quality.codebooks) + 1))
    curves = {
        "use": (books, [100 * book.use for book in quality.codebooks]),
        "ceiling of so few codes": (books, [100 * book.ceiling for book in quality.codebooks]),
        "entropy": (books, [100 * book.normalized_entropy for book in quality.codebooks]),
    }
    return plots.plot_curves(curves, "codebook", "% of all")


def draw_pair(reference: Tensor, reference_rate: int, output: Tensor, output_rate: int) -> bytes:
    """Draw the spectrogram of an original above that of its reconstruction, as PNG."""
    from matplotlib import image

    drawn = [
        plots.render_png(plots.plot_spectrogram(wav, rate, size=plots.WIDE))
        for wav, rate in ((reference, reference_rate), (output, output_rate))
    ]
    pixels = np.concatenate([image.imread(io.BytesIO(png)) for png in drawn])
    file = io.BytesIO()
    image.imsave(file, pixels, format="png")
    return file.getvalue()
