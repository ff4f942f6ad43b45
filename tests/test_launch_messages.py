"""What jobs at the same time and launchers may spoil without a word: the table of a sweep, a precision, a command."""

import csv
import logging
import sys
from functools import partial
from pathlib import Path

import pytest

from voxlab import provenance, run
from voxlab.parallel import COMMAND, Ranks
from voxlab.storage import atomic_write_json
from voxlab.tasks.trainer import lightning_trainer, make_trainer


def write_job(folder: Path, state: str, score: float) -> None:
    atomic_write_json(folder / "metrics.json", {"score": score})
    atomic_write_json(folder / "status.json", {"state": state, "seconds": 1.0, "error": None})


def test_the_table_of_a_sweep_misses_no_job_that_ends_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Job 1 ends, and writes the table, between what job 0 reads and what it writes."""
    write_job(tmp_path / "0", "done", 0.5)
    write_job(tmp_path / "1", "running", 0.0)
    write = provenance.atomic_write_bytes

    def end_of_job_1(path: Path, data: bytes) -> None:
        monkeypatch.setattr(provenance, "atomic_write_bytes", write)
        write_job(tmp_path / "1", "done", 0.75)
        provenance.write_sweep_index(tmp_path)
        write(path, data)

    monkeypatch.setattr(provenance, "atomic_write_bytes", end_of_job_1)
    provenance.write_sweep_index(tmp_path)
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [(row["state"], row["score"]) for row in rows] == [("done", "0.5"), ("done", "0.75")]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("status.json", "", "status.json: Expecting value: line 1"),
        ("status.json", "{}", "status.json: state is None"),
        ("status.json", '{"state": "done", "error": 5}', "status.json: error is 5"),
        ("metrics.json", "[1]", "metrics.json: not an object with keys, but [1]"),
    ],
)
def test_a_damaged_job_is_a_row_of_its_sweep(tmp_path: Path, name: str, content: str, reason: str) -> None:
    for job in ("0", "1"):
        write_job(tmp_path / job, "done", 0.5)
    (tmp_path / "0" / name).write_text(content)
    run._renew_sweep(tmp_path)
    damaged, whole = csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines())
    assert (damaged["state"], damaged["score"], damaged["error"][: len(reason)]) == ("unreadable", "", reason)
    assert (whole["state"], whole["score"], whole["error"]) == ("done", "0.5", "")
    assert f"unreadable: {name}: " in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["sweep.csv", "report.html"])
def test_a_job_is_done_where_the_files_of_its_sweep_cannot_be_written(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_job(tmp_path / "0", "done", 0.5)
    (tmp_path / name / "in the way").mkdir(parents=True)
    run._renew_sweep(tmp_path)
    (record,) = (each for each in caplog.records if each.name == "voxlab.run")
    assert (record.levelname, str(tmp_path / name) in record.message) == ("WARNING", True)
    other = {"sweep.csv": "report.html", "report.html": "sweep.csv"}[name]
    assert (tmp_path / other).is_file()


def test_the_command_is_what_the_user_typed_in_whatever_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/_submit.py", "folder"])
    monkeypatch.setenv(COMMAND, "main.py -m task=convert seed=1,2")
    assert provenance.command() == "python main.py -m task=convert seed=1,2"
    told = {"TORCHELASTIC_RUN_ID": "none", "ACCELERATE_MIXED_PRECISION": "no", "WORLD_SIZE": "8"}
    for name, value in {**told, "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    started = "accelerate launch --multi_gpu --num_processes=8 --num_machines=2 main.py -m task=convert seed=1,2"
    assert provenance.command() == started


@pytest.mark.parametrize(
    ("asked", "precision", "advice"),
    [
        (
            "bf16",
            None,
            "has no effect: this run computes in 32-true. Give trainer.precision=bf16-mixed",
        ),
        ("bf16", "bf16-mixed", None),
        ("no", "bf16-mixed", None),
    ],
)
def test_a_precision_that_only_accelerate_knows_is_said_to_have_no_effect(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    asked: str,
    precision: str | None,
    advice: str | None,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    keys = {"accelerator": "auto", "strategy": "auto", "precision": precision, "enable_progress_bar": False}
    with caplog.at_level(logging.WARNING, "voxlab"):
        trainer = partial(lightning_trainer, **keys)
        make_trainer(trainer, Ranks(), tmp_path, [], precision="32-true", find_unused_parameters=False)
    assert (advice in caplog.text) if advice else caplog.text == ""
