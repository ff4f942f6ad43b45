"""Slurm, as far as it can be played: its variables around plain python, its commands around the recipe's script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from tests import main_process
from tests.conftest import Compose
from voxlab.errors import UserError
from voxlab.parallel import refuse_lone_copies

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "recipes" / "cluster"
# What sbatch tells a script on the first of two nodes that were asked for with four tasks each.
ALLOCATION = {
    **{"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"},
    **{"SLURM_NNODES": "2", "SLURM_NODELIST": "node[1-2]", "SLURM_JOB_NODELIST": "node[1-2]"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_CPUS_ON_NODE": "2"},
}


def words(folder: Path, *more: str) -> list[str]:
    corpus = ["data.source=sample", f"data.root={folder / 'corpus'}"]
    return ["task=convert", "codec=none", *corpus, "task._target_=tests.standin.work", *more]


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """A PATH with an `srun` that starts its command here, once, and a `scontrol` that notes what it is told."""
    commands = {
        "srun": 'exec "$@"',
        "scontrol": 'if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$NOTES"; fi',
    }
    (tmp_path / "bin").mkdir()
    for name, line in commands.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}
    return {**os.environ, **path, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}


def test_copies_that_srun_starts_are_refused_before_they_write(tmp_path: Path) -> None:
    step = {**ALLOCATION, "SLURM_STEP_NUM_TASKS": "8"}
    first, second = (
        main_process.run(words(tmp_path, "hydra.run.dir=run"), tmp_path, **{**step, "SLURM_PROCID": rank})
        for rank in ("0", "1")
    )
    assert (first.returncode, second.returncode) == (2, 2)
    assert "srun has started 8 copies of this program" in first.stderr
    assert "srun --ntasks-per-node=1 torchrun" in first.stderr
    assert len(first.stderr.splitlines()) <= 6
    assert second.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "told", [{}, {"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": "2", "RANK": "1"}], ids=str
)
def test_one_copy_and_the_ranks_of_torchrun_may_go_on(monkeypatch: pytest.MonkeyPatch, told: dict[str, str]) -> None:
    for name in ("RANK", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    refuse_lone_copies()
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(UserError, match="2 copies"):
        refuse_lone_copies()


@pytest.mark.slow
def test_the_script_of_the_recipe_starts_the_ranks_in_the_folder_of_its_job(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    (tmp_path / "main.py").symlink_to(ROOT / "main.py")
    told = {**ALLOCATION, "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "PYTHONPATH": str(ROOT)}
    command = [str(CLUSTER / "run.sbatch"), *words(tmp_path, "device=cpu")]
    done = subprocess.run(command, cwd=tmp_path, env={**slurm, **told}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run_dir = tmp_path / "outputs" / "slurm" / "4242"
    assert json.loads((run_dir / "metrics.json").read_text())["world"] == 2
    assert {path.name for path in run_dir.glob("*.log")} == {"rank0.log", "rank1.log"}


def test_the_script_of_the_recipe_goes_back_into_the_queue_and_waits_for_its_end(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    """The signal that Slurm sends before the time is up; the step itself ends later, with its own exit code."""
    (tmp_path / "bin" / "srun").write_text(
        '#!/usr/bin/env bash\ntouch "$NOTES.started"\nread -r < "$NOTES.go"\nexit 7\n'
    )
    os.mkfifo(tmp_path / "notes.go")
    told = {**ALLOCATION, **slurm}
    with subprocess.Popen([str(CLUSTER / "run.sbatch"), "task=convert"], cwd=tmp_path, env=told) as process:
        wait_for(tmp_path / "notes.started")
        process.send_signal(signal.SIGUSR1)
        wait_for(tmp_path / "notes")
        assert process.poll() is None
        (tmp_path / "notes.go").write_text("\n")
        assert process.wait(timeout=60) == 7
    assert (tmp_path / "notes").read_text() == "requeue 4242\n"


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.s*")), ids=lambda path: path.name)
def test_scripts_are_sound_and_say_how_to_use_them(path: Path) -> None:
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    done = subprocess.run([str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_the_sweep_of_the_recipe_asks_slurm_for_a_job_with_a_gpu_for_each_run(tmp_path: Path) -> None:
    """The line that it would start, composed."""
    (tmp_path / "python").write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    given = ["gpu", "task=laughter", "loss=bce,focal", "shift=1,2"]
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    done = subprocess.run(
        [str(CLUSTER / "sweep.sh"), *given], env=environment, capture_output=True, text=True, check=True
    )
    line = done.stdout.splitlines()
    assert line[:5] == ["main.py", "-m", *given[1:]]
    launcher = [word for word in line if word.startswith("hydra")]
    shown = main_process.run(["task=laughter", *launcher, "--cfg", "hydra", "-p", "hydra.launcher"], tmp_path)
    assert shown.returncode == 0, shown.stderr
    asked = OmegaConf.create(shown.stdout)
    assert asked._target_.endswith("SlurmLauncher")
    assert (asked.partition, asked.gpus_per_node, asked.timeout_min, asked.tasks_per_node) == ("gpu", 1, 240, 1)


def test_jobs_of_a_sweep_take_the_gpus_in_turn(composed: Compose) -> None:
    """As docs/clusters.md spells it for joblib; a job's number is what Hydra gives it."""
    word = "device='cuda:${modulo:${hydra:job.num},4}'"
    found = [composed("task=laughter", word, f"hydra.job.num={job}").device for job in range(6)]
    assert found == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0", "cuda:1"]
