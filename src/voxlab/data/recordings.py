"""Parts of audio files without the rest: headers, and samples from a position on; damage is named with its extent."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soundfile
import torch
from torch import Tensor

from voxlab.audio import Seconds
from voxlab.data.items import AudioItem
from voxlab.errors import UserError

_MAX_FRAMES = 1 << 40  # a FLAC stream of unknown length claims 2**63 - 1


class Header(NamedTuple):
    """What an audio file says of itself: samples a channel, sample rate in Hz, channels."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def duration(self) -> Seconds:
        """Length by the header."""
        return self.frames / self.sample_rate


def read_part(item: AudioItem, header: Header, start: int, stop: int) -> Tensor:
    """Read the samples start..stop-1 of a recording, and average its channels.

    Args:
        item: the recording.
        header: from `read_header`.
        start: first sample.
        stop: one past the last sample, at most `header.frames`.

    Returns:
        (1, stop - start) float32 in [-1, 1].

    Raises:
        UserError: the file is damaged (names the reason, and how many samples it has) or holds NaN or infinity.
    """
    try:
        with soundfile.SoundFile(_source(item)) as file:
            file.seek(start)
            samples = file.read(stop - start, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(_explain_damage(item, header, _reason(error))) from error
    if len(samples) < stop - start:
        raise UserError(_explain_damage(item, header, "it ends early"))
    finite = np.isfinite(samples).all(1)
    if not finite.all():
        raise UserError(f"{name_of(item)}: sample {start + int(np.argmin(finite))} is NaN or infinite.")
    return torch.from_numpy(samples.T if samples.shape[1] == 1 else samples.mean(1, dtype=np.float32)[None])


def read_header(item: AudioItem) -> Header:
    """Read what the file says of itself, without decoding it.

    Raises:
        ValueError: it is no audio file, or claims what can't be: with libsndfile's reason.
    """
    try:
        with soundfile.SoundFile(_source(item)) as file:
            header = Header(file.frames, file.samplerate, file.channels)
    except (OSError, soundfile.SoundFileError) as error:
        raise ValueError(_reason(error)) from error
    if not 0 < header.frames < _MAX_FRAMES or not 1_000 <= header.sample_rate <= 768_000:
        raise ValueError(f"its header claims {header.frames} samples at {header.sample_rate} Hz")
    return header


def read_headers(items: Sequence[AudioItem]) -> list[Header | str]:
    """Read the headers of many files; a text in place of a header says why there is none."""

    def read(item: AudioItem) -> Header | str:
        try:
            return read_header(item)
        except ValueError as error:
            return str(error)

    return [read(item) for item in items]  # threads take longer: most of the time is spent in Python


def _source(item: AudioItem) -> str | io.BytesIO:
    return str(item.path) if item.content is None else io.BytesIO(item.read())


def name_of(item: AudioItem) -> str:
    """Return what a message calls a recording: its file, and its id where the file holds many."""
    return str(item.path) if item.content is None else f"{item.path}, {item.id}"


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return getattr(error, "error_string", str(error)).rstrip(".")


def _explain_damage(item: AudioItem, header: Header, reason: str) -> str:
    return (
        f"{name_of(item)} is damaged: {reason}; {_count_samples(item)} of the {header.frames} samples that its header "
        "promises can be read.\nFetch or copy it again, or take it out of the corpus."
    )


def _count_samples(item: AudioItem) -> int:
    """Count the samples that can be decoded before the first damage, to a thousand or so."""
    found = 0
    try:
        with soundfile.SoundFile(_source(item)) as file:
            while length := len(file.read(1024)):
                found += length
    except (OSError, soundfile.SoundFileError):
        pass
    return found
