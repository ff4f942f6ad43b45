"""The commands of the README on the sample corpus: what foreshadows a laugh is learnt, labels at random are not."""

from pathlib import Path

import pytest

from voxlab import run
from voxlab.parallel import Ranks

pytestmark = pytest.mark.slow


def test_laughter_is_predicted_and_nothing_is_learnt_from_labels_at_random(composed, tmp_path: Path) -> None:
    corpus = [
        "data=podcastfillers",
        "data.source=sample",
        f"data.root={tmp_path / 'PodcastFillers'}",
        "features=logmel",
    ]

    def call(name: str, *settings: str) -> dict:
        (tmp_path / name).mkdir()
        return run.build(composed(*settings, *corpus).task)(ranks=Ranks(), run_dir=tmp_path / name)

    call("extracted", "task=extract", f"out={tmp_path / 'store'}")
    training = ["task=laughter", f"store={tmp_path / 'store'}", "loss=focal", "shift=5", "trainer.max_epochs=10"]
    training += ["optim.lr=0.003", "optim.warmup_steps=10", "eval.plots=none", "eval.bootstrap=0"]
    metrics = call("run", *training)
    assert metrics["test/ap"] >= 5 * metrics["test/prior"]
    assert metrics["test/ap"] >= 2 * metrics["baseline/loudness/ap"]
    assert metrics["test/macro/auroc"] > 0.7  # within episodes, where their rates of laughter don't help
    shuffled = call("shuffled", *training, "fit.shuffle_labels=true")
    assert shuffled["test/auroc"] == pytest.approx(0.5, abs=0.05)
