"""An audit as text for people, as JSON and CSV for programs; equal audits give equal bytes."""

import csv
import dataclasses
import io
from collections.abc import Iterator
from typing import Any

from voxlab.sidecars.audit_types import TYPES, Audit, Finding

SEVERITIES = ("error", "warning")
CSV_COLUMNS = ("type", "rel_ecdc", "rel_cond", "detail")
_SHOWN = 20  # findings of a type that the text lists


def describe(audit: Audit) -> dict[str, Any]:
    """Return an audit as JSON: counts, and all findings."""
    return {
        "format_version": 1,
        **summarise(audit),
        "counts": {severity: audit.count(severity) for severity in SEVERITIES},
        "findings": [dataclasses.asdict(finding) for finding in audit.findings],
    }


def summarise(audit: Audit) -> dict[str, Any]:
    """Return the totals: files, those without any finding, hours, findings by severity, recordings."""
    codes = [file.codes for file in audit.files if file.codes is not None]
    seconds = sum(facts.num_samples / facts.sample_rate for facts in codes)
    return {
        "files": len(audit.files),
        "ok_files": audit.num_ok,
        "hours": round(seconds / 3600, 4),
        "errors": sum(audit.count("error").values()),
        "warnings": sum(audit.count("warning").values()),
        "recordings": audit.recordings,
    }


def unseen(audit: Audit) -> str:
    """Say what an audit without recordings can't tell, and how to have it told; "" for one with them."""
    if audit.recordings is not None:
        return ""
    return (
        "The recordings were not looked at: token files whose recording is gone are not told as such. The command that "
        "made the data set, with stages='[build,audit]', tells them."
    )


def render_csv(audit: Audit) -> str:
    """Return all findings as CSV, with the columns of EncHF_Dataset's audit."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    writer.writerows([entry.type, entry.tokens, entry.sidecar, entry.detail] for entry in audit.findings)
    return file.getvalue()


def render_text(audit: Audit) -> str:
    """Return totals, and for each type of finding what it means and its first files."""
    totals = summarise(audit)
    lines = [
        f"{totals['files']} token files, {totals['hours']:g} hours; {totals['ok_files']} OK files",
        f"errors: {totals['errors']}, warnings: {totals['warnings']}",
        *filter(None, [unseen(audit)]),
    ]
    for severity in SEVERITIES:
        for kind, count in audit.count(severity).items():
            lines += ["", f"{severity} {kind} ({count}): {TYPES[kind]}"]
            lines += _listed([entry for entry in audit.findings if entry.type == kind], count)
    return "\n".join(lines) + "\n"


def _listed(findings: list[Finding], count: int) -> Iterator[str]:
    for entry in findings[:_SHOWN]:
        yield f"  {entry.tokens or entry.sidecar or 'all files'}: {entry.detail}"
    if count > _SHOWN:
        yield f"  and {count - _SHOWN} more"
