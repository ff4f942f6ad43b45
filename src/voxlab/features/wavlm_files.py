"""The files of a WavLM checkpoint in transformers' format: where they are, and how they become a network."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxlab.codecs import weights as weight_files
from voxlab.errors import UserError

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
NORM_EPS = 1e-7  # of transformers' Wav2Vec2FeatureExtractor
_STRIDE, _FIELD = 320, 400


@dataclass(frozen=True)
class WavLMFiles:
    """Paths of a checkpoint, all in one folder; no preprocessor_config.json: the audio is taken as it is."""

    config: Path
    weights: Path
    preprocessor: Path | None

    def named(self) -> dict[str, Path]:
        """Return the files that decide results, by role."""
        return {role: path for role, path in vars(self).items() if path is not None}

    @property
    def normalizes(self) -> bool:
        """Whether the network was trained on audio of mean 0 and variance 1."""
        return self.preprocessor is not None and bool(_read_json(self.preprocessor).get("do_normalize", False))


def find(weights: str) -> WavLMFiles:
    """Find the files in a folder or on the hub (its cache when offline).

    Raises:
        UserError: a file is missing; says which, and what needs none.
    """
    about = {"codec": "wavlm", "group": "features"}
    try:
        config = weight_files.resolve(weights, [CONFIG], **about)[CONFIG]  # by itself: an absent hub is asked once
        name = next((name for name in WEIGHTS if weight_files.resolve(weights, [], [name], **about)), WEIGHTS[0])
        found = weight_files.resolve(weights, [name], [PREPROCESSOR], **about)
    except UserError as error:
        raise UserError(
            f"{error}\n{WEIGHTS[1]} would do as well. HF_HOME names the folder of the hub's cache.\n"
            "Without these weights: features=mfcc or features=logmel need none; features=wavlm_tiny has random ones."
        ) from error
    return WavLMFiles(config, found[name], found.get(PREPROCESSOR))


def read_architecture(files: WavLMFiles | None, changes: Mapping[str, Any]) -> Any:
    """Return transformers' WavLMConfig of the files; None: the published base model with `changes`.

    Raises:
        UserError: it isn't a WavLM whose rows are 20 ms, or an unknown key is changed.
    """
    from transformers import WavLMConfig

    values = dict(changes) if files is None else _read_json(files.config)
    owner = "features.config" if files is None else str(files.config)
    config = WavLMConfig()
    known = config.to_dict().keys()
    if files is None and (unknown := sorted(values.keys() - known)):
        raise UserError(f"features.config: WavLM has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if files is not None and values.get("model_type") != "wavlm":
        raise UserError(f"{owner} describes model_type={values.get('model_type')!r}; needed is 'wavlm'.")
    try:
        config = WavLMConfig(**values)
    except ValueError as error:
        raise UserError(f"{owner}: {error}") from error
    stride, field = _reach(config.conv_stride, config.conv_kernel)
    if (stride, field) != (_STRIDE, _FIELD):
        raise UserError(
            f"{owner}: conv_stride={list(config.conv_stride)}, conv_kernel={list(config.conv_kernel)} make rows of "
            f"{field} samples every {stride}; needed are {_FIELD} every {_STRIDE}."
        )
    return config


def load(files: WavLMFiles | None, config: Any, seed: int) -> Any:
    """Return transformers' WavLMModel, float32, on the CPU in eval mode; None: untrained, drawn with `seed`.

    Raises:
        UserError: the weights are damaged, or lack a tensor of the architecture.
    """
    from transformers import WavLMModel

    if files is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return WavLMModel(config).eval().requires_grad_(False)
    try:
        loader: Any = WavLMModel  # its stubs don't know of the second result
        network, found = loader.from_pretrained(
            files.weights.parent,
            config=config,
            use_safetensors=files.weights.suffix == ".safetensors",
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:  # safetensors, pickle, zip and size mismatches each have their own
        raise UserError(f"features wavlm: {files.weights} can't be loaded: {error}") from error
    missing = sorted(set(found["missing_keys"]) - {"masked_spec_embed"})  # used in training only
    if missing:
        raise UserError(
            f"features wavlm: {files.weights} lacks {len(missing)} tensors of the architecture in {files.config}, "
            f"the first is {missing[0]}. Give a complete WavLM checkpoint (features.weights)."
        )
    return network.eval().requires_grad_(False)


def _reach(strides: list[int], kernels: list[int]) -> tuple[int, int]:
    """Return after how many samples the stacked convolutions move on, and how many they see."""
    stride, field = 1, 1
    for own, kernel in zip(strides, kernels, strict=True):
        field += (kernel - 1) * stride
        stride *= own
    return stride, field


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
