"""Networks as torch.export programs (.pt2): they run without voxlab, `torch.export.load(file).module()(codes)`.

encode.pt2: wav (1, 1, T * hop_length) -> codes (1, Q, T); decode.pt2: codes (1, Q, T) -> log-mel (family mel) or audio;
vocoder.pt2: log-mel (1, bins, F) -> audio (1, 1, F * hop_length). T and F are free.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from voxlab.storage import atomic_path

FRAMES = 8  # of the example that is traced


def export_graphs(network: nn.Module, architecture: Any, folder: Path) -> list[Path]:
    """Write the programs of a network beside its codec.json.

    Args:
        network: of a codec or a vocoder, on the CPU.
        architecture: what built it.
        folder: existing or new; earlier programs in it are replaced.

    Returns:
        the files.

    Raises:
        RuntimeError: a program gives something else than the network, at another length than the traced one.
    """
    network = network.eval()
    if architecture.family == "vocoder":
        bins = architecture.mel.num_bins
        return [_write(_Vocoder(network), torch.randn(1, bins, 2 * FRAMES), folder / "vocoder.pt2")]
    wav = 0.1 * torch.randn(1, 1, 2 * FRAMES * architecture.hop_length)
    codes = torch.randint(architecture.codebook_size, (1, architecture.num_codebooks, 2 * FRAMES))
    return [
        _write(_Encode(network), wav, folder / "encode.pt2"),
        _write(_Decode(network), codes, folder / "decode.pt2"),
    ]


class _Vocoder(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, log_mel: Tensor) -> Tensor:
        return self.network.synthesize(log_mel)


class _Encode(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, wav: Tensor) -> Tensor:
        if self.network.architecture.family == "wave":
            latents = self.network.encoder(wav)
        else:
            latents, _ = self.network.latents(wav, torch.full((1,), wav.shape[-1]))
        return self.network.quantizer.encode(latents)


class _Decode(nn.Module):
    """Decoding without the checks of the codes, which a graph cannot hold."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, codes: Tensor) -> Tensor:
        quantizer = self.network.quantizer
        entries = [table[index] for table, index in zip(quantizer.entries, codes.unbind(1), strict=True)]
        latents = quantizer.project_out(torch.stack(entries).sum(0).transpose(1, 2))
        if self.network.architecture.family == "wave":
            return self.network.decoder(latents)
        output, _ = self.network._decode(latents, torch.ones_like(codes[:, 0], dtype=torch.bool))
        return output * self.network.mel_std + self.network.mel_mean


@torch.no_grad()
def _write(module: nn.Module, example: Tensor, path: Path) -> Path:
    """Trace a module at half the example's length, write the program, and compare what it gives for all of it."""
    half = example[..., : example.shape[-1] // 2].contiguous()
    program = torch.export.export(module, (half,), dynamic_shapes=({2: torch.export.Dim.AUTO},), strict=False)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)
    found, wanted = torch.export.load(path).module()(example), module(example)
    if not torch.allclose(found, wanted, atol=1e-5):
        path.unlink()
        raise RuntimeError(
            f"{path.name}: the exported program differs from the network by {(found - wanted).abs().max()}"
        )
    return path
