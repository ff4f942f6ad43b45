"""Many command lines of main.py in one process: what users see, without starting Python and torch for each."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.test_cli import DRIVER

ROOT = Path(__file__).resolve().parents[2]


def answers(folder: Path, lines: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, str]]:
    """Run main.py in `folder` with each of the named lines, in their order: exit code and what was printed."""
    command = [sys.executable, "-c", DRIVER, str(ROOT / "main.py"), json.dumps(list(lines.values()))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results, _ = json.loads(done.stdout.splitlines()[-1])
    return {name: (code, text) for name, (code, text) in zip(lines, results, strict=True)}
