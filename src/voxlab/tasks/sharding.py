"""One model divided over the ranks (trainer=fsdp): its parameters, gradients and optimiser state, by PyTorch's FSDP2.

Every rank holds a part of each layer and fetches the rest while it is at work on it. Checkpoints hold the whole.
"""

import logging
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from voxlab.parallel import Ranks

_log = logging.getLogger(__name__)


def make_strategy(ranks: Ranks) -> Any:
    """Return Lightning's strategy for models that `shard` has divided over all ranks."""
    from lightning.pytorch.strategies import ModelParallelStrategy

    return ModelParallelStrategy(ranks.world, tensor_parallel_size=1, save_distributed_checkpoint=False)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Divide a model in place, the layers of its lists one by one: only they are whole at the same time.

    Args:
        model: with the same values on all ranks.
        mesh: the ranks, one dimension.
    """
    for layers in [part for part in model.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]:
        for layer in layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    parameters = list(model.parameters())
    own = sum(parameter.to_local().numel() for parameter in parameters if isinstance(parameter, DTensor))
    _log.info("this rank holds %d of the model's %d parameters", own, sum(map(Tensor.numel, parameters)))


def is_sharded(model: nn.Module) -> bool:
    """Tell whether `shard` has divided a model."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def gather_state(model: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of a divided model as a whole, on every rank; collective."""
    return {name: whole(value.detach()) for name, value in model.state_dict().items()}


def whole(value: Tensor) -> Tensor:
    """Return a tensor that is divided over the ranks as one; collective."""
    return value.full_tensor() if isinstance(value, DTensor) else value
