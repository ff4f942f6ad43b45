"""The files of a Moshi checkpoint: where they are, which architecture they hold, and how they become a network.

Reads moshi's own format (config.json, model.safetensors, Mimi, text tokenizer); tests write and check it by moshi.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from voxlab.codecs import weights as weight_files
from voxlab.codecs.mimi import CONFIG_FILE as MIMI_CONFIG
from voxlab.codecs.mimi import WEIGHTS_FILE as MIMI_FILE
from voxlab.errors import UserError

CONFIG, LM_FILE, TOKENIZER = "config.json", "model.safetensors", "tokenizer_spm_32k_3.model"
# Keys of config.json that tell of files and uses; the others are arguments of moshi's LMModel.
_NOT_ARCHITECTURE = (
    *("moshi_name", "mimi_name", "mimi_config_name", "tokenizer_name", "lora_name", "model_type"),
    *("lm_gen_config", "tts_config", "stt_config", "model_id"),
)
_UNSUPPORTED = ("conditioners", "fuser", "lora", "lora_name", "quantize")


@dataclass(frozen=True)
class MoshiFiles:
    """Paths of a checkpoint; None where the published default stands in, or nothing needs the file."""

    lm: Path
    mimi: Path
    config: Path | None
    mimi_config: Path | None
    tokenizer: Path | None

    def named(self) -> dict[str, Path]:
        """Return the files that decide results, by role."""
        roles = vars(self).items()
        return {role: path for role, path in roles if path is not None}


@dataclass(frozen=True)
class MoshiSource:
    """Where the files are looked for: each of the four paths wins over what `weights` holds.

    Attributes:
        weights: hub id or folder.
        moshi_weights: file of the language model, or None.
        mimi_weights: file of Mimi, or None.
        config_path: config.json, or None: the one beside `moshi_weights` if there, else that of `weights`.
        tokenizer: sentencepiece model, or None.
    """

    weights: str
    moshi_weights: str | None = None
    mimi_weights: str | None = None
    config_path: str | None = None
    tokenizer: str | None = None

    def find(self, needs_text: bool) -> MoshiFiles:
        """Find every file, on the hub (its cache when offline) where no path is given.

        Args:
            needs_text: whether the text tokenizer is used.

        Raises:
            UserError: a file is missing, or config.json describes another kind of model.
        """
        config = self._config()
        names = _read_config(config)
        lm = self._file("moshi_weights", names.get("moshi_name", LM_FILE))
        mimi = self._file("mimi_weights", names.get("mimi_name", MIMI_FILE))
        tokenizer = self._file("tokenizer", names.get("tokenizer_name", TOKENIZER)) if needs_text else None
        return MoshiFiles(lm, mimi, config, self._mimi_config(mimi, names.get("mimi_config_name")), tokenizer)

    def _config(self) -> Path | None:
        if self.config_path is not None:
            return self._file("config_path", CONFIG)
        if self.moshi_weights is not None:
            beside = Path(self.moshi_weights).expanduser().with_name(CONFIG)
            return beside if beside.is_file() else None
        return self._resolve([], [CONFIG]).get(CONFIG)

    def _mimi_config(self, mimi: Path, name: str | None) -> Path | None:
        beside = mimi.with_name(name or MIMI_CONFIG)
        if name is None or beside.is_file():
            return beside if beside.is_file() else None
        return self._resolve([name], [])[name]

    def _file(self, key: str, name: str) -> Path:
        given = getattr(self, key)
        if given is None:
            return self._resolve([name], [])[name]
        path = Path(given).expanduser()
        if not path.is_file():
            raise UserError(f"features.{key}={given}: no such file ({name} of a Moshi checkpoint is needed).\n{_HELP}")
        return path

    def _resolve(self, names: list[str], optional: list[str]) -> dict[str, Path]:
        try:
            return weight_files.resolve(self.weights, names, optional, codec="moshi", group="features")
        except UserError as error:
            raise UserError(f"{str(error).splitlines()[0]}\n{_HELP}") from error


_HELP = (
    f"features=moshi needs three files: {CONFIG}, the language model ({LM_FILE}) and Mimi ({MIMI_FILE}); with "
    f"text=transcript also {TOKENIZER}.\nGive them as features.weights=<folder or hub id>, or one by one "
    "(features.config_path, features.moshi_weights, features.mimi_weights, features.tokenizer).\n"
    "With less: features=mimi_latent needs Mimi only, features=logmel needs no weights."
)


def _read_config(path: Path | None) -> dict[str, Any]:
    """Read config.json; {} where there is none: the published Moshi.

    Raises:
        UserError: it isn't JSON, or describes a model of another kind.
    """
    if path is None:
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); give the config.json of a Moshi checkpoint.") from None
    foreign = [key for key in _UNSUPPORTED if config.get(key)]
    if foreign or config.get("model_type", "moshi") != "moshi":
        found = ", ".join(foreign) or f"model_type={config['model_type']}"
        raise UserError(
            f"{path} describes a model with {found}; features=moshi reads plain dialogue models "
            "(kyutai/moshiko-pytorch-bf16, kyutai/moshika-pytorch-bf16). Set features.weights."
        )
    return config


def read_architecture(files: MoshiFiles | None, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the arguments of moshi's LMModel.

    Args:
        files: of the checkpoint; None: untrained weights.
        changes: to the published architecture, for untrained weights.

    Raises:
        UserError: the streams aren't text, agent and other.
    """
    from moshi.models.loaders import _lm_kwargs

    config = _read_config(files.config) if files else {}
    known = {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE + _UNSUPPORTED}
    kwargs = (known or dict(_lm_kwargs)) | (changes or {})
    if kwargs["n_q"] != 2 * kwargs["dep_q"] or len(kwargs["delays"]) != kwargs["n_q"] + 1:
        raise UserError(
            f"{files.config if files else 'features.lm'}: n_q={kwargs['n_q']}, dep_q={kwargs['dep_q']} and "
            f"{len(kwargs['delays'])} delays; needed are n_q = 2 dep_q audio streams (agent, other) and one of text."
        )
    return kwargs


def load_lm(
    file: Path | None, architecture: dict[str, Any], *, num_layers: int | None, dtype: torch.dtype, seed: int
) -> Any:
    """Return moshi's LMModel without its depth transformer, on the CPU in eval mode.

    Args:
        file: .safetensors of the checkpoint, whose other tensors are not read; None: untrained, drawn with `seed`.
        architecture: arguments of LMModel.
        num_layers: keep only the first ones; None: all.
        dtype: of the weights.
        seed: of untrained weights.

    Raises:
        UserError: the file is of another format or architecture.
    """
    from moshi.models.loaders import get_moshi_lm

    changes = {"dep_q": 0, "depformer_weights_per_step_schedule": None}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        device = "cpu" if file is None else "meta"
        lm = get_moshi_lm(None, architecture, device=device, dtype=dtype, lm_kwargs_overrides=changes)
    if num_layers is not None:
        lm.transformer.layers = lm.transformer.layers[:num_layers]
    if file is not None:
        _load_state(lm, file, len(lm.transformer.layers), dtype)
    return lm.eval().requires_grad_(False)


def _load_state(lm: Any, file: Path, num_layers: int, dtype: torch.dtype) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            keys: list[str] = tensors.keys()
            state = {key: tensors.get_tensor(key).to(dtype) for key in keys if _is_used(key, num_layers)}
        lm.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[:3]]
        raise UserError(
            f"features moshi: {file} is not a Moshi language model of moshi's format and of the architecture in its "
            f"config.json: {' '.join(lines)}\nGive {LM_FILE} and config.json of one checkpoint "
            "(features.moshi_weights, features.config_path)."
        ) from error


def _is_used(key: str, num_layers: int) -> bool:
    """Say whether a tensor of a complete checkpoint belongs to the text-and-audio transformer."""
    if key.startswith(("depformer", "linears.")):
        return False
    return not key.startswith("transformer.layers.") or int(key.split(".")[2]) < num_layers
