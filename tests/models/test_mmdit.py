"""Attention with times, fusion of two audio streams, residual streams and the joint blocks, against slow loops."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from gesture_models import FPS, random_conditions
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from voxlab.errors import UserError
from voxlab.models.gesture.attention import Rotation, attend
from voxlab.models.gesture.fusion import Fusion, FusionSettings
from voxlab.models.gesture.gesture_model import TokenPart
from voxlab.models.gesture.hyper_connections import HyperConnection, expand_streams, reduce_streams
from voxlab.models.gesture.mmdit import BlockSettings, Mmdit, Tokens

CONF = Path(__file__).resolve().parents[2] / "conf" / "model"
WIDTHS = {"text": 10, "audio": 12, "gesture": 14}


def _block_settings(streams: int) -> BlockSettings:
    return BlockSettings(heads=2, head_dim=8, streams=streams, condition_dim=6, dropout=0.0)


def _tokens(seed: int = 0) -> dict[str, Tokens]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: Tokens(
            torch.randn(2, 3 + index, width, generator=generator),
            torch.rand(2, 3 + index, generator=generator) * 4,
            torch.ones(2, 3 + index, dtype=torch.bool),
        )
        for index, (name, width) in enumerate(WIDTHS.items())
    }


# ---- attention -----------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(first=st.floats(0, 60), second=st.floats(0, 60), shift=st.floats(-30, 30))
def test_products_of_turned_vectors_depend_on_the_time_between_them(first: float, second: float, shift: float) -> None:
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0))

    def product(a: float, b: float) -> float:
        turned = [Rotation(torch.tensor([[time]]), 16)(x) for time, x in ((a, query), (b, key))]
        return float((turned[0] * turned[1]).sum())

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=2e-3)


def test_rotation_multiplies_pairs_by_complex_units() -> None:
    times, x = torch.tensor([[0.0, 0.4, 3.1]]), torch.randn(1, 2, 3, 8)
    rates = torch.tensor([30 * 1000 ** (-2 * pair / 8) for pair in range(4)])
    turned = torch.complex(x[..., :4], x[..., 4:]) * torch.exp(1j * times[0, :, None] * rates)
    torch.testing.assert_close(Rotation(times, 8)(x), torch.cat([turned.real, turned.imag], dim=-1))


def test_attention_equals_a_loop() -> None:
    queries, keys, values = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 5, 8), torch.randn(2, 3, 5, 8)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    found = attend(queries, keys, values, mask)
    for item, head, place in itertools.product(range(2), range(3), range(4)):
        scores = (keys[item, head, mask[item]] @ queries[item, head, place]) / 8**0.5
        expected = scores.softmax(0) @ values[item, head, mask[item]]
        torch.testing.assert_close(found[item, place, 8 * head : 8 * head + 8], expected)


# ---- fusion --------------------------------------------------------------------------------------


def test_fusion_equals_its_formula() -> None:
    torch.manual_seed(0)
    fusion: Any = Fusion(24, 10, 16, FusionSettings(heads=2, layers=2)).eval()
    conditions = random_conditions([9, 9])
    times = torch.arange(9).expand(2, 9) / FPS
    assert conditions.acoustic is not None
    speech, sound = fusion.project(conditions.features), fusion.acoustic(conditions.acoustic)
    for exchange in fusion.rounds:
        rotation = Rotation(times, 8)
        to_speech = exchange.to_speech(speech, sound, conditions.frame_mask, rotation)
        to_sound = exchange.to_sound(sound, speech, conditions.frame_mask, rotation)
        speech, sound = speech + to_speech, sound + to_sound
    gate = fusion.gate(torch.cat([speech, sound], dim=2)).sigmoid()
    fused = gate * speech + (1 - gate) * sound
    found = fusion(conditions.features, conditions.acoustic, conditions.frame_mask, times)
    torch.testing.assert_close(found, fused + fusion.output(fused))


def test_frames_past_the_end_have_no_say_in_fusion() -> None:
    fusion = Fusion(24, 10, 16, FusionSettings(heads=2)).eval()
    conditions = random_conditions([9, 5])
    times = torch.arange(9).expand(2, 9) / FPS
    whole = fusion(conditions.features, conditions.acoustic, conditions.frame_mask, times)
    assert conditions.acoustic is not None
    alone = fusion(
        conditions.features[1:, :5], conditions.acoustic[1:, :5], conditions.frame_mask[1:, :5], times[1:, :5]
    )
    torch.testing.assert_close(whole[1:, :5], alone)


def test_fusion_of_one_stream_keeps_frames_apart_and_refuses_another() -> None:
    fusion = Fusion(24, None, 16, FusionSettings(heads=2)).eval()
    conditions = random_conditions([9])
    times = torch.arange(9)[None] / FPS
    whole = fusion(conditions.features, None, conditions.frame_mask, times)
    torch.testing.assert_close(
        whole[:, 3:4], fusion(conditions.features[:, 3:4], None, times[:, :1] >= 0, times[:, :1])
    )
    with pytest.raises(ValueError, match="given True, expected False"):
        fusion(conditions.features, conditions.acoustic, conditions.frame_mask, times)


@pytest.mark.parametrize(("name", "value"), [("heads", 0), ("layers", -1), ("dropout", 1.0)])
def test_fusion_settings_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"model.fusion.{name}="):
        FusionSettings(**{name: value})  # type: ignore[arg-type]


# ---- residual streams ----------------------------------------------------------------------------


def test_one_stream_is_the_plain_residual() -> None:
    connection, hidden, output = HyperConnection(6, 1, 0), torch.randn(2, 3, 1, 6), torch.randn(2, 3, 6)
    x, mixed, weights = connection.read(hidden)
    assert list(connection.parameters()) == []
    assert torch.equal(x, hidden[:, :, 0])
    assert torch.equal(connection.write(mixed, weights, output), hidden + output[:, :, None])


def test_residual_streams_equal_a_loop() -> None:
    torch.manual_seed(0)
    connection, hidden, output = HyperConnection(6, 3, 4), torch.randn(1, 2, 3, 6), torch.randn(1, 2, 6)
    with torch.no_grad():
        for weights in connection.parameters():
            weights.normal_()
    x, mixed, weights = connection.read(hidden)
    after = connection.write(mixed, weights, output)
    for place in range(2):
        normed = [
            h / h.square().mean().add(torch.finfo().eps).sqrt() * connection.norm.weight for h in hidden[0, place]
        ]
        into = [connection.static_in[t] + 0.01 * torch.tanh(normed[t] @ connection.dynamic_in) for t in range(3)]
        torch.testing.assert_close(x[0, place], sum(into[t][0] * hidden[0, place, t] for t in range(3)))
        for s in range(3):
            out = connection.static_out[s] + 0.01 * torch.tanh(normed[s] @ connection.dynamic_out)
            expected = sum(into[t][1 + s] * hidden[0, place, t] for t in range(3)) + out * output[0, place]
            torch.testing.assert_close(after[0, place, s], expected)


@pytest.mark.parametrize("index", [0, 5])
def test_fresh_streams_read_one_and_write_to_all(index: int) -> None:
    connection, hidden, output = HyperConnection(6, 4, index), torch.randn(2, 3, 4, 6), torch.randn(2, 3, 6)
    x, mixed, weights = connection.read(hidden)
    torch.testing.assert_close(x, hidden[:, :, index % 4])
    torch.testing.assert_close(connection.write(mixed, weights, output), hidden + output[:, :, None])


def test_streams_come_from_copies_and_end_as_a_sum() -> None:
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(reduce_streams(expand_streams(x, 4)), 4 * x)


def test_a_fresh_backbone_with_streams_equals_one_without() -> None:
    torch.manual_seed(0)
    plain, streams = Mmdit(WIDTHS, "gesture", 3, _block_settings(1)), Mmdit(WIDTHS, "gesture", 3, _block_settings(4))
    streams.load_state_dict(plain.state_dict(), strict=False)
    condition = torch.randn(2, 6)
    torch.testing.assert_close(streams(_tokens(), condition), plain(_tokens(), condition))


# ---- joint blocks --------------------------------------------------------------------------------


def _reference(backbone: Any, tokens: dict[str, Tokens], condition: Tensor) -> Tensor:
    """The backbone with one residual stream, stream by stream and without its own plumbing."""
    hidden = {name: stream.values for name, stream in tokens.items()}
    condition = nn.functional.silu(condition)[:, None]
    for block in backbone.blocks:
        layers, heads, rest = block.parts, {}, {}
        for name, x in hidden.items():
            part = layers[name]
            shift, scale, *rest[name] = part.modulate(condition).chunk(2 if part.ends else 6, dim=-1)
            x = nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
            heads[name] = [each.unflatten(-1, (2, 8)).transpose(1, 2) for each in part.project(x).split(16, dim=-1)]
        turn = {name: Rotation(stream.times, 8) for name, stream in tokens.items()}
        keys = torch.cat([turn[name](layers[name].norm_key(heads[name][0])) for name in heads], dim=2)
        values = torch.cat([heads[name][1] for name in heads], dim=2)
        for name in [name for name in hidden if not layers[name].ends]:
            part = layers[name]
            query = turn[name](part.norm_query(heads[name][2]))
            attended = (query @ keys.transpose(2, 3) / 8**0.5).softmax(-1) @ values
            gate, shift, scale, last_gate = rest[name]
            x = hidden[name] + part.attended(attended.transpose(1, 2).flatten(2)) * (1 + gate)
            inner = nn.functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
            hidden[name] = x + part.feed_forward(inner) * (1 + last_gate)
    return backbone.norm(hidden["gesture"])


def test_the_backbone_equals_a_plain_reference() -> None:
    torch.manual_seed(0)
    backbone = Mmdit(WIDTHS, "gesture", 2, _block_settings(1))
    with torch.no_grad():
        for weights in backbone.parameters():
            weights.add_(0.1 * torch.randn_like(weights))
    condition = torch.randn(2, 6)
    torch.testing.assert_close(backbone(_tokens(), condition), _reference(backbone, _tokens(), condition))


@pytest.mark.parametrize(
    ("option", "backbone", "whole"), [("legacy", 247.6, 275.3), ("base", 106.2, 134.0), ("tiny", 0.334, 2.60)]
)
def test_sizes_of_the_presets(option: str, backbone: float, whole: float) -> None:
    settings = instantiate(yaml.safe_load((CONF / f"a2g_{option}.yaml").read_text()), _convert_="all")
    parts = [TokenPart(name, 4, 6, 1024) for name in ("upper", "hands", "lower_trans", "face")]
    with torch.device("meta"):
        books = {part.name: torch.randn(6, 1024, 128) for part in parts}
        model = settings.build(
            parts, books, feature_dim=768, acoustic_dim=128, num_speakers=25, fps=30, num_words=11195
        )
    assert sum(weights.numel() for weights in model.backbone.parameters()) / 1e6 == pytest.approx(backbone, rel=0.01)
    assert sum(weights.numel() for weights in model.parameters()) / 1e6 == pytest.approx(whole, rel=0.01)


def test_the_legacy_backbone_and_what_it_leaves_out_have_the_size_of_omniges() -> None:
    with torch.device("meta"):
        widths = {"text": 1024, "audio": 512, "gesture": 415}
        shape = BlockSettings(heads=8, head_dim=64, streams=4, condition_dim=512, dropout=0.0)
        backbone = Mmdit(widths, "gesture", 12, shape)
    built = sum(weights.numel() for weights in backbone.parameters())
    # queries, output, feed-forward and four of six modulations of the last block's text and audio
    left_out = sum(2 * 512 * width + 8 * width**2 + 5 * width + 4 * 513 * width for width in (1024, 512))
    assert (built + left_out) / 1e6 == pytest.approx(262.8, abs=0.1)
