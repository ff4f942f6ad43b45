"""Metrics of gestures against closed forms and slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from voxlab.metrics import beats
from voxlab.metrics.errors import NotMeasurable
from voxlab.metrics.frechet import Gaussian, check_enough, fit_gaussian, frechet_distance
from voxlab.metrics.gesture_diversity import l1_diversity, mean_jerk, spread_ratio
from voxlab.metrics.gesture_errors import foot_skate, joint_angles, joint_distances, part_errors, root_drift
from voxlab.metrics.gesture_face import face_errors
from voxlab.motion.rotations import axis_angle_to_6d
from voxlab.motion.skeleton import UPPER_JOINTS

RULE = beats.BeatRule(0.1, "zeroed", slipped=False)


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# ---- Fréchet distance ----------------------------------------------------------------------------------------------


def test_a_shift_of_78_channels_by_one_is_78():
    features = numbers(0, 900, 78)
    first, second = fit_gaussian([features]), fit_gaussian([features + 1])
    assert frechet_distance(first, second) == pytest.approx(78.0, abs=1e-6)
    assert frechet_distance(first, first) < 1e-6


def test_doubling_a_centred_set_gives_the_trace():
    features = numbers(1, 500, 20) @ numbers(2, 20, 20)
    features -= features.mean(0)
    gaussian, doubled = fit_gaussian([features]), fit_gaussian([2 * features])
    assert frechet_distance(gaussian, doubled) == pytest.approx(np.trace(gaussian.covariance), rel=1e-9)


def test_a_singular_set_is_as_far_from_itself_as_nothing():
    features = numbers(3, 30, 5) @ numbers(4, 5, 60)  # rank 5 in 60 dimensions
    gaussian = fit_gaussian([features])
    assert frechet_distance(gaussian, gaussian) < 1e-6


def test_the_distance_is_that_of_scipys_matrix_root():
    from scipy.linalg import sqrtm

    first, second = fit_gaussian([numbers(5, 300, 12)]), fit_gaussian([numbers(6, 300, 12) @ numbers(7, 12, 12)])
    root = np.real(sqrtm(first.covariance @ second.covariance))
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(-3, 3)), min_size=1, max_size=6))
def test_independent_channels_add_up(channels):
    first, second, shifts = (np.array(values) for values in zip(*channels, strict=True))
    distance = frechet_distance(
        Gaussian(np.zeros(len(first)), np.diag(first**2), 9), Gaussian(shifts, np.diag(second**2), 9)
    )
    assert distance == pytest.approx((shifts**2 + (first - second) ** 2).sum(), abs=1e-9)


def test_pieces_make_the_same_gaussian_as_the_whole():
    features = numbers(8, 100, 7) + 1000
    pieces = fit_gaussian([features[:3], features[3:3], features[3:70], features[70:]])
    np.testing.assert_allclose(pieces.mean, features.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pieces.covariance, np.cov(features, rowvar=False), atol=1e-9)
    assert pieces.num_samples == 100


def test_too_few_samples_are_refused():
    gaussian = fit_gaussian([numbers(9, 19, 10)])
    with pytest.raises(NotMeasurable, match=r"19 feature vectors of 10 numbers.*fewer than 20.*metrics\.force=true"):
        check_enough(gaussian)
    check_enough(fit_gaussian([numbers(9, 20, 10)]))
    with pytest.raises(NotMeasurable, match="two feature vectors or more, not 1"):
        fit_gaussian([numbers(9, 1, 10), np.zeros((0, 10))])
    with pytest.raises(ValueError, match="of 10 and of 4 numbers"):
        frechet_distance(gaussian, fit_gaussian([numbers(9, 19, 4)]))


# ---- beats ---------------------------------------------------------------------------------------------------------


def slow_score(positions, onsets, mean_speeds, fps, rule):
    """The published procedure as loops over joints, frames, onsets and beats."""
    edge, scores = round(2 * fps), []
    for joint in UPPER_JOINTS:
        path, last = positions[:, joint], len(positions) - 1
        speeds = []
        for t in range(len(path)):
            before, after = max(t - 1, 0), min(t + 1, last)
            speeds.append(math.dist(path[after], path[before]) * fps / (after - before) / mean_speeds[joint])
        inner = speeds[edge : len(speeds) - edge]
        times = []
        for t, speed in enumerate(inner):
            around = [inner[min(max(t + k, 0), len(inner) - 1)] for k in range(-7, 8) if k]
            looked_up = speeds[t] if rule.slipped else speed
            if all(speed < other for other in around) and looked_up > rule.threshold:
                times.append(t / fps)
        bells = [math.exp(-(min(abs(onset - t) for t in times) ** 2) / (2 * 0.3**2)) for onset in onsets if times]
        scores.append(sum(bells) / len(onsets) if times else 0.0)
    return sum(scores) / len(scores)


def wander(seed: int, frames: int) -> np.ndarray:
    """Return smooth (T, 55, 3) paths."""
    steps = numbers(seed, frames + 8, 55, 3)
    return np.cumsum(sum(steps[k : k + frames] for k in range(8)), axis=0) / 300


@pytest.mark.parametrize("name", beats.RULES)
@pytest.mark.parametrize("fps", [15, 30])
def test_beat_consistency_is_that_of_the_slow_loops(name, fps):
    positions, onsets = wander(0, 9 * fps), np.array([0.1, 0.7, 1.9, 3.3, 4.8])
    speeds = beats.joint_speeds(positions, fps).mean(0)
    score, seconds = beats.beat_consistency(positions, onsets, speeds, fps, beats.RULES[name])
    assert seconds == pytest.approx(5.0)
    assert 0.05 < score < 1
    assert score == pytest.approx(slow_score(positions, onsets, speeds, fps, beats.RULES[name]), abs=1e-12)


def test_shifted_motion_is_motion_cut_at_its_beginning():
    positions, onsets = wander(1, 300), np.linspace(0.2, 5.9, 12)
    speeds = beats.joint_speeds(positions, 30).mean(0)
    shifted = beats.beat_consistency(positions, onsets, speeds, 30, RULE, shift=0.5)
    assert shifted == beats.beat_consistency(positions[15:], onsets, speeds, 30, RULE)
    assert shifted[1] == pytest.approx(5.5)


def pulses(frames: int, period: int) -> np.ndarray:
    """Return (T, 55, 3) paths whose speed is smallest at each multiple of `period` frames."""
    t = np.arange(frames)
    x = t - 0.95 * period / (2 * np.pi) * np.sin(2 * np.pi * t / period)
    return np.stack([x, x * 0, x * 0], axis=-1)[:, None].repeat(55, axis=1) / 100


def test_motion_that_slows_down_at_each_onset_scores_one_and_a_still_none():
    positions, onsets = pulses(360, 30), np.arange(1.0, 7.5)
    rule = beats.BeatRule(0.01, "zeroed", slipped=False)
    speeds = beats.joint_speeds(positions, 30).mean(0)
    assert beats.beat_consistency(positions, onsets, speeds, 30, rule)[0] == pytest.approx(1.0, abs=1e-9)
    between = beats.beat_consistency(positions, onsets + 0.5, speeds, 30, rule)[0]
    assert between == pytest.approx(math.exp(-(0.5**2) / (2 * 0.3**2)), abs=1e-9)
    assert beats.beat_consistency(np.zeros_like(positions), onsets, speeds, 30, rule)[0] == 0


def test_what_has_no_beat_consistency_says_why():
    positions, speeds = wander(2, 300), np.ones(55)
    with pytest.raises(NotMeasurable, match="no onsets in the audio"):
        beats.beat_consistency(positions, np.zeros(0), speeds, 30, RULE)
    with pytest.raises(NotMeasurable, match=r"4\.00 s of motion: too short to leave 2 s out at both ends"):
        beats.beat_consistency(positions[:120], np.ones(1), speeds, 30, RULE)
    with pytest.raises(NotMeasurable, match="stands still in all clips"):
        beats.beat_consistency(positions, np.ones(1), 0 * speeds, 30, RULE)


def test_clicks_are_found_where_they_are_at_any_rate_and_from_any_start():
    clicks = (3.0, 4.5, 6.25)
    for sample_rate in (16000, 44100):
        wav = 1e-4 * torch.randn(2, 10 * sample_rate, generator=torch.Generator().manual_seed(0))
        for at in clicks:
            wav[:, round(at * sample_rate) : round((at + 0.05) * sample_rate)] += 0.5
        for start in (0.0, 0.5):
            onsets = beats.find_onsets(wav, sample_rate, start, 9.0) + start + beats.EDGE
            assert all(np.abs(onsets - at).min() < 0.07 for at in clicks)
    assert len(beats.find_onsets(wav, sample_rate, 0.0, 3.9)) == 0


# ---- diversity, jerk, spread ---------------------------------------------------------------------------------------


def test_l1_diversity_is_the_double_sum_and_leaves_its_input():
    values = numbers(10, 50, 55, 3)
    before = values.copy()
    means = [[sum(values[:, j, k]) / 50 for k in range(3)] for j in range(55)]
    expected = sum(abs(values[t, j, k] - means[j][k]) for t in range(50) for j in range(55) for k in range(3)) / 50
    assert l1_diversity(values) == pytest.approx(expected)
    np.testing.assert_array_equal(values, before)
    assert l1_diversity(np.ones((9, 4))) == 0
    with pytest.raises(ValueError, match="no frames"):
        l1_diversity(values[:0])


@pytest.mark.parametrize("fps", [15, 30])
def test_the_jerk_of_a_cubic_is_its_coefficient(fps):
    t = np.arange(40)[:, None, None] / fps
    path = np.array([3.0, 4.0, 0.0]) * t**3 / 6
    assert mean_jerk(path.repeat(5, axis=1), fps) == pytest.approx(5.0, rel=1e-6)
    with pytest.raises(ValueError, match="four frames or more, not 3"):
        mean_jerk(path[:3], fps)


def test_the_spread_of_half_as_wide_motion_is_a_half():
    values = numbers(11, 30, 6)
    assert spread_ratio(values / 2 + 7, values) == pytest.approx(0.5)
    with pytest.raises(NotMeasurable, match="doesn't move"):
        spread_ratio(values, np.ones((30, 6)))


# ---- face ----------------------------------------------------------------------------------------------------------


def test_a_constant_error_of_the_face_shows_in_all_but_the_lvd():
    reference = numbers(12, 20, 9, 3)
    errors = face_errors(reference + 0.5, reference)
    assert (errors.mse, errors.lvd) == pytest.approx((0.25, 0.0), abs=1e-12)
    assert errors.position_l1 == pytest.approx(0.5 * 19 / 20)


def test_both_kinds_of_lvd_are_the_loops_of_their_tools():
    own, other = numbers(13, 8, 4), numbers(14, 8, 4)
    moved = positions = 0.0
    for t in range(7):
        for c in range(4):
            moved += abs((own[t + 1, c] - own[t, c]) - (other[t + 1, c] - other[t, c]))
            positions += abs((own[t + 1, c] - other[t, c]) - (other[t + 1, c] - other[t, c]))
    errors = face_errors(own, other)
    assert (errors.lvd, errors.position_l1) == pytest.approx((moved / 32, positions / 32))
    assert errors.mse == pytest.approx(((own - other) ** 2).mean())
    with pytest.raises(ValueError, match="of one shape"):
        face_errors(own, other[:7])


# ---- errors against a reference ------------------------------------------------------------------------------------


def test_errors_of_a_part_are_means_over_frames_and_channels():
    reference = numbers(15, 12, 4)
    drift = 0.1 * np.arange(12)[:, None]
    found = part_errors(reference + drift, reference)
    assert found["mse"] == pytest.approx((drift**2).mean())
    assert (found["l1"], found["velocity_l1"]) == pytest.approx((0.55, 0.1))


def test_angles_are_those_that_joints_were_turned_by():
    turns = torch.linspace(0, 170, 55, dtype=torch.float64)
    axis = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    poses = axis_angle_to_6d(torch.deg2rad(turns)[:, None] * axis).flatten().expand(4, -1).numpy()
    still = axis_angle_to_6d(torch.zeros(55, 3)).flatten().expand(4, -1).numpy()
    np.testing.assert_allclose(joint_angles(poses, still), turns, atol=1e-6)
    np.testing.assert_allclose(joint_angles(np.float32(3) * poses, poses), 0, atol=1e-6)  # lengths of rows don't count


def test_distances_are_in_centimetres():
    reference = numbers(16, 6, 3, 3)
    moved = reference + np.array([0.0, 0.03, 0.04])
    np.testing.assert_allclose(joint_distances(moved, reference), 5.0)


def test_feet_that_slide_while_the_reference_stands():
    reference = np.zeros((30, 55, 3))
    reference[15:, :, 0] = np.arange(15)[:, None]  # walks off at a metre a frame: no contact
    sliding = np.zeros((30, 55, 3))
    sliding[:, :, 2] = 0.02 * np.arange(30)[:, None]
    assert foot_skate(sliding, reference, 30) == pytest.approx(0.6)
    assert foot_skate(reference, reference, 30) == pytest.approx(0.0)
    running = 0.1 * np.arange(30.0)[:, None, None] * np.ones((30, 55, 3))
    assert foot_skate(sliding, running, 30) is None


def test_drift_counts_the_ground_only_and_from_a_common_start():
    reference = np.zeros((5, 3))
    path = np.linspace([7.0, 0, -2], [10.0, 9, 2], 5)
    assert root_drift(path, reference) == pytest.approx(5.0)
