"""Random motions, and the real clip where there is one."""

import os
from pathlib import Path

import numpy as np
import pytest

from voxlab.motion.clip import NUM_BETAS, NUM_EXPRESSIONS, NUM_JOINTS, Motion

WHOLE_CLIP = 1906  # frames of the real clip; a shortened copy may be at hand


def random_motion(num_frames: int = 12, *, seed: int = 0, fps: int = 30, spread: float = 0.7) -> Motion:
    """Make a motion whose every number is random: angles of about `spread` rad, steps of centimetres."""
    generator = np.random.default_rng(seed)
    height = np.array([0.0, 1.2, 0.0])
    return Motion(
        poses=generator.normal(size=(num_frames, 3 * NUM_JOINTS), scale=spread / 3**0.5).astype(np.float32),
        trans=np.cumsum(generator.normal(size=(num_frames, 3), scale=0.01), axis=0) + height,
        expressions=generator.normal(size=(num_frames, NUM_EXPRESSIONS)).astype(np.float32),
        betas=generator.normal(size=NUM_BETAS).astype(np.float32),
        fps=fps,
    )


def real_folder() -> Path:
    """Return the folder of real BEAT2 samples, or skip the test."""
    folder = Path(os.environ.get("VOXLAB_REAL_DATA", "")) / "beat2"
    if "VOXLAB_REAL_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("VOXLAB_REAL_DATA names no folder with beat2/ in it")
    return folder


def real_motion() -> Motion:
    """Return the real clip, or skip the test; reads the file itself, so that no reader is trusted."""
    file = real_folder() / "BEAT2" / "beat_english_v2.0.0" / "smplxflame_30" / "2_scott_0_1_1.npz"
    with np.load(file, allow_pickle=False) as values:
        return Motion(values["poses"], values["trans"], values["expressions"].astype(np.float32), values["betas"], 30)
