"""What `task=extract` tells at its end, or before its start: errors.jsonl, summary, report page, dry run."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from voxlab import audio, plots, report, storage
from voxlab.codecs.token_files import SUFFIXES, frame_times, read_header, read_tokens
from voxlab.data.items import AudioItem
from voxlab.errors import TooManyBadItems, UserError
from voxlab.ledger import Ledger
from voxlab.parallel import barrier
from voxlab.sidecars import schema
from voxlab.tasks import estimate
from voxlab.tasks.extract.stage import NORMALIZED, TOKENS, Outcome, Stage

log = logging.getLogger(__name__)

ERRORS = "errors.jsonl"
_RANDOM = "The codec has random weights: its tokens mean nothing; this shows the pipeline."
_SHOWN_FAILURES, _SHOWN_WARNINGS, _CLIPS, _COLUMNS = 20, 10, 4, 3


def finish(
    stage: Stage,
    outcomes: Mapping[str, Outcome],
    failure: UserError | None,
    settings: Mapping[str, Any],
    run_dir: Path,
    max_bad_fraction: float,
) -> dict[str, Any]:
    """Write errors and report on the first rank; return the summary on every rank.

    Raises:
        UserError: `failure`, as soon as all is written.
        TooManyBadItems: more items failed than `max_bad_fraction`.
    """
    summary = _summary(stage, outcomes)
    error = _judge(stage, outcomes, max_bad_fraction) or failure
    if stage.ranks.is_first:
        _write_errors(stage, outcomes)
        for warning in _warnings(outcomes):
            log.warning(warning)
        _tell(summary)
        summary["report"] = str(_write_report(stage, summary, outcomes, settings, run_dir))
        if error is not None:  # a run that ends well names its page by itself
            log.info("report: %s", summary["report"])
    barrier(stage.ranks)  # a rank that fails now would end the first one while it writes
    if error is not None:
        raise error
    return summary


def _tell(summary: Mapping[str, Any]) -> None:
    log.info("\n%s", "\n".join(f"  {key.replace('_', ' ')}: {value}" for key, value in summary.items()))


def _summary(stage: Stage, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    summary: dict[str, Any] = {"out": str(stage.out)}
    if stage.items:
        summary["items"] = len(stage.items)
    for name, outcome in outcomes.items():
        work = "to do" if stage.dry_run else "done"
        parts = {work: outcome.done, "up to date": outcome.kept, "failed": len(outcome.failed)}
        summary[name] = ", ".join(f"{count} {word}" for word, count in parts.items() if count) or "nothing to do"
        summary |= outcome.facts
    summary["failed_items"] = len(_failed(outcomes))
    return summary


def _failed(outcomes: Mapping[str, Outcome]) -> dict[str, tuple[str, str]]:
    """Return id -> (stage, reason) of all items that a stage has no result for."""
    return {item: (name, reason) for name, outcome in outcomes.items() for item, reason in outcome.failed.items()}


def _warnings(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    for name, outcome in outcomes.items():
        for warning in outcome.warnings[:_SHOWN_WARNINGS]:
            yield f"{name}: {warning}"
        if len(outcome.warnings) > _SHOWN_WARNINGS:
            yield f"{name}: {len(outcome.warnings) - _SHOWN_WARNINGS} more warnings"


def _write_errors(stage: Stage, outcomes: Mapping[str, Outcome]) -> None:
    """List every failed item; stages that did not run keep the lines of their last run."""
    path = stage.out / ERRORS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    earlier = [json.loads(line) for line in text.split("\n")[:-1]]
    sources = {item.id: str(item.path) for item in stage.items}
    lines = [line for line in earlier if line["stage"] not in outcomes and (not sources or line["id"] in sources)]
    lines += [
        {"stage": name, "id": item, "path": sources.get(item, item), "reason": reason}
        for item, (name, reason) in _failed(outcomes).items()
    ]
    lines.sort(key=lambda line: (line["id"], line["stage"]))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if not (path.is_file() and path.read_text(encoding="utf-8") == text):
        storage.atomic_write_bytes(path, text.encode())


def _judge(stage: Stage, outcomes: Mapping[str, Outcome], max_bad_fraction: float) -> TooManyBadItems | None:
    """Return the error of a run with too many failed items."""
    failed, total = _failed(outcomes), max(len(stage.items), 1)
    if len(failed) / total <= max_bad_fraction:
        return None
    reasons = Counter(f"{name} {reason.split(': ')[0]}" for name, reason in failed.values())
    shown = "\n  ".join(f"{item}: {reason}" for item, (_, reason) in list(failed.items())[:10])
    return TooManyBadItems(
        f"{len(failed)} of {total} items failed ({len(failed) / total:.1%}; allowed: {max_bad_fraction:.1%}): "
        f"{', '.join(f'{reason} {count}' for reason, count in reasons.most_common())}.\n  {shown}\n"
        f"All are listed in {stage.out / ERRORS}; the others are complete. Raise max_bad_fraction to accept that."
    )


def _write_report(
    stage: Stage,
    summary: Mapping[str, Any],
    outcomes: Mapping[str, Outcome],
    settings: Mapping[str, Any],
    run_dir: Path,
) -> Path:
    failed = _failed(outcomes)
    weights = str(settings.get("encode", {}).get("codec", {}).get("weights_id", ""))
    sections = [
        *([report.notice(_RANDOM)] if weights.startswith("random:") else []),
        *(report.notice(warning) for warning in _warnings(outcomes)),
        report.facts("Summary", {key.replace("_", " "): value for key, value in summary.items()}),
    ]
    if any(outcome.done for outcome in outcomes.values()):
        sections += [*_gains(stage), *_examples(stage)]
    if failed:
        rows = [[item, name, reason] for item, (name, reason) in list(failed.items())[:_SHOWN_FAILURES]]
        sections.append(report.table(f"Failed items ({len(failed)})", ["item", "stage", "reason"], rows))
    sections.append(report.code(json.dumps(settings, indent=2), "Settings"))
    return report.write_report(run_dir / "report.html", "voxlab extract", f"data set in {stage.out}", sections)


def _gains(stage: Stage) -> Iterator[report.Section]:
    records = Ledger(stage.out, "normalize", stage.ranks).records.values()
    gains = [float(record["gain_db"]) for record in records if record.get("gain_db") is not None]
    if gains:
        chart = plots.plot_histogram(gains, "gain (dB)")
        yield report.figure("Loudness", chart, f"gain that normalize applied to {len(gains)} recordings")


def _examples(stage: Stage) -> Iterator[report.Section]:
    """Show the first recordings: what was encoded, its tokens, its conditioning."""
    encoded, normalized = (Ledger(stage.out, name, stage.ranks).records for name in ("encode", "normalize"))
    every = [item for item in stage.items if "frames" in encoded.get(item.id, {})]
    done = every[:_CLIPS]
    if done:
        title = "What was encoded" + (f": the first {len(done)} of {len(every)}" if len(every) > len(done) else "")
        notes = [_note(item, encoded[item.id], normalized.get(item.id, {})) for item in done]
        clips = [_clip(stage, item, note) for item, note in zip(done, notes, strict=True)]
        yield report.players(title, clips)


def _note(item: AudioItem, encoded: Mapping[str, Any], normalized: Mapping[str, Any]) -> str:
    """Say what a clip is: what is known of the recording, what normalize did to it, how many tokens it has."""
    parts = [f"{key}: {value}" for key, value in item.metadata.items() if value is not None]
    if normalized.get("gain_db") is not None:
        before, after = (_decibels(normalized[f"peak_rms_{place}"]) for place in ("in", "out"))
        gain = f"gain {normalized['gain_db']:+.1f} dB, loudest part from {before} to {after}"
        parts.append(gain.replace("-", "\N{MINUS SIGN}"))
    else:
        parts.append("encoded as recorded")
    return "; ".join([f"split {item.split}", *parts, f"{encoded['frames']:,} frames of tokens"])


def _decibels(level: float) -> str:
    return f"{20 * math.log10(level):.1f} dB" if level > 0 else "silence"


def _clip(stage: Stage, item: AudioItem, text: str) -> report.Clip:
    normalized = stage.out / NORMALIZED / f"{item.id}.wav"
    try:
        wav, sample_rate = audio.load(normalized if normalized.is_file() else item.read())
        images = [plots.render_png(chart) for chart in _charts(stage, item)]
    except (OSError, ValueError) as error:  # the stages and the audit tell of broken files; the page shows the others
        return report.Clip(item.id, torch.zeros(1, 0), 1, text=f"{text} ({error})")
    return report.Clip(item.id, wav if len(wav) <= 2 else audio.to_mono(wav), sample_rate, text=text, plots=images)


def _charts(stage: Stage, item: AudioItem) -> Iterator[Figure]:
    """Draw the tokens of a recording, and its conditioning, each column from its smallest to its largest value.

    A constant column has no range: each is a dashed line at a height of its own, with its value beside its name.
    """
    paths = [stage.out / TOKENS / f"{item.id}{suffix}" for suffix in SUFFIXES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None or read_header(path).lm:
        return
    tokens = read_tokens(path)
    duration = tokens.num_samples / tokens.sample_rate
    yield plots.plot_codes([book[0] for book in tokens.codes.codebooks], tokens.codebook_size, duration)
    npy, meta = schema.paths_beside(path)
    if not meta.is_file():
        return
    sidecar = schema.read(npy, meta)
    columns = {name: sidecar.column(name).astype(float) for name in sidecar.names[:_COLUMNS]}
    if columns:
        yield _draw_columns(columns, frame_times(tokens))


def _draw_columns(columns: Mapping[str, np.ndarray], times: np.ndarray) -> Figure:
    curves, constants = dict[str, tuple[Any, Any]](), list[str]()
    flat = [name for name, values in columns.items() if values.min() == values.max()]
    for name, values in columns.items():
        low, high = values.min(), values.max()
        if name in flat:
            constants.append(f"{name} = {low:.4g}")
            curves[constants[-1]] = (times, np.full(len(values), (flat.index(name) + 1) / (len(flat) + 1)))
        else:
            curves[f"{name} {low:.3g} to {high:.3g}"] = (times, (values - low) / (high - low))
    return plots.plot_curves(curves, "time (s)", "of range", dashed=constants, size=plots.CARD)


def describe_plan(stage: Stage, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """Tell what a run would do: counts a stage, what is up to date, sizes; nothing was written."""
    plan = _summary(stage, outcomes)
    plan |= {"disk": f"about {estimate.spell_size(_expected_bytes(outcomes))}", "time": _expected_time(outcomes)}
    if stage.ranks.is_first:
        _tell({_spell_key(key): _spell_value(key, value) for key, value in plan.items()})
    return plan


def _spell_key(key: str) -> str:
    return key.replace("_seconds", " audio").replace("_bytes", " disk")


def _spell_value(key: str, value: Any) -> Any:
    if key.endswith("_bytes"):
        return f"about {estimate.spell_size(value)}"
    return f"{value:,} s" if key.endswith("_seconds") else value


def _expected_bytes(outcomes: Mapping[str, Outcome]) -> float:
    """Add up what stages say about the size of what they write."""
    return sum(value for outcome in outcomes.values() for key, value in outcome.facts.items() if key.endswith("_bytes"))


def _expected_time(outcomes: Mapping[str, Outcome]) -> str:
    """Return how long the stages take together, with what each rests on."""
    measured = {name: outcome.expected for name, outcome in outcomes.items() if outcome.expected is not None}
    parts = [f"{name} {estimate.spell_duration(value)}, {outcomes[name].basis}" for name, value in measured.items()]
    parts += [f"{name} {outcome.basis}" for name, outcome in outcomes.items() if outcome.expected is None]
    if not measured:
        return estimate.not_measured(", ".join(outcomes))
    return estimate.about(sum(measured.values()), "; ".join(parts))


def show_lines(stage: Stage, lines: Sequence[str]) -> dict[str, Any]:
    """Print what a command found that makes nothing."""
    if stage.ranks.is_first:
        log.info("\n%s", "\n".join(lines) or "nothing is missing, nothing left over")
    return {"out": str(stage.out)}
