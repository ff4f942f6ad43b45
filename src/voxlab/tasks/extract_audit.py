"""Stage audit of `task=extract`: checks everything that the other stages wrote, or that they found in the folder.

Writes audit.txt, audit.json, audit.csv and audit.html; a folder that has not changed since is not read again.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxlab import report, storage
from voxlab.errors import AuditFailed, UserError
from voxlab.ledger import FOLDER, stats
from voxlab.parallel import gather
from voxlab.progress import BulkProgress
from voxlab.sidecars.audit import audit_tokens, check_choices, list_stamps, scan
from voxlab.sidecars.audit_report import SEVERITIES, describe, render_csv, render_text, summarise
from voxlab.sidecars.audit_types import FAIL_ON, TYPES, Audit, Expectation
from voxlab.tasks.extract_audit_page import build_page
from voxlab.tasks.extract_stage import DATASET, TOKENS, Outcome, Stage

FORMAT_VERSION = 1
TEXT, JSON, CSV, PAGE = REPORTS = ("audit.txt", "audit.json", "audit.csv", "audit.html")
STATE, LISTING = "audit.json", "manifest.csv"
_SHOWN = 10

Conclusion = dict[str, Any]  # totals, counts by severity and type, first findings; as JSON


def audit(
    stage: Stage,
    *,
    frame_rate: float | None = None,
    dtype: str | None = None,
    require: Sequence[str] = (),
    ranges: Mapping[str, Sequence[float | None]] | None = None,
    require_sidecars: bool | None = None,
    fail_on: Sequence[str] | None = None,
    strict: bool = False,
) -> Outcome:
    """Audit the token files, sidecars, manifest.csv and data set of `stage.out`; see `sidecars.audit_types.TYPES`.

    Args:
        stage: the surroundings; its items are not looked at.
        frame_rate: Hz that all sidecars must state; None: that of their token file.
        dtype: of the sidecars' values, "float16" or "float32"; None: either.
        require: names of columns that every sidecar must have.
        ranges: column -> [lowest, highest] value allowed; null for no limit.
        require_sidecars: a token file without sidecar is an error; None: if any has one.
        fail_on: types of findings that are errors, the others are warnings; None: `audit_types.FAIL_ON`.
        strict: warnings fail the audit as well.

    Returns:
        counts; `kept` where nothing has changed since the last audit.

    Raises:
        UserError: a setting is wrong, or there are no token files.
        AuditFailed: there are errors, or warnings with `strict`.
    """
    expect = Expectation(frame_rate, dtype, tuple(require), _pairs(ranges or {}), require_sidecars)
    chosen = FAIL_ON if fail_on is None else tuple(fail_on)
    check_choices(expect, chosen)
    # The first rank works alone; what stops it has to stop the others too, which would wait for it forever.
    conclusion = _audit(stage, expect, chosen) if stage.ranks.is_first else {}
    conclusion = gather(stage.ranks, conclusion)[0]
    if "problem" in conclusion:
        raise UserError(conclusion["problem"])
    if not stage.dry_run:
        _judge(stage.out, conclusion, strict)
    return _outcome(stage, conclusion)


def _pairs(ranges: Mapping[str, Sequence[float | None]]) -> dict[str, tuple[float | None, float | None]]:
    wrong = [name for name, pair in ranges.items() if len(pair) != 2]
    if wrong:
        raise UserError(f"audit.ranges: {', '.join(wrong)}: give [lowest, highest], null for no limit.")
    return {name: (pair[0], pair[1]) for name, pair in ranges.items()}


def _audit(stage: Stage, expect: Expectation, fail_on: Sequence[str]) -> Conclusion:
    """Return the conclusion of this audit, or of the last one where nothing has changed since."""
    if stage.dry_run:
        return {"fresh": True, "totals": {"files": len(scan(stage.out / TOKENS).tokens)}, "counts": {"warning": {}}}
    made_from = _fingerprint(stage.out, expect, fail_on)
    path = stage.out / FOLDER / STATE
    state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    reports = [stage.out / name for name in REPORTS]
    if state.get("made_from") == made_from and state["reports"] == stats(reports):
        return state["conclusion"] | {"fresh": False}
    try:
        found = _read_all(stage.out, expect, fail_on)
    except UserError as error:
        return {"problem": str(error)}
    conclusion = _conclude(found)
    _write_reports(stage.out, found)
    state = {"made_from": made_from, "reports": stats(reports), "conclusion": conclusion}
    storage.atomic_write_json(path, state)
    return conclusion | {"fresh": True}


def _fingerprint(out: Path, expect: Expectation, fail_on: Sequence[str]) -> str:
    """Return a digest of the settings and of name, size and time of change of all files that are looked at."""
    settings = {"version": FORMAT_VERSION, **asdict(expect), "fail_on": sorted(fail_on)}
    digest = hashlib.sha256(storage.fingerprint(settings).encode())
    for stamps in (list_stamps(out / TOKENS), list_stamps(out / DATASET), stats([out / LISTING])):
        digest.update(repr(stamps).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _read_all(out: Path, expect: Expectation, fail_on: Sequence[str]) -> Audit:
    with BulkProgress(len(scan(out / TOKENS).tokens), "audit") as progress:
        return audit_tokens(
            out / TOKENS,
            expect=expect,
            fail_on=fail_on,
            manifest=out / LISTING,
            dataset=out / DATASET,
            advance=lambda seconds: progress.advance(1, seconds),
        )


def _conclude(found: Audit) -> Conclusion:
    first = {severity: [] for severity in SEVERITIES}
    for entry in found.findings:
        if len(first[entry.severity]) < _SHOWN:
            first[entry.severity].append(f"{entry.tokens or entry.sidecar or DATASET}: {entry.type}: {entry.detail}")
    counts = {severity: found.count(severity) for severity in SEVERITIES}
    return {"totals": summarise(found), "counts": counts, "first": first}


def _write_reports(out: Path, found: Audit) -> None:
    storage.atomic_write_bytes(out / TEXT, render_text(found).encode("utf-8", "backslashreplace"))
    storage.atomic_write_bytes(out / CSV, render_csv(found).encode("utf-8", "backslashreplace"))
    storage.atomic_write_json(out / JSON, describe(found))
    report.write_report(out / PAGE, "voxlab audit", "token files, conditioning and data set", build_page(found))


def _outcome(stage: Stage, conclusion: Conclusion) -> Outcome:
    totals = conclusion["totals"]
    facts = {f"audit_{name}": totals[name] for name in ("ok_files", "errors", "warnings") if name in totals}
    if not stage.dry_run:
        facts["audit_page"] = str(stage.out / PAGE)
    lines = tuple(f"{count} x {kind}: {TYPES[kind]}" for kind, count in conclusion["counts"]["warning"].items())
    done, kept = (totals["files"], 0) if conclusion["fresh"] else (0, totals["files"])
    return Outcome(done, kept, warnings=lines, facts=facts)


def _judge(out: Path, conclusion: Conclusion, strict: bool) -> None:
    totals, first = conclusion["totals"], conclusion["first"]
    if not totals["errors"] and not (strict and totals["warnings"]):
        return
    shown = [*first["error"], *(first["warning"] if strict else [])][:_SHOWN]
    more = totals["errors"] + (totals["warnings"] if strict else 0) - len(shown)
    lines = "\n  ".join([*shown, *([f"and {more} more"] if more else [])])
    raise AuditFailed(
        f"audit of {out}: errors: {totals['errors']}, warnings: {totals['warnings']}; {totals['ok_files']} of "
        f"{totals['files']} token files are OK.\n  {lines}\n"
        f"All are in {out / TEXT}, {JSON}, {CSV} and {PAGE}. Run the stages that made these files again, or set "
        "audit.fail_on to the types of findings that shall count as errors."
    )
