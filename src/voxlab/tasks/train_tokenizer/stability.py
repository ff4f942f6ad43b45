"""How stable tokens are: the share of equal codes after decoding again, in chunks, at other levels, and shifted."""

import torch
from torch import Tensor

from voxlab import audio
from voxlab.codecs.base import Codec, CodecInfo
from voxlab.metrics.codes import agreement
from voxlab.tasks.train_tokenizer.measure import rows_of

SHIFT = 64  # samples
MARGIN = 4  # groups of the slowest codebook at each end of a chunk that are not compared
_CHUNKS = (1, 2, 4)  # seconds
_GAINS = (-6, 6)  # dB

Counts = list[tuple[int, int]]


def measure_stability(codec: Codec, wav: Tensor, codes: list[Tensor], output: Tensor) -> dict[str, Counts]:
    """Return kind of change -> (equal, all) codes per codebook.

    Args:
        codec: on its device.
        wav: (1, C, N) at its rate.
        codes: (N_k,) per codebook, those of wav.
        output: (C, M) decoded from them.
    """
    changes = {"decoded and encoded again": output[None], f"shifted by {SHIFT} samples": wav[..., SHIFT:]}
    changes |= {f"gain {gain:+d} dB": wav * 10 ** (gain / 20) for gain in _GAINS}
    found = {
        name: agreement(codes, _encode(codec, changed)) for name, changed in changes.items() if changed.shape[-1] > 0
    }
    if codec.info.has_scales:  # its segments overlap: no chunk has the frames of the whole
        return found
    for seconds in _CHUNKS:
        counts = _in_chunks(codec, wav, codes, seconds)
        if counts:
            found[f"chunks of {seconds} s"] = counts
    return found


def _encode(codec: Codec, wav: Tensor) -> list[Tensor]:
    return rows_of(codec.encode(wav, torch.tensor([wav.shape[-1]])), codec.info)


def _in_chunks(codec: Codec, wav: Tensor, codes: list[Tensor], seconds: int) -> Counts:
    """Compare chunks that are encoded alone with those frames of the whole, without the ends of each chunk."""
    info = codec.info
    group = max(info.strides) * info.hop_length
    groups = round(audio.compute_num_samples(seconds, info.sample_rate) / group)
    count = wav.shape[-1] // max(groups * group, 1)
    if groups <= 2 * MARGIN or count < 2:
        return []
    chunks = torch.cat(wav[..., : count * groups * group].split(groups * group, -1))
    encoded = codec.encode(chunks, torch.full((count,), groups * group))
    totals = [(0, 0)] * info.num_codebooks
    for index in range(count):
        alone = [book[index] for book in encoded.codebooks]
        whole = _window(codes, info, index * groups, groups)
        pairs = agreement(
            _window(whole, info, MARGIN, groups - 2 * MARGIN), _window(alone, info, MARGIN, groups - 2 * MARGIN)
        )
        totals = [(a + equal, b + every) for (a, b), (equal, every) in zip(totals, pairs, strict=True)]
    return totals


def _window(rows: list[Tensor], info: CodecInfo, start: int, groups: int) -> list[Tensor]:
    """Return the codes of `groups` groups from `start` on, per codebook."""
    per_group = [max(info.strides) // stride for stride in info.strides]
    return [row[start * n : (start + groups) * n] for row, n in zip(rows, per_group, strict=True)]
