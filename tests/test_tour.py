"""The page of `make demo`: reports of several runs on one."""

import re
import subprocess
from pathlib import Path

from tests import main_process
from tests.conftest import ROOT
from voxlab.report import code, facts, write_report

PAGE = ROOT / "recipes" / "tour" / "page.py"


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
