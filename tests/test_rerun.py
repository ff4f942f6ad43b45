"""rerun=<run folder>: a run repeated from its folder alone, what it says about changes, and what it refuses."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import main_process
from tests.conftest import ROOT

STANDIN = [
    *["task=convert", "codec=encodec", "codec.bandwidth=3.0", "data.source=sample", "data.root=corpus"],
    *["task._target_=tests.standin.work", "seed=4", "unit_rows=7"],
]


def main(folder: Path, *words: str, world: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    return main_process.run(words, folder, world=world, **environment)


def done(folder: Path, *words: str, world: int = 1) -> str:
    """Run to a good end; returns what was said."""
    found = main(folder, *words, world=world)
    assert found.returncode == 0, found.stderr
    return found.stderr


def config(folder: Path) -> dict:
    return yaml.safe_load((folder / "config.yaml").read_text())


def verdict(folder: Path) -> dict:
    return json.loads((folder / "rerun.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run `first`."""
    folder = tmp_path_factory.mktemp("rerun")
    done(folder, *STANDIN, "name=mine", "hydra.run.dir=first")
    return folder


def changed(folder: Path, *, add: dict | None = None, **values: object) -> None:
    """Change root values in the config.yaml of a run, as if it had been made by another version."""
    settings = {**config(folder), **values}
    for name, value in (add or {}).items():
        settings[name] = {**settings[name], **value}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))


def test_a_run_is_repeated_in_a_new_folder(place: Path) -> None:
    said = done(place, "rerun=first")
    (second,) = (place / "outputs" / "convert").iterdir()
    first_config, second_config = config(place / "first"), config(second)
    assert second_config.pop("rerun") == "first"
    first_config.pop("rerun")
    assert first_config == second_config
    assert second_config["name"] == "mine"
    assert "the same figures as first (2 compared)" in said
    found = verdict(second)
    assert not [line for line in found.pop("changes") if not line.startswith("code")]  # a checkout may be at work
    assert found == {"of": "first", "same_figures": True, "differences": {}}
    assert (second / "command.txt").read_text().endswith("main.py rerun=first\n")
    again = done(place, f"rerun={second.relative_to(place)}", "hydra.run.dir=third")
    assert "the same figures" in again
    assert config(place / "third")["codec"]["bandwidth"] == 3.0


def test_the_folder_alone_suffices_and_todays_defaults_do_not_matter(place: Path, tmp_path: Path) -> None:
    """As if unit_rows, a default of the task, and a key of the codec that nobody set, had been others then."""
    shutil.copytree(place / "first", tmp_path / "a copy")
    changed(tmp_path / "a copy", tts_batch_size=3, add={"codec": {"dtype": "bfloat16"}})
    said = done(tmp_path, "rerun=a copy", "hydra.run.dir=run")
    settings = config(tmp_path / "run")
    assert (settings["tts_batch_size"], settings["codec"]["dtype"], settings["unit_rows"]) == (3, "bfloat16", 7)
    assert settings["task"]["tts_batch_size"] == 3  # what follows from a key follows
    assert settings["task"]["codec"]["dtype"] == "bfloat16"
    assert "setting" not in said.replace("settings are those of a copy", "")


def test_words_given_now_win_and_are_told(place: Path) -> None:
    said = done(place, "seed=5", "rerun=first", "codec.bandwidth=6.0", "hydra.run.dir=other")
    settings = config(place / "other")
    assert (settings["seed"], settings["task"]["seed"], settings["codec"]["bandwidth"]) == (5, 5, 6.0)
    assert settings["unit_rows"] == 7
    assert "setting seed: 4 -> 5" in said
    assert "other figures than first:\n  figure seed: 4 -> 5" in said
    assert verdict(place / "other")["same_figures"] is False
    assert verdict(place / "other")["differences"] == {"seed": [4, 5]}


def test_another_option_is_taken_with_all_its_keys(place: Path) -> None:
    """The words below codec= go with the old option, and `out` follows the new one."""
    done(place, "rerun=first", "codec=mimi", "hydra.run.dir=mimi")
    settings = config(place / "mimi")
    assert settings["codec"]["_target_"].endswith("Mimi")
    assert "bandwidth" not in settings["codec"]
    assert settings["out"] == "converted/voiceassistant-mimi"


def test_changes_of_code_packages_and_machine_are_told(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "first", tmp_path / "old")
    packages = (tmp_path / "old" / "packages.txt").read_text().splitlines()
    older = [f"{line.partition('==')[0]}==0.0.1" for line in packages[:12]]
    (tmp_path / "old" / "packages.txt").write_text("\n".join([*older, *packages[12:]]))
    (tmp_path / "old" / "git.txt").write_text("commit 0123abc\nbranch main\ndirty False\n")
    environment = json.loads((tmp_path / "old" / "env.json").read_text())
    (tmp_path / "old" / "env.json").write_text(json.dumps({**environment, "python": "3.9.1"}))
    said = done(tmp_path, "rerun=old", "hydra.run.dir=run")
    assert "this run differs from old:" in said
    assert "code: commit 0123abc -> commit " in said
    assert said.count("package ") == 10
    assert "and 2 more differences of this kind: package" in said
    assert "machine python: 3.9.1 -> 3." in said
    assert len(verdict(tmp_path / "run")["changes"]) == 13  # of code, 11 of packages, of the machine


def test_a_job_of_a_sweep_with_a_recipe_is_repeated(tmp_path: Path) -> None:
    standin = ["task._target_=tests.standin.work", "data.root=corpus"]
    done(tmp_path, "-m", "experiment=quickstart", "seed=1,2", *standin, "hydra.sweep.dir=sweep")
    done(tmp_path, "rerun=sweep/1", "hydra.run.dir=run")
    settings = config(tmp_path / "run")
    assert (settings["seed"], settings["codec"]["weights"]) == (2, "random")  # weights is the recipe's
    assert verdict(tmp_path / "run")["same_figures"] is True
    refused = main(tmp_path, "rerun=sweep")
    assert refused.returncode == 2
    assert "holds several runs (0, 1). Try rerun=sweep/0" in refused.stderr
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_two_ranks_repeat_a_run_of_one(place: Path) -> None:
    said = done(place, "rerun=first", "hydra.run.dir=two", world=2)
    assert "machine world: 1 -> 2" in said
    assert verdict(place / "two")["differences"] == {"world": [1, 2]}


def test_what_is_there_already_is_told(place: Path) -> None:
    (place / "converted" / "voiceassistant-encodec").mkdir(parents=True)
    said = done(place, "rerun=first", "hydra.run.dir=there")
    assert "converted/voiceassistant-encodec is there: what it holds is not made again" in said
    assert "not made again" not in done(place, "rerun=first", "out=new", "hydra.run.dir=elsewhere")


def test_what_failed_and_left_no_figures_can_be_repeated(place: Path) -> None:
    assert main(place, *STANDIN, "hydra.run.dir=failed", STANDIN="bug").returncode == 1
    assert "failed has no metrics.json" in done(place, "rerun=failed", "hydra.run.dir=mended")
    assert verdict(place / "mended")["same_figures"] is None


def test_a_dry_run_of_a_repetition_writes_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    done(place, "rerun=first", "dry_run=true")
    assert sorted(place.rglob("*")) == before


def test_settings_that_today_has_not_are_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "first", tmp_path / "old")
    changed(tmp_path / "old", colour="red", unit_rows="many", add={"codec": {"flavour": 1}})
    refused = main(tmp_path, "rerun=old", "hydra.run.dir=run")
    assert refused.returncode == 2
    assert "old/config.yaml does not fit this version" in refused.stderr
    assert "codec.flavour=1" in refused.stderr
    assert "colour=red" in refused.stderr
    assert "unit_rows=many" in refused.stderr
    assert "The run was made with: commit " in refused.stderr or "not a git checkout" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 6
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rerun=nowhere"], "rerun=nowhere: no run folder (no such folder)"),
        (["rerun=empty"], "rerun=empty: no run folder (it has no config.yaml"),
        (["rerun=first", "task=extract"], "task=extract: rerun= repeats the task of first"),
        (["rerun=first", "experiment=quickstart"], "experiment=quickstart: rerun= repeats"),
        (["-m", "rerun=first", "seed=1,2"], "python main.py rerun=first seed=$s; done"),
        (["rerun=first", "hydra.run.dir=first"], "To go on in its own, write resume=first"),
        (["rerun=first", "colour=red"], "colour: there is no such key"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_can_not_be_repeated(place: Path, words: list[str], said: str) -> None:
    (place / "empty").mkdir(exist_ok=True)
    refused = main(place, *words)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) <= 6


def test_the_tests_that_the_statement_of_determinism_names_are_there() -> None:
    page = (ROOT / "docs" / "reproducibility.md").read_text()
    named = set(re.findall(r"test_\w+\.py", page))
    assert len(named) >= 8
    assert named <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}
