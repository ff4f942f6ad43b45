"""Reads the folders of acoustic-event-prediction: a `.npy` of float32 frames an assignment, a label file per shift.

Labels are stored frame by frame there, events are not, so one shift is read at a time and labels are taken as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.data.frame_file import FrameFile, open_frames
from voxlab.errors import UserError

_NEEDED = ("episode_name", "split", "frame_rate", "assignments")
_MAKER = "the extraction that made this folder"


@dataclass(frozen=True)
class LegacyEpisode:
    """One episode.

    Attributes:
        folder: of its files.
        name: of the episode.
        show: start of the name, up to the first "_".
        split: train, validation or test.
        shift: of the labels, in frames.
        frame_rate: frames a second.
        num_frames: T of each view, by `index`; views may differ in length.
        dim: numbers per frame.
        views: a dict for each assignment: index, user, others, user_ratio.
    """

    folder: Path
    name: str
    show: str
    split: str
    shift: int
    frame_rate: float
    num_frames: Mapping[int, int]
    dim: int
    views: tuple[Mapping[str, Any], ...]

    def features(self, view: int = 0) -> FrameFile:
        """Open the (T, D) float32 features of a view.

        Raises:
            UserError: the file is damaged.
        """
        path, owner = _features_path(self.folder, view), f"episode {self.name}, view {view}"
        frames = self.num_frames[view]
        return open_frames(path, num_frames=frames, dim=self.dim, dtype="float32", owner=owner, again=_MAKER)

    def labels(self, view: int = 0) -> np.ndarray:
        """Return the labels of a view, (T,) float32, 0 or 1.

        Raises:
            UserError: the file is missing or damaged, or differs in length from the features.
        """
        path = self.folder / f"labels_assignment_{view}_shift_{self.shift}.npy"
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} can't be read ({error}). Make the labels of shift={self.shift} again.") from error
        if values.shape != (self.num_frames[view],):
            raise UserError(
                f"episode {self.name}, view {view}: {self.num_frames[view]} frames of features and labels of the shape "
                f"{values.shape} in {path.name}. Make both again, from the same audio."
            )
        if not np.isin(values, (0, 1)).all():
            raise UserError(f"{path} holds other labels than 0 and 1.")
        return values.astype(np.float32)


def read_legacy(root: Path | str, shift: int) -> list[LegacyEpisode]:
    """Return all episodes below `<root>/<split>/<episode>`, sorted by split and name.

    Args:
        root: the folder that holds train, validation and test.
        shift: whose labels are wanted, in frames.

    Raises:
        UserError: no episode, an episode without labels of this shift (names the shifts that there are), or a damaged
            file.
    """
    root = Path(root)
    folders = sorted({path.parent for path in root.glob("*/*/metadata_shift_*.json")})
    if not folders:
        raise UserError(f"{root} holds no <split>/<episode>/metadata_shift_*.json of acoustic-event-prediction.")
    return [_read(folder, shift) for folder in folders]


def _read(folder: Path, shift: int) -> LegacyEpisode:
    path = folder / f"metadata_shift_{shift}.json"
    if not path.is_file():
        shifts = sorted(int(other.stem.rpartition("_")[2]) for other in folder.glob("metadata_shift_*.json"))
        raise UserError(f"{folder} has no labels of shift={shift}; it has {', '.join(map(str, shifts))}.")
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}).") from error
    missing = [name for name in _NEEDED if name not in metadata]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}.")
    views = tuple(_view(assignment) for assignment in metadata["assignments"])
    frames = {view["index"]: _shape(folder, view["index"]) for view in views}
    name = metadata["episode_name"]
    return LegacyEpisode(
        folder=folder,
        name=name,
        show=name.partition("_")[0],
        split=metadata["split"],
        shift=shift,
        frame_rate=metadata["frame_rate"],
        num_frames={index: shape[0] for index, shape in frames.items()},
        dim=next(iter(frames.values()))[1],
        views=views,
    )


def _view(assignment: Mapping[str, Any]) -> dict[str, Any]:
    others = assignment.get("system_speaker_ids") or [assignment.get("system_speaker_id")]
    return {
        "index": assignment["assignment_idx"],
        "user": assignment["user_speaker_id"],
        "others": tuple(other for other in others if other is not None),
        "user_ratio": assignment.get("user_speaking_ratio"),
    }


def _shape(folder: Path, view: int) -> tuple[int, int]:
    path = _features_path(folder, view)
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} can't be read ({error}). Run {_MAKER} again.") from error
    if len(shape) != 2:
        raise UserError(f"{path} has the shape {shape}; expected (frames, numbers per frame). Run {_MAKER} again.")
    return shape[0], shape[1]


def _features_path(folder: Path, view: int) -> Path:
    return folder / f"features_assignment_{view}.npy"
