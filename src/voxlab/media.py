"""Pictures, clips and videos for TensorBoard and Weights & Biases: what they show, each in its own way.

A logger is one of Lightning's; those that only keep numbers (CSV) are passed over.
"""

import io
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from voxlab.audio import load

_log = logging.getLogger(__name__)

_GIF_FRAMES, _GIF_SHRINK = 150, 3  # pictures of a video that its GIF shows; it is so many times smaller and slower
_KINDS = {".png": "image", ".flac": "audio", ".wav": "audio", ".mp4": "video", ".gif": "video"}
_NOT_OURS = ("samples", "wandb", "csv")  # what a task hands over while it trains, and what loggers write themselves
_MAX_FILES = 32


def log_folder(loggers: Mapping[str, Any], run_dir: Path) -> None:
    """Hand over the plots, clips and videos of a run folder, under their path; at most 32 of a kind.

    Args:
        loggers: Lightning loggers by name.
        run_dir: of the run.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(run_dir.rglob("*")) if loggers else []:
        if path.suffix in _KINDS and path.relative_to(run_dir).parts[0] not in _NOT_OURS:
            found.setdefault(_KINDS[path.suffix], []).append(path)
    for kind, paths in found.items():
        if len(paths) > _MAX_FILES:
            _log.info("the loggers get %d of %d files (%s)", _MAX_FILES, len(paths), kind)
        for path in paths[:_MAX_FILES]:
            name = path.relative_to(run_dir).with_suffix("").as_posix()
            _LOG[kind](loggers, name, path)


def log_image(loggers: Mapping[str, Any], name: str, path: Path) -> None:
    """Hand over a PNG file."""
    for logger in loggers.values():
        if hasattr(logger, "log_image"):  # W&B
            logger.log_image(name, [str(path)])
        elif hasattr(logger.experiment, "add_image"):  # TensorBoard
            _add_picture(logger.experiment, name, path.read_bytes(), None)


def log_audio(loggers: Mapping[str, Any], name: str, path: Path) -> None:
    """Hand over an audio file; TensorBoard gets the mean of its channels."""
    for logger in loggers.values():
        if hasattr(logger, "log_audio"):
            logger.log_audio(name, [str(path)])
        elif hasattr(logger.experiment, "add_audio"):
            wav, sample_rate = load(path)
            logger.experiment.add_audio(name, wav.mean(0), sample_rate=sample_rate)


def log_video(loggers: Mapping[str, Any], name: str, files: Sequence[Path], step: int | None) -> None:
    """Hand a video to W&B, and a small GIF of it to TensorBoard, which plays these only."""
    for path in [path for path in files if path.suffix in (".mp4", ".gif")]:
        for logger in loggers.values():
            if hasattr(logger, "log_video"):
                logger.log_video(name, [str(path)], step=step, format=[path.suffix[1:]])
            elif hasattr(logger.experiment, "add_video"):
                _add_picture(logger.experiment, name, small_gif(path), step)


def small_gif(path: Path) -> bytes:
    """Return every third picture of the first seconds of a video, a third as wide and high, as a GIF."""
    from PIL import Image

    pictures = []
    for picture in _pictures(path, _GIF_FRAMES):
        size = (picture.width // _GIF_SHRINK, picture.height // _GIF_SHRINK)
        pictures.append(picture.convert("RGB").resize(size, Image.Resampling.BOX))
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=_GIF_SHRINK * 1000 // 30, loop=0)
    return file.getvalue()


def _pictures(path: Path, limit: int) -> Iterator[Any]:
    """Yield every third of the first `limit` pictures of a video."""
    if path.suffix == ".gif":
        from PIL import Image, ImageSequence

        with Image.open(path) as film:
            yield from itertools.islice(ImageSequence.Iterator(film), 0, limit, _GIF_SHRINK)
        return
    import av

    with av.open(str(path)) as film:
        for frame in itertools.islice(film.decode(video=0), 0, limit, _GIF_SHRINK):
            yield frame.to_image()


def _add_picture(writer: Any, name: str, data: bytes, step: int | None) -> None:
    """Add the bytes of a PNG or GIF as they are: TensorBoard's own way to videos needs another package."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    width, height = Image.open(io.BytesIO(data)).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


_LOG: dict[str, Callable[[Mapping[str, Any], str, Path], None]] = {
    "image": log_image,
    "audio": log_audio,
    "video": lambda loggers, name, path: log_video(loggers, name, [path], None),
}
