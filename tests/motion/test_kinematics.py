"""Places of joints equal a slow walk along the bones, and the feet that stand are those that don't move."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from tests.motions import WHOLE_CLIP, random_motion, real_motion
from voxlab.errors import UserError
from voxlab.motion.clip import Motion
from voxlab.motion.kinematics import foot_contacts, forward_kinematics, joint_positions
from voxlab.motion.rotations import axis_angle_to_matrix
from voxlab.motion.skeleton import FOOT_JOINTS, JOINT_NAMES, PARENTS, Skeleton, load_skeleton, synthetic_skeleton


def _walk(pose: np.ndarray, trans: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return the (55, 3) places of one frame, joint by joint."""
    turns, places = [], []
    for joint, parent in enumerate(PARENTS):
        turn = Rotation.from_rotvec(pose[3 * joint : 3 * joint + 3])
        turns.append(turn if parent < 0 else turns[parent] * turn)
        before = trans if parent < 0 else places[parent]
        offset = skeleton.offsets[joint].astype(float)
        places.append(before + (offset if parent < 0 else turns[parent].apply(offset)))
    return np.array(places)


def _skeleton(seed: int = 3) -> Skeleton:
    generator = np.random.default_rng(seed)
    hands = generator.normal(size=(30, 3), scale=0.2).astype(np.float32)
    return Skeleton("random", generator.normal(size=(55, 3), scale=0.2).astype(np.float32), hands)


def test_places_equal_a_walk_along_the_bones() -> None:
    motion, skeleton = random_motion(5), _skeleton()
    poses = motion.poses.copy()
    poses[:, 75:] += skeleton.hand_mean.ravel()
    wanted = [_walk(pose, trans, skeleton) for pose, trans in zip(poses, motion.trans, strict=True)]
    np.testing.assert_allclose(joint_positions(motion, skeleton), wanted, atol=2e-6)


def test_root_can_be_unturned_and_the_path_left_out() -> None:
    motion, skeleton = random_motion(4), _skeleton()
    still = Motion(motion.poses.copy(), 0 * motion.trans, motion.expressions, motion.betas, motion.fps)
    still.poses[:, :3] = 0
    found = joint_positions(motion, skeleton, root="zeroed", trans=False)
    np.testing.assert_array_equal(found, joint_positions(still, skeleton))
    np.testing.assert_allclose(found[:, 0], np.tile(skeleton.offsets[0], (4, 1)))


def test_any_leading_axes_and_gradients() -> None:
    poses = torch.from_numpy(random_motion(6).poses).reshape(2, 3, 55, 3).double().requires_grad_()
    places = forward_kinematics(axis_angle_to_matrix(poses), None, synthetic_skeleton())
    each = forward_kinematics(axis_angle_to_matrix(poses[1, 2]), None, synthetic_skeleton())
    np.testing.assert_array_equal(places[1, 2].detach(), each.detach())
    places[..., JOINT_NAMES.index("left_wrist"), :].sum().backward()
    assert poses.grad is not None
    moved = poses.grad.abs().sum(dim=(0, 1, 3)) > 0
    assert {JOINT_NAMES[joint] for joint in moved.nonzero().ravel().tolist()} == {
        *("pelvis", "spine1", "spine2", "spine3", "left_collar", "left_shoulder", "left_elbow")
    }


def test_synthetic_skeleton_is_symmetric_and_of_human_size() -> None:
    places = _walk(np.zeros(165), np.zeros(3), synthetic_skeleton())
    for joint, name in enumerate(JOINT_NAMES):
        if name.startswith("left_"):
            mirrored = places[JOINT_NAMES.index(name.replace("left_", "right_"))]
            np.testing.assert_allclose(places[joint] * (-1, 1, 1), mirrored, atol=1e-7)
    assert 1.4 < np.ptp(places[:, 1]) < 1.7
    np.testing.assert_allclose(places[JOINT_NAMES.index("left_index3"), 0], 0.05 + 0.11 + 0.5 + 0.1 + 0.052, atol=1e-6)


def test_feet_stand_below_thirty_centimetres_a_second() -> None:
    places = np.zeros((4, 55, 3))
    places[:, 7, 0] = np.cumsum([0, 0.0099, 0.0101, 0.0])
    found = foot_contacts(places, 30)
    assert found[:, 0].tolist() == [True, False, True, True]
    assert found[:, 1:].all()
    assert foot_contacts(places, 15)[:, 0].all()


def test_real_clip_has_the_measured_contacts_and_diversity() -> None:
    motion, skeleton = real_motion(), synthetic_skeleton()
    places = joint_positions(motion, skeleton)
    wanted = _walk(motion.poses[700].astype(float), motion.trans[700], skeleton)
    np.testing.assert_allclose(places[700], wanted, atol=2e-6)
    if motion.num_frames != WHOLE_CLIP:
        pytest.skip("figures of contacts and diversity are known for the whole clip only")
    np.testing.assert_allclose(foot_contacts(places, 30).mean(axis=0), [0.861, 0.847, 0.875, 0.873], atol=0.005)
    for root, figure in (("zeroed", 13.460), ("kept", 13.836)):
        still = joint_positions(motion, skeleton, root=root, trans=False)  # type: ignore[arg-type]
        assert abs(np.abs(still - still.mean(axis=0)).sum() / len(still) - figure) < 0.01


def test_skeleton_of_a_file(tmp_path: Path) -> None:
    wanted = _skeleton()
    np.savez(tmp_path / "body.npz", offsets=wanted.offsets, hand_mean=wanted.hand_mean)
    found = load_skeleton("npz", str(tmp_path / "body.npz"))
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.hand_mean, wanted.hand_mean)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"offsets": np.zeros((54, 3))}, r"offsets.*\(54, 3\).*\(55, 3\)"),
        ({"offsets": np.full((55, 3), np.nan)}, "finite"),
        ({"places": np.zeros((55, 3))}, "no key `offsets`"),
        ({"offsets": np.array([{}])}, "plain numbers"),
    ],
)
def test_wrong_files_of_skeletons_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    file = tmp_path / "body.npz"
    np.savez(file, **arrays)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=told) as caught:
        load_skeleton("npz", str(file))
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "path", "told"),
    [
        ("bones", None, "synthetic, smplx, npz"),
        ("npz", None, r"needs body.path=\.\.\."),
        ("npz", "nowhere.npz", "no such file"),
        ("smplx", "nowhere", "smplx/SMPLX_NEUTRAL_2020.npz"),
    ],
)
def test_impossible_choices_of_skeletons_are_named(kind: str, path: str | None, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_skeleton(kind, path)


def test_the_recorded_feet_stand_on_the_floor() -> None:
    motion = real_motion()
    feet = np.asarray(joint_positions(motion, synthetic_skeleton(), root="kept", trans=True))[:, list(FOOT_JOINTS), 1]
    assert abs(np.median(feet.min(1))) < 0.05
