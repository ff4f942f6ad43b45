"""Batches of any kind, read by a thread while the step before is computed."""

from collections import deque
from collections.abc import Iterator
from typing import TypeVar

from voxlab.parallel import side_threads

Batch = TypeVar("Batch")


def ahead(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """Yield batches in their order, without end, while a thread reads the next `count`."""
    pool = side_threads(1, "reader")
    try:
        waiting = deque(pool.submit(next, batches) for _ in range(count))
        while True:
            waiting.append(pool.submit(next, batches))
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
