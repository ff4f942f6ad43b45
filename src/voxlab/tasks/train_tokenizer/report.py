"""The page of `task=train_tokenizer stage=test`: quality beside published figures, codebooks, speed, audio players."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import audio, report
from voxlab.audio import Seconds
from voxlab.metrics.audio import DB_PER_NAT
from voxlab.metrics.codes import ENOUGH, CodebookUse
from voxlab.report import Section
from voxlab.tasks.train_tokenizer.anchors import Anchor, columns_of, nearest_anchors
from voxlab.tasks.train_tokenizer.files import Reconstruction, draw_charts, draw_counts, draw_use
from voxlab.tasks.train_tokenizer.measure import LABELS
from voxlab.tasks.train_tokenizer.summary import Mean, Quality

log = logging.getLogger(__name__)

_RANDOM = "The codec has random weights: these figures and this audio say nothing of it; they show the pipeline."
_PLAYED: Seconds = 10.0
_SHOWN_FAILURES = 20


def tell(quality: Quality) -> None:
    """Log the figures that matter most."""
    lines = [f"  {key.replace('_', ' ')}: {value}" for key, value in quality.rates.items()]
    lines.append(f"  entropy-coded bitrate: {quality.entropy_bitrate:.0f}")
    lines += [f"  {LABELS[name].label}: {_spell(mean)}" for name, mean in quality.means.items()]
    log.info("quality of %d recordings:\n%s", len(quality.good), "\n".join(lines))


def _spell(mean: Mean) -> str:
    if mean.mean is None:
        return f"missing ({_reasons(mean)})"
    return f"{mean.mean:.4g} ({mean.low:.4g} to {mean.high:.4g}, {mean.n} recordings)"


def _reasons(mean: Mean) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in mean.missing.items())


def write_page(quality: Quality, about: Mapping[str, Any], clips: Sequence[Reconstruction], run_dir: Path) -> Path:
    """Write report.html."""
    sections = [
        *_notices(quality),
        report.facts("Codec", _facts(quality, about)),
        _quality_table(quality),
        *_anchor_tables(quality),
        *_codebook_sections(quality),
        *_prefix_sections(quality),
        *_stability_sections(quality),
        *_speed_sections(quality),
        report.players("Original and reconstruction", [card for clip in clips for card in _cards(clip, quality)]),
        _differences_table(quality),
        *_failures(quality),
        report.code(json.dumps(about, indent=2), "Settings"),
    ]
    rates = quality.rates
    title = f"{rates['codec']}, {rates['bitrate'] / 1000:.3g} kbit/s"
    return report.write_report(run_dir / "report.html", title, f"quality report, {about['corpus']}", sections)


def _notices(quality: Quality) -> Iterator[Section]:
    total = len(quality.good)
    if str(quality.rates["weights"]).startswith("random:"):
        yield report.notice(_RANDOM)
    if count := quality.count("silent_output"):
        yield report.notice(f"{count} of {total} outputs are silent; SI-SDR and PESQ have no value there.")
    if count := quality.count("silent"):
        yield report.notice(f"{count} of {total} recordings are silent; most measures have no value there.")
    if count := quality.count("length_error"):
        yield report.notice(f"{count} of {total} outputs have another length than the original; both were cut.")
    few = [index for index, book in enumerate(quality.codebooks, 1) if not book.is_enough]
    if few:
        size, codes = quality.codebooks[0].codebook_size, quality.codebooks[few[0] - 1].num_codes
        yield report.notice(
            f"{codes} codes are too few to judge a codebook of {size} entries ({ENOUGH * size} are enough): read its "
            "use beside the ceiling.",
            "info",
        )


def _facts(quality: Quality, about: Mapping[str, Any]) -> dict[str, Any]:
    rates, hours = quality.rates, sum(result.seconds for result in quality.good) / 3600
    return {
        **{key.replace("_", " "): value for key, value in rates.items() if key not in ("bitrate", "weights")},
        "weights": rates["weights"],
        "bitrate (bit/s)": rates["bitrate"],
        "entropy-coded (bit/s)": quality.entropy_bitrate,
        "recordings": len(quality.good),
        "minutes": 60 * hours,
        "corpus": about["corpus"],
    }


def _quality_table(quality: Quality) -> Section:
    columns = ["measure", "mean", "95 % interval", "unit", "better", "recordings", "missing"]
    rows = [_quality_row(name, mean) for name, mean in quality.means.items() if not _is_plain(name)]
    return report.table("Quality", columns, [*rows, _utmos_row(quality)])


def _is_plain(name: str) -> bool:
    return LABELS[name].higher_is_better is None


def _quality_row(name: str, mean: Mean) -> list[Any]:
    measure = LABELS[name]
    unit = measure.unit
    if unit == "nats" and mean.mean is not None:
        unit = f"nats ({mean.mean * DB_PER_NAT:.2f} dB)"
    interval = None if mean.low is None else f"{mean.low:.4g} to {mean.high:.4g}"
    better = "higher" if measure.higher_is_better else "lower"
    return [measure.label, mean.mean, interval, unit, better, mean.n, _reasons(mean)]


def _utmos_row(quality: Quality) -> list[Any]:
    return ["UTMOS and other predicted opinions", None, None, "", "higher", 0, f"not built in: {len(quality.good)}"]


def _differences_table(quality: Quality) -> Section:
    """Keep the plain differences apart: silence and a flipped polarity score well in them."""
    rows = [[LABELS[name].label, mean.mean] for name, mean in quality.means.items() if _is_plain(name)]
    return report.table("Plain differences (no measure of quality: compare with silence)", ["measure", "mean"], rows)


def _anchor_tables(quality: Quality) -> Iterator[Section]:
    for source, anchors in nearest_anchors(quality.rates["bitrate"]).items():
        names = columns_of(anchors)
        own = [f"{quality.rates['codec']} (this report)", quality.rates["bitrate"] / 1000]
        own += [quality.means[name].mean if name in quality.means else None for name in names]
        rows = [_anchor_row(anchor, names) for anchor in anchors]
        columns = ["codec", "kbit/s", *(LABELS[name].label if name in LABELS else "UTMOS" for name in names)]
        yield report.table(f"Published: {source}. This report: other recordings", columns, [own, *rows])


def _anchor_row(anchor: Anchor, names: Sequence[str]) -> list[Any]:
    return [anchor.codec, anchor.kbit, *(anchor.values[name] for name in names)]


def _codebook_sections(quality: Quality) -> Iterator[Section]:
    columns = ["codebook", "codes", "entries used", "use %", "ceiling %", "entropy (bits)", "of all %", "perplexity"]
    rows = [_codebook_row(index, book) for index, book in enumerate(quality.codebooks, 1)]
    yield report.table("Codebooks", columns, rows)
    yield report.figure("", draw_use(quality), "use of the codebooks beside the ceiling that so many codes can reach")
    yield report.figure(
        "",
        draw_counts(quality),
        "share of all codes that the most frequent entries make up: straight where all are used alike",
    )


def _codebook_row(index: int, book: CodebookUse) -> list[Any]:
    shares = [100 * book.use, 100 * book.ceiling, book.entropy, 100 * book.normalized_entropy]
    return [index, book.num_codes, book.used, *shares, book.perplexity]


def _prefix_sections(quality: Quality) -> Iterator[Section]:
    if not quality.prefixes:
        return
    columns = ["codebooks", "kbit/s", "mel L1 (nats)", "STOI"]
    rows = [[count, p["kbit"], p.get("mel_l1"), p.get("stoi")] for count, p in quality.prefixes.items()]
    yield report.table("First 1..K codebooks", columns, rows)
    for name, chart in draw_charts(quality).items():
        if name.startswith("prefix"):
            yield report.figure("", chart, "a flat tail means that the last codebooks are wasted")


def _stability_sections(quality: Quality) -> Iterator[Section]:
    if quality.stability:
        columns = ["change", "equal codes %", "codebook 1 %", "last codebook %"]
        rows = [
            [
                kind,
                *(
                    None if share is None else 100 * share
                    for share in (s["all"], s["codebooks"][0], s["codebooks"][-1])
                ),
            ]
            for kind, s in quality.stability.items()
        ]
        yield report.table("Stability of the tokens", columns, rows)


def _speed_sections(quality: Quality) -> Iterator[Section]:
    speed = dict(quality.speed)
    if not speed:
        return
    streaming = speed.pop("streaming")
    names = {
        "encode_rtf": "encode",
        "decode_rtf": "decode",
        "vocoder_rtf": "vocoder, part of that",
        "rtf": "both",
        "batch_rtf": f"batch of {speed.get('batch')}",
    }
    rows = [[label, speed[key], 1 / speed[key]] for key, label in names.items() if key in speed]
    yield report.table("Speed", ["work", "real-time factor", "x real time"], rows)
    shown = {key.replace("_", " "): speed[key] for key in ("device", "threads", "clip_seconds", "repeats")}
    yield report.facts("", shown | {"streaming": streaming})


def _cards(clip: Reconstruction, quality: Quality) -> Iterator[report.Clip]:
    values = next(result.values for result in quality.results if result.id == clip.id)
    shown = ", ".join(
        f"{LABELS[name].label} {values[name]:.3g}" for name in ("ms_mel", "pesq_wb", "stoi") if name in values
    )
    kind = f" ({clip.kind})" if clip.kind else ""
    length = audio.compute_num_samples(_PLAYED, clip.reference_rate)
    yield report.Clip(f"{clip.id}{kind}: original", clip.reference[:, :length], clip.reference_rate, text=clip.text)
    length = audio.compute_num_samples(_PLAYED, clip.output_rate)
    yield report.Clip(f"{clip.id}{kind}: reconstruction", clip.output[:, :length], clip.output_rate, text=shown)


def _failures(quality: Quality) -> Iterator[Section]:
    failed = [[result.id, result.error] for result in quality.results if result.error is not None]
    if failed:
        yield report.table(f"Failed recordings ({len(failed)})", ["recording", "reason"], failed[:_SHOWN_FAILURES])
