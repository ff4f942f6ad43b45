"""The `.ecdc` files of EncHF_Dataset: a `torch.save` archive under the container's name, 24 kHz only."""

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from voxlab.codecs.base import CodecInfo, Codes, check_codes, stack, unstack
from voxlab.codecs.ecdc import HOP_LENGTH, format_of

MAGIC = b"PK\x03\x04"


def write_legacy(codes: Codes, info: CodecInfo) -> bytes:
    """Write one item as a `torch.save` archive: audio_codes (1, 1, K, T) int64, audio_scales [None], audio_length.

    Raises:
        ValueError: the codes are not those of one item of EnCodec 24 kHz.
    """
    known = format_of(info)
    if known is None or known.has_scales or len(codes) != 1 or codes.num_samples is None:
        raise ValueError(
            f"the torch container holds one item of EnCodec 24 kHz with its number of samples; got {len(codes)} of "
            f"{info.name} at {info.sample_rate} Hz"
        )
    check_codes(codes, info)
    books = stack(codes)[:, None, :, : int(codes.lengths[0])].contiguous()
    file = io.BytesIO()
    torch.save({"audio_codes": books, "audio_scales": [None], "audio_length": int(codes.num_samples[0])}, file)
    return file.getvalue()


def read_legacy(data: bytes) -> Codes:
    """Read such a file; audio_codes may be (1, 1, K, T), (1, K, T) or (K, T).

    Raises:
        ValueError: `bad_ecdc: ...`, what is wrong with it.
    """
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise ValueError(f"bad_ecdc: torch archive cannot be read ({type(error).__name__}: {reason})") from None
    if not isinstance(content, dict) or not {"audio_codes", "audio_length"} <= content.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"bad_ecdc: torch archive holds {found}, needs audio_codes and audio_length")
    return _checked(content["audio_codes"], content["audio_length"])


def _checked(books: Any, length: Any) -> Codes:
    if not isinstance(books, Tensor) or books.is_floating_point() or books.dim() not in (2, 3, 4):
        found = tuple(books.shape) if isinstance(books, Tensor) else type(books).__name__
        raise ValueError(f"bad_ecdc: audio_codes {found}; allowed: whole numbers (1, 1, K, T), (1, K, T) or (K, T)")
    if any(size != 1 for size in books.shape[:-2]) or 0 in books.shape:
        raise ValueError(f"bad_ecdc: audio_codes {tuple(books.shape)}; allowed: (1, 1, K, T), (1, K, T) or (K, T)")
    codes = books.reshape(1, *books.shape[-2:]).to(torch.int64)
    num_samples, num_frames = int(length), codes.shape[-1]
    if not 0 < num_samples <= num_frames * HOP_LENGTH:
        raise ValueError(f"bad_ecdc: audio_length {num_samples}; {num_frames} frames hold 1 to {num_frames * 320}")
    return unstack(codes, torch.tensor([num_frames]), torch.tensor([num_samples]))
