"""recipes/beat2_a2g/run.sh: which words reach which step; the steps themselves are stood in for."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STANDIN = """#!/usr/bin/env bash
echo "$@" >> "$(dirname "$0")/said"
"""


def steps(folder: Path, *words: str) -> dict[str, list[str]]:
    """Return the words of each step by its run folder."""
    data, python = folder / "data", folder / "python"
    data.mkdir()
    python.write_text(STANDIN)
    python.chmod(0o755)
    script = [str(ROOT / "recipes" / "beat2_a2g" / "run.sh"), str(data), str(folder / "out"), *words]
    given = {**os.environ, "PYTHON": str(python), "AUDIO": "my.wav"}
    subprocess.run(script, check=True, env=given, capture_output=True, timeout=60)
    lines = [line.split() for line in (folder / "said").read_text().splitlines()]
    said = [line[line.index("main.py") + 1 :] for line in lines]
    place = f"hydra.run.dir={folder / 'out'}/"
    return {next(w for w in line if w.startswith(place)).removeprefix(place): line for line in said}


def test_words_reach_the_steps_that_they_concern(tmp_path: Path) -> None:
    concerns_both = ["sampling.steps=3", "generate.speaker=2", "render=none", "body.skeleton=smplx", "device=cpu"]
    words = [*concerns_both, "features.layer=6", "acoustic.num_bins=40", "fit.batch_size=8", "data.fps=15"]
    found = steps(tmp_path, "features@acoustic=logmel", *words)
    train, make = found["a2g"], found["generate"]
    for word in [
        *concerns_both,
        "features=wavlm",
        "features@acoustic=logmel",
        "features.layer=6",
        "acoustic.num_bins=40",
    ]:
        assert word in train, word
        assert word in make, word
    assert "fit.batch_size=8" in train
    assert "fit.batch_size=8" not in make
    assert f"stores.acoustic={tmp_path / 'out'}/logmel" in train
    assert "features.layer=6" in found["extract/wavlm"]
    assert "features.num_bins=40" in found["extract/logmel"]
    assert "features.num_bins=40" not in found["extract/wavlm"]
    assert all("data.fps=15" in line for name, line in found.items() if name != "generate")
    assert [name for name in found if name.startswith("tokenizers/")] == [
        f"tokenizers/{part}" for part in ("upper", "hands", "lower_trans", "face")
    ]


@pytest.mark.parametrize("features", ["wavlm", "mfcc"])
def test_without_a_second_kind_of_features_none_is_extracted(tmp_path: Path, features: str) -> None:
    found = steps(tmp_path, f"features={features}", "features@acoustic=none")
    assert [name for name in found if name.startswith("extract/")] == [f"extract/{features}"]
    assert "features@acoustic=none" in found["generate"]
    assert found["a2g"].count(f"features={features}") == 1
