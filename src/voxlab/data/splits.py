"""Which recording belongs to which split: by folder, by lists of names, or by a seeded fraction of groups."""

import hashlib
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

from voxlab.data.names import finder, inflected, listed
from voxlab.errors import UserError

ALIASES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
# "all" means every split in `datasets`; the others lie beside the splits of a data set that `task=extract` builds.
RESERVED = ("all", "tokens", "README.md", "cond_stats.json", "codec.json", "dataset_dict.json")
_HASH_RANGE = 2**64


def check_name(name: str) -> str:
    """Return `name` if a built data set can have a split of this name.

    Raises:
        UserError: it can't.
    """
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise UserError(
            f"split {name!r}: a name holds letters, digits and _ (dots between them), and is none of "
            f"{', '.join(RESERVED)}."
        )
    return name


def by_folder(files: Mapping[str, str]) -> dict[str, str]:
    """Name splits after the first folder: train, valid, validation, val, dev and test are known, others stay.

    Args:
        files: relative path -> id.

    Returns:
        id -> split.

    Raises:
        UserError: files outside all folders, or two folders that become one split.
    """
    outside = [name for name in files if "/" not in name]
    if outside:
        raise UserError(
            f"data.splits=folder: {inflected('{} [file lies|files lie] in no folder', len(outside))} that could name a "
            f"split: {listed(outside)}.\nMove them into one, or use data.splits=none, list or fraction."
        )
    folders = sorted({name.partition("/")[0] for name in files})
    names = {folder: check_name(ALIASES.get(folder.lower()) or _valid(folder)) for folder in folders}
    for split in sorted(set(names.values())):
        same = [folder for folder in folders if names[folder] == split]
        if len(same) > 1:
            raise UserError(
                f"data.splits=folder: the folders {', '.join(same)} would all be the split {split}. Rename or join "
                "them, or use data.splits=list."
            )
    return {item_id: names[name.partition("/")[0]] for name, item_id in files.items()}


def _valid(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]", "_", folder)


def by_list(files: Mapping[str, str], lists: Mapping[str, Path]) -> dict[str, str]:
    """Read splits from text files with a relative path (with or without suffix) a line; empty lines are left out.

    Args:
        files: relative path -> id.
        lists: split -> text file.

    Returns:
        id -> split.

    Raises:
        UserError: names every absent list, line that names no file, file in two lists and file in none, at once.
    """
    find = finder(files)
    found: dict[str, set[str]] = {}
    problems: list[str] = []
    for split, path in lists.items():
        check_name(split)
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{split}: can't read {path}: {getattr(error, 'strerror', None) or error}")
            continue
        for number, line in enumerate(lines, 1):
            item_id = find(line)
            if item_id is not None:
                found.setdefault(item_id, set()).add(split)
            elif line.strip():
                problems.append(f"{path}, line {number}: no file {line.strip()}")
    problems += [f"{item_id}: in {' and '.join(sorted(of))}" for item_id, of in found.items() if len(of) > 1]
    without = [f"{item_id}: in no list" for item_id in files.values() if item_id not in found]
    problems += without
    if problems:
        todo = (
            "\nWrite each recording that is in no list into one, or leave it out with data.pattern=..."
            if without
            else ""
        )
        total = inflected("{} [problem|problems]", len(problems))
        raise UserError(f"data.splits=list: {total}:\n  " + listed(problems, "\n  ") + todo)
    return {item_id: next(iter(of)) for item_id, of in found.items()}


def by_fraction(groups: Mapping[str, str], fractions: Mapping[str, float], seed: int) -> dict[str, str]:
    """Deal groups out to splits by a hash: what falls to a group depends on its name, the fractions and the seed alone.

    So files that are added later move none of the others. A small corpus meets the fractions only roughly.

    Args:
        groups: id -> group.
        fractions: split -> share of the groups, more than 0, together 1.
        seed: another number deals anew.

    Returns:
        id -> split.

    Raises:
        UserError: the fractions are impossible.
    """
    names = [check_name(name) for name in sorted(fractions)]
    shares = [_share(fractions[name]) for name in names]
    if not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"data.split_fractions={dict(fractions)}: give shares of more than 0 that sum to 1, for example "
            "'{train: 0.9, validation: 0.1}'."
        )
    bounds = [math.ceil(sum(shares[: n + 1]) * _HASH_RANGE) for n in range(len(names) - 1)]
    return {item_id: names[sum(_place(group, seed) >= bound for bound in bounds)] for item_id, group in groups.items()}


def _share(value: float) -> Fraction:
    """Take the decimal number that was typed, not its binary neighbour: 0.7 + 0.2 + 0.1 is 1."""
    try:
        return Fraction(str(value))
    except ValueError:
        return Fraction(0)


def _place(group: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}|{group}".encode()).digest()[:8], "big")
