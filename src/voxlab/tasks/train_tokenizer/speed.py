"""How fast a codec is: real-time factors of encoding and decoding, throughput in batches, latency where it streams.

Protocol: batch 1, three runs that are not timed, median of the others, device synchronised, nothing loaded meanwhile.
"""

import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from voxlab.audio import compute_duration
from voxlab.codecs.base import Codec, CodecInfo, stack
from voxlab.codecs.rvq import Rvq
from voxlab.errors import UserError
from voxlab.mel import LogMel

WARMUPS = 3


@runtime_checkable
class Streaming(Protocol):
    """A codec that works while the signal comes in."""

    def stream_encode(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield codes (B, K, 1) as soon as their samples (B, C, n) are there."""
        ...

    def stream_decode(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield wav (B, C, hop) as soon as its codes (B, K, n) are there."""
        ...


def measure_speed(codec: Codec, wav: Tensor, device: str, repeats: int, batch: int | None) -> dict[str, Any]:
    """Time a codec.

    Args:
        codec: on its device.
        wav: (1, C, N) a clip at its rate.
        device: where it computes.
        repeats: timed runs.
        batch: clips for the throughput; None measures none.

    Returns:
        seconds of audio, seconds of work and real-time factors (work / audio; lower is faster), device and threads,
        and what streaming takes, or why there is none.
    """
    duration = compute_duration(wav.shape[-1], codec.info.sample_rate)
    lengths = torch.tensor([wav.shape[-1]])
    codes = codec.encode(wav, lengths)
    encode = _times(lambda: codec.encode(wav, lengths), device, repeats)
    decode = _times(lambda: codec.decode(codes, seeds=[0]), device, repeats)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "CPU",
        "threads": torch.get_num_threads(),
        "clip_seconds": duration,
        "repeats": repeats,
        "encode_rtf": statistics.median(encode) / duration,
        "decode_rtf": statistics.median(decode) / duration,
    }
    found["rtf"] = found["encode_rtf"] + found["decode_rtf"]
    found |= _vocoder(codec, wav, device, repeats)
    if batch is not None:
        found["batch"], found["batch_rtf"] = batch, _batch_rtf(codec, wav, device, batch, duration)
    return found | {"streaming": _streaming(codec, wav, device, repeats)}


def _vocoder(codec: Codec, wav: Tensor, device: str, repeats: int) -> dict[str, float]:
    """Time the vocoder of a codec that decodes to mels: a part of `decode_rtf`."""
    if not isinstance(codec, Rvq) or codec.trained_architecture.family != "mel":
        return {}
    mel = codec.trained_architecture.mel
    log_mel, vocoder = LogMel(mel)(wav[:, 0].cpu()).to(device), codec.vocoder
    work = statistics.median(_times(lambda: vocoder(log_mel, mel), device, repeats))
    return {"vocoder_rtf": work / compute_duration(wav.shape[-1], codec.info.sample_rate)}


def _batch_rtf(codec: Codec, wav: Tensor, device: str, batch: int, duration: float) -> float:
    many, lengths = wav.expand(batch, -1, -1).contiguous(), torch.full((batch,), wav.shape[-1])
    work = _times(lambda: codec.decode(codec.encode(many, lengths), seeds=list(range(batch))), device, 3)
    return statistics.median(work) / (batch * duration)


def _times(work: Callable[[], object], device: str, repeats: int) -> list[float]:
    """Return the seconds of `repeats` calls, after three more."""
    times = []
    for _ in range(WARMUPS + repeats):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return times[WARMUPS:]


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _streaming(codec: Codec, wav: Tensor, device: str, repeats: int) -> dict[str, Any] | str:
    """Time frame by frame; returns why where the codec does not stream."""
    if not isinstance(codec, Streaming):
        return "this codec works on whole recordings"
    info, steps = codec.info, WARMUPS + repeats
    pieces = list(itertools.islice(itertools.cycle(wav.split(info.hop_length, -1)[:-1] or [wav]), steps))
    codes = stack(codec.encode(torch.cat(pieces, -1), torch.tensor([sum(piece.shape[-1] for piece in pieces)])))
    try:
        encode = _step_times(codec.stream_encode(iter(pieces)), device)
        decode = _step_times(codec.stream_decode(iter(codes.split(1, -1))), device)
    except UserError as error:
        return str(error)
    return {"latency_ms": frame_milliseconds(info), "encode_ms": _spread(encode), "decode_ms": _spread(decode)}


def frame_milliseconds(info: CodecInfo) -> float:
    """Return the length of a frame: what a causal codec has to wait for, at least."""
    return 1000 * info.hop_length / info.sample_rate


def _step_times(steps: Iterator[Tensor], device: str) -> list[float]:
    """Return the seconds of each step after the first three."""
    times: list[float] = []
    while True:
        _wait(device)
        start = time.perf_counter()
        if next(steps, None) is None:
            return times[WARMUPS:] or times
        _wait(device)
        times.append(time.perf_counter() - start)


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    high = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {"median": 1000 * statistics.median(ordered), "p95": 1000 * high}
