"""Writes a complete but tiny text-to-speech checkpoint in the format of moshi: the upstream loader reads it as its own.

Same moving parts as the published 1.6 B model (delays, audio delay, look-ahead text stream, shared depth weights,
speaker cross attention, look-up tables), with widths of a few dozen and random weights.
"""

import copy
import io
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import sentencepiece
import soundfile
import torch
from moshi.models import loaders
from safetensors.torch import save_file

from voxlab.codecs.mimi import CONFIG_FILE, WEIGHTS_FILE, fill_codebooks

Kind = Literal["distilled", "guided", "prefix"]

CARD = 64
NUM_CODEBOOKS = 8
MODEL_ID = {"sig": "0a1b2c3d", "epoch": 7}
MIMI_FILE, MIMI_CONFIG_FILE = WEIGHTS_FILE, CONFIG_FILE  # where codec=mimi looks, given the same folder
VOICE = "tiny.wav"
VOICE_SUFFIX = f".{MODEL_ID['sig']}@{MODEL_ID['epoch']}.safetensors"
SPEAKER_DIM = 8
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Hello world, how are you today?",
    "A voice assistant answers questions about the weather, music and food.",
    "Six big devils from Japan quickly forgot how to waltz!",
    "It's one, two, three; and then there were none.",
)

_SEANET = {
    "channels": 1,
    "dimension": 16,
    "causal": True,
    "n_filters": 2,
    "n_residual_layers": 1,
    "activation": "ELU",
    "compress": 2,
    "dilation_base": 2,
    "disable_norm_outer_blocks": 0,
    "kernel_size": 7,
    "residual_kernel_size": 3,
    "last_kernel_size": 3,
    "norm": "none",
    "pad_mode": "constant",
    "ratios": [8, 6, 5, 4],
    "true_skip": True,
}
MIMI_CONFIG: dict[str, Any] = {
    "sample_rate": 24000,
    "channels": 1,
    "frame_rate": 12.5,
    "seanet": _SEANET,
    "quantizer": {"dimension": 8, "n_q": NUM_CODEBOOKS, "bins": CARD, "input_dimension": 16, "output_dimension": 16},
    "transformer": {
        "d_model": 16,
        "num_heads": 2,
        "num_layers": 1,
        "causal": True,
        "layer_scale": 0.3,
        "context": 250,
        "conv_layout": True,
        "max_period": 10000,
        "gating": "none",
        "norm": "layer_norm",
        "positional_embedding": "rope",
        "dim_feedforward": 32,
        "input_dimension": 16,
        "output_dimensions": [16],
    },
}


def write_tiny_tts(folder: Path, kind: Kind = "distilled", seed: int = 0) -> Path:
    """Write checkpoint, codec, tokenizer, configuration and one voice into `folder` and return it.

    Args:
        folder: created where missing.
        kind: "distilled" knows guidance strengths as a condition (as the 1.6 B model), "guided" needs a second pass for
            guidance, "prefix" has no speaker condition and takes its voice from an audio file (as the 0.75 B model).
        seed: of all random weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text_card = _write_tokenizer(folder / "tokenizer_tiny.model")
    config = _config(kind, text_card)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / MIMI_CONFIG_FILE).write_text(json.dumps(MIMI_CONFIG, indent=1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mimi = loaders.get_mimi(None, MIMI_CONFIG, num_codebooks=NUM_CODEBOOKS)
        fill_codebooks(mimi, seed)
        _save(mimi, folder / MIMI_FILE)
        _save(_random_lm(config), folder / config["moshi_name"])
        _write_voice(folder, kind)
    return folder


def _write_tokenizer(path: Path) -> int:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
        sentence_iterator=iter(SENTENCES), model_writer=model, vocab_size=80, hard_vocab_limit=False, model_type="bpe",
        character_coverage=1.0, unk_id=0, bos_id=1, eos_id=2, pad_id=3, minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()  # type: ignore


def _conditioners(kind: Kind) -> tuple[dict[str, Any], list[str], list[str]]:
    """Conditioners with the lists of those that are summed and those that are attended to."""
    strengths = [f"{1 + i / 2:.1f}" for i in range(7)]
    control = {"type": "lut", "lut": {"n_bins": 1, "dim": 4, "tokenizer": "noop", "possible_values": ["ok"]}}
    cfg = {"type": "lut", "lut": {"n_bins": 7, "dim": 4, "tokenizer": "noop", "possible_values": strengths}}
    speaker = {"type": "tensor", "tensor": {"dim": SPEAKER_DIM}}
    if kind == "distilled":
        return {"speaker_wavs": speaker, "cfg": cfg, "control": control}, ["control", "cfg"], ["speaker_wavs"]
    if kind == "guided":
        return {"speaker_wavs": speaker, "control": control}, ["control"], ["speaker_wavs"]
    return {}, [], []


def _config(kind: Kind, text_card: int) -> dict[str, Any]:
    conditioners, summed, crossed = _conditioners(kind)
    return {
        "card": CARD,
        "n_q": NUM_CODEBOOKS,
        "dep_q": NUM_CODEBOOKS,
        "delays": [0, 0] + [2] * (NUM_CODEBOOKS - 1),
        "dim": 32,
        "text_card": text_card,
        "text_card_out": 5,  # few enough for an untrained model to begin new words of its own accord
        "existing_text_padding_id": 3,
        "num_heads": 2,
        "num_layers": 2,
        "hidden_scale": 2.0,
        "causal": True,
        "layer_scale": None,
        "context": 500,
        "max_period": 10000,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 16,
        "depformer_num_heads": 2,
        "depformer_num_layers": 1,
        "depformer_dim_feedforward": 32,
        "depformer_multi_linear": True,
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "depformer_weights_per_step_schedule": [0, 1, 2, 3] + [4] * (NUM_CODEBOOKS - 4),
        "depformer_low_rank_embeddings": 4,
        "demux_second_stream": True,
        "conditioners": conditioners,
        "cross_attention": bool(crossed),
        "fuser": {
            "cross_attention_pos_emb": True,
            "cross_attention_pos_emb_scale": 1,
            "sum": summed,
            "prepend": [],
            "cross": crossed,
        },
        "tts_config": {"audio_delay": 0.4, "second_stream_ahead": 2},
        "model_id": MODEL_ID,
        "model_type": "tts",
        "lm_gen_config": {"temp": 0.6, "temp_text": 0.6, "top_k": 250, "top_k_text": 50},
        "tokenizer_name": "tokenizer_tiny.model",
        "mimi_name": MIMI_FILE,
        "mimi_config_name": MIMI_CONFIG_FILE,
        "moshi_name": "dsm_tiny.safetensors",
    }


def _random_lm(config: dict[str, Any]) -> torch.nn.Module:
    elsewhere = ("tts_config", "model_id", "model_type", "lm_gen_config")
    # The loader writes into nested dicts: hand it a copy.
    lm_config = {
        key: copy.deepcopy(value) for key, value in config.items() if key not in elsewhere and not key.endswith("_name")
    }
    return loaders.get_moshi_lm(None, lm_config, dtype=torch.float32)


def _save(module: torch.nn.Module, path: Path) -> None:
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}, str(path))


def _write_voice(folder: Path, kind: Kind) -> None:
    if kind == "prefix":
        tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(12 * 1920) / 24000)
        soundfile.write(folder / VOICE, tone.astype(np.float32), 24000)
    else:
        save_file({"speaker_wavs": torch.randn(1, SPEAKER_DIM, 10)}, str(folder / (VOICE + VOICE_SUFFIX)))
