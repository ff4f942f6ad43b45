"""Mimi codes of both sides of a conversation, each signal encoded once."""

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from voxlab.codecs.runtime import exact_inference
from voxlab.features.mimi import HOP_LENGTH, encode_pieces

# Signals, of which an episode that is heard in chunks has hundreds before its second view swaps them.
_REMEMBERED = 1024


class CodeSource:
    """Encodes signals with Mimi and remembers the last ones: two views of an episode swap the same two signals.

    Args:
        network: moshi's MimiModel, float32.
        device: where it is.
    """

    def __init__(self, network: Any, device: torch.device) -> None:
        self.network, self.device = network, device
        self._known: OrderedDict[tuple[bytes, int], Tensor] = OrderedDict()
        self._silence = torch.zeros(network.num_codebooks, 0, dtype=torch.int64)

    def encode_sides(self, agent: Tensor | None, other: Tensor, num_frames: int) -> tuple[Tensor, Tensor]:
        """Encode (1, T) wavs to (K, num_frames) codes each; agent None is digital silence."""
        if agent is None:
            return self._encode_silence(num_frames), self._encode(other, num_frames)
        return self._look_up(agent, num_frames), self._look_up(other, num_frames)

    def _look_up(self, wav: Tensor, num_frames: int) -> Tensor:
        key = hashlib.blake2b(wav.numpy().tobytes()).digest(), num_frames
        if key not in self._known:
            self._known[key] = self._encode(wav, num_frames).to(torch.int16)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key].to(torch.int64)

    def _encode_silence(self, num_frames: int) -> Tensor:
        """Mimi is causal: the codes of a short silence begin those of a long one."""
        if self._silence.shape[1] < num_frames:
            self._silence = self._encode(torch.zeros(1, HOP_LENGTH), num_frames)
        return self._silence[:, :num_frames]

    def _encode(self, wav: Tensor, num_frames: int) -> Tensor:
        codes = []
        for latents in encode_pieces(self.network, wav[None], num_frames, self.device):
            with exact_inference(self.device, torch.float32):
                codes.append(self.network.quantizer.encode(latents)[0].cpu())
        return torch.cat(codes, dim=1)
