import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.codecs.batching import plan_batches

lengths_and_budgets = st.tuples(st.lists(st.integers(1, 100), max_size=50), st.integers(1, 400))


def test_golden():
    assert plan_batches([5, 1, 9, 1, 4, 30], 12) == [[1, 3, 4], [0], [2], [5]]
    assert plan_batches([], 12) == []


def test_budget_must_be_positive():
    with pytest.raises(ValueError, match="more than 0"):
        plan_batches([1], 0)


@given(lengths_and_budgets)
def test_every_item_once_within_the_budget(case):
    lengths, budget = case
    batches = plan_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget for batch in batches)


@given(lengths_and_budgets)
def test_order_is_by_length_then_ordinal(case):
    lengths, budget = case
    flat = [index for batch in plan_batches(lengths, budget) for index in batch]
    assert flat == sorted(flat, key=lambda index: (lengths[index], index))
