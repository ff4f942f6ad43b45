"""Stage audit of `task=extract`: checks everything that the other stages wrote, or that they found in the folder.

Writes audit.txt, audit.json, audit.csv and audit.html; a folder that has not changed since is not read again.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxlab import report, storage
from voxlab.errors import AuditFailed, UserError
from voxlab.ledger import FOLDER, stats
from voxlab.parallel import gather
from voxlab.progress import BulkProgress
from voxlab.sidecars.audit import audit_tokens, check_choices, list_stamps, mixed_columns, scan
from voxlab.sidecars.audit_report import SEVERITIES, describe, render_csv, render_text, summarise
from voxlab.sidecars.audit_types import TYPES, Audit, Expectation, Finding
from voxlab.tasks.extract.audit_page import build_page
from voxlab.tasks.extract.stage import DATASET, TOKENS, Outcome, Stage

FORMAT_VERSION = 5
TEXT, JSON, CSV, PAGE = REPORTS = ("audit.txt", "audit.json", "audit.csv", "audit.html")
STATE, LISTING = "audit.json", "manifest.csv"
_SHOWN, _FILES, _WIDTH = 3, 4, 200  # types of findings in the message of a failed audit, files and letters of each
_NAMES = 42  # letters of the names of columns in its advice
# The stage that makes files anew which have findings of these types; for ranges it is the recordings that are to blame.
_NO_STAGE = {"range_below_min", "range_above_max", "auditor_error", "orphan_sidecar", "orphan_tokens", "mixed_columns"}
_AGAIN = {
    **dict.fromkeys(TYPES.keys() - _NO_STAGE, "sidecars"),
    **dict.fromkeys(("bad_ecdc", "codes_out_of_range", "mixed_codecs"), "encode"),
    "dataset_mismatch": "build",
}
_BY_HAND = {  # faults that no stage mends: their message lists the files, and says this ({}: of the conclusion)
    "mixed_columns": "give all the same columns (mend names or tables, or drop the producer and add "
    "sidecars.remove='[{mixed}]')",
    "orphan_tokens": "remove what has no recording (the same command with stage=clean; dry_run=true lists it)",
}

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
        stage: the surroundings; token files of none of its items are orphans, where it has any.
        frame_rate: Hz that all sidecars must state; None: that of their token file.
        dtype: of the sidecars' values, "float16" or "float32"; None: either.
        require: names of columns that every sidecar must have.
        ranges: column -> [lowest, highest] value allowed; null for no limit.
        require_sidecars: a token file without sidecar is an error; None: if any has one.
        fail_on: types of findings that are errors, the others are warnings; None: `audit_types.FAIL_ON`, and wherever a
            file is not as the arguments above ask.
        strict: warnings fail the audit as well.

    Returns:
        counts; `kept` where nothing has changed since the last audit.

    Raises:
        UserError: a setting is wrong, or there are no token files.
        AuditFailed: there are errors, or warnings with `strict`; carries the counts.
    """
    expect = Expectation(frame_rate, dtype, tuple(require), _pairs(ranges or {}), require_sidecars)
    chosen = None if fail_on is None else tuple(fail_on)
    check_choices(expect, chosen or ())
    # The first rank works alone; what stops it has to stop the others too, which would wait for it forever.
    conclusion = _attempt(stage, expect, chosen) if stage.ranks.is_first else {}
    conclusion = gather(stage.ranks, conclusion)[0]
    if "problem" in conclusion:
        raise UserError(conclusion["problem"])
    outcome = _outcome(stage, conclusion)
    failing = SEVERITIES if strict else SEVERITIES[:1]
    if not stage.dry_run and any(conclusion["counts"][severity] for severity in failing):
        raise AuditFailed(_explain(stage.out, conclusion, failing), outcome)
    return outcome


def check(
    *,
    frame_rate: float | None = None,
    dtype: str | None = None,
    require: Sequence[str] = (),
    ranges: Mapping[str, Sequence[float | None]] | None = None,
    require_sidecars: bool | None = None,
    fail_on: Sequence[str] | None = None,
    strict: bool = False,
) -> None:
    """Check the options of `audit`, without a look at any file.

    Raises:
        UserError: one is wrong; names it, and what it may be.
    """
    expect = Expectation(frame_rate, dtype, tuple(require), _pairs(ranges or {}), require_sidecars)
    check_choices(expect, fail_on or ())


def _pairs(ranges: Mapping[str, Sequence[float | None]]) -> dict[str, tuple[float | None, float | None]]:
    wrong = [name for name, pair in ranges.items() if len(pair) != 2]
    if wrong:
        raise UserError(f"audit.ranges: {', '.join(wrong)}: give [lowest, highest], null for no limit.")
    return {name: (pair[0], pair[1]) for name, pair in ranges.items()}


def _attempt(stage: Stage, expect: Expectation, fail_on: Sequence[str] | None) -> Conclusion:
    try:
        return _audit(stage, expect, fail_on)
    except UserError as error:
        return {"problem": str(error)}


def _audit(stage: Stage, expect: Expectation, fail_on: Sequence[str] | None) -> Conclusion:
    """Return the conclusion of this audit, or of the last one where nothing has changed since."""
    if stage.dry_run:
        files = set(scan(stage.out / TOKENS).tokens.values()) | {item.id for item in stage.items}  # there, and to come
        return {"fresh": True, "totals": {"files": len(files)}, "counts": {"warning": {}}}
    made_from = _fingerprint(stage, expect, fail_on)
    path = stage.out / FOLDER / STATE
    state = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    reports = [stage.out / name for name in REPORTS]
    if state.get("made_from") == made_from and state["reports"] == stats(reports):
        return state["conclusion"] | {"fresh": False}
    found = _read_all(stage, expect, fail_on)
    conclusion = _conclude(found)
    _write_reports(stage.out, found)
    state = {"made_from": made_from, "reports": stats(reports), "conclusion": conclusion}
    storage.atomic_write_json(path, state)
    return conclusion | {"fresh": True}


def _fingerprint(stage: Stage, expect: Expectation, fail_on: Sequence[str] | None) -> str:
    """Return a digest of settings and recordings, and of name, size and time of change of all files looked at."""
    out, settings = stage.out, {"version": FORMAT_VERSION, **asdict(expect), "fail_on": fail_on and sorted(fail_on)}
    settings["recordings"] = [item.id for item in stage.items]
    digest = hashlib.sha256(storage.fingerprint(settings).encode())
    for stamps in (list_stamps(out / TOKENS), list_stamps(out / DATASET), stats([out / LISTING])):
        digest.update(repr(stamps).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _read_all(stage: Stage, expect: Expectation, fail_on: Sequence[str] | None) -> Audit:
    out = stage.out
    with BulkProgress(len(scan(out / TOKENS).tokens), "audit") as progress:
        return audit_tokens(
            out / TOKENS,
            expect=expect,
            fail_on=fail_on,
            manifest=out / LISTING,
            dataset=out / DATASET,
            recordings={item.id for item in stage.items} or None,
            advance=lambda seconds: progress.advance(1, seconds),
        )


def _conclude(found: Audit) -> Conclusion:
    first: dict[str, dict[str, str]] = {severity: {} for severity in SEVERITIES}
    for entry in found.findings:
        example = f"{entry.tokens or entry.sidecar or DATASET}: {entry.type}: {entry.detail}"
        first[entry.severity].setdefault(entry.type, example)
    counts = {severity: found.count(severity) for severity in SEVERITIES}
    by_hand = {kind: _list_files([entry for entry in found.findings if entry.type == kind]) for kind in _BY_HAND}
    mixed = _spell(mixed_columns(found))
    return {"totals": summarise(found), "counts": counts, "first": first, "by_hand": by_hand, "mixed": mixed}


def _spell(columns: Sequence[str]) -> str:
    """Return names of columns as they are typed in a list on the command line, as many as a line of a message holds."""
    names = [name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name, ensure_ascii=False) for name in columns]
    shown = [name for count, name in enumerate(names) if count == 0 or len(",".join(names[: count + 1])) <= _NAMES]
    return ",".join([*shown, *(["..."] if len(shown) < len(names) else [])])


def _list_files(findings: Sequence[Finding]) -> str:
    """Return the first files that a fault is found in, for each of its details."""
    files: dict[str, list[str]] = {}
    for entry in findings:
        files.setdefault(entry.detail, []).append(entry.tokens)
    parts = (f"{detail}: {', '.join(names[:_FILES])}{_more(len(names) - _FILES)}" for detail, names in files.items())
    return "; ".join(parts)


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _write_reports(out: Path, found: Audit) -> None:
    storage.atomic_write_bytes(out / TEXT, render_text(found).encode("utf-8", "backslashreplace"))
    storage.atomic_write_bytes(out / CSV, render_csv(found).encode("utf-8", "backslashreplace"))
    storage.atomic_write_json(out / JSON, describe(found))
    report.write_report(
        out / PAGE, "voxlab audit", f"token files, conditioning and data set in {out.name}", build_page(found)
    )


def _outcome(stage: Stage, conclusion: Conclusion) -> Outcome:
    totals = conclusion["totals"]
    facts = {f"audit_{name}": totals[name] for name in ("ok_files", "errors", "warnings") if name in totals}
    if not stage.dry_run:
        facts["audit_page"] = str(stage.out / PAGE)
    counted = conclusion["counts"]["warning"].items()
    lines = tuple(_shorten(f"{count} x {conclusion['first']['warning'][kind]}") for kind, count in counted)
    lines = tuple(f"{line} ({stage.out / TEXT})" for line in lines)
    done, kept = (totals["files"], 0) if conclusion["fresh"] else (0, totals["files"])
    return Outcome(done, kept, warnings=lines, facts=facts)


def _explain(out: Path, conclusion: Conclusion, failing: Sequence[str]) -> str:
    """Return the message of a failed audit, of six lines at most: counts, examples, what to do, where all is."""
    totals = conclusion["totals"]
    found = [(severity, kind, count) for severity in failing for kind, count in conclusion["counts"][severity].items()]
    shown = [
        _shorten(f"  {kind}: {conclusion['by_hand'][kind]}")
        if kind in _BY_HAND
        else _shorten(f"  {conclusion['first'][severity][kind]}", count)
        for severity, kind, count in found[:_SHOWN]
    ]
    more = f"; there are {len(found) - _SHOWN} more types" if len(found) > _SHOWN else ""
    return "\n".join(
        [
            f"audit of {out}: errors: {totals['errors']}, warnings: {totals['warnings']}; {totals['ok_files']} of "
            f"{totals['files']} token files are OK{more}.",
            *shown,
            _advise({kind for _, kind, _ in found}).format_map(conclusion),
            f"All findings: {out / TEXT} (also {JSON}, {CSV}, {PAGE}).",
        ]
    )


def _advise(kinds: Collection[str]) -> str:
    """Say what to do about errors of these types; entries of the conclusion stand in braces."""
    by_hand = " and ".join(text for kind, text in _BY_HAND.items() if kind in kinds)
    again = [name for name in ("encode", "sidecars", "build") if name in {_AGAIN.get(kind) for kind in kinds}]
    if by_hand:
        return f"{by_hand[0].upper()}{by_hand[1:]}, then run all stages again; or choose audit.fail_on=[...]."
    stages = f"Run again stages='[{','.join([*again, 'audit'])}]', or say" if again else "Correct these files, or say"
    return f"{stages} what counts as an error with audit.fail_on=[...]."


def _shorten(line: str, count: int = 1) -> str:
    more = f" (and {count - 1} more)" if count > 1 else ""
    return (line if len(line) <= _WIDTH - 20 else f"{line[: _WIDTH - 23]}...") + more
