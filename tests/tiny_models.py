"""Writers of tiny random models in the formats of the upstream packages; deterministic by seed, a few MB at most.

They keep the real rates, hop lengths, numbers of codebooks and codebook sizes: only the widths shrink.
"""

import json
from pathlib import Path
from typing import Any

import torch

SNAC_CONFIG: dict[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 4,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 32,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}


def write_tiny_snac(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write config.json and pytorch_model.bin for `SNAC.from_pretrained(folder)`; `changes` override the config."""
    from snac import SNAC

    from voxlab.codecs.random_init import spread_codes

    config = SNAC_CONFIG | changes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SNAC(**config) if config["attn_window_size"] else spread_codes(SNAC(**config))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def mimi_config() -> dict[str, Any]:
    """Return moshi's own config with small widths; hop 1920, 32 codebooks of 2048 entries."""
    import copy

    from moshi.models import loaders

    config = copy.deepcopy(loaders._mimi_config)
    config["seanet"] |= {"dimension": 16, "n_filters": 2}
    config["quantizer"] |= {"dimension": 8, "input_dimension": 16, "output_dimension": 16}
    config["transformer"] |= {"d_model": 16, "num_heads": 2, "num_layers": 2, "dim_feedforward": 32}
    config["transformer"] |= {"input_dimension": 16, "output_dimensions": [16]}
    return config


def write_tiny_mimi(folder: Path, seed: int = 0) -> Path:
    """Write mimi.safetensors and mimi_config.json for `get_mimi(file, mimi_config)`; codebooks filled."""
    from moshi.models.loaders import get_mimi
    from safetensors.torch import save_file

    from voxlab.codecs.mimi import fill_codebooks

    config = mimi_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_mimi(None, config, num_codebooks=32)
    fill_codebooks(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mimi_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "mimi.safetensors")
    return folder


def moshi_config(**changes: Any) -> dict[str, Any]:
    """Return moshi's own language model config with small widths; the true streams, delays and vocabularies."""
    from moshi.models import loaders

    small = {"dim": 64, "num_heads": 4, "num_layers": 2, "context": 40}
    depth = {"dim": 32, "dim_feedforward": 132, "num_heads": 2, "num_layers": 1}
    return loaders._lm_kwargs | small | {f"depformer_{key}": value for key, value in depth.items()} | changes


def write_tiny_moshi(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write config.json, model.safetensors (float32) and a tiny Mimi as `CheckpointInfo.from_hf_repo` reads them.

    `changes` go into the config. The text tokenizer is left out.
    """
    from moshi.models.loaders import get_moshi_lm
    from safetensors.torch import save_file

    config = moshi_config(**changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_moshi_lm(None, config, dtype=torch.float32)
    write_tiny_mimi(folder, seed)
    files = {"moshi_name": "model.safetensors", "mimi_name": "mimi.safetensors", "mimi_config_name": "mimi_config.json"}
    (folder / "config.json").write_text(json.dumps(config | files | {"model_type": "moshi"}))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def write_tiny_encodec(folder: Path, seed: int = 0, *, stereo: bool = False) -> Path:
    """Write a transformers EncodecModel folder: 24 kHz mono causal, or 48 kHz stereo in 1 s segments."""
    from transformers import EncodecConfig, EncodecModel

    from voxlab.codecs.encodec import STEREO_48KHZ, fill_codebooks

    config = EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, **(STEREO_48KHZ if stereo else {}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EncodecModel(config)
    fill_codebooks(model, seed)
    model.save_pretrained(folder)
    return folder


def write_tiny_rvq(folder: Path, seed: int = 0) -> Path:
    """Write the codec folder of a mel codec: codec=rvq with small widths."""
    from voxlab.models.tokenizer.mel_codec import MelArchitecture
    from voxlab.models.tokenizer.quantizer import QuantizerSettings

    return _export_tiny(MelArchitecture(hidden=16, quantizer=QuantizerSettings(codebook_dim=8)), folder, seed)


def write_tiny_rvq_wave(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Write the codec folder of a waveform codec: codec=rvq_wave with small widths; `changes` to the architecture."""
    from voxlab.models.tokenizer.quantizer import QuantizerSettings
    from voxlab.models.tokenizer.wave_codec import WaveArchitecture

    settings: dict[str, Any] = {"width": 2, "latent": 16, "quantizer": QuantizerSettings(codebook_dim=8)}
    return _export_tiny(WaveArchitecture(**(settings | changes)), folder, seed)


def _export_tiny(architecture: Any, folder: Path, seed: int) -> Path:
    from voxlab.codecs.rvq_weights import fill_codebooks
    from voxlab.models.tokenizer import files

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build()
    fill_codebooks(network, architecture, seed)
    return files.export(network, architecture, folder, {"data": "random", "step": 0})


def write_tiny_wavlm(folder: Path, seed: int = 0, *, do_normalize: bool = False, **changes: Any) -> Path:
    """Write a transformers WavLMModel folder: 32 wide, rows of 20 ms; `changes` to its config."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    small |= {"conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WavLMModel(WavLMConfig(**(small | changes)))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=do_normalize).save_pretrained(folder)
    return folder
