"""Stage check of `task=extract`: look at a corpus as a whole, write nothing but the page of the run.

python main.py task=extract data=beat2 stage=check
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voxlab import plots, report
from voxlab.data.beat2 import Beat2
from voxlab.data.beat2_survey import Survey, survey
from voxlab.data.items import AudioCorpus
from voxlab.data.names import inflected
from voxlab.errors import AuditFailed
from voxlab.parallel import Ranks, gather

log = logging.getLogger(__name__)

_SHOWN_CLIPS = 200


def check_corpus(corpus: AudioCorpus, *, strict: bool, dry_run: bool, ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    """Report everything that is wrong with a corpus at once; of BEAT2 also what there is of each speaker and split.

    Args:
        corpus: any corpus; the sample is written, and nothing is downloaded that is there.
        strict: findings fail the run, after all is told.
        dry_run: write no page.
        ranks: the first one works, the others wait.
        run_dir: folder of this run.

    Returns:
        Counts.

    Raises:
        UserError: there is no corpus, or nothing in it can be read.
        AuditFailed: there are findings, and `strict` is set.
    """
    outcome: dict[str, Any] = {}
    if ranks.is_first:
        if not dry_run:
            corpus.prepare()
        outcome = _check(corpus, None if dry_run else run_dir / "report.html")
    outcome = gather(ranks, outcome)[0]
    if strict and outcome["findings"]:
        what = inflected("{} [kind|kinds] of findings", outcome["findings"])
        raise AuditFailed(f"{what} in {outcome['folder']}; see above.", outcome)
    return outcome


def _check(corpus: AudioCorpus, page: Path | None) -> dict[str, Any]:
    outcome: dict[str, Any] = {"folder": str(corpus.folder)}
    found = survey(corpus) if isinstance(corpus, Beat2) else None
    findings = corpus.check() if found is None else found.findings
    if found is not None:
        outcome |= {"clips": len(found.clips), "unusable": len(found.unusable)}
        outcome["minutes"] = round(sum(row["minutes"] for row in found.totals()), 2)
    outcome["findings"] = len(findings)
    if page is not None:
        outcome["report"] = str(_write_page(page, outcome, findings, found))
    if found is not None:
        log.info("\n%s", _text_table(found))
    for finding in findings:
        log.warning("%s", finding)
    log.info("\n%s", "\n".join(f"  {key}: {value}" for key, value in outcome.items()))
    return outcome


def _text_table(found: Survey) -> str:
    rows = found.totals()
    lines = [list(rows[0]), *(list(map(str, row.values())) for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _write_page(path: Path, outcome: Mapping[str, Any], findings: list[str], found: Survey | None) -> Path:
    verdict = inflected("{} [kind|kinds] of findings", len(findings)) if findings else "Nothing is wrong."
    sections = [report.notice(verdict, "warning" if findings else "info"), report.facts("Summary", outcome)]
    if findings:
        sections.append(report.table("Findings", ["finding"], [[finding] for finding in findings]))
    if found is not None:
        sections += _of_motion(found)
    return report.write_report(path, "voxlab extract", f"check of {outcome['folder']}", sections)


def _of_motion(found: Survey) -> list[report.Section]:
    sections = []
    if rows := found.totals():
        sections.append(report.table("Speakers and splits", list(rows[0]), [list(row.values()) for row in rows]))
        seconds = [facts.num_frames / found.fps for facts in found.clips]
        unequal = [facts.mismatch_s for facts in found.clips]
        sections.append(report.figure("Durations", plots.plot_histogram(seconds, "seconds that can be used")))
        caption = "positive: the audio is longer; clips are cut to the shorter"
        sections.append(
            report.figure("Audio against motion", plots.plot_histogram(unequal, "audio - motion (s)"), caption)
        )
    if found.unusable:
        lines = [[clip_id, reason] for clip_id, reason in sorted(found.unusable.items())]
        sections.append(report.table("Clips that can't be used", ["clip", "reason"], lines))
    columns = ["clip", "split", "emotion", "motion (s)", "audio (s)", "audio - motion (s)", "words", "labels"]
    shown = found.clips[:_SHOWN_CLIPS]
    lines = [
        [f.clip.id, f.clip.split, f.clip.emotion, f.motion_s, f.audio_s, f.mismatch_s, f.num_words, f.num_labels]
        for f in shown
    ]
    title = "Clips" if len(shown) == len(found.clips) else f"First {_SHOWN_CLIPS} of {len(found.clips)} clips"
    return [*sections, report.table(title, columns, lines)]
