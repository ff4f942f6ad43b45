"""Conversions of rotations equal scipy's, near 0 and near pi too, and have finite gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from tests.motions import real_motion
from voxlab.motion import rotations

ANGLES = st.one_of(
    st.sampled_from([0.0, 1e-12, 1e-7, 1e-4, np.pi - 1e-9, np.pi - 1e-5, np.pi]), st.floats(0, np.pi, allow_nan=False)
)
AXES = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 0.1)


def _vector(axis: tuple[float, ...], angle: float) -> np.ndarray:
    return angle * np.asarray(axis) / np.linalg.norm(axis)


def _degrees(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.rad2deg(rotations.geodesic(first, second)).max())


@given(axis=AXES, angle=ANGLES)
def test_matrices_and_quaternions_equal_scipy(axis: tuple[float, ...], angle: float) -> None:
    vector = _vector(axis, angle)
    wanted = Rotation.from_rotvec(vector)
    matrix = rotations.axis_angle_to_matrix(torch.tensor(vector))
    np.testing.assert_allclose(matrix, wanted.as_matrix(), atol=1e-14)
    quaternion = rotations.matrix_to_quaternion(matrix)
    real_first = wanted.as_quat(canonical=True)[[3, 0, 1, 2]]
    assert abs(abs(float(quaternion @ torch.tensor(real_first))) - 1) < 1e-14
    assert quaternion[0] >= 0
    np.testing.assert_allclose(rotations.quaternion_to_matrix(3 * quaternion), matrix, atol=1e-14)


@given(axis=AXES, angle=ANGLES)
def test_six_numbers_come_back_as_the_same_rotation(axis: tuple[float, ...], angle: float) -> None:
    vector = torch.tensor(_vector(axis, angle))
    matrix = rotations.axis_angle_to_matrix(vector)
    back = rotations.sixd_to_axis_angle(rotations.axis_angle_to_6d(vector))
    assert _degrees(rotations.axis_angle_to_matrix(back), matrix) < 1e-6
    assert back.norm() <= np.pi + 1e-12
    if angle < np.pi - 1e-4:
        np.testing.assert_allclose(back, vector, atol=1e-11)


def test_six_numbers_are_the_first_two_rows() -> None:
    matrix = torch.arange(9.0).reshape(3, 3)
    assert rotations.matrix_to_6d(matrix).tolist() == [0, 1, 2, 3, 4, 5]


def test_gram_schmidt_keeps_the_first_row_and_makes_a_rotation() -> None:
    sixd = torch.randn(4, 7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = rotations.sixd_to_matrix(sixd)
    np.testing.assert_allclose(matrix @ matrix.mT, torch.eye(3).expand(4, 7, 3, 3), atol=1e-12)
    np.testing.assert_allclose(torch.linalg.det(matrix), np.ones((4, 7)), atol=1e-12)
    np.testing.assert_allclose(matrix[..., 0, :], sixd[..., :3] / sixd[..., :3].norm(dim=-1, keepdim=True))


@given(axis=AXES, angle=ANGLES)
def test_geodesic_is_the_angle_of_the_difference(axis: tuple[float, ...], angle: float) -> None:
    start = torch.tensor(Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix())
    end = start @ torch.tensor(Rotation.from_rotvec(_vector(axis, angle)).as_matrix())
    assert abs(float(rotations.geodesic(start, end)) - angle) < 1e-7  # pi - angle shrinks as the sine does
    assert abs(float(rotations.geodesic(end, start)) - angle) < 1e-7


def test_slerp_equals_scipy_and_meets_both_ends() -> None:
    ends = Rotation.from_rotvec([[0.2, -0.4, 1.0], [-1.3, 0.5, 0.9]])
    start, end = torch.tensor(ends.as_matrix())
    weights = torch.linspace(0, 1, 9, dtype=torch.float64)
    found = rotations.slerp(start.expand(9, 3, 3), end.expand(9, 3, 3), weights)
    np.testing.assert_allclose(found, Slerp([0, 1], ends)(weights.numpy()).as_matrix(), atol=1e-13)


@pytest.mark.parametrize("vector", [[0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.4, -1.2, 0.3], [3.0, 0.5, 0.2]])
def test_gradients_are_true_at_rest_too(vector: list[float]) -> None:
    leaf = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rotations.axis_angle_to_matrix(x), leaf, atol=1e-5)
    assert torch.autograd.gradcheck(
        lambda x: rotations.sixd_to_axis_angle(rotations.axis_angle_to_6d(x)), leaf, atol=1e-5
    )


def test_gradient_of_the_geodesic_is_finite_for_equal_rotations() -> None:
    matrix = torch.eye(3).requires_grad_()
    rotations.geodesic(matrix, torch.eye(3)).backward()
    assert matrix.grad is not None
    assert torch.isfinite(matrix.grad).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float32, 0.05)])
def test_real_poses_survive_the_round_trip(dtype: torch.dtype, tolerance: float) -> None:
    poses = torch.from_numpy(real_motion().poses).unflatten(-1, (55, 3)).to(dtype)
    back = rotations.sixd_to_axis_angle(rotations.axis_angle_to_6d(poses))
    matrices = [rotations.axis_angle_to_matrix(values.double()) for values in (poses, back)]
    assert _degrees(matrices[0], matrices[1]) < tolerance
