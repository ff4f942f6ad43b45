"""The audio of an episode as one channel, read in parts so that hours of stereo fit into memory."""

import logging
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from voxlab.audio import resample
from voxlab.errors import UserError

log = logging.getLogger(__name__)

_BLOCK = 1 << 20
_LOWEST_RATE = 8_000


def load_mono(path: Path, sample_rate: int | None, *, downmix: bool) -> tuple[Tensor, int]:
    """Read a whole file as one channel.

    Args:
        path: WAV, MP3 or whatever else libsndfile reads.
        sample_rate: rate to resample to, all at once; None keeps the file's own.
        downmix: average the channels of a file that has several.

    Returns:
        (1, T) float32 and its sample rate.

    Raises:
        UserError: the file can't be read, is empty, has too low a sample rate, several channels without `downmix`, or
            samples that aren't finite.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            own_rate = file.samplerate
            check_header(path, own_rate, file.channels, downmix=downmix)
            blocks = [block.mean(1) for block in file.blocks(_BLOCK, dtype="float32", always_2d=True)]
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"{path} can't be read ({error}). Fetch it again.") from None
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if len(samples) == 0:
        raise UserError(f"{path} is empty: it holds no samples. Fetch it again.")
    finite = np.isfinite(samples)
    if not finite.all():
        raise UserError(f"{path}: sample {int(np.argmin(finite))} is NaN or infinite. Fetch it again.")
    if not samples.any():
        log.warning("%s is digital silence: all its samples are 0", path)
    wav = torch.from_numpy(samples)[None]
    return (wav, own_rate) if sample_rate is None else (resample(wav, own_rate, sample_rate), sample_rate)


def check_header(path: Path, sample_rate: int, channels: int, *, downmix: bool) -> None:
    """Check what a file says of itself.

    Raises:
        UserError: its sample rate is too low, or it has several channels without `downmix`.
    """
    if sample_rate < _LOWEST_RATE:
        raise UserError(f"{path} has {sample_rate} Hz, where {_LOWEST_RATE} Hz or more are expected.")
    if channels > 1 and not downmix:
        raise UserError(f"{path} has {channels} channels, where one is expected; average them with data.downmix=true.")
