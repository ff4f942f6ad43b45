"""Mimi as a feature: exact over long signals, causal, and the package's own numbers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moshi.models.loaders import get_mimi
from moshi.utils.compile import no_compile

from tests.features.recordings import frames_of, make_recording
from voxlab.errors import UserError
from voxlab.features.mimi import MimiFeatures, encode_pieces
from voxlab.features.streaming import MimiStream

HOP, CPU = 1920, torch.device("cpu")


@pytest.fixture(scope="module")
def network(mimi_folder: Path) -> Any:
    config = json.loads((mimi_folder / "mimi_config.json").read_text())
    return get_mimi(mimi_folder / "mimi.safetensors", config, num_codebooks=8)


def latents_by_moshi(network: Any, wav: torch.Tensor, quantize: bool = False) -> np.ndarray:
    with torch.no_grad(), no_compile():
        return network.encode_to_latent(wav[None], quantize=quantize)[0].T.numpy()


def features(folder: Path, kind: Any, **changes: Any) -> MimiFeatures:
    return MimiFeatures(weights=str(folder), kind=kind, align="raw", **changes).to("cpu")


def test_half_a_minute_in_pieces_equals_one_forward_pass(network: Any) -> None:
    wav = make_recording("long", 380, HOP).load()[1]
    padded = torch.nn.functional.pad(wav, (0, 77))
    wanted = latents_by_moshi(network, padded)
    ours = torch.cat(list(encode_pieces(network, wav[None], 380, CPU)), dim=2)[0].T.numpy()
    assert np.abs(ours - wanted).max() <= 1e-5 * np.abs(wanted).max()
    with torch.no_grad(), no_compile(), network.streaming(1):  # as moshi streams: 250 steps, 10 s
        parts = [network.encode_to_latent(part[None], quantize=False) for part in padded.split(60 * HOP, dim=-1)]
    naive = torch.cat(parts, dim=2)[0].T.numpy()
    assert np.abs(naive - wanted)[:60].max() <= 1e-5 * np.abs(wanted).max()
    assert np.abs(naive - wanted)[130:].max() > 1e-3 * np.abs(wanted).max()


def test_frame_by_frame_equals_one_forward_pass(network: Any) -> None:
    wav = torch.stack([make_recording(key, 300, HOP, short=0).load()[1] for key in "ab"])
    with MimiStream(network, 2, 1) as stream, torch.no_grad(), no_compile():
        ours = torch.cat([stream.encode(part) for part in wav.split(HOP, dim=-1)], dim=2)
    for one, row in zip(ours, wav, strict=True):
        wanted = latents_by_moshi(network, row)
        assert np.abs(one.T.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_sample_changes_nothing_before_its_frame(mimi_folder: Path) -> None:
    recording = make_recording("a", 100, HOP)
    before = frames_of(features(mimi_folder, "latent"), recording)
    wav = recording.load()[1].clone()
    wav[:, 50 * HOP] += 1
    after = frames_of(features(mimi_folder, "latent"), type(recording)("b", 100, lambda: (None, wav)))
    assert np.array_equal(before[:50], after[:50])
    assert not np.array_equal(before[50], after[50])


@pytest.mark.parametrize("books", [1, 8, 32])
def test_codes_and_what_they_decode_to_are_those_of_the_package(network: Any, mimi_folder: Path, books: int) -> None:
    recording = make_recording("a", 90, HOP)
    padded = torch.nn.functional.pad(recording.load()[1], (0, 77))
    network.set_num_codebooks(books)
    with torch.no_grad(), no_compile():
        codes = network.encode(padded[None])[0].T.numpy()
    wanted = latents_by_moshi(network, padded, quantize=True)
    network.set_num_codebooks(8)
    assert np.array_equal(frames_of(features(mimi_folder, "codes", num_codebooks=books), recording), codes)
    ours = frames_of(features(mimi_folder, "quantized", num_codebooks=books), recording)
    np.testing.assert_allclose(ours, wanted, rtol=2**-10, atol=1e-6)


def test_the_published_sizes_are_known_without_loading() -> None:
    infos = [MimiFeatures(weights="random", kind=kind).info for kind in ("latent", "quantized", "codes")]
    assert [(info.name, info.dim, info.dtype) for info in infos] == [
        ("mimi_latent", 512, "float16"),
        ("mimi_quantized", 512, "float16"),
        ("codes", 8, "int16"),
    ]
    assert {(info.frame_rate, info.hop_length, info.weights_id) for info in infos} == {(12.5, HOP, "random:0")}


def test_only_what_matters_is_in_the_settings() -> None:
    few, many = (MimiFeatures(kind="latent", num_codebooks=books).settings() for books in (4, 8))
    assert few == many
    few, many = (MimiFeatures(kind="quantized", num_codebooks=books).settings() for books in (4, 8))
    assert few != many


@pytest.mark.parametrize(("settings", "words"), [({"num_codebooks": 33}, "1 to 32"), ({"kind": "raw"}, "latent, q")])
def test_settings_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        MimiFeatures(**settings)
