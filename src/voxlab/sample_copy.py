"""What a dry run plans from where data.source=sample would write its corpus first: a copy in a temporary folder."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from voxlab.errors import UserError

log = logging.getLogger(__name__)


def sample_folder(root: str) -> Path:
    """Return where the sample of a corpus belongs: beside its root."""
    return Path(root).with_name(f"{Path(root).name}-sample")


def find_unwritten(corpus: object) -> Path | None:
    """Return where the sample of a corpus belongs if it is read from there and not written yet, else None."""
    root = getattr(corpus, "root", None)
    if getattr(corpus, "source", None) != "sample" or root is None:
        return None
    folder = sample_folder(root)
    return None if folder.is_dir() else folder


@contextlib.contextmanager
def copied(root: str, write: Callable[[str], None], *, tells: bool) -> Iterator[str]:
    """Write the sample corpus to a temporary folder that is gone after the block; yields the root to read it with.

    In the block, log lines and `UserError`s that name the copy come to name the place of the sample instead.

    Args:
        root: data.root, beside which a run writes the sample.
        write: writes the sample of the root that it is given.
        tells: whether to log what a run would write.
    """
    with tempfile.TemporaryDirectory(prefix="voxlab-") as place:
        own = Path(place) / Path(root).name
        with _silent(logging.getLogger("voxlab.data")):  # it would name the copy, which is gone when the user looks
            write(str(own))
        sizes = [path.stat().st_size for path in sample_folder(str(own)).rglob("*") if path.is_file()]
        if tells:
            told = (sample_folder(root), len(sizes), "s" * (len(sizes) != 1), sum(sizes) / 1e6)
            log.info("sample corpus: would be written to %s (%d file%s, %.3g MB); planned from a temporary copy", *told)
        with _named(place, str(Path(root).parent)):
            yield str(own)


@contextlib.contextmanager
def _named(copy: str, place: str) -> Iterator[None]:
    """Name the place of the sample while the block runs, where log lines and user errors name that of the copy."""

    def rename(record: logging.LogRecord) -> bool:
        try:
            text = record.getMessage()
        except Exception:  # words and arguments don't fit: the handler, which comes next, tells of it as always
            return True
        record.msg, record.args = text.replace(copy, place), ()
        return True

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(rename)
    try:
        yield
    except UserError as error:
        error.args = tuple(part.replace(copy, place) if isinstance(part, str) else part for part in error.args)
        raise
    finally:
        for handler in handlers:
            handler.removeFilter(rename)


@contextlib.contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """Log warnings only while the block runs."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
