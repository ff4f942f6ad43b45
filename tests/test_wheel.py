"""The wheel and the sdist: what they hold, and the command `voxlab` from an environment that has the wheel only."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from voxlab.data.podcastfillers import PodcastFillers
from voxlab.data.store_writer import store_folder
from voxlab.features.logmel import LogMelFeatures
from voxlab.tasks.extract.feature_plan import settings_of

ROOT = Path(__file__).resolve().parents[1]


def call(*words: str | Path, cwd: Path, code: int = 0) -> str:
    """What a command prints; it must end with `code`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bin/ of an environment with the wheel installed, its dependencies borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", "--no-deps"]
    call(*pip, "--disable-pip-version-check", wheel, cwd=folder)
    site = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def _files(folder: str, prefix: str) -> set[str]:
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {f"{prefix}/{path.relative_to(ROOT / folder).as_posix()}" for path in paths}


def test_the_wheel_holds_code_conf_and_recipes_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = _files("src/voxlab", "voxlab") | _files("conf", "voxlab/conf")
    assert names == expected | _files("recipes/experiment", "voxlab/recipes/experiment")


def test_the_sdist_is_a_checkout(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"main.py", "Makefile", "LICENSE", "requirements.lock", "recipes/laughter/run.sh"}
    assert names >= _files("tests", "tests") | _files("conf", "conf")
    assert {name.partition("/")[0] for name in names} <= {path.name for path in ROOT.iterdir()} | {"PKG-INFO"}
    assert not {name.partition("/")[0] for name in names} & {".git", ".ci", ".venv", "outputs", "site", "extracted"}


def test_an_index_would_take_both(built: Path, wheel: Path) -> None:
    call(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(name).decode())
    assert about["License-Expression"] == "Apache-2.0"
    assert about.get_all("License-File") == ["LICENSE"]


def test_the_command_speaks_of_itself(programs: Path, tmp_path: Path) -> None:
    listed = call(programs / "voxlab", cwd=tmp_path, code=2)
    assert "voxlab task=laughter" in listed
    assert "main.py" not in listed
    typo = call(programs / "voxlab", "task=laughter", "--shift", "5", cwd=tmp_path, code=2)
    assert "Write: voxlab shift=5" in typo
    helped = call(programs / "python", "-m", "voxlab", "--help", cwd=tmp_path)
    assert "python -m voxlab task=convert" in helped
    assert "torchrun --nproc_per_node=8 -m voxlab task=convert" in helped
    assert "quickstart" in helped
    assert "main.py" not in helped
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_first_run_needs_no_other_command_and_no_data(programs: Path, tmp_path: Path) -> None:
    words = ["task=laughter", "data.source=sample", "device=cpu", "logger=none"]
    quick = ["trainer.max_epochs=1", "eval.plots=none", "eval.bootstrap=0", "hydra.run.dir=run"]
    text = call(programs / "voxlab", *words, *quick, cwd=tmp_path)
    assert "the run begins with its log-mels, in extracted/podcastfillers-logmel" in text
    corpus = PodcastFillers(source="sample", root=str(tmp_path / "data" / "PodcastFillers"))
    out = Path("extracted") / "podcastfillers-logmel"
    store = store_folder(out, settings_of(LogMelFeatures(), corpus))  # where task=extract features=logmel writes
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["store"] == str(store)
    assert 0 < metrics["test/ap"] <= 1
    page = (tmp_path / "run" / "report.html").read_text().replace("<wbr>", "")
    assert f"extracting log-mel features of the sample corpus: {store}" in page
    assert (tmp_path / "run" / "extract" / "report.html").is_file()
    assert (tmp_path / "run" / "command.txt").read_text().startswith("python -m voxlab task=laughter ")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / out).rglob("*")}
    again = call(programs / "voxlab", *words, "dry_run=true", cwd=tmp_path)
    assert f"store: {store}" in again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / out).rglob("*")} == written
