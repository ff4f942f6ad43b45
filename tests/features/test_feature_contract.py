"""What every feature in conf/features has to keep; a new YAML is tested as soon as its code is there."""

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.features.recordings import extract, frames_of, make_recording
from voxlab.errors import UserError
from voxlab.features.base import Features

RTOL = 1e-3  # of float16: its last bit may fall either way
CONF = Path(__file__).parents[2] / "conf" / "features"


def _discover() -> dict[str, dict[str, Any]]:
    found = {}
    for file in sorted(CONF.glob("*.yaml")):
        settings = yaml.safe_load(file.read_text())
        if settings and importlib.util.find_spec(settings["_target_"].rpartition(".")[0]):
            found[file.stem] = settings
    return found


CONFIGS = _discover()
NEEDS_WEIGHTS = [name for name, settings in CONFIGS.items() if settings.get("weights", "random") != "random"]
# What a hub id is asked for first, by the owner's name.
FIRST_FILES = {"kyutai": "tokenizer-e351c8d8-checkpoint125.safetensors", "microsoft": "config.json"}


def build(name: str, **changes: Any) -> Features:
    """Build the feature of a YAML with its own values, but for `changes`."""
    settings = CONFIGS[name] | changes
    module, _, attribute = settings["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute)(
        **{key: value for key, value in settings.items() if key != "_target_"}
    )


every = pytest.mark.parametrize("name", list(CONFIGS))
# Features of what has been heard, at decision time; the others look ahead, and answer for the row itself.
CAUSAL = [name for name in CONFIGS if "align" in build(name).settings()]
causal = pytest.mark.parametrize("name", CAUSAL)
_LIVE = [name for name in CONFIGS if CONFIGS[name].get("context", "stream") == "stream"]
alive = pytest.mark.parametrize("name", _LIVE)


@pytest.fixture(scope="module")
def tiny(mimi_folder: Path, moshi_folder: Path, wavlm_folder: Path) -> dict[str, Features]:
    """Every feature with small weights."""
    folders = {
        "MoshiFeatures": str(moshi_folder),
        "MimiFeatures": str(mimi_folder),
        "WavLMFeatures": str(wavlm_folder),
    }
    built = {}
    for name, settings in CONFIGS.items():
        changes = {"weights": folders[settings["_target_"].rpartition(".")[2]]} if name in NEEDS_WEIGHTS else {}
        if "text" in settings:
            changes["text"] = "pad"  # there are no words here
        built[name] = build(name, **changes).to("cpu")
    return built


def test_there_are_features() -> None:
    for_events = {"moshi", "moshi_tiny", "mimi_latent", "mimi_quantized", "codes", "logmel"}
    assert for_events | {"wavlm", "wavlm_tiny", "mfcc"} <= set(CONFIGS)
    assert for_events <= set(CAUSAL)


@every
def test_chunks_have_the_shape_and_type_that_info_says(tiny: dict[str, Features], name: str) -> None:
    info = tiny[name].info
    arrays = extract(tiny[name], [make_recording("a", 200, info.hop_length, agent=True)])
    assert arrays["a", "features"].shape == (200, info.dim)
    assert arrays["a", "features"].dtype == info.dtype
    codes = arrays.get(("a", "codes"))
    assert codes is None or (codes.dtype == np.int16 and len(codes) == 200)


@every
def test_several_recordings_equal_each_alone(tiny: dict[str, Features], name: str) -> None:
    hop = tiny[name].info.hop_length
    lengths = {"a": 140, "b": 60, "c": 70, "d": 1, "e": 33, "f": 126, "g": 2, "h": 3, "i": 9, "j": 60}
    recordings = [make_recording(key, length, hop) for key, length in lengths.items()]
    together = extract(tiny[name], recordings)
    for recording in recordings[:4] + recordings[-2:]:
        # one half of the last of 11 bits; the language model of moshi.yaml itself computes in bfloat16
        tolerance = 0.05 if "bfloat16" in CONFIGS[name].values() else 2e-3
        alone = frames_of(tiny[name], recording)
        np.testing.assert_allclose(together[recording.key, "features"], alone, rtol=RTOL, atol=tolerance)


@alive
def test_live_equals_bulk(tiny: dict[str, Features], name: str) -> None:
    features = tiny[name]
    recording = make_recording("live", 40, features.info.hop_length)
    wav = recording.load()[1]
    live = np.concatenate(list(features.live(wav.split(777, dim=-1))))
    assert live.shape == (40, features.info.dim)  # one for the time before the first sample, none for the broken end
    assert live.dtype == features.info.dtype
    np.testing.assert_allclose(live, frames_of(features, recording), rtol=RTOL, atol=0.05 if name == "moshi" else 2e-3)


@causal
def test_a_row_knows_nothing_of_its_own_frame(tiny: dict[str, Features], name: str) -> None:
    features, frame = tiny[name], 60
    hop = features.info.hop_length
    recording = make_recording("early", 120, hop)
    wav = recording.load()[1].clone()
    wav[:, frame * hop :] = 0.3
    changed = frames_of(features, type(recording)("late", 120, lambda: (None, wav)))
    rows = frames_of(features, recording)
    differs = np.abs(changed - rows).max(axis=1) > 0.05 * rows.std()
    assert not differs[: frame + 1].any()
    assert differs[frame + 1 : frame + 3].any()  # Moshi may get along with the same first code


@pytest.mark.parametrize("name", [name for name in _LIVE if name in CAUSAL])
def test_a_row_comes_as_soon_as_its_audio(tiny: dict[str, Features], name: str) -> None:
    hop, heard = tiny[name].info.hop_length, 0

    def pieces() -> Any:
        nonlocal heard
        for piece in make_recording("live", 6, hop, short=0).load()[1].split(hop // 2, dim=-1):
            heard += 1
            yield piece

    assert [heard for _ in tiny[name].live(pieces())] == [0, 2, 4, 6, 8, 10, 12]


@causal
def test_context_counts_frames(tiny: dict[str, Features], name: str) -> None:
    context = tiny[name].context_frames(30)
    assert context.dtype == np.int32
    assert context.tolist() == list(range(30))


@every
def test_the_fingerprint_is_plain_and_tells_weights_apart(tiny: dict[str, Features], name: str) -> None:
    fingerprint = tiny[name].fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint["weights_id"] == tiny[name].info.weights_id
    assert fingerprint.items() >= tiny[name].settings().items()
    assert re.search("CC BY|MIT|no weights", tiny[name].licence)


@pytest.mark.parametrize("name", NEEDS_WEIGHTS)
def test_settings_read_no_file_and_missing_weights_are_explained(name: str, tmp_path: Path) -> None:
    features = build(name, weights=str(tmp_path / "nowhere"))
    assert features.settings()["name"] == name.partition("_legacy")[0]
    with pytest.raises(UserError) as error:
        features.fingerprint()
    assert "features.weights=" in str(error.value)
    assert "features=logmel" in str(error.value)
    assert "nowhere" in str(error.value)


@pytest.mark.parametrize("name", NEEDS_WEIGHTS)
def test_a_hub_id_offline_names_the_files(name: str) -> None:
    owner = CONFIGS[name]["weights"].partition("/")[0]
    with pytest.raises(UserError) as error:
        build(name, weights=f"{owner}/not-in-any-cache").to("cpu")
    assert FIRST_FILES[owner] in str(error.value)
    assert "features=logmel" in str(error.value)


@pytest.mark.parametrize("name", [name for name, settings in CONFIGS.items() if "align" in settings])
def test_raw_rows_come_one_frame_earlier(tiny: dict[str, Features], name: str) -> None:
    changes = {"weights": tiny[name].weights} if name in NEEDS_WEIGHTS else {}  # type: ignore[attr-defined]
    raw = build(name, **changes, align="raw").to("cpu")
    recording = make_recording("a", 100, raw.info.hop_length)
    rows, delayed = frames_of(raw, recording), frames_of(tiny[name], recording)
    np.testing.assert_array_equal(rows[:-1], delayed[1:])
    assert set(delayed[0]) == ({-1.0} if name == "codes" else {0.0})
    np.testing.assert_array_equal(raw.context_frames(3), [1, 2, 3])
    live = np.concatenate(list(raw.live(recording.load()[1].split(501, dim=-1))))
    np.testing.assert_allclose(live, rows, rtol=RTOL, atol=2e-3)
    assert raw.fingerprint() != tiny[name].fingerprint()
    with pytest.raises(UserError, match="align='both' is unknown; allowed: decision, raw"):
        build(name, **changes, align="both")
