"""Which tokens training hides, and how often conditions are withheld."""

import math

import pytest
import torch
from gesture_models import PARTS
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from voxlab.errors import UserError
from voxlab.models.gesture.masking import Masking, draw_drop, draw_visible, masked_share

STRIDES = {part.name: part.stride for part in PARTS}


def _token_masks(lengths: list[int]) -> dict[str, Tensor]:
    frames = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {name: frames[:, ::stride] for name, stride in STRIDES.items()}


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(17, 64), min_size=1, max_size=6), seed=st.integers(0, 1000))
def test_masks_hide_one_token_at_least_and_valid_ones_only(lengths: list[int], seed: int) -> None:
    masks = _token_masks(lengths)
    visible = draw_visible(Masking(seed=0.0), masks, STRIDES, torch.Generator().manual_seed(seed))
    for name, mask in masks.items():
        assert (mask | visible[name]).all()
        assert ((~visible[name]).sum(dim=1) >= 1).all()
    again = draw_visible(Masking(seed=0.0), masks, STRIDES, torch.Generator().manual_seed(seed))
    assert all(torch.equal(visible[name], again[name]) for name in masks)


def test_the_share_of_hidden_tokens_follows_the_cosine() -> None:
    masks = _token_masks([64] * 4000)
    visible = draw_visible(Masking(full=0.0, seed=0.0), masks, STRIDES, torch.Generator().manual_seed(0))
    shares = masked_share(visible, masks)
    assert float(shares.mean()) == pytest.approx(2 / math.pi, abs=0.03)  # of cos(pi u / 2), and rounding up
    assert float((shares < math.cos(math.pi / 4)).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_joint_masks_hide_the_same_moments_of_all_parts() -> None:
    masks = _token_masks([64] * 50)
    settings = Masking(joint=1.0, full=0.0, seed=0.0)
    visible = draw_visible(settings, masks, STRIDES, torch.Generator().manual_seed(0))
    moments = visible["face"].unflatten(1, (16, 2)).float().mean(dim=2)
    assert float((moments - visible["upper"].float()).abs().max()) <= 0.5  # the finer part may split one step
    assert float(((moments - visible["upper"].float()).abs() > 0).float().mean()) < 1 / 16
    apart = draw_visible(Masking(joint=0.0, full=0.0, seed=0.0), masks, STRIDES, torch.Generator().manual_seed(0))
    assert float(((apart["face"][:, ::2] != apart["upper"]).float()).mean()) > 0.2


def test_one_shot_masks_show_the_seed_alone() -> None:
    masks, generator = _token_masks([64] * 200), torch.Generator().manual_seed(0)
    visible = draw_visible(Masking(mode="always"), masks, STRIDES, generator)
    seeded = visible["upper"][:, 0]
    assert float(seeded.float().mean()) == pytest.approx(0.5, abs=0.1)
    for name, count in (("upper", 4), ("face", 8)):
        assert torch.equal(visible[name][:, :count], seeded[:, None].expand(-1, count))
        assert not visible[name][:, count:].any()
    assert masked_share(visible, masks)[seeded].tolist() == pytest.approx([0.75] * int(seeded.sum()))


def test_conditions_are_withheld_as_often_as_asked() -> None:
    drop = draw_drop(Masking(), 20000, torch.Generator().manual_seed(0))
    shares = [float(part.float().mean()) for part in (drop.audio, drop.text, drop.speaker)]
    assert shares == pytest.approx([0.1, 0.2, 0.1], abs=0.01)
    assert not (drop.audio & ~drop.text).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "never"}, "choose random or always"),
        ({"joint": 1.5}, "masking.joint=1.5"),
        ({"seed_tokens": -1}, "masking.seed_tokens=-1"),
        ({"drop_audio": 0.3}, "drop_text=0.2 is less than drop_audio=0.3"),
    ],
)
def test_masking_out_of_range(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Masking(**wrong)  # type: ignore[arg-type]
