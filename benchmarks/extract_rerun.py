"""task=extract a second time on a finished folder: seconds to find that nothing is to be done, beside the first run.

Tiny random EnCodec and recordings of a tenth of a second: what is measured is the book-keeping.

.venv/bin/python benchmarks/extract_rerun.py --files 10000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

REPOSITORY = Path(__file__).resolve().parents[1]
PER_FOLDER = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_recordings(root / "audio", options.files)
        write_model(root / "encodec")
        imports = timed([sys.executable, "-c", "import voxlab.run, voxlab.tasks.extract, matplotlib.figure"], root)
        first, second = (timed(command(root), root) for _ in range(2))
    print(f"{options.files} files: first run {first:.1f} s; again {second:.1f} s, of which imports {imports:.1f} s")
    print(f"nothing to do: {second - imports:.2f} s after imports, {first / (second - imports):.0f} x less")


def write_recordings(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(number):
        path = folder / f"{index // PER_FOLDER:03d}" / f"tone_pitch_{index % PER_FOLDER}_{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 2400), 24000, subtype="PCM_16")


def write_model(folder: Path) -> None:
    import torch
    from transformers import EncodecConfig, EncodecModel

    from voxlab.codecs.encodec import fill_codebooks

    torch.manual_seed(0)
    fill_codebooks(EncodecModel(EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8)), 0).save_pretrained(folder)


def command(root: Path) -> list[str]:
    settings = [f"data.root={root / 'audio'}", f"out={root / 'out'}", f"codec.weights={root / 'encodec'}"]
    return [sys.executable, str(REPOSITORY / "main.py"), "task=extract", *settings, "producers=[lin]"]


def timed(words: list[str], folder: Path) -> float:
    start = time.monotonic()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])
    return time.monotonic() - start


if __name__ == "__main__":
    main()
