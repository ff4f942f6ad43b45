"""Rotations as axis-angle, matrices, two rows of a matrix (6D) and quaternions; any leading axes, differentiable.

All conversions go by atan2 and sinc, so that they hold near angle 0 and near pi, in float32 and in float64.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Turn (..., 3) axis-angle in radians into (..., 3, 3) matrices. Source: Rodrigues' formula."""
    angle = axis_angle.norm(dim=-1)[..., None, None]
    cross = _cross_matrix(axis_angle)
    first = torch.sinc(angle / torch.pi)  # sin(a) / a
    second = 0.5 * torch.sinc(angle / (2 * torch.pi)) ** 2  # (1 - cos(a)) / a^2
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + first * cross + second * (cross @ cross)


def _cross_matrix(vector: Tensor) -> Tensor:
    """Return the (..., 3, 3) matrix that multiplies as the cross product with (..., 3) `vector` does."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Turn (..., 3, 3) matrices into (..., 3) axis-angle with angles in 0...pi radians."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Turn (..., 4) unit quaternions w, x, y, z with w >= 0 into (..., 3) axis-angle in radians."""
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    half = torch.atan2(imaginary.norm(dim=-1, keepdim=True), real)
    return imaginary * 2 / torch.sinc(half / torch.pi)  # divided by sin(half) / half, with 1 for it at 0


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Turn (..., 3, 3) matrices into (..., 4) unit quaternions w, x, y, z with w >= 0.

    Of the four ways to divide by a component, each item takes the one by its largest component.
    Source: Shepperd 1978, "Quaternion from rotation matrix".
    """
    rows = matrix.flatten(-2).unbind(-1)
    xx, xy, xz, yx, yy, yz, zx, zy, zz = rows
    squares = torch.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], dim=-1)
    products = torch.stack(
        [
            *(squares[..., 0], zy - yz, xz - zx, yx - xy),
            *(zy - yz, squares[..., 1], yx + xy, xz + zx),
            *(xz - zx, yx + xy, squares[..., 2], zy + yz),
            *(yx - xy, xz + zx, zy + yz, squares[..., 3]),
        ],
        dim=-1,
    ).unflatten(-1, (4, 4))
    largest = squares.argmax(dim=-1, keepdim=True)
    chosen = products.gather(-2, largest[..., None].expand(*largest.shape, 4)).squeeze(-2)
    quaternion = F.normalize(chosen, dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Turn (..., 4) quaternions w, x, y, z, of any length but 0, into (..., 3, 3) matrices."""
    unit = F.normalize(quaternion, dim=-1)
    real, cross = unit[..., :1, None], _cross_matrix(unit[..., 1:])
    identity = torch.eye(3, dtype=unit.dtype, device=unit.device)
    return identity + 2 * real * cross + 2 * (cross @ cross)


def matrix_to_6d(matrix: Tensor) -> Tensor:
    """Flatten the first two rows (not columns) of (..., 3, 3) matrices into (..., 6)."""
    return matrix[..., :2, :].flatten(-2)


def sixd_to_matrix(sixd: Tensor) -> Tensor:
    """Turn (..., 6) two rows, of any lengths and not parallel, into (..., 3, 3) matrices.

    Source: Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural Networks" (Gram-Schmidt).
    """
    first = F.normalize(sixd[..., :3], dim=-1)
    second = sixd[..., 3:] - (first * sixd[..., 3:]).sum(dim=-1, keepdim=True) * first
    second = F.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-2)


def axis_angle_to_6d(axis_angle: Tensor) -> Tensor:
    """Turn (..., 3) axis-angle in radians into (..., 6)."""
    return matrix_to_6d(axis_angle_to_matrix(axis_angle))


def sixd_to_axis_angle(sixd: Tensor) -> Tensor:
    """Turn (..., 6) into (..., 3) axis-angle with angles in 0...pi radians."""
    return matrix_to_axis_angle(sixd_to_matrix(sixd))


def slerp(start: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Turn from one rotation to another, the short way and at constant speed.

    Args:
        start: (..., 3, 3) matrices, the result at weight 0.
        end: (..., 3, 3) matrices, the result at weight 1.
        weight: 0...1, a number or (...) one for each rotation.

    Returns:
        (..., 3, 3) matrices.
    """
    step = matrix_to_axis_angle(start.mT @ end)
    weight = torch.as_tensor(weight, dtype=start.dtype, device=start.device)
    return start @ axis_angle_to_matrix(weight[..., None] * step)


def geodesic(first: Tensor, second: Tensor) -> Tensor:
    """Return the (...) angles, 0...pi radians, between (..., 3, 3) rotations.

    The sine comes from the skew part and the cosine from the trace of the difference; an arccosine alone would lose
    half of the digits near 0.
    """
    difference = first.mT @ second
    skew = difference - difference.mT
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1).norm(dim=-1)
    cosine = difference.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - 1
    return torch.atan2(sine, cosine)
