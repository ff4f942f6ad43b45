"""Training of a motion tokenizer: its losses on normalised motion, and what a validation tells of it.

Monitored: val/rec_mse, the mean squared error of the averaged weights on normalised motion.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxlab.losses.gesture import motion_losses
from voxlab.models.tokenizer.output import Output
from voxlab.motion.clip import NUM_JOINTS
from voxlab.motion.kinematics import forward_kinematics
from voxlab.motion.parts import Part
from voxlab.motion.rotations import geodesic, sixd_to_matrix
from voxlab.motion.skeleton import synthetic_skeleton
from voxlab.tasks.train_tokenizer.module import POOL, REVIVAL, Batch, TokenizerModule

_DROPOUT_MASKS = 4  # purpose of random numbers, beside those of the base


class MotionModule(TokenizerModule):
    """Trains a `MotionRvqVae`: errors of numbers, velocity, acceleration, angles, joints; and commitment.

    A batch is {"motion": (B, T, D) raw float32, "id": B names}.

    Args:
        part: of the body.
        others: as for `TokenizerModule`.
    """

    monitor = "val/rec_mse"

    def __init__(self, *args: Any, part: Part, **others: Any) -> None:
        super().__init__(*args, **others)
        self.part, self.skeleton = part, synthetic_skeleton()

    # ---- a step ----------------------------------------------------------------------------------------------------

    def run_network(self, batch: Batch) -> Output:
        """Run the network in training on a batch, with this step's quantizer dropout."""
        self._seed_dropout()
        x = self.network.normalize(batch["motion"])
        self.num_codebooks = self.draw_codebooks(len(x))
        return self.network(x, self.num_codebooks, self.draw_seed(REVIVAL))

    def _seed_dropout(self) -> None:
        """Make what dropout draws a function of seed, step and rank, so that a resumed run draws the same."""
        rank = int(self.global_rank)
        seed = int(np.random.default_rng((self.seed, self.step, rank, _DROPOUT_MASKS)).integers(2**62))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        torch.default_generator.manual_seed(seed)

    def losses(self, output: Output, *, training: bool) -> dict[str, Tensor]:
        """Return "loss" and its terms; in evaluation also errors, by the number of codebooks that are kept as well."""
        weights = self.loss
        means = motion_losses(output.output, output.target, output.mask)  # windows are whole: ranks weigh the same
        commitment = output.quantized.commitment if output.quantized is not None else output.output.new_zeros(())
        values = {name: mean.value for name, mean in means.items()}
        loss = sum((weights[name] * value for name, value in values.items()), commitment.new_zeros(()))
        if not self.is_warming_up:
            loss = loss + weights["commitment"] * commitment
        spatial = self._spatial(output, training=training)
        values |= {name: value.detach() for name, value in spatial.items()}
        if "degrees" in spatial:
            loss = loss + weights["geodesic"] * spatial["degrees"] * (math.pi / 180)
        if "joints_cm" in spatial:
            loss = loss + weights["joints"] * spatial["joints_cm"] / 100
        losses = {"loss": loss, **values, "commit": commitment}
        return losses if training else losses | self._errors(output)

    def _spatial(self, output: Output, *, training: bool) -> dict[str, Tensor]:
        """Return errors in space that the loss has a weight for, in evaluation all: mean angle, mean joint distance."""
        wanted = {"degrees": self.loss["geodesic"] > 0, "joints_cm": self.loss["joints"] > 0}
        if not self.part.joints or (training and not any(wanted.values())):
            return {}
        with torch.autocast(output.output.device.type, enabled=False):
            made, true = self._rotations(output.output), self._rotations(output.target)
            errors = {}
            if wanted["degrees"] or not training:
                errors["degrees"] = geodesic(made, true).mean().rad2deg()
            if wanted["joints_cm"] or not training:
                moved = self._positions(made) - self._positions(true)
                # The root of 0 has no gradient; a micrometre is nothing to a body.
                errors["joints_cm"] = 100 * (moved.square().sum(-1) + 1e-12).sqrt().mean()
        return errors

    def _rotations(self, x: Tensor) -> Tensor:
        """Return the rotations (B, T, joints, 3, 3) of the part in normalised motion."""
        raw = self.network.denormalize(x.float())[..., : 6 * len(self.part.joints)]
        return sixd_to_matrix(raw.unflatten(-1, (-1, 6)))

    def _positions(self, rotations: Tensor) -> Tensor:
        """Return where the 55 joints (B, T, 55, 3) of a rough skeleton are, in metres, when only the part turns."""
        resting = torch.eye(3, device=rotations.device).expand(*rotations.shape[:2], NUM_JOINTS, 3, 3)
        joints = torch.tensor(self.part.joints, device=rotations.device)
        return forward_kinematics(resting.index_copy(2, joints, rotations), None, self.skeleton)

    def _errors(self, output: Output) -> dict[str, Tensor]:
        """Return errors of normalised motion: mean squared and absolute, of velocity, and of the first q codebooks."""
        target, made = output.target, output.output
        errors = {
            "rec_mse": (made - target).square().mean(),
            "rec_l1": (made - target).abs().mean(),
            "velocity_l1": (made - target).diff(dim=1).abs().mean(),
        }
        if output.quantized is None or self.is_warming_up:
            return errors
        codes = output.quantized.codes.transpose(1, 2)
        for count in range(1, self.architecture.num_codebooks):
            kept = self.ema_network.decode(codes[..., :count])
            errors[f"rec_mse_first/{count}"] = (kept - target).square().mean()
        errors[f"rec_mse_first/{self.architecture.num_codebooks}"] = errors["rec_mse"]
        return errors

    # ---- start and evaluation --------------------------------------------------------------------------------------

    @torch.no_grad()
    def _start_quantizer(self) -> None:
        """Give the quantizer latents of many windows; all ranks compute the same."""
        size = self.fit.pool_size or 16 * self.architecture.codebook_size
        per_window = self.fit.window // self.architecture.stride
        latents = []
        for motion in self._data.pool(-(-size // per_window)):
            x = self.network.normalize(motion.to(self.network.mean))
            latents.append(self.network.encode_latents(x).flatten(0, 1))
        pool = torch.cat(latents)[:size]
        self.network.quantizer.initialize(pool, self.fit.batch_size * per_window, self.draw_seed(POOL))
        self.ema_network.quantizer.load_state_dict(self.network.quantizer.state_dict())

    def run_average(self, batch: Batch) -> Output:
        """Run the averaged weights on a batch, with all codebooks; without quantizer while that warms up."""
        x = self.ema_network.normalize(batch["motion"])
        bypass = torch.zeros(len(x), dtype=torch.int64, device=self.device) if self.is_warming_up else None
        return self.ema_network(x, bypass, 0)
