"""Batches of items of similar length under a budget; deterministic, so that interrupted work ends in the same bytes."""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[float], max_batch_length: float) -> list[list[int]]:
    """Group items so that every batch, padded to its longest item, stays within a budget.

    Items are sorted by (length, ordinal) and filled in greedily, so a batch holds neighbours in length and its padding
    is small. The plan depends on the lengths alone: not on ranks, resume points or earlier batches.

    Args:
        lengths: length of each item, in any unit (samples, frames, seconds).
        max_batch_length: budget of (longest item) x (items) in that unit; an item beyond it is a batch of its own.

    Returns:
        lists of indices into `lengths`; every index exactly once.

    Raises:
        ValueError: the budget is not positive.
    """
    if max_batch_length <= 0:
        raise ValueError(f"max_batch_length={max_batch_length}; allowed: more than 0")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Ascending order: the item at hand is the longest of the batch it joins.
        if batches and lengths[index] * (len(batches[-1]) + 1) <= max_batch_length:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
