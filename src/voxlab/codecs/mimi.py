"""Mimi: 24 kHz speech at 12.5 frames per second in 1 to 32 codebooks, through the `moshi` package's network.

Bulk work uses the full forward pass: it is causal, so right-padded batches equal single items. `stream_encode` and
`stream_decode` run the same network chunk by chunk and equal it for the first 10 s only (see there).
Calls must come from one thread: the network keeps its streaming state inside.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import torch
from torch import Tensor, nn

from voxlab.codecs import weights as weight_files
from voxlab.codecs.base import CodecInfo, Codes, check_codes, check_wav, stack, unstack, zero_past
from voxlab.codecs.prefix import shorten
from voxlab.codecs.random_init import shrink_biases, spread_entries
from voxlab.codecs.runtime import check_dtype, compile_function, exact_inference, package_version
from voxlab.errors import UserError

WEIGHTS_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"  # in every Moshi and TTS repo of Kyutai; CC BY 4.0
CONFIG_FILE = "mimi_config.json"
CHUNK_FRAMES = 60  # 4.8 s: activations stay below the 32 MB from where on glibc maps fresh pages each time
PUBLISHED = {"sample_rate": 24000, "frame_rate": 12.5, "channels": 1, "quantizer": {"n_q": 32, "bins": 2048}}


class Mimi:
    """Mimi codec: hop 1920 at 24 kHz, 2048 entries, the first codebook semantic, codes of K books a prefix of 32.

    Args:
        weights: hub id, .safetensors file, folder with one (and an optional mimi_config.json), or "random".
        num_codebooks: 1 to 32.
        dtype: float32 (default); bfloat16 and float16 change about half of the codes.
        compile: torch.compile the convolution stacks (1.15 x on CPU, a minute to compile); transformers stay eager.
        random_seed: seed of the weights where `weights` is "random".

    Raises:
        UserError: an argument is out of range, or the weights are not there or not in moshi's format.
    """

    def __init__(
        self,
        *,
        weights: str = "kyutai/moshiko-pytorch-bf16",
        num_codebooks: int = 32,
        dtype: str = "float32",
        compile: bool = False,
        random_seed: int = 0,
    ) -> None:
        if not 1 <= num_codebooks <= 32:
            raise UserError(f"codec mimi: num_codebooks={num_codebooks}; allowed: 1 to 32")
        self.weights, self.num_codebooks, self.random_seed = weights, num_codebooks, random_seed
        self.dtype, self.compile = check_dtype(dtype, "mimi"), compile
        self.device = torch.device("cpu")

    @cached_property
    def _files(self) -> dict[str, Path]:
        return locate(self.weights)

    @cached_property
    def _config(self) -> dict[str, Any] | None:
        """Architecture for moshi's loader; None is its own default, the published model."""
        return json.loads(self._files[CONFIG_FILE].read_text()) if CONFIG_FILE in self._files else None

    @property
    def info(self) -> CodecInfo:
        """Describe the codec from its config file, or from the published model where there is none."""
        return self._info

    @cached_property
    def _info(self) -> CodecInfo:
        identity = weight_files.identify(self._files, "mimi", self.random_seed)
        config = self._config or PUBLISHED
        books, size = config["quantizer"]["n_q"], config["quantizer"]["bins"]
        if self.num_codebooks > books:
            raise UserError(f"codec mimi: num_codebooks={self.num_codebooks}; the model in {self.weights} has {books}")
        rate, hop = config["sample_rate"], round(config["sample_rate"] / config["frame_rate"])
        count = self.num_codebooks
        return CodecInfo("mimi", rate, config["channels"], hop, count, size, (1,) * count, identity)

    def fingerprint(self) -> dict[str, Any]:
        """Return what changes the bytes of results; loads no model."""
        return {
            "name": "mimi",
            "weights_id": self.info.weights_id,
            "num_codebooks": self.num_codebooks,
            "dtype": str(self.dtype).removeprefix("torch."),
            "compile": self.compile,
            "packages": {"moshi": package_version("moshi", "mimi")},
        }

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call."""
        self.device = torch.device(device)
        self._model.to(self.device)
        return self

    def with_codebooks(self, count: int) -> Self:
        """Return this codec with its first `count` codebooks, for decoding; it shares the weights, see `shorten`."""
        return shorten(self, count)

    @cached_property
    def _model(self) -> Any:
        package_version("moshi", "mimi")
        file = next((path for name, path in self._files.items() if name != CONFIG_FILE), None)
        assert self.info.num_codebooks  # the config is checked, and random weights are warned about, before loading
        model = load_network(file, self._config, num_codebooks=self.num_codebooks, seed=self.random_seed)
        for name, part in model.named_children():
            if name != "quantizer":  # distances stay float32: rounding them would pick other codes
                part.to(self.dtype)
        return model.to(self.device)

    @cached_property
    def _seanet(self) -> Any:
        return compile_function(seanet, "mimi") if self.compile else seanet

    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """Encode wav (B, 1, T) float32 to ceil(lengths / 1920) frames per item.

        Raises:
            ValueError: wrong shape or lengths.
        """
        lengths = check_wav(wav, lengths, self.info)
        hop = self.info.hop_length
        frames = (lengths + hop - 1) // hop
        width = int(frames.max()) * hop
        padded = nn.functional.pad(zero_past(wav, lengths)[..., :width], (0, max(0, width - wav.shape[-1])))
        self._check_idle()
        with exact_inference(self.device, self.dtype):
            latents = self._encode_latents(padded.to(self.device, self.dtype))
            codes = self._model.quantizer.encode(latents.float()).cpu()
        return unstack(codes, frames, num_samples=lengths)

    def _encode_latents(self, wav: Tensor) -> Tensor:
        latents = self._encode_in_chunks(wav) if self._chunks(wav) else self._seanet(self._model.encoder.model, wav)
        (latents,) = self._model.encoder_transformer(latents)
        return self._model.downsample(latents) if hasattr(self._model, "downsample") else latents

    def _chunks(self, wav: Tensor) -> bool:
        return wav.device.type == "cpu" and not self.compile and wav.shape[-1] > CHUNK_FRAMES * self.info.hop_length

    def _encode_in_chunks(self, wav: Tensor) -> Tensor:
        """Run the causal convolutions chunk by chunk, carrying their state: the bits of one pass, a bounded memory."""
        encoder = self._model.encoder
        with encoder.streaming(len(wav)):
            return torch.cat([encoder(chunk) for chunk in wav.split(CHUNK_FRAMES * self.info.hop_length, -1)], -1)

    def decode(self, codes: Codes, seeds: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Decode to wav (B, 1, 1920 N) on the codec's device, zero past each end; Mimi has no noise, seeds are unused.

        Raises:
            ValueError: a code out of range.
        """
        check_codes(codes, self.info)
        self._check_idle()
        lengths = codes.lengths * self.info.hop_length
        if codes.num_samples is not None:
            lengths = torch.minimum(lengths, codes.num_samples)
        with exact_inference(self.device, self.dtype):
            latents = self._model.decode_latent(stack(codes).to(self.device)).to(self.dtype)
            latents = self._model.upsample(latents) if hasattr(self._model, "upsample") else latents
            (latents,) = self._model.decoder_transformer(latents)
            wav = self._seanet(self._model.decoder.model, latents).float()
        return zero_past(wav[..., : int(lengths.max())], lengths), lengths

    def stream_encode(self, chunks: Iterable[Tensor], frames_per_step: int = 1) -> Iterator[Tensor]:
        """Encode a live signal: yield (B, K, frames_per_step) int64 codes as soon as their samples are there.

        Equal to `encode` for the first 10 s. Later frames differ: moshi's ring buffer of keys holds exactly the 250
        steps of context, so a step of n frames drops 2 n - 1 keys that the full forward pass still sees. One frame
        per step stays closest.

        Args:
            chunks: (B, 1, n) float32 pieces of any length n >= 0; the end is padded with zeros to a whole step.
            frames_per_step: frames of 1920 samples per network call; fixed, because CUDA graphs are.

        Raises:
            UserError: dtype is not float32.
        """
        step = frames_per_step * self.info.hop_length
        yield from self._stream(chunks, step, self._model.encode)

    def stream_decode(self, chunks: Iterable[Tensor], frames_per_step: int = 1) -> Iterator[Tensor]:
        """Decode live codes: yield (B, 1, 1920 frames_per_step) float32 wav; equal to `decode` for the first 10 s.

        Args:
            chunks: (B, K, n) int64 pieces; the end is padded with code 0 to a whole step.
            frames_per_step: frames per network call.

        Raises:
            UserError: dtype is not float32.
        """
        yield from self._stream(chunks, frames_per_step, self._model.decode)

    def _stream(self, chunks: Iterable[Tensor], step: int, run: Any) -> Iterator[Tensor]:
        """Cut the stream into steps of the last axis and run each; no_grad holds per step, never across a yield."""
        if self.dtype != torch.float32:
            raise UserError("codec mimi: streaming runs in float32 only; set codec.dtype=float32")
        self._check_idle()
        with contextlib.ExitStack() as stream:
            pending = None
            for piece in chunks:
                if pending is None:
                    stream.enter_context(self._model.streaming(len(piece)))
                    pending = piece[..., :0].to(self.device)
                pending = torch.cat([pending, piece.to(self.device)], dim=-1)
                while pending.shape[-1] >= step:
                    yield self._step(pending[..., :step], run)
                    pending = pending[..., step:]
            if pending is not None and pending.shape[-1]:
                yield self._step(nn.functional.pad(pending, (0, step - pending.shape[-1])), run)

    def _step(self, part: Tensor, run: Any) -> Tensor:
        with exact_inference(self.device, self.dtype):
            return run(part)

    def _check_idle(self) -> None:
        if self._model.is_streaming:
            raise RuntimeError("mimi: a stream is open; finish or close its generator before another call")


def locate(weights: str, *, group: str = "codec", owner: str = "mimi") -> dict[str, Path]:
    """Find the weights file and, where there is one beside it, mimi_config.json; {} for "random".

    Args:
        weights: as `Mimi` takes it.
        group: config group to name in messages.
        owner: option of that group.

    Raises:
        UserError: there is no such file.
    """
    path = Path(weights).expanduser()
    if weights == weight_files.RANDOM:
        return {}
    if not path.exists():
        return weight_files.resolve(weights, [WEIGHTS_FILE], codec=owner, group=group)
    file = path if path.is_file() else _pick(path)
    config = file.parent / CONFIG_FILE
    return {file.name: file} | ({CONFIG_FILE: config} if config.is_file() else {})


def load_network(file: Path | None, config: dict[str, Any] | None, *, num_codebooks: int, seed: int) -> Any:
    """Return moshi's `MimiModel` in float32 on the CPU, in eval mode.

    Args:
        file: weights; None: untrained ones, drawn with `seed`.
        config: architecture; None is the published one.
        num_codebooks: codebooks in use.
        seed: of untrained weights.

    Raises:
        UserError: the file is of another format or architecture.
    """
    from moshi.models.loaders import get_mimi
    from safetensors import SafetensorError

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = get_mimi(file, config, num_codebooks=num_codebooks)
        except (RuntimeError, SafetensorError, UnpicklingError, KeyError, EOFError) as error:
            raise UserError(_foreign_format(file, error)) from error
    if file is None:
        fill_codebooks(model, seed)
    return model.eval().requires_grad_(False)


def seanet(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Run a causal SEANet stack on a whole signal; equals moshi's modules bit for bit, without their streaming state.

    Args:
        layers: `model.encoder.model` or `model.decoder.model`.
        x: (B, C, T); T a multiple of the stack's stride.
    """
    from moshi.modules.conv import StreamingConv1d, StreamingConvTranspose1d
    from moshi.modules.seanet import SEANetResnetBlock

    for index, layer in enumerate(layers):
        if isinstance(layer, SEANetResnetBlock):
            x = seanet(layer.block, x).add_(layer.shortcut(x))
        elif isinstance(layer, nn.ELU):
            x = nn.functional.elu(x, layer.alpha, inplace=index > 0)  # the first of a block reads the shortcut's input
        elif isinstance(layer, StreamingConv1d):
            mode = "replicate" if layer.pad_mode == "replicate" else "constant"
            x = layer.conv(nn.functional.pad(x, (layer._padding_total, 0), mode=mode))
        elif isinstance(layer, StreamingConvTranspose1d):
            overlap = layer._kernel_size - layer._stride
            y = layer.convtr(x)
            x = y[..., : y.shape[-1] - overlap]
        else:
            x = layer(x)
    return x


@torch.no_grad()
def fill_codebooks(model: Any, seed: int) -> None:
    """Give an untrained network codebooks spread like its latents, so that codes vary; a fresh one has all zeros.

    Also raises every layer scale to 0.3 (at the initial 0.01 the transformers hardly act and their faults stay unseen),
    shrinks the encoder's biases and takes the latents' mean direction out of the input projections (around a large
    common value the distances between codes would drown in rounding).
    """
    shrink_biases(model.encoder)
    for name, parameter in model.named_parameters():
        if "layer_scale" in name:
            parameter.fill_(0.3)
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randn(1, model.channels, 2 * model.sample_rate, generator=generator)
    latents = model.encode_to_latent(wav * torch.linspace(0, 0.3, wav.shape[-1]), quantize=False)
    mean = nn.functional.normalize(latents[0].mean(dim=-1), dim=0)
    for group in (model.quantizer.rvq_first, model.quantizer.rvq_rest):
        weight = group.input_proj.weight[..., 0]
        weight.sub_((weight @ mean)[:, None] * mean)
        std = group.input_proj(latents)[0].std(dim=-1)
        for layer in group.vq.layers:
            book = layer._codebook
            book.embedding_sum.copy_(spread_entries(book.embedding_sum.shape, std, generator))
            book.cluster_usage.fill_(1)
            book._initialized.fill_(1)
            book.register_buffer("_embedding", None, persistent=False)


def _pick(folder: Path) -> Path:
    """Return the Mimi file of a folder: the published name, or else the only .safetensors there."""
    files = sorted(folder.glob("*.safetensors"))
    named = [file for file in files if file.name == WEIGHTS_FILE] or files
    if len(named) != 1:
        raise UserError(
            f"codec mimi: {folder} holds {len(files)} .safetensors files {[file.name for file in files][:6]}; needed "
            f"is {WEIGHTS_FILE} or a single one. Set codec.weights=<file>."
        )
    return named[0]


def _foreign_format(file: Path | None, error: Exception) -> str:
    reason = "it holds no tensors" if isinstance(error, UnpicklingError | EOFError) else str(error).splitlines()[0]
    return (
        f"codec mimi: {file} is not a Mimi of moshi's format or of this architecture: {reason}.\n"
        f"Allowed: {WEIGHTS_FILE} of a Kyutai Moshi or TTS repo (kyutai/mimi itself is in transformers' format), "
        f"or a file with its {CONFIG_FILE} beside it. Set codec.weights=<file>."
    )
