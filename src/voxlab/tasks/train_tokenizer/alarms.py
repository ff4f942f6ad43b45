"""Signs that a training run goes wrong, told once each with what to do about it."""

from collections.abc import Mapping

from torch import Tensor

_FIRST_STEP = 1000  # before, codebooks are still being filled
_ENOUGH = 5  # vectors for each entry, for a verdict on the use of a codebook
_WON_STEPS = 2000


class Alarms:
    """Remembers what was told, and the use of the codebooks in training for comparison with validation."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._waiting: list[tuple[str, str]] = []
        self._use: list[float] = []
        self._won = 0

    def check_use(self, counts: Tensor, step: int) -> None:
        """Look at (Q, K) counts of the codes in training."""
        size = counts.shape[1]
        self._use = (counts > 0).double().mean(1).tolist()
        if step < _FIRST_STEP:
            return
        for number, (use, total) in enumerate(zip(self._use, counts.sum(1).tolist(), strict=True), 1):
            if total >= _ENOUGH * size and use < 0.1:
                self._tell(
                    f"use {number}",
                    f"codebook {number} uses {use:.0%} of its {size} entries. Lower codec.architecture.quantizer."
                    "codebook_size, raise fit.warmup_steps or fit.pool_size, or train on more data.",
                )

    def check_validation(self, counts: Tensor) -> None:
        """Compare (Q, K) counts of validation with the last ones of training."""
        use = (counts > 0).double().mean(1).tolist()
        totals = counts.sum(1).tolist()
        for number, (val, train, total) in enumerate(zip(use, self._use, totals, strict=False), 1):
            if total >= _ENOUGH * counts.shape[1] and val < train - 0.3:
                self._tell(
                    f"val use {number}",
                    f"codebook {number} uses {val:.0%} of its entries in validation, {train:.0%} in training: the "
                    "codes are fitted to the training speakers. Train on more speakers or lower codebook_size.",
                )

    def check_row(self, row: Mapping[str, float], step: int, interval: int) -> list[str]:
        """Look at logged values, `interval` steps apart; return what is to be told now."""
        for name, value in row.items():
            if name.startswith("vq/entropy_bits/") and step >= _FIRST_STEP and value < 1:
                book = name.rpartition("/")[2]
                self._tell(
                    f"entropy {book}",
                    f"codebook {book} carries {value:.2f} bits: nearly always the same entry. Raise fit.warmup_steps, "
                    "or lower optim.lr.",
                )
        if row.get("train/z_std", 1.0) < 1e-3:
            self._tell(
                "latents",
                f"the latents have collapsed (standard deviation {row['train/z_std']:.2g}). Lower optim.lr, raise "
                "fit.warmup_steps, or take a wider network.",
            )
        gap = abs(row.get("gan/d_real", 0.0) - row.get("gan/d_fake", 0.0))
        if "gan/d_real" in row:
            self._won = self._won + interval if gap > 0.95 else 0
        if self._won >= _WON_STEPS:
            self._tell(
                "discriminator",
                f"the discriminator has told real from coded audio with certainty for {self._won} steps. Lower "
                "loss.wave.adversarial, or start it later (loss.wave.adv_start_step).",
            )
        told = [message for _, message in self._waiting]
        self._waiting = []
        return told

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._waiting.append((what, message))
