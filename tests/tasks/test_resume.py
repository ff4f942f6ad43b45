"""Networks of task=train_tokenizer besides the mel codec, killed at a random step and resumed: the run nothing cut.

The mel codec is in test_train_tokenizer_launch, laughter in test_laughter_launch, a2g in test_a2g_launch.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.main_process import kill_when, random_step, run, start
from tests.tasks.tokenizer_runs import states
from voxlab.tasks.history import read_history

pytestmark = pytest.mark.slow
SPEECH = [
    *["task=train_tokenizer", "data.source=sample", "data.subsets=null", "fit.batch_size=2", "fit.num_workers=0"],
    *["data.split_fractions={train:0.75,validation:0.25}", "fit.segment_seconds=0.2", "fit.audio_every=0"],
    *["fit.save_every=2", "trainer.max_steps=10", "trainer.val_check_interval=5", "fit.warmup_steps=2"],
    *["fit.val_segments=2", "trainer.log_every_n_steps=1", "device=cpu", "logger=none"],
]
# The adversary sets in before the first checkpoint: its weights and its optimiser go on as well.
WAVE = [
    *["codec=rvq_wave_tiny", "codec.architecture.width=4", "codec.architecture.latent=16"],
    *["codec.architecture.quantizer.codebook_size=8", "loss.wave.adv_start_step=2"],
]
VOCODER = [
    *["codec=vocoder", "codec.architecture.dim=8", "codec.architecture.hidden=8", "codec.architecture.layers=1"],
    *["loss.vocoder.discriminators=msstft", "loss.vocoder.adv_start_step=2"],
]
MOTION = [
    *["task=train_tokenizer", "data=beat2", "data.source=sample", "codec=motion_rvq_tiny", "part=upper"],
    *["codec.architecture.dropout=0.2", "fit.batch_size=8", "fit.save_every=20", "fit.warmup_steps=10"],
    *["trainer.max_steps=200", "trainer.val_check_interval=50", "trainer.log_every_n_steps=1"],
    *["device=cpu", "logger=none"],
]
CASES = {"wave": ([*SPEECH, *WAVE], 3, 8), "vocoder": ([*SPEECH, *VOCODER], 3, 8), "motion": (MOTION, 22, 150)}


def rows(folder: Path) -> list[dict[str, Any]]:
    found = read_history(folder / "history.jsonl")
    return [{name: value for name, value in row.items() if "_per_s" not in name} for row in found]


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_to_the_same_bytes(case: str, tmp_path: Path) -> None:
    words, low, high = CASES[case]
    whole = run([*words, "hydra.run.dir=whole"], tmp_path)
    assert whole.returncode == 0, whole.stderr
    step, history = random_step(low, high), tmp_path / "cut" / "history.jsonl"
    process = start([*words, "hydra.run.dir=cut"], tmp_path)
    kill_when(process, lambda: any(row["step"] >= step for row in read_history(history)))
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").is_file()
    resumed = run([*words, "resume=cut"], tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from" in resumed.stderr
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    expected, found = states(tmp_path / "whole"), states(tmp_path / "cut")
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    exported = {path.name: path.read_bytes() for path in (tmp_path / "whole" / "codec").iterdir()}
    assert exported == {path.name: path.read_bytes() for path in (tmp_path / "cut" / "codec").iterdir()}
