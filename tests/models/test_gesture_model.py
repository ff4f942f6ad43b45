"""The gesture model: what may and may not influence its answers, gradients, first loss, learning, checkpoints."""

import itertools
import json
import math

import pytest
import torch
from gesture_models import (
    CODE_DIM,
    FPS,
    PARTS,
    SMALL,
    random_codes,
    random_conditions,
    small_codebooks,
    small_model,
    stir,
)
from torch import Tensor
from torch._dynamo.utils import counters

from voxlab.errors import UserError
from voxlab.losses.gesture import code_accuracy, code_cross_entropy, motion_losses, soft_latents
from voxlab.models.gesture.conditions import Conditions, Drop
from voxlab.models.gesture.fusion import FusionSettings
from voxlab.models.gesture.gesture_model import A2gModel, GestureModel, describe, rebuild
from voxlab.models.gesture.masking import Masking, draw_visible, masked_share
from voxlab.models.gesture.motion_rvq import MotionArchitecture, MotionRvqVae

STRIDES = {part.name: part.stride for part in PARTS}


def _hidden(model: GestureModel, conditions: Conditions) -> dict[str, Tensor]:
    """Nothing is visible."""
    return {name: torch.zeros_like(mask) for name, mask in model.token_masks(conditions.frame_mask).items()}


def _some(model: GestureModel, conditions: Conditions) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        name: mask & (torch.rand(mask.shape, generator=generator) < 0.5)
        for name, mask in model.token_masks(conditions.frame_mask).items()
    }


def _states(model: GestureModel, conditions: Conditions, drop: Drop | None = None) -> Tensor:
    """The states of all tokens, (B, sum of N, width)."""
    batch = len(conditions.speaker)
    states = model(
        conditions, random_codes(model, conditions), _some(model, conditions), torch.full((batch,), 0.5), drop
    )
    return torch.cat(list(states.values()), dim=1)


def _apart(a: Tensor, b: Tensor) -> float:
    """Relative distance."""
    return float(((a - b).norm() / a.norm()).detach())


# ---- what has a say ------------------------------------------------------------------------------------------------


def test_items_of_a_padded_batch_equal_single_ones() -> None:
    model, conditions = stir(small_model()), random_conditions([19, 8, 16])
    codes, visible, ratio = random_codes(model, conditions), _some(model, conditions), torch.tensor([0.2, 0.5, 0.9])
    together = model(conditions, codes, visible, ratio)
    for row, (length, words) in enumerate([(19, 3), (8, 2), (16, 1)]):
        one = conditions.select(torch.tensor([row]))
        assert one.acoustic is not None
        alone = Conditions(
            one.features[:, :length],
            one.acoustic[:, :length],
            one.frame_mask[:, :length],
            one.speaker,
            one.word_ids[:, :words],
            one.word_times[:, :words],
            one.word_mask[:, :words],
        )
        counts = {name: -(-length // stride) for name, stride in STRIDES.items()}
        own_codes = {name: codes[name][[row], :count] for name, count in counts.items()}
        own_visible = {name: visible[name][[row], :count] for name, count in counts.items()}
        states = model(alone, own_codes, own_visible, ratio[[row]])
        for name, count in counts.items():
            torch.testing.assert_close(states[name][0], together[name][row, :count], atol=2e-5, rtol=1e-4)


def test_hidden_codes_have_no_say_and_visible_ones_do() -> None:
    model, conditions = small_model(), random_conditions([16, 16])
    visible, ratio = _some(model, conditions), torch.tensor([0.5, 0.5])
    first, second = (random_codes(model, conditions, seed) for seed in (2, 3))
    mixed = {name: torch.where(visible[name][..., None], first[name], second[name]) for name in first}
    states = [model(conditions, codes, visible, ratio)["upper"] for codes in (first, mixed, second)]
    assert torch.equal(states[0], states[1])
    assert _apart(states[0], states[2]) > 1e-2


def test_each_layer_sees_the_codes_before_it_only() -> None:
    model, conditions = small_model(), random_conditions([16])
    states = model(conditions, random_codes(model, conditions), _hidden(model, conditions), torch.ones(1))
    codes = random_codes(model, conditions)
    logits = model.logits(states, codes)["face"]
    for layer in range(3):
        changed = {name: part.clone() for name, part in codes.items()}
        changed["face"][..., layer] = (changed["face"][..., layer] + 1) % 16
        after = model.logits(states, changed)["face"]
        assert torch.equal(after[:, :, : layer + 1], logits[:, :, : layer + 1])
        assert layer == 2 or not torch.allclose(after[:, :, layer + 1], logits[:, :, layer + 1])


def test_logits_of_all_layers_equal_those_of_one_after_the_other() -> None:
    model, conditions = stir(small_model()), random_conditions([16])
    codes, head = random_codes(model, conditions), model.part("face").head
    states = model(conditions, codes, _hidden(model, conditions), torch.ones(1))
    together = model.logits(states, codes)["face"]
    books = small_codebooks()["face"]
    before = torch.zeros(1, 8, CODE_DIM)
    for layer in range(3):
        torch.testing.assert_close(head.logits_of(layer, states["face"], before), together[:, :, layer])
        before = before + books[layer, codes["face"][..., layer]] / books[0].std()


def test_latents_are_the_sum_of_the_true_entries() -> None:
    model, conditions, books = small_model(), random_conditions([8, 8]), small_codebooks()
    codes = random_codes(model, conditions)
    for name, latents in model.latents(codes).items():
        for row, token in itertools.product(range(2), range(latents.shape[1])):
            own = codes[name][row, token]
            expected = sum(books[name][layer, own[layer]] for layer in range(len(own)))
            torch.testing.assert_close(latents[row, token], expected)


@pytest.mark.parametrize("acoustic", [True, False])
def test_moving_audio_in_time_changes_the_gesture(acoustic: bool) -> None:
    model, conditions = small_model(acoustic=acoustic), random_conditions([32], acoustic=acoustic)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    moved = Conditions(
        conditions.features[:, order],
        None if conditions.acoustic is None else conditions.acoustic[:, order],
        *(getattr(conditions, name) for name in ("frame_mask", "speaker", "word_ids", "word_times", "word_mask")),
    )
    assert _apart(_states(model, conditions), _states(model, moved)) > 1e-2


def test_speaker_words_and_mask_ratio_have_a_say() -> None:
    model, conditions = stir(small_model()), random_conditions([16])
    here = _states(model, conditions)
    others = {
        "speaker": conditions.speaker + 1,
        "word_ids": (conditions.word_ids + 1) % 7,
        "word_times": conditions.word_times + 1,
    }
    for name, value in others.items():
        values = {field: getattr(conditions, field) for field in Conditions.__dataclass_fields__}
        assert _apart(here, _states(model, Conditions(**{**values, name: value}))) > 1e-3, name
    codes, visible = random_codes(model, conditions), _some(model, conditions)
    low, high = (model(conditions, codes, visible, torch.tensor([ratio]))["face"] for ratio in (0.1, 0.9))
    assert _apart(low, high) > 1e-3


def test_what_is_withheld_has_no_say() -> None:
    model, (one, other) = stir(small_model()), (random_conditions([16, 16], seed=seed) for seed in (1, 2))
    nothing, everything = Drop.nothing(2), torch.ones(2, dtype=torch.bool)
    assert torch.equal(_states(model, one), _states(model, one, nothing))
    assert torch.equal(_states(model, one, Drop.speech(2)), _states(model, other, Drop.speech(2)))
    unknown = Conditions(**{**vars(one), "speaker": torch.tensor([-1, -1])})
    assert torch.equal(_states(model, one, Drop(nothing.audio, nothing.text, everything)), _states(model, unknown))
    silent = Conditions(**{**vars(one), "word_mask": torch.zeros_like(one.word_mask)})
    assert torch.equal(_states(model, one, Drop(nothing.audio, everything, nothing.speaker)), _states(model, silent))
    assert _apart(_states(model, one), _states(model, silent)) > 1e-3


def test_no_words_at_all_equal_masked_ones() -> None:
    model, conditions = stir(small_model()), random_conditions([16])
    none = {name: getattr(conditions, name)[:, :0] for name in ("word_ids", "word_times", "word_mask")}
    masked = Conditions(**{**vars(conditions), "word_mask": torch.zeros_like(conditions.word_mask)})
    torch.testing.assert_close(_states(model, Conditions(**{**vars(conditions), **none})), _states(model, masked))


# ---- windows of conditions -------------------------------------------------------------------------------------------


def test_a_window_equals_a_loop_over_frames_and_words() -> None:
    conditions = random_conditions([19, 11], words=6)
    window = conditions.window(8, 8, FPS)
    assert conditions.acoustic is not None
    assert window.acoustic is not None
    assert window.frame_mask.all()
    for row, frame in itertools.product(range(2), range(8)):
        source = min(8 + frame, (19, 11)[row] - 1)
        assert torch.equal(window.features[row, frame], conditions.features[row, source])
        assert torch.equal(window.acoustic[row, frame], conditions.acoustic[row, source])
    for row, word in itertools.product(range(2), range(6)):
        time = float(conditions.word_times[row, word])
        inside = bool(conditions.word_mask[row, word]) and 8 / FPS <= time < 16 / FPS
        assert bool(window.word_mask[row, word]) == inside
        assert float(window.word_times[row, word]) == pytest.approx(time - 8 / FPS, abs=1e-6)
    assert window.word_mask.any()


# ---- learning ------------------------------------------------------------------------------------------------------


def test_at_first_all_codes_are_about_equally_likely() -> None:
    model, conditions = small_model(), random_conditions([64] * 4)
    codes, hidden = random_codes(model, conditions), _hidden(model, conditions)
    logits = model.logits(model(conditions, codes, hidden, torch.ones(4)), codes)
    for part in PARTS:
        first = code_cross_entropy(logits[part.name], codes[part.name], ~hidden[part.name]).value
        assert first.item() == pytest.approx(math.log(part.codebook_size), abs=0.3)


def _frozen_decoder(stride: int) -> MotionRvqVae:
    strides = {2: (2, 1), 4: (2, 2)}[stride]
    network = MotionArchitecture(dim=5, width=8, depth=1, code_dim=CODE_DIM, strides=strides).build()
    return network.requires_grad_(False).eval()


@pytest.mark.parametrize("term", ["ce", "rec", "velocity", "acceleration"])
@pytest.mark.parametrize("straight_through", [False, True])
def test_each_term_alone_reaches_fusion_backbone_and_heads(term: str, straight_through: bool) -> None:
    model, conditions = stir(small_model()).train(), random_conditions([16, 16])
    decoders = {part.name: _frozen_decoder(part.stride) for part in PARTS}
    codes, visible = random_codes(model, conditions), _some(model, conditions)
    states = model(conditions, codes, visible, torch.full((2,), 0.5), Drop.nothing(2))
    logits, latents, loss = model.logits(states, codes), model.latents(codes), torch.zeros(())
    for part in PARTS:
        name = part.name
        if term == "ce":
            loss = loss + code_cross_entropy(logits[name], codes[name], ~visible[name]).value
            continue
        soft = soft_latents(logits[name], model.part(name).codebooks, straight_through)
        decoded = decoders[name].decode_latents(torch.where(visible[name][..., None], latents[name], soft))
        loss = loss + motion_losses(decoded, torch.zeros_like(decoded), conditions.frame_mask)[term].value
    loss.backward()
    reached = {name.split(".")[0] for name, weights in model.named_parameters() if weights.grad is not None}
    assert {"fusion", "backbone", "codes", "words", "speakers", "ratio"} <= reached
    live = {name.split(".")[0] for name, weights in model.named_parameters() if (weights.grad != 0).any()}
    assert {"fusion", "backbone", "codes", "words", "speakers", "ratio"} <= live
    assert all(weights.grad is None for decoder in decoders.values() for weights in decoder.parameters())
    assert not any(books.requires_grad for books in model.buffers())


@pytest.mark.parametrize("acoustic", [True, False])
def test_every_weight_takes_part_in_each_step(acoustic: bool) -> None:
    """Ranks that train together would wait for the gradient of one that doesn't."""
    model, conditions = small_model(acoustic=acoustic).train(), random_conditions([16], words=0, acoustic=acoustic)
    codes = random_codes(model, conditions)
    states = model(conditions, codes, _hidden(model, conditions), torch.ones(1))
    torch.stack([logits.sum() for logits in model.logits(states, codes).values()]).sum().backward()
    assert [name for name, weights in model.named_parameters() if weights.grad is None] == []


def test_eight_windows_are_learnt_in_sixty_steps() -> None:
    model, conditions = small_model().train(), random_conditions([32] * 8)
    codes, masks = random_codes(model, conditions), model.token_masks(conditions.frame_mask)
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=6e-3), torch.Generator().manual_seed(0)

    def losses(visible: dict[str, Tensor]) -> tuple[Tensor, float]:
        logits = model.logits(model(conditions, codes, visible, masked_share(visible, masks)), codes)
        terms = [code_cross_entropy(logits[name], codes[name], ~visible[name]).value for name in logits]
        right = [float(code_accuracy(logits[name], codes[name], ~visible[name])["top1"].value) for name in logits]
        return torch.stack(terms).mean(), sum(right) / len(right)

    first = losses(_hidden(model, conditions))[0].item()
    for _ in range(60):
        optimizer.zero_grad()
        losses(draw_visible(Masking(full=0.5), masks, STRIDES, generator))[0].backward()
        optimizer.step()
    last, accuracy = losses(_hidden(model, conditions))
    assert last.item() < 0.3 * first
    assert accuracy > 0.6


def test_blocks_compile_without_breaks_and_share_their_code() -> None:
    model, conditions = stir(small_model(layers=4)), random_conditions([16, 12])
    expected = _states(model, conditions)
    torch._dynamo.reset()
    counters.clear()
    model.compile_blocks(backend="eager")
    torch.testing.assert_close(_states(model, conditions), expected)
    assert counters["stats"]["unique_graphs"] == 2  # three blocks alike, and the last one
    assert not counters["graph_break"]


def test_half_precision_stays_near() -> None:
    model, conditions = stir(small_model()), random_conditions([16, 12])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = _states(model, conditions)
    assert _apart(_states(model, conditions), half.float()) < 0.05


# ---- settings and checkpoints --------------------------------------------------------------------------------------


def test_a_description_rebuilds_the_model_with_the_codebooks_given_anew() -> None:
    model, conditions = stir(small_model()), random_conditions([16])
    again = rebuild(json.loads(json.dumps(describe(model))), small_codebooks()).eval()
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    again.load_state_dict(model.state_dict())
    assert torch.equal(_states(model, conditions), _states(again, conditions))


def test_a_foreign_description_is_refused() -> None:
    model = small_model()
    description = describe(model)
    description["settings"]["depth"] = 3
    with pytest.raises(UserError, match="another version"):
        rebuild(description, small_codebooks())
    with pytest.raises(UserError, match=r"codebooks of part face are missing.*3 of 16 entries"):
        rebuild(describe(model), {"upper": small_codebooks()["upper"]})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": 0}, "model.layers=0"),
        ({"head_dim": 15}, "give an even number"),
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"audio_width": 30, "fusion": FusionSettings(heads=4)}, "multiple of twice the heads"),
        ({"heads": "two"}, "model.heads='two'"),
    ],
)
def test_model_settings_out_of_range(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        A2gModel(**{**SMALL, **wrong})


def test_codes_of_another_length_are_refused() -> None:
    model, conditions = small_model(), random_conditions([16])
    codes = random_codes(model, random_conditions([20]))
    with pytest.raises(ValueError, match=r"upper: codes \(1, 5, 2\) for tokens \(1, 4\)"):
        model(conditions, codes, _hidden(model, conditions), torch.ones(1))
