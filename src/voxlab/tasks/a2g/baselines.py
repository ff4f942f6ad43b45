"""Motion that takes no model: what a table of metrics has to be read against."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from voxlab.motion.clip import Motion
from voxlab.motion.representation import from_frames
from voxlab.motion.statistics import Statistics
from voxlab.tasks.a2g.evaluate import Pair

MEAN_POSE, HOLD, TRUTH, SHUFFLED = "mean pose", "hold every 4th frame", "ground truth", "shuffled clips"
HOLD_FRAMES = 4
_SERIES = ("poses", "trans", "expressions")


def with_baselines(name: str, pairs: Sequence[Pair], statistics: Statistics) -> dict[str, list[Pair]]:
    """Return what `evaluate.evaluate_methods` takes: the pairs under their name, and those of each baseline."""
    made = baselines([pair.reference for pair in pairs], statistics)
    others = {
        method: [dataclasses.replace(pair, predicted=motion) for pair, motion in zip(pairs, motions, strict=True)]
        for method, motions in made.items()
    }
    return {name: list(pairs), **others}


def baselines(references: Sequence[Motion], statistics: Statistics) -> dict[str, list[Motion]]:
    """Return motions for the clips of `references`, as long as these, by the name of the method.

    Mean pose: the mean frame of training, in place. Hold: every 4th frame of the reference, four times. Ground truth:
    the reference. Shuffled: the reference of the next clip, played to and fro where it is too short; without it if
    there is one clip only.

    Args:
        references: recorded motions.
        statistics: of the train split.
    """
    made = {
        TRUTH: list(references),
        HOLD: [_retime(motion, lambda frames: frames // HOLD_FRAMES * HOLD_FRAMES) for motion in references],
        MEAN_POSE: [mean_pose(motion, statistics) for motion in references],
    }
    if len(references) > 1:
        made[SHUFFLED] = [
            play(references[(number + 1) % len(references)], motion.num_frames)
            for number, motion in enumerate(references)
        ]
    return made


def mean_pose(motion: Motion, statistics: Statistics) -> Motion:
    """Return a still of the mean frame of training, as long as `motion` and where it starts."""
    frame = statistics.mean[None].repeat(motion.num_frames, axis=0)
    start = (float(motion.trans[0, 0]), float(motion.trans[0, 2]))
    return from_frames(frame, fps=motion.fps, betas=motion.betas, start_xz=start, trans="none")


def play(motion: Motion, num_frames: int) -> Motion:
    """Return a motion of `num_frames` frames, played to and fro where it is shorter."""
    last = motion.num_frames - 1
    period = max(2 * last, 1)  # that of a single frame is 1
    return _retime(motion, lambda _: last - np.abs(np.arange(num_frames) % period - last))


def _retime(motion: Motion, choose: Callable[[np.ndarray], np.ndarray]) -> Motion:
    chosen = choose(np.arange(motion.num_frames))
    return dataclasses.replace(motion, **{name: getattr(motion, name)[chosen] for name in _SERIES})
