"""Vocoders: against the packages they come from, slow obvious code, and real speech; a wrong mel is refused."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from voxlab.codecs.vocoder_files import SPEECHT5_MEL, HifiGan, Istft, TrainableVocoder, Vocos
from voxlab.errors import UserError
from voxlab.mel import LogMel, Mel
from voxlab.models.tokenizer import files
from voxlab.models.tokenizer.istft_vocoder import VocoderArchitecture
from voxlab.models.tokenizer.mel_codec import MelArchitecture
from voxlab.models.tokenizer.vocoders import GriffinLim, Vocoder, require_fit, to_magnitude

TINY = VocoderArchitecture(dim=16, hidden=32, layers=2)
LEGACY = Mel(n_fft=2048, hop_length=480, num_bins=80, f_max=8000.0, scale="slaney", norm="slaney", power=2.0)
LEGACY_LOG10 = Mel(**(vars(LEGACY) | {"log": "log10", "floor": 1e-8}))


def frames_of(wav: Tensor, mel: Mel) -> Tensor:
    """Return the log-mel (1, bins, N / hop) of wav (1, N), N a multiple of the hop."""
    return LogMel(mel)(wav)[..., : wav.shape[-1] // mel.hop_length]


def tone(mel: Mel, hops: int = 94) -> Tensor:
    """Return harmonics of 200 Hz (1, hops * hop_length)."""
    time = torch.arange(hops * mel.hop_length) / mel.sample_rate
    return sum(0.1 / k * torch.sin(2 * math.pi * 200 * k * time) for k in range(1, 9))[None]  # type: ignore[index]


def random_mel(mel: Mel, frames: int = 20, batch: int = 1) -> Tensor:
    return torch.randn(batch, mel.num_bins, frames, generator=torch.Generator().manual_seed(0)) - 4


# Griffin-Lim


@pytest.mark.parametrize(
    "mel", [Mel(), LEGACY, LEGACY_LOG10, SPEECHT5_MEL], ids=["vocos", "legacy", "log10", "speecht5"]
)
def test_griffin_lim_gives_audio_of_the_same_mel_and_length(mel: Mel) -> None:
    wav = tone(mel)
    log_mel = frames_of(wav, mel)
    audio = GriffinLim()(log_mel, mel)
    assert audio.shape == (1, 1, wav.shape[-1])
    error = (frames_of(audio[:, 0], mel) - log_mel).abs()
    loud = log_mel > log_mel.max() - (2.0 if mel.log == "log10" else 4.6)  # within 40 or 20 dB (power) of the peak
    unit = math.log(10) if mel.log == "log10" else 1.0
    assert error[loud].mean() * unit < 0.5


def test_griffin_lim_is_deterministic_and_needs_no_seed() -> None:
    log_mel = random_mel(Mel())
    torch.manual_seed(0)
    first = GriffinLim()(log_mel, Mel())
    torch.manual_seed(1)
    assert torch.equal(first, GriffinLim()(log_mel, Mel()))


def test_griffin_lim_equals_a_slow_obvious_loop() -> None:
    mel, log_mel = Mel(), random_mel(Mel(), frames=12)
    magnitude = to_magnitude(log_mel, mel)[0].double()
    magnitude = torch.cat([magnitude, magnitude[:, -1:]], dim=1)
    window = torch.hann_window(mel.n_fft, dtype=torch.float64)
    phase, before = torch.ones_like(magnitude, dtype=torch.complex128), torch.zeros((), dtype=torch.complex128)
    step = 0.5 / 1.5
    for _ in range(3):
        wav = torch.istft(magnitude * phase, mel.n_fft, mel.hop_length, window=window)
        rebuilt = torch.stft(wav, mel.n_fft, mel.hop_length, window=window, return_complex=True)
        phase = rebuilt - step * before
        phase, before = phase / phase.abs().clamp_min(1e-16), rebuilt
    wanted = torch.istft(magnitude * phase, mel.n_fft, mel.hop_length, window=window)
    found = GriffinLim(iterations=3, momentum=0.5)(log_mel, mel)[0, 0]
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("mel", [Mel(), LEGACY_LOG10], ids=["vocos", "log10-power"])
def test_the_pseudo_inverse_gives_back_spectra_made_of_the_filters(mel: Mel) -> None:
    filters = LogMel(mel).filterbank
    spectrum = filters @ (0.1 + torch.rand(mel.num_bins, 5, generator=torch.Generator().manual_seed(0)))
    bands = filters.T @ spectrum
    log_mel = bands.log() if mel.log == "ln" else bands.log10()
    found = to_magnitude(log_mel[None], mel)[0] ** mel.power
    assert (found - spectrum).abs().max() <= 1e-4 * spectrum.max()


@pytest.mark.parametrize("settings", [{"iterations": 0}, {"momentum": 1.0}, {"momentum": -0.1}], ids=str)
def test_griffin_lim_refuses_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(UserError, match="griffin_lim: iterations="):
        GriffinLim(**settings)


REAL = os.environ.get("VOXLAB_REAL_DATA")


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="needs VOXLAB_REAL_DATA: a folder with LibriSpeech excerpts in librispeech/")
@pytest.mark.parametrize(
    ("mel", "pesq_range", "stoi_range"),
    [(Mel(), (3.5, 4.65), (0.97, 1.0)), (LEGACY_LOG10, (1.0, 2.2), (0.8, 0.95))],
    ids=["rvq", "rvq_legacy50"],
)
def test_copy_synthesis_of_real_speech(mel: Mel, pesq_range: tuple, stoi_range: tuple) -> None:
    import soundfile
    from pesq import pesq
    from pystoi import stoi
    from torchaudio.functional import resample

    paths = sorted((Path(str(REAL)) / "librispeech").rglob("*.flac"))[::6][:9]
    scores = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        wav = resample(torch.from_numpy(samples)[None], rate, mel.sample_rate)
        wav = nn.functional.pad(wav, (0, -wav.shape[-1] % mel.hop_length))
        audio = GriffinLim()(frames_of(wav, mel), mel)[0]
        made = resample(audio, mel.sample_rate, rate)[0, : len(samples)].numpy()
        scores.append([pesq(rate, samples, made, "wb"), stoi(samples, made, rate)])
    quality, intelligibility = torch.tensor(scores).mean(0).tolist()
    print(f"PESQ-WB {quality:.2f}, STOI {intelligibility:.3f} over {len(paths)} files")
    assert pesq_range[0] <= quality <= pesq_range[1]
    assert stoi_range[0] <= intelligibility <= stoi_range[1]


# Mels that don't fit


def test_another_mel_is_refused_field_by_field(tmp_path: Path) -> None:
    files.export(TINY.build(), TINY, tmp_path, {})
    vocoder = Istft(weights=str(tmp_path))
    other = Mel(num_bins=80, scale="slaney")
    with pytest.raises(UserError) as error:
        vocoder(random_mel(other), other)
    for part in ("num_bins: 80 -> 100", "scale: slaney -> htk", str(other), str(Mel()), "vocoder=griffin_lim"):
        assert part in str(error.value)


def test_any_mel_fits_griffin_lim_and_the_floor_is_free(tmp_path: Path) -> None:
    require_fit(GriffinLim(), LEGACY)
    files.export(TINY.build(), TINY, tmp_path, {})
    require_fit(Istft(weights=str(tmp_path)), Mel(floor=1e-7))


# The ISTFT vocoder, alone and as Vocos


def write_vocos(folder: Path, **changes: object) -> nn.Module:
    """Write the files of the `vocos` package for a tiny model and return its model."""
    import yaml
    from vocos.feature_extractors import MelSpectrogramFeatures
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone
    from vocos.pretrained import Vocos as Original

    sizes = {"n_fft": 1024, "hop_length": 256, "padding": "center"}
    parts = {
        "feature_extractor": (MelSpectrogramFeatures, {"sample_rate": 24000, "n_mels": 100} | sizes),
        "backbone": (VocosBackbone, {"input_channels": 100, "dim": 16, "intermediate_dim": 32, "num_layers": 2}),
        "head": (ISTFTHead, {"dim": 16} | sizes),
    }
    torch.manual_seed(0)
    model = Original(*(kind(**settings) for kind, settings in parts.values())).eval()
    with torch.no_grad():
        model.head.out.weight.mul_(20)  # audible phases
    config = {
        name: {"class_path": f"{kind.__module__}.{kind.__name__}", "init_args": settings | changes.get(name, {})}  # type: ignore[operator]
        for name, (kind, settings) in parts.items()
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return model


def test_vocos_equals_its_package(tmp_path: Path) -> None:
    model = write_vocos(tmp_path)
    vocoder = Vocos(weights=str(tmp_path)).to("cpu")
    assert vocoder.mel == Mel(floor=1e-7)
    log_mel = random_mel(Mel(), batch=2)
    with torch.no_grad():
        wanted = model.decode(torch.cat([log_mel, log_mel[..., -1:]], dim=-1))
    found = vocoder(log_mel, Mel())
    assert found.shape == (2, 1, 20 * 256)
    assert wanted.abs().max() > 1e-3
    assert (found[:, 0] - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_vocos_has_the_mel_of_its_package(tmp_path: Path) -> None:
    model = write_vocos(tmp_path)
    wav = tone(Mel()) + 1e-3 * torch.randn(1, 94 * 256, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.feature_extractor(wav)
    assert (LogMel(Mel(floor=1e-7))(wav) - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"padding": "same"}}, "padding is not center"),
        ({"head": {"n_fft": 512}}, "different n_fft"),
        ({"backbone": {"dim": 32}}, "does not fit its config.yaml"),
    ],
    ids=["padding", "n_fft", "width"],
)
def test_other_vocos_files_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    write_vocos(tmp_path, **changes)
    with pytest.raises(UserError, match=f"(?s)vocoder vocos: .*{message}"):
        Vocos(weights=str(tmp_path)).to("cpu")


def test_the_network_is_differentiable_and_crops_to_the_mask() -> None:
    network = TINY.build()
    wav = 0.1 * torch.randn(2, 1, 5000, generator=torch.Generator().manual_seed(0))
    output = network(wav, torch.tensor([5000, 3000]))
    assert output.target.shape == output.output.shape == (2, 1, 5120)
    assert output.mask.sum(1).tolist() == [5000, 3000]
    assert torch.equal(output.target[0, 0, :5000], wav[0, 0])
    assert output.output[1, 0, 3000:].abs().sum() == output.target[1, 0, 3000:].abs().sum() == 0
    output.output.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_an_untrained_magnitude_beyond_all_bounds_keeps_finite_gradients() -> None:
    network = TINY.build()
    torch.nn.init.constant_(network.head.out.bias, 1000.0)
    wav = torch.randn(1, 1, 2560)
    output = network(wav, torch.tensor([2560])).output
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_the_trained_vocoder_comes_back_from_its_folder(tmp_path: Path) -> None:
    network = TINY.build().eval()
    files.export(network, TINY, tmp_path / "run" / "codec", {"step": 3})
    vocoder = Istft(weights=str(tmp_path / "run")).to("cpu")
    assert isinstance(vocoder, Vocoder)
    log_mel = random_mel(Mel())
    assert torch.equal(vocoder(log_mel, Mel()), network.synthesize(log_mel))
    assert vocoder.fingerprint()["weights_id"].startswith("sha256:")


def test_a_codec_is_no_vocoder(tmp_path: Path) -> None:
    architecture = MelArchitecture(hidden=8)
    files.export(architecture.build(), architecture, tmp_path, {})
    with pytest.raises(UserError, match="holds a codec of family mel, no vocoder"):
        _ = Istft(weights=str(tmp_path)).mel


def test_a_vocoder_is_no_codec() -> None:
    with pytest.raises(UserError, match="codec=vocoder makes no codes"):
        _ = TrainableVocoder(architecture=TINY).info
    with pytest.raises(UserError, match="codec=vocoder makes no codes"):
        TrainableVocoder(architecture=TINY).to("cpu")


@pytest.mark.parametrize(("name", "value"), [("dim", 0), ("layers", 1.5), ("hidden", "many")])
def test_sizes_that_make_no_vocoder_are_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"codec.architecture.{name}={value!r}: "):
        VocoderArchitecture(**{name: value})


def test_an_uncentred_istft_vocoder_is_refused() -> None:
    with pytest.raises(UserError, match="center=false does not fit"):
        VocoderArchitecture(mel=Mel(center=False))


# HiFi-GAN

SMALL = {
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
}
JIK876 = SMALL | {
    "resblock": "1",
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}


class Generator(nn.Module):
    """The generator of jik876/hifi-gan, from its paper: slow, obvious, with the names of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.weight_norm
        self.conv_pre = norm(nn.Conv1d(80, 16, 7, padding=3))
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for i, (rate, kernel) in enumerate(zip(SMALL["upsample_rates"], SMALL["upsample_kernel_sizes"], strict=True)):
            width = 16 // 2 ** (i + 1)
            self.ups.append(norm(nn.ConvTranspose1d(2 * width, width, kernel, rate, (kernel - rate) // 2)))
            for size in SMALL["resblock_kernel_sizes"]:
                block = nn.Module()
                block.convs1 = nn.ModuleList(
                    norm(nn.Conv1d(width, width, size, dilation=d, padding=d * (size - 1) // 2)) for d in (1, 3, 5)
                )
                block.convs2 = nn.ModuleList(norm(nn.Conv1d(width, width, size, padding=size // 2)) for _ in range(3))
                self.resblocks.append(block)
        self.conv_post = norm(nn.Conv1d(2, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        relu = nn.functional.leaky_relu
        x = self.conv_pre(x)
        for i, up in enumerate(self.ups):
            x = up(relu(x, 0.1))
            total = torch.zeros_like(x)
            for block in self.resblocks[2 * i : 2 * i + 2]:
                y = x
                for first, second in zip(block.convs1, block.convs2, strict=True):  # type: ignore[arg-type]
                    y = y + second(relu(first(relu(y, 0.1)), 0.1))
                total = total + y
            x = total / 2
        return torch.tanh(self.conv_post(relu(x)))


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    """Write a generator and its config as jik876/hifi-gan does."""
    torch.manual_seed(0)
    model = Generator().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight_g"):
                parameter.mul_(1.5)  # so that weight norm matters
    (tmp_path / "config.json").write_text(json.dumps(JIK876))
    torch.save({"generator": model.state_dict()}, tmp_path / "g_02500000")
    return model


@pytest.mark.parametrize("name", ["g_02500000", ""], ids=["file", "folder"])
def test_jik876_generators_equal_slow_obvious_code(generator: Generator, tmp_path: Path, name: str) -> None:
    vocoder = HifiGan(weights=str(tmp_path / name)).to("cpu")
    assert vocoder.mel is not None
    assert (
        vocoder.mel.differences(
            Mel(sample_rate=22050, num_bins=80, f_max=8000.0, scale="slaney", norm="slaney", center=False)
        )
        == []
    )
    log_mel = random_mel(vocoder.mel, batch=2)
    with torch.no_grad():
        wanted = generator(log_mel)
    found = vocoder(log_mel, vocoder.mel)
    assert found.shape == (2, 1, 20 * 256)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() <= 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resblock": "2"}, "resblock=2"),
        ({"win_size": 512}, "win_size=512"),
        ({"num_mels": None}, "lacks num_mels"),
        ({"upsample_initial_channel": 32}, "no generator of its config.json"),
        ({"upsample_rates": None}, "has no upsample_rates"),
    ],
    ids=["V3", "window", "missing", "shape", "foreign"],
)
def test_other_generators_are_refused(generator: Generator, tmp_path: Path, change: dict, message: str) -> None:
    config = {key: value for key, value in (JIK876 | change).items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"vocoder hifigan: .*{message}"):
        HifiGan(weights=str(tmp_path)).to("cpu")


def test_a_generator_without_its_config_and_two_in_a_folder(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "g_1").write_bytes(b"")
    with pytest.raises(UserError, match="holds 2 generators"):
        _ = HifiGan(weights=str(tmp_path)).mel
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json is not beside"):
        _ = HifiGan(weights=str(tmp_path / "g_1")).mel


def write_speecht5(folder: Path, **changes: object) -> nn.Module:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    torch.manual_seed(0)
    settings = SMALL | {"initializer_range": 0.3} | changes
    model = SpeechT5HifiGan(SpeechT5HifiGanConfig(**settings)).eval()
    model.mean.fill_(-3.0)
    model.save_pretrained(folder)
    return model


def test_transformers_folders_load_with_their_scaling(tmp_path: Path) -> None:
    model = write_speecht5(tmp_path)
    vocoder = HifiGan(weights=str(tmp_path)).to("cpu")
    assert vocoder.mel == SPEECHT5_MEL
    log_mel = random_mel(SPEECHT5_MEL, batch=2)
    with torch.no_grad():
        wanted = model(log_mel.transpose(1, 2))
    assert torch.equal(vocoder(log_mel, SPEECHT5_MEL)[:, 0], wanted)


def test_speecht5s_mel_is_that_of_its_feature_extractor() -> None:
    from transformers import SpeechT5FeatureExtractor

    extractor = SpeechT5FeatureExtractor()
    wav = tone(SPEECHT5_MEL) + 1e-3 * torch.randn(1, 94 * 256, generator=torch.Generator().manual_seed(0))
    wanted = torch.from_numpy(extractor(audio_target=wav[0].numpy(), sampling_rate=16000).input_values[0]).T
    found = LogMel(SPEECHT5_MEL)(wav)[0]
    frames = min(found.shape[-1], wanted.shape[-1])
    assert frames >= 94
    assert (found[:, :frames] - wanted[:, :frames]).abs().max() <= 1e-3


def test_a_transformers_folder_of_an_unknown_mel_asks_for_it(tmp_path: Path) -> None:
    write_speecht5(tmp_path, sampling_rate=24000, model_in_dim=100)
    with pytest.raises(UserError, match="doesn't say which mel it takes"):
        _ = HifiGan(weights=str(tmp_path)).mel
    assert HifiGan(weights=str(tmp_path), mel=Mel())(random_mel(Mel()), Mel()).shape == (1, 1, 20 * 256)


# Nothing there


@pytest.mark.parametrize("vocoder", [Istft(), HifiGan()], ids=["istft", "hifigan"])
def test_no_weights_name_griffin_lim_as_the_way_out(vocoder: Istft | HifiGan) -> None:
    with pytest.raises(UserError, match=r"(?s)weights=null.*vocoder=griffin_lim"):
        _ = vocoder.mel


@pytest.mark.parametrize("kind", [Vocos, HifiGan, Istft], ids=["vocos", "hifigan", "istft"])
def test_missing_weights_say_where_they_were_looked_for(kind: type, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"(?s)vocoder \w+: .*nowhere.*vocoder\.weights="):
        _ = kind(weights=str(tmp_path / "nowhere")).mel
