"""Pictures to a video with sound: H.264 and AAC in mp4 by PyAV, or a GIF with a WAV beside it."""

import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from voxlab import audio
from voxlab.audio import Seconds
from voxlab.errors import UserError
from voxlab.storage import atomic_path, atomic_write_bytes

_log = logging.getLogger(__name__)
SOUND_RATE = 48_000  # Hz: the rate that every player takes
_GIF_FPS = 10  # GIF counts hundredths of a second: 30 a second is not among its rates
_X264 = {"preset": "veryfast", "crf": "23"}


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int,
    wav: Path | None = None,
    wav_start: Seconds = 0.0,
) -> list[Path]:
    """Write pictures as a video that lasts as long as they do.

    Args:
        path: `.mp4` or `.gif`; where mp4 can't be encoded, the GIF is written instead, with a remark in the log.
        frames: (H, W, 3) uint8 pictures, H and W even; taken one by one.
        fps: pictures a second.
        wav: sound, any file that `audio.load` reads; cut to the length of the pictures.
        wav_start: where the sound begins, in seconds into the file.

    Returns:
        the files: the video, or GIF and WAV.

    Raises:
        UserError: another kind of file.
        ValueError: there are no pictures, or the sound can't be read.
    """
    if path.suffix not in (".mp4", ".gif"):
        raise UserError(f"{path}: videos are written as .mp4 or .gif.")
    if path.suffix == ".mp4" and not _can_encode():
        _log.warning("%s: PyAV has no H.264 encoder here; a GIF and a WAV are written instead", path.name)
        path = path.with_suffix(".gif")
    sound = None if wav is None else _load_sound(wav, wav_start)
    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("there are no pictures to make a video of")
    pictures = itertools.chain([first], pictures)
    if path.suffix == ".mp4":
        _write_mp4(path, pictures, first.shape, fps, sound)
        return [path]
    return _write_gif(path, pictures, fps, sound)


def _can_encode() -> bool:
    try:
        import av
        import av.codec
    except ImportError:
        return False
    return {"libx264", "aac"} <= av.codec.codecs_available


def _load_sound(wav: Path, start: Seconds) -> Tensor:
    sound, _ = audio.load(wav, SOUND_RATE)
    return audio.to_mono(sound)[:, audio.compute_num_samples(start, SOUND_RATE) :].clamp(-1, 1)


def _write_mp4(
    path: Path, pictures: Iterator[np.ndarray], shape: tuple[int, ...], fps: int, sound: Tensor | None
) -> None:
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", "mp4", {"movflags": "faststart"}) as file:
        video = file.add_stream("libx264", rate=fps, options=_X264)
        video.height, video.width, video.pix_fmt = shape[0], shape[1], "yuv420p"
        voice = None if sound is None else file.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for i, picture in enumerate(pictures):
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            if voice is not None and sound is not None:
                file.mux(_encode_sound(voice, sound, *(j * SOUND_RATE // fps for j in (i, i + 1))))
        for stream in (video, voice):
            if stream is not None:
                file.mux(stream.encode(None))


def _encode_sound(stream: Any, sound: Tensor, start: int, end: int) -> list[Any]:
    """Encode the samples of one picture, so that sound and pictures alternate in the file."""
    import av

    samples = sound[:, start:end].contiguous().numpy()
    if samples.shape[1] == 0:
        return []
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts = SOUND_RATE, start
    return stream.encode(frame)


def _write_gif(path: Path, pictures: Iterator[np.ndarray], fps: int, sound: Tensor | None) -> list[Path]:
    from PIL import Image

    step = max(1, round(fps / _GIF_FPS))
    images, count = [], 0
    for count, picture in enumerate(pictures, start=1):
        if (count - 1) % step == 0:
            images.append(Image.fromarray(picture).quantize(64))
    hundredths = np.round(100 * step / fps * np.arange(len(images) + 1)).astype(int)
    with atomic_path(path) as temporary:
        durations = (10 * np.diff(hundredths)).tolist()
        images[0].save(temporary, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    if sound is None:
        return [path]
    beside = path.with_suffix(".wav")
    atomic_write_bytes(beside, audio.encode_wav(sound[:, : count * SOUND_RATE // fps], SOUND_RATE))
    return [path, beside]
