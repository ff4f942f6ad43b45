"""The codecs that task=train_tokenizer trains: `rvq` (log-mel and a vocoder) and `rvq_wave` (waveform).

In Python: `codec = voxlab.codecs.rvq.load(run_folder)`, `codec.tokenize(wav)`, `codec.detokenize(codes)`.
"""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from voxlab.codecs import weights as weight_files
from voxlab.codecs.base import CodecInfo, Codes, check_codes, check_wav, pad_rows, stack, unstack, zero_past
from voxlab.codecs.runtime import check_dtype, exact_inference, fold_weight_norm, package_version
from voxlab.codecs.rvq_chunks import decode_in_chunks, encode_in_chunks
from voxlab.codecs.rvq_weights import NAMES, Architecture, fill_codebooks, refuse_other
from voxlab.errors import UserError
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.vocoders import GriffinLim, Vocoder, require_fit

IN_MEMORY = "memory"  # weights_id of a network that no file holds


class Rvq:
    """A trained speech codec of either family; codes of fewer codebooks are a prefix of those of more.

    Args:
        weights: run folder of task=train_tokenizer, its codec folder, a checkpoint file, "random", or None: to be
            trained, which only task=train_tokenizer takes.
        architecture: shape of the network to train or to draw at random. With trained weights theirs counts; a field
            that is set to something else here is an error.
        vocoder: turns log-mels into audio (family mel only).
        num_codebooks: use only the first so many; None: all.
        max_seconds: longer items are refused.
        dtype: float32 (default); bfloat16 and float16 run the convolutions in it and change codes.
        random_seed: seed of the weights where `weights` is "random".

    Raises:
        UserError: an argument is unknown or does not fit the weights.
    """

    def __init__(
        self,
        *,
        weights: str | None,
        architecture: Architecture,
        vocoder: Vocoder,
        num_codebooks: int | None = None,
        max_seconds: float = 600.0,
        dtype: str = "float32",
        random_seed: int = 0,
    ) -> None:
        self.weights, self.architecture, self.vocoder = weights, architecture, vocoder
        self.num_codebooks, self.max_seconds, self.random_seed = num_codebooks, max_seconds, random_seed
        self._name = NAMES[architecture.family]
        self.dtype, self.device = check_dtype(dtype, self._name), torch.device("cpu")

    @classmethod
    def of_network(cls, network: nn.Module, architecture: Architecture, vocoder: Vocoder) -> Self:
        """Make a codec of a network in memory, for example one that is being trained; shares its weights."""
        codec = cls(weights=IN_MEMORY, architecture=architecture, vocoder=vocoder)
        vars(codec).update(_stored=None, _identity=IN_MEMORY, network=network)
        codec.device = next(network.parameters()).device
        return codec

    @cached_property
    def _stored(self) -> files.Stored | None:
        """What the weights' files say; None for random weights."""
        if self.weights is None:
            raise UserError(
                f"codec {self._name}: weights=null. Train one: python main.py task=train_tokenizer data=librispeech "
                f"codec={self._name}\nThen set codec.weights=<its run folder>."
            )
        if self.weights == weight_files.RANDOM:
            return None
        try:
            stored = files.describe(self.weights)
        except UserError as error:
            raise UserError(f"codec {self._name}: {error}\nSet codec.weights=<run folder>.") from error
        refuse_other(self.architecture, stored.architecture, self._name, self.weights)
        return stored

    @cached_property
    def trained_architecture(self) -> Any:
        """The architecture that counts: that of the weights, else the given one."""
        return self.architecture if self._stored is None else self._stored.architecture

    @cached_property
    def _identity(self) -> str:
        return weight_files.identify(self._stored.files if self._stored else {}, self._name, self.random_seed)

    @property
    def info(self) -> CodecInfo:
        """Describe the codec; builds no network.

        Raises:
            UserError: no weights, weights of another kind, or more codebooks than they have.
        """
        shape = self.trained_architecture
        count = shape.num_codebooks if self.num_codebooks is None else self.num_codebooks
        if not 1 <= count <= shape.num_codebooks:
            raise UserError(f"codec {self._name}: num_codebooks={count}; allowed: 1 to {shape.num_codebooks}")
        sizes = shape.hop_length, count, shape.codebook_size
        return CodecInfo(self._name, shape.sample_rate, 1, *sizes, (1,) * count, self._identity)

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes the bytes of results; loads no model."""
        shape = self.trained_architecture
        packages = {"moshi": package_version("moshi", self._name)} if _needs_moshi(shape) else {}
        return {
            "name": self._name,
            "weights_id": self.info.weights_id,
            "architecture": files.architecture_to_dict(shape),
            "num_codebooks": self.info.num_codebooks,
            "vocoder": self.vocoder.fingerprint() if shape.family == "mel" else None,
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": False,
            "packages": packages,
        }

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call, the vocoder's not before they are needed.

        Raises:
            UserError: the vocoder takes another mel.
        """
        if self.trained_architecture.family == "mel":
            require_fit(self.vocoder, self.trained_architecture.mel)
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    @cached_property
    def network(self) -> Any:
        """The network for inference: in eval mode, no gradients, weight norm folded in (so it can not be exported)."""
        assert self.info.num_codebooks  # weights are identified, and random ones warned about, before loading
        if self._stored is not None:
            return fold_weight_norm(files.build(self._stored)).to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_seed)
            network = self.architecture.build()
        fill_codebooks(network, self.architecture, self.random_seed)
        return fold_weight_norm(network.eval().requires_grad_(False)).to(self.device)

    def with_codebooks(self, count: int) -> Self:
        """Return a view of this codec that uses only the first `count` codebooks and shares the weights.

        Raises:
            UserError: the codec has fewer.
        """
        assert self.network is not None  # loaded once, here
        view = copy.copy(self)
        view.num_codebooks = count
        assert view.info.num_codebooks == count
        return view

    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """Encode wav (B, 1, T) float32 to ceil(lengths / hop_length) frames per item.

        Raises:
            ValueError: wrong shape or lengths, or an item beyond `max_seconds`.
        """
        lengths = check_wav(wav, lengths, self.info)
        self._check_duration(int(lengths.max()))
        with self._inference():
            codes = encode_in_chunks(self.network, self.trained_architecture, wav, lengths, self.device)
        frames = -(-lengths // self.info.hop_length)
        return unstack(codes[:, : self.info.num_codebooks], frames, num_samples=lengths)

    def decode(self, codes: Codes, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Decode to wav (B, 1, T) on the codec's device, zero past each end; there is no noise, seeds are unused.

        Raises:
            ValueError: a code out of range, or an item beyond `max_seconds`.
        """
        check_codes(codes, self.info)
        lengths = codes.lengths * self.info.hop_length
        self._check_duration(int(lengths.max()) - self.info.hop_length + 1)
        if codes.num_samples is not None:
            lengths = torch.minimum(lengths, codes.num_samples)
        with self._inference():
            wav = self._synthesize(stack(codes), codes.lengths)
        return zero_past(wav[..., : int(lengths.max())].float(), lengths), lengths

    def _synthesize(self, books: Tensor, frames: Tensor) -> Tensor:
        """Decode codes (B, q, T) of `frames` (B,) valid frames each to audio (B, 1, at least max(frames) * hop)."""
        shape = self.trained_architecture
        if shape.family != "mel":
            return decode_in_chunks(self.network, shape, books, frames, self.device)
        require_fit(self.vocoder, shape.mel)
        vocoder = self.vocoder.to(self.device)
        wavs = []
        for item, count in enumerate(frames.tolist()):
            # One by one: Griffin-Lim makes 1e-3 of the last bits that change with the batch.
            codes, length = books[item : item + 1, :, :count], frames[item : item + 1]
            log_mel = decode_in_chunks(self.network, shape, codes, length, self.device)
            wavs.append(vocoder(log_mel.float(), shape.mel)[0])
        return pad_rows(wavs)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        reduced = self.dtype != torch.float32
        with exact_inference(self.device, self.dtype), torch.autocast(self.device.type, self.dtype, enabled=reduced):
            yield

    def _check_duration(self, samples: int) -> None:
        seconds = samples / self.info.sample_rate
        if seconds > self.max_seconds:
            raise ValueError(
                f"{self._name}: an item of {seconds:.1f} s; allowed are {self.max_seconds}. Cut it or set "
                "codec.max_seconds"
            )

    def tokenize(self, wav: Tensor) -> Tensor:
        """Encode one waveform (N,) or (1, N) at `info.sample_rate` to codes (Q, ceil(N / hop_length)) int64.

        Raises:
            ValueError: another shape, or nothing to encode.
        """
        if wav.dim() > 2 or (wav.dim() == 2 and len(wav) != 1):
            raise ValueError(f"{self._name}: wav of shape {tuple(wav.shape)}; needs (N,) or (1, N)")
        return stack(self.encode(wav.reshape(1, 1, -1), torch.tensor([wav.shape[-1]])))[0]

    def detokenize(self, codes: Tensor) -> Tensor:
        """Decode codes (q, T) of the first q codebooks to a waveform (T * hop_length,).

        Raises:
            ValueError: not integers of that shape, q beyond the codec's codebooks, or a code out of range.
        """
        if codes.dim() != 2 or codes.is_floating_point() or codes.dtype == torch.bool or not codes.numel():
            raise ValueError(
                f"{self._name}: codes are {codes.dtype} of shape {tuple(codes.shape)}; needed are integers (q, T)"
            )
        if len(codes) > self.info.num_codebooks:
            raise ValueError(f"{self._name}: got {len(codes)} codebooks; allowed 1..{self.info.num_codebooks}")
        batch = unstack(codes[None].long().cpu(), torch.tensor([codes.shape[1]]))
        return self.with_codebooks(len(codes)).decode(batch)[0][0, 0]

    def stream_encode(self, chunks: Iterable[Tensor], frames_per_step: int = 1) -> Iterator[Tensor]:
        """Encode a live signal: yield (B, K, frames_per_step) int64 codes as soon as their samples are there.

        Equal to `encode`. Only one stream may be open at a time: the network keeps its state inside.

        Args:
            chunks: (B, 1, n) float32 pieces of any length n >= 0; the end is padded with zeros to a whole step.
            frames_per_step: frames per network call.

        Raises:
            UserError: the codec looks ahead.
        """
        count = self.info.num_codebooks
        for codes in self._stream(chunks, frames_per_step * self.info.hop_length, "encode_chunk"):
            yield codes[:, :count].cpu()

    def stream_decode(self, chunks: Iterable[Tensor], frames_per_step: int = 1) -> Iterator[Tensor]:
        """Decode live codes: yield (B, 1, hop_length * frames_per_step) float32 wav; equal to `decode`.

        Args:
            chunks: (B, K, n) int64 pieces; the end is padded with code 0 to a whole step.
            frames_per_step: frames per network call.

        Raises:
            UserError: the codec looks ahead.
        """
        yield from self._stream(chunks, frames_per_step, "decode_chunk")

    def _stream(self, chunks: Iterable[Tensor], step: int, run: str) -> Iterator[Tensor]:
        """Cut the stream into steps of the last axis and run each; inference settings hold per step, never across."""
        if not getattr(self.trained_architecture, "causal", False):
            raise UserError(
                f"codec {self._name}: this codec looks ahead and can't stream; train a codec=rvq_wave with "
                "codec.architecture.causal=true"
            )
        with contextlib.ExitStack() as stream:
            pending = None
            for piece in chunks:
                if pending is None:
                    stream.enter_context(self.network.streaming(len(piece)))
                    pending = piece[..., :0].to(self.device)
                pending = torch.cat([pending, piece.to(self.device)], dim=-1)
                while pending.shape[-1] >= step:
                    yield self._step(pending[..., :step], run)
                    pending = pending[..., step:]
            if pending is not None and pending.shape[-1]:
                yield self._step(nn.functional.pad(pending, (0, step - pending.shape[-1])), run)

    def _step(self, part: Tensor, run: str) -> Tensor:
        with self._inference():
            return getattr(self.network, run)(part)


def load(path: str | Path, vocoder: Vocoder | None = None, device: torch.device | str = "cpu") -> Rvq:
    """Load a trained codec.

    Args:
        path: run folder of task=train_tokenizer, its codec folder, or a checkpoint file.
        vocoder: for codecs of the family mel; Griffin-Lim by default.
        device: where to run.

    Raises:
        UserError: nothing usable is there, or it is a vocoder.
    """
    architecture = files.describe(path).architecture
    if architecture.family not in NAMES:
        raise UserError(f"{path} holds a vocoder, no codec; use it as vocoder=istft vocoder.weights={path}")
    return Rvq(weights=str(path), architecture=architecture, vocoder=vocoder or GriffinLim()).to(device)


def _needs_moshi(architecture: Any) -> bool:
    return getattr(architecture, "backbone", None) == "seanet"
