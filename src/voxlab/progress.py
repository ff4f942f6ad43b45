"""A progress bar for long work: rate, time left, and what else is known; a log line a minute without a terminal.

A bar that begins inside of another one is drawn below it. Of several ranks, the first draws.
"""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
Item = TypeVar("Item")

_LOG_EVERY = 60.0  # seconds
_STEP_EVERY = 5.0  # seconds: what is told of steps as they end
_shown: list[Progress] = []  # the one display that is on the terminal, if any


class BulkProgress:
    """Count items, and seconds of audio where there are some.

    Args:
        total: items.
        title: of the work, a word or two.
        unit: what an item is, in the plural.
        done: items that an earlier run has done: they count for the bar, not for the rate.
        stays: whether the bar is still to be seen when the work is done.
    """

    def __init__(self, total: int, title: str, unit: str = "rows", *, done: int = 0, stays: bool = True) -> None:
        self.total, self.title, self.unit, self.done, self.audio_seconds = total, title, unit, done, 0.0
        self.note = ""
        self.started = self._logged = time.monotonic()
        self._before, self._stays = done, stays
        self._closing = ExitStack()
        self._display: Progress | None = None

    def __enter__(self) -> "BulkProgress":
        self.started = self._logged = time.monotonic()
        if is_drawn():
            self._display = self._closing.enter_context(_display(stays=self._stays))
            fields = {"total": self.total, "completed": self.done, "rate": "", "note": ""}
            self._task = self._display.add_task(self.title, **fields)
            self._closing.callback(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def _end(self) -> None:
        if self._display is not None and len(self._display.tasks) > 1:  # the outermost bar stays to be seen
            self._display.remove_task(self._task)

    @property
    def rate(self) -> str:
        """Items and audio seconds per second of wall clock, so far."""
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = f"{(self.done - self._before) / elapsed:.2f} {self.unit}/s"
        return f"{rate}, {self.audio_seconds / elapsed:.1f} x real time" if self.audio_seconds else rate

    def advance(self, count: int = 1, audio_seconds: float = 0.0, note: str | None = None) -> None:
        """Count finished work.

        Args:
            count: of items.
            audio_seconds: that they hold.
            note: what else is to be seen from now on, such as the loss; None: as before.
        """
        self.done += count
        self.audio_seconds += audio_seconds
        self.note = self.note if note is None else note
        if self._display is not None:
            self._display.update(self._task, advance=count, rate=self.rate, note=self.note)
        elif time.monotonic() - self._logged > _LOG_EVERY:
            self._log()

    def is_due(self) -> bool:
        """Tell whether a step that has ended is worth a line: none was logged in the last few seconds. Then one is."""
        now = time.monotonic()
        due = now - self._logged >= _STEP_EVERY
        self._logged = now if due else self._logged
        return due

    def _log(self) -> None:
        self._logged = time.monotonic()
        new = max(self.done - self._before, 1)
        left = (self.total - self.done) * (self._logged - self.started) / new
        note = f", {self.note}" if self.note else ""
        counts = (self.title, self.done, self.total, self.unit)
        log.info("%s: %d of %d %s, %s, %.0f min left%s", *counts, self.rate, left / 60, note)


def track(items: Sequence[Item], title: str, unit: str) -> Iterator[Item]:
    """Yield the items, with a bar of how many have been worked on, which goes when they are done.

    Args:
        items: to be worked on.
        title: of the work, a word or two.
        unit: what an item is, in the plural.
    """
    with BulkProgress(len(items), title, unit, stays=False) as progress:
        for item in items:
            yield item
            progress.advance()


def is_drawn() -> bool:
    """Tell whether bars are drawn: on a terminal, by the first rank."""
    return sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"


@contextmanager
def _display(*, stays: bool) -> Iterator[Progress]:
    """Yield the display that is on the terminal, or put one there, above which log lines go."""
    if _shown:
        yield _shown[0]
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    display = Progress(*columns, console=Console(file=sys.stderr), redirect_stdout=False, transient=not stays)
    plain = sys.stderr
    with display:
        handlers = [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is plain]
        _redirect(handlers, sys.stderr)  # which is the display's by now
        _shown.append(display)
        try:
            yield display
        finally:
            _shown.clear()
            _redirect(handlers, plain)


def _redirect(handlers: Sequence[logging.Handler], stream: object) -> None:
    for handler in handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(stream)
