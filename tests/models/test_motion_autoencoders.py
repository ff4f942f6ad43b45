"""Networks whose features FGDs compare: EMAGE's encoder from a file of its form, and our own autoencoder."""

import math

import numpy as np
import pytest
import torch

from voxlab.errors import UserError
from voxlab.models.gesture.motion_autoencoder import MotionAutoencoder
from voxlab.models.gesture.skeleton_encoder import SkeletonLayer, load_skeleton_encoder

_SIZES = ((330, 330, 210), (210, 210, 120), (120, 240, None), (240, 240, None))  # in, out, after pooling


def published_state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random tensors under the names and in the shapes of the published file."""
    generator = torch.Generator().manual_seed(seed)
    state = {"module.fc_mu.weight": torch.zeros(240, 240), "module.decoder.main.0.bias": torch.zeros(3)}
    for number, (size, wide, pooled) in enumerate(_SIZES):
        prefix = f"module.encoder.layers.{number}.0."
        for name, kernel in {"residual.0": 4, "shortcut": 1}.items():
            weight = torch.randn(wide, size, kernel, generator=generator) / math.sqrt(size * kernel)
            mask = (torch.rand(wide, size, 1, generator=generator) < 0.3).float().expand(-1, -1, kernel).contiguous()
            state |= {f"{prefix}{name}.weight": weight, f"{prefix}{name}.mask": mask}
            state[f"{prefix}{name}.bias"] = torch.randn(wide, generator=generator)
        state[f"{prefix}residual.1.weight"] = torch.randn(wide, generator=generator)
        state[f"{prefix}residual.1.bias"] = torch.randn(wide, generator=generator)
        if pooled:
            state[f"{prefix}common.0.weight"] = torch.rand(pooled, wide, generator=generator) / wide
    return state


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "AESKConv_240_100.bin"
    torch.save({"model_state": published_state()}, path)
    return path


def test_emages_encoder_has_240_numbers_for_16_frames(published):
    encoder = load_skeleton_encoder(published)
    features = encoder.encode(torch.randn(2, 64, 330))
    assert (features.shape, encoder.dim) == ((2, 4, 240), 240)
    assert not any(True for _ in encoder.parameters())


def test_one_layer_is_the_sum_written_out():
    generator = torch.Generator().manual_seed(1)
    weights = {
        "residual.0.weight": torch.randn(20, 3, 4, generator=generator),
        "residual.0.mask": (torch.rand(20, 3, 4, generator=generator) < 0.5).float(),
        "residual.0.bias": torch.randn(20, generator=generator),
        "residual.1.weight": torch.randn(20, generator=generator),
        "residual.1.bias": torch.randn(20, generator=generator),
        "shortcut.weight": torch.randn(20, 3, 1, generator=generator),
        "shortcut.mask": (torch.rand(20, 3, 1, generator=generator) < 0.5).float(),
        "shortcut.bias": torch.randn(20, generator=generator),
        "common.0.weight": torch.rand(5, 20, generator=generator),
    }
    values = torch.randn(1, 3, 8, generator=generator)
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}
    x = np.pad(values[0].double().numpy(), ((0, 0), (1, 1)))
    joined = np.zeros((20, 4))
    for t in range(4):
        joined[:, t] = (w["residual.0.weight"] * w["residual.0.mask"] * x[None, :, 2 * t : 2 * t + 4]).sum((1, 2))
    joined += w["residual.0.bias"][:, None]
    for group in joined.reshape(10, -1):  # two channels each
        group[:] = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
    joined = joined * w["residual.1.weight"][:, None] + w["residual.1.bias"][:, None]
    for t in range(4):
        joined[:, t] += ((w["shortcut.weight"] * w["shortcut.mask"])[..., 0] @ x[:, 2 * t + 1]) + w["shortcut.bias"]
    expected = np.tanh(w["common.0.weight"] @ joined)
    np.testing.assert_allclose(SkeletonLayer(weights)(values)[0].numpy(), expected, atol=1e-5)


def test_a_file_of_something_else_is_refused(tmp_path):
    other = tmp_path / "other.bin"
    torch.save({"net": {}}, other)
    for path, told in ((other, "not EMAGE's motion autoencoder"), (tmp_path / "absent.bin", "No such file")):
        with pytest.raises(UserError, match=rf"metrics\.fgd_emage=.*{told}.*Needed: AESKConv_240_100"):
            load_skeleton_encoder(path)
    state = published_state()
    del state["module.encoder.layers.1.0.common.0.weight"]  # 210 channels then meet weights for 120
    torch.save({"model_state": state}, other)
    with pytest.raises(UserError, match="AESKConv_240_100"):
        load_skeleton_encoder(other)


def test_our_autoencoder_keeps_the_frames_and_has_16_for_a_vector():
    torch.manual_seed(0)
    mean = torch.randn(330)
    network = MotionAutoencoder(mean, 2.0, width=8, dim=5)
    rotations = torch.randn(3, 48, 330)
    reconstruction, target = network(rotations)
    assert reconstruction.shape == target.shape == (3, 48, 330)
    torch.testing.assert_close(target, (rotations - mean) / 2)
    assert network.encode(rotations).shape == (3, 3, 5)
