"""Small folders of token files and sidecars, as voxlab and as EncHF_Dataset write them, for the tests of the audit."""

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, unstack
from voxlab.sidecars import schema
from voxlab.sidecars.schema import Sidecar

IDS = ("a", "b_pitch_64.00_amp_.75", "deep/c", "deep/er/d")
NAMES = ("pitch", "gain")
HOP = 320


def info(codebooks: int = 4) -> CodecInfo:
    return CodecInfo("encodec", 24000, 1, HOP, codebooks, 1024, (1,) * codebooks, "random:0")


def write_codes(path: Path, frames: int, seed: int = 0, *, container: str = "ecdc", codebooks: int = 4) -> str:
    """Write random codes; returns the SHA-256 of the file."""
    books = np.random.default_rng(seed).integers(0, 1024, (1, min(codebooks, 32), frames))
    codes = unstack(torch.from_numpy(books), torch.tensor([frames]), torch.tensor([frames * HOP - 7]))
    container = container if codebooks in (2, 4, 8) else "safetensors"
    return token_files.write_tokens(path, codes, info(codebooks), container)


def make_values(frames: int, seed: int = 0, dtype: str = "float16") -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([60 + 10 * rng.random(frames), np.linspace(-1, 1, frames)], axis=1).astype(dtype)


def write_sidecar(npy: Path, values: np.ndarray, sha256: str | None, **changes: Any) -> None:
    """Write a sidecar as the stage does."""
    names = changes.pop("names", NAMES)
    sidecar = Sidecar(values, names, ("",) * len(names), 75.0, tokens_sha256=sha256)
    npy.parent.mkdir(parents=True, exist_ok=True)
    schema.write(npy, json_of(npy), sidecar)
    if changes:
        change_json(npy, **changes)


def json_of(npy: Path) -> Path:
    return npy.with_name(npy.name.removesuffix(".npy") + ".json")


def change_json(npy: Path, **changes: Any) -> None:
    """Replace keys of the JSON; None removes them."""
    meta = json.loads(json_of(npy).read_text()) | changes
    json_of(npy).write_text(json.dumps({key: value for key, value in meta.items() if value is not None}))


def write_tree(root: Path, *, cond: Path | None = None, container: str = "ecdc") -> Path:
    """Write the token files and sidecars of `IDS`, of 30, 31, 32 and 33 frames."""
    suffix = ".safetensors" if container == "safetensors" else ".ecdc"
    for number, name in enumerate(IDS):
        sha256 = write_codes(root / f"{name}{suffix}", 30 + number, number, container=container)
        write_sidecar((cond or root) / f"{name}.cond.npy", make_values(30 + number, number), sha256)
    return root


def write_foreign_tree(root: Path, *, version: int = 1) -> Path:
    """Write what EncHF_Dataset leaves: torch-saved codes, JSON without our keys, statistics of unrounded float32."""
    for number, name in enumerate(IDS):
        frames = 30 + number
        codes = torch.randint(0, 1024, (1, 1, 8, frames), generator=torch.Generator().manual_seed(number))
        path = root / f"{name}.ecdc"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"audio_codes": codes, "audio_scales": [None], "audio_length": frames * HOP}, path)
        values = make_values(frames, number, "float32")
        np.save(root / f"{name}.cond.npy", values.astype(np.float16))
        stats = {key: [float(getattr(column, key)()) for column in values.T] for key in ("min", "max", "mean", "std")}
        meta: dict[str, Any] = {"schema_version": version, "fps": 75, "source_rate": 75}
        if version == 1:
            meta |= {"names": list(NAMES), "norm": stats}
        else:
            declared = [{"min": 0.0, "max": 127.0}, {"min": -1.0, "max": 1.0}]
            described = {"mean": 0.5, "std": 0.1, "units": "", "doc_string": ""}
            meta["features"] = {name: entry | described for name, entry in zip(NAMES, declared, strict=True)}
        (root / f"{name}.cond.json").write_text(json.dumps(meta))
    return root


def write_manifest(path: Path, tokens: Path, **changes: Any) -> Path:
    """Write the manifest.csv of `write_tree`; `changes` override the values of its first row."""
    columns = ("rel_ecdc", "rel_cond", "frames", "D", "fps", "codebooks")
    prefix = "" if path.parent == tokens else f"{tokens.name}/"
    rows = [
        dict(zip(columns, (f"{prefix}{name}.ecdc", f"{prefix}{name}.cond.npy", 30 + n, 2, 75, 4), strict=True))
        for n, name in enumerate(IDS)
    ]
    rows[0] |= changes
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
