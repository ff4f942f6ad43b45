"""What happens around the steps of training a tokenizer: curves and alarms, checkpoints, the export of the best."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.ranks import sum_over_ranks
from voxlab.parallel import Ranks, gather
from voxlab.storage import atomic_path
from voxlab.tasks.history import History
from voxlab.tasks.train_tokenizer.alarms import Alarms
from voxlab.tasks.train_tokenizer.module import TokenizerModule
from voxlab.tasks.train_tokenizer.usage import use_metrics

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
LAST, BEST = "last.ckpt", "best.ckpt"
_NEXT = "next.ckpt"  # becomes last.ckpt


class Recorder(Callback):
    """Writes the curves: every `log_every_n_steps` steps those of training, after each validation those of it.

    Args:
        ranks: this process among its peers.
        run_dir: for the history file.
        loggers: of rank 0.
    """

    def __init__(self, ranks: Ranks, run_dir: Path, loggers: dict[str, Any]) -> None:
        self.ranks, self.run_dir, self.loggers = ranks, run_dir, loggers
        self.alarms = Alarms()
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: TokenizerModule) -> None:  # type: ignore[override]
        """Open the history."""
        folder = self.run_dir if self.ranks.is_first else None
        self.history = History(folder, self.loggers, pl_module.step)
        self.clock = (time.perf_counter(), pl_module.step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: TokenizerModule, *_: Any) -> None:  # type: ignore[override]
        """Record a step."""
        if pl_module.step % pl_module.loop.log_every_n_steps:
            return
        metrics = mean_over_ranks(pl_module.train_log)
        row = {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}
        row["train/lr"] = pl_module.optim.rate(pl_module.step - 1, pl_module.loop.max_steps)
        names = {0: "train/grad_norm", 1: "gan/grad_norm_d"}
        row |= {names[index]: float(norm) for index, norm in pl_module.grad_norms.items()}
        row |= self._codebooks(pl_module)
        now, before = (time.perf_counter(), pl_module.step), self.clock
        self.clock = now
        audio = (now[1] - before[1]) * pl_module.fit.batch_size * pl_module.fit.segment_seconds
        row["train/audio_s_per_s"] = audio / max(now[0] - before[0], 1e-9)
        self._record(pl_module, row)

    def _codebooks(self, module: TokenizerModule) -> dict[str, float]:
        counts = module.use.counts() if module.use is not None else None
        if counts is None or module.use is None:
            return {}
        sum_over_ranks(counts)
        errors, revived = module.use.take()
        row = use_metrics(counts)
        for number, (error, count) in enumerate(zip(errors.tolist(), revived.tolist(), strict=True), 1):
            row |= {f"vq/rel_err/{number}": error, f"vq/revived/{number}": count}
        self.alarms.check_use(counts, module.step)
        return row

    def on_validation_end(self, trainer: Trainer, pl_module: TokenizerModule) -> None:  # type: ignore[override]
        """Record a validation."""
        row = {f"val/{name}": value for name, value in weighted_means(self.ranks, pl_module.take_validation()).items()}
        row |= {name.replace("vq/", "val/"): value for name, value in self._val_use(pl_module).items()}
        self.latest = row
        self._record(pl_module, row)
        monitored = row.get(pl_module.monitor)
        if self.ranks.is_first and monitored is not None:
            log.info("step %d: %s %.4f", pl_module.step, pl_module.monitor, monitored)

    def _val_use(self, module: TokenizerModule) -> dict[str, float]:
        counts = module.take_val_counts()
        if counts is None:
            return {}
        sum_over_ranks(counts)
        self.alarms.check_validation(counts)
        return {name: value for name, value in use_metrics(counts).items() if name.startswith("vq/use/")}

    def _record(self, module: TokenizerModule, row: dict[str, float]) -> None:
        self.history.add(module.step, row)
        for message in self.alarms.check_row(row, module.step, module.loop.log_every_n_steps):
            if self.ranks.is_first:
                log.warning("step %d: %s", module.step, message)


class Checkpoints(Callback):
    """Keeps `last.ckpt`, the best by validation and every n-th, and exports the averaged weights of the best.

    Args:
        recorder: its latest validation decides what is best.
        run_dir: gets `checkpoints/` and `codec/`.
        validates: False: there is no validation, and the last step is the best.
    """

    def __init__(self, recorder: Recorder, run_dir: Path, *, validates: bool) -> None:
        self.recorder, self.run_dir, self.validates = recorder, run_dir, validates
        self.best: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        """Return the name of this callback's part of a checkpoint."""
        return "Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """Return what is best so far."""
        return {"best": dict(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was best so far."""
        self.best = dict(state_dict["best"])

    def on_train_batch_end(self, trainer: Trainer, pl_module: TokenizerModule, *_: Any) -> None:  # type: ignore[override]
        """Save, unless a validation of this step comes first."""
        step, loop = pl_module.step, pl_module.loop
        if self.validates and (step % loop.val_check_interval == 0 or trainer.should_stop):
            return
        self._save(trainer, pl_module, final=trainer.should_stop)

    def on_validation_end(self, trainer: Trainer, pl_module: TokenizerModule) -> None:  # type: ignore[override]
        """Compare with the best so far, then save."""
        row, name = self.recorder.latest, pl_module.monitor
        better = row.get(name, float("inf")) < self.best.get(name, float("inf"))
        if better and not pl_module.is_warming_up:
            self.best = {"step": pl_module.step, **row}
        self._save(trainer, pl_module, always=True)

    def _save(self, trainer: Trainer, module: TokenizerModule, *, always: bool = False, final: bool = False) -> None:
        fit, step, folder = module.fit, module.step, self.run_dir / CHECKPOINTS
        if final and not self.best and not module.is_warming_up:
            self.best = {"step": step}
        is_best = self.best.get("step") == step
        keeps = fit.keep_every is not None and step % fit.keep_every == 0
        if not (always or final or keeps or step % fit.save_every == 0):
            return
        # Renamed after all that hangs on it is written: a run killed meanwhile goes on from the one before and does
        # this again. Otherwise it could go on believing in an export that was never made.
        trainer.save_checkpoint(folder / _NEXT, weights_only=False)
        if not trainer.is_global_zero:
            return
        for name, wanted in ((BEST, is_best), (f"step-{step:07d}.ckpt", keeps)):
            if wanted:
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(folder / _NEXT, temporary)
        if is_best:
            facts = {**module.facts, **self.best}
            files.export(module.ema_network, module.architecture, self.run_dir / files.SUBFOLDER, facts)
        (folder / _NEXT).replace(folder / LAST)


def mean_over_ranks(values: dict[str, Tensor]) -> dict[str, float]:
    """Return the means of scalars over all ranks, fetched from the device at once."""
    if not values:
        return {}
    stacked = torch.stack([value.float() if value.dtype != torch.float64 else value for value in values.values()])
    stacked = stacked.double().cpu()
    sum_over_ranks(stacked)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return dict(zip(values, (stacked / world).tolist(), strict=True))


def weighted_means(ranks: Ranks, sums: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Return the weighted means of all ranks' sums and weights."""
    gathered = gather(ranks, sums)
    return {
        name: sum(part[name][0] for part in gathered) / max(sum(part[name][1] for part in gathered), 1e-12)
        for name in gathered[0]
    }
