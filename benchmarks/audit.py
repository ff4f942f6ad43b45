"""The audit of a folder of token files with sidecars, and its rerun with nothing changed.

Token files, sidecars and data set are those that `task=extract` writes.

.venv/bin/python benchmarks/audit.py --files 10000
"""

import argparse
import hashlib
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, unstack
from voxlab.parallel import Ranks
from voxlab.sidecars import schema
from voxlab.tasks.extract.audit import audit
from voxlab.tasks.extract.stage import DATASET, TOKENS, Stage

SPLIT = "train"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--mean-seconds", type=float, default=10.0)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--container", choices=["ecdc", "safetensors", "torch"], default="ecdc")
    options = parser.parse_args()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        rows = write_tree(out / TOKENS, options.files, options.mean_seconds, options.columns, options.container)
        write_dataset(out / DATASET, out / TOKENS, rows)
        seconds = sum(row["num_samples"] for row in rows) / 24_000
        size = f"{options.files} token files ({options.container}), {seconds / 3600:.1f} h, {options.columns} columns"
        print(f"{size}.\n\n| | s | files/s | errors |\n|---|---|---|---|")
        stage = Stage(out, (), Ranks())
        for name in ("audit", "again, nothing changed"):
            started = time.perf_counter()
            outcome = audit(stage)
            spent = time.perf_counter() - started
            print(f"| {name} | {spent:.2f} | {options.files / spent:.0f} | {outcome.facts['audit_errors']} |")


def write_tree(root: Path, files: int, mean_seconds: float, columns: int, container: str) -> list[dict[str, Any]]:
    """Write token files of a spread of lengths, with sidecars; returns what their rows in the data set say."""
    rng = np.random.default_rng(0)
    info = CodecInfo("encodec", 24_000, 1, 320, 8, 1024, (1,) * 8, "random:0")
    suffix = token_files.suffix(info, container)
    names = tuple(f"column{index}" for index in range(columns))
    rows = []
    for number, spread in enumerate(rng.uniform(0.4, 1.6, files)):
        stem = f"{number % 100:02}/take_{number:06}"
        frames = max(1, round(spread * mean_seconds * 75))
        codes = unstack(
            torch.from_numpy(rng.integers(0, 1024, (1, 8, frames))),
            torch.tensor([frames]),
            torch.tensor([frames * 320]),
        )
        data = token_files.spell_tokens(codes, info, container)
        path = root / f"{stem}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        values = rng.random((frames, columns)).astype(np.float16)
        npy, json_path = schema.paths_beside(path)
        np.save(npy, values)
        sha256 = hashlib.sha256(data).hexdigest()
        sidecar = replace(schema.skeleton(frames, 75.0, "float16", sha256), values=values, names=names, units=names)
        described = schema.describe(sidecar, hashlib.sha256(npy.read_bytes()).hexdigest())
        json_path.write_text(json.dumps(described, indent=2))
        rows.append(
            {
                "id": stem,
                "audio": f"tokens/{stem}{suffix}",
                "frames": frames,
                "num_codebooks": 8,
                "num_samples": frames * 320,
                "sample_rate": 24_000,
                "cond": f"tokens/{stem}.cond.npy",
            }
        )
    return rows


def write_dataset(dataset: Path, tokens: Path, rows: list[dict[str, Any]]) -> None:
    """Write a data set with hard links to all files, without the package's seconds of import."""
    import pyarrow as pa

    (dataset / SPLIT).mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(dataset / SPLIT / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
    (dataset / SPLIT / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (dataset / "dataset_dict.json").write_text(json.dumps({"splits": [SPLIT]}))
    shutil.copytree(tokens, dataset / "tokens", copy_function=lambda source, target: Path(target).hardlink_to(source))


if __name__ == "__main__":
    main()
