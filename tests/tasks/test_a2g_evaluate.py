"""Evaluation of gestures: what a record holds, what is refused, baselines, folders, and the published procedure."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from voxlab.audio import load
from voxlab.data.beat2 import Beat2
from voxlab.data.motion_store import open_motion_store
from voxlab.errors import UserError
from voxlab.metrics import beats
from voxlab.metrics.frechet import fit_gaussian, frechet_distance
from voxlab.metrics.gesture_face import face_errors
from voxlab.motion.clip import Motion
from voxlab.motion.files import read_motion, write_motion
from voxlab.motion.kinematics import joint_positions
from voxlab.motion.parts import columns, read_layout
from voxlab.motion.representation import to_frames
from voxlab.motion.skeleton import EYES, JOINT_NAMES, synthetic_skeleton
from voxlab.motion.statistics import compute_statistics, load_legacy
from voxlab.parallel import Ranks
from voxlab.report import render_report
from voxlab.tasks.a2g import fgd, measure, metric_plots, report, tables
from voxlab.tasks.a2g.baselines import HOLD, MEAN_POSE, SHUFFLED, TRUTH, baselines, play, with_baselines
from voxlab.tasks.a2g.evaluate import Pair, evaluate, evaluate_methods
from voxlab.tasks.a2g.folders import PREDICTED, evaluate_folders
from voxlab.tasks.a2g.protocols import FgdNet, Metrics

SKELETON, LAYOUT = synthetic_skeleton(), read_layout("full421")
FORCED = Metrics(force=True)


def make_motion(seed: int, frames: int = 210) -> Motion:
    """Return smooth motion: sums of slow waves, small angles."""
    generator, t = np.random.default_rng(seed), np.arange(frames)[:, None] / 30
    waves = [0.2 * np.sin(generator.uniform(2, 8, size) * t + generator.uniform(0, 6, size)) for size in (165, 100, 3)]
    poses, expressions, trans = waves
    return Motion(
        poses.astype("f4"), trans + np.array([0, 1.3, 0]), expressions.astype("f4"), np.full(300, seed, "f4"), 30
    )


def cut(motion: Motion, frames: int) -> Motion:
    return measure.Measured(motion, np.zeros((motion.num_frames, 0)), {}).cut(frames).motion


@pytest.fixture(scope="module")
def wav(tmp_path_factory) -> Path:
    """Seven seconds with a burst of noise each half second."""
    path = tmp_path_factory.mktemp("audio") / "bursts.wav"
    t = np.arange(7 * 16000) / 16000
    noise = np.random.default_rng(0).normal(size=len(t))
    soundfile.write(path, 0.3 * noise * ((t % 0.5) < 0.1), 16000)
    return path


@pytest.fixture(scope="module")
def references() -> list[Motion]:
    return [make_motion(seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def same(references):
    statistics = compute_statistics([to_frames(motion) for motion in references])
    return {"skeleton": SKELETON, "layout": LAYOUT, "statistics": statistics}


@pytest.fixture(scope="module")
def records(references, same, wav):
    pairs = [
        Pair(f"clip{number}", make_motion(number + 10), motion, wav if number else None)
        for number, motion in enumerate(references)
    ]
    return evaluate_methods(with_baselines("this model", pairs, same["statistics"]), settings=FORCED, **same)


def test_the_truth_has_no_errors_and_its_own_motion(records):
    truth = records[TRUTH]
    values = truth["values"]
    errors = [name for name in values if name.split("/")[0] in ("mse", "l1", "velocity_l1")]
    errors += ["geodesic_deg", "mpjpe_cm", "root_drift", "face_coef_mse", "face_coef_lvd", "fgd_raw", "bad_numbers"]
    assert {name: values[name] for name in errors} == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-4)
    assert len(errors) == 4 * 3 + 7
    for name, value in truth["reference"].items():
        assert values[name] == pytest.approx(value), name
        assert records["this model"]["reference"][name] == value


def test_baselines_order_as_they_must(records):
    values = {name: record["values"] for name, record in records.items()}
    for measured in ("mse/upper", "mse/hands", "mse/lower_trans", "mse/face", "geodesic_deg", "mpjpe_cm"):
        others = (values[MEAN_POSE][measured], values[SHUFFLED][measured], values["this model"][measured])
        assert 0 < values[HOLD][measured] < 0.5 * min(others), measured
    for part in ("upper", "hands", "lower_trans", "face"):
        assert values[HOLD][f"mse_of_mean/{part}"] == pytest.approx(1, abs=0.02)  # of unit variance
    assert values[MEAN_POSE]["l1div"] == pytest.approx(0, abs=1e-6)
    assert values[MEAN_POSE]["std_ratio/upper"] == pytest.approx(0, abs=1e-3)
    assert values[HOLD]["jerk"] > 2 * values[TRUTH]["jerk"]
    assert values[MEAN_POSE]["fgd_raw"] > 10 * values[SHUFFLED]["fgd_raw"]


def test_a_record_says_how_and_what_not_and_is_plain_json(records):
    record = records["this model"]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    about = record["about"]
    assert (about["protocol"], about["fps"], about["joints"], about["layout"]) == (
        "default",
        30,
        "synthetic",
        "full421",
    )
    assert (about["clips"], about["frames"], about["mean_speeds"]) == (3, 630, "references")
    assert record["skipped"]["bc_fixed"] == "1 of 3 clips: no audio"
    assert record["skipped"]["face_mse"].startswith("no body model")
    assert record["fgd"]["fgd_raw"]["predicted"] == 3 * (210 - 16)
    assert set(record["joints"]) == {name for number, name in enumerate(JOINT_NAMES) if number not in EYES}
    assert "bc_fixed" not in record["clips"]["clip0"]
    assert "bc_fixed" in record["clips"]["clip1"]


def test_values_are_means_over_frames_of_the_clips(same, wav):
    short, long = make_motion(1, 180), make_motion(2, 210)
    pairs = [Pair("a", make_motion(5, 180), short, wav), Pair("b", make_motion(6, 210), long, wav)]
    both = evaluate(pairs, settings=FORCED, **same)
    one, other = both["clips"]["a"], both["clips"]["b"]
    assert both["values"]["mpjpe_cm"] == pytest.approx((180 * one["mpjpe_cm"] + 210 * other["mpjpe_cm"]) / 390)
    assert both["values"]["bc_fixed"] == pytest.approx((2 * one["bc_fixed"] + 3 * other["bc_fixed"]) / 5)
    assert both["values"]["root_drift"] == pytest.approx((one["root_drift"] + other["root_drift"]) / 2)
    speeds = fgd.mean_speeds((joint_positions(motion, SKELETON), 30) for motion in (short, long))
    audio, rate = soundfile.read(wav, dtype="float32", always_2d=True)
    import torch

    onsets = beats.find_onsets(torch.from_numpy(audio.T), rate, 0.0, 7.0)
    positions = joint_positions(pairs[1].predicted, SKELETON, root="zeroed", trans=False)
    expected, _ = beats.beat_consistency(positions, onsets, speeds, 30, beats.RULES["bc_compat_2025"])
    assert other["bc_compat_2025"] == pytest.approx(expected)
    shifted = other["bc_compat_2025"] - other["bc_compat_2025_shifted"]
    assert other["bc_compat_2025_over_shifted"] == pytest.approx(shifted)


def test_a_start_in_the_recording_shifts_what_is_heard(same, wav, tmp_path):
    audio, rate = soundfile.read(wav)
    later = tmp_path / "later.wav"
    soundfile.write(later, np.concatenate([np.zeros(2 * rate), audio]), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "same.wav", audio, rate, subtype="FLOAT")
    found = [
        evaluate([Pair("a", make_motion(5), make_motion(1), path, start)], settings=FORCED, **same)["values"]
        for path, start in ((tmp_path / "same.wav", 0.0), (later, 2.0))
    ]
    assert found[0]["bc_fixed"] == pytest.approx(found[1]["bc_fixed"], abs=1e-9)
    assert found[0]["bc_fixed"] > 0


def test_a_turned_body_shows_where_the_root_is_kept_only(same, references):
    turned = references[0].poses.copy()
    turned[:, :3] = (0.0, 1.0, 0.0)
    record = evaluate([Pair("a", dataclasses.replace(references[0], poses=turned), references[0], None)],
                      settings=FORCED, **same)  # fmt: skip
    assert record["values"]["l1div"] == pytest.approx(record["reference"]["l1div"], rel=1e-5)
    assert record["values"]["l1div_root_kept"] != pytest.approx(record["reference"]["l1div_root_kept"], rel=1e-3)
    assert record["joints"]["pelvis"]["degrees"] > 40
    assert record["joints"]["head"]["degrees"] == pytest.approx(0, abs=0.05)


def test_a_body_in_place_is_compared_in_place(same, references):
    still = dataclasses.replace(references[0], trans=references[0].trans * (0, 1, 0))
    pairs = [Pair("a", still, references[0], None)]
    moving = evaluate(pairs, settings=FORCED, **same)["values"]
    in_place = evaluate(pairs, settings=FORCED, trans="none", **same)["values"]
    assert in_place["mse/lower_trans"] == 0 < moving["mse/lower_trans"]
    assert in_place["root_drift"] == moving["root_drift"] > 0


def test_eyes_are_in_no_error(same, references):
    blinking = references[0].poses.copy()
    blinking[:, 69:75] += 0.5
    pair = Pair("a", dataclasses.replace(references[0], poses=blinking), references[0], None)
    values = evaluate([pair], settings=FORCED, **same)["values"]
    assert values["geodesic_deg"] == pytest.approx(0, abs=0.05)
    assert values["mpjpe_cm"] == pytest.approx(0, abs=1e-3)


def test_numbers_that_are_not_finite_are_counted_and_their_clip_left_out(same, references):
    broken = references[0].poses.copy()
    broken[7, :5] = np.nan
    pairs = [
        Pair("bad", dataclasses.replace(references[0], poses=broken), references[0], None),
        Pair("good", references[1], references[1], None),
    ]
    record = evaluate(pairs, settings=FORCED, **same)
    assert record["values"]["bad_numbers"] == 5
    assert record["left_out"] == {"bad": "numbers that are not finite"}
    assert list(record["clips"]) == ["good"]
    with pytest.raises(UserError, match=r"no clip could be measured\. bad: numbers that are not finite"):
        evaluate(pairs[:1], settings=FORCED, **same)


def test_lengths_may_differ_by_two_frames(same, references):
    near = evaluate([Pair("a", cut(references[0], 208), references[0], None)], settings=FORCED, **same)
    assert near["values"]["mse/upper"] == 0
    assert near["about"]["frames"] == 208
    with pytest.raises(UserError, match=r"a: 207 predicted frames for 210 of the reference; up to 2"):
        evaluate([Pair("a", cut(references[0], 207), references[0], None)], settings=FORCED, **same)


def test_two_frame_rates_are_refused_and_so_is_nothing(same, references):
    slow = dataclasses.replace(references[0], fps=15)
    with pytest.raises(UserError, match=r"15, 30 frames a second can't be compared"):
        evaluate([Pair("a", slow, references[0], None)], settings=FORCED, **same)
    with pytest.raises(UserError, match="no clips to evaluate"):
        evaluate([], settings=FORCED, **same)


def test_few_feature_vectors_need_force(same):
    pair = Pair("a", make_motion(2, 60), make_motion(1, 60), None)
    record = evaluate([pair], settings=Metrics(), **same)
    assert "fgd_raw" not in record["values"]
    assert record["skipped"]["fgd_raw"].startswith("44 feature vectors of 91 numbers")
    forced = evaluate([pair], settings=FORCED, **same)
    assert forced["values"]["fgd_raw"] > 0
    assert forced["fgd"]["fgd_raw"]["enough"] is False


def test_settings_are_checked():
    with pytest.raises(UserError, match=r"metrics\.protocol=paper: choose default, paper2024 or paper2025"):
        Metrics(protocol="paper")
    with pytest.raises(UserError, match=r"metrics\.mesh=no: choose auto or required"):
        Metrics(mesh="no")
    with pytest.raises(UserError, match=r"metrics\.force='yes': give true or false"):
        Metrics(force="yes")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"metrics\.fgd\.window=40: not a multiple of 16; try 32 or 48"):
        FgdNet(window=40)
    with pytest.raises(UserError, match=r"metrics\.fgd\.steps=0: give a number above 0"):
        FgdNet(steps=0)


def test_the_cost_of_the_mean_is_that_of_its_numbers_whatever_is_normalised(same, references):
    legacy = {**same, "layout": read_layout("legacy415")}
    record = evaluate([Pair("a", make_motion(9), references[0], None)], settings=FORCED, **legacy)
    expressions = references[0].expressions - same["statistics"].mean[333:]
    assert record["values"]["mse_of_mean/face"] == pytest.approx((expressions**2).mean(), rel=1e-4)
    assert "jaw" not in record["joints"]


# ---- face mesh -----------------------------------------------------------------------------------------------------


class FlatFace:
    """Stands in for the body model: five vertices that follow expressions, jaw and shape."""

    def face_vertices(self, motion: Motion) -> np.ndarray:
        moved = motion.expressions[:, :15] + motion.poses[:, 66:67] + motion.betas[0]
        return moved.reshape(-1, 5, 3)


def test_the_mesh_of_a_long_clip_is_measured_in_pieces(same, monkeypatch):
    monkeypatch.setattr(measure, "_MESH_FRAMES", 13)
    predicted, reference = make_motion(4), make_motion(1)
    record = evaluate([Pair("a", predicted, reference, None)], settings=FORCED, body=FlatFace(), **same)
    own = dataclasses.replace(predicted, betas=reference.betas)  # another shape is no error of the face
    whole = face_errors(FlatFace().face_vertices(own), FlatFace().face_vertices(reference))
    found = [record["values"][f"face_{name}"] for name in ("mse", "lvd", "position_l1")]
    assert found == pytest.approx([whole.mse, whole.lvd, whole.position_l1], rel=1e-9)
    assert record["about"]["mesh"]
    scaled = evaluate(
        [Pair("a", predicted, reference, None)], settings=Metrics(protocol="paper2024"), body=FlatFace(), **same
    )
    assert scaled["headline"]["face MSE ×1e8"] == pytest.approx(1e8 * whole.mse)
    assert scaled["headline"]["face LVD (positions) ×1e5"] == pytest.approx(1e5 * whole.position_l1)
    assert scaled["headline"]["FGD ×10"] is None


def test_a_mesh_that_is_required_must_be_there(same, references):
    pairs = [Pair("a", references[0], references[0], None)]
    with pytest.raises(UserError, match=r"metrics\.mesh=required.*body\.skeleton=smplx body\.path=FOLDER"):
        evaluate(pairs, settings=Metrics(mesh="required"), **same)


# ---- baselines -----------------------------------------------------------------------------------------------------


def test_baselines_are_as_long_as_their_clips(references, same):
    clips = [cut(references[0], 30), references[1]]
    made = baselines(clips, same["statistics"])
    for motions in made.values():
        assert [motion.num_frames for motion in motions] == [30, 210]
    np.testing.assert_array_equal(made[HOLD][0].poses[4:8], references[0].poses[[4, 4, 4, 4]])
    np.testing.assert_array_equal(made[SHUFFLED][0].poses, references[1].poses[:30])
    still = made[MEAN_POSE][1]
    assert np.ptp(still.trans, axis=0).max() == 0
    np.testing.assert_allclose(still.trans[0, ::2], clips[1].trans[0, ::2], atol=1e-6)
    assert SHUFFLED not in baselines(clips[:1], same["statistics"])


def test_a_short_clip_is_played_to_and_fro():
    motion = make_motion(1, 4)
    played = play(motion, 9)
    np.testing.assert_array_equal(played.poses, motion.poses[[0, 1, 2, 3, 2, 1, 0, 1, 2]])
    np.testing.assert_array_equal(play(cut(motion, 1), 3).poses, motion.poses[[0, 0, 0]])


# ---- pages ---------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_method_and_no_empty_columns(records):
    names, rows = tables.metric_rows(records, "default")
    assert [row[0] for row in rows] == ["this model", TRUTH, HOLD, MEAN_POSE, SHUFFLED]
    assert "BC, corrected" in names
    assert not {"face MSE", "FGD, EMAGE's net", "FGD, own net"} & set(names)
    text = tables.metric_text(records, "default").splitlines()
    assert len(text) == 6
    assert len({len(line) for line in text}) == 1
    sections = [*tables.metric_table(records, "default"), tables.published_table()]
    page = render_report("a", "b", sections)
    for told in ("1 of 3 clips: no audio", "5.512", "upper MSE", "orientation zeroed"):
        assert told in page


def test_plots_show_all_joints_and_onsets(records, references, wav, same):
    chart = metric_plots.plot_joints(records)
    assert len(chart.axes[0].get_xticks()) == 53
    pair = Pair("a", make_motion(5), references[0], wav)
    speeds = fgd.mean_speeds([(joint_positions(references[0], SKELETON), 30)])
    axes = metric_plots.plot_speed(pair, SKELETON, speeds).axes[0]
    assert len(axes.collections) == 1  # the onsets
    seconds = axes.lines[0].get_xdata()
    assert (min(seconds), max(seconds)) == pytest.approx((2.0, 5.0 - 1 / 30))


def test_speeds_are_drawn_of_clips_longer_than_their_edges(references, wav):
    pairs = [
        Pair("long", make_motion(5), references[0], wav),
        Pair("short", make_motion(6, 120), make_motion(7, 120), wav),
    ]
    (section,) = report.speeds(pairs, SKELETON)
    assert section.title.startswith("Speed of the upper body, long (ticks")
    still = dataclasses.replace(references[0], poses=0 * references[0].poses, trans=0 * references[0].trans)
    assert list(report.speeds([Pair("still", still, still, None)], SKELETON)) == []


# ---- folders and stores --------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, references, wav):
    own, other = tmp_path / "own", tmp_path / "smplxflame_30"
    for number, motion in enumerate(references):
        write_motion(other / f"2_scott_0_{number}_{number}.npz", motion)
    for number in (0, 1):
        write_motion(own / f"res_2_scott_0_{number}_{number}.npz", make_motion(number + 10))
    (tmp_path / "wave16k").mkdir()
    (tmp_path / "wave16k" / "2_scott_0_1_1.wav").write_bytes(wav.read_bytes())
    return own, other


def test_two_folders_are_compared_by_the_names_of_their_files(folders):
    own, other = folders
    found = evaluate_folders(own, other, settings=FORCED, skeleton=SKELETON, layout=LAYOUT)
    assert list(found) == [PREDICTED, TRUTH, HOLD, MEAN_POSE, SHUFFLED]
    about = found[PREDICTED]["about"]
    assert (about["clips"], about["not_predicted"], about["statistics"]) == (2, 1, "of the reference clips")
    assert "bc_fixed" in found[PREDICTED]["clips"]["2_scott_0_1_1"]
    assert found[TRUTH]["values"]["mse/upper"] == 0


def test_a_clip_of_one_frame_is_left_out_and_said(folders):
    own, other = folders
    write_motion(own / "short.npz", make_motion(4, 1))
    write_motion(other / "short.npz", make_motion(4, 1))
    found = evaluate_folders(own, other, settings=FORCED, skeleton=SKELETON, layout=LAYOUT)
    for record in found.values():
        assert record["left_out"] == {"short": "reference: 1 frames, fewer than 4"}
        assert set(record["clips"]) == {"2_scott_0_0_0", "2_scott_0_1_1"}


def test_a_dry_run_looks_for_the_pairs(folders, tmp_path):
    from voxlab.tasks.a2g import stages

    own, other = folders
    how: Any = SimpleNamespace(metrics=FORCED, stage=SimpleNamespace(skeleton=SKELETON, mesh=None))
    place = stages.Place(Ranks(), tmp_path / "run", {}, dry_run=True)
    corpus = Beat2(source="sample", root=str(tmp_path / "BEAT2"))
    time = "not measured: all pairs are compared at once"
    plan = {"clips": 2, "recordings": 1, "time": time}
    assert stages.evaluate(corpus, str(own), str(other), None, how, place) == plan
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="lacks 1 of the 3 clips"):
        stages.evaluate(corpus, str(other), str(own), None, how, place)


def test_folders_that_do_not_match_are_refused(folders, tmp_path, wav):
    own, other = folders
    given = {"settings": FORCED, "skeleton": SKELETON, "layout": LAYOUT}
    with pytest.raises(UserError, match=r"predicted=.*nowhere: no such folder"):
        evaluate_folders(tmp_path / "nowhere", other, **given)
    with pytest.raises(UserError, match=r"no \.npz motion files"):
        evaluate_folders(own, tmp_path / "wave16k", **given)
    write_motion(own / "3_anna_0_1_1.npz", make_motion(1))
    with pytest.raises(UserError, match=r"lacks 1 of the 3 clips .*: 3_anna_0_1_1\. It has 2_scott_0_0_0"):
        evaluate_folders(own, other, **given)
    (own / "3_anna_0_1_1.npz").unlink()
    for sounds, message in (
        (wav, "no such folder"),
        (own, r"no recording of the clips.*2_scott_0_0_0\.wav, 2_scott_0_1"),
    ):
        with pytest.raises(UserError, match=rf"audio=.*{sounds.name}.*{message}"):
            evaluate_folders(own, other, wavs=sounds, **given)
    write_motion(own / "2_scott_0_0_0.npz", make_motion(1))
    with pytest.raises(UserError, match=r"are of one clip"):
        evaluate_folders(own, other, **given)


def test_a_motion_store_gives_nets_and_speeds(tmp_path):
    corpus = Beat2(source="sample", root=str(tmp_path / "BEAT2"), store=str(tmp_path / "store"))
    store = open_motion_store(corpus)
    settings = Metrics(fgd=FgdNet(width=8, dim=4, steps=2, batch_size=4))
    clips = store.split("train")
    statistics = compute_statistics(clip.frames() for clip in clips)
    nets = fgd.feature_nets(store, statistics, settings)
    train = fgd.train_reference(store, SKELETON, nets, settings)
    assert [net.name for net in nets] == ["fgd_raw", "fgd_ae"]
    assert (train.source, set(train.features)) == ("train", {"fgd_raw", "fgd_ae"})
    assert train.features["fgd_ae"].num_samples == sum(clip.num_frames // 16 for clip in clips)
    assert (store.folder / "fgd" / f"{nets[1].id}.safetensors").is_file()
    assert [clip.id for clip in open_motion_store(corpus).clips] == [clip.id for clip in store.clips]
    pairs = [
        Pair(clip.id, clip.motion(), clip.motion(), clip.wav, clip.wav_start) for clip in store.split("validation")
    ]
    record = evaluate(
        pairs, settings=settings, skeleton=SKELETON, layout=LAYOUT, statistics=statistics, nets=nets, train=train
    )
    assert record["fgd"]["fgd_ae"]["train_against_reference"] > record["values"]["fgd_ae"] - 1e-6
    assert record["about"]["mean_speeds"] == "train"
    assert record["values"]["bc_fixed"] > 0


# ---- the real clip -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real():
    folder = Path(os.environ.get("VOXLAB_REAL_DATA", "")) / "beat2/BEAT2/beat_english_v2.0.0"
    clip = folder / "smplxflame_30/2_scott_0_1_1.npz"
    if "VOXLAB_REAL_DATA" not in os.environ or not clip.is_file():
        pytest.skip("VOXLAB_REAL_DATA names no folder with beat2/ in it")
    return read_motion(clip), folder / "wave16k/2_scott_0_1_1.wav"


def test_real_motion_scores_as_published_tools_score_it(real):
    motion, wav = real
    statistics = compute_statistics([to_frames(motion)])
    noisy = motion.poses + np.random.default_rng(0).normal(scale=0.05, size=motion.poses.shape).astype("f4")
    methods = with_baselines("noise", [Pair("a", dataclasses.replace(motion, poses=noisy), motion, wav)], statistics)
    found = evaluate_methods(methods, settings=FORCED, skeleton=SKELETON, layout=LAYOUT, statistics=statistics)
    values = {name: record["values"] for name, record in found.items()}
    truth = values[TRUTH]
    if motion.num_frames == 1906:
        assert truth["l1div"] == pytest.approx(13.460, abs=0.01)
        assert truth["l1div_root_kept"] == pytest.approx(13.836, abs=0.01)
    assert abs(truth["bc_compat_2025_over_shifted"]) < 0.02  # half a second off is hardly noticed
    assert values["noise"]["bc_compat_2025"] > truth["bc_compat_2025"] > truth["bc_fixed"]
    assert values["noise"]["jerk"] > 10 * truth["jerk"]
    assert values[MEAN_POSE]["bc_compat_2025"] == 0
    assert 0.02 < values[HOLD]["mse/upper"] < 0.08
    assert values[HOLD]["mse_of_mean/upper"] == pytest.approx(1, abs=0.01)


def test_real_motion_has_the_beat_consistency_that_was_measured_independently(real):
    motion, wav = real
    audio, rate = load(wav)
    onsets = beats.find_onsets(audio, rate, 0.0, motion.num_frames / motion.fps)
    speeds = beats.joint_speeds(joint_positions(motion, SKELETON, trans=False), motion.fps).mean(0)
    positions = joint_positions(motion, SKELETON, root="zeroed", trans=False)
    noisy = positions + np.random.default_rng(0).normal(scale=0.01, size=positions.shape)
    given = {"onsets": onsets, "mean_speeds": speeds, "fps": motion.fps, "rule": beats.RULES["bc_compat_2025"]}
    score, shifted, noise, still = (
        beats.beat_consistency(places, shift=shift, **given)[0]
        for places, shift in ((positions, 0.0), (positions, 0.5), (noisy, 0.0), (0 * positions, 0.0))
    )
    assert still == 0
    assert abs(score - shifted) < 0.02
    assert noise > score + 0.05
    if motion.num_frames == 1906:
        assert (score, shifted, noise) == pytest.approx((0.748, 0.747, 0.857), abs=0.02)


def test_distances_of_real_motion_are_those_of_the_closed_form(real):
    motion, wav = real
    path = wav.parents[3] / "metadata" / "beatx_speaker2_stats.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    part = LAYOUT.part("upper")
    values = load_legacy(path).normalize(to_frames(motion)[:, columns(part)].astype(np.float64), part, LAYOUT)
    centred = values - values.mean(0)
    doubled = frechet_distance(fit_gaussian([centred]), fit_gaussian([2 * centred]))
    assert doubled == pytest.approx(np.trace(np.cov(values, rowvar=False)), rel=1e-9)
    assert frechet_distance(fit_gaussian([values]), fit_gaussian([values + 1])) == pytest.approx(78, abs=1e-6)
    if motion.num_frames == 1906:
        assert doubled == pytest.approx(56.23, abs=0.01)
