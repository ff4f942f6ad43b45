"""Vocos as its authors publish it: config.yaml and pytorch_model.bin, read into our ISTFT vocoder.

Source: the files of charactr/vocos-mel-24khz and the `vocos` package 0.1.0.
"""

import pickle
from pathlib import Path
from typing import Any

import torch

from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer.istft_vocoder import IstftVocoder, VocoderArchitecture

FLOOR = 1e-7
REMADE = ("feature_extractor.", "head.istft.")  # keys of buffers that follow from the config


def vocos_architecture(config_file: Path) -> VocoderArchitecture:
    """Read config.yaml.

    Raises:
        UserError: not YAML of a Vocos, or of one that takes something else than a centred mel.
    """
    import yaml

    try:
        config = yaml.safe_load(config_file.read_text(encoding="utf-8"))
        parts = {name: _part(config[name], kind) for name, kind in PARTS.items()}
        features, backbone, head = parts["feature_extractor"], parts["backbone"], parts["head"]
        if {features.get("padding", "center"), head.get("padding", "same")} != {"center"}:
            raise ValueError("padding is not center")
        if (features["n_fft"], features["hop_length"]) != (head["n_fft"], head["hop_length"]):
            raise ValueError("feature_extractor and head have different n_fft or hop_length")
        sizes = {name: features[name] for name in ("sample_rate", "n_fft", "hop_length")}
        return VocoderArchitecture(
            mel=Mel(num_bins=features["n_mels"], floor=FLOOR, **sizes),
            dim=backbone["dim"],
            hidden=backbone["intermediate_dim"],
            layers=backbone["num_layers"],
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"vocoder vocos: {config_file} is not the config of a mel Vocos ({type(error).__name__}: {error}). "
            "Allowed: the format of charactr/vocos-mel-24khz; or use vocoder=griffin_lim."
        ) from error


PARTS = {"feature_extractor": "MelSpectrogramFeatures", "backbone": "VocosBackbone", "head": "ISTFTHead"}


def _part(node: dict[str, Any], kind: str) -> dict[str, Any]:
    found = str(node["class_path"]).rpartition(".")[2]
    if found != kind:
        raise ValueError(f"{found} where {kind} is needed")
    return node["init_args"]


def build_vocos(architecture: VocoderArchitecture, weights_file: Path) -> IstftVocoder:
    """Build the network and load pytorch_model.bin; every weight must fit.

    Raises:
        UserError: the weights belong to another architecture, or the file is damaged.
    """
    network = architecture.build()
    try:
        state = torch.load(weights_file, map_location="cpu", weights_only=True)
        own = {key: value for key, value in state.items() if not key.startswith(REMADE)}
        remade = {key: value for key, value in network.state_dict().items() if key.startswith("log_mel.")}
        network.load_state_dict(own | remade)
    except (RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        reason = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise UserError(
            f"vocoder vocos: {weights_file} does not fit its config.yaml or is damaged: {reason}"
        ) from error
    return network.eval().requires_grad_(False)
