"""Motion tokenizers of the earlier projects: net_*.pth files to and from our networks.

A file is {"net": tensors}. Their quantizer looks its codes up in codebook @ W.T + b; here the result is a plain table.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvqVae
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.storage import atomic_path

_TRAIN = "python main.py task=train_tokenizer data=beat2 codec=motion_rvq part=<part>"
_LEVEL = re.compile(r"encoder\.(\d+)\.0\.weight")
_BLOCK = re.compile(r"encoder\.2\.1\.(\d+)\.conv1\.weight")
_BOOK = re.compile(r"quantizer\.layers\.(\d+)\.codebook")
_PROJECTION = ("embedding_proj.weight", "embedding_proj.bias")


def read_legacy(path: Path, dims: Mapping[str, int]) -> MotionRvqVae:
    """Rebuild the network of a net_*.pth, without statistics of its motion.

    Args:
        path: the file.
        dims: part -> numbers a frame, of the layout in use.

    Raises:
        UserError: it is absent, no such checkpoint, or of none of the parts; says what was found and expected.
    """
    state = _plain_names(_read_net(path))
    try:
        architecture = _infer(state)
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is no motion tokenizer of a known shape ({error}). Train one:\n  {_TRAIN}") from error
    _check_dim(path, architecture.dim or 0, dims)
    network = architecture.build()
    books = {name for name in state if name.startswith("quantizer.")}
    own = {f"quantizer.{name}": value for name, value in network.quantizer.state_dict().items()}
    own |= {"quantizer.sums": _fold(state), "quantizer.counts": torch.ones_like(own["quantizer.counts"])}
    own["quantizer.initialized"] = torch.tensor(True)
    weights = {name: value.float() for name, value in state.items() if name not in books}
    try:
        network.load_state_dict({**weights, **own, "mean": network.mean, "std": network.std})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:5]]
        raise UserError(f"{path} is no motion tokenizer of a known shape:\n  " + "\n  ".join(lines)) from error
    return network


def write_legacy(network: MotionRvqVae, path: Path) -> Path:
    """Write a network as the earlier projects read it, with an identity as projection.

    Raises:
        UserError: a stage keeps the rate, for which their format has no place.
    """
    architecture = network.architecture
    if set(architecture.strides) != {2}:
        raise UserError(f"strides {list(architecture.strides)} do not fit net_*.pth files, whose stages all halve.")
    net = {
        _legacy_name(name): value.detach().cpu().clone()
        for name, value in network.state_dict().items()
        if name.startswith(("encoder.", "decoder."))
    }
    for index, book in enumerate(network.codebooks.detach().cpu()):
        net[f"quantizer.layers.{index}.codebook"] = book.clone()
        net[f"quantizer.layers.{index}.{_PROJECTION[0]}"] = torch.eye(book.shape[1])
        net[f"quantizer.layers.{index}.{_PROJECTION[1]}"] = torch.zeros(book.shape[1])
    with atomic_path(path) as temporary:
        torch.save({"net": net}, temporary)
    return path


def _read_net(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} does not exist. Copy the checkpoint there, or train a tokenizer:\n  {_TRAIN}")
    checkpoint: Any = load_checkpoint(path)
    net = checkpoint.get("net") if isinstance(checkpoint, dict) else None
    if not isinstance(net, dict):
        found = sorted(map(str, checkpoint))[:8] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise UserError(f"{path} has no key `net`, which holds the tensors of a motion tokenizer; found: {found}.")
    return net


def _plain_names(net: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names of `MotionRvqVae`, where the two agree."""
    return {name.removeprefix("module.").replace(".model.", "."): value for name, value in net.items()}


def _legacy_name(name: str) -> str:
    """Insert `.model` after encoder and decoder, and after the place of a stage's residual blocks."""
    side, _, rest = name.partition(".")
    place = 1 if side == "encoder" else 0
    return f"{side}.model." + re.sub(rf"^(\d+)\.{place}\.(\d+)\.", rf"\1.{place}.model.\2.", rest)


def _infer(state: Mapping[str, Tensor]) -> MotionArchitecture:
    width, dim, _ = state["encoder.0.weight"].shape
    levels = sorted(int(match[1]) for name in state if (match := _LEVEL.fullmatch(name)))
    if not levels:
        raise ValueError("no stage that shortens time")
    books = [state[name] for name in state if _BOOK.fullmatch(name)]
    sizes = {tuple(book.shape) for book in books}
    if len(sizes) != 1:
        raise ValueError(f"codebooks of shapes {sorted(sizes)}, needed is one")
    codebook_size, code_dim = sizes.pop()
    latent = state[f"encoder.{levels[-1] + 1}.weight"].shape[0]
    if latent != code_dim:
        raise ValueError(f"codebooks {code_dim} wide for latents of {latent}")
    return MotionArchitecture(
        dim=dim,
        width=width,
        depth=sum(_BLOCK.fullmatch(name) is not None for name in state),
        code_dim=code_dim,
        strides=(2,) * len(levels),
        quantizer=QuantizerSettings(num_codebooks=len(books), codebook_size=codebook_size),
    )


def _check_dim(path: Path, dim: int, dims: Mapping[str, int]) -> None:
    if dim in dims.values():
        return
    known = ", ".join(f"{name} {size}" for name, size in dims.items())
    reason = ""
    if dim == 54 and 57 in dims.values():
        reason = " 54 are the legs without the root's translation; needed is the tokenizer of lower_trans, 57."
    raise UserError(f"{path} codes {dim} numbers a frame; the parts have {known}.{reason} Set data.layout to fit.")


def _fold(state: Mapping[str, Tensor]) -> Tensor:
    """Return the (Q, K, C) tables that codes are looked up in, projected where the file has a projection."""
    tables = []
    for index in range(sum(_BOOK.fullmatch(name) is not None for name in state)):
        layer = f"quantizer.layers.{index}."
        table = state[f"{layer}codebook"].double()
        if layer + _PROJECTION[0] in state:
            table = table @ state[layer + _PROJECTION[0]].double().T + state[layer + _PROJECTION[1]].double()
        tables.append(table.float())
    return torch.stack(tables)
