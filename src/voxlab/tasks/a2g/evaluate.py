"""Metrics of gestures: pairs of predicted and real motion in, one JSON-ready record out.

Needs no model of gestures: whatever made the motion, it is measured in the same way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.audio import load
from voxlab.errors import UserError
from voxlab.metrics.beats import find_onsets
from voxlab.motion.clip import Motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.parts import Layout
from voxlab.motion.representation import TransMode
from voxlab.motion.skeleton import Skeleton
from voxlab.motion.smplx_model import BodyModel
from voxlab.motion.statistics import Statistics
from voxlab.tasks.a2g.fgd import FeatureNet, TrainReference, mean_speeds, raw_net
from voxlab.tasks.a2g.measure import MIN_FRAMES, SHIFT, Body, Measured, compare, measure_alone, prepare
from voxlab.tasks.a2g.protocols import Metrics
from voxlab.tasks.a2g.tally import Tally

MAX_DIFFERENCE = 2  # frames by which the lengths of a pair may differ


@dataclass(frozen=True)
class Pair:
    """Two motions of one clip.

    Attributes:
        id: of the clip.
        predicted: what is measured.
        reference: the recorded motion.
        wav: recording, for beat consistency; None: without.
        wav_start_s: seconds into the recording at which the motion begins.
    """

    id: str
    predicted: Motion
    reference: Motion
    wav: Path | None
    wav_start_s: float = 0.0


def evaluate(
    pairs: Sequence[Pair],
    *,
    settings: Metrics,
    skeleton: Skeleton,
    layout: Layout,
    statistics: Statistics,
    nets: Sequence[FeatureNet] = (),
    train: TrainReference | None = None,
    body: BodyModel | None = None,
    trans: TransMode = "velocity",
) -> dict[str, Any]:
    """Measure predicted motion.

    Args:
        pairs: one a clip; all of one frame rate.
        settings: protocol and the rest.
        skeleton: gives positions of joints.
        layout: parts of the body.
        statistics: of the train split; normalise the parts.
        nets: features to compare; none: those of fgd_raw.
        train: mean speeds of joints; None: those of the references.
        body: for vertices of the face; None: without.
        trans: data.trans of the statistics: how the root's path is turned into numbers.

    Returns:
        JSON-ready: "values" name -> number; "reference", what measures of a motion alone give for the references;
        "headline", what the protocol prints; "fgd", "joints", "clips" with the details; "skipped", what could not be
        measured and why; "about", how it was measured.

    Raises:
        UserError: nothing to measure, pairs of different rates or lengths, or a mesh that is required and absent.
    """
    given: dict[str, Any] = {"nets": nets, "train": train, "body": body, "trans": trans}
    found = evaluate_methods(
        {"": pairs}, settings=settings, skeleton=skeleton, layout=layout, statistics=statistics, **given
    )
    return found[""]


def evaluate_methods(
    methods: Mapping[str, Sequence[Pair]],
    *,
    settings: Metrics,
    skeleton: Skeleton,
    layout: Layout,
    statistics: Statistics,
    nets: Sequence[FeatureNet] = (),
    train: TrainReference | None = None,
    body: BodyModel | None = None,
    trans: TransMode = "velocity",
) -> dict[str, dict[str, Any]]:
    """Measure several methods on the same clips; as `evaluate`, but references are measured once.

    Args:
        methods: name -> pairs, of the same clips in the same order.
        settings: see `evaluate`, as all others.
        skeleton: see `evaluate`.
        layout: see `evaluate`.
        statistics: see `evaluate`.
        nets: see `evaluate`.
        train: see `evaluate`.
        body: see `evaluate`.
        trans: see `evaluate`.

    Returns:
        name -> what `evaluate` returns.
    """
    _check(methods, settings, body)
    first = next(iter(methods.values()))
    known = train or TrainReference(mean_speeds(_speed_sources(first, skeleton)), "references")
    tools = Body(skeleton, layout, statistics, known.mean_speeds, body, trans)
    chosen = list(nets) or [raw_net(statistics)]
    tallies = {name: Tally([net.name for net in chosen]) for name in methods}
    for pairs in zip(*methods.values(), strict=True):
        _measure_clip(dict(zip(methods, pairs, strict=True)), tallies, tools, chosen)
    about = _about(first, settings, tools, known)
    return {name: tally.record(settings, chosen, known, tools, about) for name, tally in tallies.items()}


def _measure_clip(
    pairs: Mapping[str, Pair], tallies: Mapping[str, Tally], tools: Body, nets: Sequence[FeatureNet]
) -> None:
    """Add one clip, by all methods, to the tallies."""
    example = next(iter(pairs.values()))
    if reason := _unusable(example.reference):
        for tally in tallies.values():
            tally.skip(example.id, f"reference: {reason}")
        return
    reference = prepare(example.reference, tools)
    onsets = None if example.wav is None else _listen(example)
    alone = measure_alone(reference, onsets, tools)
    known = {net.name: net.features(reference.frames) for net in nets}
    for name, pair in pairs.items():
        tally = tallies[name]
        tally.count_bad(pair.predicted)
        if reason := _unusable(pair.predicted):
            tally.skip(pair.id, reason)
            continue
        predicted = prepare(pair.predicted, tools)
        found = {net.name: net.features(predicted.frames) for net in nets}
        own, other = _cut(predicted, reference)
        tally.add(pair.id, measure_alone(predicted, onsets, tools), alone, compare(own, other, tools), found, known)


def _cut(predicted: Measured, reference: Measured) -> tuple[Measured, Measured]:
    frames = min(predicted.motion.num_frames, reference.motion.num_frames)
    return predicted.cut(frames), reference.cut(frames)


def _unusable(motion: Motion) -> str:
    """Return why a motion can't be measured, or ""."""
    if motion.num_frames < MIN_FRAMES:
        return f"{motion.num_frames} frames, fewer than {MIN_FRAMES}"
    finite = [np.isfinite(values).all() for values in (motion.poses, motion.trans, motion.expressions)]
    return "" if all(finite) else "numbers that are not finite"


def _listen(pair: Pair) -> np.ndarray:
    assert pair.wav is not None
    wav, sample_rate = load(pair.wav)
    return find_onsets(wav, sample_rate, pair.wav_start_s, pair.reference.num_frames / pair.reference.fps)


def _speed_sources(pairs: Sequence[Pair], skeleton: Skeleton) -> Iterator[tuple[np.ndarray, int]]:
    for pair in pairs:
        if not _unusable(pair.reference):
            yield joint_positions(pair.reference, skeleton), pair.reference.fps


def _check(methods: Mapping[str, Sequence[Pair]], settings: Metrics, body: BodyModel | None) -> None:
    if not methods or not all(methods.values()):
        raise UserError("there are no clips to evaluate.")
    ids = {name: [pair.id for pair in pairs] for name, pairs in methods.items()}
    if len({tuple(own) for own in ids.values()}) > 1:
        raise ValueError(f"the methods have different clips: {ids}")
    if settings.mesh == "required" and body is None:
        raise UserError(
            "metrics.mesh=required, but there is no body model. Give body.skeleton=smplx body.path=FOLDER "
            "(SMPLX_NEUTRAL_2020.npz, after registration), or choose metrics.mesh=auto."
        )
    rates = {motion.fps for pairs in methods.values() for pair in pairs for motion in (pair.predicted, pair.reference)}
    if len(rates) > 1:
        raise UserError(
            f"motions of {', '.join(map(str, sorted(rates)))} frames a second can't be compared. Bring them to one."
        )
    for pair in (pair for pairs in methods.values() for pair in pairs):
        _check_lengths(pair)


def _check_lengths(pair: Pair) -> None:
    own, other = pair.predicted.num_frames, pair.reference.num_frames
    if abs(own - other) > MAX_DIFFERENCE:
        raise UserError(
            f"{pair.id}: {own} predicted frames for {other} of the reference; up to {MAX_DIFFERENCE} more or fewer are "
            "cut. Generate from the audio of the same clip, at the same frame rate."
        )


def _about(pairs: Sequence[Pair], settings: Metrics, tools: Body, train: TrainReference) -> dict[str, Any]:
    return {
        "protocol": settings.protocol,
        "fps": pairs[0].reference.fps,
        "layout": tools.layout.name,
        "joints": tools.skeleton.name,
        "root": {
            "bc_compat_2024, l1div_root_kept, mpjpe_cm": "orientation kept, no translation",
            "bc_compat_2025, bc_fixed, l1div, jerk": "orientation zeroed, no translation",
            "foot_skate, root_drift": "orientation and translation kept",
        },
        "mean_speeds": train.source,
        "shift_s": SHIFT,
        "mesh": tools.mesh is not None,
        "eyes": "excluded from errors, as written for FGD",
    }
