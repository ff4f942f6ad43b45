"""EnCodec: 24 kHz mono (causal) and 48 kHz stereo (1 s segments), 2 to 32 codebooks by bandwidth.

Runs on transformers' EncodecModel or on the `encodec` package: same weights, same codes bit for bit. The published
weights and the package are CC BY-NC 4.0.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from voxlab.codecs import weights as weight_files
from voxlab.codecs.base import CodecInfo, Codes, check_codes, check_wav, pad_rows, stack, unstack, zero_past
from voxlab.codecs.encodec_front import CausalFront, build_front, run_lstm
from voxlab.codecs.encodec_models import MONO_24KHZ, STEREO_48KHZ, fill_codebooks
from voxlab.codecs.encodec_package import to_package
from voxlab.codecs.prefix import shorten
from voxlab.codecs.runtime import check_dtype, exact_inference, fold_weight_norm, package_version
from voxlab.errors import UserError

BACKENDS, TAILS = ("transformers", "encodec"), ("reference", "zeros")
QUANTIZER_ROWS = 768  # on a CPU: distances to 1024 entries stay in the cache
REFLECTED_FRAMES = 8  # shorter items reflect into their own padding at the left edge: batched with their equals only


class Encodec:
    """EnCodec: hop 320, 1024 entries, codes of a lower bandwidth a prefix of a higher one.

    Args:
        weights: hub id, folder with config.json and model.safetensors (transformers), or "random".
        bandwidth: kbit/s; 24 kHz: 1.5 3 6 12 24 for 2 4 8 16 32 codebooks; 48 kHz: 3 6 12 24 for 2 4 8 16.
        sample_rate: 24000 or 48000 where `weights` is "random"; else None, or the rate that the weights must have.
        backend: transformers or encodec (the package, extra `encodec`).
        tail: "reference" encodes as the package does (it reflects the last samples): only equal lengths share the
            convolutions, any lengths the LSTM (48 kHz: equal lengths only); "zeros" pads with silence to a whole
            frame, which lets any lengths share everything (24 kHz only).
        dtype: float32 (default); bfloat16 and float16 change most codes.
        compile: refused: the LSTM is a library call already, and the convolutions' padding depends on the data.
        max_seconds: longer items are refused: EnCodec's LSTM allows no exact chunks.
        random_seed: seed of the weights where `weights` is "random".

    Raises:
        UserError: an argument is unknown or does not fit the weights.
    """

    def __init__(
        self,
        *,
        weights: str = "facebook/encodec_24khz",
        bandwidth: float = 6.0,
        sample_rate: int | None = None,
        backend: str = "transformers",
        tail: str = "reference",
        dtype: str = "float32",
        compile: bool = False,
        max_seconds: float = 600.0,
        random_seed: int = 0,
    ) -> None:
        for key, word, allowed in (("backend", backend, BACKENDS), ("tail", tail, TAILS)):
            if word not in allowed:
                raise UserError(f"codec encodec: {key}={word!r} is unknown; allowed: {', '.join(allowed)}")
        if compile:
            raise UserError("codec encodec: compile=true gains nothing here (LSTM, data-dependent padding); set false")
        if sample_rate not in (None, 24000, 48000):
            raise UserError(f"codec encodec: sample_rate={sample_rate}; allowed: 24000, 48000 or null")
        self.weights, self.bandwidth, self.sample_rate, self.backend = weights, bandwidth, sample_rate, backend
        self.tail, self.dtype, self.max_seconds = tail, check_dtype(dtype, "encodec"), max_seconds
        self.random_seed, self.device = random_seed, torch.device("cpu")

    @cached_property
    def _files(self) -> dict[str, Path]:
        if self.weights == weight_files.RANDOM:
            return {}
        return weight_files.resolve(self.weights, ["config.json", "model.safetensors"], codec="encodec")

    @cached_property
    def _config(self) -> dict[str, Any]:
        published = STEREO_48KHZ if self.sample_rate == 48000 else MONO_24KHZ
        config = published | (json.loads(self._files["config.json"].read_text()) if self._files else {})
        if self.sample_rate not in (None, config["sampling_rate"]):
            raise UserError(
                f"codec encodec: sample_rate={self.sample_rate}, but '{self.weights}' holds a model of "
                f"{config['sampling_rate']} Hz. Set codec.sample_rate=null or another codec.weights."
            )
        if self.tail == "zeros" and not config["use_causal_conv"]:
            raise UserError("codec encodec: tail=zeros works with the causal 24 kHz model only; set tail=reference")
        if self.bandwidth not in config["target_bandwidths"]:
            raise UserError(f"codec encodec: bandwidth={self.bandwidth}; allowed: {config['target_bandwidths']} kbit/s")
        return config

    @property
    def info(self) -> CodecInfo:
        """Describe the codec from its config file."""
        return self._info

    @cached_property
    def _info(self) -> CodecInfo:
        identity = weight_files.identify(self._files, "encodec", self.random_seed)
        config = self._config
        rate, size = config["sampling_rate"], config["codebook_size"]
        hop = math.prod(config["upsampling_ratios"])
        books = int(self.bandwidth * 1000 // (math.log2(size) * math.ceil(rate / hop)))
        flat, channels, scaled = (1,) * books, config["audio_channels"], config["normalize"]
        return CodecInfo("encodec", rate, channels, hop, books, size, flat, identity, scaled)

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes the bytes of results; loads no model."""
        return {
            "name": "encodec",
            "weights_id": self.info.weights_id,
            "num_codebooks": self.info.num_codebooks,
            "bandwidth": self.bandwidth,
            "max_seconds": self.max_seconds,
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": False,
            "tail": self.tail,
            "packages": {self.backend: package_version(self.backend, "encodec", extra="encodec")},
        }

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights and folds weight norm away on the first call."""
        self.device = torch.device(device)
        self._model.to(self.device)
        vars(self).pop("_front", None)
        return self

    def with_codebooks(self, count: int) -> Self:
        """Return this codec with its first `count` codebooks, for decoding; it shares the weights, see `shorten`."""
        return shorten(self, count)

    @cached_property
    def _model(self) -> Any:
        package_version(self.backend, "encodec", extra="encodec")
        assert self.info.num_codebooks  # config and bandwidth are checked before loading
        model = self._load_transformers()
        if self.backend == "encodec":
            model = to_package(model)
        model.encoder.to(self.dtype)
        model.decoder.to(self.dtype)  # the quantizer stays float32: rounded distances would pick other codes
        return fold_weight_norm(model).eval().requires_grad_(False).to(self.device)

    @cached_property
    def _front(self) -> CausalFront | None:
        """The fast front of the encoder, None where the modules do that work."""
        fast = self.backend == "transformers" and self.device.type == "cpu"
        return build_front(self._model.encoder, self._model.config) if fast else None

    def _load_transformers(self) -> Any:
        from transformers import EncodecConfig, EncodecModel

        if self._files:
            return EncodecModel.from_pretrained(str(self._files["config.json"].parent), local_files_only=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_seed)
            model = EncodecModel(EncodecConfig(**self._config))
        return fill_codebooks(model, self.random_seed)

    @cached_property
    def _segment(self) -> tuple[int, int] | None:
        """Samples of a segment and from one segment to the next; None where the model takes whole signals."""
        if self._config["chunk_length_s"] is None:
            return None
        length = int(self._config["chunk_length_s"] * self.info.sample_rate)
        return length, max(1, int((1 - self._config["overlap"]) * length))

    def _segments(self, num_samples: int) -> list[tuple[int, int]]:
        """Return (offset, length) in samples of each segment of a signal."""
        if self._segment is None:
            return [(0, num_samples)]
        length, stride = self._segment
        return [(offset, min(length, num_samples - offset)) for offset in range(0, num_samples, stride)]

    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """Encode wav (B, C, T) float32 to ceil(samples / 320) frames per segment, segments joined in time.

        Raises:
            ValueError: wrong shape or lengths, or an item beyond `max_seconds`.
        """
        lengths = check_wav(wav, lengths, self.info)
        self._check_duration(lengths)
        rows: list[list[Tensor]] = [[] for _ in wav]
        scales: list[list[Tensor]] = [[] for _ in wav]
        fronts: dict[int, Tensor] = {}
        with exact_inference(self.device, self.dtype):
            for items, offset, count in self._encode_groups(lengths):
                part = wav[items, :, offset : offset + count].to(self.device, torch.float32)
                if self.tail == "zeros":
                    part = nn.functional.pad(zero_past(part, lengths[items]), (0, -count % self.info.hop_length))
                frames = [math.ceil(min(count, int(lengths[i]) - offset) / self.info.hop_length) for i in items]
                if self._is_causal and count > self._short:
                    fronts |= {i: x[:, :n] for i, x, n in zip(items, self._encode_front(part), frames, strict=True)}
                    continue
                codes, scale = self._encode_segment(part)
                for row, item in enumerate(items):
                    rows[item].append(codes[row, :, : frames[row]])
                    scales[item].append(scale[row])
            for item, codes in self._encode_rest(fronts).items():
                rows[item].append(codes)
        joined = [torch.cat(parts, dim=-1) for parts in rows]
        frames = torch.tensor([row.shape[-1] for row in joined])
        loudness = pad_rows([torch.cat(parts) for parts in scales]) if self._config["normalize"] else None
        return unstack(pad_rows(joined), frames, lengths, loudness)

    def _encode_groups(self, lengths: Tensor) -> Iterator[tuple[list[int], int, int]]:
        """Yield (items, offset, samples) of segments that may share a batch without changing each other."""
        groups: dict[tuple[int, int], list[int]] = {}
        for item, num_samples in enumerate(lengths.tolist()):
            for offset, count in self._segments(num_samples):
                shared = self.tail == "zeros" and count > self._short and self._front is None
                groups.setdefault((offset, 0 if shared else count), []).append(item)
        for (offset, count), items in groups.items():
            yield items, offset, count or int(lengths[items].max())

    @property
    def _short(self) -> int:
        """Samples up to which an item may only be encoded with its equals."""
        return (REFLECTED_FRAMES - 1) * self.info.hop_length

    @property
    def _is_causal(self) -> bool:
        """From its LSTM on, the encoder takes items of any lengths together: what follows an item does not reach it."""
        return self._config["use_causal_conv"] and self._segment is None and not self._config["normalize"]

    @cached_property
    def _layers(self) -> tuple[list[nn.Module], nn.LSTM, list[nn.Module]]:
        """The encoder's layers before its LSTM, that, and the layers after it."""
        encoder = self._model.encoder
        layers = list(encoder.layers if self.backend == "transformers" else encoder.model)
        at = next(index for index, layer in enumerate(layers) if hasattr(layer, "lstm"))
        return layers[:at], cast(nn.LSTM, layers[at].lstm), layers[at + 1 :]

    def _encode_front(self, wav: Tensor) -> Tensor:
        """Run (B, 1, T) of equal lengths through the encoder up to its LSTM: (B, C, N)."""
        if self._front is not None:
            return torch.stack([self._front(row[0]) for row in wav.to(self.dtype)])
        return nn.Sequential(*self._layers[0])(wav.to(self.dtype))

    def _encode_rest(self, fronts: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Run items (C, N_i) of mixed lengths through LSTM, last convolution and quantizer: item -> codes (K, N_i)."""
        if not fronts:
            return {}
        _, lstm, others = self._layers
        latents = nn.Sequential(*others)(run_lstm(lstm, list(fronts.values()))).float()
        frames = [front.shape[-1] for front in fronts.values()]
        valid = [row[:, :count] for row, count in zip(latents, frames, strict=True)]
        codes = self._quantize(torch.cat(valid, dim=-1)[None])[0].split(frames, dim=-1)
        return dict(zip(fronts, codes, strict=True))

    def _quantize(self, latents: Tensor) -> Tensor:
        """Find the codes (B, K, N) of latents (B, D, N)."""
        rate = (self._model.frame_rate,) if self.backend == "encodec" else ()
        step = max(1, QUANTIZER_ROWS // len(latents)) if self.device.type == "cpu" else latents.shape[-1]
        parts = [self._model.quantizer.encode(part, *rate, self.bandwidth) for part in latents.split(step, -1)]
        return torch.cat(parts, dim=-1).transpose(0, 1).cpu()

    def _encode_segment(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (B, C, T) to codes (B, K, N) and loudness factors (B, 1), all ones where the model has none."""
        scale = torch.ones(len(wav), 1, device=self.device)
        if self._config["normalize"]:
            mono = wav.mean(dim=1, keepdim=True)
            scale = mono.pow(2).mean(dim=2).sqrt() + 1e-8
            wav = wav / scale[:, :, None]
        latents = self._model.encoder(wav.to(self.dtype)).float()
        return self._quantize(latents), scale.cpu()

    def decode(self, codes: Codes, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Decode to wav (B, C, T) on the codec's device, zero past each end; EnCodec has no noise, seeds are unused.

        Raises:
            ValueError: a code out of range, or (48 kHz) no `num_samples` or `scales`, which give the segments.
        """
        check_codes(codes, self.info)
        hop = self.info.hop_length
        lengths = codes.lengths * hop
        if self._segment is not None and (codes.num_samples is None or codes.scales is None):
            raise ValueError("encodec 48 kHz: codes need num_samples and scales to be cut into segments")
        if codes.num_samples is not None:
            lengths = torch.minimum(lengths, codes.num_samples)
        books = stack(codes).to(self.device)
        parts: list[list[Tensor]] = [[] for _ in lengths]
        with exact_inference(self.device, self.dtype):
            for items, index, starts, frames in self._decode_groups(codes):
                cut = torch.stack([books[i, :, at : at + frames] for i, at in zip(items, starts, strict=True)])
                wav = self._decode_segment(cut)
                for row, item in enumerate(items):
                    factor = 1.0 if codes.scales is None else codes.scales[item, index].to(self.device)
                    parts[item].append(wav[row] * factor)
            stride = self._segment[1] if self._segment else 1
            whole = [overlap_add(rows, stride)[:, : int(n)] for rows, n in zip(parts, lengths, strict=True)]
        return pad_rows(whole), lengths

    def _decode_groups(self, codes: Codes) -> Iterator[tuple[list[int], int, list[int], int]]:
        """Yield (items, segment index, first frames, frames) of segments that may share a batch."""
        groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        for item, total in enumerate(codes.lengths.tolist()):
            start = 0
            for index, frames in enumerate(self._segment_frames(codes, item, total)):
                alone = self._segment is not None or frames < REFLECTED_FRAMES
                groups.setdefault((index, frames if alone else 0), []).append((item, start, frames))
                start += frames
        for (index, _), members in groups.items():
            items, starts = [m[0] for m in members], [m[1] for m in members]
            yield items, index, starts, max(m[2] for m in members)

    def _segment_frames(self, codes: Codes, item: int, total: int) -> list[int]:
        if self._segment is None or codes.num_samples is None:
            return [total]
        segments = self._segments(int(codes.num_samples[item]))
        frames = [math.ceil(count / self.info.hop_length) for _, count in segments]
        if sum(frames) != total:
            raise ValueError(f"encodec: item {item} has {total} frames; its num_samples asks for {sum(frames)}")
        return frames

    def _decode_segment(self, codes: Tensor) -> Tensor:
        latents = self._model.quantizer.decode(codes.transpose(0, 1))
        return self._model.decoder(latents.to(self.dtype)).float()

    def _check_duration(self, lengths: Tensor) -> None:
        longest = int(lengths.max()) / self.info.sample_rate
        if longest > self.max_seconds:
            raise ValueError(
                f"encodec: an item of {longest:.1f} s; allowed are {self.max_seconds}. Cut it or set codec.max_seconds"
            )


def overlap_add(parts: Sequence[Tensor], stride: int) -> Tensor:
    """Join (C, T_s) segments that start `stride` samples apart; each position is their mean under triangle weights.

    Source: the rule of the `encodec` package (Défossez et al. 2022): weights of every segment come from the first.
    """
    if len(parts) == 1:
        return parts[0]
    first, last = parts[0].shape[-1], parts[-1].shape[-1]
    ramp = torch.linspace(0, 1, first + 2, device=parts[0].device)[1:-1]
    weight = 0.5 - (ramp - 0.5).abs()
    total = stride * (len(parts) - 1) + last
    wav, weights = parts[0].new_zeros(parts[0].shape[0], total), weight.new_zeros(total)
    for index, part in enumerate(parts):
        at, count = index * stride, part.shape[-1]
        wav[:, at : at + count] += weight[:count] * part
        weights[at : at + count] += weight[:count]
    return wav / weights
