"""The page of `make demo`: reports of several runs on one."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import main_process
from tests.conftest import ROOT
from voxlab.report import code, facts, write_report

PAGE = ROOT / "recipes" / "tour" / "page.py"
STANDIN = """#!/usr/bin/env bash
echo "stood in for $*"
[[ "$*" != *"$FAILS"* ]]
"""


def _page(*words: str) -> subprocess.CompletedProcess[str]:
    return main_process.run(words, ROOT, script=PAGE)


def test_a_tour_shows_all_of_its_reports(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        write_report(tmp_path / f"{name}.html", name, "", [facts("Numbers", {"value": 12345 + number}), code(name)])
    done = _page(str(tmp_path / "tour.html"), f"First={tmp_path / 'one.html'}", f"Second={tmp_path / 'two.html'}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "tour.html").read_text()
    places = re.findall(r'id="([^"]+)"', text)
    assert len(places) == len(set(places)) >= 6
    assert all(word in text for word in ("First", "Second", "12,345", "12,346"))


def test_what_is_no_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text("<p>hello")
    done = _page(str(tmp_path / "tour.html"), f"First={tmp_path / 'other.html'}")
    assert done.returncode == 1
    assert "other.html is no report of a run" in done.stderr


@pytest.mark.parametrize("fails", ["nothing of it", "experiment=a2g_tiny"])
def test_the_steps_of_the_tour_say_how_long_they_take_and_where_their_logs_are(tmp_path: Path, fails: str) -> None:
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(STANDIN)
    python.chmod(0o755)
    given = {**os.environ, "PYTHON": str(python), "FAILS": fails}
    script = [str(ROOT / "recipes" / "tour" / "run.sh"), str(out)]
    done = subprocess.run(script, env=given, capture_output=True, text=True, timeout=60, check=False)
    lines = done.stdout.splitlines()
    assert re.search(r"minutes on 2 cores; log of each run: .*/runs/NAME/rank0.log", lines[0])
    (waiting,) = (line for line in lines if line.startswith("== gestures: waiting"))
    log = Path(waiting.partition("; log: ")[2])
    assert "about 2 minutes" in waiting
    assert "experiment=a2g_tiny" in log.read_text()
    places = [word for line in lines for word in line.split() if line.startswith("stood") and "hydra.run.dir" in word]
    assert places
    assert all(place.startswith(f"hydra.run.dir={out}/runs/") for place in places)
    assert (done.returncode == 0) == (fails == "nothing of it")
    assert ("stood in for" in done.stderr) == (done.returncode != 0)  # the end of the log
