"""Many command lines of main.py: what users see."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.main_process import run


def answers(folder: Path, lines: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, str]]:
    """Run main.py in `folder` with each of the named lines, in their order: exit code and what was printed."""
    done = {name: run(words, folder) for name, words in lines.items()}
    return {name: (process.returncode, process.stdout + process.stderr) for name, process in done.items()}
