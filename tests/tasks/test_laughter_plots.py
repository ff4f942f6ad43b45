"""Plots, page and files of an evaluation: what they say by themselves."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from scipy import stats

from tests.tasks.laughter_scores import SHIFT, make_episode, make_settings, make_split
from voxlab.metrics import alarms
from voxlab.plots import render_png
from voxlab.report import Section
from voxlab.tasks.laughter import curves, event_plots, labels, outputs, plots, report
from voxlab.tasks.laughter.charts import blank
from voxlab.tasks.laughter.decide import decide
from voxlab.tasks.laughter.measures import measure, put_oracle

VALIDATION, TEST = make_split("validation", 3), make_split("test", 7)
DECISION = decide(VALIDATION, make_settings())


@pytest.fixture(scope="module")
def splits():
    found = {name: measure(each, DECISION, make_settings(), 0) for name, each in (("val", VALIDATION), ("test", TEST))}
    put_oracle(found["test"])
    return found


@pytest.fixture(scope="module")
def charts(splits):
    test = splits["test"]
    drawn = {
        "roc": plots.plot_roc(test, DECISION),
        "precision_recall": plots.plot_precision_recall(test, DECISION),
        "confusion": plots.plot_confusion(test),
        "thresholds": plots.plot_thresholds(splits, DECISION),
        "reliability": plots.plot_reliability(test.reliability, test.name),
        "scores": plots.plot_scores(test, DECISION),
        "episodes": plots.plot_episode_rates(test.per_episode),
        "onset_locked": event_plots.plot_onset_locked(test, DECISION, 0),
        "leads": event_plots.plot_leads(test),
        "event_recall": event_plots.plot_event_curve(test),
    }
    return drawn | {name: (chart, {}) for name, chart in event_plots.plot_timelines(test, DECISION).items()}


def legend(chart):
    found = [axes.get_legend() for axes in chart.axes if axes.get_legend()] + list(chart.legends)
    return [text.get_text() for each in found for text in each.get_texts()]


def lines(chart, style):
    return [line for line in chart.axes[0].get_lines() if line.get_linestyle() == style]


def test_each_plot_says_alone_what_it_shows(charts):
    for name, (chart, _) in charts.items():
        assert (chart.get_suptitle().count("test") == 1) == (name != "thresholds"), name
        assert all(axes.get_ylabel() for axes in chart.axes), name
        assert name == "leads" or name == "confusion" or legend(chart), name
    assert charts["timeline_best"][0].get_suptitle().startswith("Show ")
    for name in ("roc", "thresholds", "event_recall"):
        assert max(charts[name][0].axes[0].get_yticks()) == 1
    for name in ("roc", "precision_recall", "thresholds", "scores"):
        assert any("chosen threshold" in text for text in legend(charts[name][0])), name


def test_what_a_guess_gives_is_thin_dashed_and_grey(charts):
    for name, label in (("roc", "chance"), ("precision_recall", "prior"), ("reliability", "ideal")):
        (line,) = lines(charts[name][0], "--")
        assert str(line.get_label()).startswith(label)
        assert (line.get_marker(), line.get_linewidth() < 1) == ("", True)
        red, green, blue, _ = to_rgba(line.get_color())
        assert max(red, green, blue) - min(red, green, blue) < 0.1


def test_lines_of_equal_f1_are_named_where_they_end(charts):
    texts = charts["precision_recall"][0].axes[0].texts
    assert [text.get_text() for text in texts] == ["F1 0.1", "F1 0.2", "F1 0.4", "F1 0.6", "F1 0.8"]
    for text in texts:
        f1, precision = float(text.get_text()[3:]), text.get_position()[1]
        assert 2 * precision / (precision + 1) == pytest.approx(f1)


def test_colours_tell_measures_and_dashes_splits(charts):
    drawn = [line for line in charts["thresholds"][0].axes[0].get_lines() if len(line.get_xdata()) > 2]
    colours = {line.get_color() for line in drawn if line.get_linestyle() == "-"}
    assert len(colours) == 3
    assert colours == {line.get_color() for line in drawn if line.get_linestyle() == "--"}
    assert legend(charts["thresholds"][0])[:5] == ["precision", "recall", "f1", "validation", "test"]


def test_points_of_calibration_have_their_interval(charts):
    share, count = np.array([0.0, 0.02, 0.5, 1.0]), np.array([100, 350, 17, 3])
    low, high = plots.binomial_interval(share, count)
    for place, (s, n) in enumerate(zip(share, count, strict=True)):
        told = stats.binomtest(round(s * n), int(n)).proportion_ci(0.95, method="wilson")
        if s * n == round(s * n):
            assert (low[place], high[place]) == pytest.approx((told.low, told.high), abs=1e-6)
    data = charts["reliability"][1]
    for name in ("calibrated", "before"):
        low, share, high = (data[f"reliability_{name}_{part}"] for part in ("low", "frequency", "high"))
        assert np.all((low <= share) & (share <= high) & (high - low > 0))
    axes = charts["reliability"][0].axes[0]
    assert all(line.get_linestyle() in ("None", "--") for line in axes.get_lines())


def test_leads_are_counted_in_frames(splits, charts):
    axes = charts["leads"][0].axes[0]
    leads = np.concatenate([found.leads for found in splits["test"].matches])
    assert [bar.get_height() for bar in axes.patches] == [np.sum(leads == lead) for lead in range(1, max(leads) + 1)]
    assert {bar.get_edgecolor() for bar in axes.patches} == {to_rgba("white")}
    assert all(tick == round(tick) for tick in axes.get_yticks())


def test_both_horizons_are_marked(splits, charts):
    axes, values = charts["event_recall"][0].axes[0], splits["test"].values
    marks = [line for line in axes.get_lines() if line.get_marker() in "oD" and line.get_marker()]
    found = [(line.get_xdata()[0], line.get_ydata()[0]) for line in marks]
    assert found == [(values[f"{name}/fa_per_hour"], values[f"{name}/recall"]) for name in ("event", "event_h25")]
    assert [re.findall(r"[\d.]+ s", str(line.get_label())) for line in marks] == [["0.4 s"], ["2 s"]]
    assert (values["event/horizon_s"], values["event_h25/horizon_s"]) == (0.4, 2.0)


def test_early_alarms_are_told_from_false_ones():
    onsets = np.array([100, 200, 300])
    frames = np.array([20, 74, 75, 94, 95, 97, 180, 196, 301])
    matches = alarms.match(frames, onsets, SHIFT)
    kinds = event_plots.kinds_of_alarms(matches)
    named = {kind: frames[chosen].tolist() for kind, chosen in kinds.items()}
    assert named == {"hit": [95, 196], "duplicate": [97], "early": [75, 94, 180], "false": [20, 74, 301]}
    wide = event_plots.kinds_of_alarms(alarms.match(frames, onsets, 25))
    assert not wide["early"].any()


def test_a_timeline_draws_each_kind_in_its_colour():
    episode = make_episode(1)
    matches = alarms.match(np.array([int(episode.onsets[0]) - 20, int(episode.onsets[1]) - 3]), episode.onsets, SHIFT)
    chart = event_plots.plot_timeline(dataclasses.replace(episode, name="$a_b$ & Co"), matches, DECISION)
    render_png(chart)
    assert chart.get_suptitle() == "$a_b$ & Co (test)"
    drawn = [line for axes in chart.axes for line in axes.get_lines()]
    found = {line.get_color() for line in drawn if np.size(line.get_xdata()) == 1}
    handles = [handle for handle in chart.legends[0].legend_handles if isinstance(handle, Line2D)]
    names = {handle.get_label(): handle.get_color() for handle in handles if "alarm" in str(handle.get_label())}
    assert found == {names["alarm: announces a laugh"], names["alarm: early, within 2 s"]}
    assert len(set(names.values())) == 4


def test_the_page_sets_the_alarms_of_baselines_beside_those_of_the_model(splits, tmp_path):
    summary = {f"test/{name}": value for name, value in splits["test"].values.items()}
    summary |= {"threshold": 0.5, "threshold/raw": 0.5, "threshold/objective": "f1"}
    summary |= {"calibration/slope": 1.0, "calibration/intercept": 0.0, "calibration/reason": None}
    baselines = {"loudness": {"ap": 0.125, "event/recall": 0.0625, "event/fa_per_hour": 77.5}, "prior": {"ap": 0.01}}
    page = report.write(splits, summary, baselines, {}, {}, tmp_path).read_text()
    table = re.search(r"<h2>Baselines</h2>.*?</table>", page)
    assert table is not None
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table[0])]
    columns = [rows[0].index(f"{what} at the threshold") for what in ("events announced", "false alarms per hour")]
    own = [f"{summary[f'test/event/{name}']:.4g}" for name in ("recall", "fa_per_hour")]
    assert [[row[column] for column in columns] for row in rows[1:]] == [own, ["0.0625", "77.5"], ["–", "–"]]
    assert "not calibrated" not in page


def test_the_page_names_a_few_chapters_and_whole_labels(splits, tmp_path):
    summary = {f"test/{name}": value for name, value in splits["test"].values.items()}
    summary |= {"threshold": 0.5, "threshold/raw": 0.5, "threshold/objective": "f1"}
    summary |= {"calibration/slope": 1.0, "calibration/intercept": 0.0, "calibration/reason": None}
    png = render_png(blank("", "", "", ""))
    names = ("01_roc", "02_precision_recall", "05_timeline", "08_event_recall", "09_reliability", "11_episodes")
    training = [Section(title, "") for title in ("Loss", "Speed")]
    page = report.write(splits, summary, {}, dict.fromkeys(names, png), {}, tmp_path, training).read_text()
    links = re.findall(r'<a href="#[^"]*">(.*?)</a>', page)
    parts = ["Data", "Figures", "Baselines", "Threshold and calibration"]
    assert links == [*parts, "Frames", "Alarms and events", "Episodes", "Training", "Made from"]
    assert page.count("<img") == len(names)
    assert "<h2>Calibration</h2>" in page
    table = re.search(r"<h2>Figures</h2>.*?</table>", page)
    assert table is not None
    shown = re.findall(r"<tr><td>(.*?)</td>", table[0])
    assert {"events announced at 5 false alarms per hour", "calibration error before calibration"} <= set(shown)
    assert len(set(shown)) == len(shown) == len(labels.FIGURES) - 3
    assert [name for name in shown if re.match(r"(at|then|before|of|that) |.* then$", name)] == []


def test_curves_of_a_run_of_few_steps(tmp_path):
    assert curves.sections(tmp_path) == []
    rows = [{"step": step, "val/ap": 0.1 * step, "val/loss": 1 / step, "val/prior": 0.01} for step in (1, 2)]
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert [section.title for section in curves.sections(tmp_path)] == ["Loss", "Validation"]


def test_files_tell_split_and_calibration(tmp_path):
    outputs.write_decision(DECISION, tmp_path)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record == {"slope": DECISION.platt.slope, "intercept": DECISION.platt.intercept, "reason": None}
    assert json.loads((tmp_path / "threshold.json").read_text())["logit"] == DECISION.threshold.logit
    outputs.write_csv([*VALIDATION[:1], *TEST[:1]], DECISION, tmp_path / "all.csv")
    rows = list(csv.DictReader((tmp_path / "all.csv").open()))
    assert [rows[place]["split"] for place in (0, 4499, 4500, -1)] == ["validation", "validation", "test", "test"]
    assert sum(int(row["mask"]) for row in rows[4500:]) == TEST[0].mask.sum()


def test_hours_are_those_of_the_frames_that_count(splits):
    values = splits["test"].values
    assert values["hours_counted"] == pytest.approx(sum(each.mask.sum() for each in TEST) / 12.5 / 3600)
    assert values["hours_counted"] < sum(len(each.mask) for each in TEST) / 12.5 / 3600
