"""What is measured of one clip: of a motion alone, and of a motion against its reference."""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxlab.metrics import beats
from voxlab.metrics.errors import NotMeasurable
from voxlab.metrics.gesture_diversity import l1_diversity, mean_jerk, spread_ratio
from voxlab.metrics.gesture_errors import foot_skate, joint_angles, joint_distances, part_errors, root_drift
from voxlab.metrics.gesture_face import FaceErrors, face_errors
from voxlab.motion.clip import Motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.parts import Layout, columns
from voxlab.motion.representation import TransMode, to_frames
from voxlab.motion.skeleton import EYES, JAW, Skeleton
from voxlab.motion.smplx_model import BodyModel
from voxlab.motion.statistics import Statistics

SHIFT: beats.Seconds = 0.5  # of the control of beat consistency
MIN_FRAMES = 4
_MESH_FRAMES = 512  # of a mesh at a time: 64 MB
Values = dict[str, tuple[float, float]]  # name -> value, its weight in the mean over clips
Reasons = dict[str, str]  # name of what could not be measured -> why


@dataclass(frozen=True)
class Body:
    """What motion is measured with.

    Attributes:
        skeleton: gives positions of joints.
        layout: gives the parts, and the joints that errors are over: all that it covers but the eyes.
        statistics: normalise the parts.
        mean_speeds: (55,) m/s that beats are relative to.
        mesh: gives vertices of the face; None: without.
        trans: how the root's path is turned into the numbers of a part, see `representation.differentiate`.
    """

    skeleton: Skeleton
    layout: Layout
    statistics: Statistics
    mean_speeds: np.ndarray
    mesh: BodyModel | None
    trans: TransMode = "velocity"

    @property
    def joints(self) -> list[int]:
        """Joints that errors are over."""
        left_out = {*self.layout.uncovered, *EYES}
        return [joint for joint in range(len(self.mean_speeds)) if joint not in left_out]


@dataclass(frozen=True)
class Measured:
    """A motion in every form that is needed.

    Attributes:
        motion: itself, T frames.
        frames: (T, 433) float32.
        positions: root "kept" or "zeroed" -> (T, 55, 3) metres without translation.
    """

    motion: Motion
    frames: np.ndarray
    positions: Mapping[str, np.ndarray]

    @property
    def moved(self) -> np.ndarray:
        """(T, 55, 3) metres with translation."""
        return self.positions["kept"] + self.motion.trans[:, None].astype(np.float32)

    def cut(self, num_frames: int) -> "Measured":
        """Return the first frames only."""
        if num_frames == self.motion.num_frames:
            return self
        names = ("poses", "trans", "expressions")
        motion = dataclasses.replace(self.motion, **{name: getattr(self.motion, name)[:num_frames] for name in names})
        positions = {root: places[:num_frames] for root, places in self.positions.items()}
        return Measured(motion, self.frames[:num_frames], positions)


def prepare(motion: Motion, body: Body) -> Measured:
    """Bring a motion into every form that is needed."""
    positions = {
        "kept": joint_positions(motion, body.skeleton, root="kept", trans=False),
        "zeroed": joint_positions(motion, body.skeleton, root="zeroed", trans=False),
    }
    return Measured(motion, to_frames(motion, body.trans), positions)


def measure_alone(measured: Measured, onsets: np.ndarray | None, body: Body) -> tuple[Values, Reasons]:
    """Measure a motion without looking at the reference.

    Args:
        measured: T >= 4 frames.
        onsets: of the audio, as `beats.find_onsets` gives them; None: there is no audio.
        body: to measure with.

    Returns:
        bc_*, bc_*_shifted, bc_*_over_shifted, l1div, l1div_root_kept and jerk; and why some are absent.
    """
    frames = measured.motion.num_frames
    values: Values = {
        "l1div": (l1_diversity(measured.positions["zeroed"]), frames),
        "l1div_root_kept": (l1_diversity(measured.positions["kept"]), frames),
        "jerk": (mean_jerk(measured.positions["zeroed"], measured.motion.fps), frames),
    }
    reasons: Reasons = {}
    for name, rule in beats.RULES.items():
        try:
            values |= _beat_values(name, rule, measured, onsets, body)
        except NotMeasurable as reason:
            reasons[name] = str(reason)
    return values, reasons


def _beat_values(name: str, rule: beats.BeatRule, measured: Measured, onsets: np.ndarray | None, body: Body) -> Values:
    if onsets is None:
        raise NotMeasurable("no audio")
    scores = [
        beats.beat_consistency(
            measured.positions[rule.root], onsets, body.mean_speeds, measured.motion.fps, rule, shift=shift
        )
        for shift in (0.0, SHIFT)
    ]
    (score, seconds), (shifted, _) = scores
    return {
        name: (score, seconds),
        f"{name}_shifted": (shifted, seconds),
        f"{name}_over_shifted": (score - shifted, seconds),
    }


@dataclass(frozen=True)
class Comparison:
    """One clip against its reference.

    Attributes:
        values: name -> value and weight.
        reasons: what could not be measured -> why.
        angles: (55,) degrees.
        distances: (55,) centimetres.
        frames: that were compared.
    """

    values: Values
    reasons: Reasons
    angles: np.ndarray
    distances: np.ndarray
    frames: int


def compare(predicted: Measured, reference: Measured, body: Body) -> Comparison:
    """Measure a motion against its reference of the same number of frames."""
    frames = reference.motion.num_frames
    angles = joint_angles(predicted.frames, reference.frames)
    distances = joint_distances(predicted.positions["kept"], reference.positions["kept"])
    values, reasons = _part_values(predicted.frames, reference.frames, body)
    values |= {
        "geodesic_deg": (float(angles[body.joints].mean()), frames),
        "mpjpe_cm": (float(distances[body.joints].mean()), frames),
        "root_drift": (root_drift(predicted.motion.trans, reference.motion.trans), 1),
        **_weigh(face_errors(_coefficients(predicted.motion), _coefficients(reference.motion)), "face_coef", frames),
    }
    skate = foot_skate(predicted.moved, reference.moved, reference.motion.fps)
    if skate is None:
        reasons["foot_skate"] = "no foot of the reference stands still"
    else:
        values["foot_skate"] = (skate, frames)
    if body.mesh is None:
        reasons["face_mse"] = "no body model (body.skeleton=smplx and body.path=...)"
    else:
        values |= _weigh(_mesh_errors(predicted.motion, reference.motion, body.mesh), "face", frames)
    return Comparison(values, reasons, angles, distances, frames)


def _part_values(predicted: np.ndarray, reference: np.ndarray, body: Body) -> tuple[Values, Reasons]:
    values: Values = {}
    reasons: Reasons = {}
    for part in body.layout.parts:
        own, other = (
            body.statistics.normalize(frames[:, columns(part)], part, body.layout) for frames in (predicted, reference)
        )
        # A pose of mean values is no rotation; this is what predicting these numbers as they are would cost.
        mean = body.statistics.normalize(body.statistics.mean[columns(part)], part, body.layout)
        found = {**part_errors(own, other), "mse_of_mean": float(((other - mean) ** 2).mean())}
        try:
            found["std_ratio"] = spread_ratio(own, other)
        except NotMeasurable as reason:
            reasons[f"std_ratio/{part.name}"] = str(reason)
        values |= {f"{name}/{part.name}": (value, len(own)) for name, value in found.items()}
    return values, reasons


def _weigh(errors: FaceErrors, prefix: str, weight: float) -> Values:
    return {f"{prefix}_{name}": (value, weight) for name, value in dataclasses.asdict(errors).items()}


def _coefficients(motion: Motion) -> np.ndarray:
    """Return (T, 103): expressions, and the jaw's axis-angle in radians."""
    return np.concatenate([motion.expressions, motion.poses[:, 3 * JAW : 3 * JAW + 3]], axis=1)


def _mesh_errors(predicted: Motion, reference: Motion, mesh: BodyModel) -> FaceErrors:
    """Compare the vertices of two faces on the reference's body, piece by piece: meshes of a clip are large."""
    total, frames = np.zeros(3), reference.num_frames
    own = dataclasses.replace(predicted, betas=reference.betas)
    for start, end, counted in _pieces(frames):
        first, second = (mesh.face_vertices(_slice(motion, start, end)) for motion in (own, reference))
        errors = face_errors(first, second)
        # The piece's first frame was counted with the piece before; its differences belong to this piece.
        squares = ((first[-counted:].astype(np.float64) - second[-counted:]) ** 2).mean()
        total += np.array([squares * counted, errors.lvd * len(first), errors.position_l1 * len(first)])
    return FaceErrors(*(float(value) for value in total / frames))


def _pieces(frames: int) -> Iterator[tuple[int, int, int]]:
    """Yield first frame, end and number of new frames of pieces that share one frame each."""
    yield 0, min(_MESH_FRAMES, frames), min(_MESH_FRAMES, frames)
    for start in range(_MESH_FRAMES, frames, _MESH_FRAMES):
        end = min(start + _MESH_FRAMES, frames)
        yield start - 1, end, end - start


def _slice(motion: Motion, start: int, end: int) -> Motion:
    cut: dict[str, Any] = {name: getattr(motion, name)[start:end] for name in ("poses", "trans", "expressions")}
    return dataclasses.replace(motion, **cut)
