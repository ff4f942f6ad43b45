"""Networks of laughter: causal, the same in pieces as whole, rebuilt from their description, started at a bias."""

from typing import Any

import pytest
import torch

from voxlab.errors import UserError
from voxlab.models.laughter import (
    FAMILIES,
    Architecture,
    Gru,
    LaughterModel,
    Linear,
    LnLinear,
    Mlp,
    Tcn,
    describe,
    rebuild,
)

DIM = 6
SMALL: list[Architecture] = [
    *(Linear(), LnLinear(), Mlp(hidden=8), Tcn(hidden=8, layers=3), Gru(hidden=8, warmup=10), Gru(hidden=4, layers=2)),
]
IDS = [f"{kind.family}{number}" for number, kind in enumerate(SMALL)]


def built(kind: Architecture, norm: str = "standard", seed: int = 0) -> LaughterModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind.build(DIM, norm)
    model.standardize(torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM))
    return model.eval()


def frames(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", SMALL, ids=IDS)
def test_pieces_of_any_length_give_the_logits_of_the_whole(kind: Architecture) -> None:
    model, x = built(kind), frames(2, 40)
    whole = model(x)
    assert whole.shape == (2, 40)
    for cuts in ([1] * 40, [7, 13, 20], [39, 1]):
        state, parts = None, []
        for piece in x.split(cuts, dim=1):
            logits, state = model.stream(piece, state)
            parts.append(logits)
        torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", SMALL, ids=IDS)
def test_steps_are_the_whole(kind: Architecture) -> None:
    model, x = built(kind), frames(1, 30)
    state, logits = None, []
    for frame in x[0]:
        logit, state = model.step(frame[None], state)
        assert logit.shape == (1,)
        logits.append(logit)
    torch.testing.assert_close(torch.cat(logits), model(x)[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", SMALL, ids=IDS)
def test_no_frame_sees_the_future_and_padding_does_no_harm(kind: Architecture) -> None:
    model, x = built(kind), frames(1, 80)
    whole, changed = model(x), x.clone()
    changed[:, 40] += 3
    moved = (model(changed) != whole)[0].nonzero()[:, 0]
    assert int(moved[0]) == 40
    if kind.family != "gru":
        assert int(moved[-1]) == 40 + kind.context
    padded = torch.cat([x[:, :50], torch.zeros(1, 30, DIM)], 1)
    torch.testing.assert_close(model(padded)[:, :50], whole[:, :50], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", SMALL, ids=IDS)
def test_output_starts_at_the_bias_and_learns(kind: Architecture) -> None:
    model, x = built(kind).train(), frames(3, 5)
    model.set_output_bias(-4.5)
    logits = model(x)
    assert logits.detach().numpy() == pytest.approx(-4.5)
    logits.square().sum().backward()
    assert float(model.head.output.weight.grad.abs().max()) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", SMALL, ids=IDS)
def test_a_model_is_rebuilt_from_its_description(kind: Architecture) -> None:
    model = built(kind, "layernorm")
    again = rebuild(describe(model))
    again.load_state_dict(model.state_dict())
    assert again.architecture == kind
    torch.testing.assert_close(again.eval()(frames(1, 9)), model(frames(1, 9)), atol=0, rtol=0)


def test_normalisers() -> None:
    x = frames(2, 4)
    seen: list[torch.Tensor] = []
    for norm in ("standard", "layernorm", "none"):
        model = built(Linear(), norm)
        model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        model(x)
    mean, std = torch.linspace(-1, 1, DIM), torch.linspace(0.5, 2, DIM)
    torch.testing.assert_close(seen[0], (x - mean) / std)
    torch.testing.assert_close(seen[1].mean(-1), torch.zeros(2, 4), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[1].var(-1, unbiased=False), torch.ones(2, 4), atol=1e-3, rtol=0)
    assert torch.equal(seen[2], x)


def test_constant_features_are_not_blown_up() -> None:
    model = built(Linear())
    model.standardize(torch.zeros(DIM), torch.zeros(DIM))
    assert model.std.tolist() == pytest.approx([1e-4] * DIM)


def test_the_offset_counts_in_evaluation_only() -> None:
    model, x = built(Linear()), frames(1, 3)
    before = model(x)
    model.offset.fill_(-2.0)
    torch.testing.assert_close(model(x), before - 2)
    torch.testing.assert_close(model.train()(x), before)


def test_linear_is_a_dot_product() -> None:
    model, x = built(Linear(), "none"), frames(2, 3)
    weight, bias = model.head.output.weight[0], model.head.output.bias[0]
    torch.testing.assert_close(model(x), (x * weight).sum(-1) + bias)


def test_defaults_look_back_as_documented() -> None:
    assert [kind().context for kind in FAMILIES.values()] == [0, 0, 0, 62, 100]
    assert Tcn().context == 2 * (1 + 2 + 4 + 8 + 16)


WRONG: list[tuple[Any, str]] = [
    (lambda: Mlp(hidden=0), "model.hidden=0"),
    (lambda: Mlp(dropout=1.0), "model.dropout=1.0"),
    (lambda: Mlp(hidden=2.5), "model.hidden=2.5: give a whole number"),  # type: ignore[arg-type]
    (lambda: Tcn(kernel=1), "model.kernel=1"),
    (lambda: Gru(layers=0), "model.layers=0"),
    (lambda: Linear(bias_init="ones"), "model.bias_init=ones: choose auto, prior, zero"),
    (lambda: Linear().build(4, "batch"), "fit.norm=batch: choose standard, layernorm, none"),
    (lambda: rebuild({"family": "transformer", "dim": 4, "norm": "none"}), "model 'transformer'"),
    (
        lambda: rebuild({"family": "linear", "dim": 4, "norm": "none", "depth": 2}),
        "model=linear differs in bias_init, depth",
    ),
]


@pytest.mark.parametrize(("make", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_settings(make: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
