"""Mimi's encoder as a feature: unquantised or quantised latents, or the codes themselves, exact over hours.

python main.py task=extract data=podcastfillers features=mimi_latent
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from voxlab.codecs import mimi as mimi_codec
from voxlab.codecs import weights as weight_files
from voxlab.codecs.runtime import exact_inference, package_version
from voxlab.errors import UserError
from voxlab.features.align import check_align, delay, split_frames
from voxlab.features.base import VERSION, Chunk, FeatureInfo, Recording
from voxlab.features.streaming import MimiStream, uncompiled

SAMPLE_RATE, FRAME_RATE, HOP_LENGTH = 24000, 12.5, 1920
PUBLISHED_DIM = 512
Kind = Literal["latent", "quantized", "codes"]
KINDS = ("latent", "quantized", "codes")


def step_frames(device: torch.device) -> int:
    """Return how many frames to encode per call: long enough to keep the device busy, short enough for its caches."""
    return 60 if device.type == "cpu" else 500


def encode_pieces(network: Any, wav: Tensor, num_frames: int, device: torch.device) -> Iterator[Tensor]:
    """Encode a whole signal with a memory that doesn't grow with it.

    Args:
        network: moshi's MimiModel on `device`.
        wav: (B, 1, T) float32 on the CPU; continued with silence to `num_frames`.
        num_frames: frames to encode.
        device: of the network.

    Yields:
        (B, D, k) consecutive unquantised latents.
    """
    step = step_frames(device) * HOP_LENGTH
    with MimiStream(network, len(wav), step // HOP_LENGTH) as stream:
        for start in range(0, num_frames * HOP_LENGTH, step):
            stop = min(start + step, num_frames * HOP_LENGTH)
            piece = wav[..., start:stop]
            piece = nn.functional.pad(piece, (0, stop - start - piece.shape[-1])).to(device)
            with exact_inference(device, torch.float32), uncompiled(device):
                latents = stream.encode(piece)
            yield latents


class MimiFeatures:
    """What Mimi makes of the `other` side; frame t hears audio up to its own end, nothing later.

    Args:
        weights: hub id, .safetensors file, folder with one (and an optional mimi_config.json), or "random".
        kind: latent: before the quantiser | quantized: what the codes decode to | codes: the codes, int16.
        num_codebooks: codebooks behind `quantized` and `codes`, 1 to 32.
        align: decision: row t holds frame t - 1, and row 0 zeros (codes: -1); raw: row t holds frame t.
        random_seed: seed of the weights where `weights` is "random".

    Raises:
        UserError: an argument is out of range, or the weights are not there or not in moshi's format.
    """

    licence: ClassVar[str] = "Mimi, by Kyutai: weights CC BY 4.0, code MIT."

    def __init__(
        self,
        *,
        weights: str = "kyutai/moshiko-pytorch-bf16",
        kind: Kind = "latent",
        num_codebooks: int = 8,
        align: str = "decision",
        random_seed: int = 0,
    ) -> None:
        if kind not in KINDS:
            raise UserError(f"features: kind={kind!r} is unknown; allowed: {', '.join(KINDS)}")
        self.name = "codes" if kind == "codes" else f"mimi_{kind}"
        if not 1 <= num_codebooks <= 32:
            raise UserError(f"features {self.name}: num_codebooks={num_codebooks}; allowed: 1 to 32")
        self.weights, self.kind, self.num_codebooks, self.random_seed = weights, kind, num_codebooks, random_seed
        self.align, self.device = check_align(align, self.name), torch.device("cpu")

    @cached_property
    def _files(self) -> dict[str, Any]:
        try:
            return mimi_codec.locate(self.weights, group="features", owner=self.name)
        except UserError as error:
            raise UserError(f"{error}\nWithout any weights: features=logmel.") from error

    @cached_property
    def _config(self) -> dict[str, Any] | None:
        """Architecture for moshi's loader; None is its own default, the published model."""
        file = self._files.get(mimi_codec.CONFIG_FILE)
        return json.loads(file.read_text()) if file else None

    @property
    def info(self) -> FeatureInfo:
        """Describe the frames."""
        return self._info

    @cached_property
    def _info(self) -> FeatureInfo:
        identity = weight_files.identify(self._files, f"features {self.name}", self.random_seed)
        if self.kind == "codes":
            return FeatureInfo(self.name, self.num_codebooks, FRAME_RATE, SAMPLE_RATE, identity, "int16")
        dim = self._config["seanet"]["dimension"] if self._config else PUBLISHED_DIM
        return FeatureInfo(self.name, dim, FRAME_RATE, SAMPLE_RATE, identity)

    def settings(self) -> dict[str, Any]:
        """Return what decides the frames besides the weights."""
        books = {} if self.kind == "latent" else {"num_codebooks": self.num_codebooks}
        packages = {"moshi": package_version("moshi", self.name)}
        return {"name": self.name, **books, "align": self.align, "packages": packages, "version": VERSION}

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return asdict(self.info) | self.settings()

    def to(self, device: torch.device | str) -> Self:
        """Load the weights onto `device`."""
        self.device = torch.device(device)
        self._network.to(self.device)
        return self

    @cached_property
    def _network(self) -> Any:
        file = next((path for name, path in self._files.items() if name != mimi_codec.CONFIG_FILE), None)
        assert self.info.dim  # random weights are warned about before they are made
        books = self.num_codebooks
        return mimi_codec.load_network(file, self._config, num_codebooks=books, seed=self.random_seed)

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many past frames each row knows."""
        return np.arange(num_frames, dtype=np.int32) + (self.align == "raw")

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract one recording after the other."""
        for recording in recordings:
            wav, start = recording.load()[1], 0
            pieces = encode_pieces(self._network, wav[None], recording.num_frames, self.device)
            for values in self._rows(latents[0] for latents in pieces):
                last = start + len(values) == recording.num_frames
                yield Chunk(recording.key, "features", start, values, last)
                start += len(values)

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield (1, dim) frames as their audio comes."""
        raw = self.align == "raw"
        frames = self._encode_live(split_frames(wavs, HOP_LENGTH, flush=raw))
        if raw:
            yield from self._rows(frames)
            return
        yield self._store(self._nothing())
        for latents in frames:
            yield self._store(self._of(latents))

    def _encode_live(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        with MimiStream(self._network, 1, 1) as stream:
            for frame in frames:
                with exact_inference(self.device, torch.float32), uncompiled(self.device):
                    latents = stream.encode(frame[None].to(self.device))
                yield latents[0]

    def _rows(self, pieces: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Turn consecutive (D, k) latents into (k, dim) rows, aligned."""
        previous = self._nothing()
        for latents in pieces:
            values = self._of(latents)
            if self.align == "decision":
                values, previous = delay(values, previous)
            yield self._store(values)

    def _nothing(self) -> Tensor:
        kind, empty = (torch.int64, -1) if self.kind == "codes" else (torch.float32, 0)
        return torch.full((1, self.info.dim), empty, dtype=kind, device=self.device)

    def _of(self, latents: Tensor) -> Tensor:
        """Turn (D, k) unquantised latents into (k, dim) values."""
        if self.kind == "latent":
            return latents.T
        with exact_inference(self.device, torch.float32):
            codes = self._network.quantizer.encode(latents[None])
            return codes[0].T if self.kind == "codes" else self._network.decode_latent(codes)[0].T

    def _store(self, values: Tensor) -> np.ndarray:
        return values.to(torch.int16 if self.kind == "codes" else torch.float16).cpu().numpy()
