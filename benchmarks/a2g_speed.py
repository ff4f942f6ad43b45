"""Training steps and generated seconds a second of task=a2g, eager and compiled, against a plain network; one run.

The plain one (benchmarks/a2g_reference.py) has the same widths, layers, tokens and frozen tokenizers. Training:
forward, losses through the decoders, backward, clipping, AdamW. Generation: one clip, window by window, to poses. A GPU
computes in bf16; MFU counts what FlopCounterMode counts of our step.

.venv/bin/python benchmarks/a2g_speed.py --model a2g_tiny --codec motion_rvq_tiny --batch 16
.venv/bin/python benchmarks/a2g_speed.py --model a2g_legacy --codec motion_rvq --batch 256 --device cuda --peak 989
"""

import argparse
import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from a2g_reference import PlainModel, recover
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from voxlab.losses.gesture import A2gLoss, motion_losses
from voxlab.models.gesture.conditions import Conditions
from voxlab.models.gesture.fusion import FusionSettings
from voxlab.models.gesture.gesture_model import A2gModel, GestureModel, TokenPart
from voxlab.models.gesture.masking import Masking, draw_drop, draw_visible, masked_share
from voxlab.models.gesture.motion_codec import MotionCodec, part_record
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvq
from voxlab.models.gesture.sampling import Sampling, generate_long
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.motion.parts import Layout, read_layout
from voxlab.motion.representation import assemble, from_frames
from voxlab.parallel import launched
from voxlab.tasks.a2g.module import compute_losses, summed

CONF = Path(__file__).parents[1] / "conf"
FPS, WINDOW, FEATURE_DIM, ACOUSTIC_DIM, NUM_WORDS = 30, 64, 768, 128, 2000
LOSS = A2gLoss()
Batch = dict[str, Any]
Step = Callable[[Batch], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="a2g_tiny", help="of conf/model")
    parser.add_argument("--codec", default="motion_rvq_tiny", help="of conf/codec")
    parser.add_argument("--batch", type=int, default=16, help="windows")
    parser.add_argument("--seconds", type=int, default=20, help="of the clip that is generated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peak", type=float, default=None, help="TFLOP/s of the device in bf16, for MFU")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    layout = read_layout("full421")
    codecs = make_codecs(options.codec, layout, options.device)
    models = make_models(options.model, codecs)
    if not options.no_compile:
        models["voxlab, compiled"] = copy.deepcopy(models["voxlab"])
        models["voxlab, compiled"].compile_blocks()
    for name, model in models.items():
        model.to(options.device)
        print(f"{name}: {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f} million parameters.")
    measure_training(models, codecs, options)
    measure_generation(models, codecs, layout, options)


# ---- material ------------------------------------------------------------------------------------------------------


def settings_of(group: str, name: str) -> dict[str, Any]:
    """Return an option of conf without its targets."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != "_target_"}
        return value

    return plain(yaml.safe_load((CONF / group / f"{name}.yaml").read_text()))


def make_codecs(name: str, layout: Layout, device: str) -> dict[str, MotionCodec]:
    """Return untrained tokenizers of all parts."""
    values = settings_of("codec", name)
    values["architecture"]["quantizer"] = QuantizerSettings(**values["architecture"]["quantizer"])
    values["architecture"] = MotionArchitecture(**values["architecture"])
    codecs = {}
    for part in layout.parts:
        network = MotionRvq(**values).of_part(part).build().eval().requires_grad_(False)
        codecs[part.name] = MotionCodec(part, part_record(part, layout, FPS, "velocity"), network, "random").to(device)
    return codecs


def make_models(name: str, codecs: Mapping[str, MotionCodec]) -> dict[str, Any]:
    """Return our network and the plain one."""
    values = settings_of("model", name)
    values["fusion"] = FusionSettings(**values["fusion"])
    parts = [TokenPart(n, c.stride, c.num_codebooks, c.codebook_size) for n, c in codecs.items()]
    books = {n: codec.network.codebooks.detach().float().cpu() for n, codec in codecs.items()}
    dims: dict[str, Any] = {"feature_dim": FEATURE_DIM, "acoustic_dim": ACOUSTIC_DIM, "num_words": NUM_WORDS}
    ours = A2gModel(**values).build(parts, books, num_speakers=1, fps=FPS, **dims)
    return {"plain": PlainModel(A2gModel(**values), parts, books, **dims), "voxlab": ours}


def make_conditions(batch: int, frames: int, words: int) -> Conditions:
    """Return noise to be heard."""
    return Conditions(
        features=torch.randn(batch, frames, FEATURE_DIM),
        acoustic=torch.randn(batch, frames, ACOUSTIC_DIM),
        frame_mask=torch.ones(batch, frames, dtype=torch.bool),
        speaker=torch.zeros(batch, dtype=torch.int64),
        word_ids=torch.randint(NUM_WORDS, (batch, words)),
        word_times=torch.linspace(0.1, frames / FPS - 0.1, words).expand(batch, words),
        word_mask=torch.ones(batch, words, dtype=torch.bool),
    )


def make_batch(model: GestureModel, codecs: Mapping[str, MotionCodec], batch: int, device: str) -> Batch:
    """Return a batch of training, as `tasks.a2g.data.BATCH` describes it."""
    conditions, generator = make_conditions(batch, WINDOW, 8), torch.Generator().manual_seed(0)
    masks = model.token_masks(conditions.frame_mask)
    visible = draw_visible(Masking(), masks, {n: p.stride for n, p in model.parts.items()}, generator)
    drop = draw_drop(Masking(), batch, generator)
    names = ("features", "acoustic", "frame_mask", "speaker", "word_ids", "word_times", "word_mask")
    made: Batch = {name: getattr(conditions, name) for name in names}
    made["motion"] = {n: torch.randn(batch, WINDOW, codec.part.dim) for n, codec in codecs.items()}
    made["codes"] = {
        n: torch.randint(c.codebook_size, (batch, WINDOW // c.stride, c.num_codebooks)) for n, c in codecs.items()
    }
    made |= {"visible": visible, "mask_ratio": masked_share(visible, masks)}
    made["drop"] = {"audio": drop.audio, "text": drop.text, "speaker": drop.speaker}
    return move(made, device)


def move(value: Any, device: str) -> Any:
    """Move nested tensors."""
    if isinstance(value, dict):
        return {name: move(item, device) for name, item in value.items()}
    return value.to(device)


# ---- training ------------------------------------------------------------------------------------------------------


def measure_training(models: Mapping[str, Any], codecs: Mapping[str, MotionCodec], options: Any) -> None:
    """Print steps a second."""
    batch = make_batch(models["voxlab"], codecs, options.batch, options.device)
    steps = {name: trainer(model, loss_of(name, model, codecs), options.device) for name, model in models.items()}
    flops = {name: count_flops(steps[name], batch) for name in ("plain", "voxlab")}
    work = ", ".join(f"{name} {value / 1e9:.1f}" for name, value in flops.items())
    print(f"A step of {options.batch} windows, GFLOP in matrix products: {work}.\n")
    speeds = fastest(steps, batch, options.rounds, options.device)
    print("| training | steps/s | vs. plain | MFU |\n|---|---|---|---|")
    for name, speed in speeds.items():
        done = flops.get(name, flops["voxlab"]) * speed
        share = f"{100 * done / options.peak / 1e12:.1f} %" if options.peak else ""
        print(f"| {name} | {speed:.3g} | {speed / speeds['plain']:.2f} | {share} |")


def count_flops(step: Callable[[Batch], None], batch: Batch) -> int:
    """Return the floating point operations of the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def loss_of(name: str, model: Any, codecs: Mapping[str, MotionCodec]) -> Step:
    """Return the loss of a batch."""
    compute = plain_loss if name == "plain" else our_loss
    return lambda batch: compute(model, codecs, batch)


def our_loss(model: Any, codecs: Mapping[str, MotionCodec], batch: Batch) -> Tensor:
    """Return the loss of task=a2g."""
    losses = compute_losses(model, codecs, batch, LOSS)
    return summed({name: mean.total / mean.count for name, mean in losses.items()}, LOSS)["loss"]


def plain_loss(model: PlainModel, codecs: Mapping[str, MotionCodec], batch: Batch) -> Tensor:
    """Return the same sum, a layer and a part at a time."""
    names = ("features", "acoustic", "frame_mask", "speaker", "word_ids", "word_times", "word_mask")
    conditions = Conditions(**{name: batch[name] for name in names})
    logits = model(conditions, batch["codes"], batch["visible"], batch["mask_ratio"])
    total: Any = 0
    for name, codec in codecs.items():
        hidden, latents = ~batch["visible"][name], []
        for layer, scores in enumerate(logits[name]):
            scores, codes = scores.float(), batch["codes"][name][..., layer]
            weight = 2 ** (-layer / 2)
            total = total + weight * torch.nn.functional.cross_entropy(scores[hidden], codes[hidden])
            soft = scores.softmax(dim=-1) @ codec.network.codebooks[layer]
            latents.append(torch.where(hidden[..., None], soft, codec.network.codebooks[layer][codes]))
        decoded = codec.network.decode_latents(torch.stack(latents).sum(dim=0))
        found = motion_losses(decoded.float(), batch["motion"][name], batch["frame_mask"])
        total = total + 0.1 * sum(mean.total / mean.count for mean in found.values())
    return total


def trainer(model: Any, loss: Step, device: str) -> Callable[[Batch], None]:
    """Return a function that takes a step."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step(batch: Batch) -> None:
        model.train()
        with precision(device):
            value = loss(batch)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def precision(device: str) -> Any:
    """Compute in bf16 on a GPU."""
    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else contextlib.nullcontext()


# ---- generation ----------------------------------------------------------------------------------------------------


def measure_generation(
    models: Mapping[str, Any], codecs: Mapping[str, MotionCodec], layout: Layout, options: Any
) -> None:
    """Print seconds of motion a second."""
    given = (codecs, layout, make_conditions(1, options.seconds * FPS, 3 * options.seconds).to(options.device))

    def way(name: str) -> Callable[[Batch], Any]:
        work: Any = generate_plainly if name == "plain" else generate
        return lambda _: work(models[name].eval(), *given)

    ways = {name: way(name) for name in models}
    speeds = fastest(ways, {}, options.rounds, options.device)
    print(f"\n| {options.seconds} s of motion, 10 steps a window | s/s | vs. plain |\n|---|---|---|")
    for name, speed in speeds.items():
        print(f"| {name} | {speed * options.seconds:.3g} | {speed / speeds['plain']:.2f} |")


def generate(
    model: GestureModel, codecs: Mapping[str, MotionCodec], layout: Layout, conditions: Conditions
) -> np.ndarray:
    """Generate as task=a2g does."""
    count, generator = conditions.frame_mask.shape[1], torch.Generator().manual_seed(0)
    given: dict[str, Any] = {"window": WINDOW, "sampling": Sampling(), "generators": [generator]}
    codes = generate_long(model, conditions, **given)[0]
    parts = {name: codec.detokenize(codes[name].cpu().numpy(), count) for name, codec in codecs.items()}
    return from_frames(assemble(parts, layout), fps=FPS).poses


@torch.no_grad()
def generate_plainly(
    model: PlainModel, codecs: Mapping[str, MotionCodec], layout: Layout, conditions: Conditions
) -> np.ndarray:
    """Generate window by window with the same number of steps, and recover poses frame by frame."""
    count, device = conditions.frame_mask.shape[1], conditions.frame_mask.device
    pieces: dict[str, list[Tensor]] = {name: [] for name in codecs}
    for start in range(0, count - 16, WINDOW - 16):
        window = conditions.window(start, WINDOW, FPS)
        codes = {
            n: torch.zeros(1, WINDOW // c.stride, c.num_codebooks, dtype=torch.int64, device=device)
            for n, c in codecs.items()
        }
        visible = {
            name: torch.zeros(values.shape[:2], dtype=torch.bool, device=device) for name, values in codes.items()
        }
        for step in range(1, 11):
            ratio = torch.full((1,), 1 - (step - 1) / 10, device=device)
            logits = model(window, codes, visible, ratio)
            for name, layers in logits.items():
                for token in range(codes[name].shape[1]):
                    if visible[name][0, token]:
                        continue
                    for layer, scores in enumerate(layers):
                        codes[name][0, token, layer] = scores[0, token].softmax(dim=-1).argmax()
                    visible[name][0, token] = token * 10 < step * codes[name].shape[1]
        for name, codec in codecs.items():
            overlap = 16 // codec.stride if start else 0
            pieces[name].append(codes[name][0, overlap:])
    parts = {n: codec.detokenize(torch.cat(pieces[n]).cpu().numpy(), count) for n, codec in codecs.items()}
    return recover(parts, layout)


def fastest(ways: Mapping[str, Callable[[Batch], Any]], batch: Batch, rounds: int, device: str) -> dict[str, float]:
    """Return calls a second, the best of some; the ways take turns, and the first round is not counted."""
    best = dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work(batch)
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if number:
                best[name] = max(best[name], 1 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    torch.set_num_threads(1)
    launched("cpu")  # as every run does: memory is reused
    main()
