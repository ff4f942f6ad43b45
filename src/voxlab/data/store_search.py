"""Stores of features by what they hold: those that there are, what of their settings differs, how one is made.

`feature_store` opens the one that is found.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab.storage import MANIFEST, differences, flatten, read_manifest

_SHOWN_FOLDERS = 3
_USUAL = "moshi"  # features that a command names where none are chosen


def command(out: Path, settings: Mapping[str, Any], extraction: str | None = None) -> str:
    """Return the command that extracts features to `out`.

    Args:
        out: folder of the stores.
        settings: "features" and "data" of a store, any part of them.
        extraction: words that choose corpus and features; None: their names in the settings, a sample as one.
    """
    data, name = settings.get("data", {}), settings.get("features", {}).get("name", _USUAL)
    corpus = str(data.get("corpus", "<corpus>")).lower() + (" data.source=sample" if data.get("sample") else "")
    words = extraction or f"data={corpus}"
    words += "" if "features=" in words else f" features={name}"
    return f"python main.py task=extract {words} out={shlex.quote(str(out).replace('*', name))}"


def as_stored(features: Mapping[str, Any] | None, data: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the settings asked for as a manifest has them."""
    return json.loads(json.dumps({"features": dict(features or {}), "data": dict(data or {})}))


def find(root: Path) -> dict[Path, dict[str, Any]]:
    """Return folder -> manifest of the stores of features there are."""
    roots = sorted(root.parent.glob(root.name)) if "*" in root.name else [root]
    found = {folder: read_manifest(folder) for each in roots for folder in _folders(each)}
    return {folder: manifest for folder, manifest in found.items() if manifest and "features" in manifest["settings"]}


def _folders(root: Path) -> list[Path]:
    if (root / MANIFEST).is_file():
        return [root]
    return sorted(path.parent for path in root.glob(f"*/{MANIFEST}"))


def differing(settings: Mapping[str, Any], wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List `key: stored -> wanted` for each wanted value that the store does not have."""
    flat = flatten(wanted)
    stored = {key: value for key, value in flatten(settings).items() if key in flat}
    return differences(stored, flat)


def explain(
    root: Path,
    found: Mapping[Path, Mapping[str, Any]],
    changes: Mapping[Path, Sequence[str]],
    fitting: Sequence[Path],
    wanted: Mapping[str, Mapping[str, Any]],
    extraction: str | None,
    key: str,
) -> str:
    """Say why not exactly one store fits, and what to type next.

    Args:
        root: where it was searched.
        found: folder -> manifest.
        changes: folder -> what of its settings is not as wanted.
        fitting: folders without changes: none or several.
        wanted: settings.
        extraction: words that choose corpus and features.
        key: of the configuration that holds `root`.
    """
    if fitting:
        first, *others = fitting
        by_name = "features=NAME or " if "*" in root.name else ""
        lines = [f"{len(fitting)} stores in {root} fit; choose one with {by_name}{key}=DIR:", f"  {first}"]
        for folder in others:
            changed = differences(found[first]["settings"], found[folder]["settings"])
            names = [line for line in changed if line.startswith("features.name: ")]
            lines += [f"  {folder}", *(f"    {line}" for line in names or changed)]
        return "\n".join(lines)
    lines = [f"{root} holds no features with these settings (stored -> wanted):"]
    for folder, changed in list(changes.items())[:_SHOWN_FOLDERS]:
        lines += [f"  {folder}:", *(f"    {line}" for line in changed)]
    stored = next(iter(found.values()))["settings"]
    given = {part: {**stored[part], **wanted[part]} for part in ("data", "features")}
    out = root.parent if root in found else root
    return "\n".join([*lines, "Change them back, or extract with them:", f"  {command(out, given, extraction)}"])
