"""Lightning's trainer as training tasks use it: this launch's device and processes, files that are never partial."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint
from voxlab.parallel import Ranks

_log = logging.getLogger(__name__)

# Keys of the trainer group that a training loop looks after itself; of the second kind, only the neutral value goes.
_OWN = ("max_steps", "val_check_interval", "log_every_n_steps", "gradient_clip_val", "logger", "callbacks", "devices")
NEUTRAL: dict[str, Any] = {
    **{"accumulate_grad_batches": 1, "limit_train_batches": None, "fast_dev_run": False, "overfit_batches": 0.0},
    **{"min_epochs": None, "min_steps": None, "gradient_clip_algorithm": None},
}
# --mixed_precision of `accelerate launch` -> trainer.precision
_PRECISIONS = {"fp16": "16-mixed", "bf16": "bf16-mixed", "fp8": "transformer-engine"}


def lightning_trainer(**keys: Any) -> Any:
    """Make `lightning.Trainer`; it takes seconds to import, for which a run with a mistake needn't wait."""
    from lightning import Trainer

    return Trainer(**keys)


def check_keys(
    keys: Mapping[str, Any], neutral: Mapping[str, Any], task: str, ranks: Ranks, *, divisible: bool = False
) -> None:
    """Refuse settings of the trainer group that the loop does not know, and a number of processes that isn't there.

    Args:
        keys: of the trainer group.
        neutral: key -> the one value, besides null, that may stand there.
        task: for messages, with what ends its runs.
        ranks: this process among its peers.
        divisible: whether the task's module divides its model over the ranks, trainer=fsdp.

    Raises:
        UserError: names the key.
    """
    for name, value in neutral.items():
        if keys.get(name, value) not in (value, None):
            raise UserError(f"trainer.{name}={keys[name]} does not go with {task}")
    if keys.get("strategy") == "fsdp":
        _check_fsdp(keys, task, ranks, divisible)
    processes = _number(keys.get("devices"), 1) * _number(keys.get("num_nodes"), 1)
    if processes != ranks.world:
        raise UserError(
            f"trainer.devices={keys.get('devices')} and num_nodes={keys.get('num_nodes')} ask for {processes} "
            f"processes, but {ranks.world} were started. Use torchrun --nproc_per_node={processes} main.py ..."
        )


def _check_fsdp(keys: Mapping[str, Any], task: str, ranks: Ranks, divisible: bool) -> None:
    if not divisible:
        raise UserError(f"trainer.strategy=fsdp does not go with {task}")
    if ranks.world == 1:
        raise UserError(
            "trainer.strategy=fsdp divides a model over several processes, and there is one. Use "
            "torchrun --nproc_per_node=<GPUs> main.py ..., or trainer=default."
        )
    if keys.get("precision") not in (None, "32-true", "bf16-mixed"):
        raise UserError(f"trainer.precision={keys['precision']} with strategy=fsdp: choose 32-true or bf16-mixed.")


def _number(value: Any, default: int) -> int:
    if value is None or value == "auto":
        return default
    return len(value) if isinstance(value, list | tuple) else int(value)


def make_trainer(
    trainer: partial[Any],
    ranks: Ranks,
    run_dir: Path,
    callbacks: Sequence[Any],
    *,
    precision: str,
    find_unused_parameters: bool,
    **ours: Any,
) -> Any:
    """Make Lightning's trainer on this rank's device; steps, clipping, curves and checkpoints are the task's own.

    Args:
        trainer: `lightning.Trainer` with the settings of the trainer group.
        ranks: this process among its peers.
        run_dir: of the run.
        callbacks: of the task.
        precision: where trainer.precision is null.
        find_unused_parameters: whether a descent may concern a part of the parameters.
        ours: keys of the trainer that the task decides.
    """
    from voxlab.tasks import sharding
    from voxlab.tasks.atomic_checkpoints import AtomicCheckpoints
    from voxlab.tasks.watch import TrainingBar

    keys = {name: value for name, value in trainer.keywords.items() if name not in _OWN}
    on_gpu = ranks.device != "cpu"
    if keys.get("accelerator") in (None, "auto"):
        keys["accelerator"] = "gpu" if on_gpu else "cpu"
    keys["precision"] = keys.get("precision") or precision
    if ranks.is_first:
        _warn_of_other_precision(str(keys["precision"]))
    devices: Any = trainer.keywords.get("devices", 1)
    if ranks.world == 1:
        devices = [int(ranks.device.partition(":")[2] or 0)] if on_gpu else 1
    elif keys.get("strategy") in (None, "auto"):
        from lightning.pytorch.strategies import DDPStrategy

        # Buffers are equal on all ranks by themselves.
        keys["strategy"] = DDPStrategy(find_unused_parameters=find_unused_parameters, broadcast_buffers=False)
    elif keys["strategy"] == "fsdp":
        keys["strategy"] = sharding.make_strategy(ranks)
    fixed = {
        "devices": devices,
        "max_steps": -1,
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "default_root_dir": str(run_dir),
        "callbacks": [*callbacks, *([TrainingBar(ranks)] if keys.get("enable_progress_bar", True) else [])],
        "enable_progress_bar": False,
        "plugins": [AtomicCheckpoints(), _launcher(ranks)],
    }
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # tips, and which accelerators there are not
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # the averaged weights are
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message="Total length of")  # a finished run that is resumed has no steps left
    return trainer.func(**{**keys, **fixed, **ours})


def _warn_of_other_precision(precision: str) -> None:
    """Say that it is not accelerate that decides in what precision is computed, where it was told another one."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked != "no" and _PRECISIONS.get(asked, asked) != precision:
        _log.warning(
            "accelerate's --mixed_precision=%s has no effect: this run computes in %s. Give trainer.precision=%s",
            *(asked, precision, _PRECISIONS.get(asked, asked)),
        )


def _launcher(ranks: Ranks) -> Any:
    """Return where Lightning reads ranks from: not from Slurm's variables, which are there for plain python as well."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    return LightningEnvironment() if ranks.world == 1 else TorchElasticEnvironment()


def fit_or_resume(lightning: Any, module: Any, data: Any, last: Path, ranks: Ranks) -> None:
    """Train from the run's last checkpoint, or from the start where there is none.

    Args:
        lightning: made by `make_trainer`.
        module: a LightningModule.
        data: a LightningDataModule.
        last: the checkpoint.
        ranks: this process among its peers.

    Raises:
        UserError: the checkpoint is damaged.
    """
    present = last.is_file()
    if present:
        load_checkpoint(last, wanted="Delete it to start again, or put a copy there.", mmap=True)
        if ranks.is_first:
            _log.info("going on from %s", last)
    lightning.fit(module, datamodule=data, ckpt_path=last if present else None, weights_only=True)
