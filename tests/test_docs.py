"""Every voxlab command in the documentation composes and fits the code that it names."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT, Compose

PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("README.md")), *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"main\.py ([^`#\n]+)")


def commands(page: Path) -> list[str]:
    return [match.strip() for match in COMMAND.findall(page.read_text()) if "=" in match and "…" not in match]


def test_the_pages_show_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_compose(composed: Compose, page: Path) -> None:
    for command in commands(page):
        words = [word for word in shlex.split(command) if "=" in word and not word.startswith("-")]
        assert composed(*words).task, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
