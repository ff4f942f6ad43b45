"""A trained codec serves wherever a codec does: convert and extract through main.py give its own codes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tests.tasks.command_lines import answers
from tests.tiny_models import write_tiny_rvq, write_tiny_rvq_wave, write_tiny_snac
from voxlab.audio import load as load_audio
from voxlab.codecs import rvq
from voxlab.codecs.token_files import read_tokens

WRITERS = {"rvq": write_tiny_rvq, "rvq_wave": write_tiny_rvq_wave}
CONVERT = ["task=convert", "data=voiceassistant", "data.source=sample", "data.root=va", "source.weights=snac"]
EXTRACT = ["task=extract", "data=audiofolder", "data.root=audio"]
TRAIN = ["task=train_tokenizer", "data.source=sample", "data.subsets=null", "codec=rvq_tiny", "fit.num_workers=0"]
MISTAKES: dict[str, tuple[list[str], str]] = {
    "untrained": ([*EXTRACT, "codec=rvq"], "codec rvq: weights=null. Train one: python main.py task=train_tokenizer"),
    "missing": ([*EXTRACT, "codec=rvq", "codec.weights=nowhere"], "nowhere does not exist"),
    "family": ([*EXTRACT, "codec=rvq_wave", "codec.weights=trained"], "holds a network of family mel; use codec=rvq"),
    "override": (
        [*EXTRACT, "codec=rvq", "codec.weights=trained", "codec.architecture.hidden=64"],
        "hidden: 64, but trained with 16",
    ),
    "codebooks": (
        [*EXTRACT, "codec=rvq", "codec.weights=trained", "codec.num_codebooks=9"],
        "num_codebooks=9; allowed: 1 to 8",
    ),
    "vocoder": ([*EXTRACT, "codec=vocoder"], "codec=vocoder makes no codes"),
    "a learning rate in words": ([*TRAIN, "optim.lr=fast"], "optim.lr='fast'"),
    "an unknown key": ([*TRAIN, "optim.learning_rate=0.1"], "optim.learning_rate: there is no such key"),
    "long segments": ([*TRAIN, "fit.segment_seconds=60"], "segments of 60 s are longer than every recording"),
}


@dataclass(frozen=True)
class Said:
    """Exit code and output of each command line, all run in `folder`."""

    folder: Path
    answers: dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> Said:
    folder = tmp_path_factory.mktemp("everywhere")
    (folder / "audio").mkdir()
    for clip in range(3):
        samples = 0.1 * np.random.default_rng(clip).standard_normal(24000 + 1000 * clip)
        soundfile.write(folder / "audio" / f"{clip}.wav", samples, 24000)
    write_tiny_snac(folder / "snac")
    write_tiny_rvq(folder / "trained" / "codec")
    lines = {name: words for name, (words, _) in MISTAKES.items()}
    for name, write in WRITERS.items():
        write(folder / name / "codec")
        codec = [f"codec={name}", f"codec.weights={name}"]
        lines[f"convert {name}"] = [*CONVERT, *codec, f"out=converted-{name}"]
        lines[f"extract {name}"] = [*EXTRACT, *codec, f"out=extracted-{name}"]
    return Said(folder, answers(folder, {name: [*words, "logger=none", "device=cpu"] for name, words in lines.items()}))


@pytest.mark.parametrize("name", WRITERS)
def test_convert_writes_the_codes_of_the_trained_codec(said, name):
    code, text = said.answers[f"convert {name}"]
    assert code == 0, text
    codec, out = rvq.load(said.folder / name), said.folder / f"converted-{name}"
    rows = [row for path in sorted(out.rglob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 20
    for row in rows[:3]:
        wav = torch.from_numpy(np.frombuffer(row["answer_audio"], "<f4").copy())
        assert np.array_equal(np.array(row[f"answer_{name}"]), codec.tokenize(wav).numpy())
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert settings["codec"]["weights_id"] == codec.info.weights_id


@pytest.mark.parametrize("name", WRITERS)
def test_extract_writes_token_files_that_the_trained_codec_reads(said, name):
    code, text = said.answers[f"extract {name}"]
    assert code == 0, text
    codec, out = rvq.load(said.folder / name), said.folder / f"extracted-{name}"
    for clip in range(3):
        wav, _ = load_audio(out / "normalized" / f"{clip}.wav", 24000)
        file = read_tokens(out / "tokens" / f"{clip}.safetensors")
        assert (file.codec, file.weights_id) == (name, codec.info.weights_id)
        assert torch.equal(torch.stack([book[0] for book in file.codes.codebooks]), codec.tokenize(wav))
        assert codec.decode(file.codes)[1].tolist() == [wav.shape[-1]]


@pytest.mark.parametrize("name", MISTAKES)
def test_bad_settings_end_with_one_message_and_exit_code_2(said, name):
    code, text = said.answers[name]
    assert code == 2, text
    assert MISTAKES[name][1] in text
    assert "Traceback" not in text
