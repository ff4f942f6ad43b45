"""What a training run is going to be: data, rates, sizes, memory; and warnings about data that are too few."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from voxlab.models.tokenizer import files
from voxlab.tasks.train_tokenizer.data import TokenizerData
from voxlab.tasks.train_tokenizer.settings import Fit, Loop

log = logging.getLogger(__name__)

_ENOUGH = 5  # vectors for each entry of a codebook
_MANY = 1000  # passes over the data, beyond which a run only repeats itself
_STATE_BYTES = 20  # a parameter: weight, gradient, two of AdamW, average


def plan(
    network: nn.Module, architecture: Any, data: TokenizerData, fit: Fit, loop: Loop, world: int
) -> dict[str, Any]:
    """Return what the run will do, ready to be printed."""
    batch_seconds = fit.batch_size * fit.segment_seconds
    sizes = files.rates(architecture)
    values = {
        "family": architecture.family,
        "sample_rate": architecture.sample_rate,
        **{name: round(sizes[name], 4) for name in ("frame_rate", "bitrate", "tokens_per_second") if name in sizes},
        "parameters": count_parameters(network),
        "train_hours": round(data.seconds / 3600, 4),
        "train_recordings": len(data.train_set.items),
        "train_speakers": _speakers(data.train_set.items),
        "val_recordings": 0 if data.val_set is None else len(data.val_set.items),
        "val_speakers": 0 if data.val_set is None else _speakers(data.val_set.items),
        "max_steps": loop.max_steps,
        "batch": f"{fit.batch_size} segments of {fit.segment_seconds:g} s over {world} ranks",
        "audio_hours_seen": rounded(loop.max_steps * batch_seconds / 3600),
        "passes_over_the_data": rounded(loop.max_steps * batch_seconds / data.seconds),
        "memory_gb": round(estimate_memory(network, architecture, fit, world) / 1e9, 2),
    }
    return {name: value for name, value in values.items() if value is not None}


def rounded(amount: float) -> float:
    """Return an amount with as many digits as say something: whole from 100 on."""
    return round(amount, 3) if amount < 1 else round(amount, 2) if amount < 100 else round(amount)


def describe(facts: Mapping[str, Any]) -> str:
    """Return a line for each fact, whole numbers in groups of three digits: 197,531."""
    texts = {
        name: f"{value:,}" if isinstance(value, int) and abs(value) > 9999 else value for name, value in facts.items()
    }
    return "\n".join(f"  {name.replace('_', ' ')}: {value}" for name, value in texts.items())


def count_parameters(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


@torch.no_grad()
def estimate_memory(network: nn.Module, architecture: Any, fit: Fit, world: int) -> float:
    """Return bytes that a rank needs at least in float32: its state, and what backward keeps; no discriminators."""
    outputs = 0

    def add(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal outputs
        outputs += output.numel() if isinstance(output, torch.Tensor) else 0

    hooks = [module.register_forward_hook(add) for module in network.modules() if not list(module.children())]
    try:
        samples = -(-round(fit.segment_seconds * architecture.sample_rate) // architecture.hop_length)
        wav = torch.zeros(1, 1, samples * architecture.hop_length)
        was_training = network.training
        network.eval()(wav, torch.tensor([wav.shape[-1]]))
        network.train(was_training)
    finally:
        for hook in hooks:
            hook.remove()
    buffers = sum(buffer.numel() for buffer in network.buffers())
    return _STATE_BYTES * count_parameters(network) + 8 * buffers + 4.0 * outputs * math.ceil(fit.batch_size / world)


def warn_of_few(architecture: Any, data: TokenizerData, fit: Fit) -> None:
    """Tell where codebooks can't be filled by the pool, or by all of the data."""
    if architecture.family == "vocoder":
        return
    size = architecture.codebook_size
    vectors = data.seconds * architecture.frame_rate
    if vectors < _ENOUGH * size:
        suggested = max(2, 2 ** int(math.log2(max(2.0, vectors / _ENOUGH))))
        log.warning(
            "the training audio has %d code frames, fewer than %d for each of %d entries: codebooks stay partly "
            "unused. Try codec.architecture.quantizer.codebook_size=%d.",
            *(vectors, _ENOUGH, size, suggested),
        )
    if fit.pool_size is not None and fit.pool_size < size:
        log.warning(
            "fit.pool_size=%d is below the %d entries of a codebook: some can't start. Take null (%d).",
            *(fit.pool_size, size, 16 * size),
        )


def warn_of_repetition(passes: float, max_steps: int, small: str) -> None:
    """Tell where a run goes through its data more often than it can learn from.

    Args:
        passes: over the data, in all steps.
        max_steps: of the run.
        small: the words that choose settings for little data.
    """
    if passes > _MANY:
        log.warning(
            "%s steps pass over these few data %s times, far more often than helps. Set trainer.max_steps=%d or less "
            "(%s passes), or take settings for little data: %s.",
            *(f"{max_steps:,}", f"{round(passes):,}", max(1, int(max_steps * _MANY / passes)), f"{_MANY:,}", small),
        )


def describe_rates(architecture: Any) -> str:
    """Return one line about what the codec costs."""
    rates = files.rates(architecture)
    if "bitrate" not in rates:
        return f"vocoder at {architecture.sample_rate} Hz"
    return (
        f"{rates['frame_rate']:g} frames/s x {rates['num_codebooks']} codebooks of {rates['codebook_size']} = "
        f"{rates['tokens_per_second']:g} tokens/s = {rates['bitrate']:g} bit/s, {rates['sample_rate']} Hz"
    )


def _speakers(items: Any) -> int | None:
    speakers = {item.metadata["speaker"] for item in items if "speaker" in item.metadata}
    return len(speakers) or None
