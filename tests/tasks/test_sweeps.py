"""Which runs are jobs of a sweep, whatever sweeper has started them, and what is said of its pages."""

from pathlib import Path

import pytest

from tests.laughter_stores import write_store
from tests.tasks import laughter_runs
from tests.tasks.launches import launch
from voxlab.tasks.sweeps import describe_pages, sweep_of

OPTUNA = [
    *("-m", "hydra/sweeper=optuna", "objective=test/ap_lift", "loss=choice(bce,focal)"),
    *("hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", "hydra.sweeper.sampler.seed=0"),
]


def test_a_job_is_told_by_its_launch(tmp_path: Path) -> None:
    launch(tmp_path / "sweep" / "0", "MULTIRUN")
    launch(tmp_path / "alone", "RUN")
    (tmp_path / "copied").mkdir()
    assert sweep_of(tmp_path / "sweep" / "0") == tmp_path / "sweep"
    assert sweep_of(tmp_path / "alone") is None
    assert sweep_of(tmp_path / "copied") is None


def test_a_job_that_goes_on_alone_is_still_of_its_sweep(tmp_path: Path) -> None:
    launch(tmp_path / "0", "RUN")
    (tmp_path / "sweep.csv").touch()
    assert sweep_of(tmp_path / "0") == tmp_path


def test_pages_are_told_apart(tmp_path: Path) -> None:
    assert describe_pages(tmp_path) == ""
    (tmp_path / "report.html").touch()
    assert describe_pages(tmp_path) == f"{tmp_path}/report.html (settings, all figures, curves)"
    (tmp_path / "comparison.html").touch()
    assert describe_pages(tmp_path).endswith(f", {tmp_path}/comparison.html (this task's own comparison)")


@pytest.mark.slow
def test_a_search_with_optuna_has_the_comparison_of_its_task(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", splits={"train": 6, "validation": 4, "test": 4}, frames=600)
    done = laughter_runs.main(tmp_path, f"store={store}", *OPTUNA, "hydra.sweep.dir=search")
    assert done.returncode == 0, done.stderr
    search = tmp_path / "search"
    assert not (search / "multirun.yaml").exists()
    assert ">2 runs of " in (search / "comparison.html").read_text(encoding="utf-8").replace("<wbr>", "")
    last = [line for line in done.stderr.splitlines() if "the sweep so far: " in line][-1]
    assert last.endswith(f"the sweep so far: {describe_pages(search)}")

    again = laughter_runs.main(tmp_path, f"store={store}", "hydra.run.dir=alone")
    assert again.returncode == 0, again.stderr
    assert not (tmp_path / "comparison.html").exists()
