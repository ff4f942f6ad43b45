"""The quality report of any codec on any corpus of recordings, and the reconstruction of one file.

python main.py task=train_tokenizer stage=test data=librispeech codec=encodec
python main.py task=train_tokenizer stage=reconstruct codec=encodec audio=in.wav
"""

import dataclasses
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from voxlab import progress, storage
from voxlab.audio import compute_num_samples
from voxlab.codecs.base import Codec
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.errors import TooManyBadItems, UserError
from voxlab.metrics.words import SpeakerEncoder, Transcriber
from voxlab.parallel import Ranks, barrier, gather
from voxlab.tasks import estimate
from voxlab.tasks.settings import log_facts
from voxlab.tasks.sweeps import sweep_of
from voxlab.tasks.train_tokenizer import compare as tokenizer_compare
from voxlab.tasks.train_tokenizer import files as tokenizer_files
from voxlab.tasks.train_tokenizer import reconstruct as tokenizer_reconstruct
from voxlab.tasks.train_tokenizer import report as tokenizer_report
from voxlab.tasks.train_tokenizer.measure import (
    Judges,
    Result,
    codec_input,
    load_clip,
    measure_item,
    measure_prefixes,
    roundtrip,
    rows_of,
    spread,
)
from voxlab.tasks.train_tokenizer.speed import WARMUPS, measure_speed
from voxlab.tasks.train_tokenizer.stability import measure_stability
from voxlab.tasks.train_tokenizer.summary import Quality, quality_of, rates_of, summary_of
from voxlab.tasks.train_tokenizer.test_settings import Settings, check_texts, choose_items

log = logging.getLogger(__name__)

_GPU_BATCH = 32


def check(**test: Any) -> Settings:
    """Return the settings of stage=test, checked.

    Raises:
        UserError: a value is out of range.
    """
    return Settings(**test)


def test(
    *,
    corpus: AudioCorpus,
    codec: Codec | None,
    seed: int,
    max_bad_fraction: float,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
    **test: Any,
) -> dict[str, Any]:
    """Measure a codec on recordings and write the report; results don't depend on the number of ranks.

    Args:
        corpus: the recordings.
        codec: any codec of the house.
        seed: of the decoder's noise and the bootstrap.
        max_bad_fraction: fail at the end when more recordings than this could not be read or decoded.
        dry_run: print the plan and write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run.
        **test: see `Settings`.

    Returns:
        the means of all measures, rates and files.

    Raises:
        UserError: wrong settings, or nothing to measure.
        TooManyBadItems: more recordings failed than `max_bad_fraction`.
    """
    settings = check(**test)
    if codec is None:
        raise UserError("stage=test measures a codec: choose one, for example codec=encodec.")
    if not 0 <= max_bad_fraction <= 1:
        raise UserError(f"max_bad_fraction={max_bad_fraction}: give a fraction from 0 to 1.")
    if ranks.is_first and not dry_run:
        corpus.prepare()
    barrier(ranks)
    items = choose_items(corpus.items(), settings.split, settings.limit)
    if settings.asr is not None:
        check_texts(items)
    if dry_run:
        return _describe_plan(items, codec, settings, seed, ranks)
    work = _open(items, codec, settings, seed, ranks)
    results = _measure_all(work, ranks)
    if all(result.error is not None for result in results):
        _judge(results, 0.0)
    speed = gather(ranks, _speed(work, results, ranks.device) if ranks.is_first else {})[0]
    quality = quality_of(results, work.codec.info, speed, resamples=settings.resamples, seed=seed)
    if ranks.is_first:
        _write(work, quality, corpus, run_dir)
    barrier(ranks)  # a rank that fails now would end the first one while it writes
    _judge(results, max_bad_fraction)
    return summary_of(quality, run_dir)


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is to be measured, with what."""

    items: list[AudioItem]
    codec: Codec
    judges: Judges
    settings: Settings
    seed: int

    def load(self, item: AudioItem) -> tuple[Tensor, int]:
        return load_clip(item, self.settings.max_seconds)


def _open(items: list[AudioItem], codec: Codec, settings: Settings, seed: int, ranks: Ranks) -> _Work:
    """Load codec and judges."""
    judges = Judges(
        None if settings.asr is None else Transcriber(settings.asr, ranks.device),
        None if settings.speaker is None else SpeakerEncoder(settings.speaker, ranks.device),
    )
    return _Work(items, codec.to(ranks.device), judges, settings, seed)


def _measure_all(work: _Work, ranks: Ranks) -> list[Result]:
    """Measure this rank's share of the recordings; return the results of all, in order."""
    own = range(ranks.rank, len(work.items), ranks.world)
    found: dict[int, Result] = {}
    with progress.BulkProgress(len(own), "measuring") as bar:
        for index in own:
            found[index] = _measure_one(work, index)
            bar.advance(1, found[index].seconds)
    everyone: dict[int, Result] = {}
    for part in gather(ranks, found):
        everyone |= part
    return [everyone[index] for index in range(len(work.items))]


def _measure_one(work: _Work, index: int) -> Result:
    item, settings, total = work.items[index], work.settings, len(work.items)
    try:
        wav, rate = work.load(item)
        result, codes, output = measure_item(item, wav, rate, work.codec, work.judges, work.seed)
        if index in spread(total, settings.prefix_files):
            result.prefixes = measure_prefixes(work.codec, codes, wav, rate, item.id, work.seed)
        if index in spread(total, settings.stability_files):
            sent = codec_input(wav, rate, work.codec.info)
            result.stability = measure_stability(work.codec, sent, rows_of(codes, work.codec.info), output)
    except (OSError, ValueError, UserError) as error:
        return Result(item.id, error=str(error))
    return result


def _judge(results: Sequence[Result], max_bad_fraction: float) -> None:
    failed = [result for result in results if result.error is not None]
    if len(failed) <= max_bad_fraction * len(results):
        return
    shown = "\n  ".join(f"{result.id}: {result.error}" for result in failed[:10])
    raise TooManyBadItems(
        f"{len(failed)} of {len(results)} recordings could not be measured (allowed: {max_bad_fraction:.1%}):\n  "
        f"{shown}\nRaise max_bad_fraction to accept that."
    )


def _speed(work: _Work, results: Sequence[Result], device: str) -> dict[str, Any]:
    """Time the codec on one clip: the first good recording, repeated or cut to length."""
    settings, info = work.settings, work.codec.info
    if settings.speed_repeats == 0:
        return {}
    index = next(index for index, result in enumerate(results) if result.error is None)
    wav = codec_input(*work.load(work.items[index]), info)
    length = compute_num_samples(settings.speed_seconds, info.sample_rate)
    clip = wav.repeat(1, 1, -(-length // wav.shape[-1]))[..., :length]
    batch = settings.speed_batch or (_GPU_BATCH if device.startswith("cuda") else None)
    return measure_speed(work.codec, clip, device, settings.speed_repeats, batch)


def _write(work: _Work, quality: Quality, corpus: AudioCorpus, run_dir: Path) -> None:
    """Write tables, plots, clips and pages."""
    clips = tokenizer_files.write_clips(_clips(work, quality), run_dir / "audio")
    splits = {item.split for item in work.items}
    about = {
        "corpus": f"{corpus.folder}, {'all recordings' if len(splits) > 1 else f'split {splits.pop()}'}",
        "codec": work.codec.fingerprint(),
        "settings": dataclasses.asdict(work.settings),
        "seed": work.seed,
        "clips": [clip.id for clip in clips],
        "shared_clips": [work.items[index].id for index in spread(len(work.items), work.settings.clips)],
    }
    tokenizer_files.write_tables(quality, about, run_dir)
    tokenizer_report.write_page(quality, about, clips, run_dir)
    tokenizer_report.tell(quality)
    log.info("measured: %d recordings of %s", len(work.items), about["corpus"])
    if sweep := sweep_of(run_dir):
        storage.write_settled(
            lambda: storage.stamps(sweep, "*/quality.json"), lambda _: tokenizer_compare.compare(sweep)
        )


def _clips(work: _Work, quality: Quality) -> list[tokenizer_files.Reconstruction]:
    """Decode again what is to be heard: some that every codec shows, the best, the worst."""
    ranked = sorted(
        (result for result in quality.results if "ms_mel" in result.values), key=lambda result: result.values["ms_mel"]
    )
    count, place = work.settings.clips, {item.id: index for index, item in enumerate(work.items)}
    kinds = {result.id: "worst" for result in ranked[::-1][:count]}
    kinds |= {result.id: "best" for result in ranked[:count]}
    kinds |= {work.items[index].id: "" for index in spread(len(work.items), count)}
    failed = {result.id for result in quality.results if result.error is not None}
    order = sorted(kinds.keys() - failed, key=lambda name: (["", "best", "worst"].index(kinds[name]), place[name]))
    return [_reconstruct_item(work, work.items[place[name]], kinds[name]) for name in order]


def _reconstruct_item(work: _Work, item: AudioItem, kind: str) -> tokenizer_files.Reconstruction:
    wav, rate = work.load(item)
    info = work.codec.info
    _, output = roundtrip(work.codec, codec_input(wav, rate, info), item.id, work.seed)
    text = item.metadata.get("text")
    return tokenizer_files.Reconstruction(item.id, kind, wav, rate, output, info.sample_rate, str(text or ""))


def _describe_plan(items: list[AudioItem], codec: Codec, settings: Settings, seed: int, ranks: Ranks) -> dict[str, Any]:
    """Return, and log, what is to be measured and how long that takes, of which a little is done."""
    plan = {
        "recordings": len(items),
        "split": ", ".join(sorted({item.split for item in items})),
        **rates_of(codec.info),
    }
    plan["time"] = estimate.attempt(partial(_expected_time, items, codec, settings, seed, ranks))
    if ranks.is_first:
        log_facts(log, plan)
    return plan


def _expected_time(items: list[AudioItem], codec: Codec, settings: Settings, seed: int, ranks: Ranks) -> str:
    """Measure a few recordings, one of them with all curves, and the speed of the codec once."""
    begun = time.perf_counter()
    work = _open(items, codec, settings, seed, ranks)
    loaded = time.perf_counter()
    result = _measure_one(work, 0)
    if result.error is not None:
        return estimate.not_measured(result.error)
    whole = time.perf_counter() - loaded
    plain = dataclasses.replace(work, settings=dataclasses.replace(settings, prefix_files=0, stability_files=0))

    def rehearse(some: Sequence[int]) -> float:
        return len([_measure_one(plain, index) for index in some])

    pace, count = estimate.measure(rehearse, range(len(items)), ranks.device)
    timed = time.perf_counter()
    _speed(dataclasses.replace(work, settings=dataclasses.replace(settings, speed_repeats=1)), [result], ranks.device)
    timing = (time.perf_counter() - timed) * (settings.speed_repeats + WARMUPS) / (1 + WARMUPS)
    curves = max(0.0, whole - pace) * min(len(items), max(settings.prefix_files, settings.stability_files))
    seconds = loaded - begun + (pace * len(items) + curves) / ranks.world + (timing if settings.speed_repeats else 0)
    basis = f"{count} recordings measured, {pace:.3g} s each, and the speed once; before the report"
    return estimate.about(seconds, basis)


# ---- one file ------------------------------------------------------------------------------------------------------


def reconstruct(
    *,
    codec: Codec | None,
    audio: str | None,
    out: str | None,
    seed: int,
    dry_run: bool,
    ranks: Ranks,
    run_dir: Path,
) -> dict[str, Any]:
    """Encode and decode one file: writes the audio (.wav), its tokens and both spectrograms (.png) under one name.

    Args:
        codec: any codec of the house.
        audio: the file.
        out: the WAV file to write, or a folder; None takes the run folder.
        seed: of the decoder's noise.
        dry_run: say what would be written.
        ranks: this process among its peers; the first one works.
        run_dir: folder of this run.

    Returns:
        the files, the rates, and what is odd about the audio.

    Raises:
        UserError: no codec, no such file, or one that holds no usable audio.
    """
    if codec is None:
        raise UserError("stage=reconstruct needs a codec, for example codec=encodec.")
    if audio is None:
        raise UserError("stage=reconstruct needs a file: audio=in.wav")
    target = tokenizer_reconstruct.target_of(Path(audio), out, run_dir)
    if dry_run or not ranks.is_first:
        plan = {"audio": audio, "out": str(target), **rates_of(codec.info)}
        plan["time"] = estimate.not_measured("it is one file")
        if ranks.is_first:
            log_facts(log, plan)
        return plan
    return tokenizer_reconstruct.reconstruct(codec.to(ranks.device), Path(audio), target, seed)
