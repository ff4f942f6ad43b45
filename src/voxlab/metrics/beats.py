"""Beat consistency: do onsets of the audio fall near moments at which joints slow down.

It rewards jitter (white noise scores above real motion) and hardly notices a shift of half a second, so it is shown
with the score of shifted motion, of the real motion, and with the jerk.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from voxlab.audio import Seconds, resample, to_mono
from voxlab.metrics.errors import NotMeasurable
from voxlab.motion.skeleton import UPPER_JOINTS

SAMPLE_RATE = 16000
HOP_LENGTH = 512  # samples at 16 kHz: what an onset's time is rounded to
ORDER = 7  # frames to either side that a local minimum must undercut
SIGMA: Seconds = 0.3
EDGE: Seconds = 2.0  # at both ends, not looked at


@dataclass(frozen=True)
class BeatRule:
    """A way to compute the score: bc_compat_* are those behind published figures, bc_fixed is theirs put right.

    Attributes:
        threshold: a minimum counts where the speed, over the joint's mean speed, is above this.
        root: "kept" or "zeroed", orientation of the pelvis in the positions.
        slipped: look the threshold up at the frame number counted from the edge, but in speeds counted from the
            beginning of the clip, 2 s earlier: so do the tools behind the published figures.
    """

    threshold: float
    root: str
    slipped: bool


RULES = {
    "bc_compat_2024": BeatRule(0.30, "kept", slipped=True),
    "bc_compat_2025": BeatRule(0.10, "zeroed", slipped=True),
    "bc_fixed": BeatRule(0.10, "zeroed", slipped=False),
}


def find_onsets(wav: Tensor, sample_rate: int, start: Seconds, duration: Seconds) -> np.ndarray:
    """Return the (m,) onsets between the edges of a clip, in seconds from the first edge.

    Only what lies between the edges is listened to, since the detector scales its thresholds to what it hears.

    Args:
        wav: (C, S), any rate and number of channels.
        sample_rate: Hz.
        start: of the clip in the recording.
        duration: of the clip, edges included.

    Source: librosa.onset.onset_detect with its settings, hop of 512 samples at 16 kHz.
    """
    import librosa

    mono = resample(to_mono(wav), sample_rate, SAMPLE_RATE)[0].numpy()
    first, last = (round(at * SAMPLE_RATE) for at in (start + EDGE, start + duration - EDGE))
    heard = mono[first : max(first, last)]
    if not len(heard):
        return np.zeros(0)
    return librosa.onset.onset_detect(y=heard, sr=SAMPLE_RATE, hop_length=HOP_LENGTH, units="time")


def joint_speeds(positions: np.ndarray, fps: float) -> np.ndarray:
    """Return speeds (T, J) in m/s of positions (T, J, 3) in metres: central differences, one-sided at both ends.

    Raises:
        ValueError: there are fewer than two frames.
    """
    if len(positions) < 2:
        raise ValueError(f"a speed needs two frames or more, not {len(positions)}")
    return np.linalg.norm(np.gradient(positions.astype(np.float64), 1 / fps, axis=0), axis=-1)


def motion_beats(relative: np.ndarray, fps: float, rule: BeatRule, edge: Seconds = EDGE) -> list[np.ndarray]:
    """Return the beats of each joint, in seconds counted from `edge`.

    Args:
        relative: (T, J) speeds over each joint's mean speed.
        fps: frames a second.
        rule: threshold and how it is looked up.
        edge: left out at both ends.
    """
    from scipy.signal import argrelextrema

    skipped = round(edge * fps)
    inner = relative[skipped : len(relative) - skipped]
    looked_up = relative if rule.slipped else inner
    frames, joints = argrelextrema(inner, np.less, axis=0, order=ORDER)
    counts = looked_up[frames, joints] > rule.threshold
    return [np.sort(frames[counts & (joints == joint)]) / fps for joint in range(relative.shape[1])]


def score_beats(beats: Sequence[np.ndarray], onsets: np.ndarray, sigma: Seconds = SIGMA) -> float:
    """Return the mean over joints of the mean over onsets of exp(−d²/2σ²), d to the joint's nearest beat.

    Args:
        beats: per joint (k,) seconds, sorted; a joint without beats scores 0.
        onsets: (m,) seconds of the same clock, m >= 1.
        sigma: width of the bell.

    Raises:
        NotMeasurable: there are no onsets.
    """
    if not len(onsets):
        raise NotMeasurable("no onsets in the audio")
    scores = []
    for times in beats:
        if not len(times):
            scores.append(0.0)
            continue
        after = np.searchsorted(times, onsets)
        nearest = np.minimum(
            np.abs(onsets - times[after.clip(max=len(times) - 1)]), np.abs(onsets - times[(after - 1).clip(min=0)])
        )
        scores.append(float(np.exp(-(nearest**2) / (2 * sigma**2)).mean()))
    return float(np.mean(scores))


def beat_consistency(
    positions: np.ndarray,
    onsets: np.ndarray,
    mean_speeds: np.ndarray,
    fps: float,
    rule: BeatRule,
    *,
    shift: Seconds = 0.0,
) -> tuple[float, Seconds]:
    """Return the score of one clip and the seconds it rests on, its weight in a mean over clips.

    Args:
        positions: (T, 55, 3) metres, root oriented as `rule.root` says, no translation.
        onsets: (m,) seconds from the edge, as `find_onsets` gives them.
        mean_speeds: (55,) m/s, of a corpus.
        fps: frames a second.
        rule: one of `RULES`.
        shift: the motion is taken this much later than it is; a control that should lower the score.

    Raises:
        NotMeasurable: the clip is too short for its edges, has no onsets between them, or a mean speed is 0.
    """
    late = round(shift * fps)
    upper = list(UPPER_JOINTS)
    if not (mean_speeds[upper] > 0).all():
        raise NotMeasurable("a joint of the upper body stands still in all clips that speeds are relative to")
    if len(positions) - late < 2 * (round(EDGE * fps) + ORDER) + 1:
        raise NotMeasurable(f"{len(positions) / fps:.2f} s of motion: too short to leave {EDGE:g} s out at both ends")
    relative = joint_speeds(positions[late:, upper], fps) / mean_speeds[upper]
    duration = len(relative) / fps - 2 * EDGE
    return score_beats(motion_beats(relative, fps, rule), onsets[onsets < duration]), duration
