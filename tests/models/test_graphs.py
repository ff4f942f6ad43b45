"""Exported programs give what the network gives, at lengths that were not traced."""

from pathlib import Path

import pytest
import torch

from voxlab.models.tokenizer import graphs
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.wave_codec import WaveArchitecture

SMALL = QuantizerSettings(num_codebooks=3, codebook_size=32, codebook_dim=8)
CODECS = {
    "mel": MelArchitecture(hidden=16, quantizer=SMALL),
    "channel": MelArchitecture(hidden=16, norm="channel", quantizer=SMALL),
    "wave": WaveArchitecture(strides=(4, 5), width=2, latent=16, quantizer=SMALL),
    "causal": WaveArchitecture(strides=(4, 5), width=2, latent=16, quantizer=SMALL, causal=True),
    "seanet": WaveArchitecture(strides=(4, 5), width=2, latent=16, quantizer=SMALL, causal=True, backbone="seanet"),
}


@pytest.mark.parametrize("name", CODECS)
def test_codecs_round_trip(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    architecture = CODECS[name]
    network = architecture.build().eval()
    paths = graphs.export_graphs(network, architecture, tmp_path)
    assert [path.name for path in paths] == ["encode.pt2", "decode.pt2"]
    encode, decode = (torch.export.load(path).module() for path in paths)
    for frames in (2, 21):
        wav = 0.1 * torch.randn(1, 1, frames * architecture.hop_length)
        with torch.no_grad():
            codes = network.encode(wav, torch.tensor([wav.shape[-1]]))
            wanted = network.decode(codes)
            assert torch.equal(encode(wav), codes)
            assert (decode(codes) - wanted).abs().max() <= 1e-5 * max(1, wanted.abs().max())


def test_vocoders_round_trip(tmp_path: Path) -> None:
    architecture = VocoderArchitecture(dim=16, hidden=32, layers=2)
    network = architecture.build().eval()
    (path,) = graphs.export_graphs(network, architecture, tmp_path)
    log_mel = torch.randn(1, 100, 33)
    with torch.no_grad():
        assert (torch.export.load(path).module()(log_mel) - network.synthesize(log_mel)).abs().max() <= 1e-5


def test_a_program_that_differs_is_not_left_behind(tmp_path: Path) -> None:
    class Counts(torch.nn.Module):
        def forward(self, wav: torch.Tensor) -> torch.Tensor:
            return wav + len(list(tmp_path.iterdir()))

    with pytest.raises(RuntimeError, match=r"x\.pt2: the exported program differs"):
        graphs._write(Counts(), torch.zeros(1, 1, 16), tmp_path / "x.pt2")
    assert not (tmp_path / "x.pt2").exists()
