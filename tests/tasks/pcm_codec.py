"""A codec without loss, as a yardstick: each 16-bit sample is two codes of 8 bits, the coarse one first."""

import copy
import dataclasses

import torch

from voxlab.codecs.base import CodecInfo, check_codes, check_wav, unstack, zero_past
from voxlab.codecs.prefix import shorten

HOP = 1


class Pcm:
    """Linear PCM at 16 kHz: 256 kbit/s, two codebooks of 256 entries; the first one alone is 8-bit sound."""

    def __init__(self, sample_rate=16000, gain=1.0, late=0):
        self._info = CodecInfo("pcm", sample_rate, 1, HOP, 2, 256, (1, 1), "sha256:0")
        self.gain, self.late = gain, late

    @property
    def info(self):
        return self._info

    def fingerprint(self):
        return {"name": "pcm", "gain": self.gain, "late": self.late}

    def to(self, device):
        return copy.copy(self)

    def with_codebooks(self, count):
        return shorten(self, count)

    def encode(self, wav, lengths):
        lengths = check_wav(wav, lengths, self.info)
        level = (wav[:, 0] * 32768).round().clamp(-32768, 32767).long() + 32768
        return unstack(torch.stack([level // 256, level % 256], 1), lengths, lengths)

    def decode(self, codes, seeds=None):
        check_codes(codes, self.info)
        level = codes.codebooks[0] * 256 + (codes.codebooks[1] if len(codes.codebooks) > 1 else 128)
        wav = self.gain * (level - 32768).float()[:, None] / 32768
        return torch.roll(zero_past(wav, codes.lengths), self.late, -1), codes.lengths


class StreamingPcm(Pcm):
    """The same, sample by sample in blocks of 240."""

    def __init__(self):
        super().__init__()
        self._info = dataclasses.replace(self._info, hop_length=HOP)

    def stream_encode(self, chunks):
        for chunk in chunks:
            yield torch.stack(self.encode(chunk, torch.tensor([chunk.shape[-1]])).codebooks, 1)

    def stream_decode(self, chunks):
        for chunk in chunks:
            yield self.decode(unstack(chunk, torch.tensor([chunk.shape[-1]])))[0]
