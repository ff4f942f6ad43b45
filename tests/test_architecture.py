"""The layers hold: imports point one way, Hydra stays at the top, functions and files stay small."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "voxlab"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_FUNCTION, MAX_FILE = 60, 350
HYDRA_FILES = {"cli.py", "config.py", "run.py"}

# layer -> the layers it may import, besides itself and `errors`
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "audio": {"storage"},
    "storage": set(),
    "parquet": {"storage"},
    "parallel": set(),
    "progress": set(),
    "media": {"audio"},
    "rerun": {"storage"},
    "loggers": {"media", "storage"},
    "ledger": {"storage", "parallel"},
    "loudness": {"audio"},
    "plots": {"audio"},
    "report": {"audio", "plots", "report_text", "storage"},
    "report_text": set(),
    "mel": {"audio"},
    "motion": {"audio", "progress", "storage"},
    "codecs": {"audio", "storage", "mel", "models"},
    "features": {"audio", "codecs", "models", "mel", "storage", "parallel"},
    "sidecars": {"audio", "storage", "codecs"},
    "data": {"audio", "storage", "parquet", "codecs", "sidecars", "loudness", "motion", "parallel", "progress"},
    "models": {"audio", "storage", "mel", "motion", "progress"},
    "losses": {"audio", "mel", "motion"},
    "metrics": {"audio", "mel", "losses", "motion"},
    "arguments": set(),
    "messages": set(),
    "schemas": set(),
    "search": set(),
    "sample_copy": set(),
    "choices": {"schemas"},
    "completion": {"choices", "schemas"},
    "help_page": {"choices", "schemas"},
    "config": {
        *("arguments", "choices", "completion", "help_page"),
        *("messages", "parallel", "rerun", "schemas", "search", "tasks"),
    },
    "provenance": {"storage", "parallel"},
    "cli": {"config", "run"},
    "__main__": {"cli"},
    "failures": {"config", "provenance"},
    "run": {
        *("config", "failures", "loggers", "messages", "parallel", "provenance", "rerun", "sample_copy", "storage"),
        "tasks",
    },
}
BELOW_TASKS = {
    "audio",
    "ledger",
    "loudness",
    "media",
    "mel",
    "motion",
    "plots",
    "storage",
    "parquet",
    "parallel",
    "progress",
    "report",
    "sample_copy",
    "codecs",
    "features",
    "sidecars",
}
ALLOWED["tasks"] = BELOW_TASKS | {"data", "models", "losses", "metrics"}


def _layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        assert list(_imports(path)) == []
        return
    layer = _layer(path)
    assert layer in ALLOWED, f"{path}: say in ALLOWED what the new layer may import"
    ours = {name.split(".")[1] for name in _imports(path) if name.startswith("voxlab.")}
    assert ours - {layer, "errors"} <= ALLOWED[layer]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_hydra_stays_at_the_top(path: Path) -> None:
    packages = {name.partition(".")[0] for name in _imports(path)}
    assert path.name in HYDRA_FILES or not packages & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", [ROOT / "main.py", *FILES], ids=lambda path: path.name)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_FILE
    functions = [n for n in ast.walk(_parse(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 - _docstring_lines(node) for node in functions}
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION} == {}


def _docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return (first.end_lineno or 0) - first.lineno + 1
    return 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_open_with_their_purpose(path: Path) -> None:
    docstring = ast.get_docstring(_parse(path))
    assert docstring
    assert len(docstring.splitlines()) <= 6


def test_main_is_a_few_lines() -> None:
    assert len((ROOT / "main.py").read_text().splitlines()) <= 40
