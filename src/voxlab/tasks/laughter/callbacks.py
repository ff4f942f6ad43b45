"""What happens around the steps of `task=laughter`: curves, validation over all ranks, checkpoints, early stopping."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from voxlab.parallel import Ranks, gather
from voxlab.tasks.checkpoints import CHECKPOINTS, LAST, keep
from voxlab.tasks.early_stopping import is_over
from voxlab.tasks.history import History
from voxlab.tasks.laughter.data import View
from voxlab.tasks.laughter.module import LaughterModule
from voxlab.tasks.laughter.predict import predict
from voxlab.tasks.laughter.validation import validate

log = logging.getLogger(__name__)


class Progress(Callback):
    """Logs the steps; after each epoch validates, keeps the best checkpoint, and stops when nothing improves.

    All that is decided (learning rate, best, end) follows from scores that are computed once and sent to all ranks.

    Args:
        ranks: this process among its peers.
        run_dir: gets `history.jsonl` and `checkpoints/`.
        loggers: of rank 0.
        views: of the validation split.
    """

    def __init__(self, ranks: Ranks, run_dir: Path, loggers: Mapping[str, Any], views: Sequence[View]) -> None:
        self.ranks, self.run_dir, self.loggers, self.views = ranks, run_dir, dict(loggers), views
        self.best: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        """Return the name of this callback's part of a checkpoint."""
        return "Progress"

    def state_dict(self) -> dict[str, Any]:
        """Return what is best so far."""
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was best so far."""
        self.best = dict(state_dict["best"])

    def on_train_start(self, trainer: Trainer, pl_module: LaughterModule) -> None:  # type: ignore[override]
        """Open the history; end at once what had ended before it was resumed."""
        folder = self.run_dir if self.ranks.is_first else None
        self.history = History(folder, self.loggers, pl_module.step)
        self.clock = (time.perf_counter(), pl_module.step)
        trainer.should_stop = self._is_over(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LaughterModule, *_: Any) -> None:  # type: ignore[override]
        """Log, validate, save."""
        step, fit = pl_module.step, pl_module.fit
        ends = step % pl_module.per_epoch == 0 or trainer.should_stop
        if ends or step % pl_module.loop.log_every_n_steps == 0:
            self._log_step(pl_module)
        if ends:
            self._validate(pl_module)
            trainer.should_stop = self._is_over(pl_module)
        if ends or step % fit.save_every == 0:
            keep(trainer, self.run_dir, self.ranks, is_best=ends and self.best.get("step") == step)

    def _is_over(self, module: LaughterModule) -> bool:
        best = module.fit.best_of(module.scores) if module.scores else 0
        return is_over(module, best, tells=self.ranks.is_first)

    def _log_step(self, module: LaughterModule) -> None:
        sums = {name: float(value) for name, value in module.train_log.items()}
        loss = sums["loss"] if module.loss.reduction == "sum" else sums["loss"] / sums["weight"]
        now, (before, step) = time.perf_counter(), self.clock
        self.clock = (now, module.step)
        row = {"train/loss": loss, "train/prior": sums["positive"] / sums["weight"], "train/lr": module.rate}
        row |= {"train/grad_norm": sums["grad_norm"], "train/epoch": module.step / module.per_epoch}
        row["train/frames_per_s"] = sums["frames"] * (module.step - step) / max(now - before, 1e-9)
        self.history.add(module.step, row)

    def _validate(self, module: LaughterModule) -> None:
        """Score the validation split; the figures of rank 0 go to all ranks."""
        owner = f"{self.run_dir} at step {module.step}, after {CHECKPOINTS}/{LAST}"
        episodes = predict(module.whole_model(), self.views, self.ranks, module.device, owner)
        row = gather(self.ranks, validate(episodes, module.loss) if self.ranks.is_first else {})[0]
        module.scores.append(module.fit.score(row))
        if module.fit.best_of(module.scores) == len(module.scores) - 1:
            self.best = {"step": module.step, **row}
        self.history.add(module.step, row)
        if self.ranks.is_first:
            epoch = module.step / module.per_epoch
            log.info("epoch %.3g: %s", epoch, ", ".join(f"{name} {value:.4f}" for name, value in row.items()))
