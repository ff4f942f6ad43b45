import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxlab.errors import UserError
from voxlab.parallel import Ranks, gather, launched, side_threads, split_work

groups_of_items = st.lists(st.lists(st.integers(), min_size=1, max_size=6), max_size=12)


@given(groups_of_items, st.integers(1, 9))
def test_every_item_falls_to_exactly_one_rank(sizes, world):
    groups = [[(number, item) for item in range(len(group))] for number, group in enumerate(sizes)]
    shares = [split_work(groups, rank, world) for rank in range(world)]
    assert sorted(item for share in shares for item in share) == [item for group in groups for item in group]


@given(st.integers(0, 30), st.integers(1, 12), st.integers(1, 9))
def test_equal_groups_are_shared_out_evenly(num_groups, size, world):
    groups = [[(number, item) for item in range(size)] for number in range(num_groups)]
    loads = [len(split_work(groups, rank, world)) for rank in range(world)]
    assert max(loads) - min(loads) <= 1


def test_whole_groups_stay_together_and_the_last_ones_are_dealt_out():
    groups = [["a1", "a2"], ["b1", "b2"], ["c1", "c2", "c3"]]
    assert split_work(groups, 0, 2) == ["a1", "a2", "c1", "c3"]
    assert split_work(groups, 1, 2) == ["b1", "b2", "c2"]


@pytest.mark.parametrize("device", ["gpu", "cpuu", "cuda:x", "cuda:99"])
def test_unknown_devices_are_refused(device):
    with pytest.raises(UserError, match="device="):
        launched(device)


def test_a_plain_launch_is_one_rank(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    ranks = launched("cpu")
    assert ranks == Ranks(0, 1, "cpu")
    assert gather(ranks, "x") == ["x"]


def test_side_threads_compute_on_one_core_and_leave_the_others_alone():
    import torch

    before = torch.get_num_threads()
    with side_threads(2) as pool:
        assert {pool.submit(torch.get_num_threads).result() for _ in range(8)} == {1}
    assert torch.get_num_threads() == before
