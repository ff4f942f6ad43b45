"""From the results of all recordings to the figures of a quality report: means with intervals, codebooks, curves."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlab.codecs.base import CodecInfo
from voxlab.metrics.codes import CodebookUse, describe_use, entropy_coded_bitrate
from voxlab.metrics.statistics import bootstrap_interval
from voxlab.tasks.train_tokenizer.measure import JUDGED, MEASURES, Result, shares

NOT_GIVEN = {
    "wer": "no model given (test.asr)",
    "dwer": "no model given (test.asr)",
    "speaker_similarity": "no model given (test.speaker)",
}


@dataclasses.dataclass(frozen=True)
class Mean:
    """A measure over all recordings.

    Attributes:
        mean: None where no recording has a value. Word error rates are weighted by the words of the transcripts.
        low: lower end of the 95 % bootstrap interval.
        high: its upper end.
        n: recordings with a value.
        missing: reason -> recordings without one.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    missing: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Quality:
    """All figures of a report.

    Attributes:
        rates: see `rates_of`.
        results: one per recording.
        means: measure -> mean.
        codebooks: use of each codebook.
        counts: (size,) per codebook.
        entropy_bitrate: bit/s of a coder that knows how often each entry occurs.
        prefixes: number of first codebooks -> kbit/s and the means of some measures.
        stability: kind of change -> share of equal codes, of all codebooks ("all") and of each ("codebooks").
        speed: see `speed.measure_speed`; empty where it was not measured.
    """

    rates: dict[str, Any]
    results: list[Result]
    means: dict[str, Mean]
    codebooks: list[CodebookUse]
    counts: list[Tensor]
    entropy_bitrate: float
    prefixes: dict[int, dict[str, float]]
    stability: dict[str, dict[str, Any]]
    speed: dict[str, Any]

    @property
    def good(self) -> list[Result]:
        """The recordings that could be measured."""
        return [result for result in self.results if result.error is None]

    def count(self, fact: str) -> int:
        """Count the recordings of which a fact (silent, silent_output, length_error) holds."""
        return sum(bool(result.facts[fact]) for result in self.good)


def rates_of(info: CodecInfo) -> dict[str, Any]:
    """Return what a codec sends: frames, tokens and bits per second."""
    return {
        "codec": info.name,
        "weights": info.weights_id,
        "sample_rate": info.sample_rate,
        "frame_rate": info.frame_rate,
        "num_codebooks": info.num_codebooks,
        "codebook_size": info.codebook_size,
        "tokens_per_second": info.frame_rate * sum(1 / stride for stride in info.strides),
        "bitrate": info.bitrate,
    }


def quality_of(
    results: Sequence[Result], info: CodecInfo, speed: Mapping[str, Any], *, resamples: int, seed: int
) -> Quality:
    """Sum up.

    Args:
        results: one per recording, in order; at least one without error.
        info: the codec.
        speed: see `Quality`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    good = [result for result in results if result.error is None]
    counts = [torch.stack(books).sum(0) for books in zip(*(result.counts for result in good), strict=True)]
    names = [*MEASURES, *JUDGED]
    return Quality(
        rates=rates_of(info),
        results=list(results),
        means={name: _mean(name, good, resamples, seed) for name in names},
        codebooks=[describe_use(counted) for counted in counts],
        counts=counts,
        entropy_bitrate=entropy_coded_bitrate(counts, info.frame_rate, info.strides),
        prefixes=_prefixes(good, info),
        stability=_stability(good),
        speed=dict(speed),
    )


def _mean(name: str, results: Sequence[Result], resamples: int, seed: int) -> Mean:
    present = [result for result in results if name in result.values]
    missing = Counter(result.missing[name] for result in results if name in result.missing)
    if not present:
        return Mean(None, None, None, 0, dict(missing) or {NOT_GIVEN.get(name, "not measured"): len(results)})
    values = [result.values[name] for result in present]
    weights = [result.words.get(name, 1) for result in present]
    mean = sum(value * weight for value, weight in zip(values, weights, strict=True)) / sum(weights)
    low, high = bootstrap_interval(values, weights=weights, resamples=resamples, seed=seed)
    return Mean(mean, low, high, len(present), dict(missing))


def _prefixes(results: Sequence[Result], info: CodecInfo) -> dict[int, dict[str, float]]:
    """Average the curves over the recordings that have them."""
    curves = [result.prefixes for result in results if result.prefixes]
    averaged: dict[int, dict[str, float]] = {}
    for count in sorted(curves[0]) if curves else []:
        shorter = dataclasses.replace(info, num_codebooks=count, strides=info.strides[:count])
        averaged[count] = {"kbit": shorter.bitrate / 1000}
        for name in ("mel_l1", "stoi"):
            values = [curve[count][name] for curve in curves if name in curve[count]]
            if values:
                averaged[count][name] = sum(values) / len(values)
    return averaged


def _stability(results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    kinds = dict.fromkeys(kind for result in results for kind in result.stability)
    summed: dict[str, dict[str, Any]] = {}
    for kind in kinds:
        rows = [result.stability[kind] for result in results if kind in result.stability]
        books = [(sum(e for e, _ in pairs), sum(n for _, n in pairs)) for pairs in zip(*rows, strict=True)]
        total = (sum(equal for equal, _ in books), sum(n for _, n in books))
        summed[kind] = {"all": shares([total])[0], "codebooks": shares(books)}
    return summed


def summary_of(quality: Quality, run_dir: Path) -> dict[str, Any]:
    """Return what metrics.json holds: a number per measure, and beside it how sure that is."""
    means = {name: mean.mean for name, mean in quality.means.items() if mean.mean is not None}
    details = {
        name: {key: value for key, value in dataclasses.asdict(mean).items() if key != "mean"}
        for name, mean in quality.means.items()
    }
    speed = {key: quality.speed[key] for key in ("encode_rtf", "decode_rtf", "rtf") if key in quality.speed}
    return {
        **quality.rates,
        "entropy_bitrate": quality.entropy_bitrate,
        "recordings": len(quality.results),
        "failed": len(quality.results) - len(quality.good),
        "hours": sum(result.seconds for result in quality.good) / 3600,
        **means,
        **speed,
        "codebook_use": sum(book.use for book in quality.codebooks) / len(quality.codebooks),
        "details": details,
        "report": str(run_dir / "report.html"),
    }
