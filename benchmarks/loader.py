"""Training windows a second: voxlab's TokenDataset against a plain Dataset that opens two files an item.

The plain one does `torch.load` of a token file as EncHF_Dataset writes it and `np.load` of the sidecar, then crops. All
run in one process, single-threaded, on the same recordings, in turns; the best of some rounds counts.

.venv/bin/python benchmarks/loader.py --files 500
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, unstack
from voxlab.data.items import AudioItem
from voxlab.data.tokens import TokenDataset, collate
from voxlab.ledger import Ledger, stats
from voxlab.parallel import Ranks
from voxlab.sidecars import schema
from voxlab.sidecars.schema import Sidecar
from voxlab.tasks.extract.build import build
from voxlab.tasks.extract.stage import TOKENS, Stage

COLUMNS = ("pitch", "gain", "rms_db", "position")
STORES = {"files (.ecdc)": ("ecdc", False), "files (torch)": ("torch", False), "inline columns": ("ecdc", True)}


class PlainDataset(Dataset[dict[str, Any]]):
    """One random window of each file, the obvious way."""

    def __init__(self, folder: Path, window: int) -> None:
        self.paths, self.window = sorted(folder.rglob("*.ecdc")), window

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        codes = torch.load(path, weights_only=True)["audio_codes"][0, 0]
        cond = np.load(path.with_name(path.name.replace(".ecdc", ".cond.npy")))
        start = int(torch.randint(0, codes.shape[1] - self.window + 1, ()))
        stop = start + self.window
        return {"codes": codes[:, start:stop], "cond": torch.from_numpy(cond[start:stop].astype(np.float32))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--window", type=int, default=225)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    info = CodecInfo("encodec", 24000, 1, 320, 8, 1024, (1,) * 8, "random:0")
    with tempfile.TemporaryDirectory() as folder:
        loaders: dict[str, DataLoader[Any]] = {}
        for name, (container, inline) in STORES.items():
            out = Path(folder) / name
            write_corpus(out, info, container, inline, options.files, round(options.seconds * info.frame_rate))
            dataset = TokenDataset(out / "dataset", window_frames=options.window, normalize="standard")
            loaders[name] = DataLoader(dataset, options.batch_size, shuffle=True, collate_fn=collate)
        plain = PlainDataset(Path(folder) / "files (torch)" / TOKENS, options.window)
        loaders = {"plain Dataset": DataLoader(plain, options.batch_size, shuffle=True)} | loaders
        best = dict.fromkeys(loaders, 0.0)
        for _ in range(options.rounds):
            for name, loader in loaders.items():
                best[name] = max(best[name], windows_per_second(loader))
    print(f"{options.files} files of {options.seconds:g} s, windows of {options.window} frames, no worker processes.\n")
    print("| | windows/s | vs. plain |\n|---|---|---|")
    for name, speed in best.items():
        print(f"| {name} | {speed:.0f} | {speed / best['plain Dataset']:.1f} |")


def write_corpus(out: Path, info: CodecInfo, container: str, inline: bool, files: int, frames: int) -> None:
    """Write random token files and sidecars as the stages encode and sidecars do, and build the data set."""
    rng, items = np.random.default_rng(0), []
    encoded, sidecars = Ledger(out, "encode", Ranks()), Ledger(out, "sidecars", Ranks())
    for index in range(files):
        name = f"take_{index:05d}"
        tokens, npy, json = (out / TOKENS / f"{name}{suffix}" for suffix in (".ecdc", ".cond.npy", ".cond.json"))
        codes = torch.from_numpy(rng.integers(0, info.codebook_size, (1, info.num_codebooks, frames)))
        samples = frames * info.hop_length
        digest = token_files.write_tokens(
            tokens, unstack(codes, torch.tensor([frames]), torch.tensor([samples])), info, container
        )
        values = rng.normal(size=(frames, len(COLUMNS))).astype(np.float16)
        schema.write(npy, json, Sidecar(values, COLUMNS, ("",) * len(COLUMNS), info.frame_rate, tokens_sha256=digest))
        shape = {"frames": frames, "num_codebooks": info.num_codebooks, "num_samples": samples}
        encoded.add(name, {"stat": stats([tokens]), "sha256": digest, **shape})
        sidecars.add(name, {"tokens": digest, "stat": stats([npy, json]), "frames": frames, "names": list(COLUMNS)})
        items.append(AudioItem(name, tokens, "train", "1:1"))
    stage = Stage(out, tuple(items), Ranks())
    build(stage, info=info, container=container, materialize="hardlink", inline=inline, push_to_hub=None)


def windows_per_second(loader: DataLoader[Any]) -> float:
    """Read the loader through, again for at least half a second."""
    windows, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < 0.5:
        windows += sum(len(batch["codes"]) for batch in loader)
    return windows / spent


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
