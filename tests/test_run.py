"""One run end to end through main.py with a stand-in task: artefacts, exit codes, resume, sweeps, loggers."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from tests import main_process
from voxlab import provenance
from voxlab.errors import UserError
from voxlab.parallel import Ranks

ROOT = Path(__file__).resolve().parents[1]
STANDIN = ["task=convert", "codec=none", "data.source=sample", "task._target_=tests.standin.work"]


def _words(tmp_path: Path, *words: str) -> list[str]:
    return [*STANDIN, f"data.root={tmp_path / 'corpus'}", *words]


def _main(tmp_path: Path, *words: str, action: str = "") -> subprocess.CompletedProcess[str]:
    return main_process.run(_words(tmp_path, *words), tmp_path, STANDIN=action)


def _only(folder: Path) -> Path:
    (only,) = folder.iterdir()
    return only


def _json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_run_leaves_its_artefacts_and_resumes_into_the_same_folder(tmp_path: Path) -> None:
    done = _main(tmp_path, "seed=4")
    assert done.returncode == 0, done.stderr
    folder = _only(tmp_path / "outputs" / "convert")
    expected = "command.txt config.yaml env.json git.diff git.txt metrics.json packages.txt rank0.log status.json"
    assert {path.name for path in folder.iterdir()} == {*expected.split(), ".hydra"}
    assert _json(folder / "status.json")["state"] == "done"
    assert _json(folder / "metrics.json")["seed"] == 4
    assert _json(folder / "env.json")["seed"] == 4
    assert done.stderr.splitlines()[-1].endswith(f"INFO done: {folder}")
    assert "out: converted/voiceassistant-none" in (folder / "config.yaml").read_text()
    assert "seed=4" in (folder / "command.txt").read_text()
    assert "hydra-core==" in (folder / "packages.txt").read_text()

    again = _main(tmp_path, "seed=4", f"resume={folder}")
    assert again.returncode == 0, again.stderr
    assert _only(tmp_path / "outputs" / "convert") == folder
    assert sorted(path.name for path in (folder / ".hydra").glob("overrides*")) == [
        "overrides.1.yaml",
        "overrides.2.yaml",
        "overrides.yaml",
    ]

    other = _main(tmp_path, "seed=5", f"resume={folder}")
    assert other.returncode == 2
    assert "seed: 4 -> 5" in other.stderr
    assert _json(folder / "metrics.json")["seed"] == 4
    assert "seed=4" in (folder / ".hydra" / "overrides.yaml").read_text()  # what the finished run was started with
    assert "seed: 4" in (folder / ".hydra" / "config.yaml").read_text()


def test_the_folder_alone_says_how_a_run_goes_on(tmp_path: Path) -> None:
    assert _main(tmp_path, "seed=4", "unit_rows=7", "hydra.run.dir=a run", action="bug").returncode == 1
    folder = tmp_path / "a run"
    done = main_process.run([f"resume={folder}"], tmp_path)
    assert done.returncode == 0, done.stderr
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    assert (settings["seed"], settings["unit_rows"], settings["resume"]) == (4, 7, str(folder))
    assert _json(folder / "metrics.json")["folder"] == str(folder)
    assert not (tmp_path / "outputs").exists()

    same = main_process.run(["task=convert", "resume=a run"], tmp_path)  # the same task is no other configuration
    assert same.returncode == 0, same.stderr
    refused = main_process.run(["resume=a run", "seed=5"], tmp_path)
    assert refused.returncode == 2
    assert "seed: 4 -> 5" in refused.stderr
    again = main_process.run(["resume=a run", "name=new"], tmp_path)  # the refused words are forgotten
    assert again.returncode == 0, again.stderr


def test_a_run_without_its_words_asks_for_a_task(tmp_path: Path) -> None:
    assert _main(tmp_path, "hydra.run.dir=run").returncode == 0
    (tmp_path / "run" / ".hydra" / "overrides.yaml").unlink()
    refused = main_process.run(["resume=run"], tmp_path)
    assert refused.returncode == 2
    assert "choose a task" in refused.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    here, temporary = tmp_path / "here", tmp_path / "temporary"
    for folder in (here, temporary):
        folder.mkdir()
    done = main_process.run(_words(here, "dry_run=true"), here, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    told = f"sample corpus: would be written to {here / 'corpus'}-sample (2 files, 0.7 MB); planned from a temporary"
    assert told in done.stderr
    assert [*here.iterdir(), *temporary.iterdir()] == []


def test_a_sample_that_is_not_written_yet_is_planned_from(tmp_path: Path) -> None:
    root, temporary = tmp_path / "audio", tmp_path / "temporary"
    temporary.mkdir()
    words = ["task=extract", "data=audiofolder", "data.source=sample", f"data.root={root}", "stage=check"]
    planned = main_process.run([*words, "dry_run=true"], tmp_path, TMPDIR=str(temporary), world=2)
    assert planned.returncode == 0, planned.stderr
    assert planned.stderr.count(f"would be written to {root}-sample (13 files") == 1  # by the first rank
    assert "findings: 6" in planned.stderr
    assert list(tmp_path.rglob("*")) == [temporary]
    failed = _main(tmp_path, "dry_run=true", action="user")  # leaves nothing either
    assert failed.returncode == 2
    assert list(tmp_path.rglob("*")) == [temporary]


def test_a_mistake_found_at_once_leaves_no_run_folder(tmp_path: Path) -> None:
    done = _main(tmp_path, action="user")
    assert done.returncode == 2
    assert "set data.root=DIR" in done.stderr
    assert "Traceback" not in done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "which held no results" in line]
    assert f"removed {tmp_path / 'outputs' / 'convert'}" in told
    assert list((tmp_path / "outputs" / "convert").iterdir()) == []
    absent = _main(tmp_path, "device=cuda:99")
    assert absent.returncode == 2
    assert "device=cuda:99: this machine has" in absent.stderr
    assert list((tmp_path / "outputs" / "convert").iterdir()) == []


def test_a_user_error_after_some_work_ends_with_its_code_and_its_record(tmp_path: Path) -> None:
    done = _main(tmp_path, action="late")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    folder = _only(tmp_path / "outputs" / "convert")
    assert _json(folder / "status.json")["error"].startswith("data.root=nowhere")
    assert "UserError" in (folder / "error.txt").read_text()
    assert "data.root=nowhere" in (folder / "rank0.log").read_text()
    assert (folder / "plots" / "curve.png").is_file()


def test_a_folder_that_the_user_has_named_stays(tmp_path: Path) -> None:
    (tmp_path / "run" / "own").mkdir(parents=True)
    (tmp_path / "run" / "linked").symlink_to(tmp_path)
    for words in (["hydra.run.dir=run"], ["resume=run"], ["resume=run", "device=cuda:99"], ["hydra.run.dir=."]):
        failed = _main(tmp_path, *words, action="user")
        assert failed.returncode == 2
        assert "removed" not in failed.stderr
    assert {"own", "linked", "error.txt"} <= {path.name for path in (tmp_path / "run").iterdir()}
    assert (tmp_path / "error.txt").is_file()


def test_the_record_of_what_may_have_been_written_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    failed = _main(tmp_path, "out=out", action="user")
    assert failed.returncode == 2
    assert "removed" not in failed.stderr
    assert (_only(tmp_path / "outputs" / "convert") / "error.txt").is_file()


def test_every_frame_is_printed_where_that_is_asked_for(tmp_path: Path) -> None:
    failed = main_process.run(_words(tmp_path), tmp_path, STANDIN="user", VOXLAB_FULL_ERROR="1")
    assert failed.returncode == 2
    assert "in _act" in failed.stderr
    assert "UserError: data.root=nowhere" in failed.stderr


def test_a_bug_ends_with_1_and_its_traceback(tmp_path: Path) -> None:
    done = _main(tmp_path, action="bug")
    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: a bug in the stand-in") == 1
    assert _json(_only(tmp_path / "outputs" / "convert") / "status.json")["state"] == "failed"


def test_a_wrong_argument_names_itself(tmp_path: Path) -> None:
    done = _main(tmp_path, "+data.colour=red")
    assert done.returncode == 2
    assert "unexpected keyword argument 'colour'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_so(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [sys.executable, str(ROOT / "main.py"), *_words(tmp_path, "hydra.run.dir=run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STANDIN": "sleep", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"sleeping\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        said = process.stderr.read().decode()
    assert (f"interrupted. To go on: python main.py resume={tmp_path / 'run'}" in said) == (code == 130)
    assert _json(tmp_path / "run" / "status.json")["state"] == "interrupted"


def test_a_sweep_survives_a_failed_job_and_goes_on_later(tmp_path: Path) -> None:
    words = ["seed=1,2,3", "hydra.sweep.dir=sweep", "-m"]
    done = _main(tmp_path, *words, action="bug@2")
    assert done.returncode == 1
    rows = (tmp_path / "sweep" / "sweep.csv").read_text().splitlines()
    assert [row.partition("seed=")[2].split(",")[:2] for row in rows[1:]] == [
        ["1", "done"],
        ["2", "failed"],
        ["3", "done"],
    ]
    assert "a bug in the stand-in" in rows[2]
    assert "RuntimeError" in (tmp_path / "sweep" / "1" / "error.txt").read_text()

    again = _main(tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is done already") == 2
    assert (tmp_path / "sweep" / "sweep.csv").read_text().count(",done,") == 3
    assert not (tmp_path / "sweep" / "1" / "error.txt").exists()


def test_more_values_are_refused_before_the_first_job(tmp_path: Path) -> None:
    words = ["hydra.sweep.dir=sweep", "-m"]
    assert _main(tmp_path, "seed=1,2", *words).returncode == 0
    before = sorted(tmp_path.rglob("*"))
    refused = _main(tmp_path, "seed=1,3,2", *words)
    assert refused.returncode == 2
    assert "resume=sweep: a sweep of 2 runs." in main_process.run(["resume=sweep"], tmp_path).stderr
    assert "sweep is a sweep over seed=1,2, not over seed=1,3,2" in refused.stderr
    assert "type its own command (sweep/0/command.txt)" in refused.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (
        main_process.run(["resume=sweep/0"], tmp_path).returncode == 0
    )  # whose command.txt then is that of a run of its own
    assert _main(tmp_path, "seed=1,2", *words, "name=other").returncode == 0


def test_values_of_a_sweep_that_has_made_nothing_can_be_others(tmp_path: Path) -> None:
    words = ["hydra.sweep.dir=sweep", "-m"]
    assert _main(tmp_path, "seed=1,2", *words, action="bug").returncode == 1
    assert _main(tmp_path, "seed=1,3", *words).returncode == 0
    assert _column(tmp_path / "sweep" / "sweep.csv", "seed") == ["1", "3"]


def test_each_job_that_can_not_begin_says_why(tmp_path: Path) -> None:
    words = ["seed=1,2", "hydra.sweep.dir=sweep", "-m"]
    assert _main(tmp_path, *words).returncode == 0
    refused = _main(tmp_path, *words, "unit_rows=9")
    assert refused.returncode == 1
    for job in ("0", "1"):
        assert refused.stderr.count(f"ERROR {tmp_path / 'sweep' / job} is a run of another configuration") == 1
    assert "Traceback" not in refused.stderr


def test_a_job_that_is_done_but_has_lost_its_figures_says_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "done"}')
    with pytest.raises(UserError, match=r"0/metrics\.json: there is no such file"):
        provenance.read_summary(folder)
    (folder / "metrics.json").write_text('{"seed": ')
    done = _main(tmp_path, "hydra.sweep.dir=sweep", "-m")
    assert done.returncode == 1
    assert f"{folder / 'metrics.json'}: Expecting value" in done.stderr
    assert f"type the same command: rm -r {folder}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_loggers_write_the_summary_and_wandb_says_how_to_upload(tmp_path: Path) -> None:
    done = _main(tmp_path, "logger=wandb", "logger.wandb.offline=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "seed" in (tmp_path / "run" / "csv" / "version_0" / "metrics.csv").read_text()
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
    (run,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert run.name.endswith("-run")
    assert f"wandb sync {run}" in done.stderr


def test_git_state_of_a_folder_without_git(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == {"git.txt": "not a git checkout\n", "git.diff": ""}


def test_git_state_holds_commit_and_diff(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init", "-b", "trunk")
    (tmp_path / "file").write_text("one\n")
    git("add", "file")
    git("commit", "-m", "first")
    (tmp_path / "file").write_text("two\n")
    state = provenance.git_state(tmp_path)
    assert "branch trunk\ndirty True" in state["git.txt"]
    assert "+two" in state["git.diff"]


def test_the_command_names_its_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["main.py", "task=convert", "tags=[a, b]"])
    assert provenance.command() == "python main.py task=convert 'tags=[a, b]'"
    for key, value in {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    assert provenance.command() == "torchrun --nproc_per_node=4 --nnodes=2 main.py task=convert 'tags=[a, b]'"


def test_only_the_first_failing_rank_claims_the_error(tmp_path: Path) -> None:
    first, second = (provenance.Status(tmp_path, Ranks(rank=rank, world=2)) for rank in (1, 0))
    assert first.claim_error("the cause")
    threading.Timer(0.3, first.finish, ("failed", "the cause")).start()
    assert not second.claim_error("a consequence")
    assert (tmp_path / "error.txt").read_text() == "the cause"
    assert _json(tmp_path / "status.json")["state"] == "failed"  # waited for


def test_a_run_that_failed_early_makes_room_for_one_with_other_settings(tmp_path: Path) -> None:
    failed = _main(tmp_path, "hydra.run.dir=run", "seed=1", action="bug")
    assert failed.returncode == 1
    done = _main(tmp_path, "hydra.run.dir=run", "seed=2")
    assert done.returncode == 0, done.stderr
    assert _json(tmp_path / "run" / "metrics.json")["seed"] == 2
    assert not (tmp_path / "run" / "error.txt").exists()
    other = _main(tmp_path, "hydra.run.dir=run", "seed=3")
    assert other.returncode == 2
    assert "seed: 2 -> 3" in other.stderr


def _search(tmp_path: Path, *words: str, action: str = "", world: int = 1) -> subprocess.CompletedProcess[str]:
    search = ["-m", "hydra/sweeper=optuna", "seed=range(1,10)", "objective=seed", "hydra.sweep.dir=sweep"]
    search += [f"hydra.sweeper.{key}" for key in ("n_trials=3", "n_jobs=1", "direction=maximize", "sampler.seed=0")]
    return main_process.run(_words(tmp_path, *search, *words), tmp_path, world=world, STANDIN=action)


def _column(path: Path, name: str) -> list[str]:
    with path.open() as file:
        return [row[name] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_optuna_searches_for_the_objective_on_ranks_that_agree(tmp_path: Path) -> None:
    """A trial that fails is told and does not end the search; the search again takes what is done."""
    going_on = "hydra.sweeper.max_failure_rate=1"
    done = _search(tmp_path, going_on, action="user@8", world=2)
    assert done.returncode == 1
    said = f"the search is over, but 1 trial has failed:\n  {tmp_path / 'sweep' / '1'}: data.root=nowhere does not"
    assert done.stderr.count(said) == 1  # of the first rank
    assert "Traceback" not in done.stderr
    index = tmp_path / "sweep" / "sweep.csv"
    assert (_column(index, "state"), _column(index, "seed")) == (["done", "failed", "done"], ["6", "", "7"])
    assert yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())["best_value"] == 7

    again = _search(tmp_path, going_on)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is done already") >= 1
    assert yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())["best_value"] == 8
    assert _column(index, "seed") == ["6", "8", "7"]


def test_a_search_of_which_all_trials_fail_ends_without_a_traceback(tmp_path: Path) -> None:
    done = _search(tmp_path, "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.n_trials=2", action="user")
    assert done.returncode == 1
    assert "no trial of the search has a figure, 2 trials have failed:\n" in done.stderr
    assert "All trials are in sweep.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_without_an_objective_says_so(tmp_path: Path) -> None:
    done = _search(tmp_path, "objective=null", "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.n_trials=1")
    assert done.returncode == 1
    assert "objective=<a figure of metrics.json>" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_study_in_a_file_goes_on_where_a_search_was_stopped(tmp_path: Path) -> None:
    study = [f"hydra.sweeper.storage=sqlite:///{tmp_path / 'study.db'}", "hydra.sweeper.study_name=seeds"]
    stopped = _search(tmp_path, *study, action="user@8")  # the second trial ends it
    assert stopped.returncode == 1
    assert "Best value" not in stopped.stderr
    words = [*study, "hydra.sweep.dir=more", "hydra.sweeper.n_trials=1", "hydra.sweeper.sampler.seed=1"]
    done = _search(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(tmp_path / "study.db") as study_file:
        states = study_file.execute("SELECT state FROM trials ORDER BY trial_id").fetchall()
    assert [state for (state,) in states] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert len(_column(tmp_path / "more" / "sweep.csv", "state")) == 1


def test_an_objective_that_is_no_figure_is_named(tmp_path: Path) -> None:
    done = _main(tmp_path, "objective=sed")
    assert done.returncode == 2
    assert "objective=sed: the run has no such figure. Did you mean: seed?" in done.stderr


@pytest.mark.slow
def test_a_failed_job_under_joblib_costs_no_other(tmp_path: Path) -> None:
    words = ["seed=1,2,3", "hydra.sweep.dir=sweep", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, str(ROOT / "main.py"), *_words(tmp_path, *words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STANDIN": "user@2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).splitlines()
    for number in range(3):  # told apart, though they are mixed
        (line,) = [line for line in lines if line.endswith(f"INFO run folder: {tmp_path / 'sweep' / str(number)}")]
        assert line.startswith(f"[{number}] ")
    assert _column(tmp_path / "sweep" / "sweep.csv", "state") == ["done", "failed", "done"]
    assert _json(tmp_path / "sweep" / "1" / "status.json")["error"].startswith("data.root=nowhere")
    again = subprocess.run(
        command, cwd=tmp_path, env={**environment, "STANDIN": ""}, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert (again.stdout + again.stderr).count("is done already") == 2


def test_the_folder_of_another_task_is_never_taken_over(tmp_path: Path) -> None:
    failed = _main(tmp_path, "hydra.run.dir=run", action="bug")
    assert failed.returncode == 1
    other = _main(tmp_path, "hydra.run.dir=run", "task._target_=tests.standin.other")
    assert other.returncode == 2
    assert "run is a run of another configuration" in other.stderr
    assert "failed" in (tmp_path / "run" / "status.json").read_text()
