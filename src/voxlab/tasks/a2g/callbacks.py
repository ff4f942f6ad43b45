"""What happens around the steps of `task=a2g`: curves, validation over all ranks, checkpoints, early stopping."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from voxlab.parallel import Ranks
from voxlab.tasks.a2g.module import A2gModule
from voxlab.tasks.a2g.validation import validate
from voxlab.tasks.a2g.windows import Windows
from voxlab.tasks.checkpoints import keep
from voxlab.tasks.early_stopping import is_over
from voxlab.tasks.history import History

log = logging.getLogger(__name__)

_SHOWN = ("val/loss", "val/ce", "val/accuracy", "val/rec", "val/velocity")


class Progress(Callback):
    """Logs the steps; after each epoch validates, keeps the best checkpoint, and stops when nothing improves.

    Args:
        ranks: this process among its peers.
        run_dir: gets `history.jsonl` and `checkpoints/`.
        loggers: of rank 0.
        windows: of the validation split.
        generate: collective; what is measured on generated motion, given the step.
    """

    def __init__(
        self,
        ranks: Ranks,
        run_dir: Path,
        loggers: Mapping[str, Any],
        windows: Windows,
        generate: Callable[[int], dict[str, float]],
    ) -> None:
        self.ranks, self.run_dir, self.loggers = ranks, run_dir, dict(loggers)
        self.windows, self.generate = windows, generate
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

    def on_train_start(self, trainer: Trainer, pl_module: A2gModule) -> None:  # type: ignore[override]
        """Open the history; end at once what had ended before it was resumed."""
        pl_module.place_codecs()
        folder = self.run_dir if self.ranks.is_first else None
        self.history = History(folder, self.loggers, pl_module.step)
        self.clock = (time.perf_counter(), pl_module.step)
        trainer.should_stop = self._is_over(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: A2gModule, *_: Any) -> None:  # type: ignore[override]
        """Log, validate, save."""
        step = pl_module.step
        ends = step % pl_module.per_epoch == 0 or trainer.should_stop
        if ends or step % pl_module.loop.log_every_n_steps == 0:
            self._log_step(pl_module)
        if ends:
            self._validate(pl_module)
            trainer.should_stop = self._is_over(pl_module)
        if ends or step % pl_module.fit.save_every == 0:
            keep(trainer, self.run_dir, self.ranks, is_best=ends and self.best.get("step") == step)

    def _is_over(self, module: A2gModule) -> bool:
        best = best_of(module.scores) if module.scores else 0
        return is_over(module, best, tells=self.ranks.is_first)

    def _log_step(self, module: A2gModule) -> None:
        values = torch.stack([value.double().cpu() for value in module.train_log.values()]).tolist()
        row = dict(zip(module.train_log, values, strict=True))
        now, (before, step) = time.perf_counter(), self.clock
        self.clock = (now, module.step)
        row |= {"train/lr": module.optim.rate(module.step - 1, module.max_steps, module.scores)}
        row |= {"train/epoch": module.step / module.per_epoch}
        row["train/steps_per_s"] = (module.step - step) / max(now - before, 1e-9)
        self.history.add(module.step, row)

    def _validate(self, module: A2gModule) -> None:
        row = validate(
            module.average, module.codecs, self.windows, module.fit.masking, module.loss, self.ranks, module.device
        )
        module.scores.append(module.score(row))
        if best_of(module.scores) == len(module.scores) - 1:
            self.best = {"step": module.step, **row}
        if module.fit.generate_every and len(module.scores) % module.fit.generate_every == 0:
            row |= self.generate(module.step)
        self.history.add(module.step, row)
        if self.ranks.is_first:
            shown = ", ".join(f"{name} {row[name]:.4f}" for name in _SHOWN)
            log.info("epoch %.3g: %s", module.step / module.per_epoch, shown)


def best_of(scores: list[float]) -> int:
    """Return the number of the first of the highest scores; a score that is no number is never the best."""
    known = [score if score == score else float("-inf") for score in scores]
    return known.index(max(known))
