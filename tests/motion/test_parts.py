"""Layouts have the published sizes, are disjoint, come back from their tables, and say what is wrong with others."""

from typing import Any

import numpy as np
import pytest

from voxlab.errors import UserError
from voxlab.motion.parts import FRAME_DIM, PRESETS, columns, read_layout
from voxlab.motion.skeleton import JOINT_NAMES


@pytest.mark.parametrize(
    ("name", "dims", "uncovered"),
    [
        ("legacy415", {"upper": 78, "hands": 180, "lower_trans": 57, "face": 100}, (22, 23, 24)),
        ("full421", {"upper": 78, "hands": 180, "lower_trans": 57, "face": 106}, (23, 24)),
    ],
)
def test_presets_have_the_published_sizes(name: str, dims: dict[str, int], uncovered: tuple[int, ...]) -> None:
    layout = read_layout(name)
    assert {part.name: part.dim for part in layout.parts} == dims
    assert {part.name: len(columns(part)) for part in layout.parts} == dims
    assert layout.dim == sum(dims.values()) == int(name[-3:])
    assert layout.uncovered == uncovered


@pytest.mark.parametrize("name", PRESETS)
def test_columns_of_a_preset_are_disjoint_and_miss_the_uncovered_joints_only(name: str) -> None:
    layout = read_layout(name)
    taken = np.concatenate([columns(part) for part in layout.parts])
    assert len(set(taken.tolist())) == len(taken)
    left = set(range(FRAME_DIM)) - set(taken.tolist())
    assert left == {6 * joint + i for joint in layout.uncovered for i in range(6)}


def test_columns_follow_the_order_of_the_joints_and_then_the_extras() -> None:
    layout = read_layout({"odd": {"joints": ["jaw", 3], "extras": ["expressions", "translation"]}})
    wanted = [*range(132, 138), *range(18, 24), *range(333, 433), *range(330, 333)]
    assert columns(layout.part("odd")).tolist() == wanted
    assert columns(layout.part("odd")).dtype == np.int64


def test_face_of_the_full_layout_begins_with_the_jaw() -> None:
    face = columns(read_layout("full421").part("face"))
    assert face.tolist() == [*range(132, 138), *range(333, 433)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_layout_comes_back_from_its_table(name: str) -> None:
    assert read_layout(read_layout(name).table) is PRESETS[name]


def test_another_table_is_standardised_whole_and_knows_whether_it_moves_the_jaw() -> None:
    arms = read_layout({"arms": {"joints": ["left_elbow", "right_elbow"]}})
    assert (arms.name, arms.normalize_face, arms.jaw) == ("custom", True, "mean")
    assert read_layout({"mouth": {"joints": [JOINT_NAMES.index("jaw")]}}).jaw == "predicted"


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("full", "full421 or legacy415"),
        ({}, "no part"),
        ({"a": {"joints": [55]}}, r"data.layout.a.joints: 55.*0\.\.\.54"),
        ({"a": {"joints": ["tail"]}}, "'tail' is no joint.*left_hip"),
        ({"a": {"joints": [True]}}, "True is no joint"),
        ({"a": {"joints": "jaw"}}, "data.layout.a.joints='jaw': give a list"),
        ({"a": {"extras": ["contacts"]}}, "'contacts' is unknown.*translation, expressions"),
        ({"a": {"bones": [1]}}, r"give \{joints"),
        ({"a": {}}, "data.layout.a is empty"),
        ({"a": {"joints": [3]}, "b": {"joints": ["spine1"]}}, r"joint 3 \(spine1\) is in a and in b"),
        ({"a": {"joints": [3, 3]}}, "in a and in a"),
        ({"a": {"extras": ["translation"]}, "b": {"extras": ["translation"]}}, "translation is in a and in b"),
    ],
)
def test_impossible_layouts_are_named(layout: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        read_layout(layout)


def test_an_unknown_part_is_named_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"part=face_jaw.*upper, hands, lower_trans, face"):
        read_layout("full421").part("face_jaw")
