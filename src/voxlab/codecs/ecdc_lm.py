"""Entropy-coded `.ecdc` streams: language model and arithmetic coder of the `encodec` package (CC BY-NC 4.0, extra).

About a quarter smaller files. Reading needs the very probabilities of writing, to the last bits that the coder keeps:
the same weights, and in practice the same kind of machine and torch. Archives are better off without.
"""

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from voxlab.codecs.ecdc import CODEBOOK_SIZE, FORMATS, HOP_LENGTH, Format
from voxlab.codecs.runtime import package_version
from voxlab.codecs.weights import weights_id
from voxlab.errors import UserError

PUBLISHED = "published"
_FILES = {24000: "encodec_lm_24khz-1608e3c0.th", 48000: "encodec_lm_48khz-7add9fc3.th"}
_URL = "https://dl.fbaipublicfiles.com/encodec/v0/"
_CONTEXT_SECONDS, _LAYERS, _WIDTH = 3.5, 5, 200


class LanguageModelCoder:
    """An `ecdc.EntropyCoder`: predicts each frame's codes from the frames before, one frame at a time.

    Args:
        model: the package's LMModel, with trained weights.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    @torch.no_grad()
    def write(self, file: BinaryIO, codes: np.ndarray) -> None:
        """Append (K, T) codes to `file` as one stream that ends on a whole byte."""
        from encodec.quantization.ac import ArithmeticCoder, build_stable_quantized_cdf

        coder = ArithmeticCoder(file)  # type: ignore[arg-type]
        frames = torch.from_numpy(np.ascontiguousarray(codes)).long()[None]
        before, states, offset = torch.zeros(1, len(codes), 1, dtype=torch.long), None, 0
        for at in range(frames.shape[-1]):
            chances, states, offset = self.model(before, states, offset)
            before = 1 + frames[..., at : at + 1]
            for book, code in enumerate(frames[0, :, at].tolist()):
                coder.push(
                    code, build_stable_quantized_cdf(chances[0, :, book, 0], coder.total_range_bits, check=False)
                )
        coder.flush()

    @torch.no_grad()
    def read(self, file: BinaryIO, num_codebooks: int, num_frames: int) -> np.ndarray:
        """Read (K, T) codes.

        Raises:
            EOFError: the stream ends too soon.
        """
        from encodec.quantization.ac import ArithmeticDecoder, build_stable_quantized_cdf

        decoder = ArithmeticDecoder(file)  # type: ignore[arg-type]
        frames = torch.zeros(1, num_codebooks, num_frames, dtype=torch.long)
        before, states, offset = torch.zeros(1, num_codebooks, 1, dtype=torch.long), None, 0
        for at in range(num_frames):
            chances, states, offset = self.model(before, states, offset)
            for book in range(num_codebooks):
                cdf = build_stable_quantized_cdf(chances[0, :, book, 0], decoder.total_range_bits, check=False)
                code = decoder.pull(cdf)
                if code is None:
                    raise EOFError(f"the stream ends in frame {at} of {num_frames}")
                frames[0, book, at] = code
            before = 1 + frames[..., at : at + 1]
        return frames[0].numpy()


def identify_lm(lm_weights: str, sample_rate: int) -> str:
    """Return a name of the weights that changes with them, without loading or downloading.

    Raises:
        UserError: there is no such file.
    """
    return _FILES[sample_rate] if lm_weights == PUBLISHED else weights_id({"lm": _find(lm_weights)})


def load_lm(lm_weights: str, sample_rate: int) -> LanguageModelCoder:
    """Load the language model of the 24 or 48 kHz model.

    Args:
        lm_weights: a file of the package's format (`torch.save` of the state), or "published": from the package's cache
            (torch hub), downloaded where it is not there.
        sample_rate: 24000 or 48000.

    Raises:
        UserError: the package or the file is missing, or the file holds something else.
    """
    package_version("encodec", "encodec", extra="encodec")
    model = build_lm(next(known for known in FORMATS.values() if known.sample_rate == sample_rate))
    try:
        if lm_weights == PUBLISHED:
            url = _URL + _FILES[sample_rate]
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        else:
            state = torch.load(_find(lm_weights), map_location="cpu", weights_only=True)
        model.load_state_dict(state)
    except (OSError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"encode.lm_weights={lm_weights} cannot be loaded: {type(error).__name__}: {str(error)[:200]}\n"
            f"Give the path of {_FILES[sample_rate]}, or null to write codes without entropy coding."
        ) from error
    return LanguageModelCoder(model)


def build_lm(known: Format) -> Any:
    """Build the package's language model for one of `ecdc.FORMATS`, untrained."""
    from encodec.model import LMModel

    context = int(_CONTEXT_SECONDS * (known.sample_rate // HOP_LENGTH))
    shape = {"num_layers": _LAYERS, "dim": _WIDTH, "past_context": context}
    return LMModel(max(known.codebooks), CODEBOOK_SIZE, **shape)


def _find(lm_weights: str) -> Path:
    path = Path(lm_weights).expanduser()
    if not path.is_file():
        raise UserError(f"encode.lm_weights={lm_weights}: no such file. Give a file, {PUBLISHED} or null.")
    return path
