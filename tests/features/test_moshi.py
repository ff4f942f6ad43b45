"""Moshi's hidden states against the moshi package: same network, one full forward pass."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moshi.models.lm_utils import _delay_sequence
from moshi.models.loaders import CheckpointInfo
from moshi.utils.compile import no_compile
from torch import Tensor

from tests.features.recordings import extract, frames_of, make_recording
from voxlab.errors import UserError
from voxlab.features import moshi_codes
from voxlab.features.base import Recording
from voxlab.features.moshi import MoshiFeatures
from voxlab.features.moshi_lm import MoshiLm
from voxlab.features.streams import language_model_input

HOP, WINDOW = 1920, 40


def build(folder: Path, **changes: Any) -> MoshiFeatures:
    return MoshiFeatures(weights=str(folder), **({"dtype": "float32"} | changes)).to("cpu")


def read_upstream(folder: Path) -> CheckpointInfo:
    """Read a folder as moshi's own programs do, all files given."""
    return CheckpointInfo.from_hf_repo(
        "not/used",
        moshi_weights=folder / "model.safetensors",
        mimi_weights=folder / "mimi.safetensors",
        tokenizer=folder / "not-used",
        config_path=folder / "config.json",
        mimi_config_path=folder / "mimi_config.json",
    )


@pytest.fixture(scope="module")
def upstream(moshi_folder: Path) -> Any:
    return read_upstream(moshi_folder).get_moshi(dtype=torch.float32)


@pytest.fixture(scope="module")
def features(moshi_folder: Path) -> MoshiFeatures:
    return build(moshi_folder)


@pytest.fixture(scope="module")
def lm(features: MoshiFeatures) -> MoshiLm:
    return features._lm


def random_tokens(num_frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 2048, (17, num_frames), generator=generator)
    tokens[0] = torch.randint(0, 32000, (num_frames,), generator=generator)
    return tokens


def delayed_by_moshi(upstream: Any, tokens: Tensor) -> Tensor:
    initial = upstream._get_initial_token()
    return torch.cat([initial, _delay_sequence(upstream.delays, tokens[None], initial)], dim=2)[:, :, :-1]


def hidden_by_moshi(upstream: Any, tokens: Tensor) -> np.ndarray:
    with torch.no_grad(), no_compile():
        return upstream.forward_text(delayed_by_moshi(upstream, tokens))[0][0].numpy()


def hidden(lm: MoshiLm, tokens: Tensor) -> Tensor:
    """One full forward pass of ours."""
    return lm.compute(language_model_input(tokens, lm.initial, lm.delays)[None])[0]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 50])
def test_the_delayed_input_is_that_of_the_package(upstream: Any, lm: MoshiLm, num_frames: int) -> None:
    tokens = random_tokens(num_frames)
    ours = language_model_input(tokens, lm.initial, lm.delays)
    assert torch.equal(ours, delayed_by_moshi(upstream, tokens)[0])


def test_the_model_without_depth_part_gives_the_states_of_the_whole_one(upstream: Any, lm: MoshiLm) -> None:
    tokens = random_tokens(120)
    assert len(lm.network.linears) == 0
    assert len(upstream.linears) == 8
    assert np.array_equal(hidden(lm, tokens).numpy(), hidden_by_moshi(upstream, tokens))


@pytest.mark.parametrize("batch_rows", [1, 3])
@pytest.mark.parametrize("step_frames", [1, 7, 40, 125])
def test_stored_features_are_the_states_of_one_forward_pass(
    moshi_folder: Path, upstream: Any, batch_rows: int, step_frames: int
) -> None:
    features = build(moshi_folder, batch_rows=batch_rows, step_frames=step_frames)
    lengths = {"a": 200, "b": 45, "c": 121, "d": 7} if step_frames > 1 else {"a": 90, "b": 45, "c": 3}
    recordings = [make_recording(key, length, HOP, agent=key == "b") for key, length in lengths.items()]
    arrays = extract(features, recordings)
    for key in lengths:
        codes = torch.from_numpy(arrays[key, "codes"].T.astype(np.int64))
        wanted = hidden_by_moshi(upstream, codes)
        assert np.abs(arrays[key, "features"] - wanted).max() <= 2**-10 * np.abs(wanted).max()  # float16 keeps 11 bits


def test_codes_are_those_of_mimi_in_the_order_text_agent_other(moshi_folder: Path, features: MoshiFeatures) -> None:
    recording = make_recording("a", 120, HOP, agent=True)
    codes = extract(features, [recording])["a", "codes"].T
    mimi = read_upstream(moshi_folder).get_mimi()
    padded = [torch.nn.functional.pad(wav, (0, 77))[None] for wav in recording.load() if wav is not None]
    with torch.no_grad(), no_compile():
        agent, other = (mimi.encode(wav)[0].numpy() for wav in padded)
    assert (codes[0] == 3).all()
    assert np.array_equal(codes[1:9], agent)
    assert np.array_equal(codes[9:], other)


def test_without_an_agent_its_side_holds_the_codes_of_silence(moshi_folder: Path, features: MoshiFeatures) -> None:
    recordings = [make_recording("short", 60, HOP), make_recording("long", 100, HOP), make_recording("last", 20, HOP)]
    arrays = extract(features, recordings)
    mimi = read_upstream(moshi_folder).get_mimi()
    with torch.no_grad(), no_compile():
        silence = mimi.encode(torch.zeros(1, 1, 100 * HOP))[0].numpy()
    for recording in recordings:
        assert np.array_equal(arrays[recording.key, "codes"].T[1:9], silence[:, : recording.num_frames])


@pytest.mark.parametrize("row", range(17))
def test_a_token_is_first_seen_one_frame_later_and_acoustic_ones_two(lm: MoshiLm, row: int) -> None:
    tokens = random_tokens(130)
    changed = tokens.clone()
    changed[row, 100] = (changed[row, 100] + 1) % 2000
    differs = (hidden(lm, tokens) != hidden(lm, changed)).any(dim=1)
    assert int(differs.nonzero()[0]) == (101 if row in (0, 1, 9) else 102)


def test_the_last_tokens_are_never_read(lm: MoshiLm) -> None:
    tokens, changed = random_tokens(130), random_tokens(130)
    changed[:, -1] = random_tokens(1, seed=5)[:, 0]
    assert torch.equal(hidden(lm, tokens), hidden(lm, changed))


def _streamed(lm: MoshiLm, delayed: Tensor, step: int) -> Tensor:
    with lm.stream(len(delayed), step):
        return torch.cat([lm.compute(part) for part in delayed.split(step, dim=2)], dim=1)


@pytest.mark.parametrize("step", [4, 20, 40])
def test_steps_equal_one_forward_pass_and_a_ring_of_the_window_does_not(lm: MoshiLm, step: int) -> None:
    delayed = torch.stack([language_model_input(random_tokens(300, seed), lm.initial, lm.delays) for seed in (1, 2)])
    full = lm.compute(delayed)
    assert (_streamed(lm, delayed, step) - full).abs().max() <= 1e-4
    with lm.network.transformer.streaming(2):  # as moshi does it
        naive = torch.cat([lm.compute(part) for part in delayed.split(step, dim=2)], dim=1)
    error = (naive - full).abs().amax(dim=(0, 2))
    assert error[:WINDOW].max() <= 1e-4
    assert error[WINDOW : WINDOW + step].max() > 0.1
    assert lm.window == WINDOW


def test_a_row_that_starts_anew_forgets_what_was(lm: MoshiLm) -> None:
    first = torch.stack([language_model_input(random_tokens(100, seed), lm.initial, lm.delays) for seed in (1, 2)])
    second = language_model_input(random_tokens(100, 3), lm.initial, lm.delays)
    whole = language_model_input(random_tokens(200, 1), lm.initial, lm.delays)
    with lm.stream(2, 20):
        for part in whole[:, :100].split(20, dim=1):
            lm.compute(torch.stack([part, first[1][:, :20]]))
        lm.reset([False, True])
        states = [
            lm.compute(torch.stack(pair)) for pair in zip(whole[:, 100:].split(20, 1), second.split(20, 1), strict=True)
        ]
    after = torch.cat(states, dim=1)
    assert (after[1] - lm.compute(second[None])[0]).abs().max() <= 1e-4
    assert (after[0] - lm.compute(whole[None])[0, 100:]).abs().max() <= 1e-4


def test_the_legacy_order_swaps_the_sides_and_changes_the_states(moshi_folder: Path, features: MoshiFeatures) -> None:
    recording = make_recording("a", 100, HOP, agent=True)
    legacy = extract(build(moshi_folder, stream_order="legacy"), [recording])
    ours = extract(features, [recording])
    assert np.array_equal(legacy["a", "codes"][:, 1:9], ours["a", "codes"][:, 9:])
    assert np.array_equal(legacy["a", "codes"][:, 9:], ours["a", "codes"][:, 1:9])
    a, b = ours["a", "features"].astype(np.float64), legacy["a", "features"].astype(np.float64)
    assert np.linalg.norm(a - b) / np.linalg.norm(a) > 0.5


@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_is_what_a_hook_on_it_sees(moshi_folder: Path, upstream: Any, layer: int) -> None:
    arrays = extract(build(moshi_folder, layer=layer), [make_recording("a", 90, HOP)])
    seen: list[Tensor] = []
    hook = upstream.transformer.layers[layer].register_forward_hook(lambda *call: seen.append(call[2]))
    hidden_by_moshi(upstream, torch.from_numpy(arrays["a", "codes"].T.astype(np.int64)))
    hook.remove()
    np.testing.assert_allclose(arrays["a", "features"], seen[0][0].numpy(), rtol=2**-10, atol=1e-4)


def test_the_last_norm_belongs_to_the_final_layer_only(moshi_folder: Path) -> None:
    recording = make_recording("a", 30, HOP)
    assert not np.allclose(
        frames_of(build(moshi_folder, layer=1), recording), frames_of(build(moshi_folder), recording), atol=0.01
    )


def _cut(recording: Recording, start: int, stop: int) -> Recording:
    agent, other = recording.load()
    part = slice(start * HOP, stop * HOP)
    return Recording("cut", stop - start, lambda: (agent if agent is None else agent[:, part], other[:, part]))


def test_chunks_are_recordings_of_their_own(moshi_folder: Path) -> None:
    chunked = build(moshi_folder, context="chunk", chunk_s=4.0, step_frames=30, batch_rows=2)
    recordings = [make_recording("a", 120, HOP, agent=True), make_recording("b", 130, HOP)]
    arrays = extract(chunked, recordings)
    for recording in recordings:
        for start in (0, 50, 100):
            stop = min(start + 50, recording.num_frames)
            alone = extract(build(moshi_folder), [_cut(recording, start, stop)])
            assert np.array_equal(arrays[recording.key, "codes"][start:stop], alone["cut", "codes"])
            here = arrays[recording.key, "features"][start:stop]
            np.testing.assert_allclose(here, alone["cut", "features"], rtol=0, atol=4e-3)
    assert chunked.context_frames(120).tolist() == [min(t % 50, WINDOW) for t in range(120)]


def test_overlapping_pieces_throw_their_first_frames_away(moshi_folder: Path) -> None:
    overlapped = build(moshi_folder, context="overlap", chunk_s=4.0, overlap_s=1.6, step_frames=15)
    recording = make_recording("a", 120, HOP)
    arrays = extract(overlapped, [recording])
    for start, stop in ((0, 50), (50, 100), (100, 120)):
        begin = max(0, start - 20)
        alone = extract(build(moshi_folder), [_cut(recording, begin, stop)])
        assert np.array_equal(arrays["a", "codes"][start:stop], alone["cut", "codes"][start - begin :])
        here = arrays["a", "features"][start:stop]
        np.testing.assert_allclose(here, alone["cut", "features"][start - begin :], rtol=0, atol=4e-3)
    assert overlapped.context_frames(120)[[0, 49, 50, 69, 70, 100]].tolist() == [0, 40, 20, 39, 40, 20]


def test_two_views_of_an_episode_encode_each_side_once(
    features: MoshiFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    encode = moshi_codes.encode_pieces

    def counted(network: Any, wav: Tensor, *rest: Any) -> Iterator[Tensor]:
        calls.append(wav.shape[-1])
        return encode(network, wav, *rest)

    monkeypatch.setattr(moshi_codes, "encode_pieces", counted)
    recording = make_recording("a", 40, HOP, agent=True)
    agent, other = recording.load()
    assert agent is not None
    swapped = replace(recording, key="b", load=lambda: (other, agent))
    arrays = extract(features, [recording, swapped])
    assert len(calls) == 2
    assert np.array_equal(arrays["a", "codes"][:, 1:9], arrays["b", "codes"][:, 9:])


def test_the_attention_window_bounds_the_context(features: MoshiFeatures) -> None:
    assert features.context_frames(60).tolist() == [*range(40), *[40] * 20]


def test_nothing_to_extract_gives_nothing(features: MoshiFeatures) -> None:
    assert list(features.stream([])) == []


def test_live_refuses_what_it_cannot_know(moshi_folder: Path) -> None:
    with pytest.raises(UserError, match="context=stream"):
        next(build(moshi_folder, context="chunk").live([]))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"layer": -1}, "features.layer=-1; allowed: final, or the number of a layer"),
    ({"layer": "last"}, "features.layer='last'"),
    ({"stream_order": "mixed"}, "features.stream_order='mixed' is unknown; allowed: moshi, legacy"),
    ({"text": "words"}, "features.text='words' is unknown; allowed: pad, transcript, zero"),
    ({"context": "window"}, "features.context='window' is unknown; allowed: stream, chunk, overlap"),
    ({"context": "chunk", "chunk_s": 1.0}, "features.chunk_s=1.0: must be a positive multiple of 0.08 s"),
    ({"context": "overlap", "overlap_s": 0}, "features.overlap_s=0: must be a positive multiple"),
    ({"dtype": "int8"}, "features.dtype='int8' is unknown; allowed: float32, bfloat16, float16"),
    ({"step_frames": 0}, "step_frames=0"),
    ({"batch_rows": 0}, "batch_rows=0"),
    ({"lm": {"dim": 8}}, "set features.weights=random"),
    ({"weights": "random", "config_path": "c"}, "weights=random, yet files are given"),
    ({"weights": "random", "text": "transcript"}, "needs features.tokenizer"),
]


@pytest.mark.parametrize(("settings", "message"), BAD)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        MoshiFeatures(**settings)
    assert message in str(error.value)


def test_a_layer_that_the_model_has_not(moshi_folder: Path) -> None:
    with pytest.raises(UserError, match="the model has layers 0 to 1"):
        build(moshi_folder, layer=2)
