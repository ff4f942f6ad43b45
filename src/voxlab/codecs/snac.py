"""SNAC 24 kHz: three codebooks at 11.7, 23.4 and 46.9 Hz; batched results equal single ones, noise is reproducible.

The network is the `snac` package's; the forward pass is ours, because SNAC's convolutions look both ways:
every activation past an item's end is set to zero before each of them (see `walk`).
"""

import json
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from voxlab.codecs import weights as weight_files
from voxlab.codecs.base import CodecInfo, Codes, check_codes, check_wav, item_seed, pad_rows, single, zero_past
from voxlab.codecs.prefix import shorten, sum_entries
from voxlab.codecs.random_init import spread_codes
from voxlab.codecs.runtime import check_dtype, compile_function, exact_inference, fold_weight_norm, package_version
from voxlab.errors import UserError

# Published 24 kHz configuration (hubertsiuzdak/snac_24khz, MIT licence).
CONFIG_24KHZ: dict[str, Any] = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
Step = tuple[str, Any]  # what to do, and the upstream module that holds its parameters
NOISE = ("seeded", "off", "native")
OVERLAP_GROUPS = 3  # the decoder sees 10 latent frames to each side, 2.5 groups of 4
BUCKET_GROUPS = 64  # padded lengths on CUDA, so that compiled graphs and kernel plans are met again


class Snac:
    """SNAC codec: strides (4, 2, 1), 4096 entries, hop 512; decodes 7 codes per group of 2048 samples.

    Args:
        weights: hub id, folder with config.json and pytorch_model.bin, or "random".
        dtype: float32 (default), bfloat16 (39 dB SNR) or float16.
        compile: torch.compile the network (1.35 x faster decoding on CPU, within 1e-5 of eager).
        noise: "seeded" draws each item's noise from its own seed, "off" leaves it out, "native" uses the global RNG.
        chunk_groups: longer items are decoded in chunks of so many groups and 3 more to each side (exact to 5e-6).
            54 keep activations below the 32 MB from where on glibc maps fresh pages for every buffer.
        random_seed: seed of the weights where `weights` is "random".

    Raises:
        UserError: an argument is unknown, or the weights are not there or of an unsupported model.
    """

    def __init__(
        self,
        *,
        weights: str = "hubertsiuzdak/snac_24khz",
        dtype: str = "float32",
        compile: bool = False,
        noise: str = "seeded",
        chunk_groups: int = 54,
        random_seed: int = 0,
    ) -> None:
        if noise not in NOISE:
            raise UserError(f"codec snac: noise={noise!r} is unknown; allowed: {', '.join(NOISE)}")
        if chunk_groups < 1:
            raise UserError(f"codec snac: chunk_groups={chunk_groups}; allowed: 1 or more (default 54)")
        self.weights, self.dtype, self.compile = weights, check_dtype(dtype, "snac"), compile
        self.noise, self.chunk_groups, self.random_seed = noise, chunk_groups, random_seed
        self.device = torch.device("cpu")

    @cached_property
    def _files(self) -> dict[str, Path]:
        if self.weights == weight_files.RANDOM:
            return {}
        return weight_files.resolve(self.weights, ["config.json", "pytorch_model.bin"], codec="snac")

    @cached_property
    def _config(self) -> dict[str, Any]:
        config = json.loads(self._files["config.json"].read_text()) if self._files else CONFIG_24KHZ
        if config.get("attn_window_size", 32) is not None:
            raise UserError(
                f"codec snac: the model in '{self.weights}' has windowed attention (attn_window_size="
                f"{config.get('attn_window_size', 32)}, the 32 and 44 kHz models); batching and chunking would change "
                "its results. Allowed: models without attention, such as hubertsiuzdak/snac_24khz."
            )
        return config

    @property
    def info(self) -> CodecInfo:
        """Describe the codec from its config file."""
        return self._info

    @cached_property
    def _info(self) -> CodecInfo:
        identity = weight_files.identify(self._files, "snac", self.random_seed)
        strides = tuple(self._config["vq_strides"])
        hop = math.prod(self._config["encoder_rates"])
        size = self._config["codebook_size"]
        return CodecInfo("snac", self._config["sampling_rate"], 1, hop, len(strides), size, strides, identity)

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes the bytes of results; loads no model."""
        return {
            "name": "snac",
            "weights_id": self.info.weights_id,
            "num_codebooks": self.info.num_codebooks,
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": self.compile,
            "noise": self.noise,
            "chunk_groups": self.chunk_groups,
            "packages": {"snac": package_version("snac", "snac")},
        }

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights and folds weight norm away on the first call."""
        self.device = torch.device(device)
        self._model.to(self.device)
        return self

    def with_codebooks(self, count: int) -> Self:
        """Return this codec with its first `count` codebooks, for decoding; it shares the weights, see `shorten`."""
        return shorten(self, count)

    @cached_property
    def _model(self) -> Any:
        package_version("snac", "snac")
        from snac import SNAC

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_seed)
            if self._files:
                model = SNAC.from_config(self._files["config.json"])
                state = torch.load(self._files["pytorch_model.bin"], map_location="cpu", weights_only=True)
                model.load_state_dict(state)
            else:
                model = spread_codes(SNAC(**self._config))
        assert self.info.weights_id  # hashed (or warned about) before first use
        return fold_weight_norm(model).eval().requires_grad_(False).to(self.device, self.dtype)

    @cached_property
    def _walk(self) -> Any:
        return compile_function(walk, "snac") if self.compile else walk

    @cached_property
    def _plans(self) -> tuple[list[Step], list[Step]]:
        return flatten(self._model.encoder.block), flatten(self._model.decoder.model)

    @property
    def _group(self) -> int:
        return max(self.info.strides)

    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """Encode wav (B, 1, T) float32; each item is zero-padded to whole groups (2048 samples), as upstream does.

        Raises:
            ValueError: wrong shape or lengths.
        """
        lengths = check_wav(wav, lengths, self.info)
        span = self._group * self.info.hop_length
        frames = (lengths + span - 1) // span * self._group
        padded = nn.functional.pad(zero_past(wav, lengths), (0, int(frames.max()) * self.info.hop_length))
        padded = padded[..., : int(frames.max()) * self.info.hop_length].to(self.device, self.dtype)
        with exact_inference(self.device, self.dtype):
            latents = self._run(self._plans[0], padded, frames, [])[..., : int(frames.max())]
            codebooks = [book.cpu() for book in self._model.quantizer(latents)[1]]
        for stride, codebook in zip(self.info.strides, codebooks, strict=True):
            for row, valid in zip(codebook, (frames // stride).tolist(), strict=True):
                row[valid:] = 0
        return Codes(tuple(codebooks), frames, num_samples=lengths)

    def decode(self, codes: Codes, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Decode to wav (B, 1, 512 N) on the codec's device, zero past each end.

        At batch 1, uncompiled, in one chunk and on the CPU the result equals `torch.manual_seed(seed);
        snac.decode(codes)` of the upstream package bit for bit.

        Args:
            codes: codebooks of N/4, N/2 and N codes.
            seeds: one per item, for noise="seeded"; without them they follow from the codes themselves.

        Raises:
            ValueError: a code out of range, rates that do not fit, or a wrong number of seeds.
        """
        check_codes(codes, self.info)
        noises = self._draw_noises(codes, seeds)
        widest = int(codes.lengths.max())
        wav = torch.zeros(len(codes), 1, widest * self.info.hop_length, device=self.device)
        step = self.chunk_groups * self._group
        if widest <= step + 2 * OVERLAP_GROUPS * self._group:
            step = widest  # no wider than a chunk with its margins
        with exact_inference(self.device, self.dtype):
            for start in range(0, widest, step):
                self._decode_chunk(codes, noises, start, start + step, wav)
        lengths = codes.lengths * self.info.hop_length
        if codes.num_samples is None:
            return wav, lengths
        lengths = torch.minimum(lengths, codes.num_samples)
        return zero_past(wav[..., : int(lengths.max())], lengths), lengths

    def _decode_chunk(self, codes: Codes, noises: list[list[Tensor]], start: int, stop: int, wav: Tensor) -> None:
        """Write frames [start, stop) of every item that reaches them into wav, decoded with a margin to each side."""
        margin = OVERLAP_GROUPS * self._group
        items = [i for i, frames in enumerate(codes.lengths.tolist()) if frames > start]
        left = max(0, start - margin)
        lengths = codes.lengths[items].clamp(max=stop + margin) - left
        width = int(lengths.max())
        rows = [
            codebook[items, left // stride : (left + width) // stride].to(self.device)
            for codebook, stride in zip(codes.codebooks, self.info.strides, strict=True)
        ]
        latents = sum_entries(self._model.quantizer, rows)
        noise = self._noise_of([noises[i] for i in items] if noises else [], left, lengths)
        decoded = self._run(self._plans[1], latents, lengths, noise).float()
        hop = self.info.hop_length
        for row, item in enumerate(items):
            end = min(int(codes.lengths[item]), stop)
            wav[item, :, start * hop : end * hop] = decoded[row, :, (start - left) * hop : (end - left) * hop]

    def _run(self, plan: list[Step], x: Tensor, frames: Tensor, noise: list[Tensor]) -> Tensor:
        """Run the encoder or decoder on x with (B,) valid latent frames each, padded to buckets when compiled for CUDA.

        Padded positions come out undefined; callers cut them off.
        """
        width = int(frames.max())
        extra = -width % (BUCKET_GROUPS * self._group) if self.compile and self.device.type == "cuda" else 0
        if extra:
            x, *noise = (nn.functional.pad(t, (0, extra * (t.shape[-1] // width))) for t in (x, *noise))
        ragged = extra > 0 or bool((frames != width).any())
        scale = x.shape[-1] // (width + extra)
        return self._walk(plan, x, scale, frames.to(self.device) if ragged else None, noise)

    def _draw_noises(self, codes: Codes, seeds: Sequence[int] | None) -> list[list[Tensor]]:
        """Draw the noise of whole items, one (1, 1, T_k) float32 tensor per decoder stage, in stage order."""
        if self.noise != "seeded" or not self._config["noise"]:
            return []
        if seeds is None:
            seeds = [_content_seed(single(codes, i)) for i in range(len(codes))]
        if len(seeds) != len(codes):
            raise ValueError(f"snac: got {len(seeds)} seeds for {len(codes)} items; give one per item")
        drawn = []
        for seed, frames in zip(seeds, codes.lengths.tolist(), strict=True):
            generator = torch.Generator().manual_seed(seed)
            drawn.append([torch.randn(1, 1, frames * up, generator=generator) for up in self._upsampling])
        return drawn

    @property
    def _upsampling(self) -> list[int]:
        """Noise samples per latent frame at each decoder stage: 8, 64, 256, 512."""
        rates = self._config["decoder_rates"]
        return [math.prod(rates[: k + 1]) for k in range(len(rates))]

    def _noise_of(self, noises: list[list[Tensor]], left: int, lengths: Tensor) -> list[Tensor]:
        """Return the noise of each stage for frames [left, left + length) of each item, padded with zeros."""
        if self.noise == "off" or not self._config["noise"]:
            return []
        if self.noise == "native":
            shapes = [(len(lengths), 1, int(lengths.max()) * up) for up in self._upsampling]
            return [torch.randn(shape, device=self.device, dtype=self.dtype) for shape in shapes]
        stages = []
        for k, up in enumerate(self._upsampling):
            rows = [
                item[k][0, :, left * up : (left + n) * up] for item, n in zip(noises, lengths.tolist(), strict=True)
            ]
            stages.append(pad_rows(rows).to(self.device, self.dtype))
        return stages


def flatten(module: nn.Module) -> list[Step]:
    """List the primitive steps of a SNAC encoder or decoder in the order in which they run."""
    from snac.layers import NoiseBlock, ResidualUnit, Snake1d

    if isinstance(module, ResidualUnit):
        inner = flatten(module.block)
        return [("save", module), *inner, ("add", module)]
    if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
        return [("conv", module)]
    if isinstance(module, Snake1d):
        return [("snake", module)]
    if isinstance(module, NoiseBlock):
        return [("noise", module)]
    children = list(module.children())
    return [step for child in children for step in flatten(child)] if children else [("call", module)]


def walk(plan: list[Step], x: Tensor, scale: int, valid: Tensor | None, noise: Sequence[Tensor]) -> Tensor:
    """Run a plan of `flatten`; each operation gives the bits of the upstream module it stands for.

    Args:
        plan: steps of the encoder or decoder.
        x: (B, C, T) input, changed in place.
        scale: samples of x per latent frame.
        valid: (B,) latent frames of each item on x's device, or None where all are equally long.
        noise: (B, 1, T_k) per noise block; empty leaves the blocks out.
    """
    draws = iter(noise)
    saved = x
    for kind, module in plan:
        if kind == "save":
            saved = x
        elif kind == "add":
            x = x.add_(saved)
        elif kind == "snake":
            x = snake(x, module.alpha)
        elif kind == "conv":
            x, scale = convolve(module, x, scale, valid)
        elif kind == "noise":
            x = module.linear(x).mul_(next(draws)).add_(x) if noise else x
        else:
            x = module(x)
    return x


def snake(x: Tensor, alpha: Tensor) -> Tensor:
    """Compute x + sin(alpha x)^2 / alpha in one new tensor; in the order of the upstream formula, for equal bits."""
    return (alpha * x).sin_().pow_(2).mul_((alpha + 1e-9).reciprocal()).add_(x)


def convolve(conv: Any, x: Tensor, scale: int, valid: Tensor | None) -> tuple[Tensor, int]:
    """Apply a convolution after zeroing what lies past each end; return the result and its samples per frame."""
    upsamples = isinstance(conv, nn.ConvTranspose1d)
    if valid is not None and (upsamples or conv.kernel_size[0] > 1):
        x = zero_tails(x, valid, scale)
    stride = conv.stride[0]
    return conv(x), scale * stride if upsamples else scale // stride


def zero_tails(x: Tensor, valid: Tensor, scale: int) -> Tensor:
    """Zero x (B, C, T) from position valid * scale on, per item."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        for row, frames in zip(x, valid.tolist(), strict=True):
            row[:, frames * scale :] = 0  # touches the padding only, where a mask would read and write everything
        return x
    keep = torch.arange(x.shape[-1], device=x.device) < (valid * scale)[:, None, None]
    return torch.where(keep, x, 0)


def _content_seed(codes: Codes) -> int:
    return item_seed(0, " ".join(str(value) for row in codes.codebooks for value in row.flatten().tolist()))
