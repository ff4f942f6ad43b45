"""What a dry run plans from where data.source=sample would write its corpus first: a copy in a temporary folder."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)


def sample_folder(root: str) -> Path:
    """Return where the sample of a corpus belongs: beside its root."""
    return Path(root).with_name(f"{Path(root).name}-sample")


@contextlib.contextmanager
def copied(root: str, write: Callable[[str], None], *, tells: bool) -> Iterator[str]:
    """Write the sample corpus to a temporary folder that is gone after the block; yields the root to read it with.

    Args:
        root: data.root, beside which a run writes the sample.
        write: writes the sample of the root that it is given.
        tells: whether to log what a run would write.
    """
    with tempfile.TemporaryDirectory(prefix="voxlab-") as place:
        own = Path(place) / Path(root).name
        write(str(own))
        sizes = [path.stat().st_size for path in sample_folder(str(own)).rglob("*") if path.is_file()]
        if tells:
            told = (sample_folder(root), len(sizes), sum(sizes) / 1e6)
            log.info("%s: a run that needs it writes it, %d files, %.3g MB; planned from a copy for now", *told)
        yield str(own)
