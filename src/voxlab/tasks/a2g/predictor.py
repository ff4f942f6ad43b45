"""A trained model with all that it needs to make motion: from conditions to codes, to frames, to a `Motion`."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.errors import UserError
from voxlab.models.gesture.conditions import Conditions
from voxlab.models.gesture.gesture_model import GestureModel, rebuild
from voxlab.models.gesture.motion_codec import MotionCodec, find_tokenizers
from voxlab.models.gesture.sampling import Sampling, generate_long
from voxlab.models.gesture.text import WordTable, pad_words
from voxlab.motion.clip import Motion
from voxlab.motion.parts import Layout, read_layout
from voxlab.motion.representation import assemble, from_frames
from voxlab.motion.statistics import Statistics
from voxlab.storage import differences
from voxlab.tasks.a2g.features import Moments32
from voxlab.tasks.a2g.material import UNKNOWN, Material
from voxlab.tasks.a2g.settings import Overlap
from voxlab.tasks.a2g.windows import TimedWord
from voxlab.tasks.checkpoints import find_checkpoint, read_checkpoint

TASK = "a2g"
Codes = dict[str, Tensor]  # part -> (N, Q) int64


@dataclass(frozen=True)
class Input:
    """What one motion is made from.

    Attributes:
        id: decides the noise, with the seed of the run.
        features: name ("features", "acoustic") -> (T, D) float32 at motion frames, as extracted.
        speaker: name; None: unknown.
        words: of the transcript.
        start, end: codes that are given.
    """

    id: str
    features: Mapping[str, np.ndarray]
    speaker: str | None = None
    words: tuple[TimedWord, ...] = ()
    start: Codes | None = None
    end: Codes | None = None


@dataclass(frozen=True)
class Predictor:
    """A trained model.

    Attributes:
        path: of the checkpoint.
        model: in evaluation mode.
        codecs: part -> tokenizer.
        layout: parts of the body.
        statistics: of the training motion.
        moments: "features", "acoustic" -> what standardises them.
        table: of words.
        record: what the checkpoint tells; see `fit.make_record`.
    """

    path: Path
    model: GestureModel
    codecs: dict[str, MotionCodec]
    layout: Layout
    statistics: Statistics
    moments: dict[str, Moments32]
    table: WordTable
    record: dict[str, Any]

    @property
    def fps(self) -> int:
        """Frames a second."""
        return int(self.record["fps"])

    @property
    def speakers(self) -> list[str]:
        """Names that the model knows, in the order of their numbers."""
        return list(self.record["speakers"])

    def to(self, device: str) -> "Predictor":
        """Move model and tokenizers; returns itself."""
        self.model.to(device)
        for codec in self.codecs.values():
            codec.to(device)
        return self

    def speaker_number(self, name: str | None) -> int:
        """Return the number of a speaker; that of none where there is no name.

        Raises:
            UserError: the model does not know the name.
        """
        if name is None:
            return UNKNOWN
        if str(name) not in self.speakers:
            raise UserError(
                f"generate.speaker={name}: {self.path} knows {', '.join(self.speakers)}; null is nobody of them."
            )
        return self.speakers.index(str(name))

    def betas(self, speaker: str | None) -> np.ndarray:
        """Return the (300,) shape of a speaker's body; of the first speaker for unknown ones."""
        known: Mapping[str, Tensor] = self.record["betas"]
        return known.get(speaker or "", known[self.speakers[0]]).numpy()


def pack_statistics(statistics: Statistics, moments: Mapping[str, Moments32]) -> dict[str, Any]:
    """Return statistics of motion and features as a checkpoint keeps them."""
    numbers = {"mean": torch.from_numpy(statistics.mean.copy()), "std": torch.from_numpy(statistics.std.copy())}
    told = {"num_frames": statistics.num_frames, "record": dict(statistics.record)}
    features = {name: {"mean": value.mean, "std": value.std} for name, value in moments.items()}
    return {"statistics": {**numbers, **told}, "moments": features}


def load_predictor(ckpt: Path | str, tokenizers: Any = None) -> Predictor:
    """Load a trained model: the averaged weights.

    Args:
        ckpt: run folder (its best checkpoint), or checkpoint file.
        tokenizers: where the tokenizers are now; None: where they were in training.

    Raises:
        UserError: no such file, a checkpoint of another program or task, or tokenizers that are not those of it.
    """
    path = find_checkpoint(Path(ckpt), TASK)
    checkpoint = read_checkpoint(path, TASK)
    record = dict(checkpoint["voxlab"])
    layout = read_layout(record["layout"]["table"])
    where = record["tokenizers"] if tokenizers is None else tokenizers
    codecs = find_tokenizers(where, layout)
    _check_codecs(codecs, record["codecs"], path)
    model = rebuild(record["model"], codebooks_of(codecs))
    state = checkpoint["state_dict"]
    own = {key.removeprefix("average."): state[key] for key in state if key.startswith("average.")}
    model.load_state_dict(own)
    numbers = record["statistics"]
    statistics = Statistics(numbers["mean"].numpy(), numbers["std"].numpy(), numbers["num_frames"], numbers["record"])
    moments = {name: Moments32(value["mean"], value["std"]) for name, value in record["moments"].items()}
    table = WordTable(tuple(record["words"]))
    network: GestureModel = model.eval().requires_grad_(False)
    return Predictor(path, network, codecs, layout, statistics, moments, table, record)


def codebooks_of(codecs: Mapping[str, MotionCodec]) -> dict[str, Tensor]:
    """Return part -> (Q, K, C) codebooks."""
    return {name: codec.network.codebooks.detach().float() for name, codec in codecs.items()}


def _check_codecs(codecs: Mapping[str, MotionCodec], was: Mapping[str, str], path: Path) -> None:
    now = {name: codec.weights_id for name, codec in codecs.items()}
    lines = differences(dict(was), now)
    if lines:
        raise UserError(
            f"{path} was trained on the codes of other tokenizers (checkpoint -> now):\n  "
            + "\n  ".join(lines)
            + "\nGive those of its training: tokenizers=<folder>."
        )


def check_material(predictor: Predictor, material: Material) -> None:
    """Refuse a corpus or features other than those that a model was trained on.

    Raises:
        UserError: lists every difference.
    """
    record = predictor.record
    was = {"fps": record["fps"], "trans": record["trans"], "features": record["features"]}
    now = {"fps": material.fps, "trans": material.corpus.trans, "features": features_record(material)}
    lines = differences(was, now)
    if lines:
        listed = "\n  ".join(lines[:10])
        raise UserError(
            f"{predictor.path} was trained on other motion or features (checkpoint -> now):\n  {listed}\n"
            "Set data.fps, data.trans, features and stores as they were, or train anew."
        )


def features_record(material: Material) -> dict[str, Any]:
    """Return what features a model is trained on, without where they were stored."""
    kept = {name: dict(tracks.record) for name, tracks in material.features.items()}
    for record in kept.values():
        record.pop("fingerprint")  # of the store: another corpus has another one
    return kept


# ---- generation ----------------------------------------------------------------------------------------------------


def make_conditions(predictor: Predictor, inputs: Sequence[Input]) -> Conditions:
    """Return the conditions of several motions of different lengths, padded."""
    names = list(predictor.moments)
    lengths = [len(item.features[names[0]]) for item in inputs]
    longest = max(lengths)
    padded = {}
    for name, moments in predictor.moments.items():
        rows = [moments.apply(torch.from_numpy(np.asarray(item.features[name], np.float32))) for item in inputs]
        padded[name] = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    ids, times, mask = pad_words([item.words for item in inputs], predictor.table)
    return Conditions(
        features=padded["features"],
        acoustic=padded.get("acoustic"),
        frame_mask=torch.arange(longest) < torch.tensor(lengths)[:, None],
        speaker=torch.tensor([predictor.speaker_number(item.speaker) for item in inputs]),
        word_ids=ids,
        word_times=times,
        word_mask=mask,
    )


@torch.inference_mode()
def generate_codes(
    predictor: Predictor, inputs: Sequence[Input], sampling: Sampling, overlap: Overlap, seed: int, device: str
) -> list[dict[str, np.ndarray]]:
    """Draw codes for several motions; either all or none of them are given a start, and likewise an end.

    Returns:
        for each, part -> (ceil(T / stride), Q) int64.

    Raises:
        UserError: the length of a window does not fit.
    """
    window = overlap.window or int(predictor.record["fit"]["window"])
    generators = [torch.Generator().manual_seed(_noise_seed(seed, item.id)) for item in inputs]
    drawn = generate_long(
        predictor.model,
        make_conditions(predictor, inputs).to(device),
        window=window,
        overlap_tokens=overlap.seed_tokens,
        sampling=sampling,
        generators=generators,
        seed_codes=_stacked([item.start for item in inputs], device),
        end_codes=_stacked([item.end for item in inputs], device),
    )
    return [{name: codes.cpu().numpy() for name, codes in parts.items()} for parts in drawn]


def _noise_seed(seed: int, name: str) -> int:
    return int(np.random.default_rng([seed, zlib.crc32(name.encode())]).integers(2**62))


def _stacked(given: Sequence[Codes | None], device: str) -> Codes | None:
    present = [codes for codes in given if codes is not None]
    if not present:
        return None
    return {name: torch.stack([codes[name] for codes in present]).to(device) for name in present[0]}


def to_motion(
    predictor: Predictor,
    codes: Mapping[str, np.ndarray],
    num_frames: int,
    *,
    betas: np.ndarray,
    start_xz: tuple[float, float] = (0.0, 0.0),
    in_place: bool = False,
) -> Motion:
    """Decode codes to exactly `num_frames` frames of motion."""
    parts = {name: codec.detokenize(codes[name], num_frames) for name, codec in predictor.codecs.items()}
    jaw = predictor.statistics.jaw_mean if predictor.layout.jaw == "mean" else None
    frames = assemble(parts, predictor.layout, jaw_mean=jaw)
    trans = "none" if in_place else predictor.record["trans"]
    return from_frames(frames, fps=predictor.fps, betas=betas, start_xz=start_xz, trans=trans)
