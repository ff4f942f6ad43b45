"""A toy conditional model on a token data set: does its conditioning tell anything about its tokens?

A GRU predicts the codes of each frame from the frame before and the conditioning. After a few hundred steps its loss is
taken twice over the same frames: with the conditioning of each window, and with that of another.

python recipes/encodec_dataset/train.py outputs/demo/tones-encodec/dataset --steps 300
"""

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from voxlab import plots, storage
from voxlab.data.token_datamodule import TokenDataModule
from voxlab.data.tokens import collate

WIDTH = 128


class ToyModel(lightning.LightningModule):
    """Next-frame prediction of K codebooks, all at once, given D conditioning columns."""

    def __init__(self, num_codebooks: int, codebook_size: int, num_columns: int) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(codebook_size + 1, WIDTH) for _ in range(num_codebooks))
        self.condition = nn.Linear(num_columns, WIDTH)
        self.memory = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, codebook_size) for _ in range(num_codebooks))
        self.start, self.losses = codebook_size, list[float]()

    def loss(self, codes: Tensor, cond: Tensor, mask: Tensor) -> Tensor:
        """Return the cross entropy in nats a code: codes (B, K, N), cond (B, N, D), mask (B, N)."""
        before = nn.functional.pad(codes[..., :-1], (1, 0), value=self.start)
        inputs = torch.stack([embed(book) for embed, book in zip(self.embeddings, before.unbind(1), strict=True)])
        hidden, _ = self.memory(inputs.sum(0) + self.condition(cond))
        logits = torch.stack([head(hidden) for head in self.heads], dim=1)[mask[:, None].expand_as(codes)]
        return nn.functional.cross_entropy(logits, codes[mask[:, None].expand_as(codes)])

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Take one step on a batch of windows."""
        loss = self.loss(batch["codes"], batch["cond"], batch["mask"])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window-frames", type=int, default=75)
    options = parser.parse_args()
    lightning.seed_everything(0, verbose=False)
    data = TokenDataModule(root=options.dataset, window_frames=options.window_frames, batch_size=8)
    windows = data.dataset("train")
    model = ToyModel(windows.info.num_codebooks, windows.info.codebook_size, len(windows.columns))
    folder = options.dataset.parent / "toy_model"
    trainer = lightning.Trainer(
        max_steps=options.steps,
        accelerator="auto",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    trainer.fit(model, data)
    report(model, collate([windows[index] for index in range(len(windows))]), windows.columns, folder)


@torch.no_grad()
def report(model: ToyModel, batch: dict[str, Any], columns: tuple[str, ...], folder: Path) -> None:
    """Print and write the two losses, the curve and the weights."""
    model.eval()
    own = float(model.loss(batch["codes"], batch["cond"], batch["mask"]))
    swapped = float(model.loss(batch["codes"], batch["cond"].roll(1, 0), batch["mask"]))
    result = {"columns": list(columns), "loss": own, "loss_with_conditioning_of_another_window": swapped}
    storage.atomic_write_json(folder / "result.json", result)
    curve = plots.plot_curves({"loss": (range(len(model.losses)), model.losses)}, "step", "nats a code")
    storage.atomic_write_bytes(folder / "loss.png", plots.render_png(curve))
    with storage.atomic_path(folder / "model.pt") as temporary:
        torch.save(model.state_dict(), temporary)
    print(f"conditioning: {', '.join(columns)}")
    print(f"loss {own:.3f} nats a code; with the conditioning of another window {swapped:.3f}")
    print(f"written: {folder}/result.json, loss.png, model.pt")
    if own >= swapped:
        raise SystemExit("the conditioning did not help: is it constant over the corpus?")


if __name__ == "__main__":
    main()
