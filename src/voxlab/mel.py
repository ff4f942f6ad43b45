"""Log-mel spectrograms: one description of the mel, shared by codec, vocoder and loss, and the module that computes it.

Two parts whose descriptions differ don't fit together; `Mel.differences` says in what.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from voxlab.errors import UserError, check_types

_WORDS: dict[str, tuple[str | None, ...]] = {
    "scale": ("htk", "slaney"),
    "norm": (None, "slaney"),
    "log": ("ln", "log10"),
}


@dataclass(frozen=True, kw_only=True)
class Mel:
    """What a log-mel spectrogram is; the default is the one of Vocos at 24 kHz.

    Attributes:
        sample_rate: Hz.
        n_fft: length of the FFT and of the periodic Hann window, in samples.
        hop_length: samples between frames.
        num_bins: mel bands.
        f_min: lower edge of the first band in Hz.
        f_max: upper edge of the last band in Hz; None is half the sample rate.
        scale: mel scale, "htk" or "slaney".
        norm: "slaney" divides each band by its width, None keeps a peak of 1.
        power: exponent of the magnitudes that are summed into bands (1 amplitude, 2 energy).
        floor: smallest band value before the logarithm.
        log: "ln" or "log10".
        center: frame n is centred on sample n * hop_length; otherwise on the middle of hop n.
    """

    sample_rate: int = 24000
    n_fft: int = 1024
    hop_length: int = 256
    num_bins: int = 100
    f_min: float = 0.0
    f_max: float | None = None
    scale: str = "htk"
    norm: str | None = None
    power: float = 1.0
    floor: float = 1e-5
    log: str = "ln"
    center: bool = True

    def __post_init__(self) -> None:
        check_types(self, "mel.")
        for name, allowed in _WORDS.items():
            if getattr(self, name) not in allowed:
                words = ", ".join("null" if word is None else word for word in allowed)
                raise UserError(f"mel.{name}={getattr(self, name)!r} is unknown; allowed: {words}")
        for name in ("sample_rate", "n_fft", "hop_length", "num_bins", "power", "floor"):
            if not getattr(self, name) > 0:
                raise UserError(f"mel.{name}={getattr(self, name)}: must be above 0")
        if self.hop_length > self.n_fft:
            raise UserError(f"mel.hop_length={self.hop_length} skips samples; allowed: 1..{self.n_fft} (mel.n_fft)")
        if not 0 <= self.f_min < self.top <= self.sample_rate / 2:
            raise UserError(
                f"mel.f_min={self.f_min} and mel.f_max={self.f_max}: needed is "
                f"0 <= f_min < f_max <= {self.sample_rate / 2} (half of mel.sample_rate)"
            )

    @property
    def top(self) -> float:
        """Upper edge of the last band in Hz."""
        return self.sample_rate / 2 if self.f_max is None else self.f_max

    @property
    def log_floor(self) -> float:
        """Smallest value of the log-mel: that of silence."""
        return math.log(self.floor) if self.log == "ln" else math.log10(self.floor)

    @property
    def nats(self) -> float:
        """How many nats one unit of the log-mel is: 1, or ln 10 where `log` is "log10"."""
        return 1.0 if self.log == "ln" else math.log(10)

    def differences(self, other: "Mel") -> list[str]:
        """Return a line such as "num_bins: 100 -> 80" for each field that makes `other` another mel.

        The floor is left out: hardly any cell of speech reaches it.
        """
        here, there = ({field.name: getattr(mel, field.name) for field in fields(mel)} for mel in (self, other))
        here["f_max"], there["f_max"] = self.top, other.top
        return [
            f"{name}: {here[name]} -> {there[name]}" for name in here if name != "floor" and here[name] != there[name]
        ]


class LogMel(nn.Module):
    """Waveform to log-mel, always in the precision of its buffers (float32, or float64 after `.double()`).

    Both ends are continued by reflection. With `center` there are 1 + N // hop_length frames, else N // hop_length.

    Source: torchaudio's MelSpectrogram; `center=False` pads (n_fft - hop_length) / 2 on each side as HiFi-GAN does.
    """

    def __init__(self, mel: Mel) -> None:
        super().__init__()
        from torchaudio.transforms import MelSpectrogram

        self.mel = mel
        self.spectrogram = MelSpectrogram(
            mel.sample_rate,
            n_fft=mel.n_fft,
            hop_length=mel.hop_length,
            f_min=mel.f_min,
            f_max=mel.top,
            n_mels=mel.num_bins,
            power=mel.power,
            center=mel.center,
            norm=mel.norm,
            mel_scale=mel.scale,
        )

    @property
    def filterbank(self) -> Tensor:
        """The (n_fft // 2 + 1, num_bins) weights that sum magnitudes into bands."""
        return self.spectrogram.mel_scale.get_buffer("fb")

    def forward(self, wav: Tensor) -> Tensor:
        """Compute the log-mel of wav (B, N) or (B, 1, N), N > n_fft // 2: (B, num_bins, F) in log units."""
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.reshape(len(wav), -1).to(self.filterbank.dtype)
            if not self.mel.center:
                left = (self.mel.n_fft - self.mel.hop_length) // 2
                right = self.mel.n_fft - self.mel.hop_length - left
                wav = nn.functional.pad(wav[:, None], (left, right), mode="reflect")[:, 0]
            bands = self.spectrogram(wav).clamp_min(self.mel.floor)
            return bands.log() if self.mel.log == "ln" else bands.log10()
