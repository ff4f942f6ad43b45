"""Base of the LightningModules that train a tokenizer: start of the quantizer, averaged weights, exact resume, logging.

Manual optimisation throughout, one batch a step; every random choice is a function of (seed, step). A subclass gives
its losses and, where one descent a step is not enough, its `training_step`.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.tokenizer.files import TASK, architecture_to_dict
from voxlab.models.tokenizer.output import Output
from voxlab.tasks.averages import update_average
from voxlab.tasks.optim import Schedule
from voxlab.tasks.train_tokenizer.settings import MAX_SKIPPED, Fit, Loop
from voxlab.tasks.train_tokenizer.usage import CodebookUse, count_codes, valid_codes

log = logging.getLogger(__name__)

Batch = dict[str, Any]
_DROPOUT, REVIVAL, POOL = 1, 2, 3  # purposes of random numbers


class TokenizerModule(LightningModule):
    """A network in training, with what is to be saved of it.

    Attributes:
        network: the network in training.
        ema_network: its averaged weights: what is evaluated and exported.
        step: batches trained on so far; the only clock (Lightning's own counts descents).
        monitor: name of the validation metric whose lowest value is the best.

    Args:
        network: built by `architecture`.
        architecture: a frozen dataclass with `family`.
        loss: weights of the losses of this family.
        optim: makes the optimisers.
        fit: settings.
        loop: settings.
        seed: of every random choice.
        facts: what checkpoints and exports say besides, JSON-able.
    """

    monitor = "val/loss"
    network: Any
    ema_network: Any

    def __init__(
        self,
        network: nn.Module,
        architecture: Any,
        *,
        loss: Mapping[str, Any],
        optim: Schedule,
        fit: Fit,
        loop: Loop,
        seed: int,
        facts: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network, self.architecture = network, architecture
        self.ema_network = copy.deepcopy(network).requires_grad_(False).eval()
        self.loss, self.optim, self.fit, self.loop = dict(loss), optim, fit, loop
        self.seed, self.facts = seed, dict(facts)
        self.step, self.num_skipped = 0, 0
        self.calibrated = False  # mel statistics measured, or start weights loaded that have them
        self.use = CodebookUse(architecture.codebook_size) if self.has_quantizer else None
        self.grad_norms: dict[int, Tensor] = {}
        self.train_log: dict[str, Tensor] = {}  # of the last step; read and reduced by the callback that logs
        self._val: dict[str, tuple[float, float]] = {}
        self._val_counts: Tensor | None = None
        self._stored_use: dict[str, Tensor] | None = None

    # ---- what a subclass gives -------------------------------------------------------------------------------------

    def losses(self, output: Output, *, training: bool) -> dict[str, Tensor]:
        """Return scalars, "loss" among them, which is minimised (training) or compared with others (evaluation).

        Args:
            output: of the network, on a batch.
            training: normalise by the frames of all ranks (a collective under DDP), see `spectral.masked_mean`.
        """
        raise NotImplementedError

    def descended(self) -> list[Sequence[nn.Module]]:
        """Return the modules of each optimiser; the network's comes first."""
        return [[self.network]]

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Train on one batch: here one descent on `losses`."""
        output = self.run_network(batch)
        losses = self.losses(output, training=True)
        self.descend(0, losses["loss"])
        self.finish_step(losses, output)

    # ---- pieces of a step, for subclasses --------------------------------------------------------------------------

    @property
    def has_quantizer(self) -> bool:
        """False for a vocoder."""
        return hasattr(self.network, "quantizer")

    @property
    def is_warming_up(self) -> bool:
        """True while the quantizer is bypassed."""
        return self.has_quantizer and not bool(self.network.quantizer.initialized)

    def run_network(self, batch: Batch) -> Output:
        """Run the network in training on a batch, with this step's quantizer dropout."""
        wav, lengths = batch["wav"], batch["lengths"]
        if not self.has_quantizer:
            return self.network(wav, lengths)
        self.num_codebooks = self.draw_codebooks(len(wav))
        return self.network(wav, lengths, self.num_codebooks, self.draw_seed(REVIVAL))

    def draw_codebooks(self, size: int) -> Tensor:
        """Return how many codebooks each of this rank's `size` items uses, (B,) int64: 1..Q, or 0 = bypass.

        Drawn for the batches of all ranks together, so that the number of ranks does not matter.
        """
        count = self.architecture.num_codebooks
        if self.is_warming_up:
            return torch.zeros(size, dtype=torch.int64, device=self.device)
        world, rank = self.trainer.world_size, self.trainer.global_rank
        generator = np.random.default_rng((self.seed, self.step, _DROPOUT))
        fewer = generator.random(size * world) < self.fit.quantizer_dropout
        drawn = np.where(fewer, generator.integers(1, count + 1, size * world), count)
        return torch.from_numpy(drawn[rank * size : (rank + 1) * size]).to(self.device)

    def draw_seed(self, purpose: int) -> int:
        """Return a seed of this step, the same on all ranks."""
        return int(np.random.default_rng((self.seed, self.step, purpose)).integers(2**62))

    def descend(self, index: int, loss: Tensor) -> None:
        """Make one step of optimiser `index` (see `descended`) down the gradient of `loss`, clipped.

        Raises:
            UserError: loss or gradient is not finite, and that is not to be skipped.
        """
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizer: Any = optimizers[index] if isinstance(optimizers, list) else optimizers
        for group in optimizer.param_groups:
            group["lr"] = self.optim.rate(self.step, self.loop.max_steps)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self._descending = (index, loss.detach())
        optimizer.step()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which is averaged over ranks and unscaled by now."""
        index, loss = self._descending
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.loop.gradient_clip_val)
        self.grad_norms[index] = norm
        # With a gradient scaler, an infinite gradient is part of its search; it leaves out the step by itself.
        watched = loss if self.trainer.precision == "16-mixed" else norm
        if not bool(watched.isfinite()):
            self._refuse(loss, norm)
            optimizer.zero_grad()  # AdamW leaves parameters without gradient alone

    def finish_step(self, losses: Mapping[str, Tensor], output: Output) -> None:
        """End a step: average the weights, keep what is to be logged, and count."""
        update_average(self.ema_network, self.network, min(self.fit.ema_decay, (1 + self.step) / (10 + self.step)))
        self.train_log = {name: value.detach() for name, value in losses.items()}
        quantized = output.quantized
        if self.use is not None and quantized is not None and not self.is_warming_up:
            self.use.add(quantized, self.num_codebooks, output.mask, self.trainer.world_size)
        if output.latents is not None and (self.step + 1) % self.loop.log_every_n_steps == 0:
            self.train_log["z_std"] = output.latents.detach().float().std()
        self.step += 1
        self.trainer.should_stop = self.trainer.should_stop or self.step >= self.loop.max_steps

    @property
    def max_steps(self) -> int:
        """Batches of the whole run."""
        return self.loop.max_steps

    def note(self) -> str:
        """Return the loss, for the progress bar."""
        return f"loss {float(self.train_log['loss']):.4g}"

    def _refuse(self, loss: Tensor, norm: Tensor) -> None:
        self.num_skipped += 1
        if self.fit.on_nan == "skip" and self.num_skipped <= MAX_SKIPPED:
            return
        raise UserError(
            f"step {self.step}: the loss is {float(loss):.4g} with a gradient of norm {float(norm):.4g} on segments of "
            f"{', '.join(self._ids[:16])}.\ncheckpoints/last.ckpt, if there is one yet, is from before. Lower optim.lr "
            f"(now {self.optim.lr:g}), or leave out such steps with fit.on_nan=skip"
            f"{f' ({MAX_SKIPPED} were left out already)' if self.fit.on_nan == 'skip' else ''}."
        )

    # ---- start of mel statistics and quantizer ---------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Measure the mel statistics, once."""
        self.trainer.fit_loop.epoch_loop.batch_progress.total.ready = self.step  # validation falls on the same steps
        if not self.calibrated and hasattr(self.network, "standardize"):
            mean, std = self._data.measure_mel(self.compute_log_mel)
            for network in (self.network, self.ema_network):
                network.standardize(mean, std)
        self.calibrated = True
        if self.use is not None and self._stored_use is not None:
            self.use.load(self._stored_use, self.device)

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule

    def placed(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch that no loader of the trainer gave, on the device and in the precision of the weights."""
        weight = next(self.network.parameters())
        return wav.to(weight), lengths.to(weight.device)

    def compute_log_mel(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-mel (B, bins, F) that a mel network codes, and its mask (B, F), on the module's device."""
        return self.network.compute_log_mel(*self.placed(wav, lengths))

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Make the codebooks by k-means when the warm-up is over."""
        self._ids: Sequence[str] = batch["id"]
        if self.is_warming_up and self.step >= min(self.fit.warmup_steps, self.loop.max_steps // 5):
            self._start_quantizer()

    @torch.no_grad()
    def _start_quantizer(self) -> None:
        """Give the quantizer latents of many segments; all ranks compute the same."""
        size = self.fit.pool_size or 16 * self.architecture.codebook_size
        per_segment = -(
            -round(self.fit.segment_seconds * self.architecture.sample_rate) // self.architecture.hop_length
        )
        latents: list[Tensor] = []
        for batch in self._data.pool_batches(-(-size // per_segment)):
            z, mask = self.network.latents(*self.placed(batch["wav"], batch["lengths"]))
            latents.append(z.transpose(1, 2)[mask])
        pool = torch.cat(latents)[:size]
        self.network.quantizer.initialize(pool, self.fit.batch_size * per_segment, self.draw_seed(POOL))
        self.ema_network.quantizer.load_state_dict(self.network.quantizer.state_dict())

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def run_average(self, batch: Batch) -> Output:
        """Run the averaged weights on a batch, with all codebooks; without quantizer while that warms up."""
        wav, lengths = batch["wav"], batch["lengths"]
        if not self.has_quantizer:
            return self.ema_network(wav, lengths)
        bypass = torch.zeros(len(wav), dtype=torch.int64, device=self.device) if self.is_warming_up else None
        return self.ema_network(wav, lengths, bypass, 0)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Add the losses of the averaged weights, weighted by valid frames."""
        output = self.run_average(batch)
        weight = float(output.mask.sum())
        for name, value in self.losses(output, training=False).items():
            total, weights = self._val.get(name, (0.0, 0.0))
            self._val[name] = (total + float(value) * weight, weights + weight)
        if output.quantized is not None and not self.is_warming_up:
            counts = count_codes(
                valid_codes(output.quantized.codes, None, output.mask), self.architecture.codebook_size
            )
            self._val_counts = counts if self._val_counts is None else self._val_counts + counts

    def take_validation(self) -> dict[str, tuple[float, float]]:
        """Return this rank's sums and weights by name, and start anew."""
        taken, self._val = self._val, {}
        return taken

    def take_val_counts(self) -> Tensor | None:
        """Return how often this rank saw each entry in validation, (Q, K), and start anew; None without quantizer."""
        taken, self._val_counts = self._val_counts, None
        return taken

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the network in training; the averaged weights only evaluate."""
        super().train(mode)
        self.ema_network.eval()
        return self

    # ---- optimisers and checkpoints --------------------------------------------------------------------------------

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return one optimiser for each of `descended`."""
        fused = self.trainer.precision != "16-mixed"
        return [self.optim.build(modules, fused=fused) for modules in self.descended()]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the network, and the clock; Lightning's own loop counters go."""
        checkpoint.pop("loops", None)
        checkpoint["voxlab"] = {
            "task": TASK,
            "architecture": architecture_to_dict(self.architecture),
            "facts": self.facts,
            "step": self.step,
            "num_skipped": self.num_skipped,
            "calibrated": self.calibrated,
        }
        if self.use is not None:
            checkpoint["voxlab"]["use"] = self.use.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clock from a checkpoint."""
        state = checkpoint["voxlab"]
        self.step, self.num_skipped, self.calibrated = state["step"], state["num_skipped"], state["calibrated"]
        self._stored_use = state.get("use")
        before, now = (facts.get("data") for facts in (state["facts"], self.facts))
        if before != now:
            log.warning(
                "the recordings are not those that this run began with (%s, now %s): it goes on with them, but its "
                "result is not that of an uninterrupted run.",
                *(before, now),
            )
