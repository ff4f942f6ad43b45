"""Words of transcripts: a table of the training set's words, and the tokens that a network makes of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

UNKNOWN = 0


@dataclass(frozen=True)
class WordTable:
    """Numbers of words, from 1 on; 0 is any word that the table lacks.

    Args:
        words: lower case, all different.
    """

    words: tuple[str, ...]

    @classmethod
    def from_texts(cls, texts: Iterable[str], min_count: int = 2) -> "WordTable":
        """Take the words that occur `min_count` times, most frequent first.

        The rarer ones are what the vector of unknown words learns from.
        """
        counts = Counter(text for text in map(_plain, texts) if text)
        frequent = [(-count, word) for word, count in counts.items() if count >= min_count]
        return cls(tuple(word for _, word in sorted(frequent)))

    @property
    def size(self) -> int:
        """How many numbers there are, with that of unknown words."""
        return len(self.words) + 1

    def index(self, text: str) -> int:
        """Return the number of a word, whatever its case."""
        return self._numbers.get(_plain(text), UNKNOWN)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words, 1)}


def pad_words(items: Sequence[Sequence[tuple[str, float, float]]], table: WordTable) -> tuple[Tensor, Tensor, Tensor]:
    """Turn the words of B items into tensors.

    Args:
        items: words as (text, start, end), seconds since the item's first frame.
        table: numbers of the words.

    Returns:
        ids (B, W) int64, middle times (B, W) float32 in seconds, mask (B, W) bool, True = valid; W is the longest.
    """
    width = max((len(words) for words in items), default=0)
    ids, times = torch.zeros(len(items), width, dtype=torch.int64), torch.zeros(len(items), width)
    mask = torch.zeros(len(items), width, dtype=torch.bool)
    for row, words in enumerate(items):
        ids[row, : len(words)] = torch.tensor([table.index(text) for text, _, _ in words], dtype=torch.int64)
        times[row, : len(words)] = torch.tensor([(start + end) / 2 for _, start, end in words])
        mask[row, : len(words)] = True
    return ids, times, mask


class WordTokens(nn.Module):
    """Vectors of words, after one learned token that is always there: all there is without a transcript.

    Args:
        num_words: size of the word table.
        word_dim: width of its vectors.
        width: of the tokens.
    """

    def __init__(self, num_words: int, word_dim: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.Embedding(num_words, word_dim)
        self.project = nn.Linear(word_dim, width)
        self.null = nn.Parameter(torch.randn(width))

    def forward(self, word_ids: Tensor) -> Tensor:
        """Return tokens (B, 1 + W, width) of words (B, W)."""
        words = self.project(self.vectors(word_ids))
        return torch.cat([self.null.to(words.dtype).expand(len(words), 1, -1), words], dim=1)


def _plain(text: str) -> str:
    return text.strip().lower()
