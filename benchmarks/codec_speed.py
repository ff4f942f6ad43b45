"""Encode and decode real-time factor of every codec at full size with random weights: the same clip, one run.

Batch 1, warm-ups, then rounds over all codecs in turn, so that other work on the machine hits all alike; the median
counts, loading does not. RTF = processing time / audio time; lower is better.

.venv/bin/python benchmarks/codec_speed.py --seconds 10 --repeats 20
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from voxlab.codecs.encodec import Encodec
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.rvq import Rvq
from voxlab.codecs.snac import Snac
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.models.tokenizer.wave_codec import WaveArchitecture

Call = Callable[[], Any]
PARTS = ("encode", "decode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the clip")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warm-ups", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, help="clips per call; RTF is per second of all their audio")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    calls: dict[str, tuple[str, Call, Call]] = {}
    for label, codec in codecs().items():
        calls[label] = prepare(codec.to(device), options.seconds, options.batch)
    vocoders = prepare_vocoders(device, options.seconds, options.batch)
    times = measure(calls, vocoders, options.repeats, options.warm_ups, device)
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{place}, float32, {options.seconds:g} s x {options.batch}, median of {options.repeats}.\n")
    print("| codec | M parameters | kbit/s | encode RTF | decode RTF | both, x real time |\n|---|---|---|---|---|---|")
    audio = options.seconds * options.batch
    for label, (sizes, _, _) in calls.items():
        encode, decode = (statistics.median(times[label, part]) / audio for part in ("encode", "decode"))
        print(f"| {label} | {sizes} | {encode:.4f} | {decode:.4f} | {1 / (encode + decode):.1f} |")
    print("\n| vocoder alone | RTF | x real time |\n|---|---|---|")
    for label in vocoders:
        rtf = statistics.median(times[label, "vocoder"]) / audio
        print(f"| {label} | {rtf:.4f} | {1 / rtf:.1f} |")


def codecs() -> dict[str, Any]:
    """Return every codec at its published or default size."""
    random: dict[str, Any] = {"weights": "random", "vocoder": GriffinLim()}
    return {
        "rvq + Griffin-Lim": Rvq(architecture=MelArchitecture(), **random),
        "rvq_wave": Rvq(architecture=WaveArchitecture(), **random),
        "rvq_wave, causal seanet": Rvq(architecture=WaveArchitecture(causal=True, backbone="seanet"), **random),
        "encodec 6 kbit/s": Encodec(weights="random"),
        "mimi, 8 codebooks": Mimi(weights="random", num_codebooks=8),
        "snac": Snac(weights="random"),
    }


def prepare(codec: Any, seconds: float, batch: int) -> tuple[str, Call, Call]:
    """Return size and bitrate as a table's cells, and the two calls to time."""
    samples = round(seconds * codec.info.sample_rate)
    wav = 0.1 * torch.randn(batch, 1, samples, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((batch,), samples)
    codes = codec.encode(wav, lengths)
    network: nn.Module = codec.network if isinstance(codec, Rvq) else codec._model
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in [*network.parameters(), *network.buffers()]}
    sizes = f"{sum(tensors.values()) / 1e6:.1f} | {codec.info.bitrate / 1000:.2f}"
    seeds = list(range(batch))
    return sizes, lambda: codec.encode(wav, lengths), lambda: codec.decode(codes, seeds)


def prepare_vocoders(device: torch.device, seconds: float, batch: int) -> dict[str, Call]:
    """Return the call of each vocoder, on the mel of codec=rvq."""
    architecture = VocoderArchitecture()
    mel, network = architecture.mel, architecture.build().eval().to(device)
    frames = round(seconds * mel.sample_rate / mel.hop_length)
    log_mel = torch.randn(batch, mel.num_bins, frames, generator=torch.Generator().manual_seed(0)).to(device) - 3
    griffin_lim = GriffinLim()

    def istft() -> torch.Tensor:
        with torch.no_grad():
            return network.synthesize(log_mel)

    return {"Griffin-Lim, 32 iterations": lambda: griffin_lim(log_mel, mel), "istft (Vocos size, 13.5 M)": istft}


def measure(
    calls: dict[str, tuple[str, Call, Call]],
    vocoders: dict[str, Call],
    repeats: int,
    warm_ups: int,
    device: torch.device,
) -> dict[tuple[str, str], list[float]]:
    """Time all calls in turn, round after round: (label, part) -> seconds of each round after the warm-ups."""
    work = {(label, part): call for label, (_, *both) in calls.items() for part, call in zip(PARTS, both, strict=True)}
    work |= {(label, "vocoder"): call for label, call in vocoders.items()}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in work}
    for repeat in range(warm_ups + repeats):
        for key, call in work.items():
            seconds = clock(call, device)
            if repeat >= warm_ups:
                times[key].append(seconds)
    return times


def clock(call: Call, device: torch.device) -> float:
    """Return the seconds of one call, with what it left running on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
