"""What generation is given besides audio: where start and end lie among the codes, and words."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.errors import UserError
from voxlab.tasks.a2g.given import Given
from voxlab.tasks.a2g.windows import clip_words

LENGTH = 103  # frames of the motion file


class Numbering:
    """A tokenizer whose codes are the number of their first frame in the file, and how many frames were coded."""

    def __init__(self, stride: int) -> None:
        self.stride = stride

    def tokenize(self, frames: np.ndarray) -> np.ndarray:
        first = frames[:: self.stride, 0].astype(np.int16)
        return np.stack([first, np.full_like(first, len(frames))], axis=1)


CODECS: dict[str, Any] = {name: Numbering(stride) for name, stride in (("a", 4), ("b", 2), ("c", 1))}
FRAMES = np.arange(LENGTH, dtype=np.float32)[:, None]


@given(num_frames=st.integers(17, 200), moments=st.integers(1, 4))
def test_the_last_frame_that_is_given_is_the_last_one_of_every_part(num_frames: int, moments: int) -> None:
    start, end = Given(CODECS, None, FRAMES, moments).codes(num_frames)
    assert start is None
    assert end is not None
    for name, codec in CODECS.items():
        count = -(-num_frames // codec.stride)  # codes of the motion
        places = np.arange(count - len(end[name]), count) * codec.stride  # first frames of those that are given
        wanted = np.minimum(LENGTH - num_frames + places, LENGTH - 1)
        np.testing.assert_array_equal(end[name][:, 0], wanted)
        coarsest = -(-num_frames // 4) * 4
        assert places[0] == coarsest - 4 * moments  # the parts begin together


def test_the_whole_file_is_coded_before_it_is_cut() -> None:
    start, end = Given(CODECS, FRAMES, FRAMES, 2).codes(61)
    assert start is not None
    assert end is not None
    for name, codec in CODECS.items():
        np.testing.assert_array_equal(start[name][:, 0], np.arange(0, 8, codec.stride))
        assert set(start[name][:, 1].tolist()) == {LENGTH}
        assert set(end[name][:, 1].tolist()) == {LENGTH + 3 - 2}  # held for three frames, and begun at the third


def test_motion_too_short_for_what_is_given() -> None:
    both = Given(CODECS, FRAMES, FRAMES, 2)
    both.codes(17)
    with pytest.raises(UserError, match=r"its 16 frames.*seed_motion and generate.end_motion.*16 of.*seed_tokens=2"):
        both.codes(16)
    assert Given(CODECS, None, None, 2).codes(1) == (None, None)


def test_words_are_cut_off_at_the_end_of_the_audio_as_those_of_the_corpus_are() -> None:
    words = [("late", 4.0, 6.0), ("after", 5.0, 7.0), ("early", -0.5, 0.25), ("before", -1.0, 0.0), ("mid", 1.0, 2.0)]
    assert clip_words(words, 5.0) == (("early", 0.0, 0.25), ("mid", 1.0, 2.0), ("late", 4.0, 5.0))
