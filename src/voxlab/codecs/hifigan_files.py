"""HiFi-GAN files: transformers' SpeechT5HifiGan folders and the generators of jik876/hifi-gan (resblock 1).

Source: Kong, Kim & Bae 2020, "HiFi-GAN"; the file layout of github.com/jik876/hifi-gan.
"""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.mel import Mel


def read_json(path: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        UserError: it is not JSON, or not of a HiFi-GAN.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"vocoder hifigan: {path} is not valid JSON ({error})") from None
    if not isinstance(config, dict) or "upsample_rates" not in config:
        raise UserError(
            f"vocoder hifigan: {path} is not the config of a HiFi-GAN: it has no upsample_rates. Allowed: a folder of "
            "transformers' SpeechT5HifiGan or a generator of jik876/hifi-gan; or use vocoder=griffin_lim."
        )
    return config


def jik876_files(path: Path) -> dict[str, Path]:
    """Find a generator and its config: the file itself, or the only g_* file of a folder; {} if there is none.

    Raises:
        UserError: a folder holds several generators, or the config is not beside the generator.
    """
    found = sorted(path.glob("g_*")) if path.is_dir() else [path] if path.is_file() else []
    if len(found) > 1:
        raise UserError(f"vocoder hifigan: {path} holds {len(found)} generators; set vocoder.weights to one of them")
    if not found:
        return {}
    config = found[0].parent / "config.json"
    if not config.is_file():
        raise UserError(f"vocoder hifigan: config.json is not beside {found[0]}; copy it from the same release")
    return {"config.json": config, "generator": found[0]}


def jik876_mel(config: dict[str, Any], path: Path) -> Mel:
    """Return the mel that a config.json of jik876/hifi-gan describes.

    Raises:
        UserError: a field is missing, or the window is shorter than the FFT.
    """
    names = ("sampling_rate", "n_fft", "win_size", "hop_size", "num_mels", "fmin", "fmax")
    missing = [name for name in names if name not in config]
    if missing:
        raise UserError(f"vocoder hifigan: {path} lacks {', '.join(missing)}; it is no config of jik876/hifi-gan")
    if config["win_size"] != config["n_fft"]:
        raise UserError(f"vocoder hifigan: {path}: win_size={config['win_size']}; needed is n_fft={config['n_fft']}")
    return Mel(
        sample_rate=config["sampling_rate"],
        n_fft=config["n_fft"],
        hop_length=config["hop_size"],
        num_bins=config["num_mels"],
        f_min=float(config["fmin"]),
        f_max=None if config["fmax"] is None else float(config["fmax"]),
        scale="slaney",
        norm="slaney",
        center=False,
    )


def build_transformers(folder: Path) -> nn.Module:
    """Load a SpeechT5HifiGan folder: (B, F, bins) to (B, F * hop).

    Raises:
        UserError: the weights are damaged or of another model.
    """
    from transformers import SpeechT5HifiGan

    try:
        loaded: Any = SpeechT5HifiGan.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"vocoder hifigan: {folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    network, report = loaded
    if report["missing_keys"] or report["mismatched_keys"]:
        wrong = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))[:4]
        raise UserError(f"vocoder hifigan: the weights in {folder} don't fit its config.json: {', '.join(wrong)}")
    return network.eval().requires_grad_(False)


def build_jik876(files: dict[str, Path]) -> nn.Module:
    """Build a SpeechT5HifiGan from a generator of jik876/hifi-gan: (B, F, bins) to (B, F * hop).

    Raises:
        UserError: a variant that is not supported, or weights that don't fit.
    """
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = read_json(files["config.json"])
    if str(config.get("resblock", "1")) != "1":
        raise UserError(f"vocoder hifigan: resblock={config['resblock']} (V3) is not supported; use V1 or V2")
    mel = jik876_mel(config, files["config.json"])
    names = ("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel")
    names += ("resblock_kernel_sizes", "resblock_dilation_sizes")
    shape = {name: config[name] for name in names}
    network = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(model_in_dim=mel.num_bins, sampling_rate=mel.sample_rate, normalize_before=False, **shape)
    )
    try:
        state = torch.load(files["generator"], map_location="cpu", weights_only=True)["generator"]
        buffers = dict(network.named_buffers())
        network.load_state_dict(rename_jik876(state) | buffers)
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise UserError(
            f"vocoder hifigan: {files['generator']} is no generator of its config.json: {reason}"
        ) from error
    return network.eval().requires_grad_(False)


def rename_jik876(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a generator's weights the names of SpeechT5HifiGan and undo their weight norm (v * g / |v|)."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        name = re.sub(r"^ups\.", "upsampler.", key)
        if name.endswith("weight_g"):
            continue
        if name.endswith("weight_v"):
            scale = state[key.removesuffix("_v") + "_g"]
            value = value * (scale / value.norm(dim=tuple(range(1, value.dim())), keepdim=True))
            name = name.removesuffix("_v")
        renamed[name] = value
    return renamed
