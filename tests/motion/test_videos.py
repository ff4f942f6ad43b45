"""Videos have the size, length, speed and sound they should; figures move, and stand still at their end."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image, ImageSequence

from tests.body_model import model_arrays, write_body_model
from tests.motions import random_motion
from voxlab.errors import UserError
from voxlab.motion.clip import Motion
from voxlab.motion.mesh_video import render_mesh
from voxlab.motion.skeleton import synthetic_skeleton
from voxlab.motion.smplx_model import load_body
from voxlab.motion.stick_video import HEIGHT, WIDTH, render_video
from voxlab.motion.video import write_video

SKELETON = synthetic_skeleton()


def _still(num_frames: int, fps: int = 30) -> Motion:
    motion = random_motion(num_frames, spread=0.0, fps=fps)
    motion.trans[:] = (0, 0.95, 0)
    motion.expressions[:] = 0
    return motion


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds: silence, then 440 Hz."""
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    times = np.arange(32_000) / 16_000
    soundfile.write(path, np.where(times < 1, 0, 0.5 * np.sin(2 * np.pi * 440 * times)), 16_000)
    return path


def _read_mp4(path: Path) -> tuple[np.ndarray, float, np.ndarray | None, int]:
    """Return (T, H, W, 3) pictures, their rate, (N,) sound and its rate."""
    with av.open(str(path)) as file:
        video = file.streams.video[0]
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video)])
        rate = float(video.average_rate or 0)
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return pictures, rate, None, 0
        pieces = [frame.to_ndarray() for frame in file.decode(file.streams.audio[0])]
        return pictures, rate, np.concatenate(pieces, axis=1)[0], file.streams.audio[0].rate or 0


def _flat(values: list[int]) -> Iterator[np.ndarray]:
    return (np.full((16, 32, 3), value, np.uint8) for value in values)


def test_pictures_and_sound_come_back_in_time(tmp_path: Path, tone: Path) -> None:
    levels = np.linspace(20, 230, 15).astype(int).tolist()
    files = write_video(tmp_path / "a.mp4", _flat(levels), 15, tone, wav_start=0.5)
    assert files == [tmp_path / "a.mp4"]
    pictures, rate, sound, sound_rate = _read_mp4(files[0])
    assert (pictures.shape, rate, sound_rate) == ((15, 16, 32, 3), 15, 48_000)
    np.testing.assert_allclose(pictures.mean(axis=(1, 2, 3)), levels, atol=6)
    assert sound is not None
    assert abs(len(sound) / sound_rate - 1) < 0.05
    levels_of_sound = [np.abs(sound[int(a * 48_000) : int(b * 48_000)]).mean() for a, b in ((0.1, 0.4), (0.6, 0.9))]
    assert levels_of_sound[0] < 0.01 < 0.25 < levels_of_sound[1]


def test_a_short_sound_ends_and_none_is_silent(tmp_path: Path, tone: Path) -> None:
    write_video(tmp_path / "short.mp4", _flat([9] * 30), 30, tone, wav_start=1.75)
    _, _, sound, _ = _read_mp4(tmp_path / "short.mp4")
    assert sound is not None
    assert abs(len(sound) / 48_000 - 0.25) < 0.05
    write_video(tmp_path / "silent.mp4", _flat([9] * 3), 30)
    assert _read_mp4(tmp_path / "silent.mp4")[2] is None


@pytest.mark.parametrize("encoder", [True, False])
def test_a_gif_has_the_same_length_and_its_sound_beside_it(
    tmp_path: Path, tone: Path, encoder: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name = "a.gif" if encoder else "a.mp4"
    monkeypatch.setattr("voxlab.motion.video._can_encode", lambda: encoder)
    files = write_video(tmp_path / name, _flat([9, 200] * 15), 30, tone)
    assert files == [tmp_path / "a.gif", tmp_path / "a.wav"]
    assert ("no H.264 encoder" in caplog.text) is not encoder
    with Image.open(files[0]) as image:
        assert image.size == (32, 16)
        assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(image)) == 1000
    assert abs(soundfile.info(files[1]).duration - 1) < 1e-6


def test_impossible_videos_are_named_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.avi: videos are written as .mp4 or .gif"):
        write_video(tmp_path / "a.avi", _flat([1]), 30)
    with pytest.raises(ValueError, match="no pictures"):
        write_video(tmp_path / "a.mp4", _flat([]), 30)

    def breaks() -> Iterator[np.ndarray]:
        yield from _flat([1, 2])
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_video(tmp_path / "a.mp4", breaks(), 30)
    assert list(tmp_path.iterdir()) == []


def test_figures_stand_side_by_side_and_the_shorter_one_stops(tmp_path: Path) -> None:
    long, short = random_motion(8, seed=1, spread=0.3), random_motion(4, seed=2, spread=0.3)
    files = render_video(tmp_path / "a.mp4", [("truth", long), ("made", short)], SKELETON)
    pictures = _read_mp4(files[0])[0].astype(int)
    assert pictures.shape == (8, HEIGHT, 2 * WIDTH, 3)
    changes = np.abs(np.diff(pictures, axis=0)).reshape(7, HEIGHT, 2, WIDTH, 3).mean(axis=(1, 3, 4))
    assert (changes[:, 0] > 0.1).all()
    assert (changes[:3, 1] > 0.1).all()
    assert (changes[4:, 1] < 0.05).all()  # the codec polishes a picture that stays


def test_a_figure_stands_upright_with_its_left_on_the_right(tmp_path: Path) -> None:
    motion = _still(1)
    render_video(tmp_path / "a.gif", [("", motion)], SKELETON)
    with Image.open(tmp_path / "a.gif") as image:
        picture = np.asarray(image.convert("RGB")).astype(int)
    blue = np.argwhere(picture[..., 2] - picture[..., 0] > 100)
    orange = np.argwhere(picture[..., 0] - picture[..., 2] > 100)
    assert blue[:, 1].min() > WIDTH / 2 - 4 > orange[:, 1].max() - 8
    np.testing.assert_allclose(blue[:, 1].max() - WIDTH / 2, WIDTH / 2 - orange[:, 1].min(), atol=2)
    assert 0.8 * HEIGHT < blue[:, 0].max() < 0.9 * HEIGHT  # the foot stands near the floor
    assert (blue[:, 1] < WIDTH - 1).all()  # both arms fit, stretched out


def test_the_face_has_bars(tmp_path: Path) -> None:
    motion, below = _still(2), slice(int(0.9 * HEIGHT), HEIGHT)
    motion.expressions[1, 3] = 3
    pictures = _read_mp4(render_video(tmp_path / "a.mp4", [("", motion)], SKELETON)[0])[0].astype(int)
    changed = np.argwhere(np.abs(pictures[1, below] - pictures[0, below]).max(axis=-1) > 20)
    assert len(changed) > 100
    assert np.ptp(changed[:, 1]) < WIDTH / 20


@pytest.mark.parametrize("motions", [[], [_still(3), _still(3, fps=15)], [_still(3), _still(0)]])
def test_motions_that_cannot_be_drawn_together_are_named(tmp_path: Path, motions: list[Motion]) -> None:
    with pytest.raises(ValueError, match=r"one frame rate for all; given: (none|m: 3 frames at 30 fps, m: )"):
        render_video(tmp_path / "a.mp4", [("m", motion) for motion in motions], SKELETON)


def test_a_body_is_painted_front_over_back(tmp_path: Path) -> None:
    """Three triangles: a near one seen from the front, a far one tilted to the light, and one seen from behind."""
    pytest.importorskip("smplx")
    arrays = model_arrays(SKELETON, faces=((60, 61, 62), (63, 64, 65), (66, 68, 67)))
    corners = np.array([[-0.3, 0, 0], [0.3, 0, 0], [0, 0.6, 0]])
    arrays["v_template"][60:63] = corners + np.array([0, 0.3, 0.2])
    arrays["v_template"][63:66] = corners * 2 + np.array([0, 0.1, 0]) - corners[:, 1:2] * (0, 0, 1.5)
    arrays["v_template"][66:69] = corners * 3 + np.array([0, 0, 0.5])
    body = load_body(write_body_model(tmp_path, arrays))
    render_mesh(tmp_path / "a.gif", [("", _still(1)), ("", _still(1))], body)
    with Image.open(tmp_path / "a.gif") as image:
        picture = np.asarray(image.convert("L")).astype(int)
    assert picture.shape == (HEIGHT, 2 * WIDTH)
    np.testing.assert_array_equal(picture[:, :WIDTH], picture[:, WIDTH:])
    levels = sorted(set(np.unique(picture[:, :WIDTH]).tolist()))
    assert len(levels) == 3  # paper and two greys: the one seen from behind would be a third
    column = picture[:, WIDTH // 2]
    seen = [level for level, before in zip(column[1:], column[:-1], strict=True) if level != before]
    assert len(seen) == 4  # far grey, near grey over it, far grey again, paper
    assert seen[0] == seen[2] != seen[1]
