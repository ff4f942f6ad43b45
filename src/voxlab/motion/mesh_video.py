"""The licensed body in motion, side by side and with sound: triangles painted from back to front, no graphics card."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.audio import Seconds
from voxlab.motion.clip import Motion
from voxlab.motion.smplx_model import BodyModel
from voxlab.motion.stick_video import HEIGHT, WIDTH, common_fps
from voxlab.motion.video import write_video

_FILL, _MARGIN = 0.8, 0.08  # of the view's height: the body of the first frame, and the space below it
_PAPER, _INK, _GREY = (247, 248, 250), (60, 64, 72), np.array([176, 182, 192])
_LIGHT = np.array([0.3, 0.5, 0.81])  # from the front, above and the body's left
_DARKEST = 0.35


def render_mesh(
    path: Path,
    motions: Sequence[tuple[str, Motion]],
    body: BodyModel,
    wav: Path | None = None,
    wav_start: Seconds = 0.0,
) -> list[Path]:
    """Draw motions as grey bodies seen from the front, one view of 480 x 720 pixels each.

    Path, sound, titles, frame rates, the frozen path on the ground and what is returned and raised: as
    `stick_video.render_video` has them.
    """
    fps = common_fps(motions)
    return write_video(path, _pictures(motions, body), fps, wav, wav_start)


def _pictures(motions: Sequence[tuple[str, Motion]], body: BodyModel) -> Iterator[np.ndarray]:
    views = [_paint_all(title, motion, body) for title, motion in motions]
    held: list[Any] = [None] * len(views)
    for _ in range(max(motion.num_frames for _, motion in motions)):
        held = [next(view, last) for view, last in zip(views, held, strict=True)]
        yield np.concatenate(held, axis=1)


def _paint_all(title: str, motion: Motion, body: BodyModel) -> Iterator[np.ndarray]:
    """Yield the pictures of one motion, (720, 480, 3) uint8."""
    from PIL import Image, ImageDraw, ImageFont

    in_place = dataclasses.replace(motion, trans=motion.trans * (0, 1, 0))
    paper, floor, scale = Image.new("RGB", (WIDTH, HEIGHT), _PAPER), 0.0, 0.0
    ImageDraw.Draw(paper).text((16, 12), title, fill=_INK, font=ImageFont.load_default(20))
    for vertices in body.vertex_batches(in_place):
        if not scale:
            floor, top = vertices[0, :, 1].min(), vertices[0, :, 1].max()
            scale = _FILL * HEIGHT / max(float(top - floor), 1e-6)
        for places in vertices:
            pixels = places[:, :2] - (0, floor)
            pixels = pixels * (scale, -scale) + (WIDTH / 2, (1 - _MARGIN) * HEIGHT)
            yield _paint(paper, pixels, places, body.faces)


def _paint(paper: Any, pixels: np.ndarray, places: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Paint one body on a copy of the paper.

    Args:
        paper: picture to begin with.
        pixels: (V, 2) of the vertices, right and down.
        places: (V, 3) of the vertices; the eye is at +Z.
        faces: (F, 3) triangles, counter-clockwise from outside.
    """
    from PIL import ImageDraw

    corners = places[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    seen = np.flatnonzero(normals[:, 2] > 1e-12)
    seen = seen[np.argsort(corners[seen, :, 2].mean(axis=1))]
    light = np.clip(normals[seen] @ _LIGHT / lengths[seen], 0, 1)
    colours = (_GREY * (_DARKEST + (1 - _DARKEST) * light[:, None])).astype(int).tolist()
    picture = paper.copy()
    draw = ImageDraw.Draw(picture)
    for triangle, colour in zip(pixels[faces[seen]].reshape(-1, 6).tolist(), colours, strict=True):
        draw.polygon(triangle, fill=tuple(colour))
    return np.asarray(picture)
