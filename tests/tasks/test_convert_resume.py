"""Conversion through main.py, killed at random moments and resumed: the bytes are those of one quiet run."""

import hashlib
import json
import random
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import main_process
from tests.tasks.test_convert import tokens, write_corpus

ROOT = Path(__file__).parents[2]
FILES = [f"data/train-{n:05d}-of-00005.parquet" for n in range(5)]
ROWS = 24
KILLS = 10


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    for number, name in enumerate(FILES):
        answers = [tokens(int(rng.integers(10, 60)), 100 * number + row) for row in range(ROWS)]
        answers[5] = None
        write_corpus(root, answers, name=Path(name).name, row_group_size=6)
    return root


@pytest.fixture(scope="module")
def command(corpus, tiny_snac, tiny_mimi):
    settings = {
        "task": "convert",
        "data": "voiceassistant",
        "data.root": corpus,
        "codec": "mimi",
        "codec.weights": tiny_mimi,
        "source.weights": tiny_snac,
        "unit_rows": 3,
        "max_bad_fraction": 0.1,
    }
    return [f"{key}={value}" for key, value in settings.items()]


def start(command, out):
    log = out.parent / f"{out.name}.log"
    return main_process.start([*command, f"out={out}"], out.parent, outputs=[log, log])


def finish(process, out):
    process.join(240)
    assert process.exitcode == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]


def digests(out):
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def parts(out):
    return set(out.rglob("unit-*.parquet")) | set((out / "data").glob("*.parquet"))


@pytest.fixture(scope="module")
def quiet(command, tmp_path_factory):
    """The digests of every output file of one uninterrupted run."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    finish(start(command, out), out)
    return digests(out)


@pytest.mark.slow
def test_outputs_and_nothing_else(quiet):
    assert sorted(quiet) == [*FILES, "errors.jsonl", "manifest.json"]


@pytest.mark.slow
def test_killed_ten_times_and_resumed(command, quiet, tmp_path):
    out, rng = tmp_path / "out", random.Random(0)
    for _ in range(KILLS):
        process = start(command, out)
        before, deadline = parts(out), time.monotonic() + 120
        while parts(out) <= before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.2))
        assert process.is_alive(), "the run ended before it could be killed: give it more rows"
        main_process.kill(process)
        for path in (out / "data").glob("*.parquet"):
            pq.read_metadata(path)  # whatever a reader can see is complete
    finish(start(command, out), out)
    assert digests(out) == quiet
    rows = [row["index"] for name in FILES for row in pq.read_table(out / name, columns=["index"]).to_pylist()]
    assert rows == [f"i{n}" for _ in FILES for n in range(ROWS)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["totals"] == manifest["totals"] | {"rows": len(FILES) * ROWS, "errors": {"null_tokens": 5}}
