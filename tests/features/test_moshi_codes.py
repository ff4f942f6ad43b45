"""Codes of both sides: how often Mimi runs, and that what is remembered is what it gave."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from voxlab.features import moshi_codes
from voxlab.features.moshi_codes import CodeSource

CHUNKS, FRAMES, BOOKS = 200, 2, 4


def test_the_second_view_of_an_episode_in_chunks_encodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def encode_pieces(network: Any, wav: Tensor, num_frames: int, device: torch.device) -> list[Tensor]:
        seen.append(float(wav[0, 0, 0]))
        return [wav[:, :1, :1].expand(1, BOOKS, num_frames)]

    monkeypatch.setattr(moshi_codes, "encode_pieces", encode_pieces)
    network = SimpleNamespace(num_codebooks=BOOKS, quantizer=SimpleNamespace(encode=lambda latents: latents.long()))
    source = CodeSource(network, torch.device("cpu"))
    sides = [(torch.full((1, 8), float(k)), torch.full((1, 8), 1024.0 + k)) for k in range(CHUNKS)]
    first = [source.encode_sides(agent, other, FRAMES) for agent, other in sides]
    assert len(seen) == 2 * CHUNKS
    second = [source.encode_sides(other, agent, FRAMES) for agent, other in sides]
    assert len(seen) == 2 * CHUNKS
    for k, ((agent, other), swapped) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(agent, torch.full((BOOKS, FRAMES), k))
        assert torch.equal(other, torch.full((BOOKS, FRAMES), 1024 + k))
        assert torch.equal(agent, swapped[1])
        assert torch.equal(other, swapped[0])
        assert agent.dtype == swapped[0].dtype == torch.int64
