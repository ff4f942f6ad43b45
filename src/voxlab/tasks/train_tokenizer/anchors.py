"""Published figures of codecs on speech, to be read beside one's own: compare within one source only."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LLASA = "Llasa (arXiv 2502.04128, table 1), LibriSpeech test-clean"
SUPERB = "Codec-SUPERB tiny, speech split"


@dataclass(frozen=True)
class Anchor:
    """A row of a published table.

    Attributes:
        source: paper and table.
        codec: with its number of codebooks where it has several settings.
        kbit: kbit/s; None for the original.
        values: measure (as in the quality report) -> value; WER as a share.
    """

    source: str
    codec: str
    kbit: float | None
    values: dict[str, float]


_LLASA_COLUMNS = ("wer", "stoi", "pesq_wb", "pesq_nb", "speaker_similarity", "utmos")
_LLASA_ROWS: tuple[tuple[str, float | None, tuple[float, ...]], ...] = (
    ("the original", None, (0.0196, 1.00, 4.64, 4.55, 1.00, 4.09)),
    ("DAC 16 kHz, 12 codebooks", 6.0, (0.0200, 0.95, 4.01, 4.15, 0.95, 4.00)),
    ("EnCodec 24 kHz, 8 codebooks", 6.0, (0.0215, 0.94, 2.77, 3.18, 0.89, 3.09)),
    ("EnCodec 24 kHz, 2 codebooks", 1.5, (0.0490, 0.85, 1.56, 1.94, 0.60, 1.58)),
    ("SpeechTokenizer, 2 codebooks", 1.0, (0.0392, 0.77, 1.25, 1.59, 0.36, 2.28)),
    ("DAC 16 kHz, 2 codebooks", 1.0, (0.1327, 0.73, 1.13, 1.40, 0.32, 1.29)),
    ("Mimi, 8 codebooks", 1.1, (0.0296, 0.91, 2.25, 2.80, 0.73, 3.56)),
    ("BigCodec", 1.04, (0.0276, 0.93, 2.68, 3.27, 0.84, 4.11)),
    ("WavTokenizer 75 Hz", 0.9, (0.0398, 0.90, 2.13, 2.63, 0.65, 3.79)),
    ("WavTokenizer 40 Hz", 0.48, (0.1120, 0.85, 1.62, 2.06, 0.48, 3.57)),
    ("X-codec2", 0.8, (0.0247, 0.92, 2.43, 3.04, 0.82, 4.13)),
)
_SUPERB_COLUMNS = ("mel_superb", "pesq_wb", "stoi")
_SUPERB_ROWS: tuple[tuple[str, float, tuple[float, ...]], ...] = (
    ("EnCodec 24 kHz", 6.0, (1.00, 2.64, 0.91)),
    ("EnCodec 24 kHz", 3.0, (1.11, 1.98, 0.86)),
    ("EnCodec 24 kHz", 1.5, (1.27, 1.52, 0.80)),
    ("DAC 16 kHz", 6.0, (0.51, 3.88, 0.96)),
    ("DAC 24 kHz", 24.0, (0.35, 4.35, 0.99)),
    ("SpeechTokenizer", 4.0, (0.80, 2.13, 0.86)),
    ("WavTokenizer 75 Hz", 0.9, (0.78, 2.02, 0.85)),
    ("WavTokenizer 40 Hz", 0.48, (1.13, 1.55, 0.77)),
    ("BigCodec", 1.04, (0.80, 2.21, 0.88)),
)
ANCHORS = (
    *(Anchor(LLASA, name, kbit, dict(zip(_LLASA_COLUMNS, row, strict=True))) for name, kbit, row in _LLASA_ROWS),
    *(Anchor(SUPERB, name, kbit, dict(zip(_SUPERB_COLUMNS, row, strict=True))) for name, kbit, row in _SUPERB_ROWS),
)


def nearest_anchors(bitrate: float, count: int = 4) -> dict[str, list[Anchor]]:
    """Return source -> its `count` codecs whose rate is nearest to `bitrate` (bit/s), and the original if listed."""
    return {source: _nearest(source, bitrate / 1000, count) for source in (LLASA, SUPERB)}


def _nearest(source: str, kbit: float, count: int) -> list[Anchor]:
    rows = [anchor for anchor in ANCHORS if anchor.source == source]
    codecs = [(abs(math.log(anchor.kbit / kbit)), index) for index, anchor in enumerate(rows) if anchor.kbit]
    chosen = {index for _, index in sorted(codecs)[:count]}
    return [row for index, row in enumerate(rows) if row.kbit is None or index in chosen]


def columns_of(anchors: Sequence[Anchor]) -> list[str]:
    """Return the measures that the anchors of one source have."""
    return list(anchors[0].values)
