"""Stage sidecars of `task=extract`: per-frame conditioning beside each token file, made by the chosen producers.

python main.py task=extract stages='[sidecars]' producers='[lin,from_filename]' sidecars.dtype=float32
"""

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import as_completed
from typing import Any

from voxlab.audio import compute_duration
from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.ledger import Ledger, Record
from voxlab.parallel import barrier, side_threads
from voxlab.progress import BulkProgress
from voxlab.sidecars import calls, columns, schema
from voxlab.sidecars.calls import Call
from voxlab.sidecars.item import Producer
from voxlab.sidecars.producers import python
from voxlab.tasks.extract.manifest import CSV, write_manifest
from voxlab.tasks.extract.sidecar_item import Work, is_current, make
from voxlab.tasks.extract.stage import Outcome, Stage

STAGE = "sidecars"
_MOST_WORKERS = 16
_SHOWN = 3
Records = Mapping[str, Mapping[str, Any]]


def sidecars(
    stage: Stage,
    *,
    info: CodecInfo,
    container: str,
    producers: Mapping[str, Producer],
    mode: str,
    dtype: str,
    remove: Sequence[str],
    workers: int | None = None,
) -> Outcome:
    """Write `tokens/<id>.cond.npy` and `.cond.json` for every item that has tokens, and the manifests.

    Without producers a new sidecar has no columns and an old one keeps those it has. A sidecar is made again when its
    tokens, the producers, their settings, the recording's metadata, or files that producers read have changed, and then
    only by those producers that the change concerns.

    Args:
        stage: the surroundings.
        info: the codec whose tokens are in `out/tokens`.
        container: of the token files, see `codecs.token_files`.
        producers: name -> function of (item, times), see `voxlab.sidecars.item`; they are called in this order.
        mode: "append": columns that exist are kept, unless the same producer made them with the same settings |
            "overwrite": they are replaced, and columns for other tokens are dropped. Columns that a producer no longer
            makes are dropped in both.
        dtype: "float16" or "float32".
        remove: names of columns to take away.
        workers: threads; None: one a core, at most 16.

    Returns:
        counts; `failed` holds the items without a sidecar of the present tokens and settings.

    Raises:
        UserError: a setting is wrong, or nothing was encoded.
    """
    check(producers=producers, mode=mode, dtype=dtype, remove=remove)
    suffix = token_files.suffix(info, container)
    work = Work(stage.out, suffix, tuple(calls.prepare(producers)), mode, dtype, tuple(remove))
    encoded = Ledger(stage.out, "encode", stage.ranks).records
    if not encoded and not stage.dry_run:
        raise UserError(
            f"{stage.out} holds no token files to describe. Run the stage encode first (stages=[encode,sidecars])."
        )
    ledger = Ledger(stage.out, STAGE, stage.ranks)
    items = [item for item in stage.items if "error" not in encoded.get(item.id, {"error": ""})]
    settings = work.fingerprint()
    made_from = {item.id: work.made_from(item, encoded[item.id], settings) for item in items}
    todo = [item for item in items if not is_current(ledger, made_from[item.id], item.id, work.sidecar_paths(item))]
    if stage.dry_run:
        coming = sum(item.id not in encoded for item in stage.items)
        facts = {"sidecars to write": len(todo) + coming, "sidecars to keep": len(items) - len(todo)}
        return Outcome(len(todo) + coming, len(items) - len(todo), facts=facts)
    barrier(stage.ranks)  # no rank may add records before all have read the same ones
    if todo or ledger.records.keys() != made_from.keys():
        _make_all(work, ledger, todo[stage.ranks.rank :: stage.ranks.world], made_from, encoded, info, workers)
        ledger.merge(keep=made_from)
    write_manifest(stage, info=info, container=container, encoded=encoded, sidecars=ledger.records)
    barrier(stage.ranks)
    return _outcome({item.id: ledger.records[item.id] for item in items}, {item.id for item in todo}, work)


def check(*, producers: Mapping[str, Producer], mode: str, dtype: str, remove: Sequence[str]) -> None:
    """Check the options of `sidecars`, without a look at any file but a user's own code.

    Raises:
        UserError: one is wrong; names it, and what it may be.
    """
    if mode not in columns.MODES or dtype not in schema.DTYPES:
        raise UserError(
            f"sidecars.mode={mode}, sidecars.dtype={dtype}: mode is {' or '.join(columns.MODES)}, "
            f"dtype is {' or '.join(schema.DTYPES)}."
        )
    if isinstance(remove, str) or not all(isinstance(name, str) for name in remove):
        raise UserError(f"sidecars.remove={remove}: give a list of names of columns, sidecars.remove='[pitch]'.")
    calls.check(producers)


def _make_all(
    work: Work,
    ledger: Ledger,
    items: Sequence[AudioItem],
    made_from: Mapping[str, Mapping[str, Any]],
    encoded: Records,
    info: CodecInfo,
    workers: int | None,
) -> None:
    """Make the sidecars of `items`, several at a time, and note each as soon as it is done."""
    threads = workers or min(os.cpu_count() or 1, _MOST_WORKERS)

    def one(item: AudioItem) -> AudioItem:
        record: Record = make(work, item, made_from[item.id], ledger.records.get(item.id))
        ledger.add(item.id, record)
        return item

    with side_threads(threads) as pool, BulkProgress(len(items), STAGE) as progress:
        jobs = [pool.submit(one, item) for item in items]
        try:
            for job in as_completed(jobs):
                seconds = compute_duration(encoded[job.result().id]["num_samples"], info.sample_rate)
                progress.advance(1, seconds)
        finally:
            pool.shutdown(cancel_futures=True)
            python.shutdown()


def _outcome(records: Records, worked_on: Collection[str], work: Work) -> Outcome:
    failed = {item_id: str(record["error"]) for item_id, record in records.items() if "error" in record}
    good = {item_id: record for item_id, record in records.items() if item_id not in failed}
    names = ", ".join(_columns(good))
    none = "(as before: every item failed)" if failed and not good else "(no columns)"
    facts = {"conditioning": names or none, "manifest": str(work.out / CSV)}
    done = sum(item_id in worked_on for item_id in good)
    return Outcome(done, len(good) - done, failed, tuple(_warnings(good, work)), facts)


def _columns(good: Records) -> list[str]:
    """Return the names of all columns, each with the number of items that have it where not all do."""
    counts = Counter(name for record in good.values() for name in record["names"])
    return [name if number == len(good) else f"{name} ({number} of {len(good)})" for name, number in counts.items()]


def _warnings(good: Records, work: Work) -> list[str]:
    """Tell what may not be what the user wants. Taken from the records, so that a rerun tells the same."""
    found = [_differing(good), *(_idle(good, call) for call in work.chosen)]
    kept = [(key, name) for key, record in good.items() for name in record.get("kept", ())]
    if kept:
        names, ids = ", ".join(sorted({name for _, name in kept})), _listed([key for key, _ in kept])
        found.append(
            f"columns {names} were made by other settings and are kept in {ids}; sidecars.mode=overwrite replaces them"
        )
    dropped = [(key, name) for key, record in good.items() for name in record.get("dropped", ())]
    if dropped:
        names, ids = ", ".join(sorted({name for _, name in dropped})), _listed([key for key, _ in dropped])
        found.append(f"columns {names} belonged to other tokens, or no producer makes them now: dropped from {ids}")
    removed = {name for record in good.values() for name in record.get("removed", ())}
    found += [f"sidecars.remove: no sidecar had a column {name!r}" for name in work.remove if name not in removed]
    return [warning for warning in found if warning]


def _differing(good: Records) -> str | None:
    sets = Counter(frozenset(record["names"]) for record in good.values())
    if len(sets) < 2:
        return None
    usual = sets.most_common(1)[0][0]
    other = [key for key, record in good.items() if frozenset(record["names"]) != usual]
    return f"sidecars differ in their columns: most have {sorted(usual)}, others have more or fewer: {_listed(other)}"


def _idle(good: Records, call: Call) -> str | None:
    silent = [key for key, record in good.items() if not record["made"].get(call.fingerprint)]
    if not silent:
        return None
    advice = ""
    if len(silent) == len(good) and call.reads_metadata():
        advice = (
            f": the corpus knows no numbers of its recordings; give producers.{call.name}.file=TABLE.csv, or "
            "data.metadata=TABLE.csv"
        )
    return f"the producer {call.name} found nothing for {_listed(silent)}{advice}"


def _listed(ids: Sequence[str]) -> str:
    unique = list(dict.fromkeys(ids))
    more = ", ..." if len(unique) > _SHOWN else ""
    return f"{len(unique)} {'item' if len(unique) == 1 else 'items'} ({', '.join(unique[:_SHOWN])}{more})"
