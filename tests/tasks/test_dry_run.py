"""dry_run=true: what each task says about time and disk, what that rests on, and that it writes nothing."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from tests import main_process
from tests.laughter_stores import write_store
from tests.tasks import a2g_runs, laughter_runs, motion_runs, tokenizer_runs
from tests.tasks.feature_fakes import FakeCorpus, FakeFeatures
from voxlab import sample_copy, schemas
from voxlab.data.motion_store import find_motion_store, open_motion_store
from voxlab.errors import AuditFailed, TooManyBadItems, UserError
from voxlab.parallel import Ranks
from voxlab.tasks import estimate, watch
from voxlab.tasks.a2g import task as a2g
from voxlab.tasks.extract.features import extract_features
from voxlab.tasks.laughter import task as laughter
from voxlab.tasks.train_tokenizer import expect as expected
from voxlab.tasks.train_tokenizer import plan as planning
from voxlab.tasks.train_tokenizer import task as train_tokenizer
from voxlab.tasks.train_tokenizer.settings import Loop

SECONDS = r"about [\d.]+ (s|minutes)"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure no longer than it takes to have something."""
    monkeypatch.setattr(watch, "_SHORTEST", 0.0)
    monkeypatch.setattr(estimate, "_ENOUGH", 0.0)


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


# ---- the helper ----------------------------------------------------------------------------------------------------


def test_groups_grow_until_that_took_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    def work(items: Any) -> float:
        groups.append(len(items))
        return 2.0 * len(items)

    monkeypatch.setattr(estimate, "_ENOUGH", 60.0)
    pace, count = estimate.measure(work, range(11))
    assert groups == [1, 2, 4, 8, 11]  # the first is a warm-up
    assert count == 11
    assert 0 < pace < 1
    monkeypatch.setattr(estimate, "_ENOUGH", 0.0)
    assert estimate.measure(work, range(11))[1] == 2
    assert estimate.measure(work, range(1))[1] == 1


def test_what_cannot_be_worked_on_is_no_estimate() -> None:
    def broken() -> str:
        return str(estimate.measure(lambda items: 0.0, [1, 2]))

    def missing() -> str:
        raise UserError("no weights\nfetch them")

    assert estimate.attempt(broken) == "not measured: the first 2 could not be worked on"
    assert estimate.attempt(missing) == "not measured: no weights"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (95.0, "95 s"),
        (300.0, "5.0 minutes"),
        (9000.0, "2.5 hours"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_told_in_their_unit(seconds: float, text: str) -> None:
    assert estimate.spell_duration(seconds) == text


def test_steps_with_and_without_adversary_are_timed_apart() -> None:
    loop, weights = Loop(max_steps=100), {"mel": 15.0, "adv_start_step": 30}
    phases = [(kind, chosen["adv_start_step"], steps) for kind, chosen, steps in expected._phases(weights, loop)]
    assert phases == [("", 100, 30), (" with adversary", 0, 70)]
    assert [steps for *_, steps in expected._phases({"adv_start_step": 500}, loop)] == [100]
    assert [steps for *_, steps in expected._phases({"adv_start_step": 0}, loop)] == [100]
    assert [steps for *_, steps in expected._phases({"l1": 1.0}, loop)] == [100]


def test_the_stages_of_the_command_line_are_those_of_the_tasks() -> None:
    tasks = {"a2g": a2g, "laughter": laughter, "train_tokenizer": train_tokenizer}
    assert {name: schemas.STAGES[name] for name in tasks} == {name: task.STAGES for name, task in tasks.items()}


def test_amounts_have_the_digits_that_say_something() -> None:
    amounts = [0.00672, 3.14159, 99.994, 1333.333, 197530.86]
    assert [planning.rounded(amount) for amount in amounts] == [0.007, 3.14, 99.99, 1333, 197531]
    told = planning.describe({"max_steps": 100000, "rate": 9.5, "passes_over_the_data": 197531, "speakers": 251})
    assert told.splitlines() == [
        *("  max steps: 100,000", "  rate: 9.5"),
        *("  passes over the data: 197,531", "  speakers: 251"),
    ]


def test_a_run_that_repeats_itself_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    planning.warn_of_repetition(1000, 3000, "codec=small")
    assert caplog.messages == []
    planning.warn_of_repetition(197_531, 100_000, "codec=small")
    assert caplog.messages == [
        "100,000 steps pass over these few data 197,531 times, far more often than helps. Set trainer.max_steps=506 or "
        "less (1,000 passes), or take settings for little data: codec=small."
    ]


def test_the_plan_from_a_copy_names_the_place_of_the_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, other = logging.getLogger("voxlab.data.any"), logging.getLogger("voxlab.any")

    def write(root: str) -> None:
        sample = sample_copy.sample_folder(root)
        sample.mkdir()
        (sample / "a.bin").write_bytes(bytes(2000))
        data.info("sample corpus: %s", sample)
        data.warning("odd: 100%")

    with caplog.at_level(logging.INFO), sample_copy.copied(str(tmp_path / "x"), write, tells=True) as root:
        data.info("reading %s", f"{root}-sample/a.bin")
        other.info("100%")
    assert caplog.messages == [
        "odd: 100%",
        f"sample corpus: would be written to {tmp_path / 'x-sample'} (1 file, 0.002 MB); planned from a temporary copy",
        f"reading {tmp_path / 'x-sample/a.bin'}",
        "100%",
    ]
    assert list(tmp_path.iterdir()) == []


def test_log_calls_that_are_wrong_are_told_as_ever(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other, handler = logging.getLogger("voxlab.any"), logging.StreamHandler()
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with caplog.at_level(logging.INFO), sample_copy.copied(str(tmp_path / "x"), write_nothing, tells=False):
        other.warning("%d files", "many")
        other.warning("and on")
    told = capsys.readouterr().err
    assert "--- Logging error ---" in told
    assert "Message: '%d files'\nArguments: ('many',)" in told
    assert told.endswith("and on\n")


def write_nothing(root: str) -> None:
    sample_copy.sample_folder(root).mkdir()


@pytest.mark.parametrize("kind", [UserError, TooManyBadItems, AuditFailed])
def test_errors_of_the_plan_name_the_place_of_the_sample(tmp_path: Path, kind: type[UserError]) -> None:
    with pytest.raises(kind) as caught, sample_copy.copied(str(tmp_path / "x"), write_nothing, tells=False) as root:
        raise kind(f"no recording under {root}-sample")
    assert type(caught.value) is kind
    assert str(caught.value) == f"no recording under {tmp_path / 'x-sample'}"
    assert caught.value.exit_code == kind.exit_code


def test_a_dry_run_that_finds_nothing_in_the_sample_names_its_place(tmp_path: Path) -> None:
    words = ["task=extract", "data=audiofolder", "data.source=sample", "data.root=smp", "data.pattern=none/*"]
    done = main_process.run([*words, "codec.weights=random", "dry_run=true"], tmp_path)
    assert done.returncode == 2, done.stderr
    assert "no recording under ./smp-sample (it has" in done.stderr
    assert "voxlab-" not in done.stderr


# ---- the tasks -----------------------------------------------------------------------------------------------------


def test_laughter_trains_a_few_steps_in_memory(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", splits={"train": 4, "validation": 2, "test": 2}, dim=16, frames=600)
    before = files(tmp_path)
    plan = laughter_runs.run(store, tmp_path / "run", dry_run=True)
    assert re.match(rf"{SECONDS} \(\d+ steps measured, .* steps/s; 2 views scored, ", plan["time"])
    assert re.fullmatch(r"about [\d.]+ kB for checkpoints", plan["disk"])
    assert files(tmp_path) - before == {tmp_path / "run"}  # made by the test, and empty
    lbfgs = laughter_runs.run(store, tmp_path / "run", fit={"solver": "lbfgs"}, dry_run=True)
    assert lbfgs["time"].startswith("not measured: fit.solver=lbfgs")


def test_a_tokenizer_trains_a_few_steps_in_memory(tmp_path: Path) -> None:
    corpus = tokenizer_runs.sample(tmp_path)
    corpus.prepare()
    before = files(tmp_path)
    plan = tokenizer_runs.train(tmp_path / "run", corpus, dry_run=True)
    assert re.match(rf"{SECONDS} \(\d steps measured, .*; \d batches validated, ", plan["time"])
    assert re.fullmatch(r"about [\d.]+ [kM]B for checkpoints", plan["disk"])
    assert files(tmp_path) - before == {tmp_path / "run"}


def test_a_motion_tokenizer_needs_its_store_for_that(tmp_path: Path) -> None:
    corpus = motion_runs.sample(tmp_path)
    corpus.prepare()
    before = files(tmp_path)
    plan = motion_runs.run(tmp_path / "run", corpus, dry_run=True)
    assert plan["time"].startswith("not measured: the motion store is not built yet")
    assert find_motion_store(corpus) is None
    assert files(tmp_path) - before == {tmp_path / "run"}
    open_motion_store(corpus)
    before = files(tmp_path)
    plan = motion_runs.run(tmp_path / "run", corpus, dry_run=True)
    assert re.match(rf"{SECONDS} \(\d steps measured, .*; \d batches validated, ", plan["time"])
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a2g_needs_codes_for_that(tmp_path: Path) -> None:
    made = a2g_runs.make(tmp_path)
    before = files(tmp_path)
    plan = a2g_runs.run(made, tmp_path / "run", dry_run=True)
    assert plan["time"].startswith("not measured: motion store and codes are not made yet")
    assert files(tmp_path) - before == {tmp_path / "run"}
    a2g_runs.run(made, tmp_path / "run", stage="tokenize")
    a2g_runs.run(made, tmp_path / "whole", trainer={"max_steps": 1})
    before = files(tmp_path)
    plan = a2g_runs.run(made, tmp_path / "run", dry_run=True)
    assert re.match(rf"{SECONDS} \(\d steps measured, .*; \d+ windows validated, ", plan["time"])
    again = a2g_runs.run(made, tmp_path / "run", stage="tokenize", dry_run=True)
    assert re.match(rf"{SECONDS} \(\d+ clips measured, all taken for new", again["time"])
    assert files(tmp_path) == before


def test_features_of_the_first_recordings_are_extracted(tmp_path: Path) -> None:
    corpus = FakeCorpus(tmp_path / "in", {"a": 31.0, "b": 12.5, "t": 9.0})
    corpus.prepare()
    before = files(tmp_path)
    options: dict[str, Any] = {"verify": "size", "max_bad": 0.0, "ranks": Ranks(), "run_dir": tmp_path / "run"}
    features: Any = FakeFeatures()
    plan = extract_features(corpus, features, str(tmp_path / "out"), dry_run=True, **options)
    assert re.fullmatch(rf"{SECONDS} \(\d+ frames measured, [\d.e+]+ x real time\)", plan["time"])
    assert plan["disk"].startswith("about ")
    assert files(tmp_path) == before
