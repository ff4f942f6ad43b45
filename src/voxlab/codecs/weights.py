"""Where weights come from: a hub id, a folder, a file, or the explicit word `random`; and their hash.

Used by every codec. A local path always wins over the hub; `random` is never a fallback.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from voxlab.codecs import hub
from voxlab.errors import UserError

RANDOM = "random"
logger = logging.getLogger(__name__)


def resolve(
    weights: str, names: Sequence[str], optional: Sequence[str] = (), *, codec: str, group: str = "codec"
) -> dict[str, Path]:
    """Find the files of a model, in a local folder or on the hub (its cache when offline).

    Args:
        weights: hub id ("owner/name") or a folder.
        names: file names that must exist.
        optional: file names that are used where present.
        codec: word for error messages.
        group: config group of that word: codec, vocoder or features.

    Returns:
        file name -> path, in the order of `names` then `optional`.

    Raises:
        UserError: a file is missing; says which one, where it was looked for, and the key to set.
    """
    folder, owner = Path(weights).expanduser(), f"{group} {codec}"
    if folder.exists():
        return _in_folder(folder, names, optional, owner)
    if _is_path(weights):
        raise _missing(owner, weights, [*names, *optional][0], f"{folder} does not exist")
    return _on_hub(weights, names, optional, owner)


def _in_folder(folder: Path, names: Sequence[str], optional: Sequence[str], owner: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise _missing(owner, str(folder), [*names, *optional][0], f"{folder} is a file; a folder is needed")
    for name in names:
        if not (folder / name).is_file():
            raise _missing(owner, str(folder), name, f"{folder} holds {sorted(p.name for p in folder.iterdir())[:12]}")
    return {name: folder / name for name in [*names, *optional] if (folder / name).is_file()}


def _on_hub(repo: str, names: Sequence[str], optional: Sequence[str], owner: str) -> dict[str, Path]:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # five retries, a screen of text each
    found: dict[str, Path] = {}
    for name in [*names, *optional]:
        try:
            try:  # what lies in the cache is used as it is: no network, no change under a running project
                found[name] = Path(hf_hub_download(repo, name, local_files_only=True))
            except LocalEntryNotFoundError:
                hub.check_reachable()
                logger.info("fetching %s of %s from the Hugging Face hub", name, repo)
                found[name] = Path(hf_hub_download(repo, name))
        except hub.UnreachableError as error:
            if name in optional:
                hub.warn_unless_known(repo, name, error)
                continue
            reason = f"it isn't in the cache ({constants.HF_HUB_CACHE}), and {error}"
            raise _missing(owner, repo, name, reason, offline=True) from error
        except (OSError, ValueError) as error:
            if name in optional:
                continue
            reason = f"looked in {constants.HF_HUB_CACHE} and on the hub ({type(error).__name__})"
            raise _missing(owner, repo, name, reason) from error
    return found


def _is_path(weights: str) -> bool:
    return weights.startswith((".", "/", "~")) or weights.count("/") != 1 or Path(weights).suffix == ".safetensors"


def _missing(owner: str, weights: str, name: str, reason: str, *, offline: bool = False) -> UserError:
    group = owner.partition(" ")[0]
    others = "vocoder=griffin_lim, which needs none" if group == "vocoder" else "random (untrained, for tests)"
    advice = f"Set {group}.weights=<folder or hub id>; on a machine without network, copy the files there first."
    if offline:
        local = weights.partition("/")[2]
        advice = (
            f"Without network: where there is one, type hf download {weights} --local-dir {local}; copy that folder "
            f"here, and set {group}.weights={local}.\n"
            "Or copy the cache, whose place HF_HOME names. HF_HUB_OFFLINE=1 keeps the hub from being asked at all."
        )
    return UserError(
        f"{owner}: {name} not found for weights '{weights}': {reason}.\n"
        f"Allowed: a hub id, a local folder or file, or {others}.\n{advice}"
    )


def weights_id(files: Mapping[str, Path]) -> str:
    """Return "sha256:<16 hex>": of the file itself, or of the file hashes in name order where there are several."""
    digests = [_file_digest(files[name]) for name in sorted(files)]
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    return f"sha256:{digest[:16]}"


def identify(files: Mapping[str, Path], codec: str, seed: int) -> str:
    """Return `weights_id` of the files, or `random_id` where there are none."""
    return weights_id(files) if files else random_id(codec, seed)


def random_id(codec: str, seed: int) -> str:
    """Return "random:<seed>" and warn, once per codec and seed."""
    _warn_random(codec, seed)
    return f"random:{seed}"


@functools.cache
def _warn_random(codec: str, seed: int) -> None:
    logger.warning("%s has RANDOM weights (seed %d): what it computes means nothing", codec, seed)


def _file_digest(path: Path) -> str:
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file; size and mtime are part of the cache key only, so that a rewritten file is hashed again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
