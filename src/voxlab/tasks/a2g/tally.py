"""Sums of what was measured clip by clip, and the record made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.metrics.errors import NotMeasurable
from voxlab.metrics.frechet import ENOUGH, check_enough, fit_gaussian, frechet_distance
from voxlab.motion.clip import Motion
from voxlab.motion.skeleton import JOINT_NAMES
from voxlab.tasks.a2g.fgd import FeatureNet, TrainReference
from voxlab.tasks.a2g.measure import Body, Comparison, Reasons, Values
from voxlab.tasks.a2g.protocols import PROTOCOLS, Metrics

Features = Mapping[str, np.ndarray]  # name of a net -> (n, d) of one clip


class Tally:
    """What one method got, clip by clip.

    Args:
        nets: names of the nets whose features are compared.
    """

    def __init__(self, nets: Sequence[str]) -> None:
        self._own: list[Values] = []
        self._references: list[Values] = []
        self._comparisons: list[Comparison] = []
        self._ids: list[str] = []
        self._left_out: dict[str, str] = {}
        self._reasons: dict[str, dict[str, str]] = {}
        self._features: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {name: ([], []) for name in nets}
        self._bad_numbers = 0

    def count_bad(self, motion: Motion) -> None:
        """Count the numbers that are not finite."""
        for values in (motion.poses, motion.trans, motion.expressions):
            self._bad_numbers += int((~np.isfinite(values)).sum())

    def skip(self, clip: str, reason: str) -> None:
        """Leave a clip out, and say why."""
        self._left_out[clip] = reason

    def add(
        self,
        clip: str,
        alone: tuple[Values, Reasons],
        reference: tuple[Values, Reasons],
        comparison: Comparison,
        features: Features,
        reference_features: Features,
    ) -> None:
        """Add a clip."""
        self._ids.append(clip)
        self._own.append({**alone[0], **comparison.values})
        self._references.append(reference[0])
        self._comparisons.append(comparison)
        for name, reason in {**alone[1], **comparison.reasons}.items():
            self._reasons.setdefault(name, {})[clip] = reason
        for name, (own, other) in self._features.items():
            own.append(features[name])
            other.append(reference_features[name])

    def record(
        self,
        settings: Metrics,
        nets: Sequence[FeatureNet],
        train: TrainReference,
        tools: Body,
        about: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return the record, see `evaluate.evaluate`.

        Raises:
            UserError: every clip was left out.
        """
        if not self._ids:
            told = "; ".join(f"{clip}: {reason}" for clip, reason in self._left_out.items())
            raise UserError(f"no clip could be measured. {told}")
        values, skipped = _means(self._own), self._skipped()
        distances: dict[str, dict[str, Any]] = {}
        for net in nets:
            try:
                values[net.name], distances[net.name] = self._distance(net, settings, train)
            except NotMeasurable as reason:
                skipped[net.name] = str(reason)
        values["bad_numbers"] = self._bad_numbers
        columns = PROTOCOLS[settings.protocol]
        return {
            "values": values,
            "reference": _means(self._references),
            "headline": {column.title: _scaled(values.get(column.value), column.scale) for column in columns},
            "fgd": distances,
            "joints": self._joints(tools),
            "clips": {
                clip: {name: value for name, (value, _) in own.items()}
                for clip, own in zip(self._ids, self._own, strict=True)
            },
            "skipped": skipped,
            "left_out": self._left_out,
            "about": {**about, "clips": len(self._ids), "frames": sum(found.frames for found in self._comparisons)},
        }

    def _skipped(self) -> dict[str, str]:
        """Spell why a value is absent, or lacks some clips."""
        told = {}
        for name, reasons in self._reasons.items():
            reason = next(iter(reasons.values()))
            share = "" if len(reasons) == len(self._ids) else f"{len(reasons)} of {len(self._ids)} clips: "
            told[name] = share + reason
        return told

    def _distance(self, net: FeatureNet, settings: Metrics, train: TrainReference) -> tuple[float, dict[str, Any]]:
        own, other = (fit_gaussian(found) for found in self._features[net.name])
        if not settings.force:
            check_enough(own)
            check_enough(other)
        known = train.features.get(net.name)
        return frechet_distance(own, other), {
            "net": net.id,
            "dim": own.dim,
            "predicted": own.num_samples,
            "reference": other.num_samples,
            "enough": min(own.num_samples, other.num_samples) >= ENOUGH * own.dim,
            "train_against_reference": None if known is None else frechet_distance(known, other),
        }

    def _joints(self, tools: Body) -> dict[str, dict[str, float]]:
        """Return joint -> mean angle in degrees and mean distance in centimetres."""
        weights = [found.frames for found in self._comparisons]
        angles, distances = (
            np.average([getattr(found, name) for found in self._comparisons], axis=0, weights=weights)
            for name in ("angles", "distances")
        )
        return {
            JOINT_NAMES[joint]: {"degrees": float(angles[joint]), "cm": float(distances[joint])}
            for joint in tools.joints
        }


def _means(clips: Sequence[Values]) -> dict[str, float]:
    """Return the weighted mean of each value over the clips that have it."""
    names = dict.fromkeys(name for clip in clips for name in clip)
    pairs = {name: [clip[name] for clip in clips if name in clip] for name in names}
    return {
        name: float(np.average([value for value, _ in found], weights=[weight for _, weight in found]))
        for name, found in pairs.items()
    }


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale
