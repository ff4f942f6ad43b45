"""task=convert against the obvious loop: full-size models with the same random weights, the same rows, one run.

The obvious loop calls the upstream packages row by row, holds the file in memory and pickles all of it every
`--checkpoint-every` rows, as the script that voxlab replaces did. It runs in a process of its own, so that it profits
from nothing that voxlab sets up.

.venv/bin/python benchmarks/convert.py --rows 48
"""

import argparse
import json
import pickle
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from snac import SNAC
from torch.utils.flop_counter import FlopCounterMode

from voxlab.audio import encode_wav
from voxlab.codecs.base import Codes, item_seed
from voxlab.codecs.layouts import parse_tokens
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.snac import CONFIG_24KHZ, Snac
from voxlab.data.sample.voiceassistant import SCHEMA
from voxlab.data.voiceassistant import VoiceAssistant
from voxlab.parallel import launched
from voxlab.tasks.convert.task import convert

GROUPS_PER_SECOND = 24000 / 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--mean-seconds", type=float, default=16.0)
    parser.add_argument("--checkpoint-every", type=int, default=8)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        models = write_weights(root)
        lengths = write_rows(root / "in", options.rows, options.mean_seconds)
        seconds = sum(lengths) / GROUPS_PER_SECOND
        print(f"{options.rows} rows, {seconds:.0f} s of audio, {seconds / options.rows:.1f} s each on average.")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other_process:
            loop = other_process.submit(obvious_loop, root, models, options.device, options.checkpoint_every).result()
        results = {"obvious loop": loop[0], "obvious loop with its checkpoints": sum(loop)}
        ranks = launched(options.device)
        for name, compiled in (("voxlab", False), ("voxlab, compiled", True)):
            warm, results[name] = ours(root, models, ranks, compiled=compiled)
            print(f"{name}: first use (loading, compiling, 3 rows) took {warm:.0f} s, not counted.")
        report(results, options.rows, seconds)
        report_limit(models, ranks.device, seconds / min(results.values()))
        print(f"\nPeak memory of voxlab's process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB.")


def write_weights(root: Path) -> dict[str, Path]:
    """Write full-size random SNAC and Mimi in the upstream formats."""
    torch.manual_seed(0)
    snac = root / "snac"
    snac.mkdir()
    (snac / "config.json").write_text(json.dumps(CONFIG_24KHZ))
    torch.save(SNAC(**CONFIG_24KHZ).state_dict(), snac / "pytorch_model.bin")
    from moshi.models.loaders import get_mimi
    from safetensors.torch import save_file

    from voxlab.codecs.mimi import fill_codebooks

    mimi = get_mimi(None, num_codebooks=32)
    fill_codebooks(mimi, 0)
    save_file(mimi.state_dict(), root / "mimi.safetensors")
    return {"snac": snac, "mimi": root / "mimi.safetensors"}


def write_rows(root: Path, rows: int, mean_seconds: float) -> list[int]:
    """Write one file of answers with a spread of lengths; returns the groups of each."""
    rng = np.random.default_rng(0)
    spread = rng.lognormal(0, 0.5, rows)
    lengths = [max(1, round(x)) for x in spread / spread.mean() * mean_seconds * GROUPS_PER_SECOND]
    answers = [" ".join("# " + " ".join(map(str, group)) for group in rng.integers(0, 4096, (n, 7))) for n in lengths]
    question = {"bytes": encode_wav(torch.from_numpy(rng.uniform(-0.5, 0.5, (1, 150_000))), 22050), "path": "q.wav"}
    table = {name: ["text"] * rows for name in ("split_name", "index", "round", "question", "answer")}
    columns = {**table, "question_audio": [question] * rows, "answer_snac": answers}
    (root / "data").mkdir(parents=True)
    path = root / "data" / "train-00000-of-00001.parquet"
    pq.write_table(
        pa.table([pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names], schema=SCHEMA), path
    )
    return lengths


def obvious_loop(root: Path, models: dict[str, Path], device: str, checkpoint_every: int) -> tuple[float, float]:
    """Return the seconds of the row-by-row loop and, apart, of its checkpoints."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    from moshi.models.loaders import get_mimi

    snac = SNAC.from_pretrained(str(models["snac"])).to(device)
    mimi = get_mimi(models["mimi"], num_codebooks=32, device=device)
    frame = pq.read_table(next((root / "in/data").glob("*.parquet"))).to_pandas()
    spent, done = 0.0, []
    started = time.perf_counter()
    for cell in frame["answer_snac"]:
        levels = parse_tokens(cell, "mini_omni").levels
        torch.manual_seed(item_seed(0, cell))
        with torch.inference_mode():
            wav = snac.decode([torch.from_numpy(level)[None].to(device) for level in levels])
            codes = mimi.encode(wav)
        done.append((wav[0, 0].cpu().numpy().tobytes(), codes[0].cpu().tolist()))
        if len(done) % checkpoint_every == 0:
            before = time.perf_counter()
            with (root / "checkpoint.pkl").open("wb") as file:
                pickle.dump(done, file)
            spent += time.perf_counter() - before
    frame["answer_audio"], frame["answer_mimi"] = zip(*done, strict=True)
    frame.to_parquet(root / "obvious.parquet")
    return time.perf_counter() - started - spent, spent


def ours(root: Path, models: dict[str, Path], ranks: Any, *, compiled: bool) -> tuple[float, float]:
    """Return the seconds of a first small run and of the whole file, models warm."""
    source = Snac(weights=str(models["snac"]), compile=compiled)
    codec = Mimi(weights=str(models["mimi"]), compile=compiled)

    def run(out: str, corpus: VoiceAssistant) -> float:
        started = time.perf_counter()
        convert(
            corpus=corpus, source=source, codec=codec, tts=None, input="tokens", out=str(root / out),
            audio_format="float32", partial_tail="error", max_seconds=1800.0, unit_rows=128, max_batch_seconds=None,
            tts_batch_size=32, max_bad_fraction=0.0, restart=False, seed=0, dry_run=False, ranks=ranks,
            run_dir=root / "run",
        )  # fmt: skip
        return time.perf_counter() - started

    write_rows(root / f"warm{compiled}", 3, 6.0)
    warm = run(f"warm_out{compiled}", VoiceAssistant(root=str(root / f"warm{compiled}")))
    return warm, run(f"out{compiled}", VoiceAssistant(root=str(root / "in")))


def report(results: dict[str, float], rows: int, seconds: float) -> None:
    """Print rows/s, audio seconds per second, and ratios to the obvious loop."""
    base, with_checkpoints = results["obvious loop"], results["obvious loop with its checkpoints"]
    print("\n| | rows/s | x real time | vs. loop | vs. loop with checkpoints |\n|---|---|---|---|---|")
    for name, spent in results.items():
        ratios = f"{base / spent:.2f} | {with_checkpoints / spent:.2f}"
        print(f"| {name} | {rows / spent:.3f} | {seconds / spent:.2f} | {ratios} |")


def report_limit(models: dict[str, Path], device: str, best: float) -> None:
    """Print the arithmetic and speed of each stage, and how near `best` (x real time) comes to the limit."""
    source, codec = Snac(weights=str(models["snac"])).to(device), Mimi(weights=str(models["mimi"])).to(device)
    books = tuple(torch.randint(0, 4096, (1, 117 * rate)) for rate in (1, 2, 4))
    codes = Codes(books, torch.tensor([4 * 117]))
    wav, lengths = source.decode(codes, [0])
    duration, peak, total = wav.shape[-1] / 24000, measure_peak(device), 0.0
    limit = f"limit at {peak:.0f} GFLOP/s (float32 matrix product)"
    print(f"\n| stage | GFLOP per second of audio | {limit} | eager, alone |\n|---|---|---|---|")
    stages = {"SNAC decode": lambda: source.decode(codes, [0]), "Mimi encode": lambda: codec.encode(wav, lengths)}
    for name, call in stages.items():
        with FlopCounterMode(display=False) as counter:
            call()
        flops = counter.get_total_flops() / duration / 1e9
        speed = duration / min(stopwatch(device, call) for _ in range(3))
        total += flops
        print(f"| {name} | {flops:.1f} | {peak / flops:.0f} x real time | {speed:.1f} x |")
    share = f"best run above: {best:.1f} x, {best / (peak / total):.0%} of the limit"
    print(f"| both | {total:.1f} | {peak / total:.1f} x | {share} |")


def stopwatch(device: str, call: Callable[[], Any]) -> float:
    """Return the seconds that `call` takes, waiting for the device on both sides."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def measure_peak(device: str) -> float:
    """Return GFLOP/s of a large float32 matrix product, the best of six."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    return 2 * size**3 / min(stopwatch(device, lambda: a @ b) for _ in range(6)) / 1e9


if __name__ == "__main__":
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    main()
