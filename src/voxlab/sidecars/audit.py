"""Audit of a folder tree of token files and sidecars: reads every file once and reports each fault once.

Works on any tree, also one that EncHF_Dataset made; `manifest.csv` and a built data set are compared where given.
"""

import difflib
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from voxlab.codecs.token_files import SUFFIXES
from voxlab.errors import UserError
from voxlab.sidecars.audit_checks import check_sidecar
from voxlab.sidecars.audit_files import Broken, read_codes
from voxlab.sidecars.audit_listings import check_listings
from voxlab.sidecars.audit_types import FAIL_ON, TYPES, Audit, AuditedFile, Expectation, Finding, Issue, Row, TokenFacts
from voxlab.sidecars.schema import DTYPES, META_SUFFIX, VALUES_SUFFIX

_GONE = "its recording is gone: stage=clean removes what it left"
_NO_RECORDING = ", and no recording (stage=clean removes it)"
_UNLISTED = "not listed: new since the last build, or its recording is gone (the recordings were not looked at)"
Stamp = tuple[str, int, int]  # path in its tree, size, time of change in ns


@dataclass
class Tree:
    """The files of a folder tree that an audit reads, by key: the path without suffix.

    Attributes:
        root: the folder.
        tokens: path of each token file -> its key.
        values: keys of sidecars' values.
        metas: keys of sidecars' JSON.
    """

    root: Path
    tokens: dict[str, str] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    metas: set[str] = field(default_factory=set)


def scan(root: Path) -> Tree:
    """Find the token files and sidecars below a folder, without opening any."""
    tree = Tree(root)
    for path, _ in _walk(root, ""):
        if path.endswith(VALUES_SUFFIX):
            tree.values.add(path.removesuffix(VALUES_SUFFIX))
        elif path.endswith(META_SUFFIX):
            tree.metas.add(path.removesuffix(META_SUFFIX))
        elif path.endswith(SUFFIXES):
            tree.tokens[path] = _key(path)
    return tree


def without_recording(tree: Tree, recordings: Collection[str]) -> dict[str, str]:
    """Return path -> key of the token files and sidecars of a tree that belong to none of the recordings.

    Args:
        tree: what there is.
        recordings: ids of all that there are.
    """
    files = {**tree.tokens}
    files |= {key + VALUES_SUFFIX: key for key in tree.values}
    known = {*tree.tokens.values(), *tree.values}
    files |= {key + META_SUFFIX: _owner(key, tree, known, recordings) for key in tree.metas}
    return {path: key for path, key in files.items() if key not in recordings}


def _owner(key: str, tree: Tree, known: Collection[str], recordings: Collection[str]) -> str:
    """Return the item of a sidecar's JSON: EncHF_Dataset's name for that of x is x.cond.cond.json.

    An item x.cond with files of its own has the same name for its JSON: what a recording x may need stays x's.
    """
    short = key.removesuffix(".cond")
    needed = short in recordings and short not in tree.metas
    return key if key in recordings or (key in known and not needed) else short


def list_files(root: Path) -> list[str]:
    """Return the paths of all files below a folder; hidden ones are left out, linked folders not entered.

    Raises:
        UserError: a folder can't be listed.
    """
    return [path for path, _ in _walk(root, "")]


def list_stamps(root: Path) -> list[Stamp]:
    """Return path, size and time of change of every file below a folder, sorted; -1 and 0 for broken links."""
    stamps = []
    for path, entry in _walk(root, ""):
        try:
            status = entry.stat()
            stamps.append((path, status.st_size, status.st_mtime_ns))
        except OSError:
            stamps.append((path, -1, 0))
    return sorted(stamps)


def _walk(folder: Path | str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files of a tree with their paths in it; hidden ones are left out, linked folders not entered."""
    if not os.path.isdir(folder):  # noqa: PTH112 - once for each of many folders
        return
    for entry in _list(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry


def _list(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(
            f"can't list {folder}: {error.strerror}. Run the command as the user who owns it, or mend its permissions."
        ) from error


def audit_tokens(
    tokens: Path,
    *,
    cond: Path | None = None,
    expect: Expectation | None = None,
    fail_on: Collection[str] | None = None,
    manifest: Path | None = None,
    dataset: Path | None = None,
    recordings: Collection[str] | None = None,
    advance: Callable[[float], None] | None = None,
) -> Audit:
    """Read every token file with its sidecar, and report everything that is wrong; broken files don't stop it.

    Args:
        tokens: folder of token files, in any depth.
        cond: folder of the sidecars, where they do not lie beside the token files.
        expect: what is required beyond agreement.
        fail_on: types of findings that are errors, all others are warnings; None: `FAIL_ON`, and wherever a file is not
            as `expect` asks.
        manifest: a manifest.csv that lists the token files, to be compared where it exists.
        dataset: a data set that was built from them, to be compared where it exists.
        recordings: ids of all that there are; token files of others are orphans. None: that is not known.
        advance: called after each file with its seconds of audio.

    Raises:
        UserError: there is no token file, or an argument is unknown.
    """
    expect = expect or Expectation()
    check_choices(expect, fail_on or ())
    tree = scan(tokens)
    sidecars = tree if cond is None else scan(cond)
    if not tree.tokens:
        raise UserError(
            f"{tokens} holds no token files (*{', *'.join(SUFFIXES)}), there is nothing to audit. "
            "Check the path, or run the stage encode first (stages=[encode,audit])."
        )
    required = bool(sidecars.values) if expect.require_sidecars is None else expect.require_sidecars
    files, issues, failing = list[AuditedFile](), list[Row](), set[Row]()
    for path in sorted(tree.tokens):
        file, found, asked = _audit_file(path, tree, sidecars, expect, required)
        files.append(file)
        issues += [(path, file.sidecar, *issue) for issue in (*found, *asked)]
        failing |= {(path, file.sidecar, *issue) for issue in asked if fail_on is None}
        if advance is not None:
            advance(0.0 if file.codes is None else file.codes.num_samples / file.codes.sample_rate)
    gone = set() if recordings is None else without_recording(tree, recordings).keys()
    issues += [(file.tokens, file.sidecar, "orphan_tokens", _GONE) for file in files if file.tokens in gone]
    owned = [file for file in files if file.tokens not in gone]
    issues += _check_mixture(owned)
    issues += _check_columns(owned, {path for path, _, kind, _ in issues if kind == "missing_features"})
    unlisted = _UNLISTED if recordings is None else "not listed"
    issues += check_listings(files, issues, tokens, manifest, dataset, unlisted=unlisted)
    left_over = set() if recordings is None else without_recording(sidecars, recordings).keys()
    issues += _find_orphans(tree, sidecars, {_key(path) for path, *_ in issues}, left_over)
    types = FAIL_ON if fail_on is None else fail_on
    findings = (Finding(*row, "error" if row[2] in types or row in failing else "warning") for row in issues)
    count = None if recordings is None else len(recordings)
    return Audit(tuple(files), tuple(sorted(findings)), count)


def check_choices(expect: Expectation, fail_on: Collection[str]) -> None:
    """Refuse what can't be meant.

    Raises:
        UserError: an unknown type of finding or of values, or a range that holds no value.
    """
    unknown = sorted(set(fail_on) - TYPES.keys())
    if unknown:
        near = sorted({match for name in unknown for match in difflib.get_close_matches(name, TYPES)})
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        allowed = textwrap.fill(", ".join(TYPES), 110, initial_indent="  ", subsequent_indent="  ")
        raise UserError(f"audit.fail_on=[{','.join(unknown)}]: no such types of findings.{meant} There are:\n{allowed}")
    if expect.dtype not in (None, *DTYPES):
        raise UserError(f"audit.dtype={expect.dtype}: choose {', '.join(DTYPES)} or null (either).")
    for name, (low, high) in expect.ranges.items():
        if low is not None and high is not None and not low <= high:
            raise UserError(f"audit.ranges: {name} from {low} to {high} holds no value; give [lowest, highest].")


def _audit_file(
    path: str, tree: Tree, sidecars: Tree, expect: Expectation, required: bool
) -> tuple[AuditedFile, list[Issue], list[Issue]]:
    """Audit one token file with its sidecar; an error of the audit's own becomes a finding too."""
    key, codes, values, issues, asked = tree.tokens[path], None, None, list[Issue](), list[Issue]()
    sidecar = key + VALUES_SUFFIX
    try:
        codes, issues = read_codes(tree.root / path, expect)
    except Broken as error:
        issues.append(("bad_ecdc", str(error)))
    try:
        if key in sidecars.values:
            json_path = sidecars.root / (key + META_SUFFIX) if key in sidecars.metas else None
            values, found, asked = check_sidecar(sidecars.root / sidecar, json_path, codes, expect)
            issues += found
        elif required or key in sidecars.metas:
            hint = f"; {key}{META_SUFFIX} is there without it" if key in sidecars.metas else ""
            issues.append(("missing_sidecar", f"there is no {key}{VALUES_SUFFIX}{hint}"))
    except Exception as error:  # a file that could not be checked must not pass, nor stop the others
        issues.append(("auditor_error", f"{type(error).__name__}: {error}"))
    return AuditedFile(path, sidecar, key in sidecars.values, codes, values), issues, asked


def _check_mixture(files: Collection[AuditedFile]) -> Iterator[Row]:
    """Report the files whose codes are of another kind than those of most, which are taken for the right ones."""
    kinds = [(file, _kind(file.codes)) for file in files if file.codes is not None]
    if len({kind for _, kind in kinds}) > 1:
        usual, _ = Counter(kind for _, kind in kinds).most_common(1)[0]
        for file, kind in kinds:
            if kind != usual:
                yield file.tokens, file.sidecar, "mixed_codecs", f"{kind}; most files: {usual}"


def mixed_columns(found: Audit) -> list[str]:
    """Return the columns that those sidecars have or lack which the audit finds to have others than most, sorted."""
    kinds: dict[str, set[str]] = {}
    for entry in found.findings:
        kinds.setdefault(entry.tokens, set()).add(entry.type)
    named = _named([file for file in found.files if "orphan_tokens" not in kinds.get(file.tokens, ())])
    odd = [names for file, names in named if "mixed_columns" in kinds.get(file.tokens, ())]
    usual = Counter(names for _, names in named).most_common(1)[0][0] if odd else frozenset[str]()
    return sorted(frozenset[str]().union(*(names ^ usual for names in odd)))


def _named(files: Collection[AuditedFile]) -> list[tuple[AuditedFile, frozenset[str]]]:
    """Return the files that name their columns, with these."""
    return [(file, frozenset(file.values.names)) for file in files if file.values and file.values.names is not None]


def _check_columns(files: Collection[AuditedFile], told: Collection[str]) -> Iterator[Row]:
    """Report the sidecars with other columns than most; those in `told` lack one that was asked for."""
    named = _named(files)
    if len({names for _, names in named}) > 1:
        usual, _ = Counter(names for _, names in named).most_common(1)[0]
        for file, names in named:
            if names != usual and file.tokens not in told:
                parts = {"without": usual - names, "with": names - usual}
                odd = " and ".join(f"{word} {', '.join(sorted(part))}" for word, part in parts.items() if part)
                yield file.tokens, file.sidecar, "mixed_columns", f"{odd}, unlike most"


def _kind(codes: TokenFacts) -> str:
    books = f"{codes.num_codebooks} codebooks of {codes.codebook_size}"
    weights = f", weights {codes.weights_id}" if codes.weights_id else ""
    return f"{codes.codec} at {codes.sample_rate} Hz, {books}{weights}"


def _find_orphans(tree: Tree, sidecars: Tree, told: Collection[str], left_over: Collection[str]) -> Iterator[Row]:
    """Report sidecars without token file, unless the token file itself is reported as missing.

    Those in `left_over` have no recording either.
    """
    known = set(tree.tokens.values())
    for key in sorted((sidecars.values | sidecars.metas) - known - set(told)):
        # EncHF_Dataset's name for the JSON of x is x.cond.cond.json: told where that of x is missing
        owner = key.removesuffix(".cond")
        if key in sidecars.values or owner not in known or owner in sidecars.metas:
            suffix = VALUES_SUFFIX if key in sidecars.values else META_SUFFIX
            gone = _NO_RECORDING if key + suffix in left_over else ""
            yield "", key + suffix, "orphan_sidecar", f"there is no token file of this name{gone}"


def _key(path: str) -> str:
    return path[: path.rindex(".")] if "." in path else path
