"""Stage clean of `task=extract`: takes out of the output folder what recordings have left that are gone or renamed.

python main.py task=extract data=audiofolder data.root=DIR out=OUT stage=clean dry_run=true
"""

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab import sample_copy, storage
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.data.names import inflected, listed
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
    of the stages brings manifest, data set and audit up to date. The log names each file before the first one goes.

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
            folders that are cleaned, or files can't be removed (all others are).
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
    except PermissionError as error:
        who = "Run the command as the user who owns it, or mend its permissions."
        return {"problem": f"can't look at {error.filename}: {error.strerror}. {who}"}


def _clean(corpus: AudioCorpus, out: Path, overwrite: bool, dry_run: bool) -> dict[str, Any]:
    _refuse_unwritten(corpus)
    items = corpus.items()
    recordings = {item.id for item in items}
    _refuse_overlap(corpus.folder, items, out)
    left = find_left_over(out, recordings)
    _refuse_most(corpus, out, recordings, left, overwrite)
    sizes = {item_id: sum(path.lstat().st_size for path in paths) for item_id, paths in left.items()}
    outcome = {
        "out": str(out),
        "recordings": len(recordings),
        "items": len(left),
        "files": sum(map(len, left.values())),
        "bytes": sum(sizes.values()),
    }
    log.info("\n%s", "\n".join(_describe(out, left, sizes, outcome, dry_run)))
    if left and not dry_run:
        _remove(out, [path for paths in left.values() for path in paths])
        again = "The same command without stage=clean brings manifest, data set and audit up to date."
        log.info("removed from %s: %s\n%s", out, _amount(outcome), again)
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


def _refuse_unwritten(corpus: AudioCorpus) -> None:
    sample = sample_copy.find_unwritten(corpus)
    if sample is not None:
        raise UserError(
            f"there is no sample in {sample} yet, and nothing to clean: the stages write it first (the same command "
            "without stage=clean). For recordings of your own, set data.source=disk and data.root=DIR."
        )


def _refuse_overlap(source: Path, items: Sequence[AudioItem], out: Path) -> None:
    """Stop where recordings could be taken for outputs, also those that are links to what lies there."""
    folder = source.resolve()
    places = [(out / name).resolve() for name in _FOLDERS]
    for place in places:
        if place == folder or place in folder.parents or folder in place.parents:
            raise UserError(
                f"the recordings ({source}) and the output ({place}) lie one in the other: nothing is removed, since a "
                "recording could be taken for an output. Keep data.root and out apart."
            )
    for item in items:
        target = Path(os.path.realpath(item.path))  # resolve() fails for links in a circle, which lead to no file
        if any(place in target.parents for place in places):
            raise UserError(
                f"the recording {item.path} is a link to {target}, in the output: nothing is removed, since the "
                "recording could go with it. Put the file itself in place of the link, or choose another out=..."
            )


def _remove(out: Path, paths: Sequence[Path]) -> None:
    """Delete files, and the folders that are empty without them; go on where one can't be deleted.

    Raises:
        UserError: names what could not be removed, and why.
    """
    keep = {out / name for name in _FOLDERS}
    folders = {parent for path in paths for parent in _above(path, keep)}
    stuck: dict[Path, str] = {}
    for path in paths:
        with _noted(path, stuck):
            path.unlink(missing_ok=True)
    stuck_files = len(stuck)
    for folder in sorted(folders, reverse=True):  # inner ones first
        with _noted(folder, stuck):
            if not os.listdir(folder):  # noqa: PTH208 - no list of paths is needed
                folder.rmdir()
    if stuck:
        what = inflected("{} [file|files]", stuck_files)
        what += inflected(" and {} [folder|folders]", len(stuck) - stuck_files) if len(stuck) > stuck_files else ""
        raise UserError(
            f"removed {len(paths) - stuck_files} of {inflected('{} [file|files]', len(paths))} from {out}; "
            f"{what} could not be removed:\n  "
            + listed([f"{path}: {reason}" for path, reason in stuck.items()], "\n  ")
            + "\nMend that (mostly permissions), then run the same command again; dry_run=true lists what is left."
        )


@contextlib.contextmanager
def _noted(path: Path, stuck: dict[Path, str]) -> Iterator[None]:
    """Note why the operating system refuses to delete `path`, in a block that does so."""
    try:
        yield
    except OSError as error:
        stuck[path] = error.strerror or str(error)


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
    hint = "; without dry_run=true they are deleted" if dry_run else ""
    return [*lines, f"to remove from {out}: {_amount(outcome)}{hint}"]


def _amount(outcome: Mapping[str, Any]) -> str:
    items = inflected("{} [item|items] without recording", outcome["items"])
    files = inflected("{} [file|files]", outcome["files"])
    return f"{items}, {files}, {estimate.spell_size(outcome['bytes'])}"
