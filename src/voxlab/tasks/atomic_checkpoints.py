"""Lightning's checkpoint files, never partial."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from voxlab.storage import atomic_path


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoint files that are complete or absent, even where the process is killed."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one file."""
        with atomic_path(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
