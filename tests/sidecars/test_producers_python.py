"""Users' own producers, ours and those of EncHF_Dataset; every mistake names the file and what is missing."""

import numpy as np
import pytest

from tests.sidecar_items import item_of, times_of
from voxlab.errors import UserError
from voxlab.sidecars.producers.python import python, shutdown

OURS = """
import dataclasses
import numpy as np

@dataclasses.dataclass
class Half:
    value: float

def produce(item, times, *, scale=1.0):
    item.units["t"] = "s"
    return {"t": times * scale, "half": np.full(len(times), Half(item.duration / 2).value)}
"""

CONST = """
import argparse
import numpy as np

def add_cli_args(ap):
    ap.add_argument("--const", action="append", default=[], help="name=value")

def produce(ecdc_path, T, *, args):
    pairs = [spec.split("=") for spec in args.const]
    columns = {name: np.full(T, float(value), np.float32) for name, value in pairs}
    return columns | {"stem": np.full(T, len(ecdc_path.stem))}
"""

LOGGED = """
LOG = []

def add_cli_args(parser):
    group = parser.add_argument_group("x")
    group.add_argument("--log-file", required=True)
    group.add_argument("--offset", type=float, default=2.0)

def init(args):
    open(args.log_file, "a").write("init ")

def produce(path, T, args=None):
    return {"x": [args.offset] * T}

def shutdown(args):
    open(args.log_file, "a").write("shutdown ")
"""


@pytest.fixture
def call(tmp_path):
    def produce(code, name="mine.py", **args):
        path = tmp_path / name
        if code is not None:
            path.write_text(code)
        item = item_of(tmp_path, frames=5)
        return python(item, times_of(item), path=str(path), args=args or None), item

    yield produce
    shutdown()


def test_our_protocol(call, tmp_path):
    columns, item = call(OURS, scale=2)
    np.testing.assert_array_equal(columns["t"], (np.arange(5) + 0.5) / 75 * 2)
    np.testing.assert_array_equal(columns["half"], np.full(5, 5 / 75 / 2))
    assert item.units == {"t": "s"}
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]  # no __pycache__ beside the user's file


def test_a_dotted_module(tmp_path, monkeypatch):
    (tmp_path / "my_dotted_producer.py").write_text(OURS)
    monkeypatch.syspath_prepend(tmp_path)
    item = item_of(tmp_path, frames=5)
    assert list(python(item, times_of(item), path="my_dotted_producer")) == ["t", "half"]
    shutdown()


def test_a_producer_of_the_earlier_project(call):
    columns, _ = call(CONST, const=["scene_id=7", "amp=0.5"])
    assert {name: np.asarray(column).tolist() for name, column in columns.items()} == {
        "scene_id": [7] * 5,
        "amp": [0.5] * 5,
        "stem": [4] * 5,
    }
    columns, _ = call(CONST)
    assert list(columns) == ["stem"]


def test_init_and_shutdown_come_once(call, tmp_path):
    log = tmp_path / "log"
    for _ in range(3):
        columns, _ = call(LOGGED, log_file=str(log))
    assert columns == {"x": [2.0] * 5}
    assert log.read_text() == "init "
    shutdown()
    assert log.read_text() == "init shutdown "
    shutdown()
    assert log.read_text() == "init shutdown "


def test_text_for_an_option_becomes_its_type(call, tmp_path):
    columns, _ = call(LOGGED, log_file=str(tmp_path / "log"), offset="3.5")
    assert columns == {"x": [3.5] * 5}


BAD = {
    "no file": (None, {}, r"mine\.py: there is no such file"),
    "syntax": ("x = 1\ndef produce(:\n", {}, r"mine\.py: can't be loaded, line 2: SyntaxError"),
    "import": (
        "import no_such_package_xyz\n",
        {},
        "can't be loaded, line 1: ModuleNotFoundError: No module named 'no_such",
    ),
    "no produce": ("x = 1\n", {}, r"there is no function produce\(item, times\) in it"),
    "no callable": ("produce = 1\n", {}, r"there is no function produce"),
    "too few": ("def produce(item):\n    return {}\n", {}, r"produce\(item\) can't be called with \(item, times\)"),
    "argument": (OURS, {"speed": 1}, r"(?s)can't be called .*args=\{'speed': 1\}: got an unexpected keyword"),
    "option": (
        CONST,
        {"constant": 1},
        r"(?s)options unknown to it: \['constant'\]; .* It has: \{'const': 'name=value'\}",
    ),
    "required": (LOGGED, {"offset": 1}, r"required and not given: \['log_file'\]"),
}


@pytest.mark.parametrize(("code", "args", "message"), BAD.values(), ids=BAD)
def test_mistakes_stop_the_run(call, code, args, message):
    with pytest.raises(UserError, match=message) as caught:
        call(code, **args)
    assert "mine.py" in str(caught.value)


def test_an_unknown_module_is_named(tmp_path):
    item = item_of(tmp_path)
    with pytest.raises(UserError, match=r"path=no\.such\.module: can't be loaded: ModuleNotFoundError"):
        python(item, times_of(item), path="no.such.module")
    with pytest.raises(UserError, match=r"give a \.py file or a dotted module"):
        python(item, times_of(item), path=None)
