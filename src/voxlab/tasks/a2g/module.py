"""The LightningModule of `task=a2g`: hidden codes are predicted, and decoded by frozen tokenizers with a live graph.

Manual optimisation; every mean is taken over all ranks. The tokenizers are no submodules: neither optimiser, nor DDP,
nor checkpoints know of them.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn

from voxlab.losses.gesture import A2gLoss, Mean, code_accuracy, code_cross_entropy, motion_losses, soft_latents
from voxlab.models.gesture.conditions import Conditions, Drop
from voxlab.models.gesture.gesture_model import GestureModel
from voxlab.models.gesture.motion_codec import MotionCodec
from voxlab.models.tokenizer.ranks import sum_over_ranks
from voxlab.tasks.a2g.data import TrainData, check_batch
from voxlab.tasks.a2g.resumed import check_resumed
from voxlab.tasks.a2g.settings import MONITORS, Fit
from voxlab.tasks.a2g.windows import Batch
from voxlab.tasks.averages import update_average
from voxlab.tasks.descent import clip_gradient, descend
from voxlab.tasks.optim import Schedule
from voxlab.tasks.read_ahead import ahead
from voxlab.tasks.settings import Loop

TASK = "a2g"
_READ_AHEAD = 4  # batches
Losses = dict[str, Mean]


def conditions_of(batch: Batch) -> Conditions:
    """Return what the model hears of a batch."""
    names = ("features", "frame_mask", "speaker", "word_ids", "word_times", "word_mask")
    return Conditions(acoustic=batch.get("acoustic"), **{name: batch[name] for name in names})


def compute_losses(model: nn.Module, codecs: Mapping[str, MotionCodec], batch: Batch, loss: A2gLoss) -> Losses:
    """Run a model on a batch.

    Args:
        model: a `GestureModel`, perhaps compiled.
        codecs: part -> tokenizer, on the device of the batch.
        batch: see `data.BATCH`.
        loss: weights.

    Returns:
        "<kind>/<part>" -> sum and count, for the kinds ce, top1, top5, rec, velocity and acceleration.
    """
    drop = Drop(**batch["drop"]) if model.training else None
    network: Any = model
    trunk = network(conditions_of(batch), batch["codes"], batch["visible"], batch["mask_ratio"], drop)
    logits, known = network.logits(trunk, batch["codes"]), network.latents(batch["codes"])
    losses: Losses = {}
    for name, codec in codecs.items():
        hidden, codes = ~batch["visible"][name], batch["codes"][name]
        scores = logits[name].float()
        losses[f"ce/{name}"] = code_cross_entropy(scores, codes, hidden, label_smoothing=loss.label_smoothing)
        losses |= {f"{kind}/{name}": value for kind, value in code_accuracy(scores, codes, hidden).items()}
        soft = soft_latents(scores, network.part(name).codebooks, loss.straight_through)
        decoded = codec.network.decode_latents(torch.where(hidden[..., None], soft, known[name].float()))
        found = motion_losses(decoded.float(), batch["motion"][name], batch["frame_mask"])
        losses |= {f"{kind}/{name}": value for kind, value in found.items()}
    return losses


class A2gModule(LightningModule):
    """A model in training with its average, and what is to be saved of it.

    Attributes:
        model: in training.
        average: its exponential average, which is validated and kept for use.
        step: batches trained on so far.
        scores: monitored value of each validation so far, higher is better; the same on all ranks.
        train_log: means over all ranks of the last step.

    Args:
        model: as built.
        codecs: part -> tokenizer.
        loss: weights.
        optim: makes the optimiser and gives the learning rate.
        fit: settings.
        loop: settings.
        per_epoch: steps between validations.
        seed: of every random choice.
        record: what checkpoints tell besides, for `torch.load(weights_only=True)`: plain values and tensors.
    """

    def __init__(
        self,
        model: GestureModel,
        codecs: Mapping[str, MotionCodec],
        loss: A2gLoss,
        *,
        optim: Schedule,
        fit: Fit,
        loop: Loop,
        per_epoch: int,
        seed: int,
        record: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.average = copy.deepcopy(model).requires_grad_(False).eval()
        self.codecs, self.loss, self.optim, self.fit, self.loop = dict(codecs), loss, optim, fit, loop
        self.per_epoch, self.max_steps = per_epoch, loop.steps(per_epoch)
        self.seed, self.record = seed, dict(record)
        self.step = 0
        self.scores: list[float] = []
        self.train_log: dict[str, Tensor] = {}
        self._checked = False
        if fit.compile:
            self.model.compile_blocks()

    # ---- steps -----------------------------------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.optim.rate(self.step, self.max_steps, self.scores)

    def score(self, row: Mapping[str, float]) -> float:
        """Return the monitored value of a validation, turned so that higher is better."""
        return MONITORS[self.fit.monitor] * row[self.fit.monitor]

    def place_codecs(self) -> None:
        """Move the frozen tokenizers to this rank's device."""
        for codec in self.codecs.values():
            codec.to(self.device)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Make dropout a function of (seed, step, rank); check the first batch."""
        if not self._checked:
            check_batch(batch)
            self._checked = True
        seed = int(np.random.default_rng([self.seed, 2, self.step, self.global_rank]).integers(2**62))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        torch.default_generator.manual_seed(seed)

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Descend on one batch; see `data.BATCH` for what it holds."""
        losses = compute_losses(self.model, self.codecs, batch, self.loss)
        shared = torch.stack(
            [torch.stack([mean.total.detach().double(), mean.count.double()]) for mean in losses.values()]
        )
        sum_over_ranks(shared)
        counts = dict(zip(losses, shared[:, 1].clamp_min(1).unbind(), strict=True))
        means = {name: total / counts[name] for name, total in zip(losses, shared[:, 0].unbind(), strict=True)}
        self.train_log = {f"train/{name}": value for name, value in summed(means, self.loss).items()}
        # DDP averages the gradients of ranks; times their number it is the sum.
        exact = {name: mean.total / counts[name].to(mean.total.dtype) for name, mean in losses.items()}
        descend(self, total_loss(exact, self.loss) * self.trainer.world_size)
        self.step += 1
        update_average(self.average, self.model, self.fit.ema_decay)
        self.trainer.should_stop = self.trainer.should_stop or self.step >= self.max_steps

    def note(self) -> str:
        """Return epoch and loss, for the progress bar."""
        return f"epoch {self.step / self.per_epoch:.1f}, loss {float(self.train_log['train/loss']):.4g}"

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which is averaged over ranks by now.

        Raises:
            UserError: it is not finite.
        """
        self.train_log["train/grad_norm"] = clip_gradient(self, "set trainer.precision=32-true")

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the model in training; the average only evaluates."""
        super().train(mode)
        self.average.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the model."""
        return self.optim.build([self.model], fused=self.trainer.precision != "16-mixed")

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model, and the clock; Lightning's own loop counters go."""
        checkpoint.pop("loops", None)
        checkpoint["voxlab"] = {**self.record, "task": TASK, "step": self.step, "scores": list(self.scores)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clock.

        Raises:
            UserError: the run began with other material.
        """
        check_resumed(checkpoint["voxlab"], self.record)
        self.step, self.scores = checkpoint["voxlab"]["step"], list(checkpoint["voxlab"]["scores"])


def total_loss(means: Mapping[str, Tensor], loss: A2gLoss) -> Tensor:
    """Return the weighted sum over kinds of the mean over parts."""
    weights = {"ce": loss.ce, "rec": loss.rec, "velocity": loss.velocity, "acceleration": loss.acceleration}
    parts = len({name.partition("/")[2] for name in means})
    terms = [
        weights[kind] * value / parts for name, value in means.items() if (kind := name.partition("/")[0]) in weights
    ]
    return torch.stack(terms).sum()


def summed(means: Mapping[str, Any], loss: A2gLoss) -> dict[str, Any]:
    """Return the means by part, their means over parts ("ce", "accuracy", "top5", "rec", ...) and the loss."""
    kinds: dict[str, list[Any]] = {}
    for name, value in means.items():
        kinds.setdefault(name.partition("/")[0], []).append(value)
    row = {name: sum(values) / len(values) for name, values in kinds.items()}
    row["accuracy"] = row.pop("top1")
    tensors = {name: torch.as_tensor(value) for name, value in means.items()}
    return {**row, **means, "loss": total_loss(tensors, loss)}


class Feed(LightningDataModule):
    """Hands this rank its part of the batches, from the module's step on.

    Args:
        data: of all ranks.
    """

    def __init__(self, data: TrainData) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Iterator[Batch]:
        """Return batches without end, read ahead by a thread."""
        trainer: Any = self.trainer
        batches = self.data.part(trainer.lightning_module.step, trainer.global_rank, trainer.world_size)
        return ahead(batches, _READ_AHEAD)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Complete a batch on its device."""
        return self.data.windows.finish(batch)
