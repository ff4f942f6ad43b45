"""stage=export of `train_tokenizer`: the codec folder of a trained network, from any of its files."""

import logging
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.graphs import export_graphs
from voxlab.parallel import Ranks, barrier

log = logging.getLogger(__name__)


def export(*, codec: Any, out: str | None, seed: int, dry_run: bool, ranks: Ranks, run_dir: Path) -> dict[str, Any]:
    """Write the codec folder of `codec.weights` to `out`, and its graphs for programs without voxlab.

    Arguments as in `train_tokenizer`. Files: codec.json and codec.safetensors, and from torch.export encode.pt2 and
    decode.pt2, or vocoder.pt2.

    Raises:
        UserError: the codec was not trained by this task.
    """
    weights = getattr(codec, "weights", None)
    if not hasattr(codec, "architecture") or weights is None:
        raise UserError(
            "stage=export writes what task=train_tokenizer has trained: set codec=rvq codec.weights=<run folder or "
            "checkpoint>."
        )
    network, architecture, facts = files.load(weights)
    folder = Path(out) if out is not None else run_dir / files.SUBFOLDER
    if ranks.is_first and not dry_run:
        files.export(network, architecture, folder, facts)
        written = export_graphs(network, architecture, folder)
        log.info("codec: %s; graphs: %s", folder, ", ".join(path.name for path in written))
    barrier(ranks)
    return {"codec": str(folder), **files.rates(architecture), **{k: v for k, v in facts.items() if k != "data"}}
