"""WavLM's rows against transformers' own model and feature extractor, called chunk by chunk; weights and messages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMModel

from tests.features.recordings import frames_of, make_recording
from tests.tiny_models import write_tiny_wavlm
from voxlab.errors import UserError
from voxlab.features.base import Recording
from voxlab.features.wavlm import WavLMFeatures

TOLERANCE: dict[str, Any] = {"rtol": 1e-3, "atol": 2e-3}  # of float16
CONFIG: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
CONFIG |= {"conv_dim": [4] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}


def of_wav(features: WavLMFeatures, wav: torch.Tensor) -> np.ndarray:
    return frames_of(features.to("cpu"), Recording("a", -(-wav.shape[-1] // 320), lambda: (None, wav)))


def noise(samples: int) -> torch.Tensor:
    return make_recording("noise", samples, 1, short=0).load()[1]


@torch.no_grad()
def by_transformers(folder: Path, wav: torch.Tensor, state: int) -> np.ndarray:
    """All rows at once: silence up to the last row's 400 samples, then extractor and model as their users call them."""
    count = -(-wav.shape[-1] // 320)
    padded = torch.nn.functional.pad(wav, (0, 320 * count + 80 - wav.shape[-1]))
    inputs = Wav2Vec2FeatureExtractor.from_pretrained(folder)(
        padded[0].numpy(), sampling_rate=16000, return_tensors="pt"
    )
    found = WavLMModel.from_pretrained(folder).eval()(inputs.input_values, output_hidden_states=True)
    return found.hidden_states[state][0].numpy()


@pytest.mark.parametrize("samples", [1, 320, 321, 16_000])
@pytest.mark.parametrize("layer", ["last", 1, 0])
@pytest.mark.parametrize(
    ("do_normalize", "changes"),
    [(False, {}), (True, {"feat_extract_norm": "layer", "do_stable_layer_norm": True})],
    ids=["base", "large"],
)
def test_rows_are_those_of_transformers(
    tmp_path: Path, samples: int, layer: str | int, do_normalize: bool, changes: dict[str, Any]
) -> None:
    folder = write_tiny_wavlm(tmp_path, do_normalize=do_normalize, **changes)
    wav = 3 + noise(samples)
    rows = of_wav(WavLMFeatures(weights=str(folder), layer=layer), wav)
    assert rows.shape == (-(-samples // 320), 32)
    wanted = by_transformers(folder, wav, -1 if layer == "last" else int(layer))
    np.testing.assert_allclose(rows, wanted, **TOLERANCE)


def test_all_states_lie_side_by_side(wavlm_folder: Path) -> None:
    features, wav = WavLMFeatures(weights=str(wavlm_folder), layer="all"), noise(4000)
    rows = of_wav(features, wav)
    assert features.info.dim == 3 * 32
    for state in range(3):
        wanted = by_transformers(wavlm_folder, wav, state)
        np.testing.assert_allclose(rows[:, 32 * state : 32 * state + 32], wanted, **TOLERANCE)


def test_the_middle_of_a_row_is_sample_200_of_its_400() -> None:
    changes = CONFIG | {"feat_extract_norm": "layer"}
    network = WavLMFeatures(weights="random", config=changes).to("cpu")._network
    wav = noise(320 * 6 + 80).requires_grad_()
    network.feature_extractor(wav)[0, :, 3].square().sum().backward()
    assert wav.grad is not None
    touched = wav.grad[0].nonzero()[:, 0]
    assert (int(touched.min()), int(touched.max())) == (960, 1359)
    assert WavLMFeatures(weights="random").settings()["centre"] == 200


CHUNKED: dict[str, Any] = {"weights": "random", "config": CONFIG, "chunk_s": 0.2, "overlap_s": 0.04}


def by_chunks(features: WavLMFeatures, wav: torch.Tensor, chunk: int = 10, overlap: int = 2) -> np.ndarray:
    """Each row by itself: from the first chunk in which it is far enough from a cut."""
    count = -(-wav.shape[-1] // 320)
    padded = torch.nn.functional.pad(wav, (0, 320 * count + 80 - wav.shape[-1]))
    rows = []
    for row in range(count):
        begin = 0
        while begin + chunk < count and row >= begin + chunk - overlap:
            begin += chunk - 2 * overlap
        stop = min(begin + chunk, count)
        rows.append(features._compute(padded[:, 320 * begin : 320 * stop + 80])[row - begin])
    return np.stack(rows)


@given(st.integers(1, 40), st.integers(0, 319), st.integers(1, 5000))
@settings(max_examples=20, deadline=None)
def test_chunks_overlap_for_any_length_and_live_pieces_of_any_size(count: int, short: int, size: int) -> None:
    features, wav = WavLMFeatures(**CHUNKED).to("cpu"), noise(320 * count - short)
    rows = of_wav(features, wav)
    np.testing.assert_allclose(rows, by_chunks(features, wav), **TOLERANCE)
    live = np.concatenate(list(features.live(wav.split(size, dim=-1))))
    np.testing.assert_allclose(live, rows, **TOLERANCE)


def test_live_rows_come_when_their_chunk_is_complete() -> None:
    heard = 0

    def pieces() -> Iterator[torch.Tensor]:
        nonlocal heard
        for piece in noise(320 * 23).split(320, dim=-1):
            heard += 1
            yield piece

    times = [heard for _ in WavLMFeatures(**CHUNKED).to("cpu").live(pieces())]
    # Chunks of 10 rows, 6 apart; the 400 samples of a chunk's last row reach a quarter into the next 320.
    assert times == [11] * 8 + [17] * 6 + [23] * 9


@pytest.mark.parametrize("count", [1, 9, 10, 11, 16, 17, 22, 23, 40])
def test_context_is_the_size_of_the_chunk_that_a_row_comes_from(count: int) -> None:
    sizes: list[tuple[int, int]] = []
    features = WavLMFeatures(**CHUNKED).to("cpu")
    compute = features._compute
    features._compute = lambda wav: sizes.append((wav.shape[-1] - 80) // 320) or compute(wav)  # type: ignore[method-assign]
    chunks = [len(values) for values in features._rows([noise(320 * count)])]
    seen = [size for size, rows in zip(sizes, chunks, strict=True) for _ in range(rows)]
    assert features.context_frames(count).tolist() == seen


def test_a_long_recording_is_looked_at_in_bounded_pieces() -> None:
    features = WavLMFeatures(weights="random", config=CONFIG).to("cpu")
    longest = 0
    compute = features._compute

    def watched(wav: torch.Tensor) -> np.ndarray:
        nonlocal longest
        longest = max(longest, wav.shape[-1])
        return compute(wav)

    features._compute = watched  # type: ignore[method-assign]
    assert len(of_wav(features, noise(130 * 16000))) == 6500
    assert longest == 20 * 16000 + 80


def test_weights_of_either_file_give_the_same_rows(wavlm_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((wavlm_folder / name).read_bytes())
    torch.save(load_file(wavlm_folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    wav = noise(4000)
    safe, pickled = WavLMFeatures(weights=str(wavlm_folder)), WavLMFeatures(weights=str(tmp_path))
    np.testing.assert_array_equal(of_wav(safe, wav), of_wav(pickled, wav))
    assert safe.info.weights_id.startswith("sha256:")
    assert safe.fingerprint() != pickled.fingerprint()


def test_random_weights_follow_their_seed_alone() -> None:
    wav = noise(4000)
    state = torch.get_rng_state()
    first, again, other = (of_wav(WavLMFeatures(**CHUNKED, random_seed=seed), wav) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    assert WavLMFeatures(**CHUNKED, random_seed=1).info.weights_id == "random:1"
    torch.set_rng_state(state)
    WavLMFeatures(**CHUNKED).to("cpu")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_is_close(wavlm_folder: Path, dtype: str) -> None:
    wav = noise(16000)
    exact = of_wav(WavLMFeatures(weights=str(wavlm_folder)), wav)
    rough = of_wav(WavLMFeatures(weights=str(wavlm_folder), dtype=dtype), wav)
    assert np.sqrt(np.square(rough - exact).mean()) < 0.05 * exact.std()


def test_what_decides_the_rows_is_in_the_fingerprint() -> None:
    base = WavLMFeatures(**CHUNKED).fingerprint()
    changes: list[dict[str, Any]] = [
        {"chunk_s": 0.4},
        {"overlap_s": 0.02},
        {"layer": 0},
        {"dtype": "bfloat16"},
        {"random_seed": 3},
        {"config": CONFIG | {"hidden_size": 32}},
    ]
    prints = [WavLMFeatures(**(CHUNKED | change)).fingerprint() for change in changes]
    assert all(found != base for found in prints)
    assert base["dim"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "first"}, "features.layer='first'; allowed: last, all, or the number of a hidden state"),
        ({"layer": True}, "features.layer=True"),
        ({"layer": 2}, "features.layer=2: the model has hidden states 0 to 1"),
        ({"dtype": "int8"}, "features.dtype='int8' is unknown; allowed: float32"),
        ({"chunk_s": 0.03}, "features.chunk_s=0.03: must be a multiple of 0.02 s"),
        ({"overlap_s": -0.02}, "features.overlap_s=-0.02: must be a multiple"),
        ({"overlap_s": 0.1}, "features.overlap_s=0.1: must be less than half of features.chunk_s=0.2"),
        ({"weights": "microsoft/wavlm-base-plus"}, "config changes untrained models; set features.weights=random"),
        ({"config": {"hidden": 3}}, "features.config: WavLM has no hidden; it has .*hidden_size"),
        ({"config": CONFIG | {"conv_stride": [5, 2, 2, 2, 2, 2, 1]}}, "make rows of .* needed are 400 every 320"),
        ({"config": CONFIG | {"conv_dim": [4]}}, "features.config: "),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WavLMFeatures(**(CHUNKED | changes)).fingerprint()


def test_checkpoints_that_are_not_what_they_should_be(wavlm_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = json.loads((wavlm_folder / "config.json").read_text())
    file, target = tmp_path / "model.safetensors", tmp_path / "config.json"

    def refused(text: str) -> str:
        target.write_text(text)
        with pytest.raises(UserError) as error:
            WavLMFeatures(weights=str(tmp_path)).to("cpu")
        return str(error.value)

    state = load_file(wavlm_folder / "model.safetensors")
    whole = json.dumps(config)
    assert f"model.safetensors not found for weights '{tmp_path}'" in refused(whole)
    save_file({key: value for key, value in state.items() if "layers.1" not in key}, file)
    assert "lacks 20 tensors" in refused(whole)
    assert "encoder.layers.1." in refused(whole)
    save_file(state, file)
    assert "model_type='hubert'; needed is 'wavlm'" in refused(json.dumps(config | {"model_type": "hubert"}))
    assert "is not valid JSON" in refused("{")
    assert "can't be loaded" in refused(json.dumps(config | {"hidden_size": 48}))
    file.write_bytes(b"nothing of the kind")
    assert "model.safetensors can't be loaded" in refused(whole)


def test_missing_weights_name_the_cache_and_what_needs_none() -> None:
    with pytest.raises(UserError, match=r"features\.weights=") as error:
        WavLMFeatures(weights="microsoft/not-in-any-cache").to("cpu")
    for hint in ("config.json", "HF_HOME", "features=mfcc", "features=wavlm_tiny", "pytorch_model.bin"):
        assert hint in str(error.value)


def test_the_published_size() -> None:
    network = WavLMModel(WavLMConfig())
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == 94.4
    features = WavLMFeatures(weights="random")
    assert (features.info.dim, features.info.frame_rate) == (768, 50.0)
