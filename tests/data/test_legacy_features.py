"""The layout of acoustic-event-prediction, both of its variants, and what may be wrong with it."""

import json

import numpy as np
import pytest

from voxlab.data.frame_blocks import LabelledView, epoch_batches
from voxlab.data.legacy_features import read_legacy
from voxlab.errors import UserError

FRAMES, DIM = 50, 6


@pytest.fixture
def root(tmp_path):
    """An episode with two assignments of one other speaker, and one with a single user and several others."""
    rng = np.random.default_rng(0)
    for split, name, assignments in (
        ("train", "Show_one, two", [{"system_speaker_id": "B"}, {"system_speaker_id": "A"}]),
        ("test", "Other_x", [{"system_speaker_ids": ["B", "C"], "user_speaking_ratio": 0.4}]),
    ):
        folder = tmp_path / split / name
        folder.mkdir(parents=True)
        for index, assignment in enumerate(assignments):
            assignment |= {"assignment_idx": index, "user_speaker_id": "AB"[index]}
            np.save(folder / f"features_assignment_{index}.npy", rng.normal(size=(FRAMES, DIM)).astype(np.float32))
            for shift in (1, 5):
                labels = (rng.random(FRAMES) < 0.2).astype(np.int32)
                np.save(folder / f"labels_assignment_{index}_shift_{shift}.npy", labels)
        metadata = {"episode_name": name, "split": split, "frame_rate": 12.5, "assignments": assignments}
        for shift in (1, 5):
            (folder / f"metadata_shift_{shift}.json").write_text(json.dumps(metadata | {"shift_frames": shift}))
    return tmp_path


def test_features_and_labels_are_those_of_the_files(root):
    test, train = read_legacy(root, 5)
    assert (test.name, test.show, test.split, test.dim) == ("Other_x", "Other", "test", DIM)
    assert test.views == ({"index": 0, "user": "A", "others": ("B", "C"), "user_ratio": 0.4},)
    assert [(view["user"], view["others"]) for view in train.views] == [("A", ("B",)), ("B", ("A",))]
    for view in (0, 1):
        folder = root / "train" / "Show_one, two"
        assert np.array_equal(np.asarray(train.features(view)), np.load(folder / f"features_assignment_{view}.npy"))
        assert np.array_equal(train.labels(view), np.load(folder / f"labels_assignment_{view}_shift_5.npy"))
    ones = np.ones(FRAMES, np.float32)
    batches = list(
        epoch_batches([LabelledView(train.features(), train.labels(), ones > 0, ones)], batch_size=10, seed=0, epoch=0)
    )
    assert sum(int(batch["y"].sum()) for batch in batches) == train.labels().sum()


def test_what_is_wrong_is_named(root):
    with pytest.raises(UserError, match=r"has no labels of shift=2; it has 1, 5\."):
        read_legacy(root, 2)
    with pytest.raises(UserError, match=r"holds no <split>/<episode>/metadata_shift_\*\.json"):
        read_legacy(root / "train", 5)
    folder = root / "train" / "Show_one, two"
    np.save(folder / "labels_assignment_0_shift_5.npy", np.zeros(FRAMES - 1, np.int32))
    with pytest.raises(UserError, match=r"view 0: 50 frames of features and labels of the shape \(49,\)"):
        read_legacy(root, 5)[1].labels(0)
    np.save(folder / "labels_assignment_0_shift_5.npy", np.full(FRAMES, 2))
    with pytest.raises(UserError, match="other labels than 0 and 1"):
        read_legacy(root, 5)[1].labels(0)
    (folder / "labels_assignment_0_shift_5.npy").unlink()
    with pytest.raises(UserError, match=r"shift_5\.npy can't be read"):
        read_legacy(root, 5)[1].labels(0)
    path = folder / "features_assignment_1.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"features_assignment_1\.npy"):
        read_legacy(root, 5)
    (folder / "metadata_shift_5.json").write_text("{}")
    with pytest.raises(UserError, match="lacks episode_name, split, frame_rate, assignments"):
        read_legacy(root, 5)
