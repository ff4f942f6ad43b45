"""task=compare through main.py on stand-in runs, and what each piece makes of run folders."""

import csv
import dataclasses
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests import main_process
from voxlab import plots, report
from voxlab.errors import UserError
from voxlab.parallel import Ranks
from voxlab.tasks.compare import curves, differences, figures, labels, media, notices, page, shares, task, terminal
from voxlab.tasks.compare.figures import Figure
from voxlab.tasks.compare.find import find_runs, search
from voxlab.tasks.compare.groups import by_task
from voxlab.tasks.compare.pages import read_notices, read_page
from voxlab.tasks.compare.runs import Run, read_runs

STANDIN = ["task=convert", "codec=none", "data.source=sample", "logger=none", "task._target_=tests.standin.work"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of three stand-in jobs, of which the second fails, and a run of its own."""
    folder = tmp_path_factory.mktemp("compare")
    words = [*STANDIN, f"data.root={folder / 'corpus'}"]
    done = main_process.run(["-m", *words, "seed=1,2,3", "hydra.sweep.dir=outputs/sweep"], folder, STANDIN="bug@2")
    assert done.returncode == 1, done.stderr
    done = main_process.run([*words, "seed=4", "max_seconds=7", "name=alone", "hydra.run.dir=outputs/one"], folder)
    assert done.returncode == 0, done.stderr
    return folder


def compare(folder: Path, *words: str) -> Any:
    return main_process.run(["task=compare", *words], folder)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# ---- through main.py -----------------------------------------------------------------------------------------------


def test_runs_and_sweeps_are_laid_side_by_side(outputs: Path) -> None:
    done = compare(outputs, "runs=[outputs/sweep,'outputs/o*']", "sort=seed", "hydra.run.dir=side")
    assert done.returncode == 0, done.stderr
    rows = rows_of(outputs / "side" / "comparison.csv")
    assert [(row["run"], row["state"], row["seed"]) for row in rows] == [
        ("one", "done", "4"),
        ("sweep/2", "done", "3"),
        ("sweep/0", "done", "1"),
        ("sweep/1", "failed", "2"),
    ]
    assert "a bug in the stand-in" in rows[3]["error"]
    assert [row["max_seconds"] for row in rows] == ["7.0", "300.0", "300.0", "300.0"]
    text = (outputs / "side" / "report.html").read_text()
    assert "1 of 4 runs are not done and have no figures: sweep/1 (failed)" in text
    assert "RuntimeError: a bug in the stand-in" in text
    assert "<small>alone</small>" in text
    assert json.loads((outputs / "side" / "metrics.json").read_text())["failed"] == 1


def test_the_terminal_gets_plain_lines_where_it_is_none(outputs: Path) -> None:
    done = compare(outputs, "runs=outputs/sweep", "metrics=[world]", "hydra.run.dir=plain")
    lines = done.stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["run", "state", "seed", "world"],
        ["0", "done", "1", "1"],
        ["2", "done", "3", "1"],
        ["1", "failed", "2", "-"],
        ["-", "none"],
    ]
    assert done.stderr.splitlines()[-1].endswith("/plain/report.html")
    assert "INFO done: " in done.stderr
    log = (outputs / "outputs" / "sweep" / "2" / "rank0.log").read_text()
    assert log.count("sweep/report.html (settings, all figures, curves)") == 1
    assert "\x1b" not in done.stdout


def test_a_dry_run_lists_the_runs_and_writes_nothing(outputs: Path) -> None:
    before = sorted(outputs.rglob("*"))
    done = compare(outputs, "runs=outputs/*", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "4 runs to compare" in done.stderr
    assert "outputs/sweep/1: failed" in done.stderr
    assert sorted(outputs.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": None}, "task=compare needs run folders"),
        ({"runs": "nowhere"}, r"runs=nowhere: no such folder.\nThe latest runs: none here.\nGive run folders"),
        ({"runs": ["sweep", "*.csv"]}, r"runs=\*\.csv: no such folder"),
        ({"runs": "empty"}, "runs=empty: no run in it"),
        ({"metrics": ["wrold"]}, r"metrics=wrold: no run has such a figure.\nThe runs have 2 figures, .*world"),
        ({"sort": "ap"}, "sort=ap: no run has such a figure"),
        ({"media": -1}, "media=-1: give 0 or more"),
    ],
)
def test_wrong_words_are_answered(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    (outputs / "outputs" / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(outputs / "outputs")
    given: dict[str, Any] = {"runs": "sweep", "metrics": None, "sort": None, "media": 8, "dry_run": False}
    with pytest.raises(UserError, match=message):
        task.compare(**{**given, **changes}, ranks=Ranks(), run_dir=outputs / "wrong")
    assert not (outputs / "wrong").exists()


def test_the_latest_runs_are_no_comparisons_and_have_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, state in (("laughter/a", "done"), ("laughter/b", "failed"), ("compare/c", "done")):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "status.json").write_text(f'{{"state": "{state}"}}')
    with pytest.raises(UserError, match=r"The latest runs: outputs/laughter/a\.\n"):
        find_runs(None, tmp_path)


def finish(folder: Path, age: float, state: str = "done", config: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "status.json").write_text(f'{{"state": "{state}"}}')
    os.utime(folder / "status.json", (10_000 - age, 10_000 - age))


def test_the_latest_runs_are_of_several_tasks_and_may_be_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ages = {"extract/a": 1, "extract/b": 2, "extract/c": 3, "laughter/sweep/0": 9, "laughter/sweep/1": 7, "a2g/d": 50}
    for name, age in ages.items():
        finish(tmp_path / "outputs" / name, age)
    finish(tmp_path / "outputs" / "convert" / "sweep" / "0", 0, "failed")
    finish(tmp_path / "outputs" / "laughter" / "compared", 0, config="stage: compare\n")
    (tmp_path / "outputs" / "extract" / "c" / "status.json").write_text("{")
    with pytest.raises(UserError, match="The latest runs: outputs/a2g/d, outputs/laughter/sweep, outputs/extract/a\\."):
        find_runs(None, tmp_path)
    shutil.rmtree(tmp_path / "outputs" / "a2g")
    with pytest.raises(UserError, match="outputs/laughter/sweep, outputs/extract/b, outputs/extract/a\\."):
        find_runs(None, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("outputs/laugter/*", "Did you mean runs='outputs/laughter/*'?"),
        ("output/laughter/sweep", "Did you mean runs='outputs/laughter/sweep'?"),
        ("outputs/laughter/sweep/7", "outputs/laughter/sweep has the runs 0, 1, 2, 10."),
        ("outputs/laughter/sweep/7*", "outputs/laughter/sweep has the runs 0, 1, 2, 10."),
        ("outputs/laughter/weep/*/x", "Did you mean runs='outputs/laughter/sweep/*/x'?"),
    ],
)
def test_what_stands_beside_a_missing_folder_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for job in (0, 1, 2, 10):
        finish(tmp_path / "outputs" / "laughter" / "sweep" / str(job), 0)
    for named in (pattern, str(tmp_path / pattern)):
        with pytest.raises(UserError, match="no such folder") as raised:
            find_runs(named, tmp_path / "own")
        assert str(raised.value).splitlines()[1].replace(f"{tmp_path}/", "") == line
    with pytest.raises(UserError, match=r"no such folder\.\nThe latest runs"):
        find_runs("outputs/nothing_like_it", tmp_path / "own")


COMPARISONS = {
    "by_task": "task:\n  _target_: voxlab.tasks.compare.task.compare\n  _partial_: true\n",
    "by_stage": "stage: compare\ntask:\n  _target_: voxlab.tasks.laughter.task.laughter\n",
}


def test_runs_that_compare_are_no_runs_to_compare(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finish(tmp_path / "runs" / "one", 0, config="stage: fit\nname: stage_compare\n")
    for name, config in COMPARISONS.items():
        finish(tmp_path / "runs" / name, 0, config=config)
    for pattern in ("runs", "runs/*"):
        found = search([str(tmp_path / pattern), str(tmp_path / "runs")], tmp_path / "own")
        assert [path.name for path in found.runs] == ["one"]
        assert sorted(path.name for path in found.left_out) == ["by_stage", "by_task"]
    for name in COMPARISONS:  # named itself, beside a pattern that leaves it out
        found = search([str(tmp_path / "runs"), str(tmp_path / "runs" / name)], tmp_path / "own")
        assert [path.name for path in found.runs] == ["one", name]
        assert len(found.left_out) == 1
    with pytest.raises(UserError, match=r"runs=.*/runs/by_\*: nothing to compare: .*themselves compare .*2 in all"):
        find_runs(str(tmp_path / "runs" / "by_*"), tmp_path / "own")
    given: dict[str, Any] = {"runs": str(tmp_path / "runs"), "metrics": None, "sort": None, "media": 8}
    with caplog.at_level("INFO"):
        assert task.compare(**given, dry_run=True, ranks=Ranks(), run_dir=tmp_path / "own") == {"runs": 1}
    assert caplog.messages[0] == "left out, since they themselves compare (task=compare, stage=compare): 2"


def test_comparisons_are_known_by_what_main_py_writes(outputs: Path) -> None:
    """The resolved configuration of a real task=compare."""
    done = compare(outputs, "runs=outputs/one", "hydra.run.dir=again/first")
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    done = compare(outputs, "runs=[outputs/one,again]", "hydra.run.dir=refused")
    assert done.returncode == 2
    assert "runs=again: nothing to compare" in done.stderr
    shutil.copytree(outputs / "outputs" / "one", outputs / "again" / "one")
    done = compare(outputs, "runs=again/*", "hydra.run.dir=again/second")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("themselves compare (task=compare, stage=compare): 1\n") == 1
    assert [row["run"] for row in rows_of(outputs / "again" / "second" / "comparison.csv")] == ["one"]


@pytest.mark.parametrize("name", ["report.html", "git.diff", "packages.txt"])
def test_a_file_that_may_not_be_read_leaves_the_others_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for job in ("a", "b", "c"):
        finish(tmp_path / "runs" / job, 0, config=f"seed: {ord(job)}\n")
        (tmp_path / "runs" / job / "metrics.json").write_text('{"score": 4.5}')
        (tmp_path / "runs" / job / "git.txt").write_text("commit 1234\ndirty True\n")
        write_run_page(tmp_path / "runs" / job, 2000)
    closed, read = tmp_path / "runs" / "b" / name, Path.read_text
    closed.touch()

    def refuse(path: Path, *words: Any, **named: Any) -> str:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *words, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    given: dict[str, Any] = {"runs": str(tmp_path / "runs"), "metrics": None, "sort": None, "media": 8}
    task.compare(**given, dry_run=False, ranks=Ranks(), run_dir=tmp_path / "own")
    rows = {row["run"]: row["state"] for row in rows_of(tmp_path / "own" / "comparison.csv")}
    if name == "report.html":
        assert set(rows.values()) == {"done"}
        text = "report.html can't be read, its warnings, clips and plots are not shown: Permission denied (run b)."
        assert text in read_notices(tmp_path / "own" / "report.html")
        assert read_page(tmp_path / "own" / "report.html").clips
    else:
        assert rows == {"a": "done", "c": "done", "b": f"unreadable: {name}: Permission denied"}


def test_a_mistake_in_main_py_is_a_line(outputs: Path) -> None:
    done = compare(outputs, "runs=nowhere", "hydra.run.dir=wrong")
    assert done.returncode == 2
    assert "runs=nowhere: no such folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_each_job_of_a_sweep_renews_its_page(outputs: Path) -> None:
    text = (outputs / "outputs" / "sweep" / "report.html").read_text()
    assert "Sweep sweep" in text
    assert "3 runs of convert" in text
    assert 'href="./0/report.html"' not in text  # stand-ins write no page


def test_a_copy_elsewhere_suffices(outputs: Path, tmp_path: Path) -> None:
    shutil.copytree(outputs / "outputs" / "sweep", tmp_path / "moved", ignore=shutil.ignore_patterns(".hydra"))
    runs = read_runs(find_runs([str(tmp_path)], tmp_path / "own"))
    assert [(run.label, run.state, run.task) for run in runs] == [
        ("0", "done", "unknown"),
        ("1", "failed", "unknown"),
        ("2", "done", "unknown"),
    ]
    assert differences.settings(runs) == {"seed": [1, 2, 3]}


# ---- finding -------------------------------------------------------------------------------------------------------


def begin(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "running"}')


def test_runs_come_once_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("shift10", "shift5", "sweeps/a/0", "too/deep/for/a/run", ".trash/0"):
        begin(tmp_path / name)
    found = find_runs([str(tmp_path / "shift*"), str(tmp_path)], tmp_path / "own")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["shift5", "shift10", "sweeps/a/0"]


def test_the_comparison_itself_is_no_run_of_it(tmp_path: Path) -> None:
    begin(tmp_path / "one")
    begin(tmp_path / "own")
    assert find_runs([str(tmp_path / "*")], tmp_path / "own") == [tmp_path / "one"]


def test_a_job_that_never_began_and_one_that_was_killed_are_shown(tmp_path: Path) -> None:
    (tmp_path / "0" / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / ".hydra" / "config.yaml").write_text("seed: 1\n")
    begin(tmp_path / "1")
    (tmp_path / "1" / "rank0.log").touch()
    states = [run.state for run in read_runs(find_runs([str(tmp_path)], tmp_path / "own"))]
    assert states[0] == "not started"
    assert states[1].startswith("running or killed; last log 20")


def test_labels_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    for name in ("a/0", "a/1", "b/0"):
        begin(tmp_path / name)
    assert [run.label for run in read_runs(find_runs([str(tmp_path)], tmp_path))] == ["a/0", "a/1", "b/0"]
    assert [run.label for run in read_runs(find_runs([str(tmp_path / "a")], tmp_path))] == ["0", "1"]
    begin(tmp_path / "c" / "7")
    begin(tmp_path / "alone")
    mixed = [str(tmp_path / name) for name in ("alone", "c", "a/1")]
    assert [run.label for run in read_runs(find_runs(mixed, tmp_path))] == ["alone", "c/7", "a/1"]


def test_titles_that_are_cut_equal_are_told_apart(tmp_path: Path) -> None:
    """Long names of folders that differ at their end: one entry in the legend, one clip and one curve for each."""
    for place, name in enumerate(("a", "b", "c")):
        folder = tmp_path / f"{'long' * 20}{name}"
        begin(folder)
        write_run_page(folder, 2000 + 500 * place)
        (folder / "history.jsonl").write_text('{"step": 1, "val/loss": 2.0}\n')
    runs = read_runs(find_runs([str(tmp_path)], tmp_path / "own"))
    assert [run.title[-5:] for run in runs] == ["… [1]", "… [2]", "… [3]"]
    (legend, _) = curves.sections("Curves", runs)
    assert legend.body.count("<li>") == 3
    listen = next(iter(media.sections(runs, 3)))
    assert listen.body.count("<audio") == 7  # the original once, both coded ones of three runs


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("status.json", b'{"state": "do', "Unterminated string"),
        ("status.json", b"[]", "not an object with keys, but []"),
        ("status.json", b"{}", "state is None"),
        ("metrics.json", b"\xff", "'utf-8' codec can't decode byte 0xff"),
        ("metrics.json", b"", "Expecting value: line 1"),
        ("config.yaml", b"a: [1\nb: 2", "did not find expected ',' or ']' in line 2"),
        ("config.yaml", b"", "not an object with keys, but None"),
        ("history.jsonl", b'{"step": 1}\n{"st\n{"step": 2}\n', "line 2 is no row of JSON"),
        ("history.jsonl", b'5\n{"step": 1}\n', "line 1 is no row of JSON"),
        (".hydra/overrides.yaml", b"a: b", "not a list of words"),
    ],
)
def test_a_run_that_cannot_be_read_is_shown_beside_the_others(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    for job in ("0", "1"):
        (tmp_path / job / ".hydra").mkdir(parents=True)
        (tmp_path / job / "status.json").write_text('{"state": "done", "seconds": 1.5, "error": null}')
        (tmp_path / job / "metrics.json").write_text('{"score": 4.5}')
        (tmp_path / job / "history.jsonl").write_text('{"step": 1, "val/loss": 2.0}\n{"st')  # cut short: fine
    (tmp_path / "0" / name).write_bytes(content)
    given: dict[str, Any] = {"runs": str(tmp_path), "metrics": None, "sort": "score", "media": 8, "dry_run": False}
    assert task.compare(**given, ranks=Ranks(), run_dir=tmp_path / "own")["done"] == 1
    whole, damaged = rows_of(tmp_path / "own" / "comparison.csv")
    assert (whole["state"], whole["score"]) == ("done", "4.5")
    assert damaged["state"].startswith(f"unreadable: {name}: {reason}")
    assert damaged["score"] == ""
    assert f"unreadable: {name}: " in (tmp_path / "own" / "report.html").read_text().replace("<wbr>", "")


# ---- settings ------------------------------------------------------------------------------------------------------


def make_run(name: str, **changes: Any) -> Run:
    values: dict[str, Any] = {
        **{"folder": Path(name), "label": name, "title": name, "about": "", "task": "laughter"},
        **{"state": "done", "error": ""},
        **{"started": None, "seconds": 61.0, "settings": {}, "raw": {}, "choices": {}, "words": [], "figures": {}},
        **{"code": {}, "packages": {}},
    }
    return Run(**{**values, **changes})


def test_what_follows_from_a_chosen_option_is_not_repeated() -> None:
    def run(loss: str, gamma: float | None, words: list[str]) -> Run:
        node = {"loss.name": loss, "loss.gamma": gamma, "store": "${x}"}
        return make_run(loss, raw=node, settings=node | {"store": loss}, choices={"loss": loss}, words=words)

    runs = [run("bce", None, ["loss=bce"]), run("focal", 2.0, ["loss=focal"])]
    assert differences.settings(runs) == {"loss": ["bce", "focal"]}
    named = [*runs, run("focal", 4.0, ["loss=focal", "loss.gamma=4"])]
    assert differences.settings(named) == {"loss": ["bce", "focal", "focal"], "loss.gamma": [None, 2.0, 4.0]}
    assert differences.settings([runs[0], run("focal", 4.0, ["loss=focal", "loss.gamma=4"])]) == {
        "loss": ["bce", "focal"],
        "loss.gamma": [None, 4.0],
    }


def test_the_task_says_what_its_keys_would() -> None:
    runs = [
        make_run("a", raw={"shift": 5}, choices={"task": "laughter", "logger": "none"}),
        make_run("b", raw={"out": "x", "logger.csv": 1}, choices={"task": "extract", "logger": "local"}),
    ]
    assert differences.settings(runs) == {"task": ["laughter", "extract"]}


def test_code_and_packages_that_differ_are_listed() -> None:
    runs = [
        make_run("a", code={"commit": "1", "torch": "2.9"}, packages={"rich": "13", "numpy": "2"}),
        make_run("b", code={"commit": "2", "torch": "2.9"}, packages={"rich": "14", "numpy": "2", "snac": "1"}),
    ]
    assert differences.code(runs) == {"commit": ["1", "2"]}
    assert differences.packages(runs) == {"rich": ["13", "14"], "snac": [None, "1"]}


# ---- figures -------------------------------------------------------------------------------------------------------


def test_figures_have_the_intervals_of_their_tasks() -> None:
    read = figures.read_figures(
        {
            **{"test/ap": 0.4, "test/ap/ci": [0.3, 0.5], "ms_mel": 6.0, "stoi": 0.5, "flag": True, "out": "x"},
            **{"details": {"ms_mel": {"low": 5.0, "high": 7.0, "n": 2}, "stoi": {"low": None, "high": None}}},
        }
    )
    assert read == {"test/ap": Figure(0.4, (0.3, 0.5)), "ms_mel": Figure(6.0, (5.0, 7.0)), "stoi": Figure(0.5)}


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        *[("test/ap", 1), ("test/event/recall_at_5_fa_per_hour", 1), ("stoi", 1), ("rows_per_second", 1)],
        *[("test/mse/upper", -1), ("val_mel_l1", -1), ("test/fgd_raw", -1), ("failed_rows", -1), ("val_loss", -1)],
        *[("test/prior", 0), ("val_mel_l1_constant", 0), ("baseline/vad/ap", 0), ("test/std_ratio/face", 0)],
        *[("recordings", 0), ("test/bc_fixed", 0), ("shift", 0), ("test/at_half/f1", 0)],
    ],
)
def test_the_direction_of_a_figure(name: str, sign: int) -> None:
    assert figures.direction(name) == sign


def test_the_best_is_marked_where_there_is_one() -> None:
    three = [Figure(1.0), None, Figure(3.0)]
    assert figures.best("test/ap", three) == 3.0
    assert figures.best("val_loss", three) == 1.0
    assert figures.best("bitrate", three) is None
    assert figures.best("test/ap", [Figure(1.0), Figure(1.0)]) is None


def test_figures_are_chosen_by_pattern_or_by_weight() -> None:
    runs = [{"test/f1": Figure(1), "test/tp": Figure(5), "test/ap": Figure(1)}, {"test/event/f1": Figure(1)}]
    assert figures.choose(runs, None) == ["test/ap", "test/f1"]
    assert figures.choose(runs, ["test/tp", "*/f1"]) == ["test/tp", "test/f1", "test/event/f1"]
    assert figures.choose([{"mine/loss": Figure(1), "mine/size": Figure(1)}], None) == ["mine/loss"]
    assert figures.choose([{"size": Figure(1)}], None) == ["size"]
    with pytest.raises(UserError, match=r"metrics=test/fp: no run .*\n.*3 figures|4 figures, among them: test/tp"):
        figures.choose(runs, ["test/fp"])


def test_runs_are_ordered_the_best_first_and_those_without_last() -> None:
    runs = [{"val_loss": Figure(2.0)}, {}, {"val_loss": Figure(1.0)}]
    assert figures.order(runs, "val_loss") == [2, 0, 1]
    assert figures.order([{"size": Figure(1)}, {"size": Figure(2)}], "size") == [1, 0]


# ---- what is shown -------------------------------------------------------------------------------------------------


def test_runs_of_several_tasks_have_a_table_each(tmp_path: Path) -> None:
    runs = [
        make_run("a", figures={"test/ap": Figure(0.2, (0.1, 0.3))}),
        make_run("b", figures={"test/ap": Figure(0.4)}),
        make_run("c", task="convert", figures={"rows": Figure(1234567)}),
    ]
    text = page.write(tmp_path / "report.html", "T", by_task(runs, None), 8).read_text()
    assert ">Runs: laughter</h2>" in text
    assert ">Runs: convert</h2>" in text
    assert '<strong class="best">0.4</strong>' in text
    assert "0.2<small>0.1 to 0.3</small>" in text
    assert ">average precision (AP) ↑<small>test/ap</small></th>" in text
    assert ">rows</th>" in text
    assert "<td>0:01:01</td>" in text
    assert "1,234,567" in text


def test_a_terminal_gets_bold_figures() -> None:
    runs = [make_run(name, figures={"test/ap": Figure(value)}) for name, value in (("[a]", 0.2), ("b", 0.4))]
    file = io.StringIO()
    terminal.show(by_task(runs, None), Console(file=file, force_terminal=True, width=60))
    assert re.search(r"\x1b\[1;32m +0\.4\*", file.getvalue())
    assert "[a]" in file.getvalue()
    assert "* best of its column\n" in file.getvalue()


NAMES = ("test/ap_lift", "test/ap", "test/auroc", "test/f1", "test/event/recall", "test/event/fa_per_hour")


def show(runs: list[Run], width: int) -> list[str]:
    file = io.StringIO()
    terminal.show(by_task(runs, None), Console(file=file, width=width))
    return file.getvalue().splitlines()


def make_measured(count: int, **changes: Any) -> list[Run]:
    """Runs of many figures with intervals, of which the last has the best."""
    measured = [{name: Figure(0.1 * n, (0.05 * n, 0.11 * n)) for name in NAMES} for n in range(1, count + 1)]
    return [make_run(str(n), figures=values, **changes) for n, values in enumerate(measured)]


@pytest.mark.parametrize("width", [80, 100, 120, 160])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_no_line_in_the_terminal_is_folded(width: int, count: int) -> None:
    lines = show(make_measured(count), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [words.count(name) for name in NAMES] == [1] * len(NAMES)
    assert sum(word.startswith(f"{0.1 * count:.4g}") for word in words) >= len(NAMES)
    heads = [line for line in lines if line.startswith("run ")]
    assert all(line == "" for line in lines[:-1] if not line.strip())
    assert len(heads) == lines.count("") + 1  # every part has its own headings


def test_few_runs_of_many_figures_stand_in_columns() -> None:
    lines = show(make_measured(2), 90)
    assert [line.split()[0] for line in lines[:-1]] == ["run", *NAMES]
    assert lines[0].split() == ["run", "0", "1"]
    assert lines[-1].startswith("* best of its row; ")
    assert show(make_measured(2), 160)[0].split() == ["run", *NAMES]


def test_long_names_and_states_stand_below_the_table() -> None:
    long = "a-sweep-of-many-things/and-one-of-its-jobs"
    runs = [
        make_run(long, figures={"test/ap": Figure(0.5)}, settings={"store": f"/features/{'deep/' * 9}one"}),
        make_run("b", state="unreadable: metrics.json: cut short", settings={"store": "/features/two"}),
    ]
    runs = [dataclasses.replace(run, raw=run.settings) for run in runs]
    lines = show(runs, 80)
    assert lines[0].split() == ["run", "state", "store", "test/ap"]
    assert lines[1].split() == ["[1]", "done", "/feature…/deep/deep/deep/one", "0.5"]
    assert lines[2].split() == ["[2]", "unreadable", "/features/two", "-"]
    assert lines[3:] == ["- none", f"[1]: {long}", "[2]: b: unreadable: metrics.json: cut short"]


def test_numbers_lead_to_folders_that_can_be_opened() -> None:
    figure = {"test/ap": Figure(0.5)}
    folder = Path("outputs/laughter/2026-11-22_05-50-19_de59/0")
    runs = [make_run("0", folder=folder, figures=figure), make_run("a-run-of-its-own-with-a-name", figures=figure)]
    assert f"[1]: {folder}" in show(runs, 80)


def test_every_part_of_a_table_tells_the_settings_of_its_runs() -> None:
    runs = [
        dataclasses.replace(run, settings=(own := {"loss": loss, "shift": 5}), raw=own)
        for run, loss in zip(make_measured(6), ("bce", "focal", "dice", "a", "b", "c"), strict=True)
    ]
    runs[0] = dataclasses.replace(runs[0], settings=(own := {"loss": "bce", "shift": 10}), raw=own)
    lines = show(runs, 80)
    heads = [line.split() for line in lines if line.startswith("run ")]
    assert len(heads) >= 2
    assert [head[:3] for head in heads] == [["run", "loss", "shift"]] * len(heads)
    assert sum(line.split()[:3] == ["1", "focal", "5"] for line in lines) == len(heads)
    assert max(map(len, lines)) <= 80


def test_settings_that_leave_no_room_for_figures_stand_in_the_first_part_alone() -> None:
    long = dict.fromkeys(("a_setting", "another", "the_third", "the_last"), "x" * 27)
    runs = [
        dataclasses.replace(run, settings=(own := {key: f"{value}{run.label}" for key, value in long.items()}), raw=own)
        for run in make_measured(8)
    ]
    lines = show(runs, 60)
    assert max(map(len, lines)) <= 60
    heads = [line.split()[1:] for line in lines if line.startswith("run ")]
    assert heads[-1] == ["a_setting", NAMES[-1]]  # which has room beside it
    assert [sum(name in head for head in heads) for name in (*NAMES, *list(long)[1:])] == [1] * (len(NAMES) + 3)


def test_the_numbers_of_a_row_are_written_alike(tmp_path: Path) -> None:
    rate = "test/event/fa_per_hour"
    runs = [make_run("a", figures={rate: Figure(974.3, (0.00123456, 1345.6))})]
    runs.append(make_run("b", figures={rate: Figure(23456.7, (1110.4, 999_000.2))}))
    text = page.write(tmp_path / "report.html", "T", by_task(runs, None), 8).read_text()
    lines = show(runs, 80)
    assert "974.3* [0.001235, 1346]" in lines[1]
    assert "23,457 [1110, 999,000]" in lines[2]
    assert "23,457<small>1110 to 999,000</small>" in text
    assert "e+0" not in "".join(lines)


# ---- what limits a comparison --------------------------------------------------------------------------------------


def make_shares(*priors: float) -> list[Run]:
    figures = [{name: Figure(prior * n) for n, name in enumerate(NAMES, 1)} for prior in priors]
    known = [{**own, "test/prior": Figure(prior)} for own, prior in zip(figures, priors, strict=True)]
    return [make_run(str(number), figures=own) for number, own in enumerate(known)]


def test_runs_of_other_shares_of_positives_are_ranked_by_what_does_not_depend_on_them(tmp_path: Path) -> None:
    runs = [*make_shares(0.04, 0.08), make_run("failed", state="failed")]
    (group,) = by_task(runs, None)
    assert {name for name, best in group.best.items() if best is not None} == {"test/ap_lift", "test/auroc"}
    notice = (
        "The runs have different shares of positives (test/prior 0.04 to 0.08), which alone moves most figures of "
        "test: compare AP over the prior (test/ap_lift) and AUROC (test/auroc); no best is marked in the others."
    )
    text = page.write(tmp_path / "report.html", "T", [group], 8).read_text().replace("<wbr>", "")
    assert text.count(notice) == 1
    assert text.count('class="best"') == 2
    lines = show(runs, 120)
    assert " ".join(lines).count(f"Warning: {notice}".partition(" which")[0]) == 1
    assert sum(line.count("*") for line in lines if not line.startswith("* best")) == 2
    (only,) = by_task(runs, ["test/ap"])
    assert only.best == {"test/ap": None}
    assert "moves most figures of test: no best is marked." in page.write(tmp_path / "b", "T", [only], 8).read_text()


@pytest.mark.parametrize("priors", [(0.04,), (0.04, 0.04), (0.04, 0.0401)])
def test_runs_of_one_share_of_positives_are_ranked_by_all(tmp_path: Path, priors: tuple[float, ...]) -> None:
    (group,) = by_task(make_shares(*priors), None)
    assert group.shares == {}
    assert [best is not None for best in group.best.values()] == [len(set(priors)) > 1] * len(NAMES)
    assert "shares of positives" not in page.write(tmp_path / "report.html", "T", [group], 8).read_text()


def test_one_split_says_nothing_of_another_and_baselines_nothing_of_runs() -> None:
    runs = [
        {"val/prior": Figure(prior), "baseline/x/prior": Figure(prior), "test/prior": Figure(0.5)} for prior in (1, 2)
    ]
    found = shares.differing(runs)
    assert found == {"val": (1, 2)}
    names = ("test/f1", "val/f1", "val/macro/auroc", "val/ap_lift", "val/event/recall", "rows")
    assert [name for name in names if not shares.can_rank(name, found)] == ["val/f1", "val/event/recall"]


def test_warnings_of_the_runs_stand_on_their_comparison(tmp_path: Path) -> None:
    """Once each, with the runs that have it; those of runs without figures, and mere notes, don't."""
    synthetic, odd, random = "Synthetic <corpus>: /a/path_of/things & such.", "One_of_two outputs is silent.", "Random."
    told = {"a": [synthetic], "b": [synthetic, odd, odd], "failed": [random], "c": [synthetic]}
    for name, texts in told.items():
        sections = [*(report.notice(text) for text in texts), report.notice("only a note", "info")]
        report.write_report(tmp_path / name / "report.html", "T", "S", [report.facts("F", {"x": 1}), *sections])
    states = {"failed": {"state": "failed", "figures": {}}}
    measured: dict[str, Any] = {"figures": {"rows": Figure(1)}, "task": "convert"}
    runs = [make_run(name, folder=tmp_path / name, **{**measured, **states.get(name, {})}) for name in told]
    written = page.write(tmp_path / "report.html", "T", by_task(runs, None), 8)
    assert read_notices(written) == [
        "1 of 4 runs are not done and have no figures: failed (failed).",
        f"{synthetic.removesuffix('.')} (all 3 runs of convert).",
        "One_of_two outputs is silent (run b).",
    ]
    said = " ".join(" ".join(show(runs, 200)).split())
    assert f"Warning: {synthetic.removesuffix('.')} (all 3 runs of convert). Warning: One_of" in said
    assert read_notices(tmp_path / "none.html") == []


def test_many_warnings_and_runs_are_counted(tmp_path: Path) -> None:
    names = [f"run{number}" for number in range(15)]
    for name in names:
        texts = [f"warning of {name}."] if name == names[-1] else ["of most.", *(["again."] * 2)]
        more = [f"{number} of 9." for number in range(9)] if name == names[0] else []
        report.write_report(tmp_path / name / "report.html", "T", "S", list(map(report.notice, [*texts, *more])))
    runs = [make_run(name, folder=tmp_path / name, figures={"rows": Figure(1)}) for name in names]
    (group,) = by_task(runs, None)
    lines = list(notices.about(group, names))
    assert lines[0] == f"of most (runs {', '.join(names[:12])} and 2 more)."
    assert lines[-1] == "4 more warnings stand on the pages of the runs."
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("task", "name", "words"),
    [
        ("laughter", "test/event/fa_per_hour", "false alarms per hour at the threshold"),
        ("laughter", "val/ap", "average precision (AP), validation"),
        ("laughter", "test/unheard_of", ""),
        ("train_tokenizer", "si_sdr", "SI-SDR (dB)"),
        ("convert", "test/ap", ""),
    ],
)
def test_figures_are_called_as_in_the_reports_of_their_tasks(task: str, name: str, words: str) -> None:
    assert labels.label(task, name) == words
    assert labels.titled(task, name, " ↓") == report.Cell(f"{words or name} ↓", name if words else "")


def test_every_figure_that_is_shown_first_has_words() -> None:
    assert [name for name in NAMES if not labels.label("laughter", name)] == []


def test_curves_have_words_and_names() -> None:
    runs = [make_run(name, title=name, history=[{"step": 1.0, "val/ap": 0.5, "val/odd": 1.0}]) for name in "ab"]
    (_, charts) = curves.sections("Curves", runs)
    assert '<h3>average precision (AP), validation</h3><p class="detail">val/ap</p>' in charts.body
    assert "<h3>val/odd</h3><img" in charts.body


def test_curves_of_rate_and_speed_are_left_out() -> None:
    row = dict.fromkeys(("step", "train/loss", "train/lr", "train/frames_per_s", "val/prior", "val/ap"), 1.0)
    assert curves._names([[row]]) == ["val/ap", "train/loss"]


def write_run_page(folder: Path, frequency: float) -> None:
    time = torch.arange(2400) / 24000
    wavs = {"original": torch.sin(time * 3000), "coded": torch.sin(time * frequency)}
    clips = [report.Clip(name, wav[None], 24000) for name, wav in wavs.items()]
    chart = plots.plot_curves({"x": ([1, 2], [frequency, 1])}, "x", "y")
    sections = [report.players("Clips", [*clips, clips[1]]), report.figure("Loss & more", chart, "a caption")]
    sections += [report.gallery("", [report.Media("speaker", "video/mp4", b"moving")])]
    report.write_report(folder / "report.html", "T", "S", sections)


def test_pages_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_run_page(tmp_path, 2000)
    read = read_page(tmp_path / "report.html")
    assert list(read.clips) == [
        ("Clips", "original", 0),
        ("Clips", "coded", 0),
        ("Clips", "coded", 1),
        ("", "speaker", 0),
    ]
    assert list(read.plots) == [("Loss & more", "", 0)]
    assert read.clips["", "speaker", 0].data == b"moving"
    assert read.clips["Clips", "coded", 0].data == read.clips["Clips", "coded", 1].data
    assert read.plots["Loss & more", "", 0].data.startswith(b"\x89PNG")
    assert read_page(tmp_path / "none.html").clips == {}


def test_clips_and_plots_in_common_stand_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(name, folder=tmp_path / name) for name in ("a", "b", "failed")]
    for run, frequency in zip(runs[:2], (2000, 2500), strict=True):
        write_run_page(run.folder, frequency)
    listen, side = media.sections(runs, 2)
    assert listen.body.count("<audio") == 5  # the original once, the coded ones of both runs
    assert listen.body.count("<h3>the same in all runs</h3>") == 2  # the original and the video
    assert "<summary>Clips: coded (2)</summary>" in listen.body
    assert side.body.count("<img") == 2
    assert "<summary>Loss &amp; more</summary>" in side.body
    assert list(media.sections(runs[1:], 2)) == []


def test_runs_without_pictures_take_no_place_of_those_that_have_some(tmp_path: Path) -> None:
    runs = [make_run(name, folder=tmp_path / name) for name in ("failed", "a", "b", "c")]
    for run, frequency in zip(runs[1:], (2000, 2500, 3000), strict=True):
        write_run_page(run.folder, frequency)
    _, side, note = media.sections(runs, 2)
    assert side.body.count("<img") == 2
    assert "of the first 2 runs that have any (media=2)" in note.body


def test_what_only_failed_runs_have_comes_last_and_is_no_other_data(tmp_path: Path) -> None:
    figure = {"test/ap": Figure(0.5, None)}
    changes = [
        {"data.source": "sample", "seed": 1},
        {"data.source": "sample", "seed": 2},
        {"data.source": "disk", "seed": 1},
    ]
    runs = [
        make_run(
            str(number), folder=tmp_path / str(number), settings=own, raw=own, figures=figure if number < 2 else {}
        )
        for number, own in enumerate(changes)
    ]
    (group,) = by_task(runs, None)
    assert list(group.settings) == ["seed", "data.source"]
    text = page.write(tmp_path / "report.html", "T", [group], 8).read_text()
    assert "read different data" not in text
    (other,) = by_task([dataclasses.replace(run, figures=figure) for run in runs], None)
    assert "read different data" in page.write(tmp_path / "report.html", "T", [other], 8).read_text()
