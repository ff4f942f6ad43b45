"""The page of an audit: totals, findings, durations, and how the values of each column are distributed."""

from collections.abc import Iterator

import numpy as np

from voxlab import plots, report
from voxlab.sidecars.audit_listings import pool
from voxlab.sidecars.audit_report import SEVERITIES, summarise, unseen
from voxlab.sidecars.audit_types import TYPES, Audit, AuditedFile
from voxlab.sidecars.schema import STATISTICS

_FINDINGS, _COLUMNS, _VALUES = 200, 24, 50_000  # what one page can hold


def build_page(found: Audit) -> list[report.Section]:
    """Return the sections of the page."""
    totals = summarise(found)
    verdict = f"errors: {totals['errors']}, warnings: {totals['warnings']}; {totals['ok_files']} files are OK."
    return [
        report.notice(verdict, "error" if totals["errors"] else "warning" if totals["warnings"] else "info"),
        *([report.notice(text, "info")] if (text := unseen(found)) else []),
        report.facts("Summary", {name.replace("_", " "): value for name, value in totals.items()}),
        *_findings(found),
        *_durations(found),
        *_columns(found),
    ]


def _findings(found: Audit) -> Iterator[report.Section]:
    if not found.findings:
        return
    rows = [
        [severity, kind, count, TYPES[kind]] for severity in SEVERITIES for kind, count in found.count(severity).items()
    ]
    yield report.table("Types of findings", ["severity", "type", "count", "meaning"], rows)
    shown = found.findings[:_FINDINGS]
    title = "Findings" if len(shown) == len(found.findings) else f"First {_FINDINGS} of {len(found.findings)} findings"
    columns = ["file", "severity", "type", "detail"]
    yield report.table(title, columns, [[e.tokens or e.sidecar, e.severity, e.type, e.detail] for e in shown])


def _durations(found: Audit) -> Iterator[report.Section]:
    seconds = [file.codes.num_samples / file.codes.sample_rate for file in found.files if file.codes is not None]
    if seconds:
        yield report.figure("Durations", plots.plot_histogram(seconds, "duration (s)"), f"{len(seconds)} token files")


def _columns(found: Audit) -> Iterator[report.Section]:
    """Show statistics over all files of the columns that were named, and histograms of the first of them."""
    columns: dict[str, list[tuple[AuditedFile, int]]] = {}
    for file in found.files:
        if file.values is not None:
            for index, name in enumerate(file.values.names or ()):
                columns.setdefault(name, []).append((file, index))
    if columns:
        yield report.table(
            "Columns", ["column", "files", "frames", *STATISTICS], [_statistics(*entry) for entry in columns.items()]
        )
    for name, members in list(columns.items())[:_COLUMNS]:
        values = _values(members)
        if values.size:
            yield report.figure("", plots.plot_histogram(values.tolist(), name), f"{name}: some frames of every file")


def _statistics(name: str, members: list[tuple[AuditedFile, int]]) -> list[object]:
    """Return a line of the table of columns; files whose values are not finite count as files only."""
    facts = [(file.values, index) for file, index in members if file.values is not None]
    measured = np.array([[values.frames, *values.statistics[:, index]] for values, index in facts])
    measured = measured[~np.isnan(measured[:, 1])]
    if not len(measured):
        return [name, len(facts), 0, *(None for _ in STATISTICS)]
    pooled = pool(measured[:, 0], measured[:, 1:].T)
    return [name, len(facts), pooled["count"], *(pooled[key] for key in STATISTICS)]


def _values(members: list[tuple[AuditedFile, int]]) -> np.ndarray:
    """Return a column's sampled values, finite ones, thinned out to what a plot can use."""
    parts = [file.values.sample[:, index] for file, index in members if file.values is not None]
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    return values[:: max(1, len(values) // _VALUES)]
