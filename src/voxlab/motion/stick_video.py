"""Stick figures in motion, side by side and with sound: what a motion looks like, without a licensed body."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.audio import Seconds
from voxlab.motion.clip import Motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.skeleton import EYES, FOOT_JOINTS, HAND_JOINTS, JAW, JOINT_NAMES, PARENTS, Skeleton
from voxlab.motion.video import write_video
from voxlab.progress import track

WIDTH, HEIGHT = 480, 720  # pixels of a view
_SMOOTH = 2  # drawn this much larger, then averaged
_FILL = 0.7  # of the view's height, by a person standing upright
_FLOOR = 0.87  # of the view's height, from above
_PAPER, _INK, _LINE = (247, 248, 250), (60, 64, 72), (205, 209, 216)
_LEFT, _RIGHT, _MIDDLE = (47, 111, 222), (224, 112, 58), (84, 90, 102)
_HEAD = JOINT_NAMES.index("head")
_HEAD_RADIUS = 0.1  # metres
_BARS, _BAR_TOP = 40, 3.0  # coefficients of the face that are drawn, and the value that fills a bar

Title = str


def _bones() -> list[tuple[int, int, tuple[int, int, int], int]]:
    """Return parent, child, colour and width in pixels of the bones that are drawn: all but those of the face."""
    bones = []
    for child, parent in enumerate(PARENTS):
        if parent >= 0 and child not in (JAW, *EYES):
            side = JOINT_NAMES[child].split("_")[0]
            colour = {"left": _LEFT, "right": _RIGHT}.get(side, _MIDDLE)
            bones.append((parent, child, colour, 2 if child in HAND_JOINTS else 6))
    return bones


_BONES = _bones()


@dataclass(frozen=True)
class _View:
    """A motion as seen: title, (T, 55, 2) pixels to the right and down, radius of the head, (T, bars) of the face."""

    title: Title
    points: np.ndarray
    head: float
    face: np.ndarray


def render_video(
    path: Path,
    motions: Sequence[tuple[Title, Motion]],
    skeleton: Skeleton,
    wav: Path | None = None,
    wav_start: Seconds = 0.0,
) -> list[Path]:
    """Draw motions as stick figures seen from the front, one view of 480 x 720 pixels each.

    Below each figure, bars tell the first coefficients of its face. The bodies stay in the middle of their views: what
    the path does is measured by metrics, not seen. A motion that ends before the longest stands still in its last
    frame.

    Args:
        path: `.mp4` or `.gif`, as `video.write_video` takes it.
        motions: title and motion, from left to right, at one frame rate.
        skeleton: whose bones are drawn.
        wav: sound; None is silent.
        wav_start: where the sound begins, in seconds into the file.

    Returns:
        the files written: the video, or GIF and WAV.

    Raises:
        ValueError: no motions, motions without frames, or of several frame rates.
    """
    fps = common_fps(motions)
    views = [_look(title, motion, skeleton) for title, motion in motions]
    return write_video(path, _pictures(views), fps, wav, wav_start)


def common_fps(motions: Sequence[tuple[Title, Motion]]) -> int:
    """Return the frame rate of all motions.

    Raises:
        ValueError: no motions, motions without frames, or of several frame rates.
    """
    rates = {motion.fps for _, motion in motions}
    if len(rates) != 1 or any(motion.num_frames == 0 for _, motion in motions):
        told = ", ".join(f"{title}: {motion.num_frames} frames at {motion.fps} fps" for title, motion in motions)
        raise ValueError(f"motions to draw need frames, and one frame rate for all; given: {told or 'none'}")
    return rates.pop()


def _look(title: Title, motion: Motion, skeleton: Skeleton) -> _View:
    """Project a motion to pixels; the lowest foot of the clip stands on the floor."""
    in_place = dataclasses.replace(motion, trans=motion.trans * (0, 1, 0))
    places = joint_positions(in_place, skeleton)
    floor = np.quantile(places[:, FOOT_JOINTS, 1], 0.01)
    scale = _FILL * HEIGHT / _standing_height(skeleton)
    across = WIDTH / 2 + scale * (places[..., 0] - skeleton.offsets[0, 0])
    down = _FLOOR * HEIGHT - scale * (places[..., 1] - floor)
    face = np.clip(motion.expressions[:, :_BARS] / _BAR_TOP, -1, 1)
    return _View(title, np.stack([across, down], axis=-1), scale * _HEAD_RADIUS, face)


def _standing_height(skeleton: Skeleton) -> float:
    """Return how high the top of the head is above the feet at rest, in metres."""
    heights = np.zeros(len(PARENTS))
    for joint, parent in enumerate(PARENTS):
        heights[joint] = skeleton.offsets[joint, 1] + (heights[parent] if parent >= 0 else 0)
    return float(heights[_HEAD] - heights.min()) + 2 * _HEAD_RADIUS


def _pictures(views: Sequence[_View]) -> Iterator[np.ndarray]:
    papers = [_draw_paper(view.title) for view in views]
    for frame in track(range(max(len(view.points) for view in views)), "video", "frames"):
        pairs = zip(papers, views, strict=True)
        yield np.concatenate([_draw_figure(paper, view, frame) for paper, view in pairs], axis=1)


def _draw_paper(title: Title) -> Any:
    """Return the picture that all frames of a view begin with."""
    from PIL import Image, ImageDraw, ImageFont

    paper = Image.new("RGB", (WIDTH * _SMOOTH, HEIGHT * _SMOOTH), _PAPER)
    draw = ImageDraw.Draw(paper)
    floor = round(_FLOOR * HEIGHT * _SMOOTH)
    draw.line([(0, floor), (WIDTH * _SMOOTH, floor)], fill=_LINE, width=2 * _SMOOTH)
    draw.text((16 * _SMOOTH, 12 * _SMOOTH), title, fill=_INK, font=ImageFont.load_default(20 * _SMOOTH))
    return paper


def _draw_figure(paper: Any, view: _View, frame: int) -> np.ndarray:
    """Draw one body, in its last frame when it has ended, on a copy of the paper; returns (720, 480, 3) uint8."""
    from PIL import ImageDraw

    frame = min(frame, len(view.points) - 1)
    picture = paper.copy()
    draw = ImageDraw.Draw(picture)
    points = [tuple(point) for point in (view.points[frame] * _SMOOTH).tolist()]
    for start, end, colour, width in _BONES:
        draw.line([points[start], points[end]], fill=colour, width=width * _SMOOTH)
    (x, y), radius = points[_HEAD], view.head * _SMOOTH
    draw.circle((x, y - radius / 2), radius, outline=_MIDDLE, width=4 * _SMOOTH)
    for eye in EYES:
        draw.circle(points[eye], 3 * _SMOOTH, fill=_INK)
    _draw_face_bars(draw, view.face[frame])
    return np.asarray(picture.reduce(_SMOOTH))


def _draw_face_bars(draw: Any, values: np.ndarray) -> None:
    """Draw coefficients in -1...1 as bars up and down from a line below the floor."""
    middle, reach = (1 + _FLOOR) / 2 * HEIGHT * _SMOOTH, (1 - _FLOOR) / 2 * HEIGHT * _SMOOTH * 0.8
    pitch = WIDTH * _SMOOTH * 0.9 / len(values)
    for i, value in enumerate(values.tolist()):
        left, end = WIDTH * _SMOOTH * 0.05 + i * pitch, middle - reach * value
        draw.rectangle((left, min(middle, end), left + pitch * 0.7, max(middle, end)), fill=_LINE)
