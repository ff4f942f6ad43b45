"""Every voxlab command in the documentation composes and fits the code that it names."""

import re
import shlex
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import ROOT, Compose

PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"main\.py ([^`#\n]+)")


def commands(page: Path) -> list[str]:
    return [match.strip() for match in COMMAND.findall(page.read_text()) if "=" in match and "…" not in match]


def jobs(words: list[str]) -> list[list[str]]:
    """The settings of each run that a command line starts: one, or those of a sweep."""
    settings = [word for word in words if "=" in word and not word.startswith("-")]
    if "-m" not in words:
        return [settings]
    parsed = OverridesParser.create().parse_overrides([word for word in settings if not word.startswith("hydra.")])
    return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]


def test_the_pages_show_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_compose(composed: Compose, page: Path) -> None:
    for command in commands(page):
        for words in jobs(shlex.split(command)):
            assert composed(*words).task, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
