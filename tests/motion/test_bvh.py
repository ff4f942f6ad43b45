"""A BVH file, read back by a reader of its own, puts every joint where our kinematics do; faces come as tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tests.motions import random_motion
from voxlab.errors import UserError
from voxlab.motion.bvh import write_bvh
from voxlab.motion.clip import Motion
from voxlab.motion.expressions_csv import write_expressions
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.skeleton import JOINT_NAMES, Skeleton, synthetic_skeleton


def _read(path: Path) -> tuple[list[tuple[str, int, np.ndarray]], np.ndarray, float]:
    """Return (name, parent, offset) of the joints in the file's order, the numbers of the frames, and the time step."""
    head, body = path.read_text().split("MOTION\n")
    joints: list[tuple[str, int, np.ndarray]] = []
    above: list[int] = []
    name, ends = "", 0
    for line in head.splitlines():
        word, *rest = line.split()
        if word in ("ROOT", "JOINT"):
            name = rest[0]
        elif word == "End":
            name, ends = "", ends + 1
        elif word == "OFFSET" and name:
            joints.append((name, above[-2] if len(above) > 1 else -1, np.array(rest, float)))
            above[-1] = len(joints) - 1
        elif word == "CHANNELS":
            order = "Zrotation Xrotation Yrotation"
            assert " ".join(rest) == ("3 " if len(above) > 1 else "6 Xposition Yposition Zposition ") + order
        elif word == "{":
            above.append(-1)
        elif word == "}":
            above.pop()
    assert ends == 15  # ten fingers, two feet, two eyes and the jaw
    frames, step, *rows = body.splitlines()
    values = np.array([row.split() for row in rows], float)
    assert frames == f"Frames: {len(values)}"
    return joints, values, float(step.removeprefix("Frame Time: "))


def _places(joints: list[tuple[str, int, np.ndarray]], values: np.ndarray) -> np.ndarray:
    """Return (T, 55, 3) metres, in the order of our joints."""
    turns: list[Rotation] = []
    places = np.zeros((len(values), 55, 3))
    found: list[np.ndarray] = []
    for i, (name, parent, offset) in enumerate(joints):
        turn = Rotation.from_euler("ZXY", values[:, 3 + 3 * i : 6 + 3 * i], degrees=True)
        turns.append(turn if parent < 0 else turns[parent] * turn)
        found.append(values[:, :3] if parent < 0 else found[parent] + turns[parent].apply(offset))
        places[:, JOINT_NAMES.index(name)] = found[-1] / 100
    return places


def _curled() -> Skeleton:
    generator = np.random.default_rng(5)
    offsets = synthetic_skeleton().offsets.copy()
    offsets[0] = (0.01, -0.35, 0.02)
    return Skeleton("curled", offsets, generator.normal(size=(30, 3), scale=0.3).astype(np.float32))


def test_a_reader_finds_every_joint_in_its_place(tmp_path: Path) -> None:
    motion, skeleton = random_motion(8, fps=15, spread=1.5), _curled()
    write_bvh(tmp_path / "a.bvh", motion, skeleton)
    joints, values, step = _read(tmp_path / "a.bvh")
    assert {name for name, _, _ in joints} == set(JOINT_NAMES)
    assert abs(step - 1 / 15) < 1e-7
    np.testing.assert_allclose(_places(joints, values), joint_positions(motion, skeleton), atol=3e-6)


@pytest.mark.parametrize("sign", [-1, 1])
def test_right_angles_about_x_keep_their_pose(tmp_path: Path, sign: int) -> None:
    motion = random_motion(4)
    turn = Rotation.from_euler(
        "ZXY", [[30, sign * 90, 50], [30, sign * 89.9999, 50], [0, sign * 90, 0], [10, 0, 0]], True
    )
    poses = np.zeros_like(motion.poses)
    poses[:, 9:12] = turn.as_rotvec()
    turned = Motion(poses, motion.trans, motion.expressions, motion.betas, 30)
    write_bvh(tmp_path / "a.bvh", turned, synthetic_skeleton())
    joints, values, _ = _read(tmp_path / "a.bvh")
    np.testing.assert_allclose(_places(joints, values), joint_positions(turned, synthetic_skeleton()), atol=3e-6)


def test_angles_do_not_jump_by_whole_turns(tmp_path: Path) -> None:
    motion = random_motion(40, spread=0.0)
    motion.poses[:, 1] = np.linspace(0, 3 * np.pi, 40)  # the body turns once and a half
    write_bvh(tmp_path / "a.bvh", motion, synthetic_skeleton())
    _, values, _ = _read(tmp_path / "a.bvh")
    np.testing.assert_allclose(values[:, 5], np.linspace(0, 540, 40), atol=1e-4)
    assert np.abs(np.diff(values, axis=0)).max() < 15


def test_faces_come_as_tables(tmp_path: Path) -> None:
    motion = random_motion(5, fps=15)
    for name in ("face.csv", "face.json"):
        write_expressions(tmp_path / name, motion)
    header, *rows = (tmp_path / "face.csv").read_text().splitlines()
    values = np.array([row.split(",") for row in rows], float)
    assert header.split(",")[:5] == ["time", "jaw_x", "jaw_y", "jaw_z", "expression_000"]
    assert values.shape == (5, 104) == (len(rows), len(header.split(",")))
    np.testing.assert_allclose(values[:, 0], np.arange(5) / 15, atol=1e-6)
    np.testing.assert_allclose(values[:, 1:4], motion.poses[:, 66:69], atol=1e-6)
    np.testing.assert_allclose(values[:, 4:], motion.expressions, atol=1e-6)
    table = json.loads((tmp_path / "face.json").read_text())
    assert (table["fps"], table["columns"]) == (15, header.split(","))
    np.testing.assert_allclose(table["rows"], values, atol=1e-9)
    with pytest.raises(UserError, match=r"\.csv or \.json"):
        write_expressions(tmp_path / "face.txt", motion)
