"""Videos of motion: whatever keeps one from being drawn is told, and costs nothing but the video."""

import io
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from voxlab.motion.clip import Motion
from voxlab.motion.skeleton import Skeleton, load_skeleton
from voxlab.tasks.a2g.settings import Body

log = logging.getLogger(__name__)

_GIF_FRAMES, _GIF_SHRINK = 150, 3  # pictures of a video that its GIF shows; it is so many times smaller and slower


@dataclass(frozen=True)
class Stage:
    """Whose body is measured and drawn, and how.

    Attributes:
        body: settings.
        render: "stick", "mesh" or "none".
    """

    body: Body
    render: str

    @cached_property
    def skeleton(self) -> Skeleton:
        """Where the joints are."""
        return load_skeleton(self.body.skeleton, self.body.path)

    @cached_property
    def mesh(self) -> Any:
        """The body model, for vertices; None where it isn't chosen."""
        from voxlab.motion.smplx_model import load_body

        return load_body(self.body.path) if self.body.skeleton == "smplx" and self.body.path else None

    def draw(
        self, path: Path, motions: Sequence[tuple[str, Motion]], wav: Path | None, wav_start: float = 0.0
    ) -> list[Path]:
        """Write a video of motions side by side, with sound.

        Returns:
            the files; none where render=none, or where drawing failed, which is logged.
        """
        if self.render == "none":
            return []
        try:
            if self.render == "mesh":
                from voxlab.motion.mesh_video import render_mesh

                return render_mesh(path, motions, self.mesh, wav=wav, wav_start=wav_start)
            from voxlab.motion.stick_video import render_video

            return render_video(path, motions, self.skeleton, wav=wav, wav_start=wav_start)
        except Exception as error:  # a picture is never worth an evaluation
            log.warning("no video %s: %s", path, error)
            return []


def log_video(loggers: Mapping[str, Any], name: str, files: Sequence[Path], step: int) -> None:
    """Hand a video to W&B, and a small GIF of it to TensorBoard, which plays these only."""
    for path in [path for path in files if path.suffix in (".mp4", ".gif")]:
        for logger in loggers.values():
            if hasattr(logger, "log_video"):
                logger.log_video(name, [str(path)], step=step, format=[path.suffix[1:]])
            elif hasattr(logger.experiment, "add_video"):
                _add_gif(logger.experiment, name, small_gif(path), step)


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


def _add_gif(writer: Any, name: str, data: bytes, step: int) -> None:
    """Add the bytes as they are: TensorBoard's own way to videos needs another package, and makes a GIF too."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

    width, height = Image.open(io.BytesIO(data)).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)
