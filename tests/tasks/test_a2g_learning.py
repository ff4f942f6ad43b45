"""The whole chain of recipes/beat2_a2g on the sample corpus: what it learns beats what needs no learning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from voxlab.motion.files import read_motion

ROOT = Path(__file__).resolve().parents[2]
ERRORS = ("mse/", "l1/", "velocity_l1/", "geodesic_deg", "mpjpe_cm", "face_coef_mse", "face_coef_lvd")


@pytest.mark.training
def test_from_the_corpus_to_motion_of_a_recording(tmp_path: Path) -> None:
    words = [str(ROOT / "recipes" / "beat2_a2g" / "run.sh"), "sample", str(tmp_path), "logger=none"]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    results = json.loads((tmp_path / "a2g" / "metrics.json").read_text())["results"]
    model = results["this model"]["values"]
    names = [name for name in model if name.startswith(ERRORS)]
    assert len(names) >= 16
    for other in ("mean pose", "shuffled clips", "this model, audio of another clip"):
        assert [name for name in names if model[name] >= results[other]["values"][name]] == [], other
    assert {path.suffix for path in (tmp_path / "generated").iterdir()} == {".npz", ".bvh", ".csv", ".mp4"}
    assert read_motion(tmp_path / "generated" / "2_scott_0_1_1.npz").num_frames == 306  # 10.2 s of audio
    assert list((tmp_path / "a2g" / "videos").glob("*.mp4"))
