"""The contract of every codec in conf/codec: a new YAML is tested by adding its tiny weights to WRITERS."""

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from tests.tiny_models import (
    write_tiny_encodec,
    write_tiny_mimi,
    write_tiny_rvq,
    write_tiny_rvq_wave,
    write_tiny_snac,
)
from voxlab.codecs.base import Codec, CodecInfo, collate, single
from voxlab.errors import UserError

CONF = Path(__file__).parents[2] / "conf" / "codec"
WRITERS = {
    "snac": write_tiny_snac,
    "mimi": write_tiny_mimi,
    "encodec": write_tiny_encodec,
    "rvq": write_tiny_rvq,
    "rvq_wave": write_tiny_rvq_wave,
}


def discover() -> dict[str, dict]:
    """Return the constructor arguments of every codec whose target exists and whose arguments need no other config."""
    found = {}
    for file in sorted(CONF.glob("*.yaml")):
        settings = yaml.safe_load(file.read_text()) or {}
        module = str(settings.get("_target_", "")).rpartition(".")[0]
        if file.stem in WRITERS and module and importlib.util.find_spec(module):
            found[file.stem] = settings
    return found


CONFIGS = discover()
pytestmark = pytest.mark.parametrize("name", list(CONFIGS))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: WRITERS[name](tmp_path_factory.mktemp(name)) for name in CONFIGS}


def build(name: str, weights: str, **changes: str) -> Codec:
    """Build the codec of a YAML as a run does, with the default vocoder."""
    vocoder = yaml.safe_load((CONF.parent / "vocoder" / "griffin_lim.yaml").read_text())
    root = OmegaConf.create({"vocoder": vocoder, "codec": CONFIGS[name] | {"weights": weights} | changes})
    settings: Any = OmegaConf.to_container(root.codec, resolve=True)
    module, _, attribute = settings.pop("_target_").rpartition(".")
    nested = {key: instantiate(value, _convert_="all") for key, value in settings.items() if isinstance(value, dict)}
    return getattr(importlib.import_module(module), attribute)(**(settings | nested))


@pytest.fixture(scope="module")
def codecs(folders):
    return {name: build(name, str(folder)).to("cpu") for name, folder in folders.items()}


def batch(info: CodecInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise of mixed lengths (B, C, T) and (B,) lengths; the last two are equally long."""
    lengths = torch.tensor([info.sample_rate, 1, info.hop_length, 3 * info.hop_length + 1, 9001, 9001])
    wav = torch.randn(6, info.channels, int(lengths.max()), generator=torch.Generator().manual_seed(0))
    return 0.1 * wav, lengths


def test_satisfies_the_protocol(name, codecs):
    assert isinstance(codecs[name], Codec)


def test_info_and_fingerprint_need_no_model(name, folders):
    codec = build(name, str(folders[name]))
    info, fingerprint = codec.info, codec.fingerprint()
    assert "_model" not in vars(codec)
    assert info.name == name
    assert info.weights_id.startswith("sha256:")
    assert len(info.strides) == info.num_codebooks
    assert info.frame_rate == info.sample_rate / info.hop_length
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert {"name", "weights_id", "num_codebooks", "dtype", "compile", "packages"} <= set(fingerprint)
    assert fingerprint == build(name, str(folders[name])).fingerprint()


def test_every_option_but_place_changes_the_fingerprint(name, folders):
    before = build(name, str(folders[name])).fingerprint()
    changed = build(name, str(WRITERS[name](folders[name].parent / f"{name}_other", seed=1))).fingerprint()
    assert [key for key in before if before[key] != changed[key]] == ["weights_id"]


def test_shapes_types_and_frame_arithmetic(name, codecs):
    codec = codecs[name]
    wav, lengths = batch(codec.info)
    codes = codec.encode(wav, lengths)
    stride = max(codec.info.strides)
    span = codec.info.hop_length * stride
    assert codes.lengths.tolist() == [-(-n // span) * stride for n in lengths.tolist()]
    for book, step in zip(codes.codebooks, codec.info.strides, strict=True):
        assert book.dtype == torch.int64
        assert book.shape == (6, int(codes.lengths.max()) // step)
        assert 0 <= book.min() <= book.max() < codec.info.codebook_size
    decoded, samples = codec.decode(codes, seeds=range(6))
    assert decoded.dtype == torch.float32
    assert decoded.shape == (6, codec.info.channels, int(samples.max()))
    assert samples.tolist() == lengths.tolist()
    assert torch.isfinite(decoded).all()


def test_batch_equals_single(name, codecs):
    codec = codecs[name]
    wav, lengths = batch(codec.info)
    codes = codec.encode(wav, lengths)
    decoded, samples = codec.decode(codes, seeds=range(6))
    for row, n in enumerate(lengths.tolist()):
        alone = codec.encode(wav[row : row + 1, :, :n], lengths[row : row + 1])
        for ours, theirs in zip(alone.codebooks, single(codes, row).codebooks, strict=True):
            assert torch.equal(ours, theirs)
        wanted, _ = codec.decode(alone, seeds=[row])
        assert (decoded[row, :, : samples[row]] - wanted[0]).abs().max() <= 1e-5
        assert decoded[row, :, samples[row] :].abs().sum() == 0


def test_repeated_calls_are_bit_equal(name, codecs):
    codec = codecs[name]
    codes = codec.encode(*batch(codec.info))
    assert torch.equal(codec.decode(codes, seeds=range(6))[0], codec.decode(codes, seeds=range(6))[0])


def test_silence_is_finite_and_constant_in_shape(name, codecs):
    codec = codecs[name]
    silence = torch.zeros(1, codec.info.channels, codec.info.sample_rate)
    codes = codec.encode(silence, torch.tensor([codec.info.sample_rate]))
    decoded, _ = codec.decode(codes, seeds=[0])
    assert torch.isfinite(decoded).all()
    assert decoded.shape == silence.shape


def test_bad_codes_never_reach_the_model(name, codecs):
    codec = codecs[name]
    wav, lengths = batch(codec.info)
    codes = collate([codec.encode(wav[:1], lengths[:1])])
    codes.codebooks[-1][0, 0] = codec.info.codebook_size
    with pytest.raises(ValueError, match=f"{name}: item 0, codebook {codec.info.num_codebooks - 1}, frame 0"):
        codec.decode(codes)


def test_missing_weights_say_what_to_type(name, tmp_path):
    codec = build(name, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=rf"(?s)codec {name}: .*nowhere.*codec\.weights="):
        _ = codec.info
    with pytest.raises(UserError, match=rf"codec {name}: "):
        _ = build(name, str(tmp_path)).info


def test_random_is_stamped_and_warns(name, caplog):
    from voxlab.codecs import weights

    weights._warn_random.cache_clear()
    codec = build(name, "random")
    assert codec.info.weights_id == "random:0"
    assert "RANDOM weights" in caplog.text
    assert "_model" not in vars(codec)


def test_unknown_dtype_is_refused(name, folders):
    with pytest.raises(UserError, match="dtype='int4' is unknown"):
        build(name, str(folders[name]), dtype="int4")
