"""What a run leaves behind about itself: command, code, packages, machine, and its status while and after it works.

Rank 0 writes; everything is plain text or JSON in the run folder.
"""

import csv
import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import COMMAND, Ranks
from voxlab.storage import (
    atomic_write_bytes,
    atomic_write_json,
    flatten,
    read_object,
    read_status,
    write_settled,
)

_PATIENCE = 5.0  # seconds, for a rank that has failed to say so


def write_all(run_dir: Path, root: Path, texts: Mapping[str, str], ranks: Ranks, seed: int) -> None:
    """Write the artefacts that describe a run, before its work starts.

    Args:
        run_dir: the run folder.
        root: the source checkout whose git state is recorded.
        texts: file -> what else describes the run: its configuration.
        ranks: this process among its peers.
        seed: seed of the run.
    """
    ours = {"command.txt": command() + "\n", "packages.txt": packages(), **git_state(root)}
    for name, text in {**texts, **ours}.items():
        atomic_write_bytes(run_dir / name, text.encode())
    atomic_write_json(run_dir / "env.json", environment(ranks, seed))
    (run_dir / "error.txt").unlink(missing_ok=True)
    _keep_overrides(run_dir / ".hydra")


def _keep_overrides(folder: Path) -> None:
    """Copy overrides.yaml to overrides.<launch>.yaml: the next launch into this folder overwrites it."""
    launch = len(list(folder.glob("overrides.*.yaml"))) + 1
    shutil.copyfile(folder / "overrides.yaml", folder / f"overrides.{launch}.yaml")


def command() -> str:
    """Return the shell line that started this run, its launcher included."""
    script, *words = shlex.split(os.environ.get(COMMAND, "")) or sys.argv
    installed = Path(script).name in ("voxlab", "__main__.py")
    line = shlex.join(["-m", "voxlab", *words] if installed else [script, *words])
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return f"python {line}"
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    if "ACCELERATE_MIXED_PRECISION" in os.environ:
        launcher = f"accelerate launch --multi_gpu --num_processes={os.environ['WORLD_SIZE']}"
        return f"{launcher} {f'--num_machines={nodes} ' if nodes > 1 else ''}{line}"
    launcher = f"torchrun --nproc_per_node={os.environ.get('LOCAL_WORLD_SIZE', 1)}"
    return f"{launcher} {f'--nnodes={nodes} ' if nodes > 1 else ''}{line}"


def packages() -> str:
    """Return the installed packages as `name==version` lines."""
    described = [dist.metadata for dist in metadata.distributions()]  # each look parses a file of many pages again
    found = {about["Name"]: about["Version"] for about in described if about["Name"]}
    return "".join(f"{name}=={found[name]}\n" for name in sorted(found, key=str.lower))


def git_state(root: Path) -> dict[str, str]:
    """Return the texts of git.txt (commit, branch, clean or not) and git.diff (tracked changes)."""
    if not (root / ".git").exists():
        return {"git.txt": "not a git checkout\n", "git.diff": ""}
    commit, branch = _git(root, "rev-parse", "HEAD"), _git(root, "branch", "--show-current")
    changed = _git(root, "status", "--porcelain")
    text = f"commit {commit.strip() or 'none'}\nbranch {branch.strip() or 'detached'}\ndirty {bool(changed)}\n{changed}"
    return {"git.txt": text, "git.diff": _git(root, "diff", "HEAD")}


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # a container with the source but without git
        return ""
    return done.stdout if done.returncode == 0 else ""


def environment(ranks: Ranks, seed: int) -> dict[str, Any]:
    """Return what the machine is and how the run uses it."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "device": ranks.device,
        "world": ranks.world,
        "seed": seed,
    }


class Status:
    """status.json of a run: running, then done, failed or interrupted; with times and the error.

    Args:
        run_dir: the run folder.
        ranks: this process among its peers; rank 0 reports, and any rank that fails.
    """

    def __init__(self, run_dir: Path, ranks: Ranks) -> None:
        self.path, self.ranks = run_dir / "status.json", ranks
        self.started, self._clock = _now(), time.monotonic()
        if ranks.is_first:
            atomic_write_json(self.path, {"state": "running", "started": self.started})

    def finish(self, state: str, error: str | None = None) -> None:
        """Write how the run ended."""
        if not self.ranks.is_first and state != "failed":
            return
        seconds = round(time.monotonic() - self._clock, 3)
        times = {"started": self.started, "finished": _now(), "seconds": seconds}
        atomic_write_json(self.path, {"state": state, **times, "error": error, "rank": self.ranks.rank})

    def claim_error(self, text: str) -> bool:
        """Write error.txt unless another rank has; returns whether this rank is the one that tells the user.

        The first rank, where it is not that one, waits a little for the status that the other is about to write: what
        it tells of a sweep next is read from there.
        """
        try:
            with (self.path.parent / "error.txt").open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            deadline = time.monotonic() + _PATIENCE
            while self.ranks.is_first and time.monotonic() < deadline and self._is_running():
                time.sleep(0.02)
            return False
        return True

    def _is_running(self) -> bool:
        return read_status(self.path).get("state") == "running"


def read_summary(run_dir: Path) -> dict[str, Any]:
    """Return the figures of a run that is done.

    Raises:
        UserError: metrics.json is missing or damaged.
    """
    path = run_dir / "metrics.json"
    try:
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        return read_object(path)
    except UserError as error:
        raise UserError(
            f"{error}\n{run_dir.name} is done according to its status.json, but these figures can't be read. To have "
            f"it done again, delete its folder and type the same command: rm -r {shlex.quote(str(run_dir))}"
        ) from error


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def write_sweep_index(sweep_dir: Path) -> None:
    """Write sweep.csv from the folders of the jobs: overrides, state, seconds, error and metrics of each."""
    write_settled(lambda: _sweep_table(sweep_dir), partial(atomic_write_bytes, sweep_dir / "sweep.csv"))


def _sweep_table(sweep_dir: Path) -> bytes:
    rows = [_job_row(path.parent) for path in sweep_dir.glob("*/status.json")]
    rows.sort(key=lambda row: (len(row["job"]), row["job"]))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _job_row(job_dir: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"job": job_dir.name, "overrides": _overrides(job_dir / ".hydra" / "overrides.yaml")}
    try:
        status = read_status(job_dir / "status.json")
        metrics = read_object(job_dir / "metrics.json") if status.get("state") == "done" else {}
    except UserError as error:
        reason = str(error).removeprefix(f"{job_dir}/").partition("\n")[0]
        return {**row, "state": "unreadable", "seconds": None, "error": reason}
    row |= {"state": status.get("state"), "seconds": status.get("seconds")}
    return {**row, "error": (status.get("error") or "").partition("\n")[0], **flatten(metrics)}


def _overrides(path: Path) -> str:
    text = path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""
    return " ".join(line[2:] for line in text.splitlines())
