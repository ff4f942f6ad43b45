"""The evaluation of made-up scores: figures against slow references, files, plots of empty input, messages."""

import dataclasses
import json
import re
import warnings

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from tests.tasks.laughter_scores import SHIFT, make_episode, make_settings, make_split
from tests.test_progress import terminal_of
from voxlab.errors import UserError
from voxlab.metrics.bootstrap import draw_counts, number_clusters
from voxlab.metrics.events import logit_of, pool, sigmoid
from voxlab.plots import render_png
from voxlab.tasks.laughter import baselines, event_plots, outputs, plots
from voxlab.tasks.laughter.decide import Decision, decide
from voxlab.tasks.laughter.eval_settings import read_settings
from voxlab.tasks.laughter.evaluate import evaluate, measure_all
from voxlab.tasks.laughter.measures import measure

TRAIN, VALIDATION, TEST = make_split("train", 8), make_split("validation", 6), make_split("test", 8)
RECORD = {"labels": {"mode": "window", "shift": SHIFT}, "features": {"name": "made up"}, "loss": {"name": "Focal"}}


def run(folder, train=TRAIN, validation=VALIDATION, test=TEST, **options):
    settings = options.pop("settings", None) or make_settings()
    given = {"record": RECORD, "seed": 0, "run_dir": folder} | options
    return evaluate(train=train, validation=validation, test=test, settings=settings, **given)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return run(folder, settings=make_settings(eval={"csv": True})), folder


# ---- figures -------------------------------------------------------------------------------------------------------


def test_figures_of_frames_are_those_of_scikit_learn(done):
    summary, _ = done
    frames = pool(TEST)
    probability = sigmoid(summary["calibration/slope"] * frames.logit.astype(float) + summary["calibration/intercept"])
    predicted = frames.logit >= summary["threshold/logit"]
    expected = {
        "ap": metrics.average_precision_score(frames.y, frames.logit),
        "auroc": metrics.roc_auc_score(frames.y, frames.logit),
        "ap_lift": metrics.average_precision_score(frames.y, frames.logit) / frames.y.mean(),
        "precision": metrics.precision_score(frames.y, predicted),
        "recall": metrics.recall_score(frames.y, predicted),
        "f1": metrics.f1_score(frames.y, predicted),
        "specificity": metrics.recall_score(~frames.y, ~predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(frames.y, predicted),
        "mcc": metrics.matthews_corrcoef(frames.y, predicted),
        "accuracy": metrics.accuracy_score(frames.y, predicted),
        "at_half/f1": metrics.f1_score(frames.y, probability >= 0.5),
        "log_loss": metrics.log_loss(frames.y, probability),
        "brier": metrics.brier_score_loss(frames.y, probability),
        "prior": frames.y.mean(),
    }
    assert {name: summary[f"test/{name}"] for name in expected} == pytest.approx(expected, rel=1e-9)
    counts = [summary[f"test/{name}"] for name in ("tn", "fp", "fn", "tp")]
    assert counts == metrics.confusion_matrix(frames.y, predicted).ravel().tolist()
    macro = [metrics.roc_auc_score(pool([each]).y, pool([each]).logit) for each in TEST]
    assert summary["test/macro/auroc"] == pytest.approx(np.mean(macro), rel=1e-9)
    best = max(metrics.f1_score(frames.y, frames.logit >= place) for place in np.unique(frames.logit[frames.y]))
    assert summary["test/oracle/f1"] == pytest.approx(best)
    assert summary["test/uncalibrated/mean_probability"] == pytest.approx(sigmoid(frames.logit).mean())


def test_intervals_are_those_of_a_slow_loop_over_drawn_shows(done):
    summary, _ = done
    cluster, names = number_clusters([episode.show for episode in TEST])
    draws: dict[str, list[float]] = {name: [] for name in ("ap", "auroc", "f1", "macro/auroc", "event/recall")}
    matched = json_events(summary)
    alone = {each.key: metrics.roc_auc_score(pool([each]).y, pool([each]).logit) for each in TEST}
    for row in draw_counts(len(names), resamples=100, seed=0):
        drawn = [episode for episode, number in zip(TEST, cluster, strict=True) for _ in range(row[number])]
        frames = pool(drawn)
        draws["ap"].append(metrics.average_precision_score(frames.y, frames.logit))
        draws["auroc"].append(metrics.roc_auc_score(frames.y, frames.logit))
        predicted = frames.logit >= summary["threshold/logit"]
        draws["f1"].append(2 * (predicted & frames.y).sum() / (predicted.sum() + frames.y.sum()))
        draws["macro/auroc"].append(np.mean([alone[each.key] for each in drawn]))
        hits = np.array([matched[each.key] for each in drawn])
        draws["event/recall"].append(hits[:, 0].sum() / hits[:, 1].sum())
    for name, values in draws.items():
        assert summary[f"test/{name}/ci"] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), rel=1e-9), name


def json_events(summary):
    """Count for each episode, by a plain loop, the events with an alarm and all events."""
    counts = {}
    high = summary["threshold/logit"]
    line = summary["calibration/slope"], summary["calibration/intercept"]
    low = (float(logit_of(0.8 * sigmoid(line[0] * high + line[1]))) - line[1]) / line[0]
    for episode in TEST:
        alarms, armed = [], True
        for frame in np.flatnonzero(episode.mask):
            armed = armed or episode.logit[frame] < low
            if armed and episode.logit[frame] >= high:
                armed = False
                alarms += [frame] if not alarms or frame - alarms[-1] >= 25 else []
        hits = 0
        for onset in episode.onsets:
            fitting = [alarm for alarm in alarms if 1 <= onset - alarm <= SHIFT]
            hits += bool(fitting)
            alarms = [alarm for alarm in alarms if alarm not in fitting[:1]]
        counts[episode.key] = (hits, len(episode.onsets))
    return counts


def test_the_gain_over_a_baseline_is_paired(done):
    summary, _ = done
    gain, ends = summary["baseline/loudness/ap_gain"], summary["baseline/loudness/ap_gain/ci"]
    assert gain == pytest.approx(summary["test/ap"] - summary["baseline/loudness/ap"])
    assert ends[0] < gain < ends[1]
    predict = dict(baselines.make_baselines(TRAIN, TEST))["loudness"]
    cluster, names = number_clusters([episode.show for episode in TEST])
    theirs, slow = baselines.score(TEST, predict), []
    for row in draw_counts(len(names), resamples=100, seed=0):
        drawn = [place for place in range(len(TEST)) for _ in range(row[cluster[place]])]
        pair = [pool([episodes[place] for place in drawn]) for episodes in (TEST, theirs)]
        slow.append(np.subtract(*(metrics.average_precision_score(each.y, each.logit) for each in pair)))
    assert ends == pytest.approx(np.quantile(slow, [0.025, 0.975]).tolist(), rel=1e-9)


def test_rates_without_anything_to_count_have_a_reason():
    quiet = [dataclasses.replace(each, y=np.zeros_like(each.y), onsets=each.onsets[:0]) for each in TEST]
    decision = decide(VALIDATION, make_settings())
    values = measure(quiet, decision, make_settings(), 0).values
    for name in ("ap", "auroc", "ap_lift", "recall", "f1", "mcc", "macro/ap", "event/recall"):
        assert values[name] is None, name
        assert f"{name}/ci" not in values
    assert values["ap/reason"] == "no positives"
    assert values["event/recall/reason"] == "no events"
    assert values["event/fa_per_hour"] > 0
    assert values["specificity"] > 0.9


def test_few_shows_give_no_interval_but_a_reason():
    few = [dataclasses.replace(each, show=f"show {number % 4}") for number, each in enumerate(TEST)]
    values = measure(few, decide(VALIDATION, make_settings()), make_settings(), 0).values
    assert values["ci/reason"] == "4 shows, 5 are needed"
    assert not any(name.endswith("/ci") for name in values)
    by_episode = make_settings(eval={"cluster": "episode"})
    assert "ap/ci" in measure(few, decide(VALIDATION, by_episode), by_episode, 0).values


# ---- threshold -----------------------------------------------------------------------------------------------------


def test_the_threshold_of_test_is_that_of_validation_bit_for_bit(done):
    summary, folder = done
    decision = decide(VALIDATION, make_settings())
    written = json.loads((folder / "threshold.json").read_text())
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["reason"] is None
    again = Decision.from_record({"threshold": written, "calibration": {**calibration, "reason": ""}})
    assert again == decision
    assert summary["threshold/logit"] == written["logit"] == decision.threshold.logit
    assert np.float32(written["logit"]) in pool(VALIDATION).logit
    assert written["split"] == "validation"
    assert 0 < summary["threshold/ci"][0] <= summary["threshold"] < summary["threshold/ci"][1] < 1


def test_a_frozen_decision_is_not_chosen_again(tmp_path):
    frozen = decide(VALIDATION, make_settings(thr={"objective": "youden"}))
    summary = run(tmp_path, decision=frozen, settings=make_settings(eval={"plots": "none"}))
    assert summary["threshold/logit"] == frozen.threshold.logit
    assert summary["threshold/objective"] == "youden"
    assert not (tmp_path / "plots").exists()


def test_no_threshold_is_ever_chosen_on_test(tmp_path):
    with pytest.raises(UserError, match=r"no validation episodes .* thr.value"):
        run(tmp_path, validation=[])
    empty = [dataclasses.replace(each, y=np.zeros_like(each.y)) for each in VALIDATION]
    with pytest.raises(UserError, match=r"none of the \d+ frames of the 6 validation episodes is positive.*thr.value"):
        run(tmp_path, validation=empty)
    summary = run(tmp_path, validation=[], settings=make_settings(thr={"value": 0.2}))
    assert summary["threshold"] == pytest.approx(0.2)
    assert summary["threshold/objective"] == "given"
    assert "no positives" in summary["calibration/reason"]
    assert summary["test/recall"] > 0


def test_a_given_threshold_is_a_calibrated_probability():
    decision = decide(VALIDATION, make_settings(thr={"value": 0.3}))
    assert decision.threshold.value == pytest.approx(0.3)
    assert sigmoid(decision.platt.logit(decision.threshold.logit)) == pytest.approx(0.3)


def test_folds_over_shows_give_the_median_threshold():
    settings = make_settings(thr={"source": "cv"})
    decision = decide(VALIDATION, settings, train=TRAIN, seed=1)
    chosen = [fold["logit"] for fold in decision.threshold.folds]
    assert len(chosen) == 5
    assert decision.threshold.logit == np.median(chosen)
    assert decision.threshold.split == "train+validation"
    assert Decision.from_record(json.loads(json.dumps(decision.record()))) == decision
    blind = [dataclasses.replace(each, logit=np.zeros_like(each.logit)) for each in TRAIN]
    with pytest.raises(UserError, match="needs the scores of the training episodes"):
        decide(VALIDATION, settings, train=blind)
    one = [dataclasses.replace(each, show="one") for each in (*VALIDATION, *TRAIN)]
    with pytest.raises(UserError, match="needs 5 shows"):
        decide(one[:6], settings, train=one[6:])


@pytest.mark.parametrize("objective", ["event_f1", "fa_per_hour"])
def test_thresholds_can_be_chosen_for_alarms(objective):
    target = {"target": 60.0} if objective == "fa_per_hour" else {}
    decision = decide(VALIDATION, make_settings(thr={"objective": objective, **target}))
    values = measure(VALIDATION, decision, make_settings(), 0).values
    name = "event/f1" if objective == "event_f1" else "event/recall"
    assert values[name] == pytest.approx(decision.threshold.score)
    assert objective == "event_f1" or values["event/fa_per_hour"] <= 60


@pytest.mark.parametrize(
    ("node", "values", "message"),
    [
        ("thr", {"objective": "accuracy"}, "thr.objective=accuracy: choose one of f1"),
        ("thr", {"source": "test"}, "thr.source=test: choose one of validation, cv"),
        ("thr", {"value": 1.5}, "thr.value=1.5: give a probability"),
        ("thr", {"value": "high"}, "thr.value='high': give a number or null"),
        ("thr", {"objective": "fbeta"}, "thr.target=None: thr.objective=fbeta needs beta"),
        ("thr", {"objective": "recall_at_precision", "target": 2.0}, "needs the precision to keep"),
        ("thr", {"target": 0.5}, "thr.objective=f1 takes none"),
        ("events", {"horizon": 0}, "events.horizon=0: give a whole number"),
        ("events", {"refractory_s": -1.0}, "events.refractory_s=-1.0: give seconds"),
        ("eval", {"bootstrap": 10}, "eval.bootstrap=10: give 100 resamples or more, or 0"),
        ("eval", {"cluster": "speaker"}, "eval.cluster=speaker: choose one of show, episode"),
        ("eval", {"calibrate": "isotonic"}, "eval.calibrate=isotonic: choose one of platt, none"),
        ("eval", {"plots": "some"}, "eval.plots=some: choose one of all, none"),
        ("eval", {"csv": 1}, "eval.csv=1: give true or false"),
    ],
)
def test_settings_out_of_range_are_refused(node, values, message):
    nodes = {"thr": {}, "events": {}, "eval": {}} | {node: values}
    with pytest.raises(UserError) as caught:
        read_settings(**nodes, shift=SHIFT)
    assert message in str(caught.value)


def test_an_unreachable_target_says_what_is_reachable():
    noise = [dataclasses.replace(each, logit=np.sin(np.arange(4500)).astype(np.float32)) for each in VALIDATION]
    with pytest.raises(UserError, match=r"thr.target=0.9: .*the highest precision at any threshold is 0\.1667"):
        decide(noise, make_settings(thr={"objective": "recall_at_precision", "target": 0.9}))


# ---- calibration ---------------------------------------------------------------------------------------------------


def test_scores_of_focal_loss_become_probabilities():
    def squeeze(episode):
        return dataclasses.replace(episode, logit=(0.3 * episode.logit - 1.0).astype(np.float32))

    validation, test = [squeeze(each) for each in VALIDATION], [squeeze(each) for each in TEST]
    values = measure(test, decide(validation, make_settings()), make_settings(), 0).values
    assert values["mean_probability"] == pytest.approx(values["prior"], rel=0.1)
    assert values["uncalibrated/mean_probability"] > 4 * values["prior"]
    assert values["ece"] < 0.1 * values["uncalibrated/ece"]
    raw = measure(test, decide(validation, make_settings(eval={"calibrate": "none"})), make_settings(), 0).values
    assert raw["mean_probability"] == raw["uncalibrated/mean_probability"]
    assert raw["ap"] == values["ap"]


# ---- baselines -----------------------------------------------------------------------------------------------------


def test_baselines_that_know_nothing_within_an_episode(done):
    summary, _ = done
    for name in ("prior", "episode_rate_oracle"):
        assert summary[f"baseline/{name}/macro/auroc"] == 0.5
    assert summary["baseline/prior/ap"] == pytest.approx(summary["test/prior"])
    assert summary["baseline/prior/auroc"] == 0.5
    assert summary["baseline/loudness/auroc"] > 0.55
    rates = [make_episode(number, events=events) for number, events in enumerate((1, 5, 30, 2, 9, 20))]
    predict = dict(baselines.make_baselines([]))["episode_rate_oracle"]
    frames = pool(baselines.score(rates, predict))
    assert metrics.roc_auc_score(frames.y, frames.logit) > 0.7
    share = [float(each.y[each.mask].mean()) for each in rates]
    assert sigmoid(frames.logit[np.flatnonzero(frames.episode == 2)[0]]) == pytest.approx(share[2])


def test_the_logistic_baseline_is_that_of_scikit_learn():
    predict = dict(baselines.make_baselines(TRAIN))["loudness_vad"]

    def inputs(episode):
        columns = []
        for values in (episode.energy, episode.vad):
            past = np.r_[values[:1], values[:-1]].astype(float)
            columns += [np.array([past[max(0, t - 11) : t + 1].mean() for t in range(len(past))]), past]
        return np.stack(columns, axis=1)

    x = np.concatenate([inputs(each)[each.mask] for each in TRAIN])
    y = np.concatenate([each.y[each.mask] > 0 for each in TRAIN])
    middle, spread = x.mean(0), x.std(0)
    oracle = LogisticRegression(C=1e6, tol=1e-9, max_iter=2000).fit((x - middle) / spread, y)
    expected = oracle.decision_function((inputs(TEST[0]) - middle) / spread)
    np.testing.assert_allclose(predict(TEST[0]), expected, atol=2e-3)


def test_seconds_since_the_last_event():
    episode = make_episode(0, frames=300, events=2)
    since = baselines.seconds_since(episode)
    (first, end), (second, _) = episode.spans
    assert np.isinf(since[:first]).all()
    assert (since[first : end + 1] == 0).all()
    assert since[end + 5] == pytest.approx(5 / 12.5)
    assert since[second] == 0
    none = dataclasses.replace(episode, spans=episode.spans[:0])
    assert np.isinf(baselines.seconds_since(none)).all()


def test_a_failing_baseline_does_not_take_the_scores_with_it(tmp_path, monkeypatch):
    def fails(*_):
        raise UserError("no baseline")

    monkeypatch.setattr(baselines, "make_baselines", fails)
    with pytest.raises(UserError, match="no baseline"):
        run(tmp_path, settings=make_settings(eval={"csv": True}))
    assert {path.name for path in tmp_path.iterdir()} == {
        *("threshold.json", "calibration.json", "predictions", "predictions.csv")
    }
    assert len(outputs.read_predictions(tmp_path, "test")) == len(TEST)


def test_thresholds_of_baselines_come_from_validation_even_with_folds(tmp_path):
    settings = {"eval": {"plots": "none"}}
    folds = run(tmp_path / "cv", settings=make_settings(thr={"source": "cv"}, **settings))
    plain = run(tmp_path / "plain", settings=make_settings(**settings))
    names = [name for name in plain if name.startswith("baseline/") and "ap_gain" not in name]
    assert len(names) > 20
    assert {name: folds[name] for name in names} == {name: plain[name] for name in names}


def test_baselines_without_their_inputs_are_left_out():
    deaf = [dataclasses.replace(each, vad=None) for each in TEST]
    assert [name for name, _ in baselines.make_baselines(TRAIN, deaf)] == [
        *("prior", "last_laugh", "loudness", "episode_rate_oracle")
    ]


def test_laughter_in_bursts_is_predicted_by_the_last_laugh():
    def burst(number, split):
        episode = make_episode(number, split=split, events=1, frames=3000)
        onsets = np.arange(1000, 1400, 60) + number
        y, mask = np.zeros(3000, np.float32), np.ones(3000, bool)
        for onset in onsets:
            y[onset - SHIFT : onset], mask[onset : onset + 10] = 1, False
        return dataclasses.replace(episode, y=y, mask=mask, onsets=onsets, spans=np.stack([onsets, onsets + 8], 1))

    train, test = ([burst(number, split) for number in range(5)] for split in ("train", "test"))
    predict = dict(baselines.make_baselines(train))["last_laugh"]
    frames = pool(baselines.score(test, predict))
    assert metrics.roc_auc_score(frames.y, frames.logit) > 0.75


# ---- files and plots -----------------------------------------------------------------------------------------------


def test_every_file_is_written(done):
    summary, folder = done
    assert json.loads((folder / "metrics.json").read_text()) == summary
    assert summary["labels"]["shift"] == SHIFT
    with np.load(folder / "predictions" / "test-003.npz") as arrays:
        assert set(arrays.files) >= {"t", "time_s", "prob", "logit", "y", "mask"}
        np.testing.assert_array_equal(arrays["logit"], TEST[3].logit)
        assert arrays["time_s"][5] == 5 * 0.08
    read = outputs.read_predictions(folder, "test")
    assert [(each.key, each.show, each.name) for each in read] == [(each.key, each.show, each.name) for each in TEST]
    np.testing.assert_array_equal(read[2].onsets, TEST[2].onsets)
    lines = (folder / "predictions.csv").read_text().splitlines()
    assert lines[0] == "episode,frame_idx,time_ms,prob,label,mask,split"
    assert len(lines) == 1 + (6 + 8) * 4500
    assert lines[2].startswith("Show 0 & Co: episode?,1,80,")
    assert (lines[2].split(",")[-1], lines[-1].split(",")[-1]) == ("validation", "test")
    names = {path.stem for path in (folder / "plots").iterdir()}
    assert {name[:2] for name in names} == {f"{number:02d}" for number in (*range(1, 10), 11, 12)}
    page = (folder / "report.html").read_text()
    assert page.count("<img") == len(names)
    assert "loudness" in page
    with np.load(folder / "curves.npz") as curves:
        assert {"roc_fpr", "roc_band_low", "pr_precision", "event_recall", "onset_locked_onsets"} <= set(curves.files)


def test_the_same_scores_give_the_same_bytes(done, tmp_path):
    _, folder = done
    run(tmp_path, settings=make_settings(eval={"csv": True}))
    files = [path.relative_to(folder) for path in folder.rglob("*.*") if path.suffix != ".html"]
    assert len(files) > 20
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_a_damaged_prediction_names_its_file(tmp_path):
    run(tmp_path, settings=make_settings(eval={"plots": "none"}))
    path = tmp_path / "predictions" / "test-001.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"test-001.npz can't be read"):
        outputs.read_predictions(tmp_path, "test")
    with pytest.raises(UserError, match="no predictions of split train"):
        outputs.read_predictions(tmp_path / "nowhere", "train")


EMPTY = [dataclasses.replace(each, mask=np.zeros_like(each.mask), onsets=each.onsets[:0]) for each in TEST]
QUIET = [dataclasses.replace(each, y=np.zeros_like(each.y), onsets=each.onsets[:0]) for each in TEST]
FULL = [dataclasses.replace(each, y=np.ones_like(each.y)) for each in TEST]


@pytest.mark.parametrize("test", [EMPTY, QUIET, FULL, QUIET[:1]], ids=["no frames", "negative", "positive", "one"])
def test_input_of_no_or_one_class_gives_figures_that_say_so(tmp_path, test):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = run(tmp_path, test=test)
    assert summary["test/auroc"] is None
    assert "positives" in summary["test/auroc/reason"]
    assert {path.name[:2] for path in (tmp_path / "plots").iterdir()} == {
        f"{number:02d}" for number in (*range(1, 10), 11, 12)
    }


def test_blank_figures_carry_the_reason():
    decision = decide(VALIDATION, make_settings())
    split = measure(QUIET, decision, make_settings(), 0)
    for chart, data in (plots.plot_roc(split, decision), plots.plot_precision_recall(split, decision)):
        assert data == {}
        assert "no positives among" in chart.axes[0].texts[0].get_text()
    chart, _ = event_plots.plot_onset_locked(split, decision, 0)
    assert chart.axes[0].texts[0].get_text() == "no events"


def test_without_test_episodes_validation_is_shown(tmp_path):
    summary = run(tmp_path, test=[])
    assert "test/ap" not in summary
    assert summary["val/ap"] > 0.3
    assert "There are no test episodes" in (tmp_path / "report.html").read_text()


def test_the_page_warns_of_what_makes_figures_void(tmp_path):
    quick = make_settings(eval={"plots": "none", "bootstrap": 0})
    flags = {"random_weights": True, "sample": False, "uses_oracle_mask": True}
    run(tmp_path, record=RECORD | {"flags": flags, "fit": {"shuffle_labels": True}}, settings=quick)
    page = (tmp_path / "report.html").read_text()
    assert "random weights: these figures say nothing" in page
    assert "silenced in the audio with the labels" in page
    assert "Labels were shuffled" in page
    assert "Synthetic corpus" not in page
    assert "no intervals (eval.bootstrap=0)" in page
    assert json.loads((tmp_path / "metrics.json").read_text())["flags"] == flags


def test_the_mean_around_an_onset_rises_before_it(monkeypatch):
    decision = decide(VALIDATION, make_settings())
    terminal = terminal_of(monkeypatch)
    evaluation = measure_all(TRAIN, VALIDATION, TEST, make_settings(), decision, 0)
    total = len(evaluation.splits) + len(evaluation.baselines)
    assert re.search(rf"measuring .*m{total}/{total}\x1b", terminal.getvalue())
    _, data = event_plots.plot_onset_locked(evaluation.splits["test"], decision, 0)
    seconds, mean = data["onset_locked_s"], data["onset_locked_onsets"]
    before = (seconds > -0.45) & (seconds < -0.05)
    assert mean[before].min() > 10 * mean[seconds < -1].mean()
    rows = [sigmoid(decision.platt.logit(each.logit))[each.onsets - 3] for each in TEST]
    assert mean[np.flatnonzero(np.isclose(seconds, -0.24))[0]] == pytest.approx(np.concatenate(rows).mean())


def test_timelines_show_the_best_the_middle_and_the_worst_episode():
    decision = decide(VALIDATION, make_settings())
    split = measure(TEST, decision, make_settings(), 0)
    chosen = event_plots.choose_episodes(split)
    ap = [metrics.average_precision_score(pool([each]).y, pool([each]).logit) for each in TEST]
    assert (chosen["best"], chosen["worst"]) == (int(np.argmax(ap)), int(np.argmin(ap)))
    long = make_episode(3, frames=20_000, events=40)
    matches = measure([long], decision, make_settings(), 0).matches[0]
    chart = event_plots.plot_timeline(long, matches, decision)
    assert len(chart.axes) == 5
    assert render_png(chart).startswith(b"\x89PNG")
