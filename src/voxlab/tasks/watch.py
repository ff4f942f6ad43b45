"""Callbacks that watch training steps: the progress bar of every training run, and the stopwatch of dry runs."""

import time
from contextlib import ExitStack
from typing import Any

from lightning import Callback, Trainer

from voxlab.audio import Seconds
from voxlab.parallel import Ranks, gather
from voxlab.progress import BulkProgress
from voxlab.tasks.estimate import wait_for

_WARM_UP = 3  # steps
_FEWEST, _ENOUGH = 3, 10  # steps
_SHORTEST, _LONGEST = 2.0, 8.0  # seconds
_VALIDATED = 3  # batches


class TrainingBar(Callback):
    """Shows steps per second, the epoch, the loss and the time that is left.

    Modules have `step`, `max_steps`, `loop.log_every_n_steps` and `note()`, which is shown beside.

    Args:
        ranks: this process among its peers; the first one shows it.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self._closing = ranks, ExitStack()
        self.bar: BulkProgress | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Open the bar."""
        if self.ranks.is_first:
            bar = BulkProgress(pl_module.max_steps, "training", "steps", done=pl_module.step)
            self.bar = self._closing.enter_context(bar)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Count a step; what is on the device is fetched as often as curves are."""
        if self.bar is not None:
            logged = pl_module.step % pl_module.loop.log_every_n_steps == 0
            self.bar.advance(note=pl_module.note() if logged else None)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Close the bar."""
        self._closing.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the bar."""
        self._closing.close()


class Stopwatch(Callback):
    """Times the steps of a training loop, of which the first ones are a warm-up, and ends it after a few.

    Attributes:
        before: seconds before the first step, and that it took longer than others.
        step: seconds of a step.
        count: steps that were measured.
        validated: seconds of each validation batch that `measure_validation` has run.

    Args:
        ranks: this process among its peers; all stop at the same step.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks, self._begun = ranks, time.perf_counter()
        self._ends: list[float] = []
        self.validated: list[Seconds] = []

    @property
    def count(self) -> int:
        """Steps that were measured."""
        return max(1, len(self._ends) - self._warm)

    @property
    def _warm(self) -> int:
        return min(_WARM_UP, len(self._ends) - 1)

    @property
    def step(self) -> Seconds:
        """Return the mean of the steps after the warm-up."""
        measured = self._ends[self._warm :]
        if len(self._ends) == 1:
            return self._ends[0] - self._begun
        return (measured[-1] - self._ends[self._warm - 1]) / len(measured)

    @property
    def before(self) -> Seconds:
        """Return what the start took beyond the steps."""
        return max(0.0, self._ends[self._warm - 1] - self._begun - self._warm * self.step) if self._warm else 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Note the time; end when that is enough."""
        wait_for(pl_module.device)
        self._ends.append(time.perf_counter())
        measured = len(self._ends) - _WARM_UP
        if measured >= _FEWEST:
            spent = self._ends[-1] - self._ends[_WARM_UP - 1]
            enough = spent > _LONGEST or (measured >= _ENOUGH and spent > _SHORTEST)
            trainer.should_stop = trainer.should_stop or any(gather(self.ranks, enough))

    def on_validation_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Note the time."""
        self._started = time.perf_counter()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Note the time."""
        wait_for(pl_module.device)
        self.validated.append(time.perf_counter() - self._started)

    def measure_validation(self, trainer: Any, module: Any, data: Any) -> Seconds:
        """Run a few validation batches; return the seconds of all of them."""
        trainer.limit_val_batches = _VALIDATED
        trainer.validate(module, datamodule=data, verbose=False)
        measured = self.validated[1:] or self.validated
        return sum(measured) / len(measured) * len(data.val_dataloader())
