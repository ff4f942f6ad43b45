"""The configs of the published EnCodec models, and untrained models that behave like them (`weights=random`, tests)."""

from typing import Any

import torch

from voxlab.codecs.random_init import shrink_biases, spread_entries

MONO_24KHZ: dict[str, Any] = {
    "target_bandwidths": [1.5, 3.0, 6.0, 12.0, 24.0],
    "sampling_rate": 24000,
    "audio_channels": 1,
    "normalize": False,
    "chunk_length_s": None,
    "overlap": None,
    "use_causal_conv": True,
    "norm_type": "weight_norm",
    "upsampling_ratios": [8, 5, 4, 2],
    "codebook_size": 1024,
}
STEREO_48KHZ: dict[str, Any] = MONO_24KHZ | {
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    "sampling_rate": 48000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "use_causal_conv": False,
    "norm_type": "time_group_norm",
}


@torch.no_grad()
def fill_codebooks(model: Any, seed: int) -> Any:
    """Give an untrained transformers EncodecModel codebooks spread like its latents; fresh ones hold zeros only.

    Also shrinks the encoder's biases and moves the latents' mean into the last one: around a large common value the
    distances between codes would drown in rounding.
    """
    shrink_biases(model.encoder)
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randn(1, model.config.audio_channels, model.config.sampling_rate, generator=generator)
    latents = model.encoder(wav * torch.linspace(0, 0.3, wav.shape[-1]))[0]
    model.encoder.layers[-1].conv.bias.sub_(latents.mean(dim=-1))
    std = latents.std(dim=-1)
    for layer in model.quantizer.layers:
        book = layer.codebook
        book.embed.copy_(spread_entries(book.embed.shape, std, generator))
        book.embed_avg.copy_(book.embed)
        book.cluster_size.fill_(1)
    return model
