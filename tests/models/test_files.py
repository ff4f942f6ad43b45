"""Trained networks on disk: what is written comes back, and whatever else a path may hold is named."""

import json
from pathlib import Path

import pytest
import torch

from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.wave_codec import WaveArchitecture

QUANTIZER = QuantizerSettings(num_codebooks=3, codebook_size=8, codebook_dim=4, decay=0.9)
ARCHITECTURES = {
    "mel": MelArchitecture(mel=Mel(num_bins=40, f_max=7000.0), hidden=8, down=(1, 2), norm="channel"),
    "wave": WaveArchitecture(strides=(2, 3), width=2, latent=8, quantizer=QUANTIZER),
    "seanet": WaveArchitecture(strides=(2, 3), width=2, latent=8, causal=True, backbone="seanet", quantizer=QUANTIZER),
    "vocoder": VocoderArchitecture(dim=8, hidden=8, layers=1),
}
FACTS = {"data": "sha256:0", "step": 7, "val": {"loss": 0.5}}


def checkpoint(network: torch.nn.Module, architecture: object, path: Path, *, averaged: bool = True) -> Path:
    """Write what the training task saves, with other weights under `network.` where averages are there too."""
    state = {f"network.{key}": value for key, value in network.state_dict().items()}
    if averaged:
        state = {key: torch.zeros_like(value) for key, value in state.items()} | {
            f"ema_{key}": value for key, value in state.items()
        }
    made = {"task": files.TASK, "architecture": files.architecture_to_dict(architecture), "facts": FACTS}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "voxlab": made, "global_step": 7}, path)
    return path


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_export_comes_back_from_itself_alone(tmp_path: Path, name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = architecture.build().eval()
    files.export(network, architecture, tmp_path / "run" / "codec", FACTS)
    for path in ("run", "run/codec", "run/codec/codec.json", "run/codec/codec.safetensors"):
        again, shape, facts = files.load(tmp_path / path)
        assert shape == architecture
        assert facts == FACTS
        assert not again.training
        wanted = network.state_dict()
        assert all(torch.equal(value, wanted[key]) for key, value in again.state_dict().items())


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    architecture = ARCHITECTURES["wave"]
    network = architecture.build()
    for folder in ("a", "b"):
        files.export(network, architecture, tmp_path / folder, FACTS)
    for name in (files.WEIGHTS, files.DESCRIPTION):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_description_tells_the_rates(tmp_path: Path) -> None:
    files.export(ARCHITECTURES["wave"].build(), ARCHITECTURES["wave"], tmp_path, FACTS)
    rates = json.loads((tmp_path / files.DESCRIPTION).read_text())["rates"]
    assert (rates["hop_length"], rates["frame_rate"], rates["bitrate"]) == (6, 4000.0, 36000.0)
    assert files.rates(ARCHITECTURES["vocoder"]) == {"sample_rate": 24000, "hop_length": 256}


@pytest.mark.parametrize("averaged", [True, False])
def test_a_checkpoint_gives_its_averaged_weights_where_it_has_them(tmp_path: Path, averaged: bool) -> None:
    architecture = ARCHITECTURES["mel"]
    network = architecture.build()
    path = checkpoint(network, architecture, tmp_path / "run" / "checkpoints" / "last.ckpt", averaged=averaged)
    again, shape, facts = files.load(path)
    assert (shape, facts) == (architecture, FACTS)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in again.state_dict().items())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_survive_json(name: str) -> None:
    values = json.loads(json.dumps(files.architecture_to_dict(ARCHITECTURES[name])))
    assert files.architecture_from_dict(values) == ARCHITECTURES[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "video"}, "family 'video' is unknown; allowed: mel, wave, vocoder"),
        ({"depth": 3}, "unknown depth in a WaveArchitecture"),
        ({"strides": None}, "missing strides in a WaveArchitecture"),
        ({"quantizer": {"num_codebooks": 3}}, "missing codebook_dim, missing codebook_size"),
    ],
    ids=["family", "unknown", "missing", "nested"],
)
def test_architectures_of_other_versions_are_refused(change: dict, message: str) -> None:
    values = files.architecture_to_dict(ARCHITECTURES["wave"]) | change
    with pytest.raises(UserError, match=message):
        files.architecture_from_dict({key: value for key, value in values.items() if value is not None})


def _nothing(folder: Path) -> Path:
    return folder / "nowhere"


def _empty(folder: Path) -> Path:
    return folder


def _text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("hello")
    return folder / "notes.txt"


def _half(folder: Path) -> Path:
    (folder / files.DESCRIPTION).write_text("{}")
    return folder


def _foreign_json(folder: Path) -> Path:
    (folder / files.DESCRIPTION).write_text('{"num_codebooks": 8}')
    (folder / files.WEIGHTS).write_bytes(b"")
    return folder


def _broken_json(folder: Path) -> Path:
    (folder / files.DESCRIPTION).write_text("{")
    (folder / files.WEIGHTS).write_bytes(b"")
    return folder


def _later_schema(folder: Path) -> Path:
    files.export(ARCHITECTURES["wave"].build(), ARCHITECTURES["wave"], folder, FACTS)
    values = json.loads((folder / files.DESCRIPTION).read_text()) | {"schema": 9}
    (folder / files.DESCRIPTION).write_text(json.dumps(values))
    return folder


def _damaged(folder: Path) -> Path:
    files.export(ARCHITECTURES["wave"].build(), ARCHITECTURES["wave"], folder, FACTS)
    data = bytearray((folder / files.WEIGHTS).read_bytes())
    data[-1] ^= 1
    (folder / files.WEIGHTS).write_bytes(data)
    return folder


def _other_shape(folder: Path) -> Path:
    files.export(ARCHITECTURES["vocoder"].build(), ARCHITECTURES["wave"], folder, FACTS)
    return folder


def _unfinished_run(folder: Path) -> Path:
    checkpoint(ARCHITECTURES["wave"].build(), ARCHITECTURES["wave"], folder / "checkpoints" / "last.ckpt")
    return folder


def _truncated(folder: Path) -> Path:
    path = checkpoint(ARCHITECTURES["wave"].build(), ARCHITECTURES["wave"], folder / "x.ckpt")
    path.write_bytes(path.read_bytes()[:1000])
    return path


def _other_task(folder: Path) -> Path:
    torch.save({"state_dict": {}, "voxlab": {"task": "laughter"}}, folder / "x.ckpt")
    return folder / "x.ckpt"


def _other_program(folder: Path) -> Path:
    torch.save({"model_state_dict": {}, "config": {"n_mels": 80}, "epoch": 3}, folder / "x.ckpt")
    return folder / "x.ckpt"


def _code(folder: Path) -> Path:
    torch.save({"voxlab": Path("/")}, folder / "x.ckpt")
    return folder / "x.ckpt"


BAD = [
    (_nothing, "nowhere does not exist"),
    (_empty, r"holds no trained codec, but \[\]"),
    (_text, r"notes\.txt is a file of another kind"),
    (_half, r"holds codec\.json without the other"),
    (_foreign_json, "describes no codec of voxlab"),
    (_broken_json, "is not valid JSON"),
    (_later_schema, "has schema 9; this version reads 1"),
    (_damaged, "is damaged or belongs to another"),
    (_other_shape, "does not fit its own description"),
    (_unfinished_run, r"has not exported one yet; its checkpoints work as well: .*last\.ckpt"),
    (_truncated, r"can't be read as a checkpoint: it is cut off after 1000 bytes\. Needed: a run folder"),
    (_other_task, "is a checkpoint of task=laughter"),
    (_other_program, r"a checkpoint of another program \(it holds \['config', 'epoch', 'model_state_dict'\]"),
    (_code, "can't be read as a checkpoint: .*more than tensors and plain values, which is not loaded"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=[make.__name__[1:] for make, _ in BAD])
def test_whatever_else_is_there_is_named(tmp_path: Path, make, message: str) -> None:
    with pytest.raises(UserError, match=message):
        files.load(make(tmp_path))
