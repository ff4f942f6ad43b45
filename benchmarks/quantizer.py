"""Milliseconds per training call of the residual quantizer, against moshi's and vector-quantize-pytorch's.

One forward and backward pass with moving averages, commitment and revival on the same latents, single-threaded, in
turns in one process; the median of the calls counts.

.venv/bin/python benchmarks/quantizer.py
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from moshi.quantization.vq import ResidualVectorQuantizer
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from voxlab.models.tokenizer.quantizer import ResidualQuantizer

Pass = Callable[[Tensor], tuple[Tensor, Tensor]]


def make_ours(dim: int, books: int, size: int) -> Pass:
    quantizer = ResidualQuantizer(dim, num_codebooks=books, codebook_size=size)

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        result = quantizer(z, torch.ones(len(z), z.shape[2], dtype=torch.bool))
        return result.output, result.commitment

    return run


def make_moshi(dim: int, books: int, size: int) -> Pass:
    quantizer = ResidualVectorQuantizer(dimension=dim, n_q=books, bins=size, q_dropout=False).train()
    for name, buffer in quantizer.named_buffers():  # its k-means start takes minutes and isn't measured here
        if name.endswith("_initialized"):
            buffer.fill_(1)
        elif name.endswith("embedding_sum"):
            buffer.normal_(std=0.3)

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        result = quantizer(z, 75.0)
        return result.x, result.penalty

    return run


def make_vector_quantize_pytorch(dim: int, books: int, size: int) -> Pass:
    quantizer = ResidualVQ(
        dim=dim, num_quantizers=books, codebook_size=size, decay=0.99, threshold_ema_dead_code=1, rotation_trick=False
    ).train()

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        output, _, losses = quantizer(z.transpose(1, 2))
        return output, losses.sum()

    return run


def measure(run: Pass, z: Tensor) -> float:
    """Return the milliseconds of one forward and backward pass."""
    z = z.clone().requires_grad_()
    start = time.perf_counter()
    output, loss = run(z)
    (output.sum() + loss).backward()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Print one row per implementation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=11)
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"dim": 512, "books": 8, "size": 1024}
    rivals = {
        "voxlab": make_ours(**shape),
        "moshi": make_moshi(**shape),
        "vector-quantize-pytorch": make_vector_quantize_pytorch(**shape),
    }
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for call in range(calls):
        z = torch.randn(4, shape["dim"], 300)
        for name, run in rivals.items():
            took = measure(run, z)
            if call:  # the first call allocates
                times[name].append(took)
    ours = statistics.median(times["voxlab"])
    print(f"Latents (4, 512, 300), 8 codebooks of 1024, one thread, median of {calls - 1}.\n")
    print("| | ms | of voxlab's |\n|---|---|---|")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"| {name} | {median:.1f} | {median / ours:.2f} x |")


if __name__ == "__main__":
    main()
