"""Text layouts of hierarchical codes: the mini-omni form of SNAC tokens ("# " and 7 ids per group) and its inverse.

A group is a depth-first walk of a binary tree: coarse, then each half with its own halves. Used by convert.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

CODEBOOK_SIZE = 4096  # ids from here on are special tokens in mini-omni (end, pad, ...), never audio
LAYOUTS = ("mini_omni", "legacy_breadth_first")
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
Levels = list[NDArray[np.int64]]


class LayoutError(ValueError):
    """A token text that cannot be read; `code` is a stable reason such as "bad_group:6@3"."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class Parsed:
    """Codes read from a text: one int64 array per level, coarse first, of G, 2 G, 4 G (and 8 G) codes, and notes."""

    levels: Levels
    notes: list[str] = field(default_factory=list)


@cache
def group_order(num_levels: int, layout: str = "mini_omni") -> tuple[tuple[int, int], ...]:
    """Return (level, offset within the group) of each position after the "#".

    Args:
        num_levels: 3 for 7 positions (SNAC 24 kHz), 4 for 15.
        layout: "mini_omni" (depth first), or "legacy_breadth_first", the order that a known conversion script assumed
            by mistake: only to reproduce its results.

    Raises:
        ValueError: unknown layout or number of levels.
    """
    if layout not in LAYOUTS or num_levels not in (3, 4):
        raise ValueError(f"layout {layout!r} with {num_levels} levels; allowed: {', '.join(LAYOUTS)} with 3 or 4")
    if layout == "legacy_breadth_first":
        return tuple((level, offset) for level in range(num_levels) for offset in range(2**level))
    return tuple(_walk_tree(0, 0, num_levels))


def _walk_tree(level: int, offset: int, num_levels: int) -> list[tuple[int, int]]:
    if level == num_levels:
        return []
    halves = [_walk_tree(level + 1, 2 * offset + half, num_levels) for half in range(2)]
    return [(level, offset), *halves[0], *halves[1]]


def parse_tokens(
    text: str | None, layout: str = "mini_omni", *, num_levels: int = 3, partial_tail: str = "error"
) -> Parsed:
    """Read a token text such as "# 12 4001 7 8 9 10 11 # ..." with any white space.

    Trailing groups with special ids (4096 and up) are stripped, with the note "stripped_special:<groups>".

    Args:
        text: the cell of a corpus; None for a null cell.
        layout: order of the codes within a group, see `group_order`.
        num_levels: 3 for groups of 7, 4 for groups of 15.
        partial_tail: "error", or "drop" to leave out a last group that is too short, with a note.

    Raises:
        LayoutError: the text is null, empty or malformed; `code` gives the reason and the group, counted from 0.
        ValueError: an unknown option.
    """
    order = group_order(num_levels, layout)
    if partial_tail not in ("error", "drop"):
        raise ValueError(f"partial_tail={partial_tail!r}; allowed: error, drop")
    if text is None:
        raise LayoutError("null_tokens", "the cell is null")
    tokens = text.split()
    # Python's int() also takes "1_0" and foreign digits; such texts go to the strict reader.
    rows = _read_fast(tokens, len(order)) if text.isascii() and "_" not in text else None
    notes: list[str] = []
    if rows is None:
        rows = _read_slowly(tokens, len(order), partial_tail, notes)
    return Parsed(_split_levels(_strip_special(rows, notes), order), notes)


def _read_fast(tokens: list[str], width: int) -> NDArray[np.int64] | None:
    """Return (G, width) ids in one conversion, or None where the slow reader has to find out what is wrong."""
    if not tokens or len(tokens) % (width + 1):
        return None
    marks = tokens[:: width + 1]
    if marks.count("#") != len(marks) or tokens.count("#") != len(marks):
        return None
    del tokens[:: width + 1]
    try:
        return np.array(tokens, dtype=np.int64).reshape(-1, width)
    except (ValueError, OverflowError):
        for group in reversed(range(len(marks))):
            tokens.insert(group * width, "#")
        return None


def _read_slowly(tokens: Sequence[str], width: int, partial_tail: str, notes: list[str]) -> NDArray[np.int64]:
    """Read group by group and raise for the first fault in reading order."""
    groups = _cut_groups(tokens)
    ids: list[list[int]] = []
    for number, group in enumerate(groups):
        for token in group:
            if not _INTEGER.fullmatch(token):
                raise LayoutError(f"non_integer:{token}@{number}", f"{token!r} in group {number} is no integer")
        if len(group) == width:
            ids.append([int(token) for token in group])
        elif number + 1 < len(groups) or len(group) > width:
            raise LayoutError(f"bad_group:{len(group)}@{number}", f"group {number} has {len(group)} ids, not {width}")
        elif partial_tail == "error" or not ids:
            raise LayoutError(f"partial_tail:{len(group)}", f"the last group has {len(group)} ids, not {width}")
        else:
            notes.append(f"partial_tail:{len(group)}")
    return np.array(ids, dtype=np.int64)


def _cut_groups(tokens: Sequence[str]) -> list[list[str]]:
    if not tokens:
        raise LayoutError("empty_tokens", "the cell holds nothing but white space")
    if "#" not in tokens:
        raise LayoutError("no_hash", f"no '#' among {len(tokens)} tokens")
    if tokens[0] != "#":
        raise LayoutError("leading_garbage", f"{tokens[0]!r} stands before the first '#'")
    groups: list[list[str]] = []
    for token in tokens:
        if token == "#":
            groups.append([])
        else:
            groups[-1].append(token)
    return groups


def _strip_special(rows: NDArray[np.int64], notes: list[str]) -> NDArray[np.int64]:
    """Drop trailing groups that contain special ids; raise for any other id outside the codebook."""
    outside = (rows < 0) | (rows >= CODEBOOK_SIZE)
    if not outside.any():
        return rows
    special = np.any(rows >= CODEBOOK_SIZE, axis=1)
    kept = len(rows)
    while kept and special[kept - 1]:
        kept -= 1
    bad = np.argwhere(outside[: kept or None])
    if len(bad):
        group, position = bad[0].tolist()
        code = int(rows[group, position])
        message = f"id {code} in group {group}; audio ids are 0 to {CODEBOOK_SIZE - 1}"
        raise LayoutError(f"out_of_range:{code}@{group}", message)
    notes.append(f"stripped_special:{len(rows) - kept}")
    return rows[:kept]


def _split_levels(rows: NDArray[np.int64], order: Sequence[tuple[int, int]]) -> Levels:
    num_levels = order[-1][0] + 1
    columns = [
        [order.index((level, offset)) for offset in range(2**level)] for level in range(num_levels)
    ]  # positions of each level, in time order
    return [rows[:, positions].reshape(-1) for positions in columns]


def format_tokens(levels: Sequence[NDArray[np.integer]], layout: str = "mini_omni") -> str:
    """Write codes as token text, the inverse of `parse_tokens`.

    Args:
        levels: 3 or 4 arrays of G, 2 G, 4 G (and 8 G) codes, coarse first.
        layout: see `group_order`.

    Raises:
        ValueError: the lengths are not in the ratio 1:2:4(:8).
    """
    order = group_order(len(levels), layout)
    groups = len(levels[0])
    if any(len(codes) != groups * 2**level for level, codes in enumerate(levels)):
        raise ValueError(f"levels of {[len(codes) for codes in levels]} codes; needed is the ratio 1:2:4(:8)")
    by_group = [np.asarray(codes).reshape(groups, 2**level).tolist() for level, codes in enumerate(levels)]
    lines = [[str(by_group[level][group][offset]) for level, offset in order] for group in range(groups)]
    return " ".join(f"# {' '.join(line)}" for line in lines)
