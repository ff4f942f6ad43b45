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
    """Run without autograd; on CUDA also with repeatable kernels and, for float32, without TF32 (it flips codes).

    The process-wide settings are restored afterwards.
    """
    with torch.no_grad():
        if device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        matmul: Any = torch.backends.cuda.matmul
        before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32
        exact = dtype == torch.float32
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = cudnn.allow_tf32 and not exact, True, False
        matmul.allow_tf32 = matmul.allow_tf32 and not exact
        try:
            yield
        finally:
            cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark, matmul.allow_tf32 = before


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
