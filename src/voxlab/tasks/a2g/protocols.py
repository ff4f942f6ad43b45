"""Settings of the evaluation, and which of the measured values the papers of 2024 and of 2025 print, in what scale."""

from dataclasses import dataclass, field

from voxlab.errors import UserError, check_types

_STRIDE = 16  # frames that a feature vector of fgd_ae stands for


@dataclass(frozen=True)
class FgdNet:
    """The autoencoder whose features `fgd_ae` compares: its size and its training.

    Attributes:
        width: channels of its convolutions.
        dim: numbers in a feature vector; each stands for 16 frames.
        steps: of training.
        batch_size: windows in a step.
        window: frames, a multiple of 16.
        lr: learning rate of Adam.
        seed: of weights and windows.
    """

    width: int = 256
    dim: int = 64
    steps: int = 2000
    batch_size: int = 64
    window: int = 64
    lr: float = 3e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: names the key, what it holds and what is allowed.
        """
        check_types(self, "metrics.fgd.")
        for name in ("width", "dim", "steps", "batch_size", "window", "lr"):
            if not getattr(self, name) > 0:
                raise UserError(f"metrics.fgd.{name}={getattr(self, name)}: give a number above 0.")
        if self.window % _STRIDE:
            near = [self.window // _STRIDE * _STRIDE or _STRIDE, -(-self.window // _STRIDE) * _STRIDE]
            raise UserError(
                f"metrics.fgd.window={self.window}: not a multiple of {_STRIDE}; try {' or '.join(map(str, near))}."
            )


@dataclass(frozen=True)
class Metrics:
    """The keys metrics.*.

    Attributes:
        protocol: default, paper2024 or paper2025: which values lead the table. All are measured in any case.
        fgd: the network of fgd_ae.
        fgd_emage: file with EMAGE's weights (AESKConv_240_100) for fgd_emage; null: without.
        mean_speeds: .npy of 55 mean joint speeds in m/s, to which beats are relative; null: those of the train split.
        mesh: auto: vertices of the face where the body model is there; required: an error where it is not.
        force: compare features although there are fewer than twice their dimension.
    """

    protocol: str = "default"
    fgd: FgdNet = field(default_factory=FgdNet)
    fgd_emage: str | None = None
    mean_speeds: str | None = None
    mesh: str = "auto"
    force: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UserError: names the key, what it holds and what is allowed.
        """
        check_types(self, "metrics.")
        _choose("metrics.protocol", self.protocol, tuple(PROTOCOLS))
        _choose("metrics.mesh", self.mesh, ("auto", "required"))


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        title: what stands above it.
        value: name of the measured value.
        scale: what it is multiplied by.
    """

    title: str
    value: str
    scale: float = 1.0


_PAPER_FGD = Column("FGD ×10", "fgd_emage", 10)  # of no other network: distances of two networks don't compare
PROTOCOLS: dict[str, tuple[Column, ...]] = {
    "default": (
        Column("FGD, EMAGE's net", "fgd_emage"),
        Column("FGD, own net", "fgd_ae"),
        Column("FGD, raw", "fgd_raw"),
        Column("BC, corrected", "bc_fixed"),
        Column("BC over shifted, corrected", "bc_fixed_over_shifted"),
        Column("L1 diversity", "l1div"),
        Column("face MSE", "face_mse"),
        Column("face LVD", "face_lvd"),
        Column("face MSE (coefficients)", "face_coef_mse"),
        Column("face LVD (coefficients)", "face_coef_lvd"),
        Column("jerk (m/s³)", "jerk"),
        Column("angle (°)", "geodesic_deg"),
        Column("MPJPE (cm)", "mpjpe_cm"),
        Column("foot skate (m/s)", "foot_skate"),
        Column("root drift (m)", "root_drift"),
    ),
    # Root orientation kept, threshold 0.3, and the L1 error of positions under the name of LVD.
    "paper2024": (
        _PAPER_FGD,
        Column("BC ×10", "bc_compat_2024", 10),
        Column("diversity", "l1div_root_kept"),
        Column("face MSE ×1e8", "face_mse", 1e8),
        Column("face LVD (positions) ×1e5", "face_position_l1", 1e5),
    ),
    "paper2025": (
        _PAPER_FGD,
        Column("BC ×10", "bc_compat_2025", 10),
        Column("diversity", "l1div"),
        Column("face MSE ×1e8", "face_mse", 1e8),
        Column("face LVD ×1e5", "face_lvd", 1e5),
    ),
}


def _choose(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{key}={value}: choose {', '.join(allowed[:-1])} or {allowed[-1]}.")
