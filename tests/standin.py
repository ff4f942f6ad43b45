"""A task for tests of the command line: `task._target_=tests.standin.work`."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from voxlab.errors import UserError
from voxlab.parallel import Ranks, gather


def work(*, ranks: Ranks, run_dir: Path, seed: int, **settings: Any) -> dict[str, Any]:
    """Return the seed; misbehave as the environment variable STANDIN says."""
    assert type(settings["input"]) is str  # plain values reach a task, no enum members
    action, _, seed_of_action = os.environ.get("STANDIN", "").partition("@")
    if not seed_of_action or int(seed_of_action) == seed:
        _act(action, ranks, run_dir)
    if action == "media" and ranks.is_first:
        _draw(run_dir)
    return {"seed": seed, "world": len(gather(ranks, ranks.rank)), "folder": str(run_dir)}


def _act(action: str, ranks: Ranks, run_dir: Path) -> None:
    if action == "bug":
        raise RuntimeError("a bug in the stand-in")
    if action == "late":
        _draw(run_dir)
    if action in ("user", "late"):
        raise UserError("data.root=nowhere does not exist; set data.root=DIR")
    if action == "rank1" and ranks.rank == 1:
        raise RuntimeError("only rank 1 fails")
    if action == "rank1_once" and ranks.rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        raise RuntimeError("rank 1 fails in the first attempt")
    if action == "sleep":
        print("sleeping", flush=True)
        time.sleep(60)


def _draw(run_dir: Path) -> None:
    """Leave a plot, a clip and a film, and a clip that a task has handed over itself."""
    for folder in ("plots", "clips", "samples"):
        (run_dir / folder).mkdir()
    Image.new("RGB", (30, 20)).save(run_dir / "plots" / "curve.png")
    for folder in ("clips", "samples"):
        soundfile.write(run_dir / folder / "tone.wav", np.zeros((800, 2)), 8000)
    pictures = [Image.new("RGB", (96, 72), (40 * number, 0, 0)) for number in range(7)]
    pictures[0].save(run_dir / "film.gif", save_all=True, append_images=pictures[1:])
