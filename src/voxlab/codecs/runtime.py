"""How codec models run: number formats, exact float32 on CUDA, and torch.compile with a clear error."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from voxlab.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_dtype(dtype: str, codec: str) -> torch.dtype:
    """Return the torch dtype of a config word.

    Raises:
        UserError: the word is unknown.
    """
    if dtype not in DTYPES:
        raise UserError(f"codec {codec}: dtype={dtype!r} is unknown; allowed: {', '.join(DTYPES)}")
    return DTYPES[dtype]


def package_version(name: str, codec: str, extra: str = "") -> str:
    """Return the installed version of a package without importing it.

    Raises:
        UserError: it is not installed; names the codec that needs it and what to type.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError as error:
        hint = f"pip install 'voxlab[{extra}]'" if extra else f"pip install {name}"
        raise UserError(f"codec {codec} needs the package {name}, which is not installed; type: {hint}") from error


@contextlib.contextmanager
def exact_inference(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Run without autograd and, for float32 on CUDA, without TF32 (it flips codes); restores the settings after."""
    with torch.no_grad():
        if device.type != "cuda" or dtype != torch.float32:
            yield
            return
        conv, matmul = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = conv, matmul


def compile_function(function: Callable[..., Any], codec: str) -> Callable[..., Any]:
    """Return torch.compile(function) for changing shapes.

    Raises:
        UserError: no C++ compiler is on the PATH, which torch.compile needs on every device.
    """
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(name and shutil.which(name) for name in compilers):
        raise UserError(
            f"codec {codec}: compile=true needs a C++ compiler, and none of g++, clang++ or $CXX was found.\n"
            "Install one (Debian: apt install g++) or set codec.compile=false."
        )
    return torch.compile(function, dynamic=True)


def fold_weight_norm(model: nn.Module) -> nn.Module:
    """Replace every weight-normed weight by its value, in place: same bits, less work per call."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return model


@torch.no_grad()
def shrink_biases(model: nn.Module) -> None:
    """Scale the biases of an untrained network to a tenth: they would outweigh its response to the signal."""
    for name, parameter in model.named_parameters():
        if "bias" in name:
            parameter.mul_(0.1)


def spread_entries(shape: torch.Size, std: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw codebook entries (E, D) with `std` (D,) per dimension and equal norms: else the shortest few win everywhere."""
    directions = nn.functional.normalize(torch.randn(shape, generator=generator), dim=1)
    return directions * shape[1] ** 0.5 * std
