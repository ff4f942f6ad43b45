"""The rates of a codec architecture, the same for all families."""

import math

from voxlab.models.tokenizer.quantizer import QuantizerSettings


class Rates:
    """Rates that follow from an architecture's `sample_rate`, `hop_length` (samples per code) and `quantizer`."""

    sample_rate: int
    hop_length: int
    quantizer: QuantizerSettings

    @property
    def num_codebooks(self) -> int:
        """Codes per frame, Q."""
        return self.quantizer.num_codebooks

    @property
    def codebook_size(self) -> int:
        """Entries per codebook, K."""
        return self.quantizer.codebook_size

    @property
    def frame_rate(self) -> float:
        """Code frames per second."""
        return self.sample_rate / self.hop_length

    @property
    def bitrate(self) -> float:
        """Bits per second of all codebooks together, frame_rate * Q * log2 K."""
        return self.frame_rate * self.num_codebooks * math.log2(self.codebook_size)

    @property
    def tokens_per_second(self) -> float:
        """Codes per second of all codebooks together, frame_rate * Q."""
        return self.frame_rate * self.num_codebooks
