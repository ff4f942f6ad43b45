"""Sums and copies over the ranks of a launch; with a single process they do nothing."""

import torch
import torch.distributed as dist
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks."""
    joined = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)


def sum_over_ranks(tensor: Tensor) -> None:
    """Replace a contiguous tensor by its sum over all ranks."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(tensor)


def gather_from_ranks(tensor: Tensor) -> Tensor:
    """Return the tensors (...) of all ranks, which have the same shape, as (world, ...)."""
    world = rank_and_world()[1]
    rows = [torch.empty_like(tensor) for _ in range(world)] if world > 1 else [tensor]
    if world > 1:
        dist.all_gather(rows, tensor)
    return torch.stack(rows)


def send_from_first(*tensors: Tensor) -> None:
    """Replace contiguous tensors by those of rank 0."""
    if rank_and_world()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)
