"""Vocoders: log-mel to audio. The protocol, the check that two mels fit, and Griffin-Lim, which needs no weights.

Vocoders that load weights are in `codecs/vocoder_files.py`.
"""

from functools import lru_cache
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from voxlab.errors import UserError
from voxlab.mel import LogMel, Mel

SMALLEST_MAGNITUDE = 1e-8  # the pseudo-inverse gives negative magnitudes; a phase needs more than zero


@runtime_checkable
class Vocoder(Protocol):
    """Log-mel to audio. Constructors only store and check arguments; `to` loads the weights."""

    @property
    def mel(self) -> Mel | None:
        """The only mel it takes; None: any. Reads the config file, loads no weights."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return everything that changes the bytes of results, as JSON-able values; loads no model."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move to `device`; loads the weights on the first call."""
        ...

    def __call__(self, log_mel: Tensor, mel: Mel) -> Tensor:
        """Turn log-mels into audio.

        Args:
            log_mel: (B, num_bins, F) in the log units of `mel`, all frames valid, on the vocoder's device.
            mel: what made them.

        Returns:
            (B, 1, F * mel.hop_length) float32 at mel.sample_rate.

        Raises:
            UserError: the vocoder takes another mel.
        """
        ...


def require_fit(vocoder: Vocoder, mel: Mel) -> None:
    """Check that a vocoder takes log-mels of `mel`; loads no weights.

    Raises:
        UserError: it takes another mel; names every differing field with both values.
    """
    if vocoder.mel is None:
        return
    lines = mel.differences(vocoder.mel)
    if lines:
        name = vocoder.fingerprint()["name"]
        raise UserError(
            f"vocoder {name} takes another mel than the codec makes (codec -> vocoder):\n  "
            + "\n  ".join(lines)
            + f"\nThe codec's: {mel}\nThe vocoder's: {vocoder.mel}\n"
            "Use vocoder=griffin_lim, which takes any mel, or train a codec with codec.architecture.mel set to the "
            "vocoder's values."
        )


class GriffinLim:
    """Griffin-Lim on the pseudo-inverse of the mel filters: no weights, any mel, the same audio every time.

    Args:
        iterations: rounds of phase estimation.
        momentum: of the fast variant, 0 to below 1.

    Raises:
        UserError: an argument is out of range.

    Source: Griffin & Lim 1984; the fast variant of Perraudin, Balazs & Søndergaard 2013.
    """

    mel: Mel | None = None

    def __init__(self, *, iterations: int = 32, momentum: float = 0.99) -> None:
        if iterations < 1 or not 0 <= momentum < 1:
            raise UserError(
                f"vocoder griffin_lim: iterations={iterations}, momentum={momentum}; allowed: iterations from 1, "
                "momentum from 0 to below 1"
            )
        self.iterations, self.momentum = iterations, momentum

    def fingerprint(self) -> dict[str, Any]:
        """Return name and settings."""
        return {"name": "griffin_lim", "iterations": self.iterations, "momentum": self.momentum}

    def to(self, device: torch.device | str) -> Self:
        """Do nothing: it works on the device of its input."""
        return self

    @torch.no_grad()
    def __call__(self, log_mel: Tensor, mel: Mel) -> Tensor:
        """Turn log-mels (B, num_bins, F) into wav (B, 1, F * hop_length); see `Vocoder`."""
        from torchaudio.functional import griffinlim

        magnitude = to_magnitude(log_mel.float(), mel)
        window = torch.hann_window(mel.n_fft, device=log_mel.device)
        wav = griffinlim(
            repeat_last_frame(magnitude),
            window,
            mel.n_fft,
            mel.hop_length,
            mel.n_fft,
            power=1.0,
            n_iter=self.iterations,
            momentum=self.momentum,
            length=None,
            rand_init=False,
        )
        return wav[:, None]


def repeat_last_frame(frames: Tensor) -> Tensor:
    """Append the last frame once more: F + 1 centred frames span F hops."""
    return torch.cat([frames, frames[..., -1:]], dim=-1)


def to_magnitude(log_mel: Tensor, mel: Mel) -> Tensor:
    """Estimate the magnitude spectrogram (B, n_fft // 2 + 1, F) of log-mels (B, num_bins, F)."""
    linear = log_mel.exp() if mel.log == "ln" else 10**log_mel
    return (
        (_inverse_filters(mel).to(log_mel.device) @ linear)
        .clamp_min(0)
        .pow(1 / mel.power)
        .clamp_min(SMALLEST_MAGNITUDE)
    )


@lru_cache(maxsize=8)
def _inverse_filters(mel: Mel) -> Tensor:
    """Return the (n_fft // 2 + 1, num_bins) pseudo-inverse of the mel filters."""
    return torch.linalg.pinv(LogMel(mel).filterbank.double().T).float()
