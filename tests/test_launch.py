"""Two processes under torchrun and accelerate: one run folder, one log per rank, the bytes of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tasks.test_convert import tokens, write_corpus
from tests.tiny_models import write_tiny_mimi, write_tiny_snac

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = {
    "python": [],
    "torchrun": ["-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port={port}"],
    "accelerate": [
        *["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"],
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


def _converted(launcher: str, folder: Path) -> dict[str, bytes]:
    """Convert the corpus into folder/out; returns the bytes of each file written."""
    folder.mkdir()
    prefix = [word.format(port=_free_port()) for word in LAUNCHERS[launcher]]
    command = [
        *[sys.executable, *prefix, str(ROOT / "main.py"), "task=convert", f"data.root={folder.parent / 'corpus'}"],
        *[f"source.weights={folder.parent / 'snac'}", f"codec.weights={folder.parent / 'mimi'}"],
        *["codec.num_codebooks=8", "unit_rows=2", "max_bad_fraction=0.2", "out=out", "device=cpu"],
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in (folder / "out").rglob("*.*")}


@pytest.mark.slow
def test_two_ranks_share_one_run_folder_and_write_the_bytes_of_one(tmp_path: Path) -> None:
    write_tiny_snac(tmp_path / "snac")
    write_tiny_mimi(tmp_path / "mimi")
    _write_corpus(tmp_path / "corpus")
    files = {launcher: _converted(launcher, tmp_path / launcher) for launcher in LAUNCHERS}
    assert len(files["python"]) == 5  # three Parquet files, manifest, errors
    for launcher in ("torchrun", "accelerate"):
        assert files[launcher] == files["python"], launcher
        (run,) = (tmp_path / launcher / "outputs" / "convert").iterdir()
        assert sorted(path.name for path in run.glob("*.log")) == ["rank0.log", "rank1.log"]
        assert json.loads((run / "env.json").read_text())["world"] == 2
        assert json.loads((run / "status.json").read_text())["state"] == "done"
        assert (run / "command.txt").read_text().startswith("torchrun --nproc_per_node=2")
