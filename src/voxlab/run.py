"""One run: seed, run folder, provenance, loggers, the task itself, and how it ends. The only caller of instantiate."""

import contextlib
import inspect
import logging
import os
import random
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from voxlab import config, failures, loggers, messages, parallel, provenance, rerun, sample_copy
from voxlab.errors import UserError
from voxlab.parallel import Ranks
from voxlab.storage import atomic_write_json, differences, flatten
from voxlab.tasks.sweeps import describe_pages

log = logging.getLogger(__name__)

# May differ between a run and its resumption: who looks on, and what the launcher decides.
_FREE_KEYS = (
    *("resume", "rerun", "objective", "name", "tags", "logger", "fit.num_workers", "fit.read_ahead"),
    *("trainer.devices", "trainer.num_nodes", "trainer.enable_progress_bar"),
)


_AT_ONCE = 60.0  # seconds: a run that works for longer keeps its record however it ends


def execute(settings: DictConfig) -> Any:
    """Run the task that `settings` describe; returns its summary, or the one figure that `objective` names.

    Raises:
        JobError: a job of a sweep failed and has said why. Outside sweeps, the process ends with its exit code.
    """
    started = time.monotonic()
    try:
        return _execute(settings)
    except Exception as error:
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        if _is_sweep():
            raise failures.of_a_job(error, run_dir) from error
        if time.monotonic() - started < _AT_ONCE and not _is_kept(settings):
            failures.discard(error, run_dir)
        config.stop(error)  # here already: Hydra would print a line about the overrides


def _execute(settings: DictConfig) -> Any:
    settle(settings)
    if settings.rerun is not None:
        restore(settings)
    ranks = parallel.launched(settings.device)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        if settings.dry_run:
            return _plan(settings, ranks, run_dir)
        summary = _recorded_run(settings, ranks, run_dir)
        return _objective(summary, settings.objective, ranks) if settings.objective else summary
    finally:
        parallel.shutdown(ranks)


def _is_kept(settings: DictConfig) -> bool:
    """Tell whether a folder stays in any case: it has a name of its own, or tells what may stand in `out`."""
    named = any(word.startswith("hydra.run.dir=") for word in HydraConfig.get().overrides.hydra)
    out = OmegaConf.select(settings, "out", throw_on_resolution_failure=False)
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1  # others may be writing there
    return named or bool(settings.resume or settings.dry_run) or not alone or bool(out and Path(out).exists())


def _plan(settings: DictConfig, ranks: Ranks, run_dir: Path) -> Any:
    """Let the task plan; where it would write a sample corpus first, from a copy that is gone afterwards."""
    plain = resolved(settings)  # before the root changes: what the task says is to be typed has the user's
    data = plain.get("data") or {}
    is_read = data.get("source") == "sample" and "root" in data and plain["stage"] != "clean"  # which writes none
    if not is_read or sample_copy.sample_folder(data["root"]).is_dir():
        return build(settings.task)(ranks=ranks, run_dir=run_dir)

    def write(root: str) -> None:
        build(OmegaConf.create({**data, "root": root})).prepare()

    with _terminable(ranks), sample_copy.copied(data["root"], write, tells=ranks.is_first) as root:
        task = {key: {**data, "root": root} if value == data else value for key, value in plain["task"].items()}
        return build(OmegaConf.create(task))(ranks=ranks, run_dir=run_dir)


def settle(settings: DictConfig) -> None:
    """Make nodes null whose option is `none`, whatever keys a recipe has set for the option it expected."""
    for group, option in HydraConfig.get().runtime.choices.items():
        if option == "none" and not str(group).startswith("hydra/"):
            settings[str(group).rpartition("@")[2]] = None


def restore(settings: DictConfig) -> None:
    """Give every key the value of the run that is repeated, but what is set now and what follows from other keys.

    Interpolations are left alone: what a run computed from other keys and from its launcher is computed anew.

    Raises:
        UserError: that run has keys or values that are none now, or this run would write into its folder.
    """
    folder, hydra = Path(settings.rerun), HydraConfig.get()
    if Path(hydra.runtime.output_dir).resolve() == folder.resolve():
        raise UserError(f"rerun={folder} repeats a run in a new folder. To go on in its own, write resume={folder}")
    fixed = rerun.keys_given(list(hydra.overrides.task)) | set(rerun.OF_A_LAUNCH)
    wrong = _restore(settings, rerun.read_config(folder), fixed, "")
    if wrong:
        raise rerun.unfit(folder, wrong)


def _restore(node: DictConfig, earlier: Mapping[str, Any], fixed: set[str], prefix: str) -> list[str]:
    """Set the values below `node`; returns the keys that don't fit."""
    wrong = []
    for key, value in earlier.items():
        name = f"{prefix}{key}"
        if name in fixed or (key in node.keys() and OmegaConf.is_interpolation(node, key)):  # noqa: SIM118
            continue
        if isinstance(value, dict) and key in node and isinstance(node[key], DictConfig):
            wrong += _restore(node[key], value, fixed, f"{name}.")
            continue
        try:
            node[key] = value
        except OmegaConfBaseException:
            wrong.append(f"{name}={value}")
    return wrong


def _compare_with_earlier(settings: DictConfig, plain: dict[str, Any], run_dir: Path) -> list[str]:
    """Say what differs from the run that is repeated, before this one starts; returns it."""
    earlier = Path(settings.rerun)
    changed = rerun.changes(earlier, run_dir, _FREE_KEYS)
    if changed:
        log.warning("this run differs from %s:\n  %s", earlier, "\n  ".join(changed))
    else:
        log.info("code, packages, machine and settings are those of %s", earlier)
    out = plain.get("out")
    if out and out == rerun.read_config(earlier).get("out") and Path(out).exists():
        log.warning("%s is there: what it holds is not made again. To make all of it anew, add out=<new folder>.", out)
    return changed


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
            words = shlex.split(os.environ.get(parallel.COMMAND, ""))[1:]
            raise UserError(messages.explain_build(causes, words)) from error
        raise


def _recorded_run(settings: DictConfig, ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    plain = resolved(settings)
    _refuse_other_run(run_dir, plain)
    if _is_sweep() and _is_done(run_dir):
        log.info("job %s is done already: %s", run_dir.name, run_dir)
        return provenance.read_summary(run_dir)
    if ranks.is_first:
        texts = {"config.yaml": OmegaConf.to_yaml(plain), **_composition(settings)}
        provenance.write_all(run_dir, config.ROOT, texts, ranks, settings.seed)
    with _recorded(run_dir, ranks):
        changed = _compare_with_earlier(settings, plain, run_dir) if ranks.is_first and settings.rerun else []
        seed_all(settings.seed)
        with loggers.opened(_loggers(settings, plain, ranks, run_dir), run_dir) as chosen:
            task = build(settings.task)
            curves = {"loggers": chosen} if "loggers" in inspect.signature(task).parameters else {}
            summary = task(ranks=ranks, run_dir=run_dir, **curves)
            loggers.log_results(chosen, plain, summary, run_dir)
        if ranks.is_first:
            atomic_write_json(run_dir / "metrics.json", summary)
            if settings.rerun:
                rerun.verdict(Path(settings.rerun), run_dir, changed)
            page = run_dir / "report.html"
            log.info("done: %s", page if page.is_file() else run_dir)
        parallel.barrier(ranks)
    return summary


def _objective(summary: Mapping[str, Any], name: str, ranks: Ranks) -> float:
    """Return one figure of rank 0's summary, on every rank, so that their sweepers agree on what comes next.

    Raises:
        UserError: there is no such figure.
    """
    numbers = {key: value for key, value in flatten(summary).items() if isinstance(value, int | float)}
    first = parallel.gather(ranks, numbers)[0]
    if name not in first:
        raise UserError(messages.no_figure(name, list(first)))
    return float(first[name])


def resolved(settings: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain values; keys without a value (groups not chosen) are left out."""
    chosen = [str(key) for key in settings if not OmegaConf.is_missing(settings, key)]
    part = OmegaConf.masked_copy(settings, chosen)
    plain = OmegaConf.to_container(part, resolve=True, enum_to_str=True)
    return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _composition(settings: DictConfig) -> dict[str, str]:
    """Return the files of .hydra: Hydra itself would write them before it is known that the folder is this run's."""
    hydra = HydraConfig.get()
    words = OmegaConf.to_yaml(hydra.overrides.task)
    nodes = {"config.yaml": settings, "hydra.yaml": OmegaConf.create({"hydra": hydra})}
    return {f".hydra/{name}": OmegaConf.to_yaml(node) for name, node in nodes.items()} | {
        ".hydra/overrides.yaml": words
    }


def _refuse_other_run(run_dir: Path, plain: dict[str, Any]) -> None:
    """Stop when the folder holds a run of another task, or one of other settings that is done or can be gone on with.

    Raises:
        UserError: lists every difference.
    """
    path = run_dir / "config.yaml"
    if not path.is_file():
        return
    earlier: Any = OmegaConf.to_container(OmegaConf.load(path))
    same_task = earlier["task"]["_target_"] == plain["task"]["_target_"]
    if same_task and not (_is_done(run_dir) or any(run_dir.glob("checkpoints/*.ckpt"))):
        return
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
    parallel.barrier(ranks)  # no rank fails before the first has written that the run has begun
    log.info("run folder: %s", run_dir)
    try:
        with _terminable(ranks):
            yield
        status.finish("done")
    except (KeyboardInterrupt, SystemExit) as error:
        status.finish("interrupted")
        if any(isinstance(each, KeyboardInterrupt) for each in (error, error.__context__)):  # Lightning: SystemExit(1)
            raise KeyboardInterrupt(messages.to_go_on(run_dir, sweep=_is_sweep())) from error
        raise
    except Exception as error:
        raise failures.report(error, status, sweep=_is_sweep()) from error
    finally:
        if _is_sweep() and ranks.is_first:
            _renew_sweep(run_dir.parent)
            log.info("the sweep so far: %s", describe_pages(run_dir.parent))


def _renew_sweep(folder: Path) -> None:
    """Write the table and the page of a sweep; a job that is done stays done where that can't be."""
    from voxlab.tasks.compare.sweep import write_sweep_page

    for name, write in (("sweep.csv", provenance.write_sweep_index), ("report.html", write_sweep_page)):
        try:
            write(folder)
        except (OSError, UserError) as error:
            log.warning("%s is as it was: %s", folder / name, error)


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


def _loggers(settings: DictConfig, plain: dict[str, Any], ranks: Ranks, run_dir: Path) -> loggers.Loggers:
    """Return the chosen loggers, not opened yet; ranks other than the first have none."""

    def open_all() -> dict[str, Any]:
        makers = build(settings.logger) if ranks.is_first and settings.logger else {}
        return loggers.open_loggers(makers, launch, plain)

    hydra = HydraConfig.get()
    launch = loggers.Launch(
        run_dir=run_dir,
        choices={str(key): value for key, value in hydra.runtime.choices.items()},
        words=list(hydra.overrides.task),
        sweep=_is_sweep(),
        name=settings.name,
        tags=list(settings.tags),
    )
    return loggers.Loggers(open_all)
