"""Plots of an evaluation: speed of the upper body with onsets and beats, and errors joint by joint."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from voxlab.audio import load
from voxlab.metrics import beats
from voxlab.motion.clip import Motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.skeleton import UPPER_JOINTS, Skeleton
from voxlab.plots import INK, WIDE, plot_curves
from voxlab.tasks.a2g.evaluate import Pair

_TALL = (WIDE[0], 3.2)
_SECONDS = 20.0  # of a clip, from its edge on
_RULE = beats.RULES["bc_fixed"]


def plot_speed(pair: Pair, skeleton: Skeleton, mean_speeds: np.ndarray) -> Figure:
    """Draw the speed of the upper body over its mean speed, predicted and real, with the onsets of the audio.

    Ticks at the bottom are beats of any upper joint of the prediction, faint lines are onsets. The clip's first and
    last 2 s, which beat consistency leaves out, are not shown, nor is what lies beyond 20 s.

    Args:
        pair: of one clip.
        skeleton: gives positions of joints.
        mean_speeds: (55,) m/s that speeds are relative to, positive.
    """
    fps, curves = pair.reference.fps, {}
    for name, motion in {"real": pair.reference, "predicted": pair.predicted}.items():
        relative = _relative_speeds(motion, skeleton, mean_speeds)
        first = round(beats.EDGE * fps)
        shown = relative[first : len(relative) - first][: round(_SECONDS * fps)].mean(1)
        curves[name] = ((np.arange(len(shown)) / fps + beats.EDGE).tolist(), shown.tolist())
    chart = plot_curves(curves, "time (s)", "speed / mean speed")
    axes = chart.axes[0]
    low, high = axes.get_xlim()
    relative = _relative_speeds(pair.predicted, skeleton, mean_speeds)
    marks = np.unique(np.concatenate(beats.motion_beats(relative, fps, _RULE))) + beats.EDGE
    axes.plot(marks, np.zeros(len(marks)), "|", color="C1", markersize=6)
    if pair.wav is not None:
        wav, sample_rate = load(pair.wav)
        duration = pair.reference.num_frames / fps
        onsets = beats.find_onsets(wav, sample_rate, pair.wav_start_s, duration) + beats.EDGE
        axes.vlines(onsets, *axes.get_ylim(), color=INK, linewidth=0.5, alpha=0.5)
    axes.set_xlim(low, high)
    return chart


def _relative_speeds(motion: Motion, skeleton: Skeleton, mean_speeds: np.ndarray) -> np.ndarray:
    """Return (T, 13) speeds of the upper joints over their mean speeds."""
    upper = list(UPPER_JOINTS)
    positions = joint_positions(motion, skeleton, root="zeroed", trans=False)[:, upper]
    return beats.joint_speeds(positions, motion.fps) / mean_speeds[upper]


def plot_joints(records: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw each method's mean angle to the reference, joint by joint.

    Args:
        records: method -> record of `evaluate.evaluate`, of the same clips and layout.
    """
    joints = list(next(iter(records.values()))["joints"])
    curves = {
        method: (range(len(joints)), [record["joints"][joint]["degrees"] for joint in joints])
        for method, record in records.items()
    }
    chart = plot_curves(curves, "", "degrees", size=_TALL)
    axes = chart.axes[0]
    axes.set_xticks(range(len(joints)), [joint.replace("_", " ") for joint in joints], rotation=90, fontsize=6)
    box = axes.get_position()
    axes.set_position((box.x0, 0.32, box.width, box.y1 - 0.32))
    return chart
