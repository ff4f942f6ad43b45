"""The LightningModule of `task=laughter`: one descent a step on the weighted mean over the frames of all ranks.

Manual optimisation; the learning rate is a function of the step and of the validations so far.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule, LightningModule
from torch import Tensor

from voxlab.losses.events import EventLoss
from voxlab.models.laughter import LaughterModel
from voxlab.models.tokenizer.ranks import sum_over_ranks
from voxlab.tasks import sharding
from voxlab.tasks.descent import clip_gradient, descend
from voxlab.tasks.laughter.batches import Batch, TrainData
from voxlab.tasks.laughter.describe import contents
from voxlab.tasks.laughter.settings import Fit
from voxlab.tasks.optim import Schedule
from voxlab.tasks.settings import Loop


class LaughterModule(LightningModule):
    """A model in training, with what is to be saved of it.

    Attributes:
        step: batches trained on so far.
        scores: monitored value of each validation so far, higher is better; the same on all ranks.
        train_log: sums over all ranks of the last step.
        record: what checkpoints tell besides: labels, features, loss, seed; decision on validation of the best.

    Args:
        model: as built, normaliser and bias set.
        loss: prepared.
        optim: makes the optimiser and gives the learning rate.
        fit: settings.
        loop: settings.
        per_epoch: steps between validations.
        seed: of every random choice.
        record: JSON-able.
    """

    def __init__(
        self,
        model: LaughterModel,
        loss: EventLoss,
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
        self.model, self.loss, self.optim, self.fit, self.loop = model, loss, optim, fit, loop
        self.per_epoch, self.max_steps = per_epoch, loop.steps(per_epoch)
        self.seed, self.record = seed, dict(record)
        self.step = 0
        self.scores: list[float] = []
        self.train_log: dict[str, Tensor] = {}

    # ---- steps -----------------------------------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.optim.rate(self.step, self.max_steps, self.scores)

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Make dropout a function of (seed, step, rank)."""
        seed = int(np.random.default_rng([self.seed, self.step, self.global_rank]).integers(2**62))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        torch.default_generator.manual_seed(seed)  # without torch.manual_seed's trace of who called it, for 2 ms

    def training_step(self, batch: Batch, batch_index: int) -> None:
        """Descend on one batch; see `batches` for what it holds."""
        logits = self.model(batch["features"])
        total, weight = self.loss(logits, batch["y"], batch["weight"], batch["mask"])
        used = torch.where(batch["mask"], batch["weight"], 0)
        shared = torch.stack([total.detach(), weight, (used * batch["y"]).sum(), (used > 0).sum()]).double()
        sum_over_ranks(shared)
        self.train_log = dict(zip(("loss", "weight", "positive", "frames"), shared, strict=True))
        self.loss.observe(shared[2], shared[1])
        # DDP averages the gradients of ranks; times their number it is the sum.
        count = 1.0 if self.loss.reduction == "sum" else shared[1].to(total.dtype)
        descend(self, total * self.trainer.world_size / count)
        self.step += 1
        self.trainer.should_stop = self.trainer.should_stop or self.step >= self.max_steps

    def note(self) -> str:
        """Return epoch and loss, for the progress bar."""
        total = float(self.train_log["loss"])
        loss = total if self.loss.reduction == "sum" else total / float(self.train_log["weight"])
        return f"epoch {self.step / self.per_epoch:.1f}, loss {loss:.4g}"

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which is averaged over ranks by now.

        Raises:
            UserError: it is not finite.
        """
        self.train_log["grad_norm"] = clip_gradient(self, "keep fit.norm=standard")

    def configure_model(self) -> None:
        """Divide the model over the ranks where the trainer asks for that (trainer=fsdp)."""
        if self.device_mesh is not None and not sharding.is_sharded(self.model):
            sharding.shard(self.model, self.device_mesh["data_parallel"])

    def whole_model(self) -> LaughterModel:
        """Return the model with all its values on this rank, a copy where it is divided; collective."""
        if not sharding.is_sharded(self.model):
            return self.model
        model = self.model.architecture.build(self.model.dim, self.model.norm).to(self.device)
        model.load_state_dict(sharding.gather_state(self.model))
        return model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the model."""
        return self.optim.build([self.model], fused=self.trainer.precision != "16-mixed")

    # ---- checkpoints -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the model, and the clock; Lightning's own loop counters go."""
        checkpoint.pop("loops", None)
        checkpoint["voxlab"] = contents(self.model, self.record) | {"step": self.step, "scores": list(self.scores)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the clock."""
        self.step, self.scores = checkpoint["voxlab"]["step"], list(checkpoint["voxlab"]["scores"])


class Feed(LightningDataModule):
    """Hands this rank its part of the batches, from the module's step on.

    Args:
        data: of all ranks.
    """

    def __init__(self, data: TrainData) -> None:
        super().__init__()
        self.data = data

    def train_dataloader(self) -> Iterator[Batch]:
        """Return batches without end."""
        trainer: Any = self.trainer
        return self.data.part(trainer.lightning_module.step, trainer.global_rank, trainer.world_size)
