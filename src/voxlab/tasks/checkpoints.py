"""Checkpoints of a run that is trained by epochs: where they lie, how they are kept, found and read."""

import shutil
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint
from voxlab.parallel import Ranks
from voxlab.storage import atomic_path

CHECKPOINTS, LAST, BEST = "checkpoints", "last.ckpt", "best.ckpt"
_NEXT = "next.ckpt"  # becomes last.ckpt


def keep(trainer: Any, run_dir: Path, ranks: Ranks, *, is_best: bool) -> None:
    """Save the state as last.ckpt, and as best.ckpt too if it is the best so far; collective.

    Args:
        trainer: Lightning's.
        run_dir: of the run.
        ranks: this process among its peers.
        is_best: of all validations.
    """
    folder = run_dir / CHECKPOINTS
    # Renamed after all that hangs on it is written: a run killed meanwhile goes on from the one before.
    trainer.save_checkpoint(folder / _NEXT, weights_only=False)
    if not ranks.is_first:
        return
    if is_best:
        with atomic_path(folder / BEST) as temporary:
            shutil.copyfile(folder / _NEXT, temporary)
    (folder / _NEXT).replace(folder / LAST)


def find_checkpoint(path: Path, task: str) -> Path:
    """Return the checkpoint that `ckpt` names: a file, or the best one of a run folder.

    Raises:
        UserError: there is none.
    """
    for candidate in (path, path / CHECKPOINTS / BEST, path / BEST):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"ckpt={path}: no checkpoint is there. Give the run folder of a finished task={task}, or one of the files in "
        f"its {CHECKPOINTS}/."
    )


def read_checkpoint(path: Path, task: str) -> dict[str, Any]:
    """Read a checkpoint of one task.

    Raises:
        UserError: the file is damaged, or of another program or task.
    """
    checkpoint: Any = load_checkpoint(path, key="ckpt")
    made = checkpoint.get("voxlab") if isinstance(checkpoint, dict) else None
    if not isinstance(made, dict) or made.get("task") != task:
        owner = f"task={made.get('task')}" if isinstance(made, dict) else "another program"
        raise UserError(f"ckpt={path} is a checkpoint of {owner}; task={task} needs one of its own.")
    return checkpoint
