"""Peak memory of task=convert on one large Parquet file, with full-size random SNAC and Mimi, in a process of its own.

The file has the data set's 1,446 rows and row groups of 100: the first `--long-rows` hold answers of 20 s, which fill
whole units, the others a quarter of a second; random bytes as question audio bring it to `--gigabytes`.

.venv/bin/python benchmarks/convert_memory.py
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voxlab.data.sample.voiceassistant import SCHEMA

ROWS = 1446
ROWS_PER_GROUP = 100
LONG_ANSWER, SHORT_ANSWER = 234, 3
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--long-rows", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in" / "data" / "train-00000-of-00001.parquet"
        write_file(path, round(options.gigabytes * 1e9 / ROWS), options.long_rows)
        size = path.stat().st_size / 1e9
        convert(Path(folder))
    print(f"A file of {size:.2f} GB, {ROWS} rows, {options.long_rows} of them answers of 20 s: at the peak ", end="")
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9:.2f} GB.")


def write_file(path: Path, audio_bytes: int, long_rows: int) -> None:
    path.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
        for first in range(0, ROWS, ROWS_PER_GROUP):
            numbers = range(first, min(first + ROWS_PER_GROUP, ROWS))
            rows = [row(number, audio_bytes, number < long_rows, rng) for number in numbers]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def row(number: int, audio_bytes: int, long: bool, rng: np.random.Generator) -> dict:
    codes = rng.integers(0, 4096, (LONG_ANSWER if long else SHORT_ANSWER, 7))
    return {
        "split_name": "train",
        "index": str(number),
        "round": "1",
        "question": "What is the capital of France?",
        "question_audio": {"bytes": rng.bytes(audio_bytes), "path": None},
        "answer": "The capital of France is Paris.",
        "answer_snac": " ".join("# " + " ".join(map(str, group)) for group in codes),
    }


def convert(folder: Path) -> None:
    options = [f"data.root={folder / 'in'}", f"out={folder / 'out'}", f"hydra.run.dir={folder / 'run'}"]
    weights = ["source.weights=random", "codec=mimi", "codec.weights=random"]
    command = [sys.executable, "main.py", "task=convert", "data=voiceassistant", *weights, *options]
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=sys.stderr)


if __name__ == "__main__":
    main()
