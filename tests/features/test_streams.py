"""Text rows and the layout of the token streams."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.features.recordings import extract, make_recording
from voxlab.errors import UserError
from voxlab.features.moshi import MoshiFeatures
from voxlab.features.streams import END_PAD, PAD, make_text_row, stack_streams


@dataclass
class Spoken:
    text: str
    start: float
    end: float


def tokens_of(text: str) -> list[int]:
    """One token per letter: a = 100, b = 101."""
    return [ord(letter) - ord("a") + 100 for letter in text]


def row(words: list[Spoken], frames: int = 12, start: int = 0) -> list[int]:
    return make_text_row(words, tokens_of, start, start + frames, 12.5).tolist()


def test_tokens_follow_the_start_and_the_frame_before_is_marked() -> None:
    assert row([Spoken("abc", 0.32, 0.6)]) == [PAD, PAD, PAD, END_PAD, 100, 101, 102, *[PAD] * 5]


def test_a_word_cuts_off_the_one_before() -> None:
    words = [Spoken("abcde", 0.16, 0.3), Spoken("xy", 0.4, 0.6)]
    assert row(words) == [PAD, END_PAD, 100, 101, 102, 123, 124, *[PAD] * 5]


def test_of_two_words_in_a_frame_the_second_is_left() -> None:
    assert row([Spoken("ab", 0.16, 0.17), Spoken("x", 0.20, 0.3)])[:4] == [PAD, END_PAD, 123, PAD]


def test_words_of_no_length_and_beyond_the_end_are_left_out() -> None:
    assert row([Spoken("a", 0.2, 0.2), Spoken("b", 0.96, 1.2)]) == [PAD] * 12


def test_the_first_frame_has_none_before_it() -> None:
    assert row([Spoken("ab", 0.0, 0.5)])[:3] == [100, 101, PAD]


def test_a_piece_takes_the_words_that_start_in_it() -> None:
    words = [Spoken("abcd", 0.08, 0.5), Spoken("x", 0.4, 0.5)]
    assert row(words, frames=4, start=3) == [PAD, END_PAD, 123, PAD]


def test_frame_times_of_two_decimals_fall_into_their_frame() -> None:
    assert row([Spoken("a", 2.32, 2.4)], frames=40).index(100) == 29  # int(2.32 * 12.5) is 28


@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 5)), max_size=8, unique_by=lambda pair: pair[0]),
)
def test_the_row_is_that_of_a_frame_by_frame_walk(pairs: list[tuple[int, int]]) -> None:
    words = [Spoken("abcdef"[:length], frame * 0.08, frame * 0.08 + 0.05) for frame, length in pairs]
    wanted, begins = [], dict(pairs)
    left: list[int] = []
    for frame in range(20):
        if frame in begins:
            left = tokens_of("abcdef"[: begins[frame]])
        following = frame + 1 < 20 and begins.get(frame + 1, 0) > 0
        wanted.append(left.pop(0) if left else END_PAD if following else PAD)
    assert row(words, frames=20) == wanted


def test_sides_change_places_in_the_legacy_order() -> None:
    text, agent, other = torch.zeros(3), torch.ones(8, 3), torch.full((8, 3), 2.0)
    assert stack_streams(text, agent, other, "moshi")[:, 0].tolist() == [0, *[1] * 8, *[2] * 8]
    assert stack_streams(text, agent, other, "legacy")[:, 0].tolist() == [0, *[2] * 8, *[1] * 8]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentencepiece import SentencePieceTrainer

    trained: Any = io.BytesIO()
    sentences = ["hello there my friend", "the weather is fine", "that was very funny indeed", "friend of mine"]
    SentencePieceTrainer.Train(
        sentence_iterator=iter(sentences), model_writer=trained, vocab_size=40, minloglevel=2, hard_vocab_limit=False
    )
    path = tmp_path_factory.mktemp("text") / "text.model"
    path.write_bytes(trained.getvalue())
    return path


def test_the_transcript_reaches_the_text_row(moshi_folder: Path, tokenizer: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    features = MoshiFeatures(weights=str(moshi_folder), tokenizer=str(tokenizer), text="transcript", dtype="float32")
    recording = make_recording("a", 60, 1920)
    recording.words = lambda: [Spoken("hello", 1.0, 1.3), Spoken("friend", 3.2, 3.5)]
    text = extract(features.to("cpu"), [recording])["a", "codes"][:, 0].tolist()
    encode = SentencePieceProcessor(str(tokenizer)).encode
    for word, frame in (("hello", 12), ("friend", 40)):
        pieces = encode(word)
        assert text[frame - 1 : frame + len(pieces) + 1] == [END_PAD, *pieces, PAD]
    assert features.settings()["uses_oracle_text"] is True
    recording.words = None
    with pytest.raises(UserError, match=r"a: text=transcript, but there is no transcript; set features\.text=pad"):
        extract(features, [recording])
    with pytest.raises(UserError, match=r"features\.text=pad"):
        next(features.live([]))


def test_zero_text_is_no_embedding(moshi_folder: Path) -> None:
    silent = MoshiFeatures(weights=str(moshi_folder), text="zero", dtype="float32").to("cpu")
    padded = MoshiFeatures(weights=str(moshi_folder), dtype="float32").to("cpu")
    recording = make_recording("a", 30, 1920)
    a, b = extract(silent, [recording]), extract(padded, [recording])
    assert (a["a", "codes"][:, 0] == -1).all()
    assert (b["a", "codes"][:, 0] == PAD).all()
    assert not np.allclose(a["a", "features"], b["a", "features"], atol=0.01)
    assert silent.settings()["uses_oracle_text"] is False
