"""Stage clean of `task=extract`: takes out of the output folder what recordings have left that are gone or renamed.

python main.py task=extract data=audiofolder data.root=DIR out=OUT stage=clean dry_run=true
"""

import contextlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import storage
from voxlab.data.items import AudioCorpus
from voxlab.data.names import inflected
from voxlab.errors import UserError
from voxlab.ledger import locked
from voxlab.parallel import Ranks, gather
from voxlab.sidecars.audit import list_files, scan, without_recording
from voxlab.tasks import estimate
from voxlab.tasks.extract.stage import NORMALIZED, TOKENS

log = logging.getLogger(__name__)

_WAV = ".wav"
_FOLDERS = (NORMALIZED, TOKENS)


def clean(corpus: AudioCorpus, out: Path, *, overwrite: bool, dry_run: bool, ranks: Ranks) -> dict[str, Any]:
    """Remove token files, sidecars and normalized audio of recordings that the corpus has no more; nothing else.

    The rule is that of the audit. The corpus is only listed: nothing is written, fetched or changed there. The next run
    of the stages brings manifest, data set and audit up to date.

    Args:
        corpus: all recordings that there are.
        out: output folder, as the stages made it.
        overwrite: go on where more would be removed than stays.
        dry_run: only tell what would be removed.
        ranks: the first one works, the others wait.

    Returns:
        Counts of items and files, and their bytes.

    Raises:
        UserError: `out` was not made by the stages, there are no recordings, none of them has anything in `out` (their
            disk may be missing), more would be removed than stays (they may not all be listed), they lie in one of the
            folders that are cleaned, or a file can't be removed.
    """
    if storage.read_manifest(out) is None:
        raise UserError(
            f"{out} was not made by task=extract (it has no {storage.MANIFEST}): nothing is removed there. Set out=... "
            "to the folder that holds tokens/ and normalized/."
        )
    with contextlib.nullcontext() if dry_run else locked(out, ranks):
        # The first rank works alone; what stops it has to stop the others too, which would wait for it forever.
        outcome = gather(ranks, _attempt(corpus, out, overwrite, dry_run) if ranks.is_first else {})[0]
    if "problem" in outcome:
        raise UserError(outcome["problem"])
    return outcome


def _attempt(corpus: AudioCorpus, out: Path, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    try:
        return _clean(corpus, out, overwrite, dry_run)
    except UserError as error:
        return {"problem": str(error)}


def _clean(corpus: AudioCorpus, out: Path, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    recordings = {item.id for item in corpus.items()}
    _refuse_overlap(corpus.folder, out)
    left = find_left_over(out, recordings)
    _refuse_most(corpus, out, recordings, left, overwrite)
    sizes = {item_id: sum(path.lstat().st_size for path in paths) for item_id, paths in left.items()}
    if not dry_run:
        _remove(out, [path for paths in left.values() for path in paths])
    outcome = {
        "out": str(out),
        "recordings": len(recordings),
        "items": len(left),
        "files": sum(map(len, left.values())),
        "bytes": sum(sizes.values()),
    }
    log.info("\n%s", "\n".join(_describe(out, left, sizes, outcome, dry_run)))
    return outcome


def find_left_over(out: Path, recordings: Collection[str]) -> dict[str, list[Path]]:
    """Return id -> files below `tokens/` and `normalized/` of every item that has no recording, sorted by id."""
    tokens = {out / TOKENS / name: key for name, key in without_recording(scan(out / TOKENS), recordings).items()}
    wavs = {out / NORMALIZED / f"{key}{_WAV}": key for key in _normalized(out) - set(recordings)}
    left: dict[str, list[Path]] = {}
    for path, key in sorted((wavs | tokens).items(), key=lambda entry: (entry[1], str(entry[0]))):
        left.setdefault(key, []).append(path)
    return left


def _normalized(out: Path) -> set[str]:
    return {name.removesuffix(_WAV) for name in list_files(out / NORMALIZED) if name.endswith(_WAV)}


def _refuse_most(
    corpus: AudioCorpus, out: Path, recordings: Collection[str], left: Collection[str], overwrite: bool
) -> None:
    """Stop where nothing would stay, and where more would go than stays unless that is confirmed."""
    stay = {*_normalized(out), *scan(out / TOKENS).tokens.values()} & set(recordings)
    if len(left) <= len(stay) or (stay and overwrite):
        return
    listed = inflected("{} [recording|recordings]", len(recordings))
    gone = f"{inflected('{} [item|items]', len(left))} would be removed (first: {min(left)})"
    if stay:
        raise UserError(
            f"{out} holds {inflected('{} [item|items]', len(stay))} of the {listed} in {corpus.folder}, and {gone}.\n"
            "Are data.root and data.pattern those that it was made with? If so many recordings are gone, add "
            "overwrite=true."
        )
    raise UserError(
        f"{out} holds nothing of the {listed} in {corpus.folder}: all of its {gone}.\n"
        "Is data.root right, and is its disk there? If all recordings were renamed, run all stages first, then "
        "stage=clean. To start over, choose another out=..."
    )


def _refuse_overlap(source: Path, out: Path) -> None:
    """Stop where recordings could be taken for outputs."""
    folder = source.resolve()
    for place in ((out / name).resolve() for name in _FOLDERS):
        if place == folder or place in folder.parents or folder in place.parents:
            raise UserError(
                f"the recordings ({source}) and the output ({place}) lie one in the other: nothing is removed, since a "
                "recording could be taken for an output. Keep data.root and out apart."
            )


def _remove(out: Path, paths: Sequence[Path]) -> None:
    """Delete files, and the folders that are empty without them."""
    for path in paths:
        with storage.explained(path):
            path.unlink(missing_ok=True)
    keep = {out / name for name in _FOLDERS}
    for folder in sorted({parent for path in paths for parent in _above(path, keep)}, reverse=True):  # inner ones first
        if not os.listdir(folder):  # noqa: PTH208 - no list of paths is needed
            with storage.explained(folder):
                folder.rmdir()


def _above(path: Path, keep: Collection[Path]) -> list[Path]:
    """Return the folders that hold a file, up to one of `keep`, which is left out."""
    parents = list(path.parents)
    return parents[: next(number for number, parent in enumerate(parents) if parent in keep)]


def _describe(
    out: Path,
    left: Mapping[str, Sequence[Path]],
    sizes: Mapping[str, int],
    outcome: Mapping[str, Any],
    dry_run: bool,
) -> list[str]:
    if not left:
        return [f"nothing to remove: all that {out} holds belongs to one of {outcome['recordings']} recordings"]
    lines = [
        f"  {item_id}: {', '.join(path.name.removeprefix(Path(item_id).name) for path in paths)}"
        f" ({estimate.spell_size(sizes[item_id])})"
        for item_id, paths in left.items()
    ]
    count = inflected(f"{{}} [item|items] without recording, {outcome['files']} files", len(left))
    amount = f"{count}, {estimate.spell_size(outcome['bytes'])}"
    if dry_run:
        return [*lines, f"to remove from {out}: {amount}; without dry_run=true they are deleted"]
    again = "The same command without stage=clean brings manifest, data set and audit up to date."
    return [*lines, f"removed from {out}: {amount}", again]
