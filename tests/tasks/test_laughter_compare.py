"""The runs of a sweep side by side, from what each has written."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from sklearn import metrics

from tests.tasks.laughter_scores import SHIFT, make_settings, make_split
from tests.tasks.launches import launch
from voxlab import report
from voxlab.errors import UserError
from voxlab.metrics.bootstrap import draw_counts, number_clusters
from voxlab.metrics.events import pool
from voxlab.tasks.compare.pages import read_notices
from voxlab.tasks.laughter.compare import compare, difference, plot_shifts, read_jobs
from voxlab.tasks.laughter.evaluate import evaluate

VALIDATION, TEST = make_split("validation", 3), make_split("test", 7)


def noisier(episodes, seed):
    generator = np.random.default_rng(seed)
    return [
        dataclasses.replace(each, logit=(each.logit + generator.normal(0, 3, len(each.logit))).astype(np.float32))
        for each in episodes
    ]


def write_run(folder, loss, shift=SHIFT, noise=0, test=TEST, **record):
    made_from = {
        "labels": {"mode": "window", "shift": shift},
        "loss": {"name": loss, "gamma": 2.0 if loss == "Focal" else None, "positive_weight": shift},
        "model": {"family": "linear", "dim": 8},
        "features": {"name": "made up"},
        "seed": 0,
    }
    return evaluate(
        train=[],
        validation=VALIDATION,
        test=noisier(test, noise) if noise else test,
        settings=make_settings(eval={"plots": "none", "bootstrap": 100}),
        record=made_from | record,
        seed=0,
        run_dir=folder,
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    places = [("BinaryCrossEntropy", 5, 0), ("Focal", 5, 1), ("BinaryCrossEntropy", 10, 2), ("Focal", 10, 3)]
    for number, (loss, shift, noise) in enumerate(places):
        launch(folder / str(number), "MULTIRUN")
        write_run(folder / str(number), loss, shift, noise)
    return folder


def test_each_job_of_a_sweep_writes_the_comparison(sweep):
    rows = list(csv.DictReader((sweep / "comparison.csv").open()))
    assert [(row["run"], row["group"], row["shift"]) for row in rows] == [
        ("0", "bce", "5"),
        ("1", "focal", "5"),
        ("2", "bce", "10"),
        ("3", "focal", "10"),
    ]
    written = json.loads((sweep / "1" / "metrics.json").read_text())
    assert float(rows[1]["test/ap"]) == written["test/ap"]
    assert [float(rows[1][f"test/ap_lift/{end}"]) for end in ("low", "high")] == written["test/ap_lift/ci"]
    page = (sweep / "comparison.html").read_text()
    ends = [report.spell(float(rows[1][f"test/ap_lift/{end}"])) for end in ("low", "high")]
    assert f"<small>{' to '.join(ends)}</small>" in page
    assert "0: bce, shift 5" in page
    assert "BinaryCrossEntropy" not in page
    assert page.count("<img") == 1
    assert (sweep / "shift_sweep.png").is_file()


def test_differences_are_paired_on_the_same_shows(sweep):
    first, second = read_jobs(sweep)[:2]
    row = difference(first, second, resamples=100, seed=0)
    other = noisier(TEST, 1)
    cluster, names = number_clusters([episode.show for episode in TEST])
    slow = []
    for counts in draw_counts(len(names), resamples=100, seed=0):
        drawn = [place for place in range(len(TEST)) for _ in range(counts[cluster[place]])]
        pair = [pool([episodes[place] for place in drawn]) for episodes in (other, TEST)]
        slow.append(np.subtract(*(metrics.average_precision_score(each.y, each.logit) for each in pair)))
    assert [row["ap/low"], row["ap/high"]] == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), rel=1e-9)
    assert row["ap"] == second.metrics["test/ap"] - first.metrics["test/ap"] < 0
    rows = list(csv.DictReader((sweep / "differences.csv").open()))
    assert [(each["shift"], each["run"][0], each["minus"][0]) for each in rows] == [("5", "1", "0"), ("10", "3", "2")]
    assert float(rows[0]["ap/low"]) == row["ap/low"]


def test_a_run_against_itself_differs_by_nothing(sweep):
    job = read_jobs(sweep)[0]
    row = difference(job, job, resamples=100)
    assert [row[name] for name in ("ap", "ap/low", "ap/high", "auroc")] == [0, 0, 0, 0]


def test_groups_are_named_by_what_differs(tmp_path):
    write_run(tmp_path / "0", "Focal", model={"family": "linear", "dim": 8})
    write_run(tmp_path / "1", "Focal", model={"family": "gru", "dim": 8, "hidden": 16}, seed=3)
    assert [job.group for job in read_jobs(tmp_path)] == ["linear, seed=0", "gru, seed=3"]


def test_a_run_whose_figures_cannot_be_read_is_left_out(tmp_path, caplog):
    figures = {"test/ap": 0.5, "labels": {"shift": 5}, "loss": {"name": "Focal"}}
    for name, text in (("0", '{"test/ap"'), ("1", json.dumps(figures)), ("2", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)
    assert [job.folder.name for job in read_jobs(tmp_path)] == ["1"]
    assert [str(tmp_path / name) in line for name, line in zip("02", caplog.messages, strict=True)] == [True, True]


def test_losses_go_by_what_one_types_and_folders_are_in_the_order_of_their_numbers(tmp_path):
    losses = {"bce": ("BinaryCrossEntropy", {}), "focal": ("Focal", {"reduction": "mean"})}
    losses |= {"focal_sum": ("Focal", {"reduction": "sum"}), "adaptive_focal": ("AdaptiveFocal", {"adapt": "none"})}
    for typed, (name, more) in losses.items():
        for shift in (5, 10):
            folder = tmp_path / f"{typed}-shift{shift}"
            folder.mkdir()
            written = {"test/ap": 0.1, "labels": {"shift": shift}, "loss": {"name": name, "gamma": 2.0, **more}}
            (folder / "metrics.json").write_text(json.dumps(written))
    jobs = read_jobs(tmp_path)
    expected = [(typed, shift) for typed in sorted(losses) for shift in (5, 10)]
    assert [(job.group, job.shift) for job in jobs] == expected
    assert [job.folder.name for job in jobs] == [f"{typed}-shift{shift}" for typed, shift in expected]


def test_bars_of_one_shift_stand_side_by_side(sweep):
    axes = plot_shifts(read_jobs(sweep)).axes
    for plot in axes:
        places = [np.asarray(line.get_xdata()) for line in plot.get_lines() if line.get_marker() == "o"]
        assert len(places) == 2
        assert np.abs(places[0] - places[1]).min() > 0.1
        for number, place in enumerate(np.array(places).T):  # nearer to their own shift than to the next
            assert np.abs(place - number).max() < 0.4
        assert [text.get_text() for text in plot.get_xticklabels()] == ["5", "10"]


def test_runs_on_other_episodes_are_not_paired(tmp_path):
    write_run(tmp_path / "0", "Focal")
    write_run(tmp_path / "1", "BinaryCrossEntropy", test=TEST[:6])
    jobs = read_jobs(tmp_path)
    row = difference(*jobs, resamples=100)
    assert row["ap/low"] is None
    assert row["ap"] is not None
    compare(tmp_path, resamples=100)
    assert "tested on different episodes" in (tmp_path / "comparison.html").read_text()


def test_what_the_data_mean_for_the_figures_stands_on_the_comparison_as_on_the_pages_of_the_runs(tmp_path):
    synthetic = "Synthetic corpus: these figures say nothing about speech."
    flags = {"sample": True, "random_weights": False}
    write_run(tmp_path / "0", "Focal", flags=flags)
    write_run(tmp_path / "1", "BinaryCrossEntropy", flags=flags, fit={"shuffle_labels": True})
    compare(tmp_path, resamples=0)
    assert synthetic in read_notices(tmp_path / "1" / "report.html")
    told = read_notices(tmp_path / "comparison.html")
    assert told[0] == synthetic
    assert told[1].startswith("Of 1: Labels were shuffled")
    assert len(told) == 2


def test_undefined_figures_are_shown_as_such(tmp_path):
    quiet = [dataclasses.replace(each, y=np.zeros_like(each.y), onsets=each.onsets[:0]) for each in TEST]
    write_run(tmp_path / "0", "Focal", test=quiet)
    summary = compare(tmp_path, resamples=0)
    assert summary == {"runs": 1, "best_ap_lift": None, "page": str(tmp_path / "comparison.html")}
    assert "not defined" in plot_shifts(read_jobs(tmp_path)).axes[0].get_legend_handles_labels()[1][0]


def test_a_folder_without_runs_says_what_to_type(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "metrics.json").write_text('{"loss": 1}')
    with pytest.raises(UserError, match=r"none of the 1 runs in this folder was evaluated .*-m task=laughter"):
        compare(tmp_path)
