"""Exact streaming of moshi's causal transformers: the window of keys is widened for the steps of one call.

Their ring of keys is as long as the attention window, so a call of k steps overwrites k - 1 keys that its first steps
still need. A ring of window + k - 1 keys under an unchanged window gives the full forward pass.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def attention_window(transformer: Any) -> int:
    """Return how many steps, its own among them, a step of moshi's StreamingTransformer sees."""
    return transformer.layers[0].self_attn.context


@contextlib.contextmanager
def exact_stream(module: Any, window: int, steps: int, batch_size: int) -> Iterator[None]:
    """Open a stream of `module` whose calls of up to `steps` new steps equal one full forward pass.

    Args:
        module: moshi's StreamingTransformer, or a module that holds one.
        window: its attention window.
        steps: most steps of a call.
        batch_size: rows.
    """
    from moshi.modules.transformer import set_attention_context

    set_attention_context(module, window + steps - 1)
    try:
        stream = module.streaming(batch_size)
    finally:
        set_attention_context(module, window)
    with stream:
        yield


class MimiStream:
    """Mimi's encoder on a running signal, equal to one pass over all of it.

    Args:
        network: moshi's MimiModel, float32.
        batch_size: signals side by side.
        max_frames: most frames of a call.
    """

    def __init__(self, network: Any, batch_size: int, max_frames: int) -> None:
        self.network, self._open = network, contextlib.ExitStack()
        transformer = network.encoder_transformer
        window = attention_window(transformer.transformer)
        ratio = round(network.encoder_frame_rate / network.frame_rate)
        self._open.enter_context(network.encoder.streaming(batch_size))
        self._open.enter_context(exact_stream(transformer, window, ratio * max_frames, batch_size))
        if hasattr(network, "downsample"):
            self._open.enter_context(network.downsample.conv.streaming(batch_size))

    def __enter__(self) -> "MimiStream":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def encode(self, wav: Tensor) -> Tensor:
        """Encode wav (B, 1, k hop), 1 <= k <= max_frames, to unquantised latents (B, D, k)."""
        (latents,) = self.network.encoder_transformer(self.network.encoder(wav))
        return self.network.downsample(latents) if hasattr(self.network, "downsample") else latents


@contextlib.contextmanager
def uncompiled(device: torch.device) -> Iterator[None]:
    """Keep moshi from compiling its small functions where that takes longer than it saves: on the CPU."""
    from moshi.utils.compile import no_compile

    with no_compile() if device.type == "cpu" else contextlib.nullcontext():
        yield
