"""Stage encode of task=extract against the obvious loops: full-size EnCodec, random weights, the same files, one run.

An obvious loop reads, resamples, encodes and saves file by file: with transformers' EncodecModel and torch.save, or
with the package `encodec` and its writer. Loops run in a process of their own, so that they profit from nothing that
voxlab sets up; rounds alternate, and the best of each counts.

.venv/bin/python benchmarks/encode.py --files 24
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from transformers import EncodecModel

from voxlab.codecs.encodec import Encodec
from voxlab.codecs.token_files import read_tokens
from voxlab.data.items import AudioItem, file_stamp
from voxlab.parallel import Ranks, launched
from voxlab.tasks.extract.encode import encode
from voxlab.tasks.extract.stage import Stage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, nargs=2, default=(2, 16), help="of the shortest and longest recording")
    parser.add_argument("--sample-rate", type=int, default=44100, help="of the recordings, in Hz")
    parser.add_argument("--max-batch-seconds", type=float, default=120.0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds = write_recordings(root / "in", options.files, options.seconds, options.sample_rate)
        print(f"{options.files} files, {seconds:.0f} s of audio, {seconds / options.files:.1f} s each on average.")
        ranks = launched(options.device)
        Encodec(weights="random")._load_transformers().save_pretrained(root / "weights")
        codec = Encodec(weights=str(root / "weights")).to(ranks.device)
        times: dict[str, list[float]] = {**{f"{name} loop": [] for name in LOOPS}, "voxlab": []}
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other_process:
            for _ in range(options.rounds + 1):  # the first round warms up
                for name in LOOPS:
                    times[f"{name} loop"].append(other_process.submit(LOOPS[name], root, ranks.device).result())
                times["voxlab"].append(run(root, codec, ranks, options.max_batch_seconds))
                print(", ".join(f"{name} {spent[-1]:.1f} s" for name, spent in times.items()), file=sys.stderr)
        report({name: min(spent[1:]) for name, spent in times.items()}, options.files, seconds)
        compare_codes(root)


def write_recordings(root: Path, files: int, bounds: Sequence[float], sample_rate: int) -> float:
    """Write 16-bit WAV files of noise with pauses, evenly between two lengths; returns their seconds together."""
    root.mkdir()
    rng, total = np.random.default_rng(0), 0.0
    for index, seconds in enumerate(rng.permutation(np.linspace(bounds[0], bounds[1], files))):
        count = round(seconds * sample_rate)
        noise = np.convolve(rng.normal(0, 1, count), np.hanning(32) / 16, "same")
        loudness = np.clip(np.sin(np.arange(count) * 6 / sample_rate), 0, None)
        soundfile.write(root / f"{index:04}.wav", 0.1 * noise * loudness, sample_rate, subtype="PCM_16")
        total += count / sample_rate
    return total


@cache
def transformers_model(root: Path, device: str) -> EncodecModel:
    return EncodecModel.from_pretrained(root / "weights").eval().to(device)  # type: ignore[arg-type]


@cache
def package_model(device: str) -> Any:
    from encodec.model import EncodecModel as PackageModel

    model = PackageModel.encodec_model_24khz(pretrained=False).eval().to(device)
    model.set_target_bandwidth(6.0)
    model.name = "encodec_24khz"  # what its files name; only a model with downloaded weights has it by itself
    return model


def transformers_loop(root: Path, device: str) -> float:
    """Return the seconds of the loop over the files; the model is loaded once a process, outside of them."""
    model = transformers_model(root, device)
    (root / "loop").mkdir(exist_ok=True)
    started = time.perf_counter()
    for path in sorted((root / "in").glob("*.wav")):
        with torch.no_grad():
            wav = read(path)
            codes, scales = model.encode(wav.to(device), bandwidth=6.0, return_dict=False)[:2]
        content = {"audio_codes": codes.cpu(), "audio_scales": scales, "audio_length": wav.shape[-1]}  # type: ignore[union-attr]
        torch.save(content, root / "loop" / f"{path.stem}.ecdc")
    return time.perf_counter() - started


def package_loop(root: Path, device: str) -> float:
    """The same with the package encodec, and its own writer of .ecdc files."""
    from encodec.compress import compress_to_file

    model = package_model(device)
    (root / "package").mkdir(exist_ok=True)
    started = time.perf_counter()
    for path in sorted((root / "in").glob("*.wav")):
        with torch.no_grad(), (root / "package" / f"{path.stem}.ecdc").open("wb") as file:
            compress_to_file(model, read(path)[0].to(device), file, use_lm=False)
    return time.perf_counter() - started


def read(path: Path) -> torch.Tensor:
    """Read one file as (1, 1, T) mono at 24 kHz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return torchaudio.functional.resample(torch.from_numpy(samples.T).mean(0, keepdim=True), rate, 24000)[None]


LOOPS = {"transformers": transformers_loop, "encodec": package_loop}


def run(root: Path, codec: Encodec, ranks: Ranks, max_batch_seconds: float) -> float:
    """Return the seconds of the stage, the model warm."""
    shutil.rmtree(root / "out", ignore_errors=True)
    paths = sorted((root / "in").glob("*.wav"))
    items = tuple(AudioItem(path.stem, path, "train", file_stamp(path)) for path in paths)
    started = time.perf_counter()
    outcome = encode(Stage(root / "out", items, ranks, max_batch_seconds=max_batch_seconds), codec)
    assert outcome.done == len(items), outcome
    assert not outcome.failed, outcome
    return time.perf_counter() - started


def report(results: dict[str, float], files: int, seconds: float) -> None:
    """Print files/s, audio seconds per second, and how much faster voxlab is."""
    print("\n| | files/s | x real time | voxlab is faster by |\n|---|---|---|---|")
    for name, spent in results.items():
        print(f"| {name} | {files / spent:.2f} | {seconds / spent:.1f} | {spent / results['voxlab']:.2f} x |")


def compare_codes(root: Path) -> None:
    """Print how many frames both ways share; they resample with different filters, so codes differ as well."""
    same = [read_tokens(root / kind / "0000.ecdc").num_frames for kind in ("loop", "out/tokens")]
    print(f"\nFrames of the first file: {same[0]} and {same[1]}.")


if __name__ == "__main__":
    main()
