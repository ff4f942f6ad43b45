"""How `task=extract features=...` ends: the index of the store, failures, sizes, class priors, the report page."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from voxlab import report, storage
from voxlab.data.feature_store import FeatureStore, StoredEpisode, open_store
from voxlab.data.items import AudioCorpus
from voxlab.data.laughter_labels import Labels, LabelSettings, compute_labels
from voxlab.data.store_writer import exclusive, read_record, write_index
from voxlab.errors import TooManyBadItems
from voxlab.features.base import Features
from voxlab.parallel import Ranks, barrier
from voxlab.tasks import estimate
from voxlab.tasks.extract.feature_expect import expect_time
from voxlab.tasks.extract.feature_plan import Episode, estimate_bytes, flags_of, is_done
from voxlab.tasks.extract.feature_work import Done

log = logging.getLogger(__name__)

FAILURES, LICENCES = "failures.jsonl", "LICENSES.txt"
SHIFTS = (1, 5, 10, 25)
_ELSEWHERE = "in work: another command has begun it"
_NOTICES = {
    "random_weights": "The features have random weights: they mean nothing; this shows the pipeline.",
    "sample": "The corpus is synthetic: figures made from it say nothing about people.",
    "uses_oracle_mask": "Labelled laughter was silenced: the features know the labels (uses_oracle_mask).",
    "uses_oracle_text": "The transcript was read: words are known before they are spoken (uses_oracle_text).",
}
Row = dict[str, Any]


def licences(corpus: AudioCorpus, features: Features) -> str:
    """Return the text of LICENSES.txt: what the features were made from, and under which terms."""
    lines = ["These features were computed from material of others; its licences go with them.", ""]
    sources = {f"Recordings ({type(corpus).__name__})": corpus, f"Features ({features.info.name})": features}
    for name, source in sources.items():
        lines.append(f"{name}: {getattr(source, 'licence', 'not stated; that of your own files, or see conf/')}")
    return "\n".join(lines) + "\n"


def describe_plan(
    corpus: AudioCorpus,
    features: Features,
    store: Path,
    episodes: Sequence[Episode],
    todo: Sequence[Episode],
    ranks: Ranks,
) -> Row:
    """Tell what a run would do; nothing is written."""
    good = [episode for episode in todo if not episode.error]
    plan = {
        "store": str(store),
        "recordings": len(episodes),
        "to_do": len(good),
        "up_to_date": len(episodes) - len(todo),
        "cant_be_opened": sum(bool(episode.error) for episode in episodes),
        "hours": round(sum(episode.duration for episode in todo) / 3600, 2),
        "disk": f"about {estimate.spell_size(estimate_bytes(good, features.info))}",
        "time": estimate.attempt(partial(expect_time, corpus, features, good, ranks)),
    }
    if ranks.is_first:
        _tell(plan)
    return plan


def finish(
    store: Path,
    settings: Mapping[str, Any],
    episodes: Sequence[Episode],
    done: Sequence[Done],
    max_bad_fraction: float,
    ranks: Ranks,
    run_dir: Path,
) -> Row:
    """Write index, failures and report on the first rank; return the summary.

    Raises:
        TooManyBadItems: more recordings have no features than `max_bad_fraction` allows.
    """
    failures = sorted((line for part in done for line in part.failures), key=lambda line: line["id"])
    limit = max_bad_fraction * max(len(episodes), 1)
    result: Row = {"store": str(store), "recordings": len(episodes)}
    result["extracted"] = sum(len(part.written) for part in done)
    result["up_to_date"] = len(episodes) - result["extracted"] - len(failures)
    result["failed"] = len(failures)
    if ranks.is_first:
        missing = _missing(episodes, failures)
        elsewhere = len(missing) - len(failures)
        if elsewhere:
            result["in_work_elsewhere"] = elsewhere
            result["up_to_date"] -= elsewhere
        splits = {episode.item.id: episode.item.split for episode in episodes}
        accepted = not elsewhere and len(failures) <= limit
        write_index(store, splits, missing, accepted)
        with exclusive(store):
            _write_failures(store, splits, failures, missing)
        result |= _describe(store, settings, episodes, done, failures, run_dir, result)
        _tell({key: value for key, value in result.items() if not key.startswith("prior/")})
    barrier(ranks)
    if len(failures) > limit:
        raise TooManyBadItems(_explain(store, failures, len(episodes), max_bad_fraction))
    return result


def _missing(episodes: Sequence[Episode], failures: Sequence[Row]) -> dict[str, str]:
    """Return id -> reason of the recordings that the store doesn't hold as they are now."""
    reasons = {line["id"]: f"{line['stage']}: {line['error']}" for line in failures}
    lost = [episode for episode in episodes if not is_done(episode, verify_hash=False)]
    return {episode.item.id: reasons.get(episode.item.id, _ELSEWHERE) for episode in lost}


def _write_failures(
    store: Path, splits: Mapping[str, str], failures: Sequence[Row], missing: Mapping[str, str]
) -> None:
    """Keep one line for each recording that has failed; those of other commands and splits stay until they are done."""
    path, own = store / FAILURES, set(splits.values())
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    old = {line["id"]: line for line in map(json.loads, text.splitlines())}
    elsewhere = {key for key, line in old.items() if key not in splits and line["split"] not in own}
    lines = {key: line for key, line in old.items() if key in missing or key in elsewhere}
    lines |= {line["id"]: line for line in failures}
    new = "".join(json.dumps(lines[key], ensure_ascii=False) + "\n" for key in sorted(lines))
    if new and new != text:
        storage.atomic_write_bytes(path, new.encode())
    elif not new:
        path.unlink(missing_ok=True)


def _explain(store: Path, failures: Sequence[Row], total: int, allowed: float) -> str:
    shown = "\n  ".join(f"{line['id']} ({line['stage']}): {line['error']}" for line in failures[:10])
    return (
        f"{len(failures)} of {total} recordings have no features (allowed: {allowed:.1%}):\n  {shown}\n"
        f"All are listed in {store / FAILURES}; the others are complete. Put them right and run the same command "
        "again, or raise max_bad_fraction to go without them."
    )


# ---- what the store holds ------------------------------------------------------------------------------------------


def _describe(
    store: Path,
    settings: Mapping[str, Any],
    episodes: Sequence[Episode],
    done: Sequence[Done],
    failures: Sequence[Row],
    run_dir: Path,
    counts: Mapping[str, Any],
) -> Row:
    """Return sizes, speed and priors; write the report."""
    opened = open_store(store, partial=True)
    written = {item_id for part in done for item_id in part.written}
    seconds = sum(e.duration * len(e.views) for e in episodes if e.item.id in written)
    wall = max((part.wall for part in done), default=0.0)
    peak = max((part.peak_bytes for part in done), default=0)
    rows = [_split_row(opened, name) for name in sorted({episode.split for episode in opened.episodes})]
    facts: Row = {"hours": round(sum(row["hours"] for row in rows), 3)}
    facts["gigabytes"] = round(sum(_size(episode) for episode in opened.episodes) / 1e9, 3)
    if seconds:
        facts["seconds_per_hour"] = round(wall / (seconds / 3600), 2)
    if peak:
        facts["gpu_peak_gigabytes"] = round(peak / 1e9, 2)
    annotated = [row for row in rows if "events" in row]
    unknown = sum(row["of unknown speakers"] for row in annotated)
    if unknown:
        facts["laughs_of_unknown_speakers"] = unknown
    priors = {f"prior/{row['split']}/{shift}": row[f"prior {shift}"] for row in annotated for shift in SHIFTS}
    facts["report"] = str(_write_report(opened, settings, rows, {**counts, **facts}, failures, run_dir))
    return facts | priors


def _size(episode: StoredEpisode) -> int:
    record = read_record(episode.folder) or {"files": {}}
    return sum(file["bytes"] for file in record["files"].values())


def _split_row(store: FeatureStore, split: str) -> Row:
    """Count hours, frames, events and positive frames of a split."""
    episodes = store.split(split)
    hours = sum(episode.duration for episode in episodes) / 3600
    row: Row = {"split": split, "recordings": len(episodes), "hours": round(hours, 3)}
    row["frames"] = sum(episode.num_frames for episode in episodes)
    annotated = [episode for episode in episodes if episode.has_events]
    if not annotated:
        return row
    events = {episode.key: [event for event in episode.events() if event.label == "Laughter"] for episode in annotated}
    row["events"] = sum(len(found) for found in events.values())
    row["events per hour"] = round(row["events"] / max(hours, 1e-9), 2)
    row["without event"] = sum(not found for found in events.values())
    labels = {shift: _labels_of(annotated, shift) for shift in SHIFTS}
    row["of unknown speakers"] = sum(found.counts["n_unknown_speaker"] for found in labels[min(SHIFTS)])
    for shift in SHIFTS:
        row[f"prior {shift}"] = _prior(labels[shift])
    return row


def _labels_of(episodes: Sequence[StoredEpisode], shift: int) -> list[Labels]:
    """Label the episodes by default, but for events of unknown speakers, which are masked."""
    return [
        compute_labels(
            *(episode.events(), episode.num_frames),
            LabelSettings(shift=shift, unknown_speaker="ignore", frame_rate=episode.frame_rate),
            known_speakers=episode.speakers,
            name=episode.name,
        )
        for episode in episodes
        if episode.num_frames > shift
    ]


def _prior(labels: Sequence[Labels]) -> float | None:
    """Return the share of positive frames among those that count."""
    known = sum(int(found.mask.sum()) for found in labels)
    return sum(int(found.y[found.mask].sum()) for found in labels) / known if known else None


def _write_report(
    store: FeatureStore,
    settings: Mapping[str, Any],
    rows: Sequence[Row],
    summary: Mapping[str, Any],
    failures: Sequence[Row],
    run_dir: Path,
) -> Path:
    notices = [report.notice(_NOTICES[flag]) for flag, is_set in flags_of(settings).items() if is_set]
    sections = [*notices, report.facts("Summary", {key.replace("_", " "): value for key, value in summary.items()})]
    if rows:
        columns = max((list(row) for row in rows), key=len)
        table = [[row.get(name) for name in columns] for row in rows]
        sections.append(report.table("Splits", columns, table))
    if any("events" in row for row in rows):
        text = "prior n: share of frames with a laughter onset within the next n frames, laughter itself left out"
        sections.append(report.notice(text, "info"))
    if failures:
        lines = [[line["id"], line["stage"], line["error"]] for line in failures[:20]]
        sections.append(report.table(f"Failed recordings ({len(failures)})", ["recording", "stage", "error"], lines))
    sections.append(report.code(json.dumps(settings, indent=2, ensure_ascii=False), "Settings"))
    return report.write_report(run_dir / "report.html", "voxlab extract", f"features in {store.folder}", sections)


def _tell(facts: Mapping[str, Any]) -> None:
    log.info("\n%s", "\n".join(f"  {key.replace('_', ' ')}: {value}" for key, value in facts.items()))
