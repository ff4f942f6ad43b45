"""The files and options of text to speech: what is found, hashed and refused before any weight is read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from moshi.models.tts import TTSModel
from safetensors.torch import save_file

from tests.tiny_tts import MIMI_CONFIG_FILE, MIMI_FILE, NUM_CODEBOOKS, SPEAKER_DIM, VOICE, VOICE_SUFFIX, write_tiny_tts
from voxlab.codecs.tts import MoshiTTS
from voxlab.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tts(tmp_path_factory.mktemp("distilled"))


@pytest.fixture(scope="module")
def prefix_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_tts(tmp_path_factory.mktemp("prefix"), "prefix")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def tiny(folder: Path, **options) -> MoshiTTS:
    defaults = {"voice": VOICE, "voice_repo": str(folder), "num_codebooks": NUM_CODEBOOKS, "dtype": "float32"}
    return MoshiTTS(weights=str(folder), **(defaults | options))


def test_a_checkpoint_without_mimi_config_has_the_published_codec(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    del config["mimi_config_name"]
    (copy / "config.json").write_text(json.dumps(config))
    info = tiny(copy).info
    assert (info.sample_rate, info.hop_length, info.codebook_size) == (24000, 1920, 2048)


class TestFingerprint:
    def test_is_json_without_paths_and_loads_no_model(self, folder: Path, copy: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(TTSModel, "from_checkpoint_info", None)
        fingerprint = tiny(folder).fingerprint()
        assert json.loads(json.dumps(fingerprint)) == fingerprint == tiny(copy).fingerprint()
        assert set(fingerprint["files"]) == {"config", "lm", "mimi", "mimi_config", "tokenizer", "voice"}
        assert str(folder) not in json.dumps(fingerprint)

    @pytest.mark.parametrize(
        "options",
        [
            {"num_codebooks": 4}, {"temperature": 0.7}, {"cfg_coef": 3.0}, {"padding_between": 0},
            {"initial_padding": 3}, {"max_padding": 9}, {"final_padding": 5}, {"padding_bonus": 0.5},
            {"max_gen_length": 99}, {"dtype": "bfloat16"},
        ],
        ids=lambda options: next(iter(options)),
    )  # fmt: skip
    def test_every_option_counts(self, folder: Path, options: dict):
        assert tiny(folder, **options).fingerprint() != tiny(folder).fingerprint()

    @pytest.mark.parametrize(
        ("role", "name"),
        [
            ("lm", "dsm_tiny.safetensors"), ("mimi", MIMI_FILE), ("tokenizer", "tokenizer_tiny.model"),
            ("mimi_config", MIMI_CONFIG_FILE), ("config", "config.json"), ("voice", VOICE + VOICE_SUFFIX),
        ],
    )  # fmt: skip
    def test_every_file_counts(self, copy: Path, role: str, name: str):
        before = tiny(copy).fingerprint()["files"]
        with (copy / name).open("ab") as file:
            file.write(b" ")
        if role == "voice":
            save_file({"speaker_wavs": torch.ones(1, SPEAKER_DIM, 10)}, str(copy / name))
        after = tiny(copy).fingerprint()["files"]
        assert {key for key in before if before[key] != after[key]} == {role}


class TestFiles:
    @pytest.mark.parametrize("name", ["config.json", "dsm_tiny.safetensors", MIMI_FILE, MIMI_CONFIG_FILE])
    def test_a_missing_file_of_a_folder_is_named(self, copy: Path, name: str):
        (copy / name).unlink()
        with pytest.raises(UserError, match=r"tts\.weights=") as error:
            tiny(copy).fingerprint()
        assert name in str(error.value)
        assert str(copy) in str(error.value)

    def test_a_missing_voice_names_both_ways_out(self, folder: Path):
        with pytest.raises(UserError, match=r"(?s)tts\.voice_repo=.*tts\.voice=") as error:
            tiny(folder, voice="nobody.wav").fingerprint()
        assert "nobody.wav" + VOICE_SUFFIX in str(error.value)
        with pytest.raises(UserError, match=r"voice /nowhere/me.wav\S+ does not exist"):
            tiny(folder, voice="/nowhere/me.wav").fingerprint()

    def test_a_local_voice_needs_no_repository(self, folder: Path, tmp_path: Path):
        mine = tmp_path / "mine.safetensors"
        shutil.copy(folder / (VOICE + VOICE_SUFFIX), mine)
        by_file = tiny(folder, voice=str(mine), voice_repo="nowhere/nothing").fingerprint()
        without_suffix = tiny(folder, voice=str(folder / VOICE), voice_repo="nowhere/nothing").fingerprint()
        assert by_file == without_suffix == tiny(folder).fingerprint()

    @pytest.mark.parametrize(
        ("tensors", "found"),
        [({"other": torch.ones(1)}, "has none"), ({"speaker_wavs": torch.ones(1, 4, 9)}, r"\(1, 4, 9\)")],
    )
    def test_a_voice_of_another_model_is_refused(self, folder: Path, tmp_path: Path, tensors: dict, found: str):
        save_file(tensors, str(tmp_path / "voice.safetensors"))
        with pytest.raises(UserError, match=rf"needs a safetensors file with speaker_wavs \(1, 8, N\).*{found}"):
            tiny(folder, voice=str(tmp_path / "voice.safetensors")).fingerprint()

    def test_a_recording_must_be_mono_audio(self, prefix_folder: Path, tmp_path: Path):
        soundfile.write(tmp_path / "stereo.wav", np.zeros((4800, 2)), 24000)
        (tmp_path / "text.wav").write_text("not audio")
        for name, found in (("stereo.wav", "2 channels"), ("text.wav", "no audio")):
            with pytest.raises(UserError, match=f"mono recording.*{found}"):
                tiny(prefix_folder, voice=str(tmp_path / name)).fingerprint()

    def test_a_folder_wins_over_a_hub_id(self, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        shutil.copytree(copy, tmp_path / "kyutai" / "tts-1.6b-en_fr")
        shutil.copytree(copy, tmp_path / "kyutai" / "tts-voices")
        monkeypatch.chdir(tmp_path)
        by_default = MoshiTTS(voice=VOICE, num_codebooks=NUM_CODEBOOKS, dtype="float32")
        assert by_default.fingerprint() == tiny(copy).fingerprint()

    def test_hub_ids_load_from_the_cache_without_network(self, folder: Path, offline_hub: Path):
        for repo in ("models--some--tts", "models--some--voices"):
            shutil.copytree(folder, offline_hub / repo / "snapshots" / "abc")
            (offline_hub / repo / "refs").mkdir()
            (offline_hub / repo / "refs" / "main").write_text("abc")
        cached = MoshiTTS(
            weights="some/tts", voice=VOICE, voice_repo="some/voices", num_codebooks=NUM_CODEBOOKS, dtype="float32"
        )
        assert cached.fingerprint() == tiny(folder).fingerprint()
        assert cached.to("cpu").generate(["Hello"], seed=5)[0].codes is not None

    def test_missing_weights_offline_are_a_clear_error(self, offline_hub: Path):
        with pytest.raises(UserError, match=r"config\.json not found.*kyutai/tts-1\.6b-en_fr") as error:
            MoshiTTS().fingerprint()
        assert str(offline_hub) in str(error.value)
        assert "tts.weights=" in str(error.value)

    @pytest.fixture
    def offline_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.chdir(tmp_path)
        return tmp_path / "hub"


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [{"num_codebooks": 0}, {"temperature": -1.0}, {"max_gen_length": 0}, {"final_padding": -1}, {"dtype": "int8"}],
        ids=lambda options: next(iter(options)),
    )
    def test_out_of_range_arguments_are_refused_at_once(self, options: dict):
        with pytest.raises(UserError, match=next(iter(options))):
            MoshiTTS(**options)

    @pytest.mark.parametrize(
        ("kind", "options", "message"),
        [
            ("folder", {"num_codebooks": 9}, "allows 1 to 8"),
            ("prefix_folder", {"num_codebooks": 4}, "allows 8 to 8"),
            ("folder", {"cfg_coef": 2.2}, r"cfg_coef=2\.2; this model allows \[1\.0, 1\.5"),
        ],
    )
    def test_what_the_model_does_not_allow_is_refused_before_loading(self, request, kind, options, message):
        with pytest.raises(UserError, match=message):
            tiny(request.getfixturevalue(kind), **options).fingerprint()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"tts_config": {"audio_delay": 0.4, "multistream": True}}, "two voices at once"),
            ({"conditioners": None}, "has no conditioners"),
        ],
    )
    def test_other_models_are_refused(self, copy: Path, change: dict, message: str):
        config = json.loads((copy / "config.json").read_text()) | change
        (copy / "config.json").write_text(
            json.dumps({key: value for key, value in config.items() if value is not None})
        )
        with pytest.raises(UserError, match=message):
            tiny(copy).fingerprint()
