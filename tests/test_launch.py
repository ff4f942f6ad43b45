"""Several processes under torchrun and accelerate: one run folder, one log per rank, the bytes of one process."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import main_process
from tests.tasks.test_convert import tokens, write_corpus
from tests.tiny_models import write_tiny_mimi, write_tiny_snac

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {
    "forked": [],
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node={world}", "--master_port={port}"],
    "accelerate": [
        *["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes={world}", "--num_machines=1"],
        *["--mixed_precision=no", "--dynamo_backend=no", "--main_process_port={port}"],
    ],
}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _write_corpus(root: Path) -> None:
    """Write three files, so that each rank owns one and the third is shared."""
    for number in range(3):
        answers: list[str | None] = [tokens(3 + row, 10 * number + row) for row in range(7)]
        write_corpus(root, [*answers, None], name=f"train-{number:05d}-of-00003.parquet", row_group_size=5)


def _converted(folder: Path, launcher: Sequence[str] = (), world: int = 1) -> dict[str, bytes]:
    """Convert the corpus into folder/out; returns the bytes of each file written."""
    folder.mkdir()
    words = [
        *["task=convert", f"data.root={folder.parent / 'corpus'}", f"source.weights={folder.parent / 'snac'}"],
        *[f"codec.weights={folder.parent / 'mimi'}", "codec.num_codebooks=8", "unit_rows=2", "max_bad_fraction=0.2"],
        *["out=out", "device=cpu"],
    ]
    if launcher:
        prefix = [word.format(world=world, port=_free_port()) for word in launcher]
        command = [sys.executable, *prefix, str(ROOT / "main.py"), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    else:
        done = main_process.run(words, folder, world=world)
    assert done.returncode == 0, done.stderr
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "out").rglob("*.*")}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Models, a corpus and what plain python makes of it."""
    folder = tmp_path_factory.mktemp("launch")
    write_tiny_snac(folder / "snac")
    write_tiny_mimi(folder / "mimi")
    _write_corpus(folder / "corpus")
    files = _converted(folder / "python")
    assert len(files) == 5  # three Parquet files, manifest, errors
    return folder, files


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "world"), [("torchrun", 2), ("accelerate", 2), ("forked", 3), ("forked", 5)])
def test_ranks_share_one_run_folder_and_write_the_bytes_of_one(
    one_process: tuple[Path, dict[str, bytes]], launcher: str, world: int
) -> None:
    """Five ranks are more than the three files: all files are shared then."""
    folder, expected = one_process
    place = folder / f"{launcher}{world}"
    assert _converted(place, LAUNCHERS[launcher], world) == expected
    (run,) = (place / "outputs" / "convert").iterdir()
    assert sorted(path.name for path in run.glob("*.log")) == [f"rank{rank}.log" for rank in range(world)]
    assert json.loads((run / "env.json").read_text())["world"] == world
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert (run / "command.txt").read_text().startswith(f"torchrun --nproc_per_node={world}")
