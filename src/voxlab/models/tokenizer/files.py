"""Trained networks on disk: the codec folder (codec.json + codec.safetensors), and where else one may be found.

A network rebuilds itself from its file alone. Codecs of sound and of motion and vocoders share this format.
"""

import dataclasses
import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.checkpoints import load_checkpoint
from voxlab.storage import atomic_write_bytes, atomic_write_json

SCHEMA = 1
WEIGHTS, DESCRIPTION = "codec.safetensors", "codec.json"
SUBFOLDER = "codec"  # of a run folder: the export of its best checkpoint
TASK = "train_tokenizer"
PREFIXES = ("ema_network.", "network.")  # of a checkpoint's keys, the better first
WANTED = (
    f"Needed: a run folder of task={TASK}, its folder {SUBFOLDER}/ (with {DESCRIPTION} and {WEIGHTS}), "
    "or one of its checkpoint files (checkpoints/*.ckpt)."
)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A trained network on disk, described but not built.

    Attributes:
        files: name -> path of the files that define it.
        architecture: MelArchitecture, WaveArchitecture, VocoderArchitecture or MotionArchitecture.
        facts: what its training tells: data, step, validation figures.
    """

    files: dict[str, Path]
    architecture: Any
    facts: dict[str, Any]


def export(network: nn.Module, architecture: Any, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Write the codec folder of a network, complete or not at all; equal content gives equal bytes.

    Args:
        network: what `architecture.build()` made, trained.
        architecture: MelArchitecture, WaveArchitecture, VocoderArchitecture or MotionArchitecture.
        folder: made if absent; an earlier export in it is replaced.
        facts: JSON-able: data, step, validation figures.

    Returns:
        the folder.
    """
    from safetensors.torch import save

    data = save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})
    description = {
        "schema": SCHEMA,
        "sha256": hashlib.sha256(data).hexdigest(),
        "architecture": architecture_to_dict(architecture),
        "rates": rates(architecture),
        "facts": dict(facts),
    }
    atomic_write_bytes(folder / WEIGHTS, data)
    atomic_write_json(folder / DESCRIPTION, description)
    return folder


def load(path: str | Path) -> tuple[nn.Module, Any, dict[str, Any]]:
    """Rebuild a network: (network in eval mode on the CPU, architecture, facts).

    Args:
        path: run folder, codec folder, one of its two files, or a checkpoint file.

    Raises:
        UserError: nothing usable is there; says what was found and what is needed.
    """
    stored = describe(path)
    return build(stored), stored.architecture, stored.facts


def describe(path: str | Path) -> Stored:
    """Read what a path holds, without building the network; arguments and errors as in `load`."""
    place = find(Path(path).expanduser())
    if place.suffix == ".ckpt":
        made = _read_checkpoint(place)["voxlab"]
        return Stored({place.name: place}, architecture_from_dict(made["architecture"], place), dict(made["facts"]))
    description = _read_description(place / DESCRIPTION)
    files = {name: place / name for name in (DESCRIPTION, WEIGHTS)}
    architecture = architecture_from_dict(description["architecture"], place / DESCRIPTION)
    return Stored(files, architecture, description["facts"])


def build(stored: Stored) -> nn.Module:
    """Build a described network and load its weights; every key must fit.

    Raises:
        UserError: the weights are damaged or belong to another architecture.
    """
    network = stored.architecture.build()
    path = stored.files.get(WEIGHTS) or next(iter(stored.files.values()))
    try:
        network.load_state_dict(_read_weights(stored))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:5]]
        raise UserError(f"{path} does not fit its own description:\n  " + "\n  ".join(lines)) from error
    return network.eval().requires_grad_(False)


def find(path: Path) -> Path:
    """Return the codec folder or the checkpoint file that `path` means.

    Raises:
        UserError: neither is there; says what was found.
    """
    if path.is_file():
        if path.suffix == ".ckpt":
            return path
        if path.name in (WEIGHTS, DESCRIPTION):
            return find(path.parent)
        raise UserError(f"{path} is a file of another kind. {WANTED}")
    if not path.is_dir():
        raise UserError(f"{path} does not exist. {WANTED}")
    for folder in (path, path / SUBFOLDER):
        present = [name for name in (WEIGHTS, DESCRIPTION) if (folder / name).is_file()]
        if len(present) == 2:
            return folder
        if present:
            raise UserError(f"{folder} holds {present[0]} without the other of {WEIGHTS} and {DESCRIPTION}. {WANTED}")
    raise UserError(f"{path} holds no trained codec, but {_contents(path)}. {WANTED}")


def _contents(folder: Path) -> str:
    checkpoints = sorted(folder.glob("checkpoints/*.ckpt"))
    if checkpoints:
        return f"a run that has not exported one yet; its checkpoints work as well: {checkpoints[-1]}"
    return str(sorted(path.name for path in folder.iterdir())[:12])


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}). {WANTED}") from None
    if not isinstance(description, dict) or not {"schema", "sha256", "architecture", "facts"} <= description.keys():
        raise UserError(f"{path} describes no codec of voxlab. {WANTED}")
    if description["schema"] != SCHEMA:
        raise UserError(f"{path} has schema {description['schema']}; this version reads {SCHEMA}")
    return description


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without copying its tensors into memory, and refuse those of other programs and tasks."""
    checkpoint: Any = load_checkpoint(path, wanted=WANTED, mmap=True)
    made = checkpoint.get("voxlab") if isinstance(checkpoint, dict) else None
    if made is None:
        keys = sorted(map(str, checkpoint))[:8] if isinstance(checkpoint, dict) else type(checkpoint).__name__
        raise UserError(f"{path} is a checkpoint of another program (it holds {keys}). {WANTED}")
    if made.get("task") != TASK:
        raise UserError(f"{path} is a checkpoint of task={made.get('task')}. {WANTED}")
    return checkpoint


def _read_weights(stored: Stored) -> dict[str, Tensor]:
    from safetensors.torch import load as parse

    if WEIGHTS not in stored.files:
        (path,) = stored.files.values()
        return network_state(_read_checkpoint(path)["state_dict"])
    data = stored.files[WEIGHTS].read_bytes()
    wanted = _read_description(stored.files[DESCRIPTION])["sha256"]
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise UserError(
            f"{stored.files[WEIGHTS]} is damaged or belongs to another {DESCRIPTION}: SHA-256 {found[:16]}..., "
            f"expected {wanted[:16]}...; copy both files again, or export again with task={TASK} stage=export"
        )
    return parse(data)


def network_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's part of a checkpoint's state: its averaged weights where it has them."""
    prefix = next((prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in state)), "network.")
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def rates(architecture: Any) -> dict[str, float]:
    """Return sample rate, hop and, for a codec, what it costs per second."""
    names = (
        "sample_rate",
        "hop_length",
        "num_codebooks",
        "codebook_size",
        "frame_rate",
        "tokens_per_second",
        "bitrate",
    )
    return {name: getattr(architecture, name) for name in names if hasattr(architecture, name)}


def architecture_to_dict(architecture: Any) -> dict[str, Any]:
    """Return an architecture as plain values, with its `family`."""
    return {"family": architecture.family} | json.loads(json.dumps(dataclasses.asdict(architecture)))


def architecture_from_dict(values: Mapping[str, Any], origin: str | Path = "architecture") -> Any:
    """Rebuild the architecture of a network; every field must be there.

    Args:
        values: what `architecture_to_dict` returned.
        origin: where they come from, for messages.

    Raises:
        UserError: an unknown family, or fields that are unknown or missing; names them.
    """
    from voxlab.models.gesture.motion_rvq import MotionArchitecture
    from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
    from voxlab.models.tokenizer.mel_codec import MelArchitecture
    from voxlab.models.tokenizer.wave_codec import WaveArchitecture

    kinds = (MelArchitecture, WaveArchitecture, VocoderArchitecture, MotionArchitecture)
    families = {kind.family: kind for kind in kinds}
    fields = dict(values)
    family = fields.pop("family", None)
    if family not in families:
        raise UserError(f"{origin}: family {family!r} is unknown; allowed: {', '.join(families)}")
    return _rebuild(families[family], fields, str(origin))


def _rebuild(kind: Any, values: Mapping[str, Any], origin: str) -> Any:
    """Make a (nested) dataclass of plain values."""
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    wrong = [f"unknown {name}" for name in sorted(values.keys() - names)]
    wrong += [f"missing {name}" for name in sorted(names - values.keys())]
    if wrong:
        raise UserError(
            f"{origin}: {', '.join(wrong)} in a {kind.__name__}; it was written by another version of voxlab"
        )
    nested = {name: hints[name] for name in names if dataclasses.is_dataclass(hints[name])}
    return kind(**{name: _rebuild(nested[name], v, origin) if name in nested else v for name, v in values.items()})
