"""A progress bar for bulk work: rows/s, audio seconds per second, time left; log lines where there is no terminal."""

import logging
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

_LOG_EVERY = 60.0


class BulkProgress:
    """Count rows and seconds of audio; draw a bar on a terminal, log a line a minute elsewhere."""

    def __init__(self, total: int, title: str) -> None:
        self.total, self.done, self.audio_seconds = total, 0, 0.0
        self.started = self._logged = time.monotonic()
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(file=sys.stderr), disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(title, total=total, rate="")

    def __enter__(self) -> "BulkProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def rate(self) -> str:
        """Rows and audio seconds per second of wall clock, so far."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        return f"{self.done / elapsed:.2f} rows/s, {self.audio_seconds / elapsed:.1f} x real time"

    def advance(self, rows: int, audio_seconds: float) -> None:
        """Count finished work."""
        self.done += rows
        self.audio_seconds += audio_seconds
        self._bar.update(self._task, advance=rows, rate=self.rate)
        if self._bar.disable and time.monotonic() - self._logged > _LOG_EVERY:
            self._logged = time.monotonic()
            left = (self.total - self.done) * (self._logged - self.started) / max(self.done, 1)
            log.info("%d/%d rows, %s, %.0f min left", self.done, self.total, self.rate, left / 60)
