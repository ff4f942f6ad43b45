"""Checkpoints of Moshi in moshi's own format: found, read, hashed, or refused with what to do."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.features.recordings import frames_of, make_recording
from tests.tiny_models import moshi_config, write_tiny_moshi
from voxlab.codecs import weights
from voxlab.errors import UserError
from voxlab.features.moshi import MoshiFeatures

RECORDING = make_recording("a", 20, 1920)


def build(folder: Path | str, **changes: Any) -> MoshiFeatures:
    return MoshiFeatures(weights=str(folder), **({"dtype": "float32"} | changes))


@pytest.fixture
def copy(moshi_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(moshi_folder, tmp_path / "copy"))


def change_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def message(features: MoshiFeatures) -> str:
    with pytest.raises(UserError) as error:
        features.to("cpu")
    return str(error.value)


def test_four_local_paths_need_nothing_else(moshi_folder: Path, tmp_path: Path) -> None:
    names = {
        "moshi_weights": "model.safetensors",
        "mimi_weights": "mimi.safetensors",
        "config_path": "config.json",
        "tokenizer": "mimi_config.json",  # any file: it isn't read without text
    }
    paths = {}
    for key, name in names.items():
        paths[key] = tmp_path / key / name
        paths[key].parent.mkdir()
        shutil.copy(moshi_folder / name, paths[key])
    shutil.copy(moshi_folder / "mimi_config.json", tmp_path / "mimi_weights")
    given = build("not/used", **{key: str(path) for key, path in paths.items()}).to("cpu")
    np.testing.assert_array_equal(frames_of(given, RECORDING), frames_of(build(moshi_folder).to("cpu"), RECORDING))
    assert given.fingerprint() == build(moshi_folder).fingerprint()


@pytest.mark.parametrize("missing", ["model.safetensors", "mimi.safetensors", "mimi_config.json"])
def test_a_missing_file_is_named(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    text = message(build(copy))
    assert missing in text
    assert "config.json, the language model (model.safetensors) and Mimi" in text
    assert "features=mimi_latent needs Mimi only, features=logmel needs no weights" in text


def test_a_path_that_is_not_there_names_its_key(moshi_folder: Path) -> None:
    assert "features.mimi_weights=/none: no such file" in message(build(moshi_folder, mimi_weights="/none"))


def test_text_needs_the_tokenizer(moshi_folder: Path) -> None:
    assert "tokenizer_spm_32k_3.model" in message(build(moshi_folder, text="transcript"))


def test_without_a_config_the_published_architecture_is_expected(copy: Path) -> None:
    (copy / "config.json").unlink()
    shutil.move(copy / "mimi.safetensors", copy / "tokenizer-e351c8d8-checkpoint125.safetensors")
    features = build(copy)
    assert features.info.dim == 4096
    assert "is not a Moshi language model of moshi's format and of the architecture" in message(features)


def test_a_truncated_file(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors is not a Moshi language model" in message(build(copy))


def test_a_truncated_mimi(copy: Path) -> None:
    file = copy / "mimi.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "mimi.safetensors is not a Mimi of moshi's format" in message(build(copy))


def test_another_architecture(copy: Path) -> None:
    assert "is not a Moshi language model" in message(build(change_config(copy, num_layers=3)))
    assert "is not a Moshi language model" in message(build(change_config(copy, num_layers=2, dim=128)))


def test_a_tensor_too_many_is_not_ignored(copy: Path) -> None:
    state = load_file(copy / "model.safetensors")
    save_file(state | {"adapter.weight": torch.zeros(1)}, copy / "model.safetensors")
    assert "adapter.weight" in message(build(copy))


def test_a_config_that_is_not_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert "config.json is not valid JSON" in message(build(copy))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"lora": True}, "lora"),
        ({"quantize": True}, "quantize"),
        ({"fuser": {"sum": ["x"]}, "conditioners": {"x": {}}}, "conditioners, fuser"),
        ({"model_type": "hibiki"}, "model_type=hibiki"),
        ({"n_q": 8}, "n_q=8, dep_q=8 and 17 delays"),
    ],
)
def test_models_of_another_kind(copy: Path, changes: dict[str, Any], found: str) -> None:
    assert found in message(build(change_config(copy, **changes)))


def test_a_depth_schedule_is_left_out_with_the_depth_part(tmp_path: Path) -> None:
    schedule = [0, 1, 2, 3, 4, 4, 4, 4]
    folder = write_tiny_moshi(tmp_path, depformer_weights_per_step_schedule=schedule)
    assert frames_of(build(folder).to("cpu"), RECORDING).shape == (20, 64)


def test_tensor_names_of_older_checkpoints(copy: Path, moshi_folder: Path) -> None:
    """The released files hold one in_proj_weight where the package now has in_projs.0.weight."""
    state = load_file(copy / "model.safetensors")
    old = {
        key.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0.weight", "out_proj.weight"): value
        for key, value in state.items()
        if not key.startswith("depformer.")
    }
    assert old.keys() != state.keys()
    save_file(old, copy / "model.safetensors")
    np.testing.assert_array_equal(
        frames_of(build(copy).to("cpu"), RECORDING), frames_of(build(moshi_folder).to("cpu"), RECORDING)
    )


def test_bfloat16_is_what_is_asked_for(moshi_folder: Path) -> None:
    rounded, exact = build(moshi_folder, dtype="bfloat16").to("cpu"), build(moshi_folder).to("cpu")
    a, b = frames_of(exact, RECORDING), frames_of(rounded, RECORDING)
    assert 1e-4 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.03
    assert {rounded.settings()["compute"], exact.settings()["compute"]} == {"bfloat16", "float32"}


def test_every_file_counts_in_the_fingerprint(copy: Path) -> None:
    before = build(copy).info.weights_id
    state = load_file(copy / "mimi.safetensors")
    save_file({key: value * 1.5 for key, value in state.items()}, copy / "mimi.safetensors")
    between = build(copy).info.weights_id
    change_config(copy, context=50)
    assert len({before, between, build(copy).info.weights_id}) == 3
    assert before.startswith("sha256:")


def test_random_weights_are_said_to_be_random(caplog: pytest.LogCaptureFixture) -> None:
    weights._warn_random.cache_clear()
    small = {key: value for key, value in moshi_config().items() if key in ("dim", "num_heads", "num_layers")}
    features = MoshiFeatures(weights="random", lm=small, dtype="float32", random_seed=3)
    with caplog.at_level(logging.WARNING):
        assert features.info.weights_id == "random:3"
    assert "features moshi has RANDOM weights (seed 3)" in caplog.text
    assert features.settings()["untrained"]["lm"] == small
