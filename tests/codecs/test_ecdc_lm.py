import io
import sys

import numpy as np
import pytest
import torch
from transformers import EncodecModel

pytest.importorskip("encodec")

import encodec.compress  # noqa: F401

from tests.codecs.test_ecdc import RATES, info, noise, random_codes
from tests.tiny_models import write_tiny_encodec
from voxlab.codecs.base import stack
from voxlab.codecs.ecdc import FORMATS, read_ecdc, write_ecdc
from voxlab.codecs.ecdc_lm import build_lm, identify_lm, load_lm
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.encodec_package import to_package
from voxlab.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Write random language models in the package's format; returns their paths by sample rate."""
    folder, found = tmp_path_factory.mktemp("lm"), {}
    for name, rate in RATES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rate)
            model = build_lm(FORMATS[name])
        found[rate] = folder / f"{name}.th"
        torch.save(model.state_dict(), found[rate])
    return found


@pytest.mark.parametrize("rate", [24000, 48000])
def test_streams_are_those_of_upstream_both_ways(rate, weights, tmp_path, monkeypatch):
    codec = Encodec(weights=str(write_tiny_encodec(tmp_path, stereo=rate == 48000)), bandwidth=3.0)
    package = to_package(EncodecModel.from_pretrained(tmp_path)).eval()
    package.set_target_bandwidth(3.0)
    package.name = f"encodec_{rate // 1000}khz"
    coder = load_lm(str(weights[rate]), rate)
    monkeypatch.setattr(package, "get_lm_model", lambda: coder.model, raising=False)
    monkeypatch.setitem(sys.modules["encodec.compress"].MODELS, package.name, lambda: package)
    samples = 6_720 if rate == 24000 else 48_001  # a ghost frame; two segments, the second of two frames
    wav = noise(rate, samples)
    codes = codec.encode(wav[None], torch.tensor([samples]))
    ours = write_ecdc(codes, codec.info, coder)
    theirs = sys.modules["encodec.compress"].compress(package, wav, use_lm=True)
    assert ours.startswith(theirs[:-8])  # all but the last bytes, which a ghost frame changes
    assert (ours == theirs) == (rate == 48000)
    for data in (ours, theirs):
        found, header = read_ecdc(data, coder)
        assert header.lm
        assert torch.equal(stack(found), stack(codes))
    decoded, _ = sys.modules["encodec.compress"].decompress(ours)
    wanted, _ = codec.decode(codes)
    assert (decoded - wanted[0]).abs().max() <= 1e-6


def test_streams_that_end_too_soon_are_refused(weights):
    coder = load_lm(str(weights[24000]), 24000)
    data = write_ecdc(random_codes(6400, books=2), info(books=2), coder)
    assert torch.equal(stack(read_ecdc(data, coder)[0]), stack(random_codes(6400, books=2)))
    with pytest.raises(ValueError, match="bad_ecdc: the entropy-coded stream ends before 20 frames"):
        read_ecdc(data[:-12], coder)


def test_likely_codes_take_fewer_bits(weights):
    coder = load_lm(str(weights[24000]), 24000)
    with torch.no_grad():
        for linear in coder.model.linears:
            linear.bias[7] = 12.0  # the model is sure of code 7
    sure, other = io.BytesIO(), io.BytesIO()
    coder.write(sure, np.full((2, 20), 7))
    coder.write(other, np.full((2, 20), 8))
    assert len(sure.getvalue()) < len(other.getvalue()) / 4


def test_weights_have_names(weights, tmp_path):
    assert identify_lm("published", 24000) == "encodec_lm_24khz-1608e3c0.th"
    assert identify_lm(str(weights[24000]), 24000).startswith("sha256:")
    assert identify_lm(str(weights[24000]), 24000) != identify_lm(str(weights[48000]), 48000)
    with pytest.raises(UserError, match="no such file"):
        identify_lm(str(tmp_path / "lm.th"), 24000)


def test_wrong_weights_are_refused(weights, tmp_path):
    with pytest.raises(UserError, match=r"lm_weights=.* cannot be loaded: RuntimeError"):
        load_lm(str(weights[48000]), 24000)
    torch.save([print], tmp_path / "bad.th")
    with pytest.raises(UserError, match=r"lm_weights=.* cannot be loaded: UnpicklingError"):
        load_lm(str(tmp_path / "bad.th"), 24000)


def test_published_weights_are_fetched_by_the_checked_loader(monkeypatch, weights):
    asked = []

    def fetch(url, **options):
        asked.append((url, options))
        return torch.load(weights[24000], weights_only=True)

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    load_lm("published", 24000)
    ((url, options),) = asked
    assert url == "https://dl.fbaipublicfiles.com/encodec/v0/encodec_lm_24khz-1608e3c0.th"
    assert options == {"map_location": "cpu", "check_hash": True, "weights_only": True}
