"""make bench: what scripts print goes into its place in the page; scripts, commands and places belong together."""

import re
from pathlib import Path

import pytest

from benchmarks import refresh

ROOT = Path(__file__).resolve().parents[1]
PAGE = """# Figures
<!-- machine -->
old
<!-- /machine -->
Why it is so.

<!-- quick -->
old figures
<!-- /quick -->
More words.
<!-- broken -->
<!-- /broken -->
<!-- other -->
other figures
<!-- /other -->
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "quick.py").write_text(
        "import sys\nprint('| a |\\n|---|\\n|', sys.argv[1], '|')\nprint('.', file=sys.stderr)\n"
    )
    (tmp_path / "broken.py").write_text("print('half a table')\nraise RuntimeError('no disk')\n")
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path / "page.md"


def test_figures_are_replaced_and_words_stay(page: Path) -> None:
    assert refresh.refresh(page, page.parent, {"quick": "quick.py 42"}) == []
    text = page.read_text()
    block = text.partition("<!-- quick -->\n")[2].partition("\n<!-- /quick -->")[0]
    assert re.fullmatch(
        r"`\.venv/bin/python benchmarks/quick\.py 42` \(\d{4}-\d\d-\d\d, \d+ s\):\n\n\| a \|\n\|---\|\n\| 42 \|", block
    )
    assert "old" not in text
    assert re.search(r"^Machine: .*, \d+ cores, \d+ GB, .*torch \d.*; load ", text, re.MULTILINE)
    for kept in ("# Figures\n", "Why it is so.\n", "More words.\n", "<!-- other -->\nother figures\n<!-- /other -->\n"):
        assert kept in text


def test_a_failing_script_says_so_and_the_others_run_on(page: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert refresh.refresh(page, page.parent, {"broken": "broken.py", "quick": "quick.py 7"}) == ["broken"]
    text = page.read_text()
    assert "**Failed** with exit code 1: RuntimeError: no disk" in text
    assert "half a table" not in text
    assert "| 7 |" in text
    assert "Traceback" in capfd.readouterr().err


def test_a_page_without_a_place_is_refused_before_anything_runs(page: Path) -> None:
    with pytest.raises(SystemExit, match="no place for absent"):
        refresh.refresh(page, page.parent, {"quick": "quick.py 1", "absent": "quick.py 1"})
    assert page.read_text() == PAGE


def test_exit_codes_and_unknown_names(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page.rename(page.parent / "README.md")
    monkeypatch.setattr(refresh, "FOLDER", page.parent)
    monkeypatch.setattr(refresh, "COMMANDS", {"quick": "quick.py 1", "broken": "broken.py"})
    assert refresh.main(["quick"]) == 0
    assert refresh.main([]) == 1
    with pytest.raises(SystemExit, match="2"):
        refresh.main(["quik"])


def test_every_script_has_its_place_and_its_options() -> None:
    scripts = {path.name: path.read_text() for path in (ROOT / "benchmarks").glob("*.py") if path.name != "refresh.py"}
    runnable = {name for name, text in scripts.items() if "__main__" in text}
    assert {command.split()[0] for command in refresh.COMMANDS.values()} == runnable
    for command in refresh.COMMANDS.values():
        script, *options = command.split()
        assert [word for word in options if word.startswith("--") and f'"{word}"' not in scripts[script]] == []
    places = re.findall(r"^<!-- (\w+) -->$", (ROOT / "benchmarks" / "README.md").read_text(), re.MULTILINE)
    assert sorted(places) == sorted({"machine", *refresh.COMMANDS})
    assert set(refresh.ONE_THREAD) <= set(refresh.COMMANDS)
