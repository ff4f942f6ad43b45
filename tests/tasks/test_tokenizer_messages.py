"""What users get wrong around task=train_tokenizer, and odd recordings: each gives its message, or is counted."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import Compose
from tests.tasks.tokenizer_runs import SMALL, TINY, sample, train
from tests.tiny_models import write_tiny_rvq
from voxlab import run
from voxlab.codecs import rvq
from voxlab.codecs.base import CodecInfo, check_codes
from voxlab.codecs.rvq import Rvq
from voxlab.codecs.token_files import read_tokens
from voxlab.codecs.vocoder_files import Istft
from voxlab.data.audiofolder import AudioFolder
from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.models.tokenizer.wave_codec import WaveArchitecture
from voxlab.parallel import Ranks
from voxlab.tasks.train_tokenizer import plan as tokenizer_plan
from voxlab.tasks.train_tokenizer import quality as tokenizer_quality

NOISE = np.random.default_rng(0)
# name -> words of the command line, parts of its message
MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "another rate": (["fit.resample=false"], ["of 16000 Hz", "where 24000 Hz is wanted", "Allow fit.resample=true"]),
    "a segment longer than every file": (["fit.segment_seconds=60"], ["segments of 60 s", "s: ", "shorter segments"]),
    "a misspelt subset": (["data.subsets=[dev-claen]"], ["dev-claen", "Did you mean dev-clean?"]),
    "start weights that are not there": (["ckpt=nowhere.ckpt"], ["nowhere.ckpt does not exist"]),
    "start weights of another shape": (["ckpt=trained"], ["hidden: 16 -> 32", "train anew"]),
    "start weights of another program": (
        ["ckpt=foreign.ckpt"],
        ["a checkpoint of another program", "it holds ['epoch'"],
    ),
    "start weights of another task": (["ckpt=laughter.ckpt"], ["is a checkpoint of task=laughter"]),
    "a vocoder of another mel": (
        ["vocoder=istft", "vocoder.weights=vocoder80"],
        ["num_bins: 100 -> 80", "The codec's: Mel(", "The vocoder's: Mel(", "vocoder=griffin_lim"],
    ),
    "a test without weights": (["stage=test"], ["codec rvq: weights=null", "task=train_tokenizer"]),
    "a test of weights that are not there": (["stage=test", "codec.weights=nowhere"], ["nowhere does not exist"]),
}


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained codec, a vocoder, checkpoints of others, and a corpus."""
    folder = tmp_path_factory.mktemp("mistakes")
    write_tiny_rvq(folder / "trained" / "codec")
    small = VocoderArchitecture(mel=Mel(num_bins=80), dim=8, hidden=8, layers=1)
    files.export(small.build(), small, folder / "vocoder80", {})
    torch.save({"epoch": 3, "model_state_dict": {}}, folder / "foreign.ckpt")
    torch.save({"state_dict": {}, "voxlab": {"task": "laughter"}}, folder / "laughter.ckpt")
    return folder


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_its_message(name: str, around: Path, composed: Compose, monkeypatch: Any) -> None:
    """As main.py does it, in this process; that such errors end with exit code 2 is tested with its command lines."""
    monkeypatch.chdir(around)
    words, parts = MISTAKES[name]
    with pytest.raises(UserError) as error:
        run.build(composed(*SMALL, "fit.num_workers=0", *words).task)(ranks=Ranks(), run_dir=around / "run")
    assert [part for part in parts if part not in str(error.value)] == [], str(error.value)


# ---- odd recordings ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Rvq:
    return rvq.load(write_tiny_rvq(tmp_path_factory.mktemp("codec")), GriffinLim(iterations=2))


def reconstruct(codec: Rvq, wav: np.ndarray, folder: Path) -> dict[str, Any]:
    soundfile.write(folder / "in.wav", wav, 24000)
    place: dict[str, Any] = {"out": None, "seed": 0, "dry_run": False, "ranks": Ranks(), "run_dir": folder}
    return tokenizer_quality.reconstruct(codec=codec, audio=str(folder / "in.wav"), **place)


@pytest.mark.parametrize("samples", [1, 255, 2048, 2049])
def test_recordings_below_a_hop_become_one_frame(codec: Rvq, samples: int, tmp_path: Path) -> None:
    summary = reconstruct(codec, 0.1 * NOISE.normal(size=samples), tmp_path)
    assert summary["frames"] == -(-samples // 2048)
    assert soundfile.info(summary["out"]).frames == samples


def test_silence_has_valid_codes_and_says_so(codec: Rvq, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = reconstruct(codec, np.full(5000, 0.5e-4), tmp_path)
    assert summary["silent"] is True
    assert "is silent: its codes are valid, but say nothing" in caplog.text
    check_codes(read_tokens(Path(summary["tokens"])).codes, codec.info)


def test_training_counts_silent_recordings(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    for number in range(5):
        wav = np.zeros(24000) if number < 2 else 0.1 * NOISE.normal(size=24000)
        soundfile.write(tmp_path / "audio" / f"{number}.wav", wav, 24000)
    corpus = AudioFolder(root=str(tmp_path / "audio"))
    summary = train(tmp_path / "run", corpus, fit={"val_split": None}, trainer={"max_steps": 5})
    assert summary["silent_recordings"] == 2


def test_training_names_a_damaged_recording_and_its_extent(tmp_path: Path) -> None:
    path = tmp_path / "audio" / "cut.flac"
    path.parent.mkdir()
    soundfile.write(path, 0.1 * NOISE.normal(size=48000), 24000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"(?s)cut\.flac is damaged: .*; \d+ of the 48000 samples .*copy it again"):
        train(tmp_path / "run", AudioFolder(root=str(path.parent)), fit={"val_split": None})


# ---- settings ------------------------------------------------------------------------------------------------------


def test_a_vocoder_of_another_mel_stops_training_before_it_starts(tmp_path: Path) -> None:
    small = VocoderArchitecture(mel=Mel(hop_length=128), dim=8, hidden=8, layers=1)
    files.export(small.build(), small, tmp_path / "vocoder", {})
    given = Rvq(weights=None, architecture=TINY, vocoder=Istft(weights=str(tmp_path / "vocoder")))
    with pytest.raises(UserError, match=r"(?s)hop_length: 256 -> 128.*The codec's: .*The vocoder's: "):
        train(tmp_path / "run", sample(tmp_path), codec=given)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(("size", "bits"), [(1000, 9.965784), (64, 6), (3, 1.584963)])
def test_entries_need_not_be_a_power_of_two(size: int, bits: float) -> None:
    quantizer = QuantizerSettings(num_codebooks=8, codebook_size=size)
    for architecture in (MelArchitecture(quantizer=quantizer), WaveArchitecture(quantizer=quantizer)):
        info = CodecInfo("rvq", 24000, 1, architecture.hop_length, 8, size, (1,) * 8, "memory")
        expected = 24000 / architecture.hop_length * 8 * bits
        assert architecture.bitrate == pytest.approx(expected, rel=1e-6)
        assert info.bitrate == pytest.approx(expected, rel=1e-6)
    assert (
        Rvq(weights="random", architecture=dataclasses.replace(TINY, quantizer=quantizer), vocoder=GriffinLim())
        .tokenize(torch.from_numpy(0.1 * NOISE.normal(size=48000)).float())
        .max()
        < size
    )


@pytest.mark.parametrize(
    ("architecture", "rates"),
    [
        (MelArchitecture(), "11.7188 frames/s x 8 codebooks of 1024 = 93.75 tokens/s = 937.5 bit/s"),
        (WaveArchitecture(), "50 frames/s x 8 codebooks of 1024 = 400 tokens/s = 4000 bit/s"),
        (WaveArchitecture(strides=(2, 4, 5, 8)), "75 frames/s x 8 codebooks of 1024 = 600 tokens/s = 6000 bit/s"),
        (
            MelArchitecture(mel=Mel(n_fft=2048, hop_length=480, num_bins=80)),
            "6.25 frames/s x 8 codebooks of 1024 = 50 tokens/s = 500 bit/s",
        ),
    ],
    ids=["rvq", "rvq_wave", "rvq_wave 75 Hz", "rvq_legacy50"],
)
def test_the_printed_rates(architecture: Any, rates: str) -> None:
    assert rates in tokenizer_plan.describe_rates(architecture)
