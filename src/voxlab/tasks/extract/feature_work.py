"""The work of one rank of `task=extract features=...`: load, extract, write.

Features may take several recordings at once, so frames come interleaved; an episode that fails costs no other.
"""

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from voxlab.data.episodes import View, Word
from voxlab.data.items import AudioCorpus, AudioItem
from voxlab.data.store_writer import BadFrames, EpisodeFacts, EpisodeWriter
from voxlab.errors import UserError
from voxlab.features.base import Chunk, Features, Recording
from voxlab.ledger import FOLDER
from voxlab.parallel import side_threads
from voxlab.progress import BulkProgress
from voxlab.tasks.extract.feature_lease import Lease, acquire
from voxlab.tasks.extract.feature_load import Beside, Loaded, load_view
from voxlab.tasks.extract.feature_plan import Episode, is_done

log = logging.getLogger(__name__)

_AHEAD = 2  # recordings that are loaded while others are extracted
Job = tuple[Episode, View]


@dataclass
class Done:
    """What a rank has done.

    Attributes:
        written: ids of episodes that are complete.
        failures: lines of failures.jsonl.
        wall: seconds from the first recording to the last.
        peak_bytes: of the GPU's memory; 0 on a CPU.
    """

    written: list[str] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    wall: float = 0.0
    peak_bytes: int = 0


@dataclass
class _Open:
    """An episode that is being written."""

    episode: Episode
    lease: Lease
    started: float
    writer: EpisodeWriter | None = None
    beside: Beside | None = None


class Extraction:
    """Extracts episodes of one rank into a store.

    Args:
        corpus: of the episodes.
        features: on their device, weights loaded.
        store: folder of the fingerprint.
        settings: what decides the bytes, for `episode.json`.
        device: of the features.
        progress: counts episodes.
        verify_hash: whether to compare hashes with what another command has just finished.
    """

    def __init__(
        self,
        corpus: AudioCorpus,
        features: Features,
        store: Path,
        settings: Mapping[str, Any],
        device: str,
        progress: BulkProgress,
        *,
        verify_hash: bool = False,
    ) -> None:
        self.corpus, self.features, self.store, self.settings = corpus, features, store, settings
        self.device, self.progress, self.info, self.done = device, progress, features.info, Done()
        self.verify_hash = verify_hash
        self._open: dict[str, _Open] = {}
        self._given_up: set[str] = set()
        self._started, self._seconds = 0.0, 0.0

    def run(self, episodes: Sequence[Episode]) -> Done:
        """Extract the episodes; what fails is recorded, what another command works on is left to it.

        Raises:
            UserError: the disk is full, or the features can't be had at all.
        """
        self._started, self._seconds = time.monotonic(), sum(episode.duration for episode in episodes)
        jobs = deque((episode, view) for episode in episodes for view in episode.views)
        try:
            while jobs:
                self._extract(jobs)
        finally:
            for opened in list(self._open.values()):
                self._drop(opened)
        self.done.wall = time.monotonic() - self._started
        self.done.peak_bytes = _peak_bytes(self.device)
        return self.done

    def _extract(self, jobs: deque[Job]) -> None:
        """Run the features over the jobs; if they stop, the episodes in work are tried again, each by itself."""
        error = self._attempt(jobs)
        if error is None:
            return
        broken = [opened.episode for opened in self._open.values()]
        if not broken:
            raise error
        for opened in list(self._open.values()):
            self._drop(opened)
        rest = [job for job in jobs if job[0] not in broken]
        jobs.clear()
        jobs.extend(rest)
        if len(broken) == 1:
            self._fail(broken[0], "extract", error)
            return
        log.warning("%s: %s; the %d episodes in work are tried one by one", type(error).__name__, error, len(broken))
        for episode in broken:
            error = self._attempt(deque((episode, view) for view in episode.views))
            if error is not None:
                self._fail(episode, "extract", error)

    def _attempt(self, jobs: deque[Job]) -> Exception | None:
        """Run the features until all jobs are done or one breaks them; return what broke them."""
        recordings = self._recordings(jobs)
        try:
            for chunk in self.features.stream(recordings):
                self._write(chunk)
        except UserError:
            raise
        except Exception as error:
            return error
        finally:
            recordings.close()  # what is loaded but not begun goes back to the jobs
        for opened in list(self._open.values()):
            self._fail(opened.episode, "extract", BadFrames("the features ended before the recording did"))
        return None

    # ---- loading ---------------------------------------------------------------------------------------------------

    def _recordings(self, jobs: deque[Job]) -> Generator[Recording, None, None]:
        """Yield recordings, each loaded a while before its turn."""
        waiting: deque[tuple[Job, Future[Loaded]]] = deque()
        with side_threads(1, "load") as pool:
            try:
                while jobs or waiting:
                    while jobs and len(waiting) <= _AHEAD:
                        job = jobs.popleft()
                        if self._begin(job[0]):
                            waiting.append((job, pool.submit(load_view, self.corpus, *job, self.info)))
                    if waiting:
                        job, loaded = waiting.popleft()
                        yield from self._ready(job, loaded)
            finally:
                jobs.extendleft(job for job, _ in reversed(waiting))

    def _begin(self, episode: Episode) -> bool:
        """Claim an episode; False: another command has it, or there is no more to do."""
        item = episode.item.id
        if item in self._open:
            return True
        if item in self._given_up:
            return False
        lease = acquire(self.store / FOLDER / "leases" / f"{episode.folder.name}.json")
        if lease is None:
            return False
        if is_done(episode, verify_hash=self.verify_hash):  # another command has just finished it
            lease.release()
            return False
        self._open[item] = _Open(episode, lease, time.monotonic())
        return True

    def _ready(self, job: Job, future: Future[Loaded]) -> Iterator[Recording]:
        episode, view = job
        if episode.item.id in self._given_up:
            return
        try:
            loaded = future.result()
            self._prepare(self._open[episode.item.id], loaded)
        except Exception as error:
            self._fail(episode, "load", error)
        else:
            sides = [(loaded.agent, loaded.other)]  # handed over, so that only the features hold them
            words = None if loaded.words is None else _unfatal(loaded.words)
            yield Recording(f"{episode.item.id}#{view.index}", loaded.num_frames, sides.pop, words)

    def _prepare(self, opened: _Open, loaded: Loaded) -> None:
        if loaded.beside is not None:
            opened.beside = loaded.beside
            facts = opened.episode.facts(loaded.num_frames, loaded.beside.duration)
            opened.writer = EpisodeWriter(self.store, facts, dim=self.info.dim, dtype=self.info.dtype)
        if opened.writer is None or opened.writer.facts.num_frames != loaded.num_frames:
            raise BadFrames(f"its views differ in length: {loaded.num_frames} frames in one of them")

    # ---- writing ---------------------------------------------------------------------------------------------------

    def _write(self, chunk: Chunk) -> None:
        item, _, view = chunk.key.rpartition("#")
        opened = self._open.get(item)
        if opened is None or opened.writer is None or opened.beside is None:
            return  # an episode that has failed
        try:
            opened.writer.add(int(view), chunk.start, chunk.values, chunk.name)
            opened.lease.renew()
            if chunk.last and opened.writer.is_complete:
                self._finish(opened, opened.writer, opened.beside)
        except BadFrames as error:
            self._fail(opened.episode, "write", error)

    def _finish(self, opened: _Open, writer: EpisodeWriter, beside: Beside) -> None:
        context = self.features.context_frames(writer.facts.num_frames)
        writer.finish(
            settings=self.settings, events=beside.events, vad=beside.vad, energy=beside.energy, context=context
        )
        self._drop(opened)
        self.done.written.append(opened.episode.item.id)
        self.progress.advance(1, beside.duration)
        self._tell(opened, writer.facts)

    def _tell(self, opened: _Open, facts: EpisodeFacts) -> None:
        """Say how far the work is, after an episode, unless it was said a moment ago."""
        if not self.progress.is_due():
            return
        spent = time.monotonic() - self._started
        seconds = self.progress.audio_seconds
        gpu = f", GPU peak {_peak_bytes(self.device) / 1e9:.1f} GB" if self.device.startswith("cuda") else ""
        log.info(
            "%s: %d frames in %.0f s; %d of %d done, %.1f s per hour of audio, %.0f min left%s",
            *(opened.episode.name, facts.num_frames, time.monotonic() - opened.started),
            *(self.progress.done, self.progress.total, spent / (seconds / 3600)),
            *(spent / seconds * max(self._seconds - seconds, 0.0) / 60, gpu),
        )

    def _fail(self, episode: Episode, stage: str, error: Exception) -> None:
        """Record what went wrong with an episode, and leave it."""
        opened = self._open.get(episode.item.id)
        if opened is not None:
            self._drop(opened)
        self._given_up.add(episode.item.id)
        lines = traceback.format_exception(error)
        self.done.failures.append(failure(episode.item, stage, f"{type(error).__name__}: {error}", "".join(lines)))
        log.warning("%s failed: %s: %s", episode.name, type(error).__name__, error)
        self.progress.advance(1, 0.0)

    def _drop(self, opened: _Open) -> None:
        """Throw away what is unfinished of an episode, and let others have it."""
        if opened.writer is not None:
            opened.writer.abort()
        opened.lease.release()
        self._open.pop(opened.episode.item.id, None)


def failure(item: AudioItem, stage: str, error: str, trace: str = "") -> dict[str, Any]:
    """Return a line of failures.jsonl."""
    return {
        "id": item.id,
        "split": item.split,
        "path": str(item.path),
        "stage": stage,
        "error": error,
        "traceback": trace,
    }


def _unfatal(words: Callable[[], Sequence[Word]]) -> Callable[[], Sequence[Word]]:
    """Make what is wrong with a transcript an error of its episode, not of the whole command."""

    def read() -> Sequence[Word]:
        try:
            return words()
        except UserError as error:
            raise ValueError(str(error)) from error

    return read


def _peak_bytes(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated(device) if device.startswith("cuda") else 0
