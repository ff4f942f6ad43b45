"""Every way to launch, times convert, extract, laughter: one run folder, a log a rank, the results of plain python.

Launchers that start main.py themselves start `launched_main` instead, which is main.py for one task after the other.
"""

import csv
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests import main_process
from tests.laughter_stores import write_store
from tests.tasks.laughter_runs import SMALL, state
from tests.tasks.test_convert import tokens, write_corpus
from tests.test_launch_slurm import ALLOCATION
from tests.tiny_models import write_tiny_encodec, write_tiny_mimi, write_tiny_snac

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
MEETING = ["--rdzv_backend=c10d", "--rdzv_endpoint=127.0.0.1:{port}", "--rdzv_id=test", "--local_addr=127.0.0.1"]
# name -> the command of each agent, and how command.txt begins
LAUNCHERS = {
    "torchrun": ([[*TORCHRUN, "--nproc_per_node=2", "--master_port={port}"]], "torchrun --nproc_per_node=2 "),
    "accelerate": (
        [[*ACCELERATE, "--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no"]],
        "accelerate launch --multi_gpu --num_processes=2 ",
    ),
    "two_agents": ([[*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", *MEETING]] * 2, "torchrun --nproc_per_node=1 "),
}
LAUNCHERS["accelerate"][0][0].extend(["--dynamo_backend=no", "--main_process_port={port}"])


@dataclass(frozen=True)
class Made:
    """A folder with what the runs read, their words, and what a sweep by plain python has written."""

    folder: Path
    words: dict[str, list[str]]
    swept: dict[str, str]

    def sweep(self, task: str, jobs: int = 2) -> list[str]:
        key, _, values = self.swept[task].partition("=")
        return ["-m", *self.words[task], f"{key}={','.join(values.split(',')[:jobs])}"]

    def first(self, task: str) -> list[str]:
        """The words of the sweep's first job."""
        return [*self.words[task], self.swept[task].partition(",")[0]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("launch")
    for number in range(3):  # each of two ranks owns one file, the third is shared
        answers: list[str | None] = [tokens(3 + row, 10 * number + row) for row in range(7)]
        name = f"train-{number:05d}-of-00003.parquet"
        write_corpus(folder / "answers", [*answers, None], name=name, row_group_size=5)
    (folder / "recordings").mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, 12_000 + 3_000 * number)
        soundfile.write(folder / "recordings" / f"{number}.wav", noise, 24_000)
    snac, mimi = write_tiny_snac(folder / "snac"), write_tiny_mimi(folder / "mimi")
    encodec = write_tiny_encodec(folder / "encodec")
    store = write_store(folder / "store", splits={"train": 6, "validation": 3, "test": 3}, frames=1500, events=5)
    words = {
        "convert": [
            *["task=convert", f"data.root={folder / 'answers'}", f"source.weights={snac}", f"codec.weights={mimi}"],
            *["unit_rows=2", "max_bad_fraction=0.2", "out=out/${codec.num_codebooks}", "device=cpu"],
        ],
        "extract": [
            *["task=extract", "data=audiofolder", f"data.root={folder / 'recordings'}", f"codec.weights={encodec}"],
            *["producers=[lin]", "out=out/${codec.bandwidth}", "device=cpu"],
        ],
        "laughter": [*SMALL, f"store={store}", "fit.read_ahead=0", "fit.block=64"],
    }
    swept = {"convert": "codec.num_codebooks=8,4", "extract": "codec.bandwidth=3.0,6.0", "laughter": "shift=5,2"}
    found = Made(folder, words, swept)
    for task in words:
        place = folder / "python" / task
        place.mkdir(parents=True)
        done = main_process.run(found.sweep(task), place)
        assert done.returncode == 0, done.stderr[-3000:]
    return found


def only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def written(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of an output folder, besides ledgers."""
    paths = [path for path in folder.rglob("*") if path.is_file() and ".state" not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def figures(run_dir: Path) -> dict[str, float]:
    metrics = json.loads((run_dir / "metrics.json").read_text())
    numbers = {key: value for key, value in metrics.items() if key.startswith(("val/", "test/"))}
    return {key: value for key, value in numbers.items() if isinstance(value, int | float)}


def check_results(made: Made, task: str, place: Path, run_dir: Path, job: int, *, exact: bool = True) -> None:
    """Hold one run against that of plain python."""
    before = made.folder / "python" / task
    if task != "laughter":
        name = made.swept[task].partition("=")[2].split(",")[job]
        expected = written(before / "out" / name)
        assert len(expected) >= 5
        assert written(place / "out" / name) == expected
        return
    old = only(before / "outputs" / "laughter") / str(job)
    expected, found = figures(old), figures(run_dir)
    assert len(expected) > 30
    assert found == (expected if exact else pytest.approx(expected, abs=1e-6, rel=1e-6))
    if exact:
        weights = [state(folder, "best.ckpt") for folder in (old, run_dir)]
        assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def launch(agents: list[list[str]], *words: Any, folder: Path, **changes: str) -> None:
    """Run a launcher's agents side by side in a folder, each with a script and its arguments."""
    port = str(free_port())
    commands = [[word.replace("{port}", port) for word in agent] + [str(word) for word in words] for agent in agents]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **changes}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [subprocess.Popen(command, cwd=folder, env=environment, **pipes) for command in commands]
    texts = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0] * len(started), "\n".join(texts)[-5000:]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_a_launcher_share_a_run_folder_and_get_the_results_of_one(
    made: Made, launcher: str, tmp_path: Path
) -> None:
    """Weights & Biases, under torchrun: one run for all ranks."""
    extra = {"laughter": ["logger=wandb"]} if launcher == "torchrun" else {}
    jobs = [{"folder": str(tmp_path / task), "words": [*made.first(task), *extra.get(task, [])]} for task in made.words]
    for task in made.words:
        (tmp_path / task).mkdir()
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    agents, line = LAUNCHERS[launcher]
    launch(agents, ROOT / "tests" / "launched_main.py", tmp_path / "jobs.json", folder=tmp_path)
    for task in made.words:
        run_dir = only(tmp_path / task / "outputs" / task)
        check_results(made, task, tmp_path / task, run_dir, job=0, exact=False)
        assert sorted(path.name for path in run_dir.glob("*.log")) == ["rank0.log", "rank1.log"]
        assert json.loads((run_dir / "env.json").read_text())["world"] == 2
        assert json.loads((run_dir / "status.json").read_text())["state"] == "done"
        assert (run_dir / "command.txt").read_text().startswith(line)
    for wandb in (tmp_path / "laughter").rglob("offline-run-*"):
        assert wandb.parent.parent == only(tmp_path / "laughter" / "outputs" / "laughter")
    assert len(list((tmp_path / "laughter").rglob("offline-run-*"))) == (launcher == "torchrun")


@pytest.mark.parametrize("task", ["convert", "extract", "laughter"])
@pytest.mark.parametrize(("launcher", "jobs"), [("joblib", 2), ("submitit_local", 1)])
def test_jobs_of_a_launcher_share_a_sweep_folder_and_get_the_results_of_one_after_another(
    made: Made, launcher: str, jobs: int, task: str, tmp_path: Path
) -> None:
    words = [*made.sweep(task, jobs), f"hydra/launcher={launcher}"]
    launch([[sys.executable]], ROOT / "main.py", *words, folder=tmp_path)
    sweep = only(tmp_path / "outputs" / task)
    rows = list(csv.DictReader((sweep / "sweep.csv").read_text().splitlines()))
    assert [(row["job"], row["state"]) for row in rows] == [(str(job), "done") for job in range(jobs)]
    for job in range(jobs):
        check_results(made, task, tmp_path, sweep / str(job), job)
        assert [path.name for path in (sweep / str(job)).glob("*.log")] == ["rank0.log"]
        assert " -m task=" in (sweep / str(job) / "command.txt").read_text()


@pytest.mark.parametrize("world", [3, 5])
def test_more_ranks_convert_to_the_same_bytes(made: Made, world: int, tmp_path: Path) -> None:
    """Five ranks are more than the three files: all files are shared then."""
    done = main_process.run(made.first("convert"), tmp_path, world=world)
    assert done.returncode == 0, done.stderr[-3000:]
    run_dir = only(tmp_path / "outputs" / "convert")
    check_results(made, "convert", tmp_path, run_dir, job=0)
    assert sorted(path.name for path in run_dir.glob("*.log")) == [f"rank{rank}.log" for rank in range(world)]


def test_plain_python_in_an_allocation_is_one_run(made: Made, tmp_path: Path) -> None:
    """With all that Slurm tells a script about the tasks that it could start."""
    done = main_process.run(made.first("laughter"), tmp_path, **ALLOCATION)
    assert done.returncode == 0, done.stderr[-3000:]
    check_results(made, "laughter", tmp_path, only(tmp_path / "outputs" / "laughter"), job=0)


def test_a_restart_after_a_crash_goes_on_in_the_same_folder(tmp_path: Path) -> None:
    """Rank 1 dies in the first attempt; the agent starts both again."""
    agent = [*TORCHRUN, "--nproc_per_node=2", "--max_restarts=1", "--monitor_interval=0.1", "--master_port={port}"]
    words = ["task=convert", "codec=none", "data.source=sample", f"data.root={tmp_path / 'corpus'}"]
    launch([agent], ROOT / "main.py", *words, "task._target_=tests.standin.work", folder=tmp_path, STANDIN="rank1_once")
    run_dir = only(tmp_path / "outputs" / "convert")
    assert json.loads((run_dir / "status.json").read_text())["state"] == "done"
    assert not (run_dir / "error.txt").exists()
    assert (run_dir / "rank1.log").read_text().count("RuntimeError: rank 1 fails in the first attempt") == 1
    assert (run_dir / "rank1.log").read_text().count("run folder:") == 2
