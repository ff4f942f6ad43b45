"""The documentation is true: commands compose and run, examples work, links lead somewhere, the site builds."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests import main_process
from tests.conftest import ROOT, Compose
from tests.tiny_models import write_tiny_encodec, write_tiny_mimi, write_tiny_snac
from voxlab import run
from voxlab.parallel import Ranks

PAGES = [
    *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
    *sorted((ROOT / "recipes").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
RECIPES = sorted((ROOT / "recipes" / "experiment").glob("*.yaml"))
HELP = [*sorted((ROOT / "conf" / "task").glob("*.yaml")), ROOT / "conf" / "hydra" / "help" / "voxlab.yaml"]
COMMAND = re.compile(r"(?:main\.py|(?<![\w.-])voxlab) (-[^`#\n]*|\w[\w.@]*=[^`#\n]*)")
PLACEHOLDER = re.compile(
    r"(?<![\w/])(?:[A-Z]+_)?(?:DIR|FILE|FOLDER|STAMP|RUN|SWEEP|LIBRISPEECH_DIR)(?![\w/])|<\w+>|\./music"
)
AS_MODULE = "import sys\nsys.path.insert(0, '')\nfrom voxlab.cli import start\nstart()\n"


def commands(page: Path) -> list[str]:
    """The settings of each command of a page, without what starts it and without remarks behind it."""
    text = re.sub(r"\\\n#?\s*", "", page.read_text())
    found = [match if "(" in match else re.split(r"\)(?:\s|$)", match)[0] for match in COMMAND.findall(text)]
    return [command.strip() for command in found if "=" in command and not re.search("…|<|-sc ", command)]


def by_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def settings_of(command: str) -> list[str]:
    return [word for word in shlex.split(command) if "=" in word and not word.startswith("-")]


def jobs(command: str) -> Iterator[list[str]]:
    """The settings of a run; of a sweep so many of its jobs that each value is in one."""
    settings = settings_of(command)
    if "-m" not in shlex.split(command):
        yield settings
        return
    parsed = OverridesParser.create().parse_overrides([word for word in settings if not word.startswith("hydra")])
    every = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    unseen = {word for words in every for word in words}
    while unseen:
        words = max(every, key=lambda words: len(unseen.intersection(words)))
        unseen -= set(words)
        yield words


EVERY_COMMAND = sorted({command for page in [*PAGES, *RECIPES, *HELP] for command in commands(page)})


def test_the_pages_show_commands() -> None:
    assert len(EVERY_COMMAND) >= 60
    assert all(commands(page) for page in sorted((ROOT / "docs").glob("*.md")))


# The words behind `rerun=` follow those of the run that is repeated: see test_rerun.
@pytest.mark.parametrize("command", [c for c in EVERY_COMMAND if not re.search("--config-dir|rerun=", c)])
def test_commands_compose(composed: Compose, command: str) -> None:
    for words in jobs(command):
        assert composed(*words).task


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def needs_nothing(command: str) -> bool:
    """Tell whether a command runs without data, weights, or what another one has made."""
    recipes = re.findall(r"experiment=(\w+)", command)
    texts = [command, *((ROOT / "recipes" / "experiment" / f"{name}.yaml").read_text() for name in recipes)]
    return bool(re.search(r"source(=|: )sample", "\n".join(texts))) and not PLACEHOLDER.search(command)


WEIGHTS = {"Mimi": write_tiny_mimi, "Snac": write_tiny_snac, "Encodec": write_tiny_encodec}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small weights of each codec, in which each corpus is written once."""
    folder = tmp_path_factory.mktemp("shared")
    for name, write in WEIGHTS.items():
        write(folder / name)
    return folder


# Trainings on features and tokenizers can be planned when these are there.
@pytest.mark.parametrize(
    "command",
    [c for c in EVERY_COMMAND if needs_nothing(c) and not re.search(r"--config-dir|=(laughter|a2g_tiny)\b", c)],
)
def test_commands_on_samples_can_be_planned(
    composed: Compose, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = composed(*next(jobs(command)), "dry_run=true")
    settings.data.root = str(shared / Path(settings.data.root).name)
    run.settle(settings)
    for node in (settings.codec, settings.source):
        if node is not None and (name := node._target_.rpartition(".")[2]) in WEIGHTS:
            node.weights = str(shared / name)
    run.build(settings.data).prepare()
    run.build(settings.task)(ranks=Ranks(), run_dir=tmp_path)
    assert not list(tmp_path.iterdir())


class Block(NamedTuple):
    """A block of code of a page; `title` is the file that it is to be written to, or empty."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*parts) for parts in found]


def follow(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Do in `folder` what a page says, in order: files, commands that can run here, Python; return how many ran."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    tone = 0.2 * np.sin(np.arange(32000) * 0.1)
    for name in ("in.wav", "my.wav", "talk.wav"):
        soundfile.write(folder / name, tone, 16000)
    program = folder / "start.py"
    program.write_text(AS_MODULE)
    count = 0
    for block in blocks(page):
        if block.title:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.text)
        elif block.language == "python":
            exec(compile(with_run(block.text), str(page), "exec"), {})
            count += 1
        elif block.language == "bash":
            count += sum(run_line(line, folder, program) for line in block.text.replace("\\\n", "").splitlines())
    return count


def with_run(text: str) -> str:
    """Put the latest training, of the task that is named, in for RUN_DIR."""
    task = re.search(r"task=(\w+)", text)
    runs = sorted(
        Path("outputs").glob(f"{task[1] if task else '*'}/*/checkpoints"), key=lambda path: path.stat().st_mtime
    )
    return text.replace("RUN_DIR", str(runs[-1].parent)) if runs else text


def command_of(line: str) -> str:
    """Return the command of a line if nothing in it is left for the reader to fill in, else an empty text."""
    found = COMMAND.search(line) if line.startswith(("python ", "voxlab ")) else None
    return found[1] if found and not PLACEHOLDER.search(found[1]) else ""


def can_run(line: str) -> bool:
    command = command_of(line)
    return bool(command) and (needs_nothing(command) or "--config-dir" in command)


def run_line(line: str, folder: Path, program: Path) -> bool:
    filled = with_run(line)
    if not can_run(filled) and (filled == line or not command_of(filled)):
        return False
    done = main_process.run(shlex.split(command_of(filled)), folder, script=program, timeout=1200)
    assert done.returncode == 0, f"{filled}\n{done.stderr}"
    return True


EXAMPLES = [*sorted((ROOT / "docs").glob("add_*.md")), ROOT / "docs" / "features.md"]


@pytest.mark.slow
@pytest.mark.parametrize("page", EXAMPLES, ids=by_name)
def test_examples_work_as_they_stand(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow(page, tmp_path, monkeypatch) >= 3


def lines_of(page: Path) -> list[str]:
    """The lines of a page's shell blocks."""
    return [line for block in blocks(page) if block.language == "bash" for line in block.text.splitlines()]


RUNNABLE = [page for page in PAGES if page not in EXAMPLES and any(map(can_run, lines_of(page)))]


@pytest.mark.training
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUNNABLE, ids=by_name)
def test_what_needs_no_data_runs_for_real(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert follow(page, tmp_path, monkeypatch) >= 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page(site: Path) -> None:
    pages = {by_name(page) for page in PAGES if page != ROOT / "README.md"}
    names = {page.removeprefix("docs/").replace("README.md", "index.html").replace(".md", ".html") for page in pages}
    assert {name for name in names if not (site / name).is_file()} == set()
    options = {path.stem for path in (ROOT / "conf" / "codec").glob("*.yaml")}
    configuration = (site / "configuration.html").read_text()
    assert {option for option in options if f'id="codec-{option}"' not in configuration} == set()


def test_the_site_needs_no_network(site: Path) -> None:
    loaded = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//", re.IGNORECASE)
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= 20
    assert [str(page) for page in pages if loaded.search(page.read_text())] == []
    styles = sorted(site.rglob("*.css"))
    assert [str(style) for style in styles if re.search(r"@import|url\([\"']?(https?:)?//", style.read_text())] == []
