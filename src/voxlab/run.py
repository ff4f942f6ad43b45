"""One run: seed, run folder, provenance, loggers, the task itself, and how it ends. The only caller of instantiate."""

import contextlib
import inspect
import logging
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from voxlab import config, messages, parallel, provenance
from voxlab.errors import UserError
from voxlab.parallel import Ranks
from voxlab.storage import atomic_write_json, differences

log = logging.getLogger(__name__)

# May differ between a run and its resumption: who looks on, and what the launcher decides.
_FREE_KEYS = (
    *("resume", "name", "tags", "logger", "fit.num_workers", "fit.read_ahead"),
    *("trainer.devices", "trainer.num_nodes", "trainer.enable_progress_bar"),
)


def execute(settings: DictConfig) -> dict[str, Any]:
    """Run the task that `settings` describe and return its summary.

    Raises:
        JobError: a job of a sweep failed and has said why. Outside sweeps, the process ends with its exit code.
    """
    try:
        return _execute(settings)
    except Exception as error:
        if _is_sweep():
            raise
        config.stop(error)  # here already: Hydra would print a line about the overrides


def _execute(settings: DictConfig) -> dict[str, Any]:
    settle(settings)
    ranks = parallel.launched(settings.device)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        if settings.dry_run:
            return build(settings.task)(ranks=ranks, run_dir=run_dir)
        return _recorded_run(settings, ranks, run_dir)
    finally:
        parallel.shutdown(ranks)


def settle(settings: DictConfig) -> None:
    """Make nodes null whose option is `none`, whatever keys a recipe has set for the option it expected."""
    for group, option in HydraConfig.get().runtime.choices.items():
        if option == "none" and not str(group).startswith("hydra/"):
            settings[str(group).rpartition("@")[2]] = None


def build(node: DictConfig) -> Any:
    """Instantiate a node and all below it, with plain Python values as arguments.

    Raises:
        UserError: an argument is wrong, or a package that it needs is missing.
    """
    plain = OmegaConf.to_container(node, resolve=True, enum_to_str=True)
    try:
        return instantiate(plain, _convert_="all")
    except InstantiationException as error:
        causes = list(messages.chain(error))
        if any(isinstance(cause, UserError | ImportError) for cause in causes) or "argument" in str(error):
            raise UserError(messages.explain_build(causes)) from error
        raise


def _recorded_run(settings: DictConfig, ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    plain = resolved(settings)
    _refuse_other_run(run_dir, plain)
    if _is_sweep() and _is_done(run_dir):
        log.info("job %s is done already: %s", run_dir.name, run_dir)
        return {}
    if ranks.is_first:
        provenance.write_all(run_dir, config.ROOT, OmegaConf.to_yaml(plain), ranks, settings.seed)
    parallel.barrier(ranks)
    with _recorded(run_dir, ranks):
        seed_all(settings.seed)
        with _loggers(settings, plain, ranks, run_dir) as loggers:
            task = build(settings.task)
            curves = {"loggers": loggers} if "loggers" in inspect.signature(task).parameters else {}
            summary = task(ranks=ranks, run_dir=run_dir, **curves)
            _log_summary(loggers, plain, summary)
        if ranks.is_first:
            atomic_write_json(run_dir / "metrics.json", summary)
        parallel.barrier(ranks)
    return summary


def resolved(settings: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain values; keys without a value (groups not chosen) are left out."""
    chosen = [str(key) for key in settings if not OmegaConf.is_missing(settings, key)]
    part = OmegaConf.masked_copy(settings, chosen)
    plain = OmegaConf.to_container(part, resolve=True, enum_to_str=True)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _refuse_other_run(run_dir: Path, plain: dict[str, Any]) -> None:
    """Stop when the folder holds a run of another configuration that is done or can be gone on with.

    Raises:
        UserError: lists every difference.
    """
    path = run_dir / "config.yaml"
    if not path.is_file() or not (_is_done(run_dir) or any(run_dir.glob("checkpoints/*.ckpt"))):
        return
    earlier: Any = OmegaConf.to_container(OmegaConf.load(path))
    lines = differences(earlier, plain)
    changed = [line for line in lines if not line.removeprefix("task.").startswith(_FREE_KEYS)]
    changed = [line for line in changed if not line.startswith("task.")] or changed  # task.seed repeats seed
    if changed:
        raise UserError(
            f"{run_dir} is a run of another configuration (then -> now):\n  "
            + "\n  ".join(changed[:10])
            + "\nTake the same settings to go on, or another folder for a new run (or delete this one)."
        )


def _is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def _is_done(run_dir: Path) -> bool:
    status = run_dir / "status.json"
    return status.is_file() and '"state": "done"' in status.read_text(encoding="utf-8")


@contextlib.contextmanager
def _recorded(run_dir: Path, ranks: Ranks) -> Iterator[None]:
    """Keep status.json and error.txt while the block runs, and tell the user once how it ended."""
    status = provenance.Status(run_dir, ranks)
    log.info("run folder: %s", run_dir)
    try:
        with _terminable(ranks):
            yield
        status.finish("done")
    except (KeyboardInterrupt, SystemExit) as error:
        status.finish("interrupted")
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning ends the process with code 1
            raise KeyboardInterrupt from error
        raise
    except Exception as error:
        raise _report(error, status) from error
    finally:
        if _is_sweep() and ranks.is_first:
            provenance.write_sweep_index(run_dir.parent)


def _report(error: Exception, status: provenance.Status) -> config.JobError:
    """Write error.txt and the log line of a failure."""
    message = config.user_message(error)
    place = f"rank {status.ranks.rank}: " if status.ranks.world > 1 else ""
    if status.claim_error("".join(traceback.format_exception(error))):
        status.finish("failed", message or f"{type(error).__name__}: {error}")
        log.error("%s%s", place, message or "stopped by a bug or a library:", exc_info=None if message else error)
    else:
        log.error("%sstopped as well (%s); the first error is in error.txt", place, type(error).__name__)
    return config.JobError(1 if _is_sweep() or message is None else getattr(error, "exit_code", 2))


@contextlib.contextmanager
def _terminable(ranks: Ranks) -> Iterator[None]:
    """End as interrupted on SIGTERM. Not with several ranks: one that waits for others could not answer the signal."""
    if ranks.world > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Loggers(Mapping[str, Any]):
    """The chosen loggers by name, opened at first use: most mistakes are found before Lightning is imported.

    Args:
        open_all: makes them.
    """

    def __init__(self, open_all: Callable[[], dict[str, Any]]) -> None:
        self._open_all = open_all
        self.opened: dict[str, Any] | None = None

    def _all(self) -> dict[str, Any]:
        if self.opened is None:
            self.opened = self._open_all()
        return self.opened

    def __getitem__(self, name: str) -> Any:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


@contextlib.contextmanager
def _loggers(settings: DictConfig, plain: dict[str, Any], ranks: Ranks, run_dir: Path) -> Iterator[Loggers]:
    """Give the task the chosen loggers and close them, in a sweep before the next job opens its own."""
    loggers = Loggers(partial(_open_loggers, settings, plain, ranks, run_dir))
    state = "failed"
    try:
        yield loggers
        state = "success"
    finally:
        opened = loggers.opened or {}
        for logger in opened.values():
            logger.finalize(state)
        if "wandb" in opened:
            _finish_wandb(run_dir, state)


def _open_loggers(settings: DictConfig, plain: dict[str, Any], ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    makers: dict[str, Callable[..., Any]] = build(settings.logger) if ranks.is_first and settings.logger else {}
    extra = {"wandb": _wandb_fields(settings, plain, run_dir)} if "wandb" in makers else {}
    logging.getLogger("lightning").handlers.clear()  # its own handler would print every line twice
    return {name: make(save_dir=str(run_dir), **extra.get(name, {})) for name, make in makers.items()}


def _wandb_fields(settings: DictConfig, plain: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """Name the W&B run after this one: resuming continues it, the jobs of a sweep form a group."""
    hydra = HydraConfig.get()
    choices = {str(key): value for key, value in hydra.runtime.choices.items()}
    changes = [item for item in hydra.overrides.task if not item.startswith(("task=", "logger", "resume="))]
    swept = _is_sweep()
    return {
        "id": f"{run_dir.parent.name}-{run_dir.name}" if swept else run_dir.name,
        "resume": "allow",
        "group": run_dir.parent.name if swept else choices.get("experiment"),
        "job_type": choices["task"],
        "name": settings.name or " ".join([str(choices["task"]), *changes]),
        "tags": [*settings.tags, *(f"{key}={choices[key]}" for key in ("data", "codec", "loss") if choices.get(key))],
        "config": plain,
    }


def _finish_wandb(run_dir: Path, state: str) -> None:
    import wandb

    wandb.finish(exit_code=0 if state == "success" else 1)
    for folder in sorted((run_dir / "wandb").glob("offline-run-*"))[-1:]:
        log.info("to upload this run: wandb sync %s", folder)


def _log_summary(loggers: Mapping[str, Any], plain: dict[str, Any], summary: dict[str, Any]) -> None:
    numbers = {key: float(value) for key, value in summary.items() if isinstance(value, int | float)}
    for logger in loggers.values():
        logger.log_hyperparams(plain)
        logger.log_metrics(numbers)
