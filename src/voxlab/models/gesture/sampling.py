"""Generation of motion codes: tokens are revealed over a few steps, the surest first; long audio window by window.

Source: Chang et al. 2022 (MaskGIT: schedule and confidence), Ho and Salimans 2022 (guidance).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from voxlab.errors import UserError, check_types
from voxlab.models.gesture.conditions import Conditions, Drop
from voxlab.models.gesture.gesture_model import Context, GestureModel, TokenPart
from voxlab.models.gesture.masking import masked_share
from voxlab.models.gesture.part_codes import PartCodes

Codes = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How codes are drawn.

    Args:
        steps: forward passes for one window; 1: all tokens at once.
        temperature: of the draws, and of the noise on what counts as sure; 0: always the most likely code.
        guidance: 1: the model as it is; above: away from what it says without audio and text, for twice the time.
        top_k: draw among the k most likely codes of each layer; null: the first layer among all, the others the most
            likely one.

    Raises:
        UserError: a value is out of range.
    """

    steps: int = 10
    temperature: float = 1.0
    guidance: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        check_types(self, "sampling.")
        ranges = {
            "steps": self.steps >= 1,
            "temperature": 0 <= self.temperature < math.inf,
            "guidance": 0 <= self.guidance < math.inf,
            "top_k": self.top_k is None or self.top_k >= 1,
        }
        for name in (name for name, fits in ranges.items() if not fits):
            raise UserError(f"sampling.{name}={getattr(self, name)} is out of range.")


def check_window(frames: int, parts: Iterable[TokenPart], name: str = "window") -> None:
    """Check that a window is a whole number of tokens of each part.

    Raises:
        UserError: it isn't; names the nearest lengths that are.
    """
    strides = {part.name: part.stride for part in parts}
    unit = math.lcm(*strides.values())
    if frames < 1 or frames % unit:
        near = [n for n in (frames // unit * unit, (frames // unit + 1) * unit) if n > 0]
        raise UserError(
            f"{name}={frames} frames: give a multiple of {unit}, as the parts take "
            f"{', '.join(f'{part} {stride}' for part, stride in strides.items())} frames a token; "
            f"nearest: {' or '.join(map(str, near))}."
        )


@torch.no_grad()
def generate_codes(
    model: GestureModel,
    conditions: Conditions,
    *,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    seed_codes: Codes | None = None,
    end_codes: Codes | None = None,
) -> dict[str, Tensor]:
    """Draw the codes of B items of one window, all at once.

    Args:
        model: in evaluation mode.
        conditions: of B items of T frames.
        sampling: how.
        generators: one for each item, on the CPU; what an item gets depends on its own only.
        seed_codes: (B, n, Q) by part: codes of the first tokens, kept as they are.
        end_codes: (B, n, Q) by part: codes of each item's last tokens, kept as they are.

    Returns:
        (B, N_p, Q) int64 by part with N_p = T / stride rounded up; 0 past an item's end.

    Raises:
        ValueError: the model is in training mode, or has more seed or end codes than tokens.
    """
    masks = model.token_masks(conditions.frame_mask)
    counts = {name: mask.sum(dim=1) for name, mask in masks.items()}
    sizes = {name: mask.shape[1] for name, mask in masks.items()}
    codes, known = _known(model, counts, sizes, seed_codes or {}, end_codes or {})
    return _reveal(model, conditions, codes, known, sampling, generators)


@torch.no_grad()
def generate_long(
    model: GestureModel,
    conditions: Conditions,
    *,
    window: int,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    overlap_tokens: int = 4,
    seed_codes: Codes | None = None,
    end_codes: Codes | None = None,
) -> list[dict[str, Tensor]]:
    """Draw the codes of B items of any lengths, window by window; each goes on from the last tokens of the one before.

    Time and memory of a step don't depend on the length. The last window repeats an item's last frame past its end,
    and is cropped.

    Args:
        model: in evaluation mode.
        conditions: of B items.
        window: frames, as in training.
        sampling: how.
        generators: as in `generate_codes`.
        overlap_tokens: tokens of the coarsest part that a window takes over from the one before.
        seed_codes: as in `generate_codes`.
        end_codes: as in `generate_codes`.

    Returns:
        for each item, (T / stride rounded up, Q) int64 by part, T being its own number of frames.

    Raises:
        UserError: the window is no whole number of tokens, or no longer than the overlap.
        ValueError: as in `generate_codes`.
    """
    check_window(window, model.parts.values())
    overlap = overlap_tokens * max(part.stride for part in model.parts.values())
    if not 0 <= overlap < window:
        raise UserError(f"an overlap of {overlap_tokens} tokens is {overlap} frames; the window has {window}.")
    lengths, hop = conditions.lengths, window - overlap
    starts = range(0, max(int(lengths.max()) - overlap, 1), hop)
    counts = {name: -(-lengths // part.stride) for name, part in model.parts.items()}
    sizes = {name: (starts[-1] + window) // part.stride for name, part in model.parts.items()}
    codes, known = _known(model, counts, sizes, seed_codes or {}, end_codes or {})
    for start in starts:
        active = lengths > (start + overlap if start else 0)
        rows = active.nonzero()[:, 0]
        own = [generator for generator, goes_on in zip(generators, active.tolist(), strict=True) if goes_on]
        window_conditions = conditions.select(rows).window(start, window, model.fps)
        spans = {n: slice(start // p.stride, (start + window) // p.stride) for n, p in model.parts.items()}
        here = [{name: values[name][rows, span] for name, span in spans.items()} for values in (codes, known)]
        drawn = _reveal(model, window_conditions, here[0], here[1], sampling, own)
        for name, span in spans.items():
            codes[name][rows, span], known[name][rows, span] = drawn[name], True
    each = zip(*(counts[name].tolist() for name in codes), strict=True)
    return [{n: codes[n][row, :count] for n, count in zip(codes, own, strict=True)} for row, own in enumerate(each)]


def _known(
    model: GestureModel, counts: Codes, sizes: Mapping[str, int], seed: Codes, end: Codes
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return codes (B, sizes, Q), zero where unknown, and which (B, sizes) are known."""
    codes, known = {}, {}
    for name, count in counts.items():
        size, device = (len(count), sizes[name]), count.device
        codes[name] = torch.zeros(*size, model.parts[name].num_codebooks, dtype=torch.int64, device=device)
        known[name] = torch.zeros(size, dtype=torch.bool, device=device)
        for given, at_end in ((seed.get(name), False), (end.get(name), True)):
            if given is None:
                continue
            if given.shape[1] > int(count.min()):
                raise ValueError(f"{name}: {given.shape[1]} tokens are given, an item has {int(count.min())}")
            first = (count - given.shape[1])[:, None] * at_end
            rows = torch.arange(len(count), device=device)[:, None]
            columns = first + torch.arange(given.shape[1], device=device)
            codes[name][rows, columns], known[name][rows, columns] = given.to(device, torch.int64), True
    return codes, known


def _reveal(
    model: GestureModel,
    conditions: Conditions,
    codes: Codes,
    known: Codes,
    sampling: Sampling,
    generators: Sequence[torch.Generator],
) -> dict[str, Tensor]:
    """Draw the codes that aren't known, over `sampling.steps` steps."""
    if model.training:
        raise ValueError("generation needs model.eval(): dropout would be on")
    masks = model.token_masks(conditions.frame_mask)
    contexts = _contexts(model, conditions, sampling)
    codes, visible = dict(codes), {name: known[name] | ~mask for name, mask in masks.items()}
    hidden = {name: (~shown).sum(dim=1, keepdim=True) for name, shown in visible.items()}
    for step in range(1, sampling.steps + 1):
        share = masked_share(visible, masks)
        states = [model.states(context, masks, codes, visible, share) for context in contexts]
        # Exactly none at the last step, where the cosine is only about 0.
        left = 0.0 if step == sampling.steps else math.cos(math.pi / 2 * step / sampling.steps)
        for name in model.parts:
            part_states = [each[name] for each in states]
            drawn, sureness = _draw(model.part(name), part_states, sampling, generators, 1 - step / sampling.steps)
            rank = sureness.masked_fill(visible[name], math.inf).argsort(dim=1, stable=True).argsort(dim=1)
            fresh = ~visible[name] & (rank >= (hidden[name] * left).floor())
            codes[name] = torch.where(fresh[..., None], drawn, codes[name])
            visible[name] = visible[name] | fresh
    return codes


def _contexts(model: GestureModel, conditions: Conditions, sampling: Sampling) -> list[Context]:
    """Return what the model hears; for guidance also the same without audio and text."""
    contexts = [model.context(conditions)]
    if sampling.guidance != 1:
        mask = conditions.frame_mask
        contexts.append(model.context(conditions, Drop.speech(len(mask), mask.device)))
    return contexts


def _draw(
    part: PartCodes,
    states: Sequence[Tensor],
    sampling: Sampling,
    generators: Sequence[torch.Generator],
    noise: float,
) -> tuple[Tensor, Tensor]:
    """Draw all layers of all tokens of a part: codes (B, N, Q), and how sure the first layer is, (B, N)."""
    codes, sureness = [], torch.zeros(())
    before = states[0].new_zeros(*states[0].shape[:2], part.entries.shape[2])
    for layer in range(len(part.entries)):
        logits = [part.head.logits_of(layer, state, before).float() for state in states]
        guided = logits[0] if len(logits) == 1 else torch.lerp(logits[1], logits[0], sampling.guidance)
        code = _pick(guided, sampling, generators, greedy=layer > 0 and sampling.top_k is None)
        if layer == 0:
            sureness = guided.log_softmax(dim=-1).gather(-1, code[..., None])[..., 0]
        before = before + part.entries[layer, code]
        codes.append(code)
    if sampling.temperature > 0:
        sureness = sureness + sampling.temperature * noise * _gumbel(sureness, generators)
    return torch.stack(codes, dim=-1), sureness


def _pick(logits: Tensor, sampling: Sampling, generators: Sequence[torch.Generator], *, greedy: bool) -> Tensor:
    """Draw codes (B, N) from logits (B, N, K)."""
    if greedy or sampling.temperature == 0:
        return logits.argmax(dim=-1)
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    return (logits / sampling.temperature + _gumbel(logits, generators)).argmax(dim=-1)


def _gumbel(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return Gumbel noise of the shape of (B, ...), each item's from its own generator."""
    rows = [torch.empty(like.shape[1:]).exponential_(generator=generator) for generator in generators]
    return -torch.stack(rows).log().to(like.device)
