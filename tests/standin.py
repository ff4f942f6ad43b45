"""A task for tests of the command line: `task._target_=tests.standin.work`."""

import os
import time
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.parallel import Ranks, gather


def work(*, ranks: Ranks, run_dir: Path, seed: int, **settings: Any) -> dict[str, Any]:
    """Return the seed; misbehave as the environment variable STANDIN says."""
    assert type(settings["input"]) is str  # plain values reach a task, no enum members
    action, _, seed_of_action = os.environ.get("STANDIN", "").partition("@")
    if not seed_of_action or int(seed_of_action) == seed:
        _act(action, ranks)
    return {"seed": seed, "world": len(gather(ranks, ranks.rank)), "folder": str(run_dir)}


def _act(action: str, ranks: Ranks) -> None:
    if action == "bug":
        raise RuntimeError("a bug in the stand-in")
    if action == "user":
        raise UserError("data.root=nowhere does not exist; set data.root=DIR")
    if action == "rank1" and ranks.rank == 1:
        raise RuntimeError("only rank 1 fails")
    if action == "sleep":
        print("sleeping", flush=True)
        time.sleep(60)
