"""A trained codec serves wherever a codec does: convert and extract through main.py give its own codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tests.tiny_models import write_tiny_rvq, write_tiny_rvq_wave, write_tiny_snac
from voxlab.audio import load as load_audio
from voxlab.codecs import rvq
from voxlab.codecs.token_files import read_tokens

ROOT = Path(__file__).parents[2]
WRITERS = {"rvq": write_tiny_rvq, "rvq_wave": write_tiny_rvq_wave}


def main(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run main.py in `folder` as a user does."""
    command = [sys.executable, str(ROOT / "main.py"), *overrides, "logger=none", "device=cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(params=list(WRITERS))
def trained(request, tmp_path) -> tuple[str, Path, rvq.Rvq]:
    """A run folder with an exported codec: its option, the folder, and the codec."""
    run = tmp_path / "trained"
    WRITERS[request.param](run / "codec")
    return request.param, run, rvq.load(run)


def test_convert_writes_the_codes_of_the_trained_codec(trained, tmp_path):
    name, run, codec = trained
    snac = write_tiny_snac(tmp_path / "snac")
    made = main(
        tmp_path,
        *("task=convert", "data=voiceassistant", "data.source=sample", f"data.root={tmp_path / 'va'}"),
        *(f"codec={name}", f"codec.weights={run}", f"source.weights={snac}", f"out={tmp_path / 'out'}"),
    )
    assert made.returncode == 0, made.stderr
    rows = [row for path in sorted((tmp_path / "out").rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 20
    for row in rows[:3]:
        wav = torch.from_numpy(np.frombuffer(row["answer_audio"], "<f4").copy())
        assert np.array_equal(np.array(row[f"answer_{name}"]), codec.tokenize(wav).numpy())
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["codec"]["weights_id"] == codec.info.weights_id


def test_extract_writes_token_files_that_the_trained_codec_reads(trained, tmp_path):
    name, run, codec = trained
    (tmp_path / "audio").mkdir()
    for clip in range(3):
        samples = 0.1 * np.random.default_rng(clip).standard_normal(24000 + 1000 * clip)
        soundfile.write(tmp_path / "audio" / f"{clip}.wav", samples, 24000)
    made = main(
        tmp_path,
        *("task=extract", "data=audiofolder", f"data.root={tmp_path / 'audio'}"),
        *(f"codec={name}", f"codec.weights={run}", f"out={tmp_path / 'out'}"),
    )
    assert made.returncode == 0, made.stderr
    for clip in range(3):
        wav, _ = load_audio(tmp_path / "out" / "normalized" / f"{clip}.wav", 24000)
        file = read_tokens(tmp_path / "out" / "tokens" / f"{clip}.safetensors")
        assert (file.codec, file.weights_id) == (name, codec.info.weights_id)
        assert torch.equal(torch.stack([book[0] for book in file.codes.codebooks]), codec.tokenize(wav))
        assert codec.decode(file.codes)[1].tolist() == [wav.shape[-1]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec=rvq"], "codec rvq: weights=null. Train one: python main.py task=train_tokenizer"),
        (["codec=rvq", "codec.weights=nowhere"], "nowhere does not exist"),
        (["codec=rvq_wave", "codec.weights=trained"], "holds a network of family mel; use codec=rvq"),
        (["codec=rvq", "codec.weights=trained", "codec.architecture.hidden=64"], "hidden: 64, but trained with 16"),
        (["codec=rvq", "codec.weights=trained", "codec.num_codebooks=9"], "num_codebooks=9; allowed: 1 to 8"),
        (["codec=vocoder"], "codec=vocoder makes no codes"),
    ],
    ids=["untrained", "missing", "family", "override", "codebooks", "vocoder"],
)
def test_bad_settings_end_with_one_message_and_exit_code_2(tmp_path, overrides, message):
    write_tiny_rvq(tmp_path / "trained" / "codec")
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros(24000), 24000)
    made = main(tmp_path, "task=extract", "data=audiofolder", f"data.root={tmp_path / 'audio'}", *overrides)
    assert made.returncode == 2, made.stderr
    assert message in made.stderr
    assert "Traceback" not in made.stderr
