"""Hidden states of WavLM: 768 numbers per 20 ms of speech.

python main.py task=extract data=beat2 features=wavlm
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from voxlab.audio import compute_num_frames
from voxlab.codecs import weights as weight_files
from voxlab.codecs.runtime import DTYPES, exact_inference, package_version
from voxlab.errors import UserError
from voxlab.features import wavlm_files
from voxlab.features.base import VERSION, Chunk, FeatureInfo, Recording

SAMPLE_RATE, HOP_LENGTH = 16000, 320
FIELD = 400  # samples that the convolutions of a row see
TAIL = FIELD - HOP_LENGTH
PIECE = 60 * SAMPLE_RATE  # samples of a recording that are looked at together; decides nothing
LAST, ALL = "last", "all"


class WavLMFeatures:
    """What WavLM makes of the `other` side: row k is centred on sample 320 k + 200.

    Its attention sees all of its input, so a recording is cut into chunks that overlap: a row comes from the chunk in
    which it is `overlap_s` or more from a cut. Beyond the end is silence, so that every sample has its row:
    ceil(samples / 320), where WavLMModel alone gives one less or the same.

    Args:
        weights: hub id, folder with config.json and model.safetensors, or "random".
        layer: "last" | the number of a hidden state, 0 (before the first layer) to 12 | "all": the 13 of them, one
            after the other in a row; a linear layer on top can weigh them.
        chunk_s: seconds of a chunk, a multiple of 20 ms.
        overlap_s: seconds at a cut that a chunk doesn't answer for, a multiple of 20 ms.
        dtype: of the network: float32 | bfloat16 | float16.
        random_seed: seed of the weights where `weights` is "random".
        config: changes to the published architecture (names of transformers' WavLMConfig), with weights=random.

    Raises:
        UserError: an argument is out of range.
    """

    licence: ClassVar[str] = (
        "WavLM, by Microsoft: MIT (microsoft/unilm); the model card names the licence of UniSpeech, CC BY-SA 3.0."
    )

    def __init__(
        self,
        *,
        weights: str = "microsoft/wavlm-base-plus",
        layer: str | int = LAST,
        chunk_s: float = 20.0,
        overlap_s: float = 1.0,
        dtype: str = "float32",
        random_seed: int = 0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if config and weights != weight_files.RANDOM:
            raise UserError("features wavlm: config changes untrained models; set features.weights=random.")
        if dtype not in DTYPES:
            raise UserError(f"features.dtype={dtype!r} is unknown; allowed: {', '.join(DTYPES)}")
        self.weights, self.random_seed, self.config = weights, random_seed, dict(config or {})
        self.layer, self.dtype = _check_layer(layer), dtype
        self.chunk, self.overlap = _frames_of("chunk_s", chunk_s), _frames_of("overlap_s", overlap_s)
        if not 2 * self.overlap < self.chunk:
            raise UserError(f"features.overlap_s={overlap_s}: must be less than half of features.chunk_s={chunk_s}")
        self.device = torch.device("cpu")

    @cached_property
    def _files(self) -> wavlm_files.WavLMFiles | None:
        return None if self.weights == weight_files.RANDOM else wavlm_files.find(self.weights)

    @cached_property
    def _architecture(self) -> Any:
        return wavlm_files.read_architecture(self._files, self.config)

    @property
    def info(self) -> FeatureInfo:
        """Describe the rows; hashes the weights."""
        return self._info

    @cached_property
    def _info(self) -> FeatureInfo:
        architecture = self._architecture
        states = architecture.num_hidden_layers + 1
        if isinstance(self.layer, int) and self.layer >= states:
            raise UserError(
                f"features.layer={self.layer}: the model has hidden states 0 to {states - 1}; or last, all."
            )
        dim = architecture.hidden_size * (states if self.layer == ALL else 1)
        named = self._files.named() if self._files else {}
        identity = weight_files.identify(named, "features wavlm", self.random_seed)
        return FeatureInfo("wavlm", dim, SAMPLE_RATE / HOP_LENGTH, SAMPLE_RATE, identity)

    def settings(self) -> dict[str, Any]:
        """Return what decides the rows besides the weights."""
        return {
            "name": "wavlm",
            "layer": self.layer,
            "chunk_frames": self.chunk,
            "overlap_frames": self.overlap,
            "centre": FIELD // 2,
            "compute": self.dtype,
            **({"untrained": self.config} if self.weights == weight_files.RANDOM else {}),
            "packages": {"transformers": package_version("transformers", "wavlm")},
            "version": VERSION,
        }

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
        assert self.info.dim  # the layer is checked, and random weights are warned about, before they are made
        network = wavlm_files.load(self._files, self._architecture, self.random_seed)
        if isinstance(self.layer, int):
            # One layer more than is asked for: a network with a norm after its last layer must not put it before that.
            network.encoder.layers = network.encoder.layers[: self.layer + 1]
        return network.to(DTYPES[self.dtype])

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many hops of audio the chunk of each row has."""
        step = self.chunk - 2 * self.overlap
        begins = np.maximum(np.arange(num_frames) - self.overlap, 0) // step * step
        last = max(0, -(-(num_frames - self.chunk) // step)) * step  # the last chunk goes to the end
        begins = np.minimum(begins, last)
        return np.minimum(num_frames - begins, self.chunk).astype(np.int32)

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract one recording after the other."""
        for recording in recordings:
            start = 0
            for values in self._rows(recording.load()[1].split(PIECE, dim=-1)):
                last = start + len(values) == recording.num_frames
                yield Chunk(recording.key, "features", start, values, last)
                start += len(values)

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield (1, dim) rows: those of a chunk when it is complete, the last ones when the signal ends."""
        for values in self._rows(wavs):
            yield from np.split(values, len(values))

    def _rows(self, pieces: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Turn consecutive (1, n) samples into (k, dim) rows, chunk by chunk."""
        whole, step = self.chunk * HOP_LENGTH + TAIL, (self.chunk - 2 * self.overlap) * HOP_LENGTH
        heard, first = torch.zeros(1, 0), 0
        for piece in itertools.chain(pieces, [torch.zeros(1, TAIL)]):
            heard = torch.cat([heard, piece.to(heard)], dim=-1)
            while heard.shape[-1] > whole:
                yield self._compute(heard[:, :whole])[first : self.chunk - self.overlap]
                heard, first = heard[:, step:], self.overlap
        count = compute_num_frames(heard.shape[-1] - TAIL, HOP_LENGTH)
        if count > first:
            missing = count * HOP_LENGTH + TAIL - heard.shape[-1]
            yield self._compute(nn.functional.pad(heard, (0, missing)))[first:]

    def _compute(self, wav: Tensor) -> np.ndarray:
        """Compute the (k, dim) rows of one chunk, (1, 320 k + 80)."""
        dtype = DTYPES[self.dtype]
        if self._files is not None and self._files.normalizes:
            wav = nn.functional.layer_norm(wav, wav.shape[-1:], eps=wavlm_files.NORM_EPS)
        with exact_inference(self.device, dtype):
            found = self._network(wav.to(self.device, dtype), output_hidden_states=self.layer != LAST)
            if self.layer == LAST:
                rows = found.last_hidden_state
            elif self.layer == ALL:
                rows = torch.cat(found.hidden_states, dim=-1)
            else:
                rows = found.hidden_states[self.layer]
            return rows[0].half().cpu().numpy()


def _frames_of(key: str, seconds: float) -> int:
    frames = seconds * SAMPLE_RATE / HOP_LENGTH
    if frames < 0 or abs(frames - round(frames)) > 1e-6:
        raise UserError(f"features.{key}={seconds}: must be a multiple of {HOP_LENGTH / SAMPLE_RATE} s, not negative")
    return round(frames)


def _check_layer(layer: str | int) -> str | int:
    if layer not in (LAST, ALL) and (not isinstance(layer, int) or isinstance(layer, bool) or layer < 0):
        raise UserError(f"features.layer={layer!r}; allowed: last, all, or the number of a hidden state, from 0")
    return layer
