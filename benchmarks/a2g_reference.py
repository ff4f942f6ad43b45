"""A network for motion codes written the plain way, of the same size: what benchmarks/a2g_speed.py compares with.

One attention with its scores written out, a module and a Python loop for each part and each layer of codes, hyper-
connections by einsum, the whole network for every step of sampling, and poses recovered frame by frame.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from voxlab.models.gesture.conditions import Conditions
from voxlab.models.gesture.gesture_model import A2gModel, TokenPart
from voxlab.motion.parts import Layout

STREAMS = ("text", "audio", "gesture")


class PlainModel(nn.Module):
    """Takes what `GestureModel.forward` takes; gives the logits at once.

    Args:
        settings: widths, layers, heads.
        parts: whose codes it predicts.
        codebooks: (Q, K, C) by part.
        feature_dim: of the speech features.
        acoustic_dim: of the acoustic features.
        num_words: size of the word table.
    """

    def __init__(
        self,
        settings: A2gModel,
        parts: Sequence[TokenPart],
        codebooks: Mapping[str, Tensor],
        *,
        feature_dim: int,
        acoustic_dim: int,
        num_words: int,
    ) -> None:
        super().__init__()
        self.parts, width, audio = list(parts), settings.gesture_width, settings.audio_width
        self.speech = nn.Sequential(nn.Linear(feature_dim, audio), nn.LayerNorm(audio))
        self.sound = nn.Sequential(nn.Linear(acoustic_dim, audio), nn.LayerNorm(audio))
        rounds = range(2 * settings.fusion.layers)
        self.crosses = nn.ModuleList(
            nn.MultiheadAttention(audio, settings.fusion.heads, batch_first=True) for _ in rounds
        )
        self.gate, self.fused = nn.Linear(2 * audio, audio), nn.Linear(audio, audio)
        self.words = nn.Embedding(num_words, settings.word_dim)
        self.word_project = nn.Linear(settings.word_dim, settings.text_width)
        self.silence = nn.Parameter(torch.randn(settings.text_width))
        self.condition = nn.Sequential(
            nn.Linear(256, settings.condition_dim), nn.SiLU(), nn.Linear(settings.condition_dim, settings.condition_dim)
        )
        self.books = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        self.outputs = nn.ModuleDict()
        self.project = nn.ModuleDict()
        for part in self.parts:
            entries = codebooks[part.name]
            layers = range(part.num_codebooks)
            self.books[part.name] = nn.ModuleList(nn.Embedding.from_pretrained(entries[layer]) for layer in layers)
            self.project[part.name] = nn.Linear(entries.shape[2], width)
            self.heads[part.name] = PlainHead(width, settings.head_width, entries.shape[2])
            self.outputs[part.name] = nn.ModuleList(nn.Linear(settings.head_width, part.codebook_size) for _ in layers)
        self.hidden = nn.Parameter(torch.randn(width))
        widths: dict[str, int] = dict(zip(STREAMS, (settings.text_width, audio, width), strict=True))
        self.blocks = nn.ModuleList(PlainBlock(widths, settings, index) for index in range(settings.layers))
        self.norm, self.streams = nn.RMSNorm(width), settings.streams

    def forward(
        self, conditions: Conditions, codes: Mapping[str, Tensor], visible: Mapping[str, Tensor], ratio: Tensor
    ) -> dict[str, list[Tensor]]:
        """Return for each part the logits (B, N, K) of each layer, given the codes of the layers before it."""
        speech, sound = self.speech(conditions.features), self.sound(conditions.acoustic)
        for index in range(0, len(self.crosses), 2):
            speech = speech + self.crosses[index](speech, sound, sound)[0]
            sound = sound + self.crosses[index + 1](sound, speech, speech)[0]
        gate = torch.sigmoid(self.gate(torch.cat([speech, sound], dim=-1)))
        fused = gate * speech + (1 - gate) * sound
        words = self.word_project(self.words(conditions.word_ids))
        text = torch.cat([self.silence.expand(len(words), 1, -1), words], dim=1)
        tokens = []
        for part in self.parts:
            total: Any = 0
            for layer in range(part.num_codebooks):
                total = total + self._book(part.name, layer)(codes[part.name][..., layer])
            shown = self.project[part.name](total)
            tokens.append(torch.where(visible[part.name][..., None], shown, self.hidden))
        hidden = {"text": text, "audio": fused + self.fused(fused), "gesture": torch.cat(tokens, dim=1)}
        hidden = {name: torch.stack([values] * self.streams, dim=2) for name, values in hidden.items()}
        angles = ratio[:, None] * torch.exp(torch.linspace(7, -2, 128, device=ratio.device))
        condition = self.condition(torch.cat([angles.cos(), angles.sin()], dim=1))
        for block in self.blocks:
            hidden = block(hidden, condition)
        states = self.norm(hidden["gesture"].sum(dim=2))
        return self._logits(states, codes)

    def _logits(self, states: Tensor, codes: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        found, first = {}, 0
        for part in self.parts:
            count = codes[part.name].shape[1]
            own, first = states[:, first : first + count], first + count
            before = torch.zeros_like(self._book(part.name, 0)(codes[part.name][..., 0]))
            found[part.name] = []
            for layer in range(part.num_codebooks):
                outputs: Any = self.outputs[part.name]
                found[part.name].append(outputs[layer](self.heads[part.name](own, before)))
                before = before + self._book(part.name, layer)(codes[part.name][..., layer])
        return found

    def _book(self, name: str, layer: int) -> Any:
        books: Any = self.books[name]
        return books[layer]


class PlainHead(nn.Module):
    """Before the logits of a layer of codes: one network for all layers of a part."""

    def __init__(self, width: int, head_width: int, code_dim: int) -> None:
        super().__init__()
        self.from_state, self.from_entries = nn.Linear(width, head_width), nn.Linear(code_dim, head_width, bias=False)
        self.norm, self.norm_out = nn.LayerNorm(head_width), nn.LayerNorm(head_width)
        self.first, self.second = nn.Linear(head_width, 2 * head_width), nn.Linear(2 * head_width, head_width)

    def forward(self, state: Tensor, before: Tensor) -> Tensor:
        """Return (B, N, head_width) of states and the sum of the entries of the layers before."""
        hidden = self.from_state(state) + self.from_entries(before)
        return self.norm_out(hidden + self.second(nn.functional.gelu(self.first(self.norm(hidden)))))


class PlainBlock(nn.Module):
    """Joint attention and a feed-forward layer for each stream, all streams to the end."""

    def __init__(self, widths: Mapping[str, int], settings: A2gModel, index: int) -> None:
        super().__init__()
        self.heads, self.head_dim = settings.heads, settings.head_dim
        inner = settings.heads * settings.head_dim
        self.modules_of, self.dropout = nn.ModuleDict(), nn.Dropout(settings.dropout)
        for name, width in widths.items():
            layers: dict[str, nn.Module] = {
                "modulate": nn.Linear(settings.condition_dim, 6 * width),
                "norm": nn.LayerNorm(width, elementwise_affine=False),
                "norm_forward": nn.LayerNorm(width, elementwise_affine=False),
                "qkv": nn.Linear(width, 3 * inner, bias=False),
                "out": nn.Linear(inner, width, bias=False),
                "feed_forward": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
            }
            layers |= {f"connect{n}": PlainConnection(width, settings.streams, 2 * index + n) for n in (0, 1)}
            self.modules_of[name] = nn.ModuleDict(layers)

    def forward(self, hidden: Mapping[str, Tensor], condition: Tensor) -> dict[str, Tensor]:
        """Return the streams (B, L, S, width) after the block."""
        opened, queries, keys, values = {}, [], [], []
        for name, streams in hidden.items():
            layers: Any = self.modules_of[name]
            scales = layers["modulate"](nn.functional.silu(condition))[:, None].chunk(6, dim=-1)
            branch, mixed, beta = layers["connect0"](streams)
            normed = layers["norm"](branch) * (1 + scales[0]) + scales[1]
            for kind, values_of in zip((queries, keys, values), layers["qkv"](normed).chunk(3, dim=-1), strict=True):
                batch, length, _ = values_of.shape
                kind.append(values_of.reshape(batch, length, self.heads, self.head_dim).permute(0, 2, 1, 3))
            opened[name] = (mixed, beta, scales)
        query, key, value = (torch.cat(kind, dim=2) for kind in (queries, keys, values))
        scores = torch.einsum("bhid,bhjd->bhij", query, key) / self.head_dim**0.5
        attended = torch.einsum("bhij,bhjd->bhid", scores.softmax(dim=-1), value)
        attended, first, found = attended.permute(0, 2, 1, 3).flatten(2), 0, {}
        for name, streams in hidden.items():
            layers, (mixed, beta, scales), count = self.modules_of[name], opened[name], streams.shape[1]
            branch, first = self.dropout(layers["out"](attended[:, first : first + count])), first + count
            streams = mixed + torch.einsum("bld,bls->blsd", branch * (1 + scales[2]), beta)
            branch, mixed, beta = layers["connect1"](streams)
            branch = layers["norm_forward"](branch) * (1 + scales[3]) + scales[4]
            branch = self.dropout(layers["feed_forward"](branch))
            found[name] = mixed + torch.einsum("bld,bls->blsd", branch * (1 + scales[5]), beta)
        return found


class PlainConnection(nn.Module):
    """Dynamic hyper-connections of S streams."""

    def __init__(self, dim: int, streams: int, index: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim)
        read = torch.eye(streams)[:, [index % streams]]
        self.alpha, self.beta = (
            nn.Parameter(torch.cat([read, torch.eye(streams)], dim=1)),
            nn.Parameter(torch.ones(streams)),
        )
        self.alpha_map, self.beta_map = nn.Parameter(torch.zeros(dim, streams + 1)), nn.Parameter(torch.zeros(dim))

    def forward(self, streams: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the branch's input, the mixed streams, and the weights that write to them."""
        normed = self.norm(streams)
        alpha = self.alpha + 0.01 * torch.tanh(torch.einsum("blsd,dt->blst", normed, self.alpha_map))
        beta = self.beta + 0.01 * torch.tanh(torch.einsum("blsd,d->bls", normed, self.beta_map))
        mixed = torch.einsum("blst,blsd->bltd", alpha, streams)
        return mixed[:, :, 0], mixed[:, :, 1:], beta


def recover(parts: Mapping[str, np.ndarray], layout: Layout) -> np.ndarray:
    """Return poses (T, 165) of raw numbers (T, D) by part, one frame and one joint after the other."""
    count = len(next(iter(parts.values())))
    poses = np.zeros((count, 165))
    for frame in range(count):
        for part in layout.parts:
            values = parts[part.name][frame]
            for place, joint in enumerate(part.joints):
                first, second = values[6 * place : 6 * place + 3], values[6 * place + 3 : 6 * place + 6]
                first = first / np.linalg.norm(first)
                second = second - first * (first @ second)
                second = second / np.linalg.norm(second)
                matrix = np.stack([first, second, np.cross(first, second)])
                poses[frame, 3 * joint : 3 * joint + 3] = Rotation.from_matrix(matrix).as_rotvec()
    return poses
