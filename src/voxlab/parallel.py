"""The ranks of a launch (python, torchrun, accelerate), the split of work over them, and process set-up."""

import ctypes
import itertools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from voxlab.errors import UserError

Item = TypeVar("Item")

COMMAND = "VOXLAB_COMMAND"  # environment variable: the words that the user started all this with

# Bulk work has no collective between start and end, so a rank may wait for the slowest one for days.
_PATIENCE = timedelta(days=14)
_meetings = itertools.count()  # of this process: all ranks go through the same jobs of a sweep
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together: `rank` in 0..world-1, and the torch device it drives."""

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes what all share."""
        return self.rank == 0


def launched(device: str = "auto") -> Ranks:
    """Read the launcher's environment and join the process group when there is more than one rank.

    Args:
        device: "auto" takes the local rank's GPU, else the CPU; "cpu" or "cuda:1" are taken as they are.

    Raises:
        UserError: `device` isn't there, or the launcher has started copies that don't know of each other.
    """
    import torch

    refuse_lone_copies()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    _check_device(device)
    if device == "cpu":
        _keep_large_buffers()
    if world > 1 and not torch.distributed.is_initialized():
        # Bulk work sends barriers and small Python objects, through gloo; training on GPUs sends gradients.
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
        torch.distributed.init_process_group(backend, timeout=_PATIENCE, **_meeting(rank, world))
    return Ranks(rank, world, device)


def _meeting(rank: int, world: int) -> dict[str, Any]:
    """Return where the ranks of torchrun or accelerate find each other: in the agent's store.

    Each restart and each job of a sweep has a place of its own there, for the store outlives them. What those
    before have left in it would lead to closed doors.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=_PATIENCE)
    place = f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}, meeting {next(_meetings)}"
    return {"store": PrefixStore(place, store), "rank": rank, "world_size": world}


def refuse_lone_copies() -> None:
    """Stop where srun has started this program several times: each copy would take itself for the whole run.

    Raises:
        UserError: in the first copy; the others end without a word.
    """
    copies = int(os.environ.get("SLURM_STEP_NUM_TASKS", 1))
    if copies == 1 or "RANK" in os.environ:
        return
    if os.environ.get("SLURM_PROCID", "0") != "0":
        sys.exit(UserError.exit_code)
    raise UserError(
        f"srun has started {copies} copies of this program, and each would do the whole run. Start one torchrun a "
        "node:\n  srun --ntasks-per-node=1 torchrun --nnodes=$SLURM_NNODES --nproc_per_node=<GPUs of a node> "
        "--rdzv_backend=c10d --rdzv_endpoint=<first node>:29500 main.py ...\nor, for runs of their own, "
        "python main.py -m ... hydra/launcher=submitit_slurm"
    )


def _check_device(device: str) -> None:
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise UserError(f"device={device}: choose auto, cpu, cuda or cuda:<number>.")
    count = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= count:
        raise UserError(f"device={device}: this machine has {count} CUDA devices that torch can use. Try device=auto.")


def barrier(ranks: Ranks) -> None:
    """Wait until every rank has come here."""
    if ranks.world > 1:
        import torch.distributed

        torch.distributed.barrier()


def gather(ranks: Ranks, value: Item) -> list[Item]:
    """Return every rank's (picklable) `value`, in rank order, on every rank."""
    if ranks.world == 1:
        return [value]
    import torch.distributed

    values: list[Any] = [None] * ranks.world
    torch.distributed.all_gather_object(values, value)
    return values


def shutdown(ranks: Ranks) -> None:
    """Leave the process group, if this launch has one."""
    if ranks.world > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def split_work(groups: Sequence[Sequence[Item]], rank: int, world: int) -> list[Item]:
    """Return the items that fall to `rank`, in order: whole groups first, the last few groups item by item.

    A group (a file with its work units) goes to one rank as long as there is a group for every rank; the
    `len(groups) % world` groups that remain are dealt out by item, so that no rank idles at the end.
    """
    whole = len(groups) - len(groups) % world
    own = [item for group in groups[rank:whole:world] for item in group]
    rest = [item for group in groups[whole:] for item in group]
    return own + rest[rank::world]


def side_threads(count: int, name: str = "side", cores: int = 1) -> ThreadPoolExecutor:
    """Return a pool of threads that work beside a model, each on one core unless its work needs more.

    A thread whose torch calls run in parallel starts OpenMP workers of its own. With more of them than cores, OpenMP
    puts workers to sleep after each call instead of letting them spin, and every operation of the model waits for them
    to wake up: on two cores an encoder takes 1.4 times as long.
    """
    import torch

    # The calling thread settles its own number first: setting that of a thread is the default of all new ones.
    torch.get_num_threads()
    return ThreadPoolExecutor(count, name, initializer=torch.set_num_threads, initargs=(cores,))


def _keep_large_buffers() -> None:
    """Let glibc reuse CPU buffers of up to 32 MB instead of mapping fresh, zeroed pages for every activation.

    Page faults otherwise take up to 45 % of the time of a decoder. No effect outside Linux with glibc.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest value that glibc takes
        libc.mallopt(_M_TRIM_THRESHOLD, 512 << 20)
