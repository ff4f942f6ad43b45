"""stage=export of a motion tokenizer: its codec folder, and net.pth where the earlier projects could read it."""

import logging
from pathlib import Path
from typing import Any

from voxlab.errors import UserError
from voxlab.models.gesture.motion_checkpoint import write_legacy
from voxlab.models.gesture.motion_codec import RECORD, MotionCodec, is_codec
from voxlab.models.tokenizer import files
from voxlab.parallel import Ranks, barrier

log = logging.getLogger(__name__)


def export(
    *, codec: MotionCodec, weights: str, out: str | None, dry_run: bool, ranks: Ranks, run_dir: Path
) -> dict[str, Any]:
    """Write the codec folder of `codec` to `out` (None: the run folder), and net_<part>.pth beside its files.

    Args:
        codec: to be written.
        weights: where it came from.
        out: folder.
        dry_run: write nothing.
        ranks: this process among its peers.
        run_dir: folder of this run.

    Raises:
        UserError: the folder holds the codec of another part, or of sound.
    """
    folder = Path(out) if out is not None else run_dir / files.SUBFOLDER
    _check_free(folder, codec)
    architecture = codec.network.architecture
    summary: dict[str, Any] = {"codec": str(folder), "part": codec.part.name, "weights_id": codec.weights_id}
    if ranks.is_first and not dry_run:
        is_described = is_codec(Path(weights)) and not weights.endswith(".pth")
        facts = files.describe(weights).facts if is_described else {"weights": weights}
        files.export(codec.network, architecture, folder, {**facts, RECORD: dict(codec.record)})
        if set(architecture.strides) == {2}:
            summary["net"] = str(write_legacy(codec.network, folder / f"net_{codec.part.name}.pth"))
        log.info("codec: %s", folder)
    barrier(ranks)
    return summary


def _check_free(folder: Path, codec: MotionCodec) -> None:
    if not (folder / files.DESCRIPTION).is_file():
        return
    held = files.describe(folder)
    part = held.facts.get(RECORD, {}).get("part")
    if part != codec.part.name:
        found = f"the codec of part={part}" if part else f"a {held.architecture.family} codec of sound"
        raise UserError(
            f"out={folder} holds {found}, which that of part={codec.part.name} would replace. Choose a folder for each "
            f"part, for example out={folder.parent / codec.part.name}."
        )
