"""What a recognizer and a speaker verifier hear: word errors and speaker similarity, with models from local folders."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlab.errors import UserError

SAMPLE_RATE = 16000


def words_of(text: str) -> list[str]:
    """Return the words of a text in one spelling: upper case, no punctuation but apostrophes."""
    return re.sub(r"[^\w' ]+", " ", text.upper().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")).split()


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Return the wrong words of `hypothesis` (substituted, missing, extra) and the words of `reference`.

    The word error rate of a corpus is the sum of the first over the sum of the second.
    """
    from torchaudio.functional import edit_distance

    wanted, heard = words_of(reference), words_of(hypothesis)
    return int(edit_distance(wanted, heard)), len(wanted)


class Transcriber:
    """A speech recognizer with greedy CTC decoding: a folder of transformers' Wav2Vec2ForCTC and its processor.

    Args:
        folder: config.json, the weights, vocab.json and preprocessor_config.json (for example a copy of
            facebook/wav2vec2-base-960h).
        device: torch device.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: str, device: str) -> None:
        from transformers import Wav2Vec2ForCTC, Wav2Vec2Processor

        self.device = device
        self._processor: Any = _load(Wav2Vec2Processor, folder, "test.asr")
        self._model: Any = _load(Wav2Vec2ForCTC, folder, "test.asr").eval().to(device)

    def __call__(self, wav: Tensor) -> str:
        """Write down what is said in wav (N,) at 16 kHz."""
        inputs = self._processor(wav.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").to(self.device)
        with torch.no_grad():
            logits = self._model(**inputs).logits
        return str(self._processor.batch_decode(logits.argmax(-1))[0])


class SpeakerEncoder:
    """A speaker verifier: a folder of transformers' WavLMForXVector (say, a copy of microsoft/wavlm-base-plus-sv).

    Args:
        folder: config.json, the weights and preprocessor_config.json.
        device: torch device.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: str, device: str) -> None:
        from transformers import Wav2Vec2FeatureExtractor, WavLMForXVector

        self.device = device
        self._extractor: Any = _load(Wav2Vec2FeatureExtractor, folder, "test.speaker")
        self._model: Any = _load(WavLMForXVector, folder, "test.speaker").eval().to(device)

    def __call__(self, wav: Tensor) -> Tensor:
        """Return the voice in wav (N,) at 16 kHz as an embedding (D,) of length 1."""
        inputs = self._extractor(wav.numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt").to(self.device)
        with torch.no_grad():
            embedding = self._model(**inputs).embeddings[0].float().cpu()
        return torch.nn.functional.normalize(embedding, dim=0)


def _load(kind: Any, folder: str, key: str) -> Any:
    """Load a part of a model from a local folder, never from the network.

    Raises:
        UserError: names the folder, what is missing, and the key.
    """
    if not Path(folder).is_dir():
        raise UserError(f"{key}={folder}: there is no such folder. Give a local copy of the model, or null to skip it.")
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        found = sorted(path.name for path in Path(folder).iterdir())[:12]
        raise UserError(
            f"{key}={folder}: {kind.__name__} can't be loaded from it ({str(error).splitlines()[0][:200]}); "
            f"the folder holds {found}."
        ) from error
