"""The trained codec beyond the contract of all codecs: chunks, streams, prefixes, and what contradicts the weights."""

import dataclasses

import pytest
import torch

from tests.tiny_models import write_tiny_rvq, write_tiny_rvq_wave
from voxlab.codecs import rvq, rvq_chunks
from voxlab.codecs.base import Codes, stack, unstack
from voxlab.codecs.rvq import Rvq
from voxlab.codecs.rvq_weights import fill_codebooks
from voxlab.errors import UserError
from voxlab.mel import Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.quantizer import QuantizerSettings
from voxlab.models.tokenizer.vocoders import GriffinLim
from voxlab.models.tokenizer.wave_codec import WaveArchitecture

SMALL = QuantizerSettings(num_codebooks=3, codebook_size=32, codebook_dim=8)
MEL = MelArchitecture(hidden=16, quantizer=SMALL)
CHANNEL = dataclasses.replace(MEL, norm="channel")
WAVE = WaveArchitecture(strides=(2, 4, 5), width=2, latent=16, quantizer=SMALL)
CAUSAL = dataclasses.replace(WAVE, causal=True)
SEANET = dataclasses.replace(CAUSAL, backbone="seanet")
FAST = GriffinLim(iterations=2)


def make(architecture, **settings) -> Rvq:
    """Make a codec with random weights."""
    return Rvq(weights="random", architecture=architecture, vocoder=FAST, **settings).to("cpu")


def noise(samples: int, items: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(items, 1, samples, generator=torch.Generator().manual_seed(1))


def encode(codec: Rvq, wav: torch.Tensor) -> torch.Tensor:
    return stack(codec.encode(wav, torch.full((len(wav),), wav.shape[-1])))


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 72000, 100001])
@pytest.mark.parametrize("hop", [2048, 480])
def test_lengths_survive(hop: int, samples: int) -> None:
    codec = make(MEL if hop == 2048 else dataclasses.replace(WAVE, strides=(2, 5, 6, 8)))
    codes = codec.encode(noise(samples), torch.tensor([samples]))
    assert codec.info.hop_length == hop
    assert codes.lengths.tolist() == [-(-samples // hop)]
    wav, lengths = codec.decode(codes)
    assert wav.shape[-1] == lengths[0] == samples
    assert codec.detokenize(stack(codes)[0]).shape == (-(-samples // hop) * hop,)


@pytest.mark.parametrize("architecture", [CHANNEL, WAVE, CAUSAL, SEANET], ids=["channel", "wave", "causal", "seanet"])
def test_long_items_in_chunks_equal_the_whole(architecture, monkeypatch) -> None:
    codec = make(architecture)
    wav = noise(70 * codec.info.hop_length - 5, items=2)
    lengths = torch.tensor([wav.shape[-1], wav.shape[-1] // 3])
    whole = codec.encode(wav, lengths)
    everything = codec.network, architecture, stack(whole), whole.lengths, codec.device
    decoded = rvq_chunks.decode_in_chunks(*everything)
    left, right = architecture.context_frames
    monkeypatch.setattr(rvq_chunks, "CHUNK_SECONDS", 23.2 / codec.info.frame_rate)
    chunks = rvq_chunks._chunks(architecture, 70)
    assert [chunk[2:] for chunk in chunks] == [(0, 23), (23, 46), (46, 69), (69, 70)]
    assert chunks[1][:2] == (max(0, 23 - left), min(70, 46 + right))
    again = codec.encode(wav, lengths)
    assert torch.equal(stack(again), stack(whole))
    assert len(stack(whole).unique()) > 8
    valid = whole.lengths[1] * decoded.shape[-1] // 70
    for row, width in enumerate([decoded.shape[-1], valid]):
        error = rvq_chunks.decode_in_chunks(*everything)[row, :, :width] - decoded[row, :, :width]
        assert error.abs().max() <= 1e-5 * max(1, decoded.abs().max())


def test_chunks_without_context_would_differ(monkeypatch) -> None:
    codec, wav = make(WAVE), noise(70 * 40)
    whole = encode(codec, wav)
    monkeypatch.setattr(rvq_chunks, "CHUNK_SECONDS", 23 / codec.info.frame_rate)
    monkeypatch.setattr(WaveArchitecture, "context_frames", (0, 0))
    assert not torch.equal(encode(codec, wav), whole)


def test_items_beyond_the_limit_are_refused_both_ways() -> None:
    codec = make(MEL, max_seconds=1.0)
    with pytest.raises(ValueError, match=r"rvq: an item of 1\.5 s; allowed are 1\.0"):
        encode(codec, noise(36000))
    codes = torch.zeros(1, 3, 40, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"allowed are 1\.0"):
        codec.decode(unstack(codes, torch.tensor([40])))


@pytest.mark.parametrize("architecture", [CAUSAL, SEANET], ids=["snake", "seanet"])
@pytest.mark.parametrize("frames_per_step", [1, 3])
def test_streams_equal_the_whole(architecture, frames_per_step: int) -> None:
    codec = make(architecture)
    wav = noise(13 * 40 + 7)
    pieces = wav.split([1, 0, 199, 41, wav.shape[-1] - 241], dim=-1)
    whole = encode(codec, wav)
    streamed = torch.cat(list(codec.stream_encode(pieces, frames_per_step)), dim=-1)
    assert torch.equal(streamed[..., :14], whole)
    audio = torch.cat(list(codec.stream_decode(whole.split(5, dim=-1), frames_per_step)), dim=-1)
    wanted = codec.detokenize(whole[0])
    assert (audio[0, 0, : len(wanted)] - wanted).abs().max() <= 1e-5
    assert torch.equal(encode(codec, wav), whole)  # the stream has closed


def test_a_codec_that_looks_ahead_does_not_stream() -> None:
    for architecture in (MEL, WAVE):
        with pytest.raises(UserError, match="looks ahead and can't stream"):
            next(make(architecture).stream_encode([noise(100)]))


@pytest.mark.parametrize("architecture", [MEL, WAVE], ids=["mel", "wave"])
def test_fewer_codebooks_are_a_prefix(architecture) -> None:
    codec, wav = make(architecture), noise(9000)
    whole = encode(codec, wav)
    for count in (1, 2, 3):
        view = codec.with_codebooks(count)
        assert view.info.num_codebooks == count
        assert view.network is codec.network
        assert torch.equal(encode(view, wav), whole[:, :count])
        assert torch.equal(encode(make(architecture, num_codebooks=count), wav), whole[:, :count])
        audio = view.decode(view.encode(wav, torch.tensor([9000])))[0][0, 0]
        assert torch.equal(codec.detokenize(whole[0, :count])[:9000], audio)
    assert codec.info.num_codebooks == 3
    with pytest.raises(UserError, match="num_codebooks=4; allowed: 1 to 3"):
        codec.with_codebooks(4)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(3, 4), r"codes are torch\.float32 of shape \(3, 4\)"),
        (torch.zeros(1, 3, 4, dtype=torch.int64), r"of shape \(1, 3, 4\)"),
        (torch.zeros(3, 0, dtype=torch.int64), r"of shape \(3, 0\)"),
        (torch.zeros(4, 2, dtype=torch.int64), r"got 4 codebooks; allowed 1\.\.3"),
        (torch.tensor([[0, 1], [0, 32]]), r"codebook 1, frame 1: code 32 is out of range; allowed 0\.\.31"),
        (torch.tensor([[0, -1]]), r"codebook 0, frame 1: code -1 is out of range"),
    ],
    ids=["float", "batch", "empty", "too many", "high", "negative"],
)
def test_codes_that_cannot_be_decoded(codes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(WAVE).detokenize(codes)


@pytest.mark.parametrize("shape", [(2, 100), (1, 1, 100), (0,)], ids=str)
def test_waveforms_that_cannot_be_encoded(shape: tuple) -> None:
    with pytest.raises(ValueError, match="rvq_wave: "):
        make(WAVE).tokenize(torch.zeros(shape))


def test_python_api(tmp_path) -> None:
    write_tiny_rvq(tmp_path / "run" / "codec")
    codec = rvq.load(tmp_path / "run")
    wav = noise(10000)[0, 0]
    codes = codec.tokenize(wav)
    assert codes.shape == (8, 5)
    assert codes.dtype == torch.int64
    assert torch.equal(codec.tokenize(wav[None]), codes)
    assert codec.detokenize(codes).shape == (10240,)
    assert isinstance(codec.vocoder, GriffinLim)


@pytest.mark.parametrize("architecture", [MEL, WAVE], ids=["mel", "wave"])
def test_training_pass_and_codec_give_the_same(architecture) -> None:
    codec, wav = make(architecture), noise(10 * architecture.hop_length)
    with torch.no_grad():
        output = codec.network(wav, torch.tensor([wav.shape[-1]]))
    codes = encode(codec, wav)
    assert torch.equal(output.quantized.codes, codes)
    decoded = codec.network.decode(codes)
    wanted = output.output
    if architecture.family == "mel":
        wanted = wanted * codec.network.mel_std + codec.network.mel_mean
    assert (decoded - wanted).abs().max() <= 1e-6 * max(1, wanted.abs().max())


def test_a_network_in_memory_is_a_codec(tmp_path) -> None:
    network = WAVE.build()
    fill_codebooks(network, WAVE, seed=0)
    codec = Rvq.of_network(network, WAVE, FAST)
    files.export(network, WAVE, tmp_path, {})
    wav = noise(5000)
    assert codec.info.weights_id == "memory"
    assert torch.equal(encode(codec, wav), encode(rvq.load(tmp_path), wav))
    with torch.no_grad():
        network.quantizer.sums.add_(torch.randn(network.quantizer.sums.shape))
    assert not torch.equal(encode(codec, wav), encode(rvq.load(tmp_path), wav))


def given(folder, architecture=None, **settings) -> Rvq:
    return Rvq(weights=str(folder), architecture=architecture or MelArchitecture(), vocoder=FAST, **settings)


def test_the_architecture_of_the_weights_counts_and_contradictions_are_listed(tmp_path) -> None:
    write_tiny_rvq(tmp_path)
    trained = files.describe(tmp_path).architecture
    assert given(tmp_path).trained_architecture == trained
    assert given(tmp_path, trained).info.hop_length == 2048
    other = MelArchitecture(hidden=64, mel=Mel(num_bins=80), quantizer=QuantizerSettings(codebook_dim=8))
    with pytest.raises(UserError) as error:
        _ = given(tmp_path, other).info
    message = str(error.value)
    assert "architecture.hidden: 64, but trained with 16" in message
    assert "architecture.mel.num_bins: 80, but trained with 100" in message
    assert "codebook_dim" not in message


def test_another_family_is_named(tmp_path) -> None:
    write_tiny_rvq_wave(tmp_path / "wave")
    with pytest.raises(UserError, match="holds a network of family wave; use codec=rvq_wave"):
        _ = given(tmp_path / "wave").info
    architecture = VocoderArchitecture(dim=8, hidden=8, layers=1)
    files.export(architecture.build(), architecture, tmp_path / "vocoder", {})
    with pytest.raises(UserError, match="use vocoder=istft"):
        _ = given(tmp_path / "vocoder").info
    with pytest.raises(UserError, match="holds a vocoder, no codec"):
        rvq.load(tmp_path / "vocoder")


def test_no_weights_say_how_to_train_them() -> None:
    with pytest.raises(UserError, match=r"(?s)codec rvq: weights=null\. Train one: .*codec\.weights="):
        _ = Rvq(weights=None, architecture=MEL, vocoder=FAST).info


def test_a_vocoder_of_another_mel_is_refused_before_any_work(tmp_path) -> None:
    from voxlab.codecs.vocoder_files import Istft

    architecture = VocoderArchitecture(mel=Mel(num_bins=80), dim=8, hidden=8, layers=1)
    files.export(architecture.build(), architecture, tmp_path, {})
    codec = Rvq(weights="random", architecture=MEL, vocoder=Istft(weights=str(tmp_path)))
    with pytest.raises(UserError, match="num_bins: 100 -> 80"):
        codec.to("cpu")


def test_the_vocoder_is_part_of_the_fingerprint_of_mel_codecs_only() -> None:
    changed = [
        Rvq(weights="random", architecture=architecture, vocoder=GriffinLim(iterations=9)).fingerprint()
        != make(architecture).fingerprint()
        for architecture in (MEL, WAVE)
    ]
    assert changed == [True, False]


def test_bfloat16_runs_and_is_stamped() -> None:
    codec = make(WAVE, dtype="bfloat16")
    codes = codec.encode(noise(4000), torch.tensor([4000]))
    assert isinstance(codes, Codes)
    assert codec.decode(codes)[0].dtype == torch.float32
    assert codec.fingerprint()["dtype"] == "bfloat16"


PRESETS = {
    "rvq": (2048, 937.5, 93.75),
    "rvq_legacy50": (3840, 500.0, 50.0),
    "rvq_16k": (2048, 625.0, 62.5),
    "rvq architecture.down=[1,1,2,2]": (1024, 1875.0, 187.5),
    "rvq_wave": (480, 4000.0, 400.0),
    "rvq_wave architecture.strides=[2,4,5,8]": (320, 6000.0, 600.0),
    "rvq_wave architecture.strides=[4,5,6,8]": (960, 2000.0, 200.0),
    "rvq_wave architecture.strides=[4,6,8,10]": (1920, 1000.0, 100.0),
    "rvq_tiny": (2048, 562.5, 93.75),
    "rvq_wave_tiny": (320, 1800.0, 300.0),
}


@pytest.mark.parametrize("words", PRESETS)
def test_presets_have_their_rates(composed, words: str) -> None:
    from voxlab import run

    name, *changes = words.split()
    settings = composed("task=extract", f"codec={name}", *[f"codec.{change}" for change in changes])
    codec = run.build(settings.codec)
    hop, bitrate, tokens = PRESETS[words]
    assert (codec.architecture.hop_length, codec.architecture.bitrate) == (hop, pytest.approx(bitrate))
    assert codec.architecture.tokens_per_second == pytest.approx(tokens)


@pytest.mark.parametrize("option", ["griffin_lim", "vocos", "hifigan", "istft"])
def test_every_vocoder_reaches_the_codec(composed, option: str) -> None:
    from voxlab import run

    codec = run.build(composed("task=extract", "codec=rvq", f"vocoder={option}").codec)
    assert type(codec.vocoder).__name__.lower() == option.replace("_", "")
