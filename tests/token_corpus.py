"""An output folder of `task=extract` as the stages encode and sidecars leave it, with random codes: no model needed."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, Codes, unstack
from voxlab.data.items import AudioItem
from voxlab.ledger import Ledger, stats
from voxlab.parallel import Ranks
from voxlab.sidecars import schema
from voxlab.sidecars.schema import Sidecar
from voxlab.tasks.extract.stage import Stage

ENCODEC = CodecInfo("encodec", 24000, 1, 320, 4, 1024, (1,) * 4, "random:0")
MIMI = CodecInfo("mimi", 24000, 1, 1920, 8, 2048, (1,) * 8, "random:0")
SNAC = CodecInfo("snac", 24000, 1, 512, 3, 4096, (4, 2, 1), "random:0")


class TokenCorpus:
    """Grows item by item; `stage()` is what `build` takes, `codes` and `values` hold what was written."""

    def __init__(self, out: Path, info: CodecInfo = ENCODEC, container: str = "auto") -> None:
        self.out, self.info, self.container = out, info, container
        self.items: dict[str, AudioItem] = {}
        self.codes: dict[str, Codes] = {}
        self.values: dict[str, np.ndarray] = {}
        out.mkdir(parents=True, exist_ok=True)

    def add(
        self, name, frames=20, columns=("pitch", "gain"), split="train", dtype="float16", **metadata
    ) -> "TokenCorpus":
        """Write the token file of an item and, unless `columns` is None, its sidecar, with their ledger records."""
        self.items[name] = AudioItem(name, Path(f"{name}.wav"), split, "1:1", metadata)
        record = self.add_tokens(name, frames)
        if columns is not None:
            self.add_sidecar(name, frames, columns, dtype, record["sha256"])
        return self

    def add_tokens(self, name, frames):
        codes = random_codes(self.info, frames, name)
        path = self.path(name, token_files.suffix(self.info, self.container))
        digest = token_files.write_tokens(path, codes, self.info, self.container)
        shape = {"frames": frames, "num_codebooks": self.info.num_codebooks, "num_samples": int(codes.num_samples[0])}
        record = {"input": "x", "settings": "y", "stat": stats([path]), "sha256": digest, **shape}
        self.codes[name] = codes
        self._record("encode", name, record)
        return record

    def add_sidecar(self, name, frames, columns, dtype, tokens):
        values = np.random.default_rng(_seed(name)).normal(3.0, 2.0, (frames, len(columns))).astype(dtype)
        npy, json = self.path(name, ".cond.npy"), self.path(name, ".cond.json")
        units = tuple("Hz" if column == "pitch" else "" for column in columns)
        schema.write(npy, json, Sidecar(values, tuple(columns), units, self.info.frame_rate, tokens_sha256=tokens))
        self.values[name] = values
        record = {"tokens": tokens, "settings": "z", "stat": stats([npy, json]), "frames": frames}
        self._record("sidecars", name, record | {"names": list(columns)})

    def fail(self, stage, name, split="train", **record):
        self.items.setdefault(name, AudioItem(name, Path(f"{name}.wav"), split, "1:1"))
        self._record(stage, name, {"settings": "y", "path": f"{name}.wav", "error": "bad_audio:unreadable", **record})

    def path(self, name, suffix):
        return self.out / "tokens" / f"{name}{suffix}"

    def stage(self, **changes):
        items = tuple(self.items[name] for name in sorted(self.items))
        return Stage(self.out, items, Ranks(), **changes)

    def _record(self, stage, name, record):
        ledger = Ledger(self.out, stage, Ranks())
        ledger.add(name, record)
        ledger.merge()


def random_codes(info: CodecInfo, frames: int, name: str) -> Codes:
    rng = np.random.default_rng(_seed(name))
    lengths, samples = torch.tensor([frames]), torch.tensor([frames * info.hop_length - 3])
    books = [torch.from_numpy(rng.integers(0, info.codebook_size, (1, frames // step))) for step in info.strides]
    if set(info.strides) == {1}:
        scales = torch.tensor([[0.5, 0.25]]) if info.has_scales else None
        return unstack(torch.stack(books, 1), lengths, samples, scales)
    return Codes(tuple(books), lengths, None, samples)


def _seed(name):
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
