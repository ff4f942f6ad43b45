"""Generation of motion codes: schedule, seeds, guidance, long audio, and the same noise for the same item."""

import math
from typing import Any

import pytest
import torch
from gesture_models import FPS, PARTS, generators, random_codes, random_conditions, small_model, stir
from torch import Tensor

from voxlab.errors import UserError
from voxlab.models.gesture.conditions import Conditions, Drop
from voxlab.models.gesture.gesture_model import GestureModel
from voxlab.models.gesture.sampling import Sampling, check_window, generate_codes, generate_long

GREEDY = Sampling(steps=1, temperature=0.0)
MODEL = stir(small_model())


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def _most_likely(model: GestureModel, conditions: Conditions, drop: Drop | None = None) -> dict[str, Tensor]:
    """All tokens hidden, one pass, layer after layer with teacher-forced logits."""
    masks = model.token_masks(conditions.frame_mask)
    codes = {name: torch.zeros_like(codes) for name, codes in random_codes(model, conditions).items()}
    hidden = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    with torch.no_grad():
        states = model(conditions, codes, hidden, torch.ones(len(conditions.speaker)), drop)
        for layer in range(3):
            for name, logits in model.logits(states, codes).items():
                if layer < codes[name].shape[2]:
                    codes[name][..., layer] = logits[:, :, layer].argmax(dim=-1)
    return {name: part * masks[name][..., None] for name, part in codes.items()}


def test_one_greedy_step_takes_the_most_likely_codes() -> None:
    conditions = random_conditions([20, 11])
    drawn = generate_codes(MODEL, conditions, sampling=GREEDY, generators=generators(0, 1))
    assert _same(drawn, _most_likely(MODEL, conditions))
    assert {name: tuple(codes.shape) for name, codes in drawn.items()} == {"upper": (2, 5, 2), "face": (2, 10, 3)}
    best = generate_codes(MODEL, conditions, sampling=Sampling(steps=1, top_k=1), generators=generators(0, 1))
    assert _same(drawn, best)


def test_guidance_runs_between_what_speech_says_and_what_silence_says() -> None:
    conditions = random_conditions([20])
    silent = generate_codes(
        MODEL, conditions, sampling=Sampling(steps=1, temperature=0, guidance=0), generators=generators(0)
    )
    assert _same(silent, _most_likely(MODEL, conditions, Drop.speech(1)))
    heard = generate_codes(MODEL, conditions, sampling=GREEDY, generators=generators(0))
    strong = generate_codes(
        MODEL, conditions, sampling=Sampling(steps=1, temperature=0, guidance=8), generators=generators(0)
    )
    assert not _same(heard, silent)
    assert not _same(heard, strong)


def test_the_same_seed_gives_the_same_codes_and_another_one_others() -> None:
    conditions, sampling = random_conditions([32]), Sampling(steps=4)
    first, again, other = (
        generate_codes(MODEL, conditions, sampling=sampling, generators=generators(seed)) for seed in (7, 7, 8)
    )
    assert _same(first, again)
    assert not _same(first, other)


def test_what_an_item_gets_does_not_depend_on_its_neighbours() -> None:
    conditions, sampling = random_conditions([32, 32, 32]), Sampling(steps=4, guidance=1.5, top_k=8)
    together = generate_codes(MODEL, conditions, sampling=sampling, generators=generators(3, 4, 5))
    for row in range(3):
        one = conditions.select(torch.tensor([row]))
        alone = generate_codes(MODEL, one, sampling=sampling, generators=generators(3 + row))
        assert _same(alone, {name: codes[[row]] for name, codes in together.items()})


def test_given_codes_at_both_ends_stay() -> None:
    conditions = random_conditions([32, 21])
    codes = random_codes(MODEL, conditions)
    seed = {name: part[:, :2] for name, part in codes.items()}
    end = {"face": codes["face"][:, 3:6]}
    drawn = generate_codes(
        MODEL, conditions, sampling=Sampling(steps=3), generators=generators(0, 1), seed_codes=seed, end_codes=end
    )
    for name in seed:
        assert torch.equal(drawn[name][:, :2], seed[name])
    assert torch.equal(drawn["face"][0, 13:16], end["face"][0])
    assert torch.equal(drawn["face"][1, 8:11], end["face"][1])
    assert not drawn["face"][1, 11:].any()
    free = generate_codes(MODEL, conditions, sampling=Sampling(steps=3), generators=generators(0, 1))
    assert not torch.equal(free["upper"][:, 2:], drawn["upper"][:, 2:])
    with pytest.raises(ValueError, match="upper: 7 tokens are given, an item has 6"):
        generate_codes(
            MODEL, conditions, sampling=GREEDY, generators=generators(0, 1), seed_codes={"upper": codes["upper"][:, :7]}
        )


def test_the_number_of_hidden_tokens_follows_the_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    states = MODEL.states

    def spy(context: Any, masks: Any, codes: Any, visible: dict[str, Tensor], ratio: Tensor) -> dict[str, Tensor]:
        seen.append({**{name: ~shown for name, shown in visible.items()}, "ratio": ratio})
        return states(context, masks, codes, visible, ratio)

    monkeypatch.setattr(MODEL, "states", spy)
    generate_codes(MODEL, random_conditions([64]), sampling=Sampling(steps=5), generators=generators(0))
    for step, hidden in enumerate(seen):
        wanted = {
            name: math.floor(count * math.cos(math.pi / 2 * step / 5)) for name, count in (("upper", 16), ("face", 32))
        }
        assert {name: int(hidden[name].sum()) for name in wanted} == wanted
        assert float(hidden["ratio"]) == pytest.approx(sum(wanted.values()) / 48)
        if step:
            assert not any((hidden[name] & ~seen[step - 1][name]).any() for name in wanted)


def test_sure_tokens_are_shown_first(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = random_conditions([64])
    best = _most_likely(MODEL, conditions)
    hidden = {name: torch.zeros(1, codes.shape[1], dtype=torch.bool) for name, codes in best.items()}
    with torch.no_grad():
        logits = MODEL.logits(MODEL(conditions, best, hidden, torch.ones(1)), best)
    shown: list[dict[str, Tensor]] = []
    states = MODEL.states
    monkeypatch.setattr(MODEL, "states", lambda *args: (shown.append(dict(args[3])), states(*args))[1])
    generate_codes(MODEL, conditions, sampling=Sampling(steps=2, temperature=0), generators=generators(0))
    for name, visible in shown[1].items():
        sureness = logits[name][0, :, 0].log_softmax(-1).max(dim=-1).values
        assert 0 < int(visible.sum()) < visible.shape[1]
        assert float(sureness[visible[0]].min()) >= float(sureness[~visible[0]].max()) - 1e-5


# ---- long audio ------------------------------------------------------------------------------------------------------


def _long(conditions: Conditions, *seeds: int, **settings: Any) -> list[dict[str, Tensor]]:
    given = {"window": 32, "overlap_tokens": 2, "sampling": Sampling(steps=2), **settings}
    return generate_long(MODEL, conditions, generators=generators(*seeds), **given)


@pytest.mark.parametrize("frames", [1, 3, 31, 32, 33, 56, 57, 109])
def test_every_length_is_met_exactly(frames: int) -> None:
    (drawn,) = _long(random_conditions([frames]), 0)
    assert {name: len(codes) for name, codes in drawn.items()} == {"upper": -(-frames // 4), "face": -(-frames // 2)}


def test_windows_equal_calls_with_the_end_of_the_one_before_as_seed() -> None:
    conditions, sampling, own = random_conditions([75], words=9), Sampling(steps=3), generators(5)
    windows: list[dict[str, Tensor]] = []
    for start in (0, 24, 48):
        seed = (
            {name: windows[-1][name][:, -8 // part.stride :] for name, part in MODEL.parts.items()} if windows else {}
        )
        part = conditions.window(start, 32, FPS)
        windows.append(generate_codes(MODEL, part, sampling=sampling, generators=own, seed_codes=seed))
    (drawn,) = _long(conditions, 5, sampling=sampling)
    for name, part in MODEL.parts.items():
        tokens = 24 // part.stride
        whole = torch.cat([windows[0][name][0, :tokens], windows[1][name][0, :tokens], windows[2][name][0]])
        assert torch.equal(drawn[name], whole[: -(-75 // part.stride)])


def test_clips_of_different_lengths_together_equal_single_ones() -> None:
    conditions = random_conditions([70, 20, 41], words=6)
    together = _long(conditions, 0, 1, 2)
    for row in range(3):
        (alone,) = _long(conditions.select(torch.tensor([row])), row)
        assert _same(together[row], alone)


def test_long_audio_keeps_codes_given_at_both_ends() -> None:
    conditions = random_conditions([70, 41])
    codes = random_codes(MODEL, conditions)
    given = {name: part[:, :3] for name, part in codes.items()}
    drawn = _long(conditions, 0, 1, seed_codes=given, end_codes=given)
    for row in range(2):
        for name in given:
            assert torch.equal(drawn[row][name][:3], given[name][row])
            assert torch.equal(drawn[row][name][-3:], given[name][row])


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout would be on"):
        generate_codes(small_model().train(), random_conditions([8]), sampling=GREEDY, generators=generators(0))


def test_windows_that_tokens_do_not_fill_are_refused() -> None:
    check_window(64, PARTS)
    with pytest.raises(UserError, match=r"fit.window=61 frames.*multiple of 4.*upper 4, face 2.*nearest: 60 or 64"):
        check_window(61, PARTS, "fit.window")
    with pytest.raises(UserError, match=r"nearest: 4\."):
        check_window(0, PARTS)
    with pytest.raises(UserError, match="overlap of 8 tokens is 32 frames; the window has 32"):
        _long(random_conditions([40]), 0, overlap_tokens=8)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "sampling.steps=0"),
        ({"temperature": -0.1}, "sampling.temperature=-0.1"),
        ({"guidance": math.nan}, "sampling.guidance=nan"),
        ({"top_k": 0}, "sampling.top_k=0"),
        ({"steps": 2.5}, "sampling.steps=2.5"),
    ],
)
def test_sampling_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sampling(**wrong)  # type: ignore[arg-type]
