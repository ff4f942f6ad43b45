"""Turn batches of utterances into audio and into another codec's codes: source codes -> wav -> target codes."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from voxlab.audio import compute_resampled_length, quantise_pcm16, resample
from voxlab.codecs.base import Codec, Codes, collate, pad_rows, single
from voxlab.codecs.batching import plan_batches

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Utterance:
    """One item to translate: either `codes` (a batch of one) or `wav` (C, T), with its place and its noise seed.

    `num_samples` is the length of its audio, on which batches are planned.
    """

    row: int
    num_samples: int
    codes: Codes | None = None
    wav: Tensor | None = None
    seed: int = 0


@dataclass(frozen=True)
class Translated:
    """What became of one utterance: audio (C, T) float32 and codes (a batch of one), on the CPU, or a reason."""

    row: int
    wav: Tensor | None = None
    codes: Codes | None = None
    error: str | None = None


@dataclass(frozen=True)
class Translator:
    """The pair of codecs and how they are joined.

    Args:
        source: decodes the utterances' codes; None when they come as audio.
        target: encodes the audio; None to stop at audio.
        max_batch_samples: largest padded batch, in samples of audio; 0 takes one item at a time.
        as_pcm16: round the audio to 16 bits before it is encoded, because that is how it will be stored.
    """

    source: Codec | None
    target: Codec | None
    max_batch_samples: int = 0
    as_pcm16: bool = False

    def __call__(self, utterances: Sequence[Utterance]) -> list[Translated]:
        """Translate all utterances; the batches depend on their lengths and order alone."""
        batches = plan_batches([item.num_samples for item in utterances], max(1, self.max_batch_samples))
        parts = [[utterances[index] for index in batch] for batch in batches]
        results = [result for part in parts for result in with_retries(part, self._translate, _failed)]
        return sorted(results, key=lambda result: result.row)

    def _translate(self, batch: list[Utterance]) -> list[Translated]:
        wav, lengths, sample_rate = self._decode(batch)
        if self.as_pcm16:
            wav = quantise_pcm16(wav)
        codes = self._encode(wav, lengths, sample_rate) if self.target else None
        wav = wav.cpu()
        return [self._outcome(item, wav[index, :, : lengths[index]], codes, index) for index, item in enumerate(batch)]

    def _decode(self, batch: list[Utterance]) -> tuple[Tensor, Tensor, int]:
        if self.source is None:
            wavs = [item.wav for item in batch if item.wav is not None]
            lengths = torch.tensor([wav.shape[-1] for wav in wavs])
            assert self.target is not None
            return pad_rows(wavs), lengths, self.target.info.sample_rate
        codes = collate([item.codes for item in batch if item.codes is not None])
        wav, lengths = self.source.decode(codes, seeds=[item.seed for item in batch])
        return wav, lengths.cpu(), self.source.info.sample_rate

    def _encode(self, wav: Tensor, lengths: Tensor, sample_rate: int) -> Codes:
        assert self.target is not None
        info = self.target.info
        if wav.shape[1] != info.channels:
            wav = wav.mean(1, keepdim=True).expand(-1, info.channels, -1)
        if sample_rate != info.sample_rate:
            wav = resample(wav, sample_rate, info.sample_rate)
            lengths = torch.tensor(
                [compute_resampled_length(n, sample_rate, info.sample_rate) for n in lengths.tolist()]
            )
        return self.target.encode(wav, lengths)

    def _outcome(self, item: Utterance, wav: Tensor, codes: Codes | None, index: int) -> Translated:
        if not torch.isfinite(wav).all():
            return Translated(item.row, error="nonfinite_audio")
        return Translated(item.row, wav, None if codes is None else single(codes, index))


def _failed(item: Utterance, reason: str) -> Translated:
    return Translated(item.row, error=reason)


def with_retries(
    batch: Sequence[Item], work: Callable[[list[Item]], list[Result]], failed: Callable[[Item, str], Result]
) -> Iterator[Result]:
    """Run `work` on a batch; when it fails, on smaller ones, until only the culprits are left.

    Args:
        batch: items that are worked on together.
        work: one result per item, in order.
        failed: makes the result of a culprit from the item and the reason: "oom" or "failed:<exception>".
    """
    try:
        yield from work(list(batch))
        return
    except torch.OutOfMemoryError as error:
        reason, parts = "oom", [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        log.warning("%d items do not fit the device's memory: %s", len(batch), error)
        torch.cuda.empty_cache()
    except torch.AcceleratorError:
        raise  # the device is lost: every later batch would fail as well
    except (RuntimeError, ValueError) as error:
        reason, parts = f"failed:{type(error).__name__}", [[item] for item in batch]
        log.warning("a batch of %d items failed: %s: %s", len(batch), type(error).__name__, error)
    if len(batch) == 1:
        yield failed(batch[0], reason)
        return
    for part in parts:
        yield from with_retries(part, work, failed)
