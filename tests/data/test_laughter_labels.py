"""Labels of frames: the worked example, the definitions frame by frame, and what is refused."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from voxlab.data.episodes import Event, end_frame_of, frame_of
from voxlab.data.laughter_labels import LabelSettings, compute_labels, merge_events
from voxlab.errors import UserError

SPANS = [(0.0, 0.16), (0.56, 0.72), (0.96, 1.2), (1.68, 1.8)]
PLAIN = {"merge_gap_s": 0.0, "guard_s": 0.0}


def laughs(*spans, **more):
    return [Event("Laughter", start, end, **more) for start, end in spans]


def positives(labels):
    return set(np.flatnonzero((labels.y > 0) & labels.mask).tolist())


def ignored(labels):
    return set(np.flatnonzero(~labels.mask).tolist())


# ---- the worked example ----------------------------------------------------------------------------------------------


def test_labels_as_the_earlier_project_had_them():
    settings = LabelSettings(**PLAIN, in_event="negative", past_end="mark")
    labels = compute_labels(laughs(*SPANS), 20, settings)
    assert positives(labels) == {*range(2, 12), *range(16, 20)}
    assert ignored(labels) == set()


def test_default_labels_ignore_events_and_drop_those_past_the_end():
    labels = compute_labels(laughs(*SPANS), 20, LabelSettings(**PLAIN))
    assert positives(labels) == {2, 3, 4, 5, 6, 9, 10, 11}
    assert ignored(labels) == {0, 1, 7, 8, 12, 13, 14}
    assert labels.counts == {
        **{"events": 4, "merged": 3, "n_past_end": 1, "n_unpredictable": 1, "positives": 8, "ignored": 7},
        **{"n_low_confidence": 0, "n_unknown_speaker": 0},
    }
    assert labels.onsets.tolist() == [7, 12]
    assert labels.spans.tolist() == [[0, 2], [7, 9], [12, 15]]
    assert (labels.y.dtype, labels.mask.dtype, labels.onsets.dtype, labels.spans.dtype) == (
        *(np.float32, np.bool_, np.int64, np.int64),
    )


def test_shift_one_labels_one_frame_an_event():
    assert positives(compute_labels(laughs(*SPANS), 20, LabelSettings(**PLAIN, shift=1))) == {6, 11}


def test_frames_of_decimal_times():
    assert frame_of(2.32) == 29
    assert [frame_of(round(0.08 * k, 2)) for k in range(100_000)] == list(range(100_000))
    assert [end_frame_of(round(0.08 * k, 2)) for k in range(100_000)] == list(range(100_000))


# ---- definitions, frame by frame -------------------------------------------------------------------------------------


def defined(mode, t, spans, shift):
    """What the label of frame t is for events of frames s to e - 1, by the definition of each mode."""
    if mode == "window":
        return float(any(1 <= s - t <= shift for s, _ in spans))
    if mode == "exact":
        return float(any(s - t == shift for s, _ in spans))
    if mode == "interval":
        return float(any(s <= t + shift < e for s, e in spans))
    if mode == "detect":
        return float(any(s <= t < e for s, e in spans))
    ahead = [(s - t) * 0.08 for s, _ in spans if s > t]
    return 1 / (1 + min(ahead)) if ahead and min(ahead) <= 10 else 0.0


times = st.lists(st.tuples(st.integers(0, 1900), st.integers(0, 150)), max_size=6)


@pytest.mark.parametrize("mode", ["window", "exact", "interval", "detect", "horizon"])
@hypothesis_settings(max_examples=30)
@given(data=times, shift=st.integers(1, 30), in_event=st.sampled_from(["ignore", "negative", "positive"]))
def test_labels_follow_the_definitions(mode, data, shift, in_event):
    events = laughs(*((start / 100, (start + length) / 100) for start, length in data))
    settings = LabelSettings(mode=mode, shift=shift, in_event=in_event, merge_gap_s=0, guard_s=0.16)
    labels = compute_labels(events, 250, settings)
    spans = [(s * 2 // 16, min(250, max(s * 2 // 16 + 1, -(-(s + n) * 2 // 16)))) for s, n in data]  # of 0.01 s
    for t in range(250):
        inside = any(s <= t < e for s, e in spans)
        near = any(s <= t < e + 2 for s, e in spans)
        masked = in_event == "ignore" and (near and not inside if mode == "detect" else near)
        target = 1.0 if in_event == "positive" and inside else defined(mode, t, spans, shift)
        assert labels.mask[t] == (not masked), t
        assert labels.y[t] == pytest.approx(target, abs=1e-6), t


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), max_size=8), st.integers(0, 30))
def test_merging_leaves_gaps_of_at_least_the_limit(spans, gap):
    events = laughs(*((float(start), float(start + length)) for start, length in spans))
    merged = merge_events(events, float(gap))
    if gap == 0:
        assert merged == sorted(set(events), key=lambda event: (event.start, event.end))
        return
    assert all(second.start - first.end >= gap for first, second in itertools.pairwise(merged))
    for event in events:
        assert any(whole.start <= event.start and event.end <= whole.end for whole in merged)
    covered = {t for whole in merged for t in range(int(whole.start), int(whole.end) + 1)}
    held = {t for event in events for t in range(int(event.start), int(event.end) + 1)}
    near = {t for t in covered if any(abs(t - other) < gap for other in held)}
    assert held <= covered == near | held


def test_only_one_speakers_events_are_merged():
    mine, yours = Event("Laughter", 1.0, 1.5, speaker="a"), Event("Laughter", 1.6, 2.0, speaker="b")
    more = Event("Laughter", 2.2, 2.5, speaker="a")
    assert merge_events([yours, more, mine], 1.0) == [dataclasses.replace(mine, end=2.5), yours]


def test_fragments_are_one_event_and_equal_events_too():
    labels = compute_labels(laughs((4.0, 4.4), (5.0, 5.2), (4.0, 4.4), (9.0, 9.5)), 200, LabelSettings())
    assert (labels.counts["events"], labels.counts["merged"]) == (4, 2)
    assert labels.spans.tolist() == [[50, 65], [112, 119]]
    twice = compute_labels(laughs((4.0, 4.4), (4.0, 4.4)), 200, LabelSettings(merge_gap_s=0))
    assert twice.counts["merged"] == 1


# ---- which events and frames count -----------------------------------------------------------------------------------


def test_other_labels_are_passed_over():
    labels = compute_labels([Event("Music", 1.0, 4.0), Event("Um", 2.0, 2.2)], 100, LabelSettings())
    assert (labels.counts["events"], positives(labels), ignored(labels)) == (0, set(), set())


def test_no_events_are_valid():
    labels = compute_labels([], 100, LabelSettings())
    assert labels.mask.all()
    assert not labels.y.any()
    assert labels.spans.shape == (0, 2)
    assert labels.onsets.shape == (0,)


def test_events_of_low_confidence_are_neither_positive_nor_negative():
    events = [*laughs((4.0, 4.4), confidence=0.3), *laughs((4.16, 4.4), confidence=0.9)]
    labels = compute_labels(events, 100, LabelSettings(min_confidence=0.5, merge_gap_s=0, guard_s=0))
    # frames 45 to 49 would be positive with the first event; 47 to 51 are with the second, of which 50, 51 are in doubt
    assert positives(labels) == {47, 48, 49}
    assert ignored(labels) == {45, 46, *range(50, 55)}
    assert labels.counts["n_low_confidence"] == 1
    assert positives(compute_labels(laughs((4.0, 4.4)), 100, LabelSettings(min_confidence=1.0))) == set(range(45, 50))


@pytest.mark.parametrize("mode", ["window", "exact", "interval", "horizon"])
def test_a_doubtful_event_masks_just_what_it_would_change(mode):
    settings = LabelSettings(mode=mode, in_event="negative", merge_gap_s=0, guard_s=0, min_confidence=0.5)
    sure, doubtful = laughs((5.0, 5.5), confidence=1.0), laughs((3.0, 3.2), confidence=0.1)
    labels = compute_labels([*sure, *doubtful], 100, settings)
    without = compute_labels(sure, 100, settings)
    with_it = compute_labels([*sure, *laughs((3.0, 3.2))], 100, settings)
    span = np.isin(np.arange(100), range(37, 40))
    assert ((without.y != with_it.y) | span).tolist() == (~labels.mask).tolist()
    assert labels.y.tolist() == without.y.tolist()


def test_only_the_users_events_are_positive():
    events = [*laughs((4.0, 4.4), speaker="a"), *laughs((6.0, 6.4), speaker="b")]
    labels = compute_labels(events, 100, LabelSettings(speakers="user"), user="b", known_speakers=["a", "b"])
    assert positives(labels) == set(range(70, 75))
    assert ignored(labels) == set(range(75, 83))
    assert labels.counts["events"] == 1


def test_user_labels_need_a_user():
    with pytest.raises(UserError, match=r"labels\.speakers=user.*data\.speakers=diarized"):
        compute_labels(laughs((4.0, 4.4), speaker="a"), 100, LabelSettings(speakers="user"), name="e")


def test_unknown_speakers_are_refused_or_masked():
    events = [*laughs((4.0, 4.4), speaker="x"), *laughs((6.0, 6.4), speaker="a")]
    with pytest.raises(UserError, match=r"e: .*unknown speaker x; known are a, b\.(.|\n)*unknown_speaker=ignore"):
        compute_labels(events, 100, LabelSettings(), known_speakers=["b", "a"], name="e")
    labels = compute_labels(events, 100, LabelSettings(unknown_speaker="ignore"), known_speakers=["a"])
    assert positives(labels) == set(range(70, 75))
    assert ignored(labels) == {*range(45, 58), *range(75, 83)}
    assert labels.counts["n_unknown_speaker"] == 1
    nobody = laughs((4.0, 4.4))
    assert positives(compute_labels(nobody, 100, LabelSettings(), known_speakers=["a"])) == set(range(45, 50))
    with pytest.raises(UserError, match="unknown speaker none"):
        compute_labels(nobody, 100, LabelSettings(speakers="user"), user="a", known_speakers=["a"])


def test_frames_with_too_little_context_are_masked():
    settings = LabelSettings(min_context_s=0.4)
    assert ignored(compute_labels([], 20, settings)) == set(range(5))
    restarted = np.arange(20) % 10
    assert ignored(compute_labels([], 20, settings, context_frames=restarted)) == {*range(5), *range(10, 15)}


def test_an_onset_whose_window_is_masked_cannot_be_predicted():
    first, second = laughs((4.0, 4.8), speaker="a"), laughs((4.96, 5.5), speaker="b")
    labels = compute_labels([*first, *second], 100, LabelSettings(shift=2))
    assert labels.onsets.tolist() == [50]  # the second begins within the guard of the first
    assert labels.counts["n_unpredictable"] == 1
    assert compute_labels([*first, *second], 100, LabelSettings(shift=20)).onsets.tolist() == [50, 62]


# ---- the end of the recording ----------------------------------------------------------------------------------------


def test_an_event_is_cut_at_the_end():
    assert compute_labels(laughs((7.0, 9.0)), 100, LabelSettings()).spans.tolist() == [[87, 100]]


def test_one_event_past_the_end_is_dropped_and_more_are_refused():
    many = [(float(start), start + 0.5) for start in range(0, 100, 2)]
    assert compute_labels(laughs(*many, (101.0, 101.5)), 1250, LabelSettings()).counts["n_past_end"] == 1
    with pytest.raises(
        UserError, match=r"e: annotation does not match audio: 2 of 52 events start after its 100\.00 s"
    ):
        compute_labels(laughs(*many, (101.0, 101.5), (103.0, 103.5)), 1250, LabelSettings(), name="e")


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [(-0.1, 1.0), (2.0, 1.9), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_impossible_times_are_refused(span):
    with pytest.raises(UserError, match=r"e: an event Laughter from .* must be numbers >= 0"):
        compute_labels(laughs(span), 100, LabelSettings(), name="e")


@pytest.mark.parametrize("shift", [0, -1, 2.5, True, None, "5"])
def test_shift_is_a_whole_number_of_frames(shift):
    message = "shift must be an integer number of 80 ms frames >= 1; use labels.mode=detect for current-frame detection"
    with pytest.raises(UserError, match=message):
        LabelSettings(shift=shift).check()


def test_shift_is_shorter_than_the_recording():
    LabelSettings(shift=99).check()
    compute_labels([], 100, LabelSettings(shift=99))
    with pytest.raises(UserError, match="e: shift=100 where the recording has 100 frames: shift must be an integer"):
        compute_labels([], 100, LabelSettings(shift=100), name="e")
    compute_labels([], 3, LabelSettings(mode="detect", shift=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "later"}, r"labels\.mode=later: choose window, exact, interval, detect, horizon"),
        ({"in_event": "none"}, r"labels\.in_event=none: choose ignore, negative, positive"),
        ({"speakers": "me"}, r"labels\.speakers=me: choose all, user"),
        ({"unknown_speaker": "skip"}, r"labels\.unknown_speaker=skip: choose error, ignore"),
        ({"past_end": "keep"}, r"labels\.past_end=keep: choose drop, mark"),
        ({"guard_s": -0.1}, r"labels\.guard_s=-0\.1: give seconds, 0 or more"),
        ({"merge_gap_s": math.inf}, r"labels\.merge_gap_s=inf: give seconds"),
        ({"min_context_s": math.nan}, r"labels\.min_context_s=nan: give seconds"),
        ({"min_confidence": 1.5}, r"labels\.min_confidence=1\.5: give a number from 0 to 1"),
        ({"min_confidence": "high"}, r"labels\.min_confidence='high': give a number"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    LabelSettings().check()
    with pytest.raises(UserError, match=message):
        LabelSettings(**change).check()


def test_the_record_makes_the_settings_again():
    settings = LabelSettings(mode="exact", shift=3, guard_s=0.5)
    assert LabelSettings(**settings.record()) == settings
    assert settings.record()["frame_rate"] == 12.5
