"""main.py in processes of its own, forked from one that has imported the heavy packages: each starts at once.

Only the imports are shared. What starting Python itself does (launchers, typos before torch) is tested with plain
processes, in test_cli, test_run and test_launch.
"""

import contextlib
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

MAIN = Path(__file__).resolve().parents[1] / "main.py"
HEAVY = ["lightning.pytorch", "transformers", "torchaudio", "torchmetrics", "hydra.utils", "soundfile", "scipy.signal"]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def _run(
    script: str, words: Sequence[str], folder: str, environment: Mapping[str, str], outputs: Sequence[str]
) -> None:
    # Readers of data start as from a plain Python on Linux; the method handed on to here would import torch in each.
    multiprocessing.set_start_method("fork", force=True)
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")


def start(
    words: Sequence[Any],
    folder: Path,
    *,
    script: Path = MAIN,
    outputs: Sequence[str | Path] = (os.devnull, os.devnull),
    **environment: str,
) -> ForkServerProcess:
    """Start main.py in a session of its own.

    Args:
        words: of the command line.
        folder: to start in.
        script: another one than main.py.
        outputs: files that stdout and stderr are added to.
        environment: changes.
    """
    changed = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    process = _context().Process(
        target=_run, args=(str(script), [str(w) for w in words], str(folder), changed, [str(path) for path in outputs])
    )
    process.start()
    return process


def run(
    words: Sequence[Any],
    folder: Path,
    *,
    world: int = 1,
    script: Path = MAIN,
    timeout: float = 300,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run main.py to its end, on `world` ranks with what torchrun would tell them; the output of all is text.

    Other arguments as for `start`; the exit code is that of the first rank that failed.
    """
    with tempfile.TemporaryDirectory() as place, _ranks(world) as told:
        outputs = [Path(place) / name for name in ("stdout", "stderr")]
        for path in outputs:
            path.touch()
        ranks = [
            start(words, folder, script=script, outputs=outputs, **{**told[n], **environment}) for n in range(world)
        ]
        until = time.monotonic() + timeout
        for process in ranks:
            process.join(max(0.0, until - time.monotonic()))
        late = [process for process in ranks if process.exitcode is None]
        for process in late:
            kill(process)
        texts = [path.read_text(encoding="utf-8") for path in outputs]
    codes = [process.exitcode for process in ranks]
    assert not late, f"not done after {timeout} s: {words}\n{texts[1][-3000:]}"
    return subprocess.CompletedProcess(list(words), next((code for code in codes if code), 0), *texts)


@contextlib.contextmanager
def _ranks(world: int) -> Iterator[list[dict[str, str]]]:
    """The environment of each rank, and the store at which they meet."""
    if world == 1:
        yield [{}]
        return
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_WORLD_SIZE": "1", "GROUP_RANK": "0"},
        **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"},
    }
    yield [{**common, "RANK": str(number), "LOCAL_RANK": str(number)} for number in range(world)]
    del store


def spawn(function: Callable[..., None], arguments: tuple[Any, ...], world: int) -> None:
    """Call function(rank, *arguments) in `world` processes, as torch.multiprocessing.spawn, and as quick as `start`."""
    from torch.multiprocessing.spawn import start_processes

    _context()
    start_processes(function, arguments, nprocs=world, start_method="forkserver")


def kill(process: ForkServerProcess) -> None:
    """SIGKILL a started main.py with all that it has started."""
    assert process.pid is not None
    os.killpg(process.pid, signal.SIGKILL)
    process.join()


def kill_when(process: ForkServerProcess, ready: Callable[[], bool], timeout: float = 150) -> None:
    """SIGKILL a started main.py as soon as `ready`; it must be running still."""
    until = time.monotonic() + timeout
    while time.monotonic() < until and process.is_alive() and not ready():
        time.sleep(0.02)
    assert process.is_alive(), "it ended before it could be killed"
    kill(process)
    assert process.exitcode == -signal.SIGKILL


def random_step(low: int, high: int) -> int:
    """Draw a step to be killed at; pytest shows it where the test fails."""
    step = random.randint(low, high)
    print(f"killed at step {step} of {low} to {high}")
    return step
