"""Stage normalize of `task=extract`: recordings of any kind to WAV files of one rate, channel count and loudness.

python main.py task=extract stages='[normalize]' data.root=DIR normalize.target_rms=0.1
"""

import contextlib
import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, replace
from pathlib import Path
from threading import Condition
from typing import Any

import soundfile

from voxlab import storage
from voxlab.audio import Decibels, Seconds
from voxlab.data.items import AudioItem
from voxlab.data.names import inflected
from voxlab.data.recordings import read_headers
from voxlab.errors import UserError
from voxlab.ledger import Ledger, Record, stats
from voxlab.parallel import barrier, side_threads
from voxlab.progress import BulkProgress
from voxlab.tasks import estimate
from voxlab.tasks.extract.gain import COLUMNS, Rules, normalize_item
from voxlab.tasks.extract.stage import NORMALIZED, Outcome, Stage

STAGE = "normalize"
REPORT = "normalize.csv"
FORMAT_VERSION = 1
_MOST_WORKERS = 16
# Samples of all recordings in work at once, in their files' own rates and channels; each takes about 17 bytes.
_MOST_SAMPLES = 100_000_000
_PROBLEMS = 3  # ids that a warning names


def settings(
    *,
    sample_rate: int,
    channels: int,
    method: str = "rms",
    target_rms: float = 0.1,
    window_ms: float = 250,
    hop: str = "sample",
    target_lufs: Decibels = -23,
    ceiling: float = 0.99,
    clip: str = "limit",
    silence: str = "keep",
    format: str = "pcm16",
) -> dict[str, Any]:
    """Return everything that decides the bytes of the normalized files, for the manifest; arguments as for `normalize`.

    Raises:
        UserError: names the key that is wrong, and what it may be.
    """
    rules = Rules(**locals())
    rules.check()
    other = {"rms": ("target_lufs",), "lufs": ("target_rms",)}[method]  # has no effect, so it may change
    return {
        "format_version": FORMAT_VERSION,
        **{key: value for key, value in asdict(rules).items() if key not in other},
    }


def normalize(
    stage: Stage,
    *,
    sample_rate: int,
    channels: int,
    method: str = "rms",
    target_rms: float = 0.1,
    window_ms: float = 250,
    hop: str = "sample",
    target_lufs: Decibels = -23,
    ceiling: float = 0.99,
    clip: str = "limit",
    silence: str = "keep",
    format: str = "pcm16",
    workers: int | None = None,
) -> Outcome:
    """Write `normalized/<id>.wav` for every recording, and normalize.csv with the gain of each.

    Channels are averaged (two stay two for `channels=2`, one is doubled), the rate is changed, and one gain brings the
    peak windowed RMS, or the integrated loudness, to the target. A recording that fails is in `Outcome.failed` and,
    with status "failed", in normalize.csv.

    Args:
        stage: where, and which recordings.
        sample_rate: of the files written, in Hz.
        channels: of the files written, 1 or 2.
        method: "rms" (peak windowed RMS) or "lufs" (EBU R128; needs 0.4 s).
        target_rms: peak windowed RMS to reach, 1 is full scale.
        window_ms: length of the RMS window.
        hop: "sample" or "quarter", see `peak_windowed_rms`.
        target_lufs: integrated loudness to reach.
        ceiling: largest true peak to write, 1 is full scale.
        clip: where the gain would exceed the ceiling: "limit" lowers the gain (status "limited"), "error" fails the
            recording, "allow" writes it (status "over"; a pcm16 file clips at full scale).
        silence: where the peak RMS is below 1e-8 (or no part reaches -70 LUFS): "keep" writes it without gain (status
            "silent"), "skip" leaves it out of all later stages with a warning (status "skipped"), "error" fails it.
        format: "pcm16" (rounded, no dither) or "float32".
        workers: recordings in work at once, each in memory as a whole; None takes the CPU's cores.

    Returns:
        counts, failures and warnings.

    Raises:
        UserError: wrong settings; recordings in the output folder, or an output folder among the recordings.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("stage", "workers")}
    made_by = storage.fingerprint(settings(**arguments))
    rules = Rules(**arguments)
    refuse_overlap(stage)
    ledger = Ledger(stage.out, STAGE, stage.ranks)
    folder = stage.out / NORMALIZED
    todo = [item for item in stage.items if not _is_current(ledger, folder, item, made_by)]
    if not stage.dry_run:
        _clear(stage, todo)
        barrier(stage.ranks)  # before a rank adds records, the others must have read the same ones
        _run(stage, ledger, todo, rules, made_by, workers)
        ids = {item.id for item in stage.items}
        if todo or ids != ledger.records.keys():
            ledger.merge(keep=ids)
        if stage.ranks.is_first:
            _write_report(stage.out / REPORT, ledger.records)
    outcome = _outcome(stage, ledger.records, {item.id for item in todo})
    if not stage.dry_run:
        return outcome
    return _expect(stage, outcome, todo, rules, workers)


def refuse_overlap(stage: Stage) -> None:
    """Stop where outputs would be read as recordings by the next run, or recordings be overwritten.

    Raises:
        UserError: names the folder.
    """
    outputs = (stage.out / NORMALIZED).resolve()
    paths = [item for item in stage.items if item.content is None]
    inputs = {Path(folder).resolve() for folder in {os.path.dirname(item.path) for item in paths}}  # noqa: PTH120
    inside = sorted(str(folder) for folder in inputs if folder == outputs or outputs in folder.parents)
    if inside:
        raise UserError(
            f"recordings lie in {inside[0]}, where stage normalize writes; the input is never modified. Choose another "
            "out=... or data.root=..."
        )
    for item in paths[:1]:
        depth = item.id.count("/")
        root = item.path.parents[depth] if str(item.path.with_suffix("")).endswith(item.id) else item.path.parent
        if root.resolve() in outputs.parents:
            raise UserError(
                f"out={stage.out} lies in the folder of the recordings, {root}: the next run would take the output for "
                "more recordings. Choose another out=..."
            )


def _target(folder: Path, item_id: str) -> Path:
    return folder / f"{item_id}.wav"


def _is_current(ledger: Ledger, folder: Path, item: AudioItem, made_by: str) -> bool:
    return ledger.is_current(item.id, {"source": item.stamp, "settings": made_by}, [_target(folder, item.id)])


def _clear(stage: Stage, todo: Sequence[AudioItem]) -> None:
    """Delete what killed writers left: temporaries can lie only beside files that are still to be written."""
    if stage.ranks.is_first:
        folder = stage.out / NORMALIZED
        storage.remove_temporaries([stage.out, *(_target(folder, item.id).parent for item in todo)])


def _run(
    stage: Stage, ledger: Ledger, todo: Sequence[AudioItem], rules: Rules, made_by: str, workers: int | None
) -> None:
    """Work on this rank's share, in threads: reading, resampling and measuring release the interpreter."""
    own = todo[stage.ranks.rank :: stage.ranks.world]
    if not own:
        return
    room = _Room(_MOST_SAMPLES)
    with BulkProgress(len(own), STAGE) as progress, side_threads(_num_threads(stage, workers)) as pool:
        futures = [pool.submit(_finish, stage.out / NORMALIZED, ledger, item, rules, made_by, room) for item in own]
        try:
            for future in as_completed(futures):
                progress.advance(1, future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _num_threads(stage: Stage, workers: int | None) -> int:
    return workers or min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) // stage.ranks.world))


def _expect(stage: Stage, outcome: Outcome, todo: Sequence[AudioItem], rules: Rules, workers: int | None) -> Outcome:
    """Normalize a few recordings in memory; return the outcome with the size and the time of all of them."""
    if not todo:
        return replace(outcome, expected=0.0, basis="nothing to do")
    with side_threads(_num_threads(stage, workers)) as pool:

        def rehearse(items: Sequence[AudioItem]) -> float:
            list(pool.map(lambda item: normalize_item(item, rules), items))
            return sum(map(_read_seconds, items))

        total = sum(pool.map(_read_seconds, todo))
        size = total * rules.sample_rate * rules.channels * (2 if rules.format == "pcm16" else 4)
        outcome = replace(outcome, facts={**outcome.facts, "normalize_bytes": round(size)})
        try:
            pace, count = estimate.measure(rehearse, todo)
        except ValueError as error:
            return replace(outcome, basis=estimate.not_measured(str(error)))
    return replace(outcome, expected=pace * total / stage.ranks.world, basis=f"{count} recordings measured")


def _read_seconds(item: AudioItem) -> Seconds:
    """Return what a recording's header announces; 0 where it can't be read."""
    header = read_headers([item])[0]
    return 0.0 if isinstance(header, str) else header.duration


class _Room:
    """Lets recordings in until those in work hold `capacity` samples; one alone may be of any length."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used = capacity, 0
        self._changed = Condition()

    @contextlib.contextmanager
    def hold(self, num_samples: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self.used == 0 or self.used + num_samples <= self.capacity)
            self.used += num_samples
        try:
            yield
        finally:
            with self._changed:
                self.used -= num_samples
                self._changed.notify_all()


def _count_samples(item: AudioItem) -> int:
    """Return what the file says it holds, all channels together; 0 for a cell of a table or no audio at all."""
    if item.content is not None:
        return 0
    try:
        info = soundfile.info(str(item.path))
    except (soundfile.SoundFileError, OSError):
        return 0
    return info.frames * info.channels


def _finish(folder: Path, ledger: Ledger, item: AudioItem, rules: Rules, made_by: str, room: _Room) -> float:
    """Normalize one recording, write it and record it; returns its seconds."""
    with room.hold(_count_samples(item)):
        record, data = normalize_item(item, rules)
    target = _target(folder, item.id)
    with storage.explained(target):
        if data is None:
            target.unlink(missing_ok=True)  # of an earlier version of the recording, or of other settings
        else:
            storage.atomic_write_bytes(target, data)
            record |= {"stat": stats([target]), "sha256": hashlib.sha256(data).hexdigest()}
    with storage.explained(ledger.folder):
        ledger.add(item.id, {"source": item.stamp, "settings": made_by, "path": str(item.path), **record})
    return record.get("num_samples", 0) / rules.sample_rate


def _write_report(path: Path, records: Mapping[str, Record]) -> None:
    """Write normalize.csv, a line a recording, sorted by id."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", *COLUMNS])
    writer.writerows([item_id, *_cells(record)] for item_id, record in sorted(records.items()))
    data = text.getvalue().encode()
    if not (path.is_file() and path.read_bytes() == data):
        storage.atomic_write_bytes(path, data)


def _cells(record: Record) -> Iterator[Any]:
    values = {"status": "failed"} | record
    for name, digits in COLUMNS.items():
        value = values.get(name, "")
        yield value if digits is None or value == "" else f"{value:.{digits}f}"


def _outcome(stage: Stage, records: Mapping[str, Record], todo: set[str]) -> Outcome:
    present = {item.id: records[item.id] for item in stage.items if item.id in records}
    failed = {key: value["error"] for key, value in present.items() if "error" in value and "status" not in value}
    good = [key for key, value in present.items() if "error" not in value]
    kept = sum(key not in todo for key in good)
    if stage.dry_run:
        old = {key: reason for key, reason in failed.items() if key not in todo}
        return Outcome(len(todo), kept, old, facts={"normalize_plan": f"WRITE {len(todo)}, SKIP {kept}"})
    gains = sorted(present[key]["gain_db"] for key in good)
    facts = {"gain": f"{gains[len(gains) // 2]:.1f} dB ({gains[0]:.1f} to {gains[-1]:.1f})"} if gains else {}
    return Outcome(len(good) - kept, kept, failed, tuple(_warnings(stage, present)), facts)


def _warnings(stage: Stage, records: Mapping[str, Record]) -> Iterator[str]:
    texts = {
        "limited": "got less gain than wanted: the true peak would exceed the ceiling (normalize.clip=limit)",
        "over": "[has|have] a true peak above the ceiling (normalize.clip=allow)",
        "silent": "[is|are] silent and [was|were] written without gain (normalize.silence=keep)",
        "skipped": "[is|are] silent and [was|were] left out (normalize.silence=skip)",
    }
    counts = Counter(record.get("status") for record in records.values())
    for status, text in texts.items():
        if counts[status]:
            names = [key for key, record in records.items() if record.get("status") == status][:_PROBLEMS]
            line = inflected(f"{{}} [recording|recordings] {text}", counts[status])
            yield f"{line}: {', '.join(names)}{' ...' * (counts[status] > len(names))}"
