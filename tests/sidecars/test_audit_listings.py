"""The audit compares manifest.csv and a data set, written here through `datasets`, with the files."""

import json
import os
import shutil

import datasets
import numpy as np
import pytest

from tests.token_trees import IDS, NAMES, make_values, write_codes, write_manifest, write_sidecar, write_tree
from voxlab.codecs import token_files
from voxlab.sidecars.audit import audit_tokens
from voxlab.sidecars.audit_listings import pool

SPLITS = {"train": IDS[:3], "validation": IDS[3:]}


def audit(root):
    return audit_tokens(root / "tokens", manifest=root / "manifest.csv", dataset=root / "dataset")


def make_rows(root, ids, inline):
    rows = []
    for name in ids:
        codes = token_files.read_tokens(root / "tokens" / f"{name}.ecdc")
        row = {"id": name, "audio": f"tokens/{name}.ecdc", "frames": codes.num_frames, "num_codebooks": 4}
        row |= {"num_samples": codes.num_samples, "sample_rate": 24000, "cond": f"tokens/{name}.cond.npy"}
        row |= {"cond_names": list(NAMES)}
        if inline:
            row["codes"] = [book[0].numpy().astype(np.int16) for book in codes.codes.codebooks]
            row["cond_values"] = list(np.load(root / "tokens" / f"{name}.cond.npy").astype(np.float32))
        rows.append(row)
    return rows


def pooled(root, ids):
    """Statistics over all frames, the obvious way."""
    values = np.concatenate([np.load(root / "tokens" / f"{name}.cond.npy").astype(np.float64) for name in ids])
    return {
        name: {"unit": "", "count": len(values), "mean": column.mean(), "std": column.std()}
        | {"min": column.min(), "max": column.max()}
        for name, column in zip(NAMES, values.T, strict=True)
    }


def build(root, *, inline=False, change=lambda rows: rows):
    """Write the data set of the tree, files copied; `change` gets the rows of the split train."""
    target = root / "dataset"
    tables = {}
    for split, ids in SPLITS.items():
        rows = make_rows(root, ids, inline)
        tables[split] = datasets.Dataset.from_list(change(rows) if split == "train" else rows)
    datasets.DatasetDict(tables).save_to_disk(target)
    stats = {split: pooled(root, ids) for split, ids in SPLITS.items()}
    (target / "cond_stats.json").write_text(json.dumps({"format_version": 1, "splits": stats}))
    shutil.copytree(root / "tokens", target / "tokens")


@pytest.fixture
def tree(tmp_path):
    write_tree(tmp_path / "tokens")
    write_manifest(tmp_path / "manifest.csv", tmp_path / "tokens")
    return tmp_path


def only(root):
    """Return the one finding."""
    found = audit(root).findings
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("inline", [False, True])
def test_listings_that_agree(tree, inline):
    build(tree, inline=inline)
    assert audit(tree).findings == ()


def test_links_and_paths_into_the_tokens_agree(tree):
    build(tree)
    shutil.rmtree(tree / "dataset/tokens")
    (tree / "dataset/tokens").symlink_to("../tokens")
    assert audit(tree).findings == ()
    shutil.rmtree(tree / "dataset")

    def outwards(rows):
        return [row | {key: f"../{row[key]}" for key in ("audio", "cond")} for row in rows]

    build(tree, change=outwards)
    assert audit(tree).findings == ()


def test_manifest_may_start_at_the_token_files(tree):
    path = write_manifest(tree / "tokens/manifest.csv", tree / "tokens")
    assert audit_tokens(tree / "tokens", manifest=path).findings == ()


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"frames": 31}, "frames 31, found 30"),
        ({"D": 3}, "D 3, found 2"),
        ({"fps": 50}, "fps 50, found 75"),
        ({"fps": "x"}, "fps x, found 75"),
        ({"codebooks": 8}, "codebooks 8, found 4"),
        ({"rel_cond": ""}, "rel_cond empty, found a.cond.npy"),
        ({"rel_ecdc": f"tokens/{IDS[1]}.ecdc"}, "listed 2 times"),
    ],
    ids=["frames", "D", "fps", "fps text", "codebooks", "rel_cond", "twice"],
)
def test_manifest_says_other_things(tree, changes, detail):
    write_manifest(tree / "manifest.csv", tree / "tokens", **changes)
    found = [finding for finding in audit(tree).findings if not finding.detail.startswith("not listed")]
    assert [(finding.type, finding.severity) for finding in found] == [("manifest_mismatch", "warning")]
    assert detail in found[0].detail


def test_fps_of_the_manifest_are_numbers(tree):
    write_manifest(tree / "manifest.csv", tree / "tokens", fps="75.0")
    assert audit(tree).findings == ()


def test_manifest_that_is_no_manifest(tree):
    (tree / "manifest.csv").write_text("rel_ecdc,frames\ntokens/a.ecdc,30\n")
    assert "line 2 lacks one of rel_ecdc" in only(tree).detail
    (tree / "manifest.csv").write_bytes(b"rel_ecdc\n\xff\n")
    assert only(tree).type == "manifest_mismatch"


def test_deleted_token_file_is_told_once(tree):
    build(tree)
    (tree / "tokens/a.ecdc").unlink()
    finding = only(tree)
    assert (finding.tokens, finding.type) == ("a.ecdc", "dataset_mismatch")
    shutil.rmtree(tree / "dataset")
    finding = only(tree)
    assert (finding.tokens, finding.type) == ("a.ecdc", "manifest_mismatch")


def test_token_file_that_nothing_lists_is_a_warning(tree):
    build(tree)
    sha256 = write_codes(tree / "tokens/new.ecdc", 20)
    write_sidecar(tree / "tokens/new.cond.npy", make_values(20), sha256)
    finding = only(tree)
    assert (finding.tokens, finding.type, finding.severity) == ("new.ecdc", "manifest_mismatch", "warning")


def test_token_file_that_the_data_set_lacks_is_an_error(tree):
    build(tree, change=lambda rows: rows[1:])
    finding = only(tree)
    assert (finding.tokens, finding.type, finding.severity) == ("a.ecdc", "dataset_mismatch", "error")


def change_first(**changes):
    return lambda rows: [rows[0] | changes, *rows[1:]]


@pytest.mark.parametrize(
    ("inline", "change", "detail"),
    [
        (False, {"frames": 29}, "frames 29, found 30"),
        (False, {"num_samples": 1}, "num_samples 1, found 9593"),
        (False, {"num_codebooks": 8}, "num_codebooks 8, found 4"),
        (False, {"cond": None}, "cond None, found a.cond.npy"),
        (False, {"cond_names": ["gain", "pitch"]}, "cond_names ['gain', 'pitch']"),
        (True, {"codes": [np.zeros(30, np.int16)] * 4}, "codes "),
        (True, {"cond_values": list(np.zeros((30, 2), np.float32))}, "cond_values "),
    ],
    ids=["frames", "num_samples", "num_codebooks", "cond", "cond_names", "codes", "cond_values"],
)
def test_rows_say_other_things(tree, inline, change, detail):
    build(tree, inline=inline, change=change_first(**change))
    finding = only(tree)
    assert (finding.tokens, finding.type, finding.severity) == ("a.ecdc", "dataset_mismatch", "error")
    assert finding.detail.startswith(detail)


def test_files_of_the_data_set(tree):
    build(tree)
    copy = tree / "dataset/tokens/a.ecdc"
    copy.unlink()
    assert only(tree).detail == "tokens/a.ecdc is missing"
    copy.symlink_to("nowhere")
    assert only(tree).detail == "tokens/a.ecdc is a broken link"
    copy.unlink()
    write_codes(copy, 30, 99)
    assert only(tree).detail == "tokens/a.ecdc differs from its original"
    shutil.copy(tree / "tokens/a.ecdc", copy)
    (tree / "dataset/tokens/deep/c.cond.json").unlink()
    assert only(tree).detail == "tokens/deep/c.cond.json is missing"


def test_hard_links_keep_what_was_there_before(tree):
    build(tree)
    copy = tree / "dataset/tokens/a.ecdc"
    copy.unlink()
    copy.hardlink_to(tree / "tokens/a.ecdc")
    assert audit(tree).findings == ()
    sha256 = write_codes(tree / "tokens/a.ecdc", 30, 99)
    write_sidecar(tree / "tokens/a.cond.npy", make_values(30), sha256)
    assert "tokens/a.ecdc differs" in only(tree).detail


@pytest.mark.parametrize(
    "seed",
    [lambda root: write_codes(root / "tokens/a.ecdc", 40), lambda root: (root / "tokens/a.ecdc").write_bytes(b"")],
    ids=["frame_mismatch", "bad_ecdc"],
)
def test_listings_repeat_no_fault_of_a_file(tree, seed, request):
    build(tree)
    seed(tree)
    assert only(tree).type == request.node.callspec.id


def test_pooled_statistics(tree):
    build(tree)
    path = tree / "dataset/cond_stats.json"
    whole = json.loads(path.read_text())
    whole["splits"]["train"]["gain"]["mean"] += 1e-4
    path.write_text(json.dumps(whole))
    finding = only(tree)
    assert finding.type == "dataset_mismatch"
    assert "split train, column gain" in finding.detail
    del whole["splits"]["train"]["gain"]
    path.write_text(json.dumps(whole))
    assert "column gain: None" in only(tree).detail
    for damaged in ([], {"train": 1}, {"train": {"gain": 1}}):
        path.write_text(json.dumps({"splits": damaged}))
        assert "cond_stats.json is damaged" in only(tree).detail
    path.unlink()
    assert "there is no cond_stats.json" in only(tree).detail


@pytest.mark.parametrize("name", ["dataset_dict.json", "train/state.json", "train/data-00000-of-00001.arrow"])
@pytest.mark.parametrize("data", [None, b"", b"[]", b"nonsense"], ids=["missing", "empty", "list", "text"])
def test_damaged_data_set(tree, name, data):
    build(tree)
    path = tree / "dataset" / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    finding = only(tree)
    assert (finding.tokens, finding.type) == ("", "dataset_mismatch")
    assert "can't be read" in finding.detail
    assert os.fspath(tree) not in finding.detail


def test_pool_equals_statistics_over_all_frames():
    rng = np.random.default_rng(0)
    parts = [rng.normal(number, 2, 5 + number) for number in range(6)]
    measured = np.array([[x.min(), x.max(), x.mean(), x.std()] for x in parts]).T
    found = pool(np.array([len(x) for x in parts]), measured)
    together = np.concatenate(parts)
    assert found["count"] == len(together)
    for key in ("min", "max", "mean", "std"):
        assert found[key] == pytest.approx(getattr(together, key)(), rel=1e-12)
