"""Settings of `task=a2g`, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from voxlab.errors import UserError, check_types
from voxlab.models.gesture.masking import Masking
from voxlab.models.gesture.sampling import Sampling
from voxlab.tasks.a2g.protocols import FgdNet, Metrics
from voxlab.tasks.settings import read

MONITORS = {"val/ce": -1, "val/rec": -1, "val/accuracy": 1}  # name -> sign that makes higher better
RENDERS = ("stick", "mesh", "none")
SKELETONS = ("synthetic", "smplx", "npz")


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What conf/task/a2g.yaml describes under `fit`.

    Raises:
        UserError: a value is out of range.
    """

    batch_size: int = 64
    window: int = 64
    stride: int = 20
    masking: Masking = field(default_factory=Masking)
    ema_decay: float = 0.999
    monitor: str = "val/ce"
    patience: int | None = None
    save_every: int = 1000
    generate_every: int = 0
    compile: bool = False

    def __post_init__(self) -> None:
        check_types(self, "fit.")
        for name in ("batch_size", "window", "stride", "patience", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"fit.{name}={value}: give a whole number of 1 or more.")
        if self.generate_every < 0:
            raise UserError(f"fit.generate_every={self.generate_every}: give a whole number of epochs, or 0 for never.")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"fit.ema_decay={self.ema_decay}: give a number from 0 to below 1.")
        if self.monitor not in MONITORS:
            raise UserError(f"fit.monitor={self.monitor}: choose {', '.join(MONITORS)}.")

    def check_windows(self, frames_per_token: int) -> None:
        """Refuse windows that do not begin and end between tokens.

        Args:
            frames_per_token: of the part with the slowest tokens.

        Raises:
            UserError: names the nearest lengths that fit.
        """
        for name in ("window", "stride"):
            value = getattr(self, name)
            if value % frames_per_token:
                below = value - value % frames_per_token
                near = [str(number) for number in (below, below + frames_per_token) if number]
                raise UserError(
                    f"fit.{name}={value} is no multiple of the {frames_per_token} frames of a token: set "
                    f"fit.{name}={' or '.join(near)}."
                )


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """How long audio is generated in windows: what conf/task/a2g.yaml has under `sampling` besides the draw itself.

    Raises:
        UserError: a value is out of range.
    """

    seed_tokens: int = 4
    window: int | None = None
    given: int = 0

    def __post_init__(self) -> None:
        check_types(self, "sampling.")
        if self.window is not None and self.window < 1:
            raise UserError(f"sampling.window={self.window}: give a whole number of 1 or more, or null.")
        for name in ("seed_tokens", "given"):
            if getattr(self, name) < 0:
                raise UserError(f"sampling.{name}={getattr(self, name)}: give a whole number of 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Generate:
    """What stage=generate is given besides audio: conf/task/a2g.yaml describes it under `generate`."""

    speaker: str | int | None = None
    seed_motion: str | None = None
    end_motion: str | None = None
    transcript: str | None = None
    in_place: bool = False

    def __post_init__(self) -> None:
        check_types(self, "generate.")


@dataclass(frozen=True, kw_only=True)
class Body:
    """Whose joints are measured and drawn: conf/task/a2g.yaml describes it under `body`.

    Raises:
        UserError: an unknown skeleton.
    """

    skeleton: str = "synthetic"
    path: str | None = None

    def __post_init__(self) -> None:
        check_types(self, "body.")
        if self.skeleton not in SKELETONS:
            raise UserError(f"body.skeleton={self.skeleton}: choose {', '.join(SKELETONS)}.")
        if self.skeleton != "synthetic" and self.path is None:
            raise UserError(f"body.skeleton={self.skeleton} needs body.path=<folder or file>; or take synthetic.")


@dataclass(frozen=True, kw_only=True)
class Stores:
    """Where task=extract wrote the features: conf/task/a2g.yaml describes it under `stores`."""

    features: str
    acoustic: str

    def __post_init__(self) -> None:
        check_types(self, "stores.")


def check_render(render: str, body: Body) -> None:
    """Refuse an unknown way to draw, and meshes without a body.

    Raises:
        UserError: says what there is.
    """
    if render not in RENDERS:
        raise UserError(f"render={render}: choose {', '.join(RENDERS)}.")
    if render == "mesh" and body.skeleton != "smplx":
        raise UserError(
            "render=mesh draws the SMPL-X body: set body.skeleton=smplx body.path=<folder>, or render=stick."
        )


def read_fit(values: Mapping[str, Any]) -> Fit:
    """Return the checked settings of training.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    return read(Fit, {**values, "masking": read(Masking, values["masking"], "fit.masking")}, "fit")


def read_sampling(values: Mapping[str, Any]) -> tuple[Sampling, Overlap]:
    """Return the checked settings of the draw and of the windows of longer audio.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    own = {item.name for item in fields(Overlap)}
    draw = {name: value for name, value in values.items() if name not in own}
    rest = {name: value for name, value in values.items() if name in own}
    return read(Sampling, draw, "sampling"), read(Overlap, rest, "sampling")


def read_metrics(values: Mapping[str, Any]) -> Metrics:
    """Return the checked settings of the evaluation.

    Raises:
        UserError: an unknown key, or a value out of range.
    """
    return read(Metrics, {**values, "fgd": read(FgdNet, values["fgd"], "metrics.fgd")}, "metrics")
