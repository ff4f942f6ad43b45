"""Long items in chunks with enough context on both sides: the whole item's codes and audio in bounded memory."""

from typing import Any

import torch
from torch import Tensor

from voxlab.codecs.base import pad_rows, zero_past

CHUNK_SECONDS = 20.0


def encode_in_chunks(network: Any, architecture: Any, wav: Tensor, lengths: Tensor, device: torch.device) -> Tensor:
    """Return the codes (B, Q, T) of wav (B, 1, N) on the host; items longer than a chunk go alone, chunk by chunk."""
    hop = architecture.hop_length
    rows: list[Tensor] = [torch.empty(0)] * len(wav)
    short, long = _split(architecture, -(-lengths // hop))
    if short:
        width = int(lengths[short].max())
        part = zero_past(wav[short, :, :width], lengths[short]).to(device, torch.float32)
        for item, codes in zip(short, network.encode(part, lengths[short]).cpu(), strict=True):
            rows[item] = codes
    for item in long:
        parts = []
        one = wav[item : item + 1, :, : int(lengths[item])]
        for first, last, start, stop in _chunks(architecture, -(-one.shape[-1] // hop)):
            part = one[..., first * hop : last * hop].to(device, torch.float32)
            parts.append(network.encode(part, torch.tensor([part.shape[-1]]))[0, :, start - first : stop - first].cpu())
        rows[item] = torch.cat(parts, dim=-1)
    return pad_rows(rows)


def decode_in_chunks(network: Any, architecture: Any, codes: Tensor, lengths: Tensor, device: torch.device) -> Tensor:
    """Return what the network decodes codes (B, q, T) to, (B, C, T * rate) on its device."""
    rows: list[Tensor] = [torch.empty(0)] * len(codes)
    short, long = _split(architecture, lengths)
    if short:
        width = int(lengths[short].max())
        decoded = network.decode(codes[short, :, :width].to(device), lengths[short])
        for item, row in zip(short, decoded, strict=True):
            rows[item] = row
    for item in long:
        parts = []
        for first, last, start, stop in _chunks(architecture, int(lengths[item])):
            part = network.decode(codes[item : item + 1, :, first:last].to(device))[0]
            rate = part.shape[-1] // (last - first)
            parts.append(part[:, (start - first) * rate : (stop - first) * rate])
        rows[item] = torch.cat(parts, dim=-1)
    return pad_rows(rows)


def _chunk_frames(architecture: Any) -> int:
    return max(1, round(CHUNK_SECONDS * architecture.frame_rate))


def _split(architecture: Any, frames: Tensor) -> tuple[list[int], list[int]]:
    """Return the items to run together and those to run in chunks."""
    whole = architecture.context_frames is None
    long = [item for item, count in enumerate(frames.tolist()) if not whole and count > _chunk_frames(architecture)]
    return [item for item in range(len(frames)) if item not in long], long


def _chunks(architecture: Any, total: int) -> list[tuple[int, int, int, int]]:
    """Return (first, last, start, stop) code frames: what to run, and which part of that to keep."""
    left, right = architecture.context_frames
    size = _chunk_frames(architecture)
    starts = range(0, total, size)
    return [(max(0, at - left), min(total, at + size + right), at, min(total, at + size)) for at in starts]
