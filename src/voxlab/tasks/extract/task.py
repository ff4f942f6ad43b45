"""A corpus of recordings to an audited data set: loudness, token files, per-frame conditioning, `datasets` folder.

python main.py task=extract data=audiofolder data.root=DIR codec=encodec producers='[lin,from_filename]'
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.codecs.base import Codec, CodecInfo
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.errors import AuditFailed, UserError
from voxlab.features.base import Features
from voxlab.parallel import Ranks, barrier
from voxlab.tasks.extract import audit as extract_audit
from voxlab.tasks.extract import build as extract_build
from voxlab.tasks.extract import encode as extract_encode
from voxlab.tasks.extract import folder as extract_folder
from voxlab.tasks.extract import normalize as extract_normalize
from voxlab.tasks.extract import sidecars as extract_sidecars
from voxlab.tasks.extract import summary
from voxlab.tasks.extract.clean import clean
from voxlab.tasks.extract.doctor import check_corpus
from voxlab.tasks.extract.features import extract_features
from voxlab.tasks.extract.stage import Outcome, Stage

_MAX_BAD_FRACTION = 0.05
STAGES = ("normalize", "encode", "sidecars", "build", "audit")


def extract(
    *,
    corpus: AudioCorpus,
    stage: str,
    codec: Codec | None,
    features: Features | None,
    out: str,
    verify: str,
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
    upgrade: bool,
    max_batch_seconds: float | None,
    max_bad_fraction: float | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Run the stages, each over all items that the stage before it finished; what is up to date is left alone.

    The same call again goes on where an earlier one stopped. Output bytes depend neither on where that was nor on
    the number of ranks. Each item's files are named after its id: `tokens/<id>.ecdc`, `tokens/<id>.cond.npy`.
    With `features`, no stage is run: see `features.extract_features`; with `stage` check neither: see
    `doctor.check_corpus`; with "clean" nor: see `clean.clean`.

    Args:
        corpus: the recordings.
        stage: "fit" extracts; "check" only looks at the corpus; "clean" only removes what recordings that are gone have
            left in `out`.
        codec: codec to write.
        features: features to write instead.
        out: output folder, apart from the corpus.
        verify: of features, "size" or "hash".
        stages: some of "normalize", "encode", "sidecars", "build", "audit"; they run in this order.
        normalize: options of `normalize.normalize`.
        encode: options of `encode.encode`.
        sidecars: options of `sidecars.sidecars`.
        producers: name -> function of (item, times) that returns columns, see `voxlab.sidecars.producers`.
        build: options of `build.build`.
        audit: options of `audit.audit`.
        strict: warnings of the audit fail the run as well.
        overwrite: accept other settings than the folder was made with, and make again what they change; "clean": let
            more go than stays.
        list_missing: only list items without token file and token files without item.
        upgrade: only rewrite torch-saved `.ecdc` files below `out/tokens` as true ones.
        max_batch_seconds: largest padded batch in seconds of audio; None takes what `out` was begun with, or chooses by
            device.
        max_bad_fraction: fail at the end when more items than this have no result; None: 0.05, no item with features.
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
    if stage == "check":
        return check_corpus(corpus, strict=strict, dry_run=dry_run, ranks=ranks, run_dir=run_dir)
    if stage == "clean":
        return _clean(corpus, features, Path(out), overwrite, dry_run, ranks)
    _refuse_stage(stage)
    if features is not None:
        _refuse_token_options(overwrite=overwrite, list_missing=list_missing, upgrade=upgrade)
        allowed, place = _fraction(max_bad_fraction, 0.0), {"ranks": ranks, "run_dir": run_dir}
        return extract_features(corpus, features, out, verify=verify, max_bad=allowed, dry_run=dry_run, **place)
    gc.freeze()  # else each collection walks all that torch has imported: 40 % of a rerun with nothing to do
    chosen, allowed = _check_choices(stages), _fraction(max_bad_fraction, _MAX_BAD_FRACTION)
    codec = _chosen(codec)
    _check_later({"producers": producers or {}, **sidecars}, build, {"strict": strict, **audit})
    only_audit = chosen == ["audit"] and not list_missing
    items = () if only_audit or upgrade else _open_corpus(corpus, ranks, dry_run)
    batch_seconds = extract_folder.batch_seconds(Path(out), max_batch_seconds, ranks.device)
    here = Stage(Path(out), items, ranks, seed, batch_seconds, dry_run)
    if list_missing or upgrade:
        lines = extract_encode.list_missing(here) if list_missing else extract_folder.upgrade(here)
        return summary.show_lines(here, lines)
    work: dict[str, Callable[[], Outcome]] = {"audit": partial(extract_audit.audit, here, strict=strict, **audit)}
    settings = extract_folder.settings(here, chosen, codec, normalize, encode)
    refuse = partial(extract_folder.refuse, here, chosen, codec, settings, overwrite=overwrite)
    refuse()  # before anything is made in `out`
    with extract_folder.locked_for(here, chosen):
        if not only_audit:
            info, container = extract_folder.codec_of(here.out, codec, chosen, encode)
            work |= _work(here, codec, info, container, normalize, encode, sidecars, producers or {}, build)
            refuse()  # others may have been at work until now
            extract_folder.open_folder(here, settings, info, container)
        outcomes, failure = _run(here, {name: work[name] for name in chosen})
        if dry_run:
            return summary.describe_plan(here, outcomes)
        return summary.finish(here, outcomes, failure, settings, run_dir, allowed)


def _work(
    stage: Stage,
    codec: Codec,
    info: CodecInfo,
    container: str,
    normalize: Mapping[str, Any],
    encode: Mapping[str, Any],
    sidecars: Mapping[str, Any],
    producers: Mapping[str, Callable[..., Any]],
    build: Mapping[str, Any],
) -> dict[str, Callable[[], Outcome]]:
    """Return the stages that look at the recordings, each ready to be called."""
    both = {"info": info, "container": container}
    loudness = {**extract_folder.audio_format(info), **normalize}
    return {
        "normalize": partial(extract_normalize.normalize, stage, **loudness),
        "encode": partial(extract_encode.encode, stage, codec, **encode),
        "sidecars": partial(extract_sidecars.sidecars, stage, **both, producers=producers, **sidecars),
        "build": partial(extract_build.build, stage, **both, **build),
    }


def _refuse_stage(stage: str) -> None:
    if stage != "fit":
        raise UserError(
            f"stage={stage}: task=extract has stage=check (look at the corpus), stage=clean (remove what recordings "
            "that are gone have left in out), or none, to extract."
        )


def _chosen(codec: Codec | None) -> Codec:
    if codec is None:
        raise UserError("task=extract writes tokens or features: choose codec=encodec or features=moshi, for example.")
    return codec


def _check_later(sidecars: Mapping[str, Any], build: Mapping[str, Any], audit: Mapping[str, Any]) -> None:
    """Check the options of the stages that come last before the first one works for hours."""
    extract_sidecars.check(**sidecars)
    extract_build.check(**build)
    extract_audit.check(**audit)


def _clean(
    corpus: AudioCorpus, features: Features | None, out: Path, overwrite: bool, dry_run: bool, ranks: Ranks
) -> dict[str, Any]:
    if features is not None:
        raise UserError(
            "stage=clean is for token files, not for features: a store of features keeps what it has, and index.json "
            "in it lists the recordings that are there now."
        )
    return clean(corpus, out, overwrite=overwrite, dry_run=dry_run, ranks=ranks)


def _refuse_token_options(**options: bool) -> None:
    given = [f"{name}=true" for name, is_set in options.items() if is_set]
    if given:
        raise UserError(
            f"{', '.join(given)} is for token files, not for features: other settings get a folder of their own, and "
            "index.json in it lists what is missing."
        )


def _fraction(max_bad_fraction: float | None, default: float) -> float:
    fraction = default if max_bad_fraction is None else max_bad_fraction
    if not 0 <= fraction <= 1:
        raise UserError(f"max_bad_fraction={fraction}: give a fraction from 0 to 1.")
    return fraction


def _check_choices(stages: Sequence[str]) -> list[str]:
    """Return the chosen stages in their order of work."""
    if not stages or set(stages) - set(STAGES):
        raise UserError(
            f"stages={list(stages)}: choose some of {', '.join(STAGES)}, for example stages=[encode,build]."
        )
    return [name for name in STAGES if name in stages]


def _open_corpus(corpus: AudioCorpus, ranks: Ranks, dry_run: bool) -> tuple[AudioItem, ...]:
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    return tuple(corpus.items())


def _run(stage: Stage, work: Mapping[str, Callable[[], Outcome]]) -> tuple[dict[str, Outcome], UserError | None]:
    """Run the stages in order; what stops build or audit is returned, to be raised when all is reported."""
    outcomes: dict[str, Outcome] = {}
    for name, run in work.items():
        if name in ("sidecars", "build"):
            extract_folder.refuse_stale_tokens(stage)
        try:
            outcomes[name] = run()
        except AuditFailed as error:
            outcomes[name] = error.outcome
            return outcomes, error
        except UserError as error:
            if not any(outcome.failed for outcome in outcomes.values()):
                raise
            return outcomes, error  # probably because of the items that failed: those are told first
    return outcomes, None
