"""Stage build of `task=extract`: token files and sidecars become `out/dataset`, a `datasets.DatasetDict` on disk.

The folder holds relative paths only, and is swapped in complete: `load_from_disk` works wherever it is moved.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import storage
from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo
from voxlab.data.names import counted, inflected, listed
from voxlab.errors import UserError
from voxlab.ledger import FOLDER, Ledger
from voxlab.parallel import gather
from voxlab.tasks.extract.build_card import describe
from voxlab.tasks.extract.build_files import (
    CARD,
    CODEC,
    MATERIALIZE,
    OURS,
    SPLITS,
    STATISTICS,
    place_files,
    prefix_of,
    refuse_foreign,
    swapped_in,
    wrong_sizes,
)
from voxlab.tasks.extract.build_rows import Row, collect_rows, plan_columns, pool_statistics, write_split
from voxlab.tasks.extract.stage import DATASET, TOKENS, Outcome, Stage

STATE = "build.json"
_RESERVED = (*OURS, "all")
FORMAT_VERSION = 1
_SPLIT = re.compile(r"\w+(\.\w+)*")
_REPO = re.compile(r"[\w.-]+/[\w.-]+")


def build(
    stage: Stage, *, info: CodecInfo, container: str, materialize: str, inline: bool, push_to_hub: str | None
) -> Outcome:
    """Write `out/dataset` with every item that has tokens; a folder that is up to date is left alone.

    Columns: id, audio (path of the token file, relative to the data set), duration (s), frames, num_codebooks,
    num_samples, sample_rate, frame_rate, cond (path of the sidecar's values, or null), cond_names, the recordings'
    metadata, and with `inline` codes (K x T) and cond_values (T x D). Beside the splits lie `cond_stats.json`
    (statistics of every conditioning column over all frames of a split), `codec.json` and a card, `README.md`.

    Args:
        stage: the surroundings; every split of `stage.items` is written.
        info: the codec whose tokens are in `out/tokens`.
        container: of the token files, see `codecs.token_files`.
        materialize: how the folder holds token files and sidecars: "hardlink" and "copy" make it complete in itself,
            "link" makes relative links into `out/tokens`, "none" names paths there (`../tokens/...`).
        inline: codes and conditioning as columns too.
        push_to_hub: "owner/name" of a data set on the Hugging Face hub to upload the folder to; a new one is private.

    Returns:
        counts; `kept` where the folder was up to date.

    Raises:
        UserError: a setting is wrong, nothing was encoded, files are missing or don't fit each other, `out/dataset`
            holds foreign files, or the hub refuses.
    """
    check(materialize=materialize, inline=inline, push_to_hub=push_to_hub)
    suffix = token_files.suffix(info, container)
    outcome = _build(stage, info, suffix, materialize, inline) if stage.ranks.is_first else Outcome()
    if push_to_hub and stage.ranks.is_first and not stage.dry_run and (stage.out / DATASET).is_dir():
        _push(stage.out / DATASET, push_to_hub)
    return gather(stage.ranks, outcome)[0]


def check(*, materialize: str, inline: bool, push_to_hub: str | None) -> None:
    """Check the options of `build`, without a look at any file.

    Raises:
        UserError: one is wrong; names it, and what it may be.
    """
    if not isinstance(inline, bool):
        raise UserError(f"build.inline={inline}: choose true or false.")
    if materialize not in MATERIALIZE:
        raise UserError(f"build.materialize={materialize}: choose {', '.join(MATERIALIZE)}.")
    if push_to_hub and not _REPO.fullmatch(push_to_hub):
        raise UserError(f"build.push_to_hub={push_to_hub}: give owner/name, for example me/my-dataset.")
    if push_to_hub and materialize in ("link", "none"):
        raise UserError(
            f"build.push_to_hub={push_to_hub} needs a folder complete in itself, not materialize={materialize}. "
            "Set build.materialize=hardlink or build.materialize=copy."
        )


def _build(stage: Stage, info: CodecInfo, suffix: str, materialize: str, inline: bool) -> Outcome:
    rows, failed = collect_rows(stage, info, suffix)
    coming = _coming(stage)
    warnings = _warnings(rows, failed, info)
    if coming:
        planned = _planned(rows, len(rows) + coming, materialize)
        return Outcome(
            done=len(rows) + coming, warnings=warnings, facts={"dataset": str(stage.out / DATASET)} | planned
        )
    if not rows:
        return Outcome(warnings=warnings or (_nothing(stage),))
    splits = _by_split(rows)
    facts = {
        "dataset": str(stage.out / DATASET),
        "splits": ", ".join(f"{name} {len(members)}" for name, members in splits.items()),
    }
    made_from = _made_from(rows, info, materialize, inline)
    if _is_current(stage.out, made_from, rows, materialize):
        return Outcome(kept=len(rows), warnings=warnings, facts=facts)
    if stage.dry_run:
        return Outcome(done=len(rows), warnings=warnings, facts=facts | _planned(rows, len(rows), materialize))
    dataset = stage.out / DATASET
    refuse_foreign(dataset)
    with swapped_in(dataset) as folder:
        _write(folder, splits, stage.out / TOKENS, info, materialize, inline)
    storage.atomic_write_json(stage.out / FOLDER / STATE, {"made_from": made_from})
    return Outcome(done=len(rows), warnings=warnings, facts=facts)


def _coming(stage: Stage) -> int:
    """Return how many items have no tokens yet and are to have some when the build that a dry run plans comes."""
    if not stage.dry_run:
        return 0
    encoded = Ledger(stage.out, "encode", stage.ranks).records
    return sum(item.id not in encoded for item in stage.items)


def _nothing(stage: Stage) -> str:
    if not Ledger(stage.out, "encode", stage.ranks).records:
        raise UserError(
            f"{stage.out} holds no token files to build from. Run the stage encode first (stages=[encode,build])."
        )
    return "no item has a token file: there is nothing to build"


def _by_split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.item.split, []).append(row)
    for name in splits:
        if not _SPLIT.fullmatch(name) or name in _RESERVED:
            raise UserError(
                f"split {name!r} can't be a split of a data set: allowed are letters, digits, _ and single dots, "
                f"but none of {', '.join(_RESERVED)}. Rename it in the corpus (data.splits=)."
            )
    return dict(sorted(splits.items()))


def _warnings(rows: Sequence[Row], failed: Mapping[str, str], info: CodecInfo) -> tuple[str, ...]:
    reasons = [f"{item_id} ({reason})" for item_id, reason in failed.items()]
    found = counted("{} [item has tokens, but its|items have tokens, but their] sidecars failed", reasons)
    bare = [row.item.id for row in rows if row.sidecar is None]
    found += counted(f"{{}} of {len(rows)} items [has|have] no sidecar (run the stage sidecars)", bare)
    if rows and set(info.strides) != {1}:
        found.append(
            f"TokenDataset does not read this data set: the codebooks of {info.name} have different rates (strides "
            f"{', '.join(map(str, info.strides))}). voxlab.codecs.token_files.read_tokens reads its token files."
        )
    return tuple(found)


# ---- is it up to date? ---------------------------------------------------------------------------------------------


def _made_from(rows: Sequence[Row], info: CodecInfo, materialize: str, inline: bool) -> str:
    """Return a digest of all that the folder's bytes depend on."""
    described = [
        (
            *(row.item.id, row.item.split, row.suffix, repr(sorted(row.item.metadata.items())), row.encoded["sha256"]),
            *(row.encoded["num_samples"], row.sidecar and (row.sidecar["stat"], row.sidecar["names"])),
        )
        for row in rows
    ]
    settings = {"version": FORMAT_VERSION, "codec": dataclasses.asdict(info), "rows": described}
    return storage.fingerprint(settings | {"materialize": materialize, "inline": inline})


def _is_current(out: Path, made_from: str, rows: Sequence[Row], materialize: str) -> bool:
    """Tell whether the folder was made from just this, and has all its files; opens only one of them."""
    state, dataset = out / FOLDER / STATE, out / DATASET
    if not state.is_file() or json.loads(state.read_text(encoding="utf-8")) != {"made_from": made_from}:
        return False
    names = (CARD, STATISTICS, CODEC, SPLITS, *(f"{row.item.split}/state.json" for row in rows[:1]))
    return all((dataset / name).is_file() for name in names) and not wrong_sizes(dataset, rows, materialize)


def _planned(rows: Sequence[Row], total: int, materialize: str) -> dict[str, Any]:
    copied = sum(size for row in rows for _, size in row.sizes()) if materialize == "copy" else 0
    return {"dataset_rows": f"WRITE {total}", "dataset_copies": f"{copied / 1e6:.1f} MB"}


# ---- writing -------------------------------------------------------------------------------------------------------


def _write(
    folder: Path, splits: Mapping[str, Sequence[Row]], tokens: Path, info: CodecInfo, materialize: str, inline: bool
) -> None:
    rows = [row for members in splits.values() for row in members]
    wrong = wrong_sizes(tokens.parent / DATASET, rows, "none")
    if wrong:
        raise UserError(
            f"{inflected('{} [file is|files are] not as the stages encode and sidecars left', len(wrong))} "
            f"{'it' if len(wrong) == 1 else 'them'} in {tokens}: {listed(wrong)}.\n"
            "Run these stages again (stages=[encode,sidecars,build])."
        )
    place_files(folder, rows, tokens, materialize)
    statistics = {name: pool_statistics(members, tokens) for name, members in splits.items()}
    _save_tables(folder, splits, tokens, info, materialize, inline)
    storage.atomic_write_json(folder / STATISTICS, {"format_version": FORMAT_VERSION, "splits": statistics})
    storage.atomic_write_json(folder / CODEC, {"format_version": FORMAT_VERSION, **dataclasses.asdict(info)})
    card = describe(splits, statistics, info, materialize, inline)
    storage.atomic_write_bytes(folder / CARD, card.encode())
    wrong = wrong_sizes(folder, rows, materialize)
    if wrong:
        raise UserError(f"{len(wrong)} files of {folder} were not written as they should: {listed(wrong)}.")


def _save_tables(
    folder: Path, splits: Mapping[str, Sequence[Row]], tokens: Path, info: CodecInfo, materialize: str, inline: bool
) -> None:
    """Write the rows of each split through `datasets`, from memory-mapped tables: memory does not grow with them."""
    from datasets import DatasetDict

    columns = plan_columns([row for rows in splits.values() for row in rows], inline, info.has_scales)
    scratch = folder / ".scratch"  # no split has such a name
    scratch.mkdir()
    tables = {}
    for name, rows in splits.items():
        path = scratch / f"{name}.arrow"
        write_split(path, rows, tokens, prefix_of(materialize), columns, info)
        tables[name] = _open_table(path, name)
    with _quiet():
        DatasetDict(tables).save_to_disk(folder)
    del tables
    shutil.rmtree(scratch)


def _open_table(path: Path, split: str) -> Any:
    from datasets import Dataset, DatasetInfo, Features, NamedSplit
    from datasets.table import MemoryMappedTable

    table = MemoryMappedTable.from_file(str(path))
    with path.open("rb") as file:  # the fingerprint is saved: one from the content makes equal data equal bytes
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    info = DatasetInfo(features=Features.from_arrow_schema(table.schema))
    return Dataset(table, info=info, split=NamedSplit(split), fingerprint=digest)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from datasets.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_off = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            enable_progress_bars()


# ---- the hub -------------------------------------------------------------------------------------------------------


def _push(dataset: Path, repo: str) -> None:
    """Upload the folder; token files and tables that an earlier version had and this one has not are removed there."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(repo, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=dataset,
            commit_message="Data set built by voxlab",
            delete_patterns=[f"{TOKENS}/*", "*/data-*.arrow"],
        )
    except (OSError, ValueError) as error:  # requests' and the hub's errors
        raise UserError(
            f"can't upload {dataset} to {repo}: {type(error).__name__}: {error}\nThe folder itself is complete. "
            "Check the network and your access (`hf auth login`), then run the stage build again."
        ) from error
