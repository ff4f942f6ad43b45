"""Words of transcripts: numbers, padding."""

import torch

from voxlab.models.gesture.text import WordTable, WordTokens, pad_words

TEXTS = ["The", "cat", "the", "hat", " the ", "cat", "", "a"]


def test_frequent_words_get_numbers_and_the_rest_the_unknown_one() -> None:
    table = WordTable.from_texts(TEXTS)
    assert table.words == ("the", "cat")
    assert table.size == 3
    assert [table.index(text) for text in ("THE", " cat", "hat", "dog")] == [1, 2, 0, 0]
    assert WordTable.from_texts(TEXTS, min_count=1).words == ("the", "cat", "a", "hat")
    assert WordTable.from_texts([]).size == 1


def test_tables_do_not_depend_on_the_order_of_clips() -> None:
    assert WordTable.from_texts(reversed(TEXTS), 1) == WordTable.from_texts(TEXTS, 1)


def test_words_are_padded_to_the_longest_item() -> None:
    items = [[("the", 0.0, 0.5), ("dog", 0.5, 0.75)], [], [("cat", 1.0, 3.0)]]
    ids, times, mask = pad_words(items, WordTable(("the", "cat")))
    assert ids.tolist() == [[1, 0], [0, 0], [2, 0]]
    assert times.tolist() == [[0.25, 0.625], [0, 0], [2.0, 0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]
    assert pad_words([[], []], WordTable(()))[0].shape == (2, 0)


def test_one_token_is_there_without_words() -> None:
    tokens = WordTokens(5, 4, 6)
    none, some = tokens(torch.zeros(2, 0, dtype=torch.int64)), tokens(torch.tensor([[1, 2], [3, 4]]))
    assert none.shape == (2, 1, 6)
    assert torch.equal(some[:, :1], none)
    torch.testing.assert_close(some[1, 2], tokens.project(tokens.vectors.weight[4]))
