"""task=extract's stage encode against the obvious loop: full-size EnCodec with random weights, the same files, one run.

The obvious loop reads, resamples, encodes with transformers' EncodecModel and saves file by file. It runs in a process
of its own, so that it profits from nothing that voxlab sets up; rounds of both alternate, and the best of each counts.

.venv/bin/python benchmarks/encode.py --files 24
"""

import argparse
import platform
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

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
    parser.add_argument("--sample-rate", type=int, default=44100, help="of the recordings, in Hz")
    parser.add_argument("--max-batch-seconds", type=float, default=120.0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seconds = write_recordings(root / "in", options.files, options.sample_rate)
        print(f"{options.files} files, {seconds:.0f} s of audio, {seconds / options.files:.1f} s each on average")
        ranks = launched(options.device)
        Encodec(weights="random")._load_transformers().save_pretrained(root / "weights")
        codec = Encodec(weights=str(root / "weights")).to(ranks.device)
        loop, ours = [], []
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other_process:
            for _ in range(options.rounds + 1):  # the first round warms up
                loop.append(other_process.submit(obvious_loop, root, ranks.device).result())
                ours.append(run(root, codec, ranks, options.max_batch_seconds))
                print(f"loop {loop[-1]:.1f} s, voxlab {ours[-1]:.1f} s", flush=True)
        report({"obvious loop": min(loop[1:]), "voxlab": min(ours[1:])}, options.files, seconds)
        compare_codes(root)


def write_recordings(root: Path, files: int, sample_rate: int) -> float:
    """Write 16-bit WAV files of 2 to 16 s, coloured noise with pauses; returns their seconds together."""
    root.mkdir()
    rng, total = np.random.default_rng(0), 0.0
    for index, seconds in enumerate(rng.permutation(np.linspace(2, 16, files))):
        count = round(seconds * sample_rate)
        noise = np.convolve(rng.normal(0, 1, count), np.hanning(32) / 16, "same")
        loudness = np.clip(np.sin(np.arange(count) * 6 / sample_rate), 0, None)
        soundfile.write(root / f"{index:04}.wav", 0.1 * noise * loudness, sample_rate, subtype="PCM_16")
        total += count / sample_rate
    return total


_MODELS: dict[Path, EncodecModel] = {}


def obvious_loop(root: Path, device: str) -> float:
    """Return the seconds of the loop over the files; the model is loaded once a process, outside of them."""
    if root not in _MODELS:
        _MODELS[root] = EncodecModel.from_pretrained(root / "weights").eval().to(device)  # type: ignore[arg-type]
    model = _MODELS[root]
    (root / "loop").mkdir(exist_ok=True)
    started = time.perf_counter()
    for path in sorted((root / "in").glob("*.wav")):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wav = torchaudio.functional.resample(torch.from_numpy(samples.T).mean(0, keepdim=True), rate, 24000)
        with torch.no_grad():
            codes, scales = model.encode(wav[None].to(device), bandwidth=6.0, return_dict=False)[:2]
        content = {"audio_codes": codes.cpu(), "audio_scales": scales, "audio_length": wav.shape[-1]}  # type: ignore[union-attr]
        torch.save(content, root / "loop" / f"{path.stem}.ecdc")
    return time.perf_counter() - started


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
    """Print files/s, audio seconds per second, and the ratio to the obvious loop."""
    print("\n| | files/s | x real time | vs. loop |\n|---|---|---|---|")
    for name, spent in results.items():
        print(f"| {name} | {files / spent:.2f} | {seconds / spent:.1f} | {results['obvious loop'] / spent:.2f} |")


def compare_codes(root: Path) -> None:
    """Print how many frames both ways share; they resample with different filters, so codes differ as well."""
    same = [read_tokens(root / kind / "0000.ecdc").num_frames for kind in ("loop", "out/tokens")]
    print(f"frames of the first file: {same[0]} and {same[1]}")


if __name__ == "__main__":
    print(platform.platform(), torch.__version__, torch.get_num_threads(), "threads")
    main()
