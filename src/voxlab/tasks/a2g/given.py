"""What generated motion begins and ends with: codes of two motion files, at the places where training has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from voxlab.errors import UserError
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.motion.files import read_motion
from voxlab.motion.representation import to_frames
from voxlab.tasks.a2g.predictor import Codes, Predictor
from voxlab.tasks.a2g.settings import Generate


@dataclass(frozen=True)
class Given:
    """The frames that are given; whole files are coded, as in training, and only then cut.

    Attributes:
        codecs: part -> tokenizer.
        start: (T, 433) frames whose first moments are the start; None: none.
        end: (T, 433) frames whose last moments are the end; None: none.
        moments: codes of the coarsest part that are given, of each.
    """

    codecs: Mapping[str, MotionCodec]
    start: np.ndarray | None
    end: np.ndarray | None
    moments: int
    _kept: dict[str | int, Codes] = field(default_factory=dict)

    @property
    def stride(self) -> int:
        """Frames of a moment."""
        return max(codec.stride for codec in self.codecs.values())

    def codes(self, num_frames: int) -> tuple[Codes | None, Codes | None]:
        """Return start and end, part -> (n, Q), for a motion of `num_frames`.

        Raises:
            UserError: the motion is too short for them.
        """
        sources = [
            name for name, frames in (("seed_motion", self.start), ("end_motion", self.end)) if frames is not None
        ]
        taken = len(sources) * self.moments * self.stride
        if sources and -(-num_frames // self.stride) * self.stride <= taken:
            raise UserError(
                f"its {num_frames} frames are too few: generate.{' and generate.'.join(sources)} would give {taken} of "
                f"them (sampling.seed_tokens={self.moments}, {self.stride} frames each), and nothing would be left to "
                "generate. Lower sampling.seed_tokens, or leave them out."
            )
        return self._first(), self._last(-num_frames % self.stride)

    def _first(self) -> Codes | None:
        if self.start is None:
            return None
        if "start" not in self._kept:
            self._kept["start"] = self._cut(self.start, 0, self.moments * self.stride)
        return self._kept["start"]

    def _last(self, held: int) -> Codes | None:
        """Return the codes of the end where the last code of the coarsest part reaches `held` frames beyond it."""
        if self.end is None:
            return None
        if held not in self._kept:
            frames = np.concatenate([self.end, np.repeat(self.end[-1:], held, axis=0)])
            frames = frames[len(frames) % self.stride :]
            stop = len(frames) - held  # finer parts have no code for moments that are held throughout
            self._kept[held] = self._cut(frames, len(frames) - self.moments * self.stride, stop)
        return self._kept[held]

    def _cut(self, frames: np.ndarray, begin: int, stop: int) -> Codes:
        """Return the codes of the frames from `begin` up to `stop`, the one that holds frame stop - 1 included."""
        coded = {}
        for name, codec in self.codecs.items():
            codes = codec.tokenize(frames)[begin // codec.stride : -(-stop // codec.stride)]
            coded[name] = torch.from_numpy(codes.astype(np.int64))
        return coded


def read_given(predictor: Predictor, settings: Generate, moments: int) -> Given:
    """Read `seed_motion` and `end_motion`, brought to the model's frame rate.

    Raises:
        UserError: a file is wrong, or too short.
    """
    frames = {key: _read(predictor, getattr(settings, key), moments, key) for key in ("seed_motion", "end_motion")}
    return Given(predictor.codecs, frames["seed_motion"], frames["end_motion"], moments)


def _read(predictor: Predictor, path: str | None, moments: int, key: str) -> np.ndarray | None:
    if path is None:
        return None
    motion = read_motion(Path(path).expanduser(), fps=predictor.fps, allow_resample=True)
    length = moments * max(codec.stride for codec in predictor.codecs.values())
    if motion.num_frames < length or not length:
        raise UserError(
            f"generate.{key}={path} has {motion.num_frames} frames; sampling.seed_tokens={moments} takes {length}."
        )
    return to_frames(motion, predictor.record["trans"])
