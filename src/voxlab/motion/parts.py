"""Parts of the body, with a tokenizer each: which joints and extras they hold, and where these lie in a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from voxlab.errors import UserError
from voxlab.motion.clip import NUM_EXPRESSIONS, NUM_JOINTS
from voxlab.motion.skeleton import HAND_JOINTS, JAW, JOINT_NAMES, LOWER_JOINTS, UPPER_JOINTS

ROTATION_DIM = 6 * NUM_JOINTS
TRANSLATION_DIM = 3
EXTRAS = {
    "translation": range(ROTATION_DIM, ROTATION_DIM + TRANSLATION_DIM),
    "expressions": range(ROTATION_DIM + TRANSLATION_DIM, ROTATION_DIM + TRANSLATION_DIM + NUM_EXPRESSIONS),
}
FRAME_DIM = ROTATION_DIM + TRANSLATION_DIM + NUM_EXPRESSIONS
CUSTOM = "custom"


@dataclass(frozen=True)
class Part:
    """A part of the body.

    Attributes:
        name: as in `part=...`.
        joints: numbers of the joints whose rotations it holds, in this order.
        extras: what follows the rotations: "translation" (3 numbers), "expressions" (100).
    """

    name: str
    joints: tuple[int, ...]
    extras: tuple[str, ...] = ()

    @property
    def dim(self) -> int:
        """Numbers a frame: six a joint, and the extras."""
        return 6 * len(self.joints) + sum(len(EXTRAS[extra]) for extra in self.extras)


@dataclass(frozen=True)
class Layout:
    """How the body is divided into parts.

    Attributes:
        name: of the preset, or "custom".
        parts: disjoint.
        normalize_face: whether the expressions are standardised like all else.
        jaw: "predicted" where a part holds the jaw, else "mean": the mean rotation of training is written.
    """

    name: str
    parts: tuple[Part, ...]
    normalize_face: bool
    jaw: Literal["predicted", "mean"]

    @property
    def dim(self) -> int:
        """Numbers a frame, of all parts."""
        return sum(part.dim for part in self.parts)

    @property
    def uncovered(self) -> tuple[int, ...]:
        """Joints that no part holds."""
        covered = {joint for part in self.parts for joint in part.joints}
        return tuple(joint for joint in range(NUM_JOINTS) if joint not in covered)

    @property
    def table(self) -> dict[str, dict[str, list[Any]]]:
        """The layout as plain values, which `read_layout` takes back."""
        return {part.name: {"joints": list(part.joints), "extras": list(part.extras)} for part in self.parts}

    def part(self, name: str) -> Part:
        """Return a part by its name.

        Raises:
            UserError: the layout has no such part.
        """
        for part in self.parts:
            if part.name == name:
                return part
        names = ", ".join(part.name for part in self.parts)
        raise UserError(f"part={name}: layout {self.name} has the parts {names}.")


_BODY_PARTS = (
    Part("upper", UPPER_JOINTS),
    Part("hands", HAND_JOINTS),
    Part("lower_trans", LOWER_JOINTS, ("translation",)),
)
PRESETS = {
    "full421": Layout("full421", (*_BODY_PARTS, Part("face", (JAW,), ("expressions",))), True, "predicted"),
    "legacy415": Layout("legacy415", (*_BODY_PARTS, Part("face", (), ("expressions",))), False, "mean"),
}


def read_layout(layout: str | Mapping[str, Any]) -> Layout:
    """Return a layout by the name of its preset, or from a table.

    Args:
        layout: "full421", "legacy415", or part -> {joints: numbers or names, extras: names}. A table equal to a
            preset is that preset; any other one has all its columns standardised.

    Raises:
        UserError: an unknown preset, key, joint or extra, an empty part, or something that two parts hold.
    """
    if isinstance(layout, str):
        if layout not in PRESETS:
            raise UserError(
                f"data.layout={layout}: choose {' or '.join(PRESETS)}, or give a table part -> {{joints, extras}}."
            )
        return PRESETS[layout]
    if not layout:
        raise UserError("data.layout: the table has no part; give part -> {joints, extras}.")
    parts = tuple(_read_part(name, row) for name, row in layout.items())
    _refuse_overlap(parts)
    for preset in PRESETS.values():
        if preset.parts == parts:
            return preset
    has_jaw = any(JAW in part.joints for part in parts)
    return Layout(CUSTOM, parts, True, "predicted" if has_jaw else "mean")


def _read_part(name: str, row: Any) -> Part:
    key = f"data.layout.{name}"
    if not isinstance(row, Mapping) or not set(row) <= {"joints", "extras"}:
        raise UserError(f"{key}={row!r}: give {{joints: [...], extras: [...]}}.")
    joints = tuple(_read_joint(joint, key) for joint in _as_list(row.get("joints"), f"{key}.joints"))
    extras = tuple(_as_list(row.get("extras"), f"{key}.extras"))
    unknown = [extra for extra in extras if extra not in EXTRAS]
    if unknown:
        raise UserError(f"{key}.extras={list(extras)}: {unknown[0]!r} is unknown; choose from {', '.join(EXTRAS)}.")
    if not joints and not extras:
        raise UserError(f"{key} is empty; give it joints or extras, or drop it.")
    return Part(name, joints, extras)


def _as_list(value: Any, key: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UserError(f"{key}={value!r}: give a list.")
    return list(value)


def _read_joint(joint: Any, key: str) -> int:
    if isinstance(joint, str) and joint in JOINT_NAMES:
        return JOINT_NAMES.index(joint)
    if isinstance(joint, int) and not isinstance(joint, bool) and 0 <= joint < NUM_JOINTS:
        return joint
    raise UserError(
        f"{key}.joints: {joint!r} is no joint; give numbers 0...{NUM_JOINTS - 1} or names such as {JOINT_NAMES[1]}."
    )


def _refuse_overlap(parts: Sequence[Part]) -> None:
    owner: dict[int | str, str] = {}
    for part in parts:
        for thing in (*part.joints, *part.extras):
            if thing in owner:
                name = f"joint {thing} ({JOINT_NAMES[thing]})" if isinstance(thing, int) else thing
                raise UserError(f"data.layout: {name} is in {owner[thing]} and in {part.name}; keep it in one place.")
            owner[thing] = part.name


def columns(part: Part) -> np.ndarray:
    """Return the (D,) int64 columns of a frame that a part holds: six for each joint in its order, then the extras."""
    rotations = [range(6 * joint, 6 * joint + 6) for joint in part.joints]
    extras = [EXTRAS[extra] for extra in part.extras]
    return np.concatenate([np.asarray(run, np.int64) for run in (*rotations, *extras)])
