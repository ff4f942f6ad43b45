"""Every option of `producers=` lists all settings of its function, with the function's own defaults."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object, instantiate

from tests.sidecar_items import item_of, times_of
from voxlab.sidecars import calls

FILES = sorted((Path(__file__).resolve().parents[2] / "conf/producers").glob("*.yaml"))


def test_there_are_options():
    assert [path.stem for path in FILES] == [
        *("const", "from_audio", "from_filename", "from_labels", "from_midi", "from_table", "lin", "python"),
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_file_lists_every_setting(path):
    (name,) = content = yaml.safe_load(path.read_text())
    node = content[name]
    assert name == path.stem
    assert path.read_text().startswith("# ")
    assert node.pop("_partial_") is True
    function = get_object(node.pop("_target_"))
    first, second, *settings = inspect.signature(function).parameters.values()
    assert (first.name, second.name) == ("item", "times")
    assert [setting.name for setting in settings] == list(node)
    for setting in settings:
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert default in (inspect.Parameter.empty, node[setting.name]), setting.name


def test_options_merge_and_run(composed, tmp_path):
    """`producers=[...]` makes one node; a call's order is the order of the list."""
    settings = composed(
        "task=extract", "data.root=x", "producers=[from_filename,lin]", "producers.lin.columns={gain: [0, 2]}"
    )
    made = calls.prepare(instantiate(settings.producers, _convert_="all"))
    assert [call.name for call in made] == ["from_filename", "lin"]
    item = item_of(tmp_path, "a_pitch_64", frames=3)
    found = [calls.run(call, item, times_of(item)) for call in made]
    assert [{name: column.tolist() for name, column in columns.items()} for columns in found] == [
        {"pitch": [64, 64, 64]},
        {"gain": [0, 1, 2]},
    ]
