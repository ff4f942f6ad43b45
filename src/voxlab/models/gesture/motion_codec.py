"""A trained tokenizer of one part of the body: frames of whole clips to codes and back, and where to find it."""

import hashlib
import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.models.gesture.motion_checkpoint import read_legacy
from voxlab.models.gesture.motion_rvq import MotionRvqVae
from voxlab.models.tokenizer import files
from voxlab.motion.parts import Layout, Part, columns, read_layout
from voxlab.motion.statistics import load_legacy, part_moments
from voxlab.storage import differences, fingerprint

log = logging.getLogger(__name__)

RECORD = "motion"  # among the facts of a codec folder
LEGACY_LAYOUT, LEGACY_FPS = "legacy415", 30
IMPORT = (
    "python main.py task=train_tokenizer data=beat2 data.layout=legacy415 codec=motion_rvq codec.weights={path} "
    "codec.statistics=<.npz with *_mean and *_std> stage=export out=<folder>"
)
TRAIN = "python main.py -m task=train_tokenizer data=beat2 codec=motion_rvq part={parts}"


@dataclass(frozen=True)
class MotionCodec:
    """A frozen network with what it was trained on.

    Attributes:
        part: of the body.
        record: what `part_record` says of it.
        network: in evaluation mode, without gradients of its own.
        weights_id: first 16 hex digits of the SHA-256 of its tensors.
    """

    part: Part
    record: Mapping[str, Any]
    network: MotionRvqVae
    weights_id: str

    @property
    def fps(self) -> int:
        """Frames a second of the motion that it codes."""
        return int(self.record["fps"])

    @property
    def trans(self) -> str:
        """How the motion that it codes holds the place of the root, see `motion.representation.to_frames`."""
        return str(self.record["trans"])

    @property
    def stride(self) -> int:
        """Frames per code."""
        return self.network.stride

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return self.network.num_codebooks

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.network.codebook_size

    @property
    def mean(self) -> np.ndarray:
        """(D,) float32 of the raw numbers."""
        return self.network.mean.cpu().numpy()

    @property
    def std(self) -> np.ndarray:
        """(D,) float32 of the raw numbers."""
        return self.network.std.cpu().numpy()

    def num_tokens(self, num_frames: int) -> int:
        """Return N of a clip."""
        return -(-num_frames // self.stride)

    def values(self, frames: np.ndarray) -> np.ndarray:
        """Return the part's raw numbers (T, D) float32 of frames (T, 433)."""
        return np.ascontiguousarray(frames[:, columns(self.part)], dtype=np.float32)

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """Return raw numbers (..., D) as the network sees them."""
        return (values - self.mean) / self.std

    def denormalize(self, values: np.ndarray) -> np.ndarray:
        """Return normalised numbers (..., D) as raw ones."""
        return values * self.std + self.mean

    @torch.no_grad()
    def tokenize(self, frames: np.ndarray) -> np.ndarray:
        """Return the codes (ceil(T / stride), Q) int16 of a clip's frames (T, 433), the last one held at its end.

        Raises:
            ValueError: there are no frames.
        """
        values = torch.from_numpy(self.values(frames)).to(self.network.mean)
        if not len(values):
            raise ValueError("a clip without frames has no codes")
        missing = self.num_tokens(len(values)) * self.stride - len(values)
        padded = torch.cat([values, values[-1:].expand(missing, -1)])
        codes = self.network.encode(self.network.normalize(padded)[None])[0]
        return codes.cpu().numpy().astype(np.int16)

    @torch.no_grad()
    def detokenize(self, codes: np.ndarray, num_frames: int) -> np.ndarray:
        """Return the raw numbers (num_frames, D) float32 of codes (N, q) of the first q codebooks.

        Raises:
            ValueError: the codes are of fewer frames, or out of range.
        """
        if not 0 < num_frames <= len(codes) * self.stride:
            raise ValueError(f"{len(codes)} codes are {len(codes) * self.stride} frames, not {num_frames}")
        given = torch.from_numpy(codes.astype(np.int64)).to(self.network.mean.device)
        values = self.network.denormalize(self.network.decode(given[None])[0])
        return values[:num_frames].cpu().numpy()

    def to(self, device: str | torch.device) -> "MotionCodec":
        """Move the network; returns the codec."""
        self.network.to(device)
        return self

    def check_fits(self, layout: Layout, fps: int, trans: str | None = None, *, any_fps: bool = False) -> None:
        """Refuse to work with motion of another kind than that of training.

        Args:
            layout: the parts in use.
            fps: frames a second in use.
            trans: how the root's place is held; None is not compared.
            any_fps: accept another rate: movements then run faster or slower than those that were learnt.

        Raises:
            UserError: names every difference, with both fingerprints.
        """
        names = [part.name for part in layout.parts]
        if self.part.name not in names:
            raise UserError(
                f"the tokenizer of part={self.part.name} (layout {self.record['layout']}) has no place in layout "
                f"{layout.name}, whose parts are {', '.join(names)}. Set data.layout as it was in its training."
            )
        wanted = part_record(layout.part(self.part.name), layout, fps, self.trans if trans is None else trans)
        if any_fps:
            wanted["fps"] = self.fps
        keys = [key for key in wanted if key != "layout"]
        own, other = {key: self.record.get(key) for key in keys}, {key: wanted[key] for key in keys}
        lines = differences(own, other)
        if own["fps"] != other["fps"]:
            lines.append(f"(its movements would run {own['fps'] / other['fps']:g} times as long)")
        if lines:
            raise UserError(
                f"the tokenizer of part={self.part.name} does not fit (tokenizer {fingerprint(own)}, in use "
                f"{fingerprint(other)}; tokenizer -> in use):\n  "
                + "\n  ".join(lines)
                + "\nSet data.layout, data.fps and data.trans as they were in its training, or train it anew:\n  "
                + TRAIN.format(parts=self.part.name)
            )


def part_record(part: Part, layout: Layout, fps: int, trans: str) -> dict[str, Any]:
    """Return what has to be equal between the training of a tokenizer and its use, JSON-able."""
    return {
        "part": part.name,
        "layout": layout.name,
        "joints": [int(joint) for joint in part.joints],
        "extras": list(part.extras),
        "dim": part.dim,
        "normalize_face": layout.normalize_face if "expressions" in part.extras else True,
        "fps": fps,
        "trans": trans if "translation" in part.extras else "any",
    }


def load_motion_codec(
    path: str | Path, *, statistics: str | Path | None = None, layout: Layout | None = None
) -> MotionCodec:
    """Rebuild a trained tokenizer, frozen, on the CPU.

    Args:
        path: run folder, codec folder, checkpoint of task=train_tokenizer, or a net_*.pth of the earlier projects.
        statistics: for net_*.pth: the .npz of mean and standard deviation that it was trained with.
        layout: for net_*.pth: its parts; None: legacy415.

    Raises:
        UserError: nothing usable is there; says what was found and what is needed.
    """
    place = Path(path).expanduser()
    if place.suffix == ".pth":
        return _load_legacy(place, statistics, read_layout(LEGACY_LAYOUT) if layout is None else layout)
    if not place.exists():
        raise UserError(f"{place} does not exist. Train the tokenizers of motion:\n  {TRAIN.format(parts='upper,...')}")
    stored = files.describe(place)
    if RECORD not in stored.facts:
        raise UserError(f"{place} holds a {stored.architecture.family} codec of sound; needed is one of motion.")
    record = stored.facts[RECORD]
    part = Part(record["part"], tuple(record["joints"]), tuple(record["extras"]))
    network: Any = files.build(stored)
    return MotionCodec(part, record, network, hash_weights(network))


def _load_legacy(path: Path, statistics: str | Path | None, layout: Layout) -> MotionCodec:
    network = read_legacy(path, {part.name: part.dim for part in layout.parts})
    if statistics is None:
        raise UserError(
            f"{path} holds no mean and standard deviation of its motion. Make a codec folder with those that it was "
            f"trained with:\n  {IMPORT.format(path=path)}"
        )
    dims = {part.dim: part for part in layout.parts}
    part = dims[network.architecture.dim or 0]
    moments = part_moments(load_legacy(Path(statistics)), part, layout)
    network.set_statistics(*(torch.as_tensor(np.asarray(values), dtype=torch.float32) for values in moments))
    record = part_record(part, layout, LEGACY_FPS, "legacy")
    return MotionCodec(part, record, network.eval().requires_grad_(False), hash_weights(network))


def hash_weights(network: MotionRvqVae) -> str:
    """Return the first 16 hex digits of the SHA-256 of all tensors that decide codes or motion."""
    digest = hashlib.sha256()
    state = network.state_dict()
    for name in sorted(state.keys() - {"quantizer.steps", "quantizer.initialized"}):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find_tokenizers(
    where: str | Path | Mapping[str, str], layout: Layout, *, statistics: str | Path | None = None
) -> dict[str, MotionCodec]:
    """Load the tokenizers of all parts of a layout, in its order.

    Args:
        where: folder of a sweep (one run for each part), of one codec for each part, or of net_*.pth files; or part ->
            path. What lies in a folder is known by the part that it was trained on.
        layout: the parts in use.
        statistics: for net_*.pth files, see `load_motion_codec`.

    Raises:
        UserError: a part without a tokenizer (says how to train it), or with two.
    """
    names = [part.name for part in layout.parts]
    if isinstance(where, Mapping):
        unknown = sorted(set(where) - set(names))
        if unknown:
            raise UserError(f"tokenizers.{unknown[0]}: layout {layout.name} has the parts {', '.join(names)}.")
        found = {name: [Path(path)] for name, path in where.items()}
        codecs = {name: load_motion_codec(path, statistics=statistics) for name, path in where.items()}
    else:
        found, codecs = _scan(Path(where).expanduser(), statistics, names)
    twice = {name: paths for name, paths in found.items() if len(paths) > 1}
    if twice:
        lines = [f"{name}: {', '.join(map(str, paths))}" for name, paths in twice.items()]
        raise UserError(
            "more than one tokenizer for a part:\n  "
            + "\n  ".join(lines)
            + "\nName one each: tokenizers='{upper: <folder>, ...}'."
        )
    missing = [name for name in names if name not in codecs]
    if missing:
        raise UserError(
            f"tokenizers={where}: none for part {', '.join(missing)} of layout {layout.name} "
            f"(found: {', '.join(codecs) or 'none'}; codecs of sound don't count). Train:\n"
            f"  {TRAIN.format(parts=','.join(missing))}"
        )
    for name, codec in codecs.items():
        if codec.part.name != name:
            raise UserError(f"tokenizers.{name}={found[name][0]} was trained on part={codec.part.name}.")
    return {name: codecs[name] for name in names}


def _scan(
    folder: Path, statistics: str | Path | None, names: list[str]
) -> tuple[dict[str, list[Path]], dict[str, MotionCodec]]:
    """Return paths and codecs by part of all of motion that lies in a folder or directly below."""
    if not folder.is_dir():
        parts, place = ",".join(names), shlex.quote(f"hydra.sweep.dir={folder}")
        raise UserError(
            f"tokenizers={folder}: there is no such folder. Give the folder of a sweep that trained them:\n"
            f"  {TRAIN.format(parts=parts)} {place}\nor, on a synthetic corpus and in a minute:\n"
            f"  python main.py -m experiment=a2g_tokenizer_tiny part={parts} {place}"
        )
    places = [place for place in [folder, *sorted(folder.iterdir())] if is_codec(place) and _is_of_motion(place)]
    found: dict[str, list[Path]] = {}
    codecs: dict[str, MotionCodec] = {}
    for place in places:
        codec = load_motion_codec(place, statistics=statistics)
        found.setdefault(codec.part.name, []).append(place)
        codecs[codec.part.name] = codec
    return found, codecs


def _is_of_motion(place: Path) -> bool:
    return place.suffix == ".pth" or RECORD in files.describe(place).facts


def is_codec(place: Path) -> bool:
    """Tell whether a path is a net_*.pth, a codec folder or a run folder with one."""
    if place.is_file():
        return place.suffix == ".pth"
    return any((place / sub / files.DESCRIPTION).is_file() for sub in ("", files.SUBFOLDER))
