"""What an output folder of `task=extract` was made with: its manifest, what may be done in it, what must come first."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxlab import storage
from voxlab.codecs import token_files
from voxlab.codecs.base import Codec, CodecInfo
from voxlab.errors import UserError
from voxlab.ledger import FOLDER, Ledger, locked
from voxlab.parallel import barrier
from voxlab.tasks.extract import encode as extract_encode
from voxlab.tasks.extract import normalize as extract_normalize
from voxlab.tasks.extract.stage import NORMALIZED, TOKENS, Stage

_LISTING = "manifest.csv"
_GPU_BATCH_SECONDS = 600.0
_CPU_BATCH_SECONDS = 120.0


def batch_seconds(folder: Path, chosen: float | None, device: str) -> float:
    """Return the largest padded batch: as chosen, as the folder was begun with, or by device, in this order."""
    if chosen is not None and not 0 < chosen < float("inf"):
        raise UserError(f"max_batch_seconds={chosen}: give a finite number above 0, or null.")
    begun = (storage.read_manifest(folder) or {"settings": {}})["settings"].get("encode", {}).get("max_batch_seconds")
    return chosen or begun or (_GPU_BATCH_SECONDS if device.startswith("cuda") else _CPU_BATCH_SECONDS)


def codec_of(folder: Path, codec: Codec, chosen: Sequence[str], encode: Mapping[str, Any]) -> tuple[CodecInfo, str]:
    """Return what the token files are: as chosen where they are to be written, else as `folder` says.

    So sidecars, data set and audit need no weights.
    """
    facts = (storage.read_manifest(folder) or {}).get("codec")
    if facts and not makes_tokens(chosen):
        return CodecInfo(**{**facts["info"], "strides": tuple(facts["info"]["strides"])}), facts["container"]
    return codec.info, encode["container"]


def makes_tokens(chosen: Sequence[str]) -> bool:
    """Tell whether stages begin with the recordings: the others need a folder in which these have been."""
    return bool({"normalize", "encode"} & set(chosen))


def locked_for(stage: Stage, chosen: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Return what keeps other commands out of the folder, where there is one or the chosen stages make it."""
    untouched = stage.dry_run or not (stage.out.is_dir() or makes_tokens(chosen))
    return contextlib.nullcontext() if untouched else locked(stage.out, stage.ranks)


def audio_format(info: CodecInfo) -> dict[str, int]:
    """Return what the normalized files have to be like for a codec."""
    return {"sample_rate": info.sample_rate, "channels": info.channels}


def settings(
    stage: Stage, chosen: Sequence[str], codec: Codec, normalize: Mapping[str, Any], encode: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the bytes of the chosen stages. Hashes weights, loads no model.

    Raises:
        UserError: a setting is wrong.
    """
    makers = {
        "normalize": lambda: extract_normalize.settings(**audio_format(codec.info), **normalize),
        "encode": lambda: extract_encode.settings(stage, codec, **encode),
    }
    return {name: make() for name, make in makers.items() if name in chosen}


def refuse(stage: Stage, chosen: Sequence[str], codec: Codec, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Stop where the chosen stages may not work in the folder; the audit alone may look at any.

    Raises:
        UserError: what is in it does not go with them, or it lies among the recordings.
    """
    if list(chosen) == ["audit"]:
        return
    if "normalize" in chosen:
        extract_normalize.refuse_overlap(stage)
    refuse_foreign(stage, overwrite)
    if makes_tokens(chosen):
        refuse_other_format(stage, chosen, codec.info)
    if not overwrite:
        refuse_other_settings(stage.out, settings)


def refuse_other_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Stop when a chosen stage has worked in `folder` with other settings; stages that are not run don't matter."""
    earlier = (storage.read_manifest(folder) or {"settings": {}})["settings"]
    both = settings.keys() & earlier.keys()
    changed = storage.differences({name: earlier[name] for name in both}, {name: settings[name] for name in both})
    if changed:
        raise UserError(
            f"{folder} holds work made with other settings:\n  " + "\n  ".join(changed) + "\nUse another folder "
            "(out=...), or make again what these settings change (overwrite=true)."
        )


def open_folder(stage: Stage, settings: Mapping[str, Any], info: CodecInfo, container: str) -> None:
    """Sweep up after killed runs and note the settings; nothing in a dry run."""
    if stage.dry_run:
        return
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


def refuse_foreign(stage: Stage, overwrite: bool) -> None:
    """Stop where a first run would overwrite files that it did not make.

    Raises:
        UserError: names the first of them.
    """
    if overwrite or storage.read_manifest(stage.out) is not None:
        return
    folders = (stage.out / kind for kind in (NORMALIZED, TOKENS))
    files = [path for folder in folders if folder.is_dir() for path in folder.rglob("*") if path.is_file()]
    found = [*files[:1], *([stage.out / _LISTING] if (stage.out / _LISTING).is_file() else [])]
    if found:
        raise UserError(
            f"{found[0]} is there already, and {stage.out} was not made by voxlab (it has no {storage.MANIFEST}).\n"
            "Choose another folder (out=...), or let these files be replaced (overwrite=true). Token files of others "
            "can be checked (stages='[audit]') and brought to the true container (upgrade=true)."
        )


def refuse_other_format(stage: Stage, chosen: Sequence[str], info: CodecInfo) -> None:
    """Stop where normalized files of another rate or channel count would be encoded.

    Raises:
        UserError: says what they are and what the codec takes.
    """
    made = (storage.read_manifest(stage.out) or {"settings": {}})["settings"].get("normalize")
    if made is None or "encode" not in chosen or "normalize" in chosen:
        return
    if (made["sample_rate"], made["channels"]) != (info.sample_rate, info.channels):
        raise UserError(
            f"{stage.out / NORMALIZED} holds {made['sample_rate']} Hz, {made['channels']} channels; {info.name} takes "
            f"{info.sample_rate} Hz, {info.channels}.\nRun the stage normalize as well, with overwrite=true."
        )


def refuse_stale_tokens(stage: Stage) -> None:
    """Stop before sidecars or a data set are made for tokens of other audio than lies in `normalized/`.

    Raises:
        UserError: counts them and names the first.
    """
    normalized = Ledger(stage.out, "normalize", stage.ranks).records
    encoded = Ledger(stage.out, "encode", stage.ranks).records
    stale = [
        item.id
        for item in stage.items
        if "frames" in encoded.get(item.id, {})
        and "sha256" in normalized.get(item.id, {})
        and encoded[item.id]["input"] != normalized[item.id]["sha256"]
    ]
    if stale:
        raise UserError(
            f"{len(stale)} token files (first: {stale[0]}) were made from other audio than {stage.out / NORMALIZED} "
            "holds now.\nRun the stage encode again."
        )


def upgrade(stage: Stage) -> list[str]:
    """Rewrite all torch-saved `.ecdc` files below `tokens/` as true ones; returns a line for the summary.

    Raises:
        UserError: there is no token file, or one can't be read.
    """
    paths = sorted((stage.out / TOKENS).rglob("*.ecdc"))
    if not paths:
        raise UserError(f"there are no .ecdc files below {stage.out / TOKENS}; out= is the folder that holds tokens/.")
    try:
        changed = sum(token_files.upgrade(path) for path in paths[stage.ranks.rank :: stage.ranks.world])
    except ValueError as error:
        raise UserError(f"can't upgrade: {error}") from error
    return [f"{changed} of {len(paths)} .ecdc files were torch-saved and are true containers now"]
