"""A corpus of recordings to an audited data set: loudness, token files, per-frame conditioning, `datasets` folder.

python main.py task=extract data=audiofolder data.root=DIR codec=encodec producers='[lin,from_filename]'
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from voxlab import storage
from voxlab.codecs.base import Codec, CodecInfo
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.errors import AuditFailed, UserError
from voxlab.ledger import FOLDER
from voxlab.parallel import Ranks, barrier
from voxlab.tasks import extract_audit, extract_build, extract_encode, extract_normalize, extract_sidecars
from voxlab.tasks import extract_summary as summary
from voxlab.tasks.extract_stage import NORMALIZED, TOKENS, Outcome, Stage

STAGES = ("normalize", "encode", "sidecars", "build", "audit")
_GPU_BATCH_SECONDS = 600.0
_CPU_BATCH_SECONDS = 120.0


def extract(
    *,
    corpus: AudioCorpus,
    codec: Codec | None,
    out: str,
    stages: Sequence[str],
    normalize: Mapping[str, Any],
    encode: Mapping[str, Any],
    sidecars: Mapping[str, Any],
    producers: Mapping[str, Callable[..., Any]] | None,
    build: Mapping[str, Any],
    audit: Mapping[str, Any],
    strict: bool,
    overwrite: bool,
    list_missing: bool,
    max_batch_seconds: float | None,
    max_bad_fraction: float,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Run the stages, each over all items that the stage before it finished; what is up to date is left alone.

    The same call again goes on where an earlier one stopped. Output bytes depend neither on where that was nor on
    the number of ranks. Each item's files are named after its id: `tokens/<id>.ecdc`, `tokens/<id>.cond.npy`.

    Args:
        corpus: the recordings.
        codec: codec to write.
        out: output folder, apart from the corpus.
        stages: some of "normalize", "encode", "sidecars", "build", "audit"; they run in this order.
        normalize: options of `extract_normalize.normalize`.
        encode: options of `extract_encode.encode`.
        sidecars: options of `extract_sidecars.sidecars`.
        producers: name -> function of (item, times) that returns columns, see `voxlab.sidecars.producers`.
        build: options of `extract_build.build`.
        audit: options of `extract_audit.audit`.
        strict: warnings of the audit fail the run as well.
        overwrite: accept other settings than the folder was made with, and make again what they change.
        list_missing: only list items without token file and token files without item.
        max_batch_seconds: largest padded batch in seconds of audio; None chooses by device.
        max_bad_fraction: fail at the end when more items than this have no token file.
        seed: of everything random.
        dry_run: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run, for the report page.

    Returns:
        Counts and the files written.

    Raises:
        UserError: wrong settings, no recordings, or a foreign output folder.
        AuditFailed: the audit found errors; the summary and the report are written all the same.
        TooManyBadItems: more items failed than `max_bad_fraction`.
    """
    gc.freeze()  # else each collection walks all that torch has imported: 40 % of a rerun with nothing to do
    chosen = _check_choices(stages, max_bad_fraction)
    if codec is None:
        raise UserError("task=extract writes tokens: choose a codec, for example codec=encodec.")
    if max_batch_seconds is None:
        max_batch_seconds = _GPU_BATCH_SECONDS if ranks.device.startswith("cuda") else _CPU_BATCH_SECONDS
    only_audit = chosen == ["audit"] and not list_missing
    items = () if only_audit else _open_corpus(corpus, ranks, dry_run)
    stage = Stage(Path(out), items, ranks, seed, max_batch_seconds, dry_run)
    if list_missing:
        return summary.show_missing(stage, extract_encode.list_missing(stage))
    work: dict[str, Callable[[], Outcome]] = {
        "audit": partial(extract_audit.audit, stage, strict=strict, **audit),
    }
    settings: dict[str, Any] = {}
    if not only_audit:
        info, container = _codec_of(stage.out, codec, chosen, encode)
        loudness = {"sample_rate": info.sample_rate, "channels": info.channels, **normalize}
        both = {"info": info, "container": container}
        work |= {
            "normalize": partial(extract_normalize.normalize, stage, **loudness),
            "encode": partial(extract_encode.encode, stage, codec, **encode),
            "sidecars": partial(extract_sidecars.sidecars, stage, **both, producers=producers or {}, **sidecars),
            "build": partial(extract_build.build, stage, **both, **build),
        }
        settings = _settings(stage, chosen, codec, loudness, encode)
        if not overwrite:
            _refuse_other_settings(stage.out, settings)
        if not dry_run:
            _open_folder(stage, settings, info, container)
    outcomes, failure = _run({name: work[name] for name in chosen})
    if dry_run:
        return summary.describe_plan(stage, outcomes)
    return summary.finish(stage, outcomes, failure, settings, run_dir, max_bad_fraction)


def _check_choices(stages: Sequence[str], max_bad_fraction: float) -> list[str]:
    """Return the chosen stages in their order of work."""
    if not stages or set(stages) - set(STAGES):
        raise UserError(
            f"stages={list(stages)}: choose some of {', '.join(STAGES)}, for example stages=[encode,build]."
        )
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction={max_bad_fraction}: give a fraction from 0 to 1.")
    return [name for name in STAGES if name in stages]


def _open_corpus(corpus: AudioCorpus, ranks: Ranks, dry_run: bool) -> tuple[AudioItem, ...]:
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    return tuple(corpus.items())


def _codec_of(folder: Path, codec: Codec, chosen: Sequence[str], encode: Mapping[str, Any]) -> tuple[CodecInfo, str]:
    """Return what the token files are: as chosen where they are to be written, else as `folder` says.

    So sidecars, data set and audit need no weights.
    """
    facts = (storage.read_manifest(folder) or {}).get("codec")
    if facts and not {"normalize", "encode"} & set(chosen):
        return CodecInfo(**{**facts["info"], "strides": tuple(facts["info"]["strides"])}), facts["container"]
    return codec.info, encode["container"]


def _settings(
    stage: Stage, chosen: Sequence[str], codec: Codec, loudness: Mapping[str, Any], encode: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the bytes of the chosen stages. Hashes weights, loads no model."""
    makers = {
        "normalize": lambda: extract_normalize.settings(**loudness),
        "encode": lambda: extract_encode.settings(stage, codec, **encode),
    }
    return {name: make() for name, make in makers.items() if name in chosen}


def _refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stop when a chosen stage has worked in `folder` with other settings; stages that are not run don't matter."""
    earlier = (storage.read_manifest(folder) or {"settings": {}})["settings"]
    both = settings.keys() & earlier.keys()
    changed = storage.differences({name: earlier[name] for name in both}, {name: settings[name] for name in both})
    if changed:
        raise UserError(
            f"{folder} holds work made with other settings:\n  " + "\n  ".join(changed) + "\nUse another folder "
            "(out=...), or make again what these settings change (overwrite=true)."
        )


def _open_folder(stage: Stage, settings: Mapping[str, Any], info: CodecInfo, container: str) -> None:
    """Sweep up after killed runs and note the settings."""
    if stage.ranks.is_first:
        parents = {item.id.rpartition("/")[0] for item in stage.items}
        folders = [stage.out / kind / parent for kind in (NORMALIZED, TOKENS) for parent in parents]
        storage.remove_temporaries([stage.out, stage.out / FOLDER, *folders])
        earlier = storage.read_manifest(stage.out) or {"settings": {}}
        merged = dict(sorted((earlier["settings"] | settings).items()))
        codec = {"info": {**asdict(info), "strides": list(info.strides)}, "container": container}
        manifest = {"schema_version": 1, "task": "extract", "fingerprint": storage.fingerprint(merged)}
        manifest["codec"] = codec if "encode" in settings else earlier.get("codec")
        if settings:
            storage.atomic_write_json(stage.out / storage.MANIFEST, manifest | {"settings": merged})
    barrier(stage.ranks)


def _run(work: Mapping[str, Callable[[], Outcome]]) -> tuple[dict[str, Outcome], AuditFailed | None]:
    """Run the stages in order; a failed audit, the last one, is returned to be raised when all is reported."""
    outcomes: dict[str, Outcome] = {}
    for name, stage in work.items():
        try:
            outcomes[name] = stage()
        except AuditFailed as error:
            return outcomes, error
    return outcomes, None
