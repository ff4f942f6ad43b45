"""One recording through a codec: every measure of the quality report, the counts of its codes, its shorter prefixes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import torch
from torch import Tensor

from voxlab import audio
from voxlab.audio import Seconds
from voxlab.codecs.base import Codec, CodecInfo, Codes, item_seed
from voxlab.codecs.prefix import Residual, first_codebooks
from voxlab.data.items import AudioItem
from voxlab.metrics import audio as measures
from voxlab.metrics.codes import count_codes
from voxlab.metrics.errors import NotMeasurable
from voxlab.metrics.words import SpeakerEncoder, Transcriber, word_errors

_PREFIXES = 8  # points of the curves over 1..K codebooks


class Pair:
    """An original and what a codec made of it, at whatever rate a measure asks for.

    Args:
        reference: (1, N) mono, as recorded.
        reference_rate: Hz.
        output: (C, M) decoded; its channels are averaged.
        output_rate: Hz.
    """

    def __init__(self, reference: Tensor, reference_rate: int, output: Tensor, output_rate: int) -> None:
        self._signals = ((reference, reference_rate), (audio.to_mono(output), output_rate))
        self.output_rate = output_rate
        self.at = cache(self._at)

    def _at(self, sample_rate: int) -> tuple[Tensor, Tensor]:
        """Return original and output (N,) at `sample_rate`, cut to the shorter one."""
        reference, output = (audio.resample(wav, rate, sample_rate)[0] for wav, rate in self._signals)
        return measures.crop(reference, output)

    @cached_property
    def aligned(self) -> tuple[Tensor, Tensor, int]:
        """Original and output at the codec's rate, shifted onto each other, and the samples by which it was late."""
        return measures.align(*self.at(self.output_rate), self.output_rate)


@dataclass(frozen=True)
class Measure:
    """A line of the quality table.

    Attributes:
        label: what it is called there.
        compute: the value of a pair; raises `NotMeasurable`.
        higher_is_better: None where it says nothing of quality.
        unit: of the value.
    """

    label: str
    compute: Callable[[Pair], float]
    higher_is_better: bool | None
    unit: str = ""


def _at(rate: int, compute: Callable[..., float], **options: Any) -> Callable[[Pair], float]:
    return lambda pair: compute(*pair.at(rate), **options)


def _aligned(compute: Callable[[Tensor, Tensor], float], *, silence: bool = False) -> Callable[[Pair], float]:
    def run(pair: Pair) -> float:
        reference, output, _ = pair.aligned
        return compute(reference, torch.zeros_like(output) if silence else output)

    return run


_WIDE, _SPEECH, _NARROW = measures.WIDE_RATE, measures.SPEECH_RATE, measures.NARROW_RATE
MEASURES: dict[str, Measure] = {
    "ms_mel": Measure("multi-scale mel distance", _at(_WIDE, measures.ms_mel), False),
    "mel_superb": Measure("mel distance (Codec-SUPERB)", _at(_SPEECH, measures.mel_superb), False),
    "mel_l1": Measure("mel L1, all bins", _at(_WIDE, measures.mel_l1), False, "nats"),
    "mel_l1_8k": Measure(
        "mel L1, up to 8 kHz", _at(_WIDE, partial(measures.mel_l1, limit=measures.BAND_LIMIT)), False, "nats"
    ),
    "stft": Measure("STFT distance", _at(_SPEECH, measures.stft_distance), False),
    "si_sdr": Measure("SI-SDR", _aligned(measures.si_sdr), True, "dB"),
    "pesq_wb": Measure("PESQ, wide band", _at(_SPEECH, measures.pesq, band="wb"), True),
    "pesq_nb": Measure("PESQ, narrow band", _at(_NARROW, measures.pesq, band="nb"), True),
    "stoi": Measure("STOI", _at(_SPEECH, measures.stoi), True),
    "estoi": Measure("ESTOI", _at(_SPEECH, measures.stoi, extended=True), True),
    "mse": Measure("mean squared error", _aligned(measures.mean_squared_error), None),
    "silence_mse": Measure("mean squared error of silence", _aligned(measures.mean_squared_error, silence=True), None),
    "mae": Measure("mean absolute error", _aligned(measures.mean_absolute_error), None),
    "silence_mae": Measure(
        "mean absolute error of silence", _aligned(measures.mean_absolute_error, silence=True), None
    ),
    "peak": Measure("largest error", _aligned(measures.peak_error), None),
}
JUDGED: dict[str, Measure] = {
    "wer": Measure("word error rate", lambda _: 0.0, False),
    "dwer": Measure("word error rate against the original's transcript", lambda _: 0.0, False),
    "speaker_similarity": Measure("speaker similarity", lambda _: 0.0, True),
}
LABELS = {**MEASURES, **JUDGED}


@dataclass(frozen=True)
class Judges:
    """Models that listen, where there are local weights for them.

    Attributes:
        transcribe: speech recognizer.
        embed: speaker verifier.
    """

    transcribe: Transcriber | None = None
    embed: SpeakerEncoder | None = None


@dataclass
class Result:
    """What one recording gave; travels between ranks.

    Attributes:
        id: of the recording.
        seconds: length of what was encoded.
        values: measure -> value.
        missing: measure -> why it has none.
        words: "wer" and "dwer" -> words of the transcript, by which their rates are weighted.
        facts: silent, silent_output, length_error (samples), late (samples).
        counts: (size,) int64 per codebook.
        prefixes: number of codebooks -> measure -> value.
        stability: kind of change -> (equal, all) codes per codebook.
        error: why there is nothing of the above.
    """

    id: str
    seconds: Seconds = 0.0
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    counts: list[Tensor] = field(default_factory=list)
    prefixes: dict[int, dict[str, float]] = field(default_factory=dict)
    stability: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    error: str | None = None


def load_clip(item: AudioItem, max_seconds: Seconds) -> tuple[Tensor, int]:
    """Read the first `max_seconds` of a recording, mono: (1, N) and its rate.

    Raises:
        OSError: it can't be read.
        ValueError: it is no audio file, is empty, or holds NaN or infinity.
    """
    wav, rate = audio.load(item.read())
    return audio.to_mono(wav)[:, : max(1, audio.compute_num_samples(max_seconds, rate))], rate


def codec_input(wav: Tensor, sample_rate: int, info: CodecInfo) -> Tensor:
    """Return (1, N) mono as the (1, C, N) that the codec takes, at its rate."""
    return audio.resample(wav, sample_rate, info.sample_rate)[None].expand(-1, info.channels, -1)


def roundtrip(codec: Codec, wav: Tensor, name: str, seed: int) -> tuple[Codes, Tensor]:
    """Encode and decode wav (1, C, N): codes of a batch of one, and the decoded (C, M) on the CPU."""
    codes = codec.encode(wav, torch.tensor([wav.shape[-1]]))
    return codes, decode(codec, codes, name, seed)


def decode(codec: Codec, codes: Codes, name: str, seed: int) -> Tensor:
    """Decode a batch of one to (C, M) on the CPU; the decoder's noise depends on the recording's name alone."""
    output, lengths = codec.decode(codes, seeds=[item_seed(seed, name)])
    return output[0, :, : int(lengths[0])].cpu()


def rows_of(codes: Codes, info: CodecInfo) -> list[Tensor]:
    """Return the valid codes (N_k,) of a batch of one, per codebook."""
    frames = int(codes.lengths[0])
    return [book[0, : frames // stride] for book, stride in zip(codes.codebooks, info.strides, strict=True)]


def compute(pair: Pair, chosen: Mapping[str, Measure]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the values of the measures, and the reasons of those that have none."""
    values: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, measure in chosen.items():
        try:
            values[name] = measure.compute(pair)
        except NotMeasurable as error:
            missing[name] = str(error)
    return values, missing


def measure_item(
    item: AudioItem, wav: Tensor, rate: int, codec: Codec, judges: Judges, seed: int
) -> tuple[Result, Codes, Tensor]:
    """Measure one recording.

    Args:
        item: the recording.
        wav: (1, N) its samples.
        rate: Hz.
        codec: on its device.
        judges: see there.
        seed: of the decoder's noise.

    Returns:
        the result, the codes, and the decoded (C, M).

    Raises:
        ValueError: the codec refuses the recording, or what it decodes is not finite.
    """
    info = codec.info
    sent = codec_input(wav, rate, info)
    codes, output = roundtrip(codec, sent, item.id, seed)
    if not bool(torch.isfinite(output).all()):
        raise ValueError("the codec's output holds NaN or infinity: its weights are damaged or diverged in training")
    pair = Pair(wav, rate, output, info.sample_rate)
    values, missing = compute(pair, MEASURES)
    result = Result(item.id, audio.compute_duration(wav.shape[-1], rate), values, missing)
    result.facts = {
        "silent": measures.is_silent(wav),
        "silent_output": measures.is_silent(output),
        "length_error": output.shape[-1] - sent.shape[-1],
        "late": pair.aligned[2],
    }
    result.counts = [count_codes(row, info.codebook_size) for row in rows_of(codes, info)]
    _judge(result, pair, judges, item.metadata.get("text"))
    return result, codes, output


def _judge(result: Result, pair: Pair, judges: Judges, text: object) -> None:
    """Add what the listening models say of a pair."""
    reference, output = pair.at(_SPEECH)
    if judges.transcribe is not None:
        heard = judges.transcribe(output)
        texts = {"wer": text, "dwer": judges.transcribe(reference)}
        for name, wanted in texts.items():
            wrong, words = word_errors(str(wanted or ""), heard)
            if words:
                result.values[name], result.words[name] = wrong / words, words
            else:
                result.missing[name] = "no transcript" if name == "wer" else "no words are heard in the original"
    if judges.embed is not None:
        try:
            result.values["speaker_similarity"] = float(judges.embed(reference) @ judges.embed(output))
        except (RuntimeError, ValueError) as error:  # too few frames for the model's convolutions
            result.missing["speaker_similarity"] = f"the recording is too short ({type(error).__name__})"


def prefix_counts(num_codebooks: int) -> list[int]:
    """Return the numbers of codebooks that the curves show: all up to 8, else 8 that double or nearly so, with K."""
    if num_codebooks <= _PREFIXES:
        return list(range(1, num_codebooks + 1))
    steps = {round(num_codebooks ** (step / (_PREFIXES - 1))) for step in range(_PREFIXES)}
    return sorted(steps | {1, num_codebooks})


def measure_prefixes(
    codec: Codec, codes: Codes, wav: Tensor, rate: int, name: str, seed: int
) -> dict[int, dict[str, float]]:
    """Return number of first codebooks -> mel L1 and STOI of a recording; empty where the codec has no prefixes."""
    if not isinstance(codec, Residual):
        return {}
    chosen = {key: MEASURES[key] for key in ("mel_l1", "stoi")}
    curves = {}
    for count in prefix_counts(codec.info.num_codebooks):
        output = decode(codec.with_codebooks(count), first_codebooks(codes, count), name, seed)
        curves[count] = compute(Pair(wav, rate, output, codec.info.sample_rate), chosen)[0]
    return curves


def spread(total: int, count: int | None) -> list[int]:
    """Return `count` of the positions 0..total-1, evenly spaced; all of them where `count` is None or larger."""
    if count is None or count >= total:
        return list(range(total))
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]


def shares(pairs: Sequence[tuple[int, int]]) -> list[float | None]:
    """Return equal / all of each codebook; None where nothing was compared."""
    return [equal / total if total else None for equal, total in pairs]
