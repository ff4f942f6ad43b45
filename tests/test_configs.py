"""Every option, recipe and command of the grammar composes, resolves, and fits the code that it names."""

import contextlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from voxlab import run
from voxlab.config import SCHEMAS, Config

ROOT = Path(__file__).resolve().parents[1]
Compose = Callable[..., DictConfig]
GROUPS = {path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in (ROOT / "conf").iterdir() if path.is_dir()}
RECIPES = sorted(path.stem for path in (ROOT / "recipes" / "experiment").glob("*.yaml"))
SWAPS = [(group, option) for group, options in GROUPS.items() if group != "hydra" for option in options]
GRAMMAR = [
    ("task=convert data=voiceassistant codec=mimi", {"codec.num_codebooks": 32, "source.dtype": "float32"}),
    ("task=convert data=voiceassistant codec=none", {"codec": None, "out": "converted/voiceassistant-none"}),
    ("task=convert data=voiceassistant input=text codec=mimi", {"input": "text", "task.input": "text"}),
    ("task=convert codec@source=encodec codec=mimi", {"source.bandwidth": 6.0, "logger": None}),
    ("task=extract data=audiofolder data.root=DIR codec=encodec", {"data.root": "DIR", "codec.bandwidth": 6.0}),
    (
        "task=extract producers=[lin,from_filename] producers.lin.columns={gain:[0,1]}",
        {"producers.lin.columns.gain": [0, 1]},
    ),
    (
        "task=extract stages=[encode,build] build.inline=true",
        {"task.stages": ["encode", "build"], "task.build.inline": True},
    ),
    ("task=extract data=podcastfillers features=moshi", {"features._target_": "voxlab.features.moshi.MoshiFeatures"}),
    ("task=extract data=beat2 features=wavlm", {"data.root": "data/BEAT2"}),
    ("task=train_tokenizer data=librispeech codec=rvq stage=test", {"stage": "test", "task.stage": "test"}),
    ("task=train_tokenizer data=beat2 codec=motion_rvq part=upper", {"task.part": "upper"}),
    ("task=laughter", {"data.root": "data/PodcastFillers", "loss._target_": "voxlab.losses.events.BinaryCrossEntropy"}),
    ("task=laughter loss=focal shift=5", {"shift": 5, "loss.gamma": 2.0, "data.root": "data/PodcastFillers"}),
    ("task=laughter loss=focal shift=5 data=beat2 loss=bce", {"data.root": "data/BEAT2", "shift": 5}),
    ("task=a2g stage=generate", {"stage": "generate", "data.root": "data/BEAT2"}),
    ("experiment=quickstart", {"codec.weights": "random", "source.weights": "random", "data.source": "sample"}),
    ("experiment=quickstart codec=encodec codec.weights=w", {"codec.weights": "w", "codec.bandwidth": 6.0}),
]


@pytest.mark.parametrize(("command", "expected"), GRAMMAR, ids=[command for command, _ in GRAMMAR])
def test_the_grammar_composes(composed: Compose, command: str, expected: dict[str, Any]) -> None:
    settings = composed(*command.split())
    run.settle(settings)
    plain = run.resolved(settings)
    for key, value in expected.items():
        assert OmegaConf.select(OmegaConf.create(plain), key) == value, key


def _natural_task(group: str) -> str:
    return {"loss": "laughter", "features": "extract", "producers": "extract"}.get(group, "convert")


@pytest.mark.parametrize(("group", "option"), SWAPS, ids=[f"{group}={option}" for group, option in SWAPS])
def test_every_option_composes_and_resolves(composed: Compose, group: str, option: str) -> None:
    task = [] if group == "task" else [f"task={_natural_task(group)}"]
    plain = run.resolved(composed(*task, f"{group}={option}"))
    assert "???" not in str(plain)
    assert plain["task"]["_target_"].startswith("voxlab.tasks.")


def _nodes(value: Any) -> list[dict[str, Any]]:
    """Every node below `value` that names a target."""
    if not isinstance(value, dict):
        return []
    own = [value] if "_target_" in value else []
    return own + [node for child in value.values() for node in _nodes(child)]


def _yaml_nodes() -> list[tuple[str, dict[str, Any]]]:
    paths = sorted((ROOT / "conf").glob("*/*.yaml"))
    return [(str(path.relative_to(ROOT)), node) for path in paths for node in _nodes(yaml.safe_load(path.read_text()))]


TRAINER = "voxlab.tasks.trainer.lightning_trainer"


def _parameter(path: str, node: dict[str, Any]) -> Any:
    needs_lightning = node["_target_"].startswith(("lightning", TRAINER))
    return pytest.param(path, node, marks=[pytest.mark.slow] if needs_lightning else [])


AT_RUN_TIME = {"ranks": None, "run_dir": None, "loggers": None, "save_dir": None, "item": None, "times": None}


@pytest.mark.parametrize(("path", "node"), [_parameter(*item) for item in _yaml_nodes()])
def test_every_node_binds_to_its_target(path: str, node: dict[str, Any]) -> None:
    target = get_object("lightning.Trainer" if node["_target_"] == TRAINER else node["_target_"])
    settings = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
    parameters = inspect.signature(target).parameters
    late = {key: None for key in AT_RUN_TIME if node.get("_partial_") and key in parameters}
    inspect.signature(target).bind(**settings, **late)
    if node["_target_"].startswith("voxlab."):  # all keys are listed, so none needs a `+`
        assert set(settings) | set(late) == set(parameters), path


@pytest.mark.parametrize("task", SCHEMAS)
def test_every_key_of_a_task_reaches_it(task: str) -> None:
    text = (ROOT / "conf" / "task" / f"{task}.yaml").read_text()
    own = set(SCHEMAS[task].__dataclass_fields__) - set(Config.__dataclass_fields__)
    assert own <= set(re.findall(r"^  \w+: \$\{(\w+)\}$", text, re.MULTILINE))


FREE = [group for group in GROUPS if group not in ("hydra", "task", "producers")]
ROUNDS = [
    {group: GROUPS[group][n % len(GROUPS[group])] for group in FREE} for n in range(max(map(len, GROUPS.values())))
]


def _keys(group: str, option: str) -> set[str]:
    """The keys of an option, and of those that it starts from."""
    file = yaml.safe_load((ROOT / "conf" / group / f"{option}.yaml").read_text())
    inherited = [name for name in file.pop("defaults", []) if name != "_self_"]
    return set(file).union(*(_keys(group, name) for name in inherited))


def _assert_no_leak(settings: DictConfig, group: str, option: str) -> None:
    node = OmegaConf.select(settings, group)
    if node is not None:
        assert {str(key) for key in node} <= _keys(group, option), f"{group}={option}"


def test_the_rounds_hold_every_option() -> None:
    assert {item for options in ROUNDS for item in options.items()} == {swap for swap in SWAPS if swap[0] in FREE}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_recipes_do_not_leak_keys_into_swapped_options(composed: Compose, recipe: str, number: int) -> None:
    """One option of every group at a time: nodes of different groups don't meet when they are composed."""
    settings = composed(f"experiment={recipe}", *(f"{group}={option}" for group, option in ROUNDS[number].items()))
    run.settle(settings)
    for group, option in ROUNDS[number].items():
        _assert_no_leak(settings, group, option)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("task", GROUPS["task"])
def test_recipes_compose_with_another_task_or_are_refused(composed: Compose, recipe: str, task: str) -> None:
    with contextlib.suppress(ConfigCompositionException):  # the typed root refuses keys of another task
        run.settle(composed(f"experiment={recipe}", f"task={task}"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_do_not_leak_keys_into_swapped_producers(composed: Compose, recipe: str) -> None:
    if "producers" not in composed(f"experiment={recipe}"):
        with pytest.raises(ConfigCompositionException, match="producers"):
            composed(f"experiment={recipe}", f"producers={GROUPS['producers'][0]}")
        return
    for option in GROUPS["producers"]:
        _assert_no_leak(composed(f"experiment={recipe}", f"producers={option}"), "producers", option)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves(composed: Compose, recipe: str) -> None:
    assert run.resolved(composed(f"experiment={recipe}"))["task"]["_target_"]


def test_none_wins_over_what_a_recipe_sets_for_the_option(composed: Compose) -> None:
    settings = composed("experiment=quickstart", "codec=none")
    run.settle(settings)
    assert settings.codec is None
    assert run.resolved(settings)["task"]["codec"] is None


def test_every_recipe_is_described() -> None:
    described = (ROOT / "recipes" / "README.md").read_text()
    assert [recipe for recipe in RECIPES if f"experiment={recipe}" not in described] == []


def test_model_and_data_options_state_their_licence() -> None:
    words = re.compile(r"licen[cs]e|MIT|Apache|CC[- ]BY|no weights", re.IGNORECASE)
    options = [ROOT / "conf" / group / f"{name}.yaml" for group in ("data", "features") for name in GROUPS[group]]
    assert [str(path) for path in options if not words.search(path.read_text().partition("_target_")[0])] == []
