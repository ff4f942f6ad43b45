"""task=extract a second time on a finished folder: seconds to find that nothing is to be done, beside the first run.

Tiny random EnCodec and recordings of a tenth of a second: what is measured is the book-keeping.

.venv/bin/python benchmarks/extract_rerun.py --files 10000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

REPOSITORY = Path(__file__).resolve().parents[1]
PER_FOLDER = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_recordings(root / "audio", options.files)
        write_model(root / "encodec")
        start = time.monotonic()
        subprocess.run(
            [sys.executable, str(REPOSITORY / "main.py"), *settings(root)], cwd=root, check=True, capture_output=True
        )
        first = time.monotonic() - start
        second = rerun(root)
    print(f"{options.files} files: the first run took {first:.1f} s; again, after imports, {second:.2f} s.")


def rerun(root: Path) -> float:
    """Run the task once more in this process; returns the seconds that it takes after imports."""
    import matplotlib.figure  # noqa: F401
    import torch  # noqa: F401

    import voxlab.tasks.extract.task  # noqa: F401
    from voxlab import config, run
    from voxlab.parallel import Ranks

    config.register()
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        composed = compose("config", settings(root), return_hydra_config=True)
    HydraConfig.instance().set_config(composed)
    task = run.build(composed.task)
    start = time.monotonic()
    task(ranks=Ranks(), run_dir=root / "run")
    return time.monotonic() - start


def write_recordings(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(number):
        path = folder / f"{index // PER_FOLDER:03d}" / f"tone_pitch_{index % PER_FOLDER}_{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 2400), 24000, subtype="PCM_16")


def write_model(folder: Path) -> None:
    import torch
    from transformers import EncodecConfig, EncodecModel

    from voxlab.codecs.encodec import fill_codebooks

    torch.manual_seed(0)
    fill_codebooks(EncodecModel(EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8)), 0).save_pretrained(folder)


def settings(root: Path) -> list[str]:
    paths = [f"data.root={root / 'audio'}", f"out={root / 'out'}", f"codec.weights={root / 'encodec'}"]
    return ["task=extract", *paths, "producers=[lin]"]


if __name__ == "__main__":
    main()
