"""What training and testing read: motion store, tokenizers and their codes, features, speakers and words."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from voxlab.data.motion_store import MotionStore, StoredClip, find_motion_store, open_motion_store
from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import MotionCodec, find_tokenizers
from voxlab.models.gesture.text import WordTable
from voxlab.motion.parts import Layout, read_layout
from voxlab.motion.statistics import Statistics
from voxlab.parallel import Ranks
from voxlab.tasks.a2g.aligned import align, is_aligned, open_aligned
from voxlab.tasks.a2g.features import FeatureTracks, Moments32, measure_moments, open_tracks
from voxlab.tasks.a2g.settings import Stores
from voxlab.tasks.a2g.tokens import is_tokenized, read_codes, tokenize
from voxlab.tasks.a2g.windows import ClipData, TimedWord, clip_words
from voxlab.tasks.motion_statistics import has_statistics, train_statistics

log = logging.getLogger(__name__)

UNKNOWN = -1  # speaker


@dataclass(frozen=True)
class Sources:
    """Where things are.

    Attributes:
        corpus: the data node.
        features: "features", "acoustic" -> features node, not loaded.
        tokenizers: see `find_tokenizers`.
        stores: of features.
        extraction: "features", "acoustic" -> words of the command line that make the store.
        any_fps: take tokenizers of motion of any frame rate.
    """

    corpus: Any
    features: Mapping[str, Any]
    tokenizers: Any
    stores: Stores
    extraction: Mapping[str, str]
    any_fps: bool = False


@dataclass(frozen=True)
class Material:
    """A corpus with all that is made from it.

    Attributes:
        corpus: the data node.
        store: of its motion.
        layout: parts of the body.
        codecs: part -> tokenizer, in the order of the layout.
        statistics: of the training split.
        features: "features", and "acoustic" where chosen.
        words_of: the same names -> words of the command line that choose them.
    """

    corpus: Any
    store: MotionStore
    layout: Layout
    codecs: dict[str, MotionCodec]
    statistics: Statistics
    features: dict[str, FeatureTracks]
    words_of: dict[str, str]

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.store.fps

    @property
    def flags(self) -> dict[str, bool]:
        """Remarks for every figure: random_weights, sample."""
        names = sorted({name for tracks in self.features.values() for name in tracks.flags})
        return {name: any(tracks.flags.get(name, False) for tracks in self.features.values()) for name in names}

    def moments(self, ranks: Ranks) -> dict[str, Moments32]:
        """Measure the features of the training split; collective."""
        clips = self.store.split("train")
        return {name: measure_moments(tracks.tracks, clips, ranks) for name, tracks in self.features.items()}

    def speakers(self) -> list[str]:
        """Return the names of the training split's speakers, sorted: their places are their numbers."""
        return sorted({clip.speaker for clip in self.store.split("train")})

    def betas(self) -> dict[str, torch.Tensor]:
        """Return speaker -> (300,) shape of the body, of their first training clip."""
        first = {clip.speaker: clip for clip in reversed(self.store.split("train"))}
        return {name: torch.from_numpy(first[name].motion().betas.copy()) for name in sorted(first)}

    def words(self) -> WordTable:
        """Return the table of the training split's words."""
        spoken = (word.text for clip in self.store.split("train") for word in clip.words() or ())
        return WordTable.from_texts(spoken)

    def clips(self, split: str, speakers: Sequence[str]) -> list[ClipData]:
        """Return the clips of a split with their codes and features; `tokenize` comes first.

        Raises:
            UserError: the split is empty.
        """
        chosen = self.store.split(split)
        codes = read_codes(self.store, self.codecs, chosen)
        aligned = {name: open_aligned(self.store, tracks, chosen) for name, tracks in self.features.items()}
        return [
            ClipData(
                clip=clip,
                speaker=speakers.index(clip.speaker) if clip.speaker in speakers else UNKNOWN,
                aligned={name: rows[number] for name, rows in aligned.items()},
                codes={name: codes[name][number] for name in self.codecs},
                words=timed_words(clip),
            )
            for number, clip in enumerate(chosen)
        ]

    def tokenize(self, ranks: Ranks) -> dict[str, int]:
        """Make the codes, and the features at motion frames, that are not there; collective."""
        align(self.store, self.features, ranks)
        return tokenize(self.store, self.codecs, ranks)

    @property
    def is_complete(self) -> bool:
        """Whether `tokenize` has nothing to do."""
        return is_tokenized(self.store, self.codecs) and is_aligned(self.store, self.features)

    def has_split(self, name: str) -> bool:
        """Whether any clip is of a split."""
        return any(clip.split == name for clip in self.store.clips)


def timed_words(clip: StoredClip) -> tuple[TimedWord, ...]:
    """Return (text, start, end) of the words of a clip, by their middles; empty without transcript."""
    words = [(word.text, word.start, word.end) for word in clip.words() or ()]
    return clip_words(words, clip.num_frames / clip.reading.fps)


def open_material(sources: Sources, ranks: Ranks) -> Material:
    """Open the motion store (built where it is missing), the tokenizers, and the features; collective.

    Raises:
        UserError: something is missing, or does not fit.
    """
    corpus = sources.corpus
    layout, codecs = open_tokenizers(corpus, sources.tokenizers, any_fps=sources.any_fps)
    store = open_motion_store(corpus, ranks)
    tracks = {
        name: open_tracks(
            getattr(sources.stores, name),
            node,
            corpus,
            store.clips,
            key=name,
            extraction=sources.extraction.get(name),
        )
        for name, node in sources.features.items()
    }
    for codec in codecs.values():
        codec.to(ranks.device)
    words = {name: _choosing(name, sources.extraction.get(name) or "") for name in tracks}
    return Material(corpus, store, layout, codecs, train_statistics(store, ranks), tracks, words)


def find_material(sources: Sources, ranks: Ranks) -> Material | None:
    """Open what `open_material` would, if a run has made all of it; None where something is yet to be made."""
    store = find_motion_store(sources.corpus)
    if store is None or not has_statistics(store):
        return None
    material = open_material(sources, ranks)
    return material if material.is_complete else None


def _choosing(name: str, extraction: str) -> str:
    """Return the words that choose some features, out of those that choose a corpus too."""
    words = [shlex.quote(word) for word in shlex.split(extraction) if word.startswith("features")]
    return " ".join(words) if name == "features" else " ".join(words).replace("features=", "features@acoustic=")


def open_tokenizers(corpus: Any, tokenizers: Any, *, any_fps: bool = False) -> tuple[Layout, dict[str, MotionCodec]]:
    """Return the layout of a corpus and the tokenizer of each of its parts.

    Args:
        corpus: the data node.
        tokenizers: see `find_tokenizers`.
        any_fps: accept that they were trained at another frame rate.

    Raises:
        UserError: one is missing, or was trained on other motion.
    """
    layout = read_layout(corpus.layout)
    codecs = find_tokenizers(tokenizers, layout)
    for codec in codecs.values():
        try:
            codec.check_fits(layout, corpus.fps, corpus.trans, any_fps=any_fps)
        except UserError as error:
            if any_fps or codec.fps == corpus.fps:
                raise
            raise UserError(f"{error}\nOr take them at another frame rate all the same: any_fps=true.") from None
    return layout, codecs


def describe_split(clips: Sequence[StoredClip], fps: int, name: str) -> dict[str, Any]:
    """Return how much motion a split holds."""
    frames = int(np.sum([clip.num_frames for clip in clips]))
    return {f"{name}_clips": len(clips), f"{name}_s": round(frames / fps, 2)}
