"""Training of a tokenizer: steps a second against an eager loop of the same model, and the reading of its segments.

The eager loop is what a notebook does: forward, loss, backward, clip, AdamW, on batches that are in memory already.
The reader is measured against a plain Dataset that decodes whole files and crops. All on one thread, in turns; the
best round counts.

.venv/bin/python benchmarks/train_tokenizer.py --steps 40
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml
from torch.utils.data import DataLoader, Dataset

from voxlab import audio
from voxlab.codecs.rvq import Rvq
from voxlab.data.audiofolder import AudioFolder
from voxlab.losses.spectral import mel_losses
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.parallel import Ranks
from voxlab.tasks.history import read_history
from voxlab.tasks.optim import AdamWCosine
from voxlab.tasks.train_tokenizer.data import TokenizerData
from voxlab.tasks.train_tokenizer.settings import fit_settings
from voxlab.tasks.train_tokenizer.task import train_tokenizer

ROOT = Path(__file__).resolve().parents[1]
LOSS = yaml.safe_load((ROOT / "conf" / "loss" / "tokenizer.yaml").read_text())


class PlainDataset(Dataset[dict[str, Any]]):
    """A random crop of a file, the obvious way: decode all of it, resample, cut."""

    def __init__(self, folder: Path, sample_rate: int, num_samples: int, length: int) -> None:
        self.paths, self.sample_rate, self.num_samples = sorted(folder.rglob("*.flac")), sample_rate, num_samples
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        samples, rate = soundfile.read(self.paths[index % len(self.paths)], dtype="float32", always_2d=True)
        wav = audio.resample(torch.from_numpy(samples.T.copy()), rate, self.sample_rate)
        start = int(torch.randint(0, max(1, wav.shape[-1] - self.num_samples), ()))
        wav = wav[:, start : start + self.num_samples]
        length = wav.shape[-1]
        return {"wav": torch.nn.functional.pad(wav, (0, self.num_samples - length)), "lengths": length, "id": index}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--codebook-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quantizer = QuantizerSettings(codebook_size=options.codebook_size)
    architecture = MelArchitecture(hidden=options.hidden, quantizer=quantizer)
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_corpus(Path(folder) / "audio", options.files)
        values = {"batch_size": options.batch_size, "segment_seconds": options.seconds, "warmup_steps": 0}
        values |= {"val_split": None, "audio_every": 0, "save_every": 10**9, "loudness": None}
        rounds = range(options.rounds)
        ours = max(framework_steps(architecture, corpus, values, options.steps, Path(folder) / f"{n}") for n in rounds)
        eager = max(eager_steps(architecture, corpus, values, options.steps) for _ in rounds)
        readers = read_speeds(architecture, corpus, values, options.steps)
    audio_seconds = options.batch_size * options.seconds
    shape = f"Hidden {options.hidden}, 8 codebooks of {options.codebook_size}"
    print(f"{shape}, batches of {options.batch_size} x {options.seconds:g} s.\n")
    print("| | steps/s | audio s/s | vs. eager |\n|---|---|---|---|")
    for name, speed in {"eager loop, no reading": eager, "task=train_tokenizer": ours}.items():
        print(f"| {name} | {speed:.2f} | {speed * audio_seconds:.0f} | {speed / eager:.2f} |")
    print("\n| reading, one process | audio hours/s | vs. plain |\n|---|---|---|")
    for name, speed in readers.items():
        print(f"| {name} | {speed / 3600:.3f} | {speed / readers['plain Dataset']:.1f} |")


def write_corpus(folder: Path, files: int) -> AudioFolder:
    """Write noise bursts of 5 to 25 s as 16 kHz FLAC, as long as utterances of LibriSpeech."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(files):
        length = int(generator.uniform(5, 25) * 16000)
        wav = generator.normal(size=length) * 0.1 * np.sin(np.arange(length) / 4000) ** 2
        soundfile.write(folder / f"{number:04d}.flac", wav, 16000)
    return AudioFolder(root=str(folder))


def framework_steps(
    architecture: MelArchitecture, corpus: AudioFolder, values: dict[str, Any], steps: int, run_dir: Path
) -> float:
    """Return steps a second of the task, between its log lines: start and end do not count."""
    from lightning import Trainer

    run_dir.mkdir()
    every = max(1, steps // 4)
    settings = {"max_steps": 4 * every, "log_every_n_steps": every, "enable_progress_bar": False}
    train_tokenizer(
        corpus=corpus,
        codec=Rvq(weights=None, architecture=architecture, vocoder=GriffinLim()),
        loss=LOSS,
        optim=AdamWCosine(),
        trainer=partial(Trainer, **settings),
        fit={**values, "num_workers": 1},
        **{"part": None, "stage": "fit", "test": {}, "audio": None, "out": None, "max_bad_fraction": 0.05},
        **{"ckpt": None, "seed": 0, "dry_run": False, "ranks": Ranks()},
        run_dir=run_dir,
    )
    rows = read_history(run_dir / "history.jsonl")[1:]
    audio_seconds = values["batch_size"] * values["segment_seconds"]
    return max(row["train/audio_s_per_s"] for row in rows) / audio_seconds


def eager_steps(architecture: MelArchitecture, corpus: AudioFolder, values: dict[str, Any], steps: int) -> float:
    """Return steps a second of the loop that a notebook would hold, on four batches over and over."""
    data = TokenizerData(corpus.items(), sample_rate=24000, fit=fit_settings(values, "mel"), seed=0, max_steps=4)
    batches = list(data.train_dataloader())
    torch.manual_seed(0)
    network = architecture.build()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.8, 0.99))
    every, best = max(1, steps // 4), 0.0
    for _ in range(4):
        started = time.perf_counter()
        for step in range(every):
            batch = batches[step % len(batches)]
            output = network(batch["wav"], batch["lengths"])
            l1, mse = mel_losses(output.output, output.target, output.mask)
            optimizer.zero_grad()
            (l1 + 0.5 * mse + 0.25 * output.quantized.commitment).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        best = max(best, every / (time.perf_counter() - started))
    return best


def read_speeds(
    architecture: MelArchitecture, corpus: AudioFolder, values: dict[str, Any], steps: int
) -> dict[str, float]:
    """Return audio seconds a second of both readers."""
    fit = fit_settings(values, "mel")
    data = TokenizerData(corpus.items(), sample_rate=architecture.sample_rate, fit=fit, seed=0, max_steps=steps)
    samples = round(fit.segment_seconds * architecture.sample_rate)
    plain = PlainDataset(Path(corpus.root), architecture.sample_rate, samples, steps * fit.batch_size)
    loaders: dict[str, Callable[[], DataLoader[Any]]] = {
        "plain Dataset": lambda: DataLoader(plain, fit.batch_size),
        "task=train_tokenizer": data.train_dataloader,
    }
    speeds = dict.fromkeys(loaders, 0.0)
    for _ in range(3):
        for name, make in loaders.items():
            started = time.perf_counter()
            seconds = sum(len(batch["wav"]) * fit.segment_seconds for batch in make())
            speeds[name] = max(speeds[name], seconds / (time.perf_counter() - started))
    return speeds


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
