"""Hidden states of Moshi's language model: 4096 numbers per 80 ms, and the codes behind them.

python main.py task=extract data=podcastfillers features=moshi
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from voxlab.codecs import mimi as mimi_codec
from voxlab.codecs import weights as weight_files
from voxlab.codecs.runtime import DTYPES, exact_inference, package_version
from voxlab.errors import UserError
from voxlab.features import moshi_files
from voxlab.features.align import split_frames
from voxlab.features.base import VERSION, Chunk, FeatureInfo, Recording
from voxlab.features.mimi import FRAME_RATE, HOP_LENGTH, SAMPLE_RATE
from voxlab.features.moshi_codes import CodeSource
from voxlab.features.moshi_files import MoshiFiles, MoshiSource
from voxlab.features.moshi_lm import MoshiLm, Step, run_side_by_side
from voxlab.features.pieces import Pieces
from voxlab.features.streaming import MimiStream, uncompiled
from voxlab.features.streams import (
    ORDERS,
    PAD,
    TEXTS,
    ZERO,
    delay_tokens,
    language_model_input,
    make_text_row,
    stack_streams,
    start_tokens,
)

FINAL = "final"


class MoshiFeatures:
    """What Moshi thinks while it listens to two speakers: row t is known when frame t begins.

    Args:
        weights: hub id, folder, or "random".
        moshi_weights: file of the language model; this and the next three win over what `weights` holds.
        mimi_weights: file of Mimi.
        config_path: config.json of the checkpoint.
        tokenizer: sentencepiece model, read with text=transcript.
        lm: changes to the published architecture, with weights=random.
        mimi: changes to the published Mimi, by part, with weights=random.
        layer: "final" (after the last norm), or the number of a layer, from 0: its output.
        stream_order: moshi ([text, agent, other], as Moshi was trained) | legacy (the two sides swapped).
        text: pad (agent says nothing) | transcript (the agent's words, known in advance) | zero (no embedding).
        context: stream (one pass) | chunk (cold start every `chunk_s`) | overlap (the same, with `overlap_s` of
            audio before each chunk, whose rows are thrown away).
        chunk_s: seconds, a multiple of 80 ms.
        overlap_s: seconds, a multiple of 80 ms.
        step_frames: frames per call of the language model.
        batch_rows: recordings side by side; 8 of the published model need 13 GB besides the weights' 14.
        dtype: of the language model: bfloat16 | float32 | float16. Mimi runs in float32.
        random_seed: seed of untrained weights.

    Raises:
        UserError: an argument is out of range.
    """

    licence: ClassVar[str] = "Moshi and Mimi, by Kyutai: weights CC BY 4.0, code MIT."

    def __init__(
        self,
        *,
        weights: str = "kyutai/moshiko-pytorch-bf16",
        moshi_weights: str | None = None,
        mimi_weights: str | None = None,
        config_path: str | None = None,
        tokenizer: str | None = None,
        lm: Mapping[str, Any] | None = None,
        mimi: Mapping[str, Any] | None = None,
        layer: str | int = FINAL,
        stream_order: str = "moshi",
        text: str = "pad",
        context: str = "stream",
        chunk_s: float = 210.0,
        overlap_s: float = 30.0,
        step_frames: int = 125,
        batch_rows: int = 8,
        dtype: str = "bfloat16",
        random_seed: int = 0,
    ) -> None:
        self.source = MoshiSource(weights, moshi_weights, mimi_weights, config_path, tokenizer)
        self.lm, self.mimi, self.random_seed = dict(lm or {}), dict(mimi or {}), random_seed
        if (lm or mimi) and not self._is_random:
            raise UserError("features moshi: lm and mimi change untrained models; set features.weights=random.")
        if self._is_random and (moshi_weights or mimi_weights or config_path):
            raise UserError("features moshi: weights=random, yet files are given; leave one of the two out.")
        self.layer = _check_layer(layer)
        self.stream_order = _check_word("stream_order", stream_order, ORDERS)
        self.text, self.dtype = _check_word("text", text, TEXTS), _check_word("dtype", dtype, tuple(DTYPES))
        if text == "transcript" and self._is_random and tokenizer is None:
            raise UserError("features moshi: text=transcript needs features.tokenizer=<sentencepiece model>.")
        if step_frames < 1 or batch_rows < 1:
            raise UserError(f"features moshi: step_frames={step_frames}, batch_rows={batch_rows}; both must be >= 1.")
        self.step_frames, self.batch_rows = step_frames, batch_rows
        self.pieces = Pieces.checked(context, chunk_s, overlap_s, FRAME_RATE)
        self.device = torch.device("cpu")

    @property
    def _is_random(self) -> bool:
        return self.source.weights == weight_files.RANDOM

    @cached_property
    def _files(self) -> MoshiFiles | None:
        return None if self._is_random else self.source.find(needs_text=self.text == "transcript")

    @cached_property
    def _architecture(self) -> dict[str, Any]:
        return moshi_files.read_architecture(self._files, self.lm)

    @property
    def info(self) -> FeatureInfo:
        """Describe the frames; hashes the weights."""
        return self._info

    @cached_property
    def _info(self) -> FeatureInfo:
        identity = weight_files.identify(self._files.named() if self._files else {}, "features moshi", self.random_seed)
        return FeatureInfo("moshi", self._architecture["dim"], FRAME_RATE, SAMPLE_RATE, identity)

    def settings(self) -> dict[str, Any]:
        """Return what decides the frames besides the weights."""
        return {
            "name": "moshi",
            "layer": self.layer,
            "stream_order": self.stream_order,
            "text": self.text,
            "uses_oracle_text": self.text == "transcript",
            **self.pieces.record(),
            "align": "decision",
            "compute": self.dtype,
            **({"untrained": {"lm": self.lm, "mimi": self.mimi}} if self._is_random else {}),
            "packages": {"moshi": package_version("moshi", "moshi")},
            "version": VERSION,
        }

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that decides the bytes."""
        return asdict(self.info) | self.settings()

    def to(self, device: torch.device | str) -> Self:
        """Load the weights onto `device`."""
        self.device = torch.device(device)
        self._lm.network.to(self.device)
        self._mimi.to(self.device)
        return self

    @cached_property
    def _lm(self) -> MoshiLm:
        layers = self._architecture["num_layers"]
        if isinstance(self.layer, int) and self.layer >= layers:
            raise UserError(f"features.layer={self.layer}: the model has layers 0 to {layers - 1}; or use layer=final.")
        assert self.info.dim  # random weights are warned about before they are made
        network = moshi_files.load_lm(
            self._files.lm if self._files else None,
            self._architecture,
            num_layers=None if self.layer == FINAL else int(self.layer) + 1,
            dtype=DTYPES[self.dtype],
            seed=self.random_seed,
        )
        return MoshiLm(network, final=self.layer == FINAL)

    @cached_property
    def _mimi(self) -> Any:
        from moshi.models.loaders import _mimi_config

        files, config = self._files, None
        if files is None:
            config = {
                name: {**part, **self.mimi.get(name, {})} if isinstance(part, Mapping) else part
                for name, part in _mimi_config.items()
            }
        elif files.mimi_config is not None:
            config = json.loads(files.mimi_config.read_text())
        books = self._architecture["dep_q"]
        return mimi_codec.load_network(files and files.mimi, config, num_codebooks=books, seed=self.random_seed)

    def context_frames(self, num_frames: int) -> np.ndarray:
        """Return how many past frames each frame has heard: min(frames since the cold start, attention window)."""
        return self.pieces.seen(num_frames, self._architecture["context"])

    def stream(self, recordings: Iterable[Recording]) -> Iterator[Chunk]:
        """Extract `batch_rows` recordings side by side; the codes of each come whole, before its frames."""
        tokens: dict[str, list[Tensor]] = {}
        codes = CodeSource(self._mimi, self.device)

        def steps_of(recording: Recording) -> Iterator[Step]:
            tokens[recording.key] = self._tokens_of(recording, codes)
            yield from self._steps_of(tokens[recording.key], recording.num_frames)

        sizes = {"batch_size": self.batch_rows, "max_frames": self.step_frames}
        for recording, step, states in run_side_by_side(self._lm, recordings, steps_of, **sizes):
            if recording.key in tokens:
                yield self._codes_chunk(recording, tokens.pop(recording.key))
            if len(states):
                yield Chunk(recording.key, "features", step.start, states.half().cpu().numpy(), step.last)

    def _tokens_of(self, recording: Recording, codes: CodeSource) -> list[Tensor]:
        """Return the (rows, frames) tokens of each piece of a recording."""
        agent, other = recording.load()
        tokens = []
        for piece in self.pieces.of(recording.num_frames):
            span = slice(piece.begin * HOP_LENGTH, piece.stop * HOP_LENGTH)
            sides = agent if agent is None else agent[:, span], other[:, span]
            pair = codes.encode_sides(*sides, piece.stop - piece.begin)
            tokens.append(stack_streams(self._text_row(recording, piece.begin, piece.stop), *pair, self.stream_order))
        return tokens

    def _text_row(self, recording: Recording, start: int, stop: int) -> Tensor:
        if self.text != "transcript":
            return torch.full((stop - start,), PAD if self.text == "pad" else ZERO)
        if recording.words is None:
            raise UserError(f"{recording.key}: text=transcript, but there is no transcript; set features.text=pad.")
        return make_text_row(recording.words(), self._tokenize, start, stop, FRAME_RATE)

    def _tokenize(self, word: str) -> list[int]:
        return self._tokenizer.encode(word)

    @cached_property
    def _tokenizer(self) -> Any:
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(str(self._files.tokenizer if self._files else self.source.tokenizer))

    def _steps_of(self, tokens: list[Tensor], num_frames: int) -> Iterator[Step]:
        """Cut the delayed tokens of all pieces of a recording into calls of the language model."""
        lm = self._lm
        for piece, part in zip(self.pieces.of(num_frames), tokens, strict=True):
            begin = piece.begin
            for delayed in language_model_input(part, lm.initial, lm.delays).split(self.step_frames, dim=1):
                skip = min(max(0, piece.start - begin), delayed.shape[1])
                stop = begin + delayed.shape[1]
                yield Step(delayed, begin == piece.begin, skip, begin + skip, stop == num_frames)
                begin = stop

    def _codes_chunk(self, recording: Recording, tokens: list[Tensor]) -> Chunk:
        pieces = self.pieces.of(recording.num_frames)
        kept = [part[:, piece.start - piece.begin :] for piece, part in zip(pieces, tokens, strict=True)]
        values = torch.cat(kept, dim=1).T.to(torch.int16).contiguous().numpy()
        return Chunk(recording.key, "codes", 0, values, True)

    def live(self, wavs: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Yield (1, dim) states as the other side's audio comes; the agent is silent.

        Raises:
            UserError: the settings need more than what has been heard, or cold starts.
        """
        if self.text == "transcript" or self.pieces.context != "stream":
            raise UserError("a live signal needs features.text=pad or zero and features.context=stream")
        lm = self._lm
        text = torch.full((1,), PAD if self.text == "pad" else ZERO)
        history = start_tokens(lm.initial, lm.delays)
        with lm.stream(1, 1), MimiStream(self._mimi, 2, 1) as mimi:
            yield self._row(history)
            for frame in split_frames(wavs, HOP_LENGTH, flush=False):
                sides = torch.stack([torch.zeros_like(frame), frame]).to(self.device)
                with exact_inference(self.device, torch.float32), uncompiled(self.device):
                    agent, other = self._mimi.quantizer.encode(mimi.encode(sides)).cpu()
                column = stack_streams(text, agent, other, self.stream_order)
                history = torch.cat([history[:, 1:], column], dim=1)
                yield self._row(history)

    def _row(self, history: Tensor) -> np.ndarray:
        delayed = delay_tokens(history, self._lm.delays)
        return self._lm.compute(delayed[None])[0].half().cpu().numpy()


def _check_word(key: str, word: str, allowed: tuple[str, ...]) -> str:
    if word not in allowed:
        raise UserError(f"features.{key}={word!r} is unknown; allowed: {', '.join(allowed)}")
    return word


def _check_layer(layer: str | int) -> str | int:
    if layer != FINAL and (not isinstance(layer, int) or isinstance(layer, bool) or layer < 0):
        raise UserError(f"features.layer={layer!r}; allowed: final, or the number of a layer, from 0")
    return layer
