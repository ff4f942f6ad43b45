"""Which features task=laughter reads when none are chosen: those that are there, those of its checkpoint, or a hint."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.laughter_stores import write_store
from tests.tasks.laughter_runs import run
from voxlab.data.feature_store import INDEX, has_finished, open_store
from voxlab.data.podcastfillers import PodcastFillers
from voxlab.data.sample import podcastfillers
from voxlab.errors import UserError
from voxlab.features.logmel import LogMelFeatures
from voxlab.parallel import Ranks
from voxlab.tasks.laughter.describe import describe_facts
from voxlab.tasks.laughter.stores import needs_sample

SIZES: dict[str, Any] = {"splits": {"train": 4, "validation": 2, "test": 2}, "frames": 900, "events": 3}
QUICK: dict[str, Any] = {"trainer": {"max_epochs": 1}}
SAMPLE = PodcastFillers(source="sample")


@pytest.fixture
def stores(tmp_path: Path) -> str:
    """What the configuration says where no features are chosen; one store fits."""
    write_store(tmp_path / "extracted" / "podcastfillers-first", dim=16, **SIZES)
    write_store(tmp_path / "extracted" / "podcastfillers_legacy-other", dim=16, **SIZES)
    return str(tmp_path / "extracted" / "podcastfillers-*")


def test_the_configuration_names_the_store_by_corpus_and_features(composed) -> None:
    task = composed("task=laughter").task
    assert (task.store, task.features, task.extraction) == ("extracted/podcastfillers-*", None, "data=podcastfillers")
    task = composed("task=laughter", "features=logmel", "data.source=sample").task
    assert task.store == "extracted/podcastfillers-logmel"
    assert task.extraction == "data=podcastfillers data.source=sample features=logmel"
    task = composed("experiment=laughter").task
    assert (task.store, task.features, task.corpus.source) == ("extracted/podcastfillers-*", None, "sample")
    assert composed("task=laughter", "features=none").task.store == "extracted/podcastfillers-*"
    assert composed("task=extract", "features=none", "codec=mimi").task.out == "extracted/audiofolder-mimi"


def test_the_one_store_is_taken_and_named(stores: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics = run(stores, tmp_path / "run", **QUICK)
    first = open_store(tmp_path / "extracted" / "podcastfillers-first").folder
    assert metrics["store"] == str(first)
    assert f"store: {first}" in caplog.text
    assert str(first) in (tmp_path / "run" / "report.html").read_text().replace("<wbr>", "")


def test_several_stores_are_a_question_unless_the_run_or_the_model_knows_its_own(stores: str, tmp_path: Path) -> None:
    run(stores, tmp_path / "run", **QUICK)
    first = open_store(tmp_path / "extracted" / "podcastfillers-first").folder
    second = open_store(write_store(tmp_path / "extracted" / "podcastfillers-second", dim=20, seed=1, **SIZES)).folder
    with pytest.raises(UserError) as error:
        run(stores, tmp_path / "new", **QUICK)
    said = str(error.value)
    assert f"2 stores in {stores} fit; choose one with features=NAME or store=DIR:\n  {first}\n  {second}" in said
    assert run(stores, tmp_path / "run", trainer={"max_epochs": 2})["store"] == str(first)
    tested = run(stores, tmp_path / "test", stage="test", ckpt=str(tmp_path / "run"), dry_run=True)
    assert tested["store"] == str(first)
    chosen = run(stores, tmp_path / "chosen", features=LogMelFeatures(num_bins=10), dry_run=True)
    assert chosen["store"] == str(second)


def test_without_a_store_the_command_that_makes_one_is_told(tmp_path: Path) -> None:
    given: dict[str, Any] = {"corpus": PodcastFillers(root="DIR"), "extraction": "data=podcastfillers data.root=DIR"}
    with pytest.raises(UserError) as error:
        run("extracted/podcastfillers-*", tmp_path / "run", **given)
    assert str(error.value).splitlines() == [
        "there are no features in extracted/podcastfillers-*: no folder in it has a manifest.json of task=extract. "
        "Make them with",
        "  python main.py task=extract data=podcastfillers data.root=DIR features=moshi "
        "out=extracted/podcastfillers-moshi",
        "features=moshi needs its weights, features=logmel none. Without any data: data.source=sample.",
    ]


def test_a_store_of_another_corpus_does_not_count(stores: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.speakers: mix -> diarized(.|\n)*task=extract data=podcastfillers f"):
        run(stores, tmp_path / "run", corpus=PodcastFillers(speakers="diarized"))


def test_features_of_the_sample_do_not_replace_data_that_are_not_there(tmp_path: Path) -> None:
    pattern = str(tmp_path / "extracted" / "podcastfillers-*")
    write_store(tmp_path / "extracted" / "podcastfillers-mine", dim=16, corpus=SAMPLE, **SIZES)
    with pytest.raises(UserError) as error:
        run(pattern, tmp_path / "run", corpus=PodcastFillers(root="nowhere"), dry_run=True)
    first, *others = str(error.value).splitlines()
    assert first.startswith("data.root=nowhere does not exist; give data.root=DIR, or data.source=sample")
    assert "    data.sample: True -> False" in others
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"^\S+ holds no features with these settings"):
        run(pattern, tmp_path / "run", corpus=PodcastFillers(root=str(tmp_path / "there")), dry_run=True)


def test_facts_take_a_line_each_for_store_splits_and_training() -> None:
    facts = {"store": "S", "features": "logmel", "train_hours": 0.27781234, "train_events": 0, "test_events": 3}
    facts |= {"model": "linear", "train_prior_used": 0.05, "initial_bias": 0.0}
    assert describe_facts(facts).splitlines() == [
        "  store: S, logmel",
        "  train: hours 0.277812, prior used 0.05",
        "  test: events 3",
        "  run: model linear, initial bias 0",
    ]


# ---- the sample ------------------------------------------------------------------------------------------------------


def test_the_sample_is_extracted_only_where_nothing_was_chosen_and_nothing_is_there(
    stores: str, tmp_path: Path
) -> None:
    assert needs_sample(stores, None, SAMPLE, Ranks())  # there are features, but not of the sample
    assert not needs_sample(stores, LogMelFeatures(), SAMPLE, Ranks())
    assert not needs_sample(str(tmp_path / "mine"), None, SAMPLE, Ranks())
    assert not needs_sample(stores, None, PodcastFillers(), Ranks())
    assert not needs_sample(stores, None, None, Ranks())
    store = open_store(write_store(tmp_path / "extracted" / "podcastfillers-mine", dim=16, corpus=SAMPLE, **SIZES))
    assert not needs_sample(stores, None, SAMPLE, Ranks())
    index = json.loads((store.folder / INDEX).read_text())
    index["missing"] = [{"id": index["episodes"][0]["key"], "reason": "not extracted yet"}]
    (store.folder / INDEX).write_text(json.dumps(index))
    assert needs_sample(stores, None, SAMPLE, Ranks())  # interrupted: the same command goes on
    (store.folder / INDEX).unlink()
    assert not has_finished(store.folder, {})


def test_a_plan_says_that_the_sample_is_extracted_first_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(podcastfillers, "_SHOWS", podcastfillers._SHOWS[:1])
    corpus = PodcastFillers(source="sample", root=str(tmp_path / "corpus"), splits=("train",))
    corpus.prepare()
    pattern = str(tmp_path / "extracted" / "podcastfillers-*")
    plan = run(pattern, tmp_path / "run", corpus=corpus, dry_run=True)
    out = str(tmp_path / "extracted" / "podcastfillers-logmel")
    assert (plan["store"], plan["features"], plan["recordings"], plan["to_do"]) == (out, "logmel", 1, 1)
    assert plan["time"].startswith("about ")
    assert f"the run begins with its log-mels, in {out}" in caplog.text
    assert "the training is not in this plan" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus-sample", "run"]
    assert not list((tmp_path / "run").iterdir())
