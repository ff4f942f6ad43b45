"""Splits by folder, by list and by fraction."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from voxlab.audio import encode_wav
from voxlab.data import splits
from voxlab.data.audiofolder import AudioFolder
from voxlab.errors import UserError


@pytest.fixture
def write(tmp_path):
    def files(*names):
        for name in names:
            (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "music" / name).write_bytes(encode_wav(torch.zeros(1, 8), 16000))
        return tmp_path / "music"

    return files


def found(root, **options):
    return {item.id: item.split for item in AudioFolder(root=str(root), **options).items()}


def test_folders_name_splits(write):
    root = write("Train/a.wav", "train-clean 100/x/b.wav", "dev/c.wav", "test/d.wav", "other.v2/e.wav")
    assert found(root, splits="folder") == {
        "Train/a": "train",
        "train-clean 100/x/b": "train_clean_100",
        "dev/c": "validation",
        "test/d": "test",
        "other.v2/e": "other.v2",
    }


@pytest.mark.parametrize("name", ["valid", "validation", "val", "dev"])
def test_validation_has_many_names(write, name):
    assert found(write(f"{name}/a.wav"), splits="folder") == {f"{name}/a": "validation"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.wav", "train/b.wav", "c.wav"], r"2 files lie in no folder .*: .*a\.wav"),
        (["dev/a.wav", "valid/b.wav"], "folders dev, valid would all be the split validation"),
        (["a b/a.wav", "a-b/b.wav"], "folders a b, a-b would all be the split a_b"),
        (["all/a.wav"], "split 'all'"),
        (["a..b/a.wav"], r"split 'a\.\.b'"),
    ],
    ids=["outside", "aliases", "replaced letters", "reserved", "dots"],
)
def test_folders_that_name_no_split(write, names, message):
    with pytest.raises(UserError, match=message):
        found(write(*names), splits="folder")


def test_lists_name_splits(write, tmp_path):
    root = write("a.wav", "b/c.d.wav", "b/e.flac")
    (root / "train.txt").write_bytes(b"\xef\xbb\xbfa.wav\r\n\r\nb/e\r\n")
    (tmp_path / "test.txt").write_text("./b/c.d")
    lists = {"train": "train.txt", "test": str(tmp_path / "test.txt")}
    assert found(root, splits="list", split_lists=lists) == {"a": "train", "b/c.d": "test", "b/e": "train"}


def test_everything_wrong_with_lists_is_said_at_once(write):
    root = write("a.wav", "b.wav", "c.wav")
    (root / "train.txt").write_text("a\nx\n")
    (root / "test.txt").write_text("a.wav\nb\n")
    with pytest.raises(UserError, match="3 problems") as caught:
        found(root, splits="list", split_lists={"train": "train.txt", "test": "test.txt"})
    for text in (
        "train.txt, line 2: no file x",
        "a: in test and train",
        "c: in no list",
        "no list into one, or leave it out with data.pattern=",
    ):
        assert text in str(caught.value)
    with pytest.raises(UserError, match=r"split_lists\.train: there is neither"):
        found(root, splits="list", split_lists={"train": "absent.txt"})
    with pytest.raises(UserError, match="split 'my split'"):
        found(root, splits="list", split_lists={"my split": "train.txt"})


SHARES = st.sampled_from(
    [
        {"train": 0.9, "validation": 0.1},
        {"train": 0.7, "validation": 0.2, "test": 0.1},
        {"a": 0.333, "b": 0.333, "c": 0.334},
        {"train": 1},
    ]
)
KEYS = st.lists(st.text(max_size=12), unique=True, max_size=40)


@given(keys=KEYS, more=KEYS, shares=SHARES, seed=st.integers(0, 5))
def test_a_group_keeps_its_split_when_others_come_and_go(keys, more, shares, seed):
    alone = {key: splits.by_fraction({key: key}, shares, seed)[key] for key in keys}
    together = splits.by_fraction({key: key for key in {*keys, *more}}, shares, seed)
    backwards = splits.by_fraction({key: key for key in keys}, dict(reversed(shares.items())), seed)
    assert {key: together[key] for key in keys} == alone == backwards
    assert set(together.values()) <= set(shares)


@given(groups=st.dictionaries(st.text(min_size=1), st.sampled_from("abcdef"), max_size=40), shares=SHARES)
def test_groups_stay_together(groups, shares):
    dealt = splits.by_fraction(groups, shares, 0)
    assert dealt.keys() == groups.keys()
    assert len({(groups[key], dealt[key]) for key in groups}) == len(set(groups.values()))


@pytest.mark.parametrize("seed", [0, 1])
def test_fractions_are_met(seed):
    groups = {str(number): str(number) for number in range(20000)}
    dealt = list(splits.by_fraction(groups, {"train": 0.7, "validation": 0.2, "test": 0.1}, seed).values())
    for split, share in (("train", 0.7), ("validation", 0.2), ("test", 0.1)):
        assert dealt.count(split) / 20000 == pytest.approx(share, abs=4 * (share * (1 - share) / 20000) ** 0.5)
    other = list(splits.by_fraction(groups, {"train": 0.7, "validation": 0.2, "test": 0.1}, seed + 1).values())
    assert dealt != other


def test_the_hash_is_the_documented_one():
    for seed in range(20):
        place = int(hashlib.sha256(f"{seed}|a".encode()).hexdigest()[:16], 16) / 2**64
        expected = "train" if place < 0.9 else "validation"
        assert splits.by_fraction({"id": "a"}, {"train": 0.9, "validation": 0.1}, seed) == {"id": expected}


@pytest.mark.parametrize(
    "shares",
    [{"train": 0.9}, {"train": 0.9, "test": 0.2}, {"train": 1.1, "test": -0.1}, {"a": 1, "b": 0}, {"a": "x"}],
    ids=str,
)
def test_impossible_fractions(shares):
    with pytest.raises(UserError, match="sum to 1"):
        splits.by_fraction({}, shares, 0)


def test_groups_by_folder_and_by_column(write):
    root = write(*(f"singer{number // 5}/take{number}.wav" for number in range(60)))
    halves = {"splits": "fraction", "split_fractions": {"train": 0.5, "test": 0.5}}
    by_folder = found(root, split_group="folder", **halves)
    assert {len({by_folder[f"singer{n}/take{5 * n + k}"] for k in range(5)}) for n in range(12)} == {1}
    assert set(by_folder.values()) == {"train", "test"}
    rows = [f"singer{number // 5}/take{number},{number % 3}.0\n" for number in range(60)]
    (root / "metadata.csv").write_text("file_name,song\n" + "".join(rows))
    by_song = found(root, split_group="song", **halves)
    assert {len({by_song[f"singer{n // 5}/take{n}"] for n in range(60) if n % 3 == song}) for song in range(3)} == {1}
    each = found(root, **halves)
    assert any(len({each[f"singer{n}/take{5 * n + k}"] for k in range(5)}) == 2 for n in range(12))


def test_groups_need_a_value_for_every_file(write):
    root = write("a.wav", "b.wav")
    (root / "metadata.csv").write_text("file_name,song\na,1\n")
    options = {"splits": "fraction", "split_fractions": {"train": 0.5, "test": 0.5}}
    with pytest.raises(UserError, match=r"split_group=song: no value for 1 file: b\.\n.*\['song'\]"):
        found(root, split_group="song", **options)


def test_a_split_that_gets_nothing_is_a_finding(write):
    options = {"splits": "fraction", "split_fractions": {"train": 0.999, "test": 0.001}}
    assert AudioFolder(root=str(write("a.wav")), **options).check() == ["no file falls to the split test"]
