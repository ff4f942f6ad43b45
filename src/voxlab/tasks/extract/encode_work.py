"""How stage encode of `task=extract` works: read ahead, encode in planned batches, write behind, record each item."""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from voxlab import audio, storage
from voxlab.codecs import token_files
from voxlab.codecs.base import Codec, CodecInfo, Codes, pad_rows, single
from voxlab.codecs.batching import plan_batches
from voxlab.codecs.ecdc import EntropyCoder
from voxlab.codecs.translate import with_retries
from voxlab.data.items import AudioItem
from voxlab.ledger import Ledger, Record, stats
from voxlab.parallel import side_threads
from voxlab.progress import BulkProgress
from voxlab.tasks.extract.stage import TOKENS, Stage

STAGE = "encode"
_READERS, _WRITERS, _READ_AHEAD, _WRITE_BEHIND = 2, 4, 2, 64  # threads; batches; files


@dataclass(frozen=True)
class Input:
    """What is encoded of one item.

    Attributes:
        item: the recording.
        stamp: changes with the audio that is read.
        wav: normalized file; None: the recording itself.
    """

    item: AudioItem
    stamp: str
    wav: Path | None

    def read(self) -> bytes:
        """Return the complete audio file.

        Raises:
            OSError: it can't be read.
            ValueError: the normalized file is not the one that stage normalize wrote.
        """
        if self.wav is None:
            return self.item.read()
        data = self.wav.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.stamp:
            raise ValueError("unreadable: the normalized file was changed; run the stage normalize again")
        return data


@dataclass(frozen=True)
class Job:
    """Everything the encoding of an item needs besides its audio.

    Attributes:
        stage: where, and which recordings.
        codec: codec to write.
        container: of the token files, not "auto".
        suffix: of the token files.
        made_by: fingerprint of the settings.
        ledger: what is done.
        lm: entropy coder.
        planned: samples of each item to do, as its audio's header announces them; batches are planned on these.
    """

    stage: Stage
    codec: Codec
    container: str
    suffix: str
    made_by: str
    ledger: Ledger
    lm: EntropyCoder | None = None
    planned: dict[str, int] = field(default_factory=dict)

    def target(self, item_id: str) -> Path:
        """Return the path of an item's token file."""
        return self.stage.out / TOKENS / f"{item_id}{self.suffix}"

    def is_current(self, source: Input) -> bool:
        """Tell whether an item's token file is up to date, or its failure."""
        made_from = {"input": source.stamp, "settings": self.made_by}
        return self.ledger.is_current(source.item.id, made_from, [self.target(source.item.id)])


@dataclass(frozen=True)
class Clip:
    """One item of a batch: its audio (C, T) at the codec's rate or, after encoding, its codes; or what went wrong."""

    source: Input
    wav: Tensor | None = None
    codes: Codes | None = None
    error: str | None = None


def run(job: Job, inputs: Sequence[Input], todo: set[str]) -> None:
    """Encode this rank's share of the batches that hold something to do."""
    rank, world = job.stage.ranks.rank, job.stage.ranks.world
    batches = [batch for batch in _batches(job, inputs, todo) if any(source.item.id in todo for source in batch)]
    mine = batches[rank::world]
    # Entropy-coded files can only be read with the sums, to the last bit, that they were written with. Whoever reads
    # one computes with all cores, as EnCodec's own command does; so must the threads that write it.
    write_cores = torch.get_num_threads() if job.lm else 1
    with (
        side_threads(_READERS, "read") as readers,
        side_threads(_WRITERS, "write", write_cores) as writers,
        BulkProgress(sum(source.item.id in todo for batch in mine for source in batch), STAGE) as progress,
    ):
        written: deque[Future[None]] = deque()
        for clips in _read_ahead(readers, mine, partial(load, info=job.codec.info)):
            for clip in _encode(job.codec, clips):
                if clip.source.item.id in todo:
                    written.append(writers.submit(_store, job, clip, progress))
            while len(written) > _WRITE_BEHIND:
                written.popleft().result()
        for future in written:
            future.result()


def _batches(job: Job, inputs: Sequence[Input], todo: set[str]) -> list[list[Input]]:
    """Plan over all items, done or not, so that the batches are those of an uninterrupted run."""
    rate, records = job.codec.info.sample_rate, job.ledger.records
    with side_threads(_READERS) as pool:
        new = [source for source in inputs if source.item.id in todo]
        lengths = pool.map(partial(count_samples, rate=rate), new)
        job.planned.update(zip((source.item.id for source in new), lengths, strict=True))
    earlier = {key: int(record.get("planned", 0)) for key, record in records.items()}
    planned = [job.planned.get(source.item.id, earlier.get(source.item.id, 0)) for source in inputs]
    batches = plan_batches(planned, max(1, round(job.stage.max_batch_seconds * rate)))
    return [[inputs[index] for index in batch] for batch in batches]


def count_samples(source: Input, rate: int) -> int:
    """Return the samples that the header of an item's audio announces, at the codec's rate; 0 if it cannot be read."""
    import soundfile

    try:
        info = soundfile.info(str(source.wav) if source.wav else io.BytesIO(source.read()))
        return audio.compute_resampled_length(info.frames, info.samplerate, rate)
    except (OSError, soundfile.SoundFileError, ZeroDivisionError):
        return 0  # reading it will say what is wrong


def _read_ahead(
    pool: ThreadPoolExecutor, batches: Sequence[list[Input]], load: Callable[[Input], Clip]
) -> Iterator[list[Clip]]:
    """Yield the audio of batch after batch while the next ones are being read."""
    waiting: deque[list[Future[Clip]]] = deque()
    for batch in batches:
        waiting.append([pool.submit(load, source) for source in batch])
        if len(waiting) > _READ_AHEAD:
            yield [future.result() for future in waiting.popleft()]
    for futures in waiting:
        yield [future.result() for future in futures]


def load(source: Input, info: CodecInfo) -> Clip:
    """Read an item's audio and bring it to the codec's channels and rate."""
    try:
        wav, rate = audio.load(source.read())
    except OSError as error:
        return Clip(source, error=f"unreadable: {error.strerror or error}")
    except ValueError as error:
        return Clip(source, error=str(error))
    if wav.shape[0] != info.channels:
        wav = audio.to_mono(wav).expand(info.channels, -1)
    return Clip(source, audio.resample(wav, rate, info.sample_rate))


def _encode(codec: Codec, clips: Sequence[Clip]) -> Iterator[Clip]:
    """Encode a batch; items that could not be read pass through."""
    yield from (clip for clip in clips if clip.wav is None)
    good = [clip for clip in clips if clip.wav is not None]
    if good:
        yield from with_retries(
            good, partial(_encode_batch, codec), lambda clip, reason: Clip(clip.source, error=reason)
        )


def _encode_batch(codec: Codec, clips: list[Clip]) -> list[Clip]:
    wavs = [clip.wav for clip in clips if clip.wav is not None]
    try:
        codes = codec.encode(pad_rows(wavs), torch.tensor([wav.shape[-1] for wav in wavs]))
    except ValueError as error:
        if len(clips) > 1:
            raise  # each is tried alone
        return [Clip(clips[0].source, error=f"failed: {error}")]
    return [Clip(clip.source, clip.wav, single(codes, row)) for row, clip in enumerate(clips)]


def rehearse(job: Job, inputs: Sequence[Input]) -> float:
    """Encode some items in batches, as `run` does, in memory; return their seconds of audio."""
    info, clips = job.codec.info, [load(source, job.codec.info) for source in inputs]
    samples = [0 if clip.wav is None else clip.wav.shape[-1] for clip in clips]
    for batch in plan_batches(samples, max(1, round(job.stage.max_batch_seconds * info.sample_rate))):
        for clip in _encode(job.codec, [clips[index] for index in batch]):
            if clip.codes is not None:
                token_files.spell_tokens(clip.codes, info, job.container, lm=job.lm)
    return sum(samples) / info.sample_rate


def _store(job: Job, clip: Clip, progress: BulkProgress) -> None:
    """Write an item's token file and record it, or record why there is none."""
    item = clip.source.item
    record: Record = {"input": clip.source.stamp, "settings": job.made_by}
    target = job.target(item.id)
    planned = job.planned[item.id]
    if clip.codes is None or clip.wav is None:
        with storage.explained(target):
            target.unlink(missing_ok=True)  # of an earlier version of the recording, or of other settings
            job.ledger.add(item.id, {**record, "planned": planned, "path": str(item.path), "error": clip.error})
        progress.advance(1, 0.0)
        return
    data = token_files.spell_tokens(clip.codes, job.codec.info, job.container, lm=job.lm)
    storage.atomic_write_bytes(target, data)
    if item.id in job.ledger.records:  # it had a file before, perhaps in another container
        for suffix in set(token_files.SUFFIXES) - {job.suffix}:
            (job.stage.out / TOKENS / f"{item.id}{suffix}").unlink(missing_ok=True)
    facts = {
        "stat": stats([target]),
        "sha256": hashlib.sha256(data).hexdigest(),
        "frames": int(clip.codes.lengths[0]),
        "num_codebooks": job.codec.info.num_codebooks,
        "num_samples": clip.wav.shape[-1],
        "planned": planned,
    }
    with storage.explained(job.ledger.folder):
        job.ledger.add(item.id, record | facts)
    progress.advance(1, clip.wav.shape[-1] / job.codec.info.sample_rate)
