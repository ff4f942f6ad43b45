"""What Weights & Biases (offline) and TensorBoard get from a run: names, configuration, figures, pictures, clips."""

import json
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import main_process
from voxlab.loggers import Launch, wandb_fields

STANDIN = [
    *["task=convert", "codec=none", "data.source=sample", "data.root=corpus"],
    *["task._target_=tests.standin.work", "logger=wandb", "logger.wandb.offline=true"],
]


def main(folder: Path, *words: str, world: int = 1, action: str = "") -> subprocess.CompletedProcess[str]:
    return main_process.run([*STANDIN, *words], folder, world=world, STANDIN=action)


def read(folder: Path) -> list[Any]:
    """The records of the offline run that a run folder holds."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    records = []
    for data in log_records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        records.append(record)
    return records


def log_records(data: bytes) -> Iterator[bytes]:
    """Read LevelDB's log format: blocks of 32 KiB of pieces (checksum, length, type), behind a header of 7 bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # complete, or the last piece
            yield whole
            whole = b""


def run_of(folder: Path) -> Any:
    return next(record.run for record in read(folder) if record.HasField("run"))


def exit_code(folder: Path) -> int:
    return next(record.exit.exit_code for record in read(folder) if record.HasField("exit"))


def summary(folder: Path) -> dict[str, Any]:
    """What the table of runs shows."""
    values: dict[str, Any] = {}
    for record in read(folder):
        for item in record.summary.update:
            values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values


def history(folder: Path) -> set[str]:
    items = [item for record in read(folder) for item in record.history.item]
    return {item.key or item.nested_key[0] for item in items}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of two ranks with pictures, and what it said."""
    place = tmp_path_factory.mktemp("loggers")
    done = main(place, "tags=[mine]", "seed=3", "hydra.run.dir=a_run", world=2, action="media")
    assert done.returncode == 0, done.stderr
    return place / "a_run", done.stderr


@pytest.mark.slow
def test_wandb_names_a_run_after_its_folder_and_words(run: tuple[Path, str]) -> None:
    """One run for all ranks."""
    folder, said = run
    found = run_of(folder)
    assert (found.project, found.run_id, found.job_type) == ("voxlab", "a_run", "convert")
    assert found.display_name.startswith("convert codec=none data.source=sample data.root=corpus")
    assert list(found.tags) == ["mine", "data=voiceassistant", "codec=none"]
    config = {item.key: json.loads(item.value_json) for item in found.config.update}
    assert config["seed"] == 3
    assert config["data"]["root"] == "corpus"
    assert exit_code(folder) == 0
    (offline,) = (folder / "wandb").glob("offline-run-*")
    assert f"to upload this run: wandb sync {offline}\n" in said


@pytest.mark.slow
def test_wandb_gets_figures_in_its_summary_and_media_by_their_path(run: tuple[Path, str]) -> None:
    folder, _ = run
    assert summary(folder)["seed"] == 3.0
    assert {"plots/curve", "clips/tone", "film"} <= history(folder)
    assert "samples/tone" not in history(folder)  # a task has handed it over while it trained
    assert "seed" not in history(folder)  # no point is added to a curve
    kinds = {path.suffix for path in (folder / "wandb").rglob("media/**/*.*")}
    assert kinds == {".png", ".wav", ".gif"}


@pytest.mark.slow
def test_tensorboard_gets_a_table_of_hyper_parameters_and_media(run: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(run[0]))
    events.Reload()
    assert [event.value for event in events.Scalars("final/seed")] == [3.0]
    image, film = events.Images("plots/curve")[0], events.Images("film")[0]
    assert (image.width, image.height) == (30, 20)
    assert (film.width, film.height) == (32, 24)
    assert events.Audio("clips/tone")[0].sample_rate == 8000
    told = HParamsPluginData()
    told.ParseFromString(events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content)
    table = told.session_start_info.hparams
    assert table["seed"].number_value == 3
    assert table["data.root"].string_value == "corpus"
    assert not [name for name in table if name.startswith("task")]
    told.ParseFromString(events.SummaryMetadata("_hparams_/experiment").plugin_data.content)
    assert "final/seed" in [metric.name.tag for metric in told.experiment.metric_infos]


@pytest.mark.slow
def test_csv_gets_the_figures(run: tuple[Path, str]) -> None:
    header, row = (run[0] / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True))["final/seed"] == "3.0"


@pytest.mark.slow
def test_each_job_of_a_sweep_is_a_run_of_its_own(tmp_path: Path) -> None:
    done = main(tmp_path, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("to upload this run: wandb sync") == 2
    runs = [run_of(tmp_path / "sweep" / job) for job in "01"]
    assert [found.run_id for found in runs] == ["sweep-0", "sweep-1"]
    assert {found.run_group for found in runs} == {"sweep"}
    assert [summary(tmp_path / "sweep" / job)["seed"] for job in "01"] == [1.0, 2.0]


def launch(**changes: Any) -> Launch:
    given: dict[str, Any] = {
        **{"run_dir": Path("outputs/laughter/2026-01-02_03-04-05_abcd"), "sweep": False, "name": None, "tags": []},
        **{"choices": {"task": "laughter", "data": "podcastfillers", "loss": "focal", "experiment": "mine"}},
        **{"words": ["task=laughter", "shift=5", "logger=wandb", "resume=x"]},
    }
    return Launch(**{**given, **changes})


def test_a_resumed_run_continues_its_own() -> None:
    fields = wandb_fields(launch(), {"seed": 0})
    assert fields == {
        **{"id": "2026-01-02_03-04-05_abcd", "resume": "allow", "group": "mine", "job_type": "laughter"},
        **{"name": "laughter shift=5", "tags": ["data=podcastfillers", "loss=focal"], "config": {"seed": 0}},
    }


def test_a_job_is_named_after_sweep_and_number() -> None:
    fields = wandb_fields(launch(run_dir=Path("outputs/laughter/stamp/7"), sweep=True, name="mine"), {})
    assert (fields["id"], fields["group"], fields["name"]) == ("stamp-7", "stamp", "mine")
