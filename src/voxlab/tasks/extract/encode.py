"""Stage encode of `task=extract`: recordings to token files, in batches of similar length.

What is up to date is left alone; the bytes depend neither on where a run stopped nor on the number of ranks.
"""

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from voxlab import storage
from voxlab.audio import Seconds
from voxlab.codecs import ecdc_lm, token_files
from voxlab.codecs.base import Codec
from voxlab.data.names import counted
from voxlab.errors import UserError
from voxlab.ledger import Ledger
from voxlab.parallel import barrier
from voxlab.tasks import estimate
from voxlab.tasks.extract.encode_work import STAGE, Input, Job, count_samples, rehearse, run
from voxlab.tasks.extract.stage import NORMALIZED, TOKENS, Outcome, Stage
from voxlab.tasks.extract.verify import verify_tokens

_GONE = "nothing is deleted by itself; stage=clean removes them, their sidecars and normalized files"
_STALE = (
    "left from other settings or an earlier version; delete them and their sidecars (.cond.npy, .cond.json), then run "
    "again"
)


def settings(
    stage: Stage, codec: Codec, *, container: str, lm_weights: str | None = None, verify: int = 0
) -> dict[str, Any]:
    """Return what decides the bytes of the token files; hashes weights, loads no model.

    Raises:
        UserError: an option is wrong or does not fit the codec.
    """
    chosen = token_files.resolve_container(codec.info, container)
    if lm_weights is not None and chosen != "ecdc":
        raise UserError(f"encode.lm_weights={lm_weights} is for container=ecdc, not {chosen}; set it to null.")
    if verify < 0:
        raise UserError(f"encode.verify={verify}: give the number of token files to check, 0 for none.")
    return {
        "codec": codec.fingerprint(),
        "container": chosen,
        "lm": None if lm_weights is None else ecdc_lm.identify_lm(lm_weights, codec.info.sample_rate),
        "max_batch_seconds": stage.max_batch_seconds,
    }


def encode(
    stage: Stage, codec: Codec, *, container: str = "auto", lm_weights: str | None = None, verify: int = 0
) -> Outcome:
    """Write `tokens/<id>.ecdc` or `.safetensors` for every recording.

    Reads `normalized/<id>.wav` where stage normalize has been run, else the recordings themselves, brought to the
    codec's rate and channels.

    Args:
        stage: where, and which recordings; `max_batch_seconds` is the largest padded batch.
        codec: codec to write.
        container: see `codecs.token_files`.
        lm_weights: language model for entropy coding (container ecdc), see `ecdc_lm.load_lm`; None writes plain codes.
        verify: so many of the files that this run writes are read back, encoded alone and decoded.

    Returns:
        counts, failures, and token files without recording as warnings.

    Raises:
        UserError: wrong options, missing weights, or a folder that cannot be written.
    """
    made_by = storage.fingerprint(settings(stage, codec, container=container, lm_weights=lm_weights, verify=verify))
    ledger = Ledger(stage.out, STAGE, stage.ranks)
    suffix = token_files.suffix(codec.info, container)
    job = Job(stage, codec, token_files.resolve_container(codec.info, container), suffix, made_by, ledger)
    inputs, unprepared = _inputs(stage)
    todo = {source.item.id for source in inputs if not job.is_current(source)}
    if stage.dry_run:
        return _plan(job, inputs, todo, lm_weights)
    checks: dict[str, str] = unprepared
    facts: dict[str, Any] = {}
    barrier(stage.ranks)  # before a rank adds records, the others must have read the same ones
    if todo:
        lm = None if lm_weights is None else ecdc_lm.load_lm(lm_weights, codec.info.sample_rate)
        job = Job(stage, codec.to(stage.ranks.device), job.container, suffix, made_by, ledger, lm)
        run(job, inputs, todo)
    if todo or {source.item.id for source in inputs} != ledger.records.keys():
        ledger.merge(keep=[source.item.id for source in inputs])
    if verify and todo:
        written = [
            source for source in inputs if source.item.id in todo and "error" not in ledger.records[source.item.id]
        ]
        mismatches, facts = verify_tokens(job, written, verify)
        checks |= mismatches
    return _outcome(job, inputs, todo, checks, facts)


def _inputs(stage: Stage) -> tuple[list[Input], dict[str, str]]:
    """Return what to encode, and id -> reason of recordings that stage normalize has not seen as they are now."""
    normalized = Ledger(stage.out, "normalize", stage.ranks).records
    if not normalized:
        return [Input(item, item.stamp, None) for item in stage.items], {}
    records = {item.id: normalized.get(item.id, {"source": None}) for item in stage.items}
    changed = {item.id for item in stage.items if records[item.id]["source"] != item.stamp}
    good = [item for item in stage.items if item.id not in changed and "error" not in records[item.id]]
    inputs = [Input(item, records[item.id]["sha256"], stage.out / NORMALIZED / f"{item.id}.wav") for item in good]
    return inputs, dict.fromkeys(sorted(changed), "not_normalized: new or changed; run the stage normalize as well")


def _plan(job: Job, inputs: Sequence[Input], todo: set[str], lm_weights: str | None) -> Outcome:
    info, records = job.codec.info, job.ledger.records
    failed = {key: reason for key, reason in _failures(inputs, records).items() if key not in todo}
    samples = [count_samples(source, info.sample_rate) for source in inputs if source.item.id in todo]
    bits = 10 if job.container == "ecdc" else 16
    codes = sum(-(-count // info.hop_length) // stride for count in samples for stride in info.strides)
    skipped = len(inputs) - len(todo) - len(failed)
    facts = {
        "encode_plan": f"WRITE {len(todo)}, SKIP {skipped}",
        "encode_seconds": round(sum(samples) / info.sample_rate, 1),
        "encode_bytes": codes * bits // 8,
    }
    expected, basis = _expect(job, [source for source in inputs if source.item.id in todo], lm_weights, sum(samples))
    return Outcome(len(todo), skipped, failed, facts=facts, expected=expected, basis=basis)


def _expect(job: Job, inputs: Sequence[Input], lm_weights: str | None, num_samples: int) -> tuple[Seconds | None, str]:
    """Encode a few recordings in memory; return seconds for all of them, and what that rests on."""
    if not inputs:
        return 0.0, "nothing to do"
    info, ranks, begun = job.codec.info, job.stage.ranks, time.perf_counter()
    try:
        lm = None if lm_weights is None else ecdc_lm.load_lm(lm_weights, info.sample_rate)
        loaded = replace(job, codec=job.codec.to(ranks.device), lm=lm)
        loading = time.perf_counter() - begun
        pace, count = estimate.measure(partial(rehearse, loaded), inputs, ranks.device)
    except (UserError, ValueError) as error:
        return None, estimate.not_measured(str(error))
    return loading + pace * num_samples / info.sample_rate / ranks.world, f"{count} recordings measured"


def _outcome(
    job: Job, inputs: Sequence[Input], todo: set[str], checks: Mapping[str, str], facts: Mapping[str, Any]
) -> Outcome:
    failed = {**_failures(inputs, job.ledger.records), **checks}
    good = {source.item.id for source in inputs} - failed.keys()
    warnings = tuple(_orphans(job, {*checks, *(source.item.id for source in inputs)}))
    return Outcome(len(good & todo), len(good - todo), failed, warnings, facts)


def _orphans(job: Job, expected: Collection[str]) -> Iterator[str]:
    """Tell of token files that none of the expected items has: their recording is gone, or was left out before."""
    found = _find_tokens(job.stage) - {key + job.suffix for key in expected}
    known = {item.id + suffix for item in job.stage.items for suffix in token_files.SUFFIXES}
    for names, text, advice in (
        (found - known, "{} token [file has|files have] no recording", _GONE),
        (found & known, "{} token [file belongs|files belong] to no recording that was encoded", _STALE),
    ):
        yield from (f"{line} ({advice})" for line in counted(text, sorted(names)))


def _failures(inputs: Sequence[Input], records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    found = {source.item.id: records.get(source.item.id, {}) for source in inputs}
    return {key: record["error"] for key, record in found.items() if "error" in record}


def list_missing(stage: Stage) -> list[str]:
    """List recordings without token file and token files without recording, the first 20 of each; deletes nothing."""
    found = _find_tokens(stage)
    possible = {item.id: {item.id + suffix for suffix in token_files.SUFFIXES} for item in stage.items}
    missing = {key for key, names in possible.items() if not names & found}
    orphans = found - {name for names in possible.values() for name in names}
    return [
        *counted("{} [recording has|recordings have] no token file", sorted(missing)),
        *counted("{} token [file has|files have] no recording", sorted(orphans)),
    ]


def _find_tokens(stage: Stage) -> set[str]:
    """Return the names of all token files, relative to the folder of tokens."""
    root = f"{stage.out / TOKENS}{os.sep}"
    walk = ((folder.removeprefix(root[:-1]).lstrip(os.sep), names) for folder, _, names in os.walk(root[:-1]))
    return {
        f"{folder}/{name}" if folder else name
        for folder, names in walk
        for name in names
        if name.endswith(token_files.SUFFIXES)
    }
