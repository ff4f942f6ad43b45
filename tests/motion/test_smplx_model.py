"""The real smplx package on a made-up body agrees with our kinematics; wrong files are named before it sees them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.body_model import NUM_VERTICES, model_arrays, write_body_model
from tests.motions import random_motion
from voxlab.errors import UserError
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.skeleton import Skeleton, load_skeleton, synthetic_skeleton
from voxlab.motion.smplx_model import BodyModel, check_model, find_model, load_body


def _resting_hands() -> Skeleton:
    hands = np.random.default_rng(1).normal(size=(30, 3), scale=0.3).astype(np.float32)
    return Skeleton("curled", synthetic_skeleton().offsets, hands)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body whose shape moves its joints and whose first expression moves vertex 60."""
    arrays = model_arrays(_resting_hands())
    arrays["shapedirs"][:55, :, :300] = np.random.default_rng(2).normal(size=(55, 3, 300), scale=0.002)
    arrays["shapedirs"][60, 1, 300] = 0.5
    return write_body_model(tmp_path_factory.mktemp("body"), arrays)


@pytest.fixture(scope="module")
def body(folder: Path) -> BodyModel:
    """The same body through the package."""
    pytest.importorskip("smplx")
    return load_body(folder)


def test_joints_equal_ours_for_any_shape(folder: Path, body: BodyModel) -> None:
    motion = random_motion(6)
    skeleton = load_skeleton("smplx", str(folder), motion.betas)
    assert np.abs(skeleton.offsets - synthetic_skeleton().offsets).max() > 0.01
    np.testing.assert_array_equal(skeleton.hand_mean, _resting_hands().hand_mean)
    np.testing.assert_allclose(body.joints(motion), joint_positions(motion, skeleton), atol=1e-5)


def test_the_mean_body_is_that_of_the_file(folder: Path) -> None:
    np.testing.assert_allclose(load_skeleton("smplx", str(folder)).offsets, synthetic_skeleton().offsets, atol=1e-6)


def test_vertices_come_in_batches_and_follow_their_joints(body: BodyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = random_motion(7, spread=0.2)
    joints = body.joints(motion)
    monkeypatch.setattr("voxlab.motion.smplx_model.BATCH", 4)
    batches = list(body.vertex_batches(motion))
    assert [batch.shape for batch in batches] == [(4, NUM_VERTICES, 3), (3, NUM_VERTICES, 3)]
    np.testing.assert_allclose(np.concatenate(batches)[:, :55], joints, atol=1e-5)


def test_vertices_of_the_face_know_jaw_and_expressions_only(body: BodyModel) -> None:
    motion, other = random_motion(4, seed=0), random_motion(4, seed=1)
    found = body.face_vertices(motion)
    np.testing.assert_allclose(found[:, 60, 1], 0.5 * motion.expressions[:, 0], atol=1e-5)
    other.poses[:, 66:69] = motion.poses[:, 66:69]
    other.expressions[:] = motion.expressions
    other.betas[:] = motion.betas
    np.testing.assert_array_equal(body.face_vertices(other), found)


def _write_small(folder: Path, **changes: np.ndarray | None) -> Path:
    arrays = {**model_arrays(synthetic_skeleton(), num_vertices=60), **changes}
    return write_body_model(folder, {name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize("key", list(model_arrays(synthetic_skeleton(), num_vertices=60)))
def test_each_missing_key_is_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match=rf"SMPLX_NEUTRAL_2020.npz: no {key};"):
        load_body(_write_small(tmp_path, **{key: None}))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weights": np.zeros((60, 24))}, r"weights \(60, 24\), needed \(60, 55\)"),
        ({"shapedirs": np.zeros((60, 3))}, r"shapedirs \(60, 3\), needed \(60, 3, any\)"),
        ({"hands_meanl": np.zeros(12)}, r"hands_meanl \(12,\), needed \(45\)"),
        ({}, "60 vertices; the smplx package needs 9930"),
    ],
)
def test_wrong_shapes_are_named(tmp_path: Path, changes: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_body(_write_small(tmp_path, **changes))


def test_one_vertex_too_few_is_refused_where_the_package_would_fail(tmp_path: Path) -> None:
    smplx = pytest.importorskip("smplx")
    few = write_body_model(tmp_path, model_arrays(synthetic_skeleton(), num_vertices=NUM_VERTICES - 1))
    with pytest.raises(UserError, match="9929 vertices"):
        check_model(find_model(few))
    with pytest.raises((IndexError, RuntimeError), match="9929"):
        smplx.create(str(find_model(few)), model_type="smplx", use_pca=False)()


def test_too_few_coefficients_are_an_error_not_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlab.motion.smplx_model.LEAST_VERTICES", 60)
    model = _write_small(tmp_path, shapedirs=np.zeros((60, 3, 399), np.float32))
    with pytest.raises(UserError, match=r"shapedirs has 399 columns; 300 of the shape and 100 of the face"):
        load_body(model)


def test_another_tree_of_joints_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxlab.motion.smplx_model.LEAST_VERTICES", 60)
    model = _write_small(tmp_path, kintree_table=np.zeros((2, 55), np.uint32))
    with pytest.raises(UserError, match="another tree of joints"):
        load_body(model)


def test_model_is_found_by_file_and_by_either_folder(tmp_path: Path) -> None:
    wanted = _write_small(tmp_path) / "smplx" / "SMPLX_NEUTRAL_2020.npz"
    assert find_model(wanted) == find_model(tmp_path) == find_model(tmp_path / "smplx") == wanted
    with pytest.raises(UserError, match="neither a file nor a folder"):
        find_model(tmp_path / "elsewhere")
    other = wanted.rename(wanted.with_name("neutral.npz"))
    with pytest.raises(UserError, match="rename neutral"):
        find_model(other)
    broken = tmp_path / "SMPLX_NEUTRAL_2020.npz"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="is no npz file"):
        load_body(broken)


def test_a_missing_package_is_named_with_the_way_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(UserError, match=r"pip install smplx.*body.skeleton=synthetic"):
        load_body(folder)
