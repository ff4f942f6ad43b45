"""Stage build of task=extract, on token files and sidecars with known contents."""

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import datasets
import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.token_corpus import ENCODEC, MIMI, SNAC, TokenCorpus
from voxlab.codecs import token_files
from voxlab.codecs.base import stack
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.tasks.extract.build import build, check
from voxlab.tasks.extract.build_rows import Pooled, _nested

DEFAULTS = {"materialize": "hardlink", "inline": False, "push_to_hub": None}
EVERY_WAY = pytest.mark.parametrize("materialize", ["hardlink", "link", "copy", "none"])


def run(corpus, **changes):
    stage = changes.pop("stage", None) or corpus.stage()
    return build(stage, info=corpus.info, container=corpus.container, **(DEFAULTS | changes))


def load(corpus):
    return datasets.load_from_disk(str(corpus.out / "dataset"))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def corpus(tmp_path):
    corpus = TokenCorpus(tmp_path / "out")
    corpus.add("a/foo_pitch_64.00_amp_.75", 20, speaker="ann", take=1)
    corpus.add("a/b/long", 33, take=2)
    return corpus.add("c", 7, split="validation", columns=("pitch",), speaker="bob")


def test_columns_of_every_row(corpus):
    outcome = run(corpus)
    assert (outcome.done, outcome.kept, dict(outcome.failed), outcome.warnings) == (3, 0, {}, ())
    assert outcome.facts["splits"] == "train 2, validation 1"
    found = load(corpus)
    assert {name: rows["id"] for name, rows in found.items()} == {
        "train": ["a/b/long", "a/foo_pitch_64.00_amp_.75"],
        "validation": ["c"],
    }
    assert found["train"][1] == {
        "id": "a/foo_pitch_64.00_amp_.75",
        "audio": "tokens/a/foo_pitch_64.00_amp_.75.ecdc",
        "duration": (20 * 320 - 3) / 24000,
        "frames": 20,
        "num_codebooks": 4,
        "num_samples": 20 * 320 - 3,
        "sample_rate": 24000,
        "frame_rate": 75.0,
        "cond": "tokens/a/foo_pitch_64.00_amp_.75.cond.npy",
        "cond_names": ["pitch", "gain"],
        "speaker": "ann",
        "take": 1,
    }
    assert found["train"][0]["speaker"] is None
    assert found["validation"][0]["take"] is None


@EVERY_WAY
def test_paths_lead_to_the_files_also_after_a_move(corpus, tmp_path, materialize):
    run(corpus, materialize=materialize)
    moved = tmp_path / "elsewhere" / "deep" / "out"
    moved.parent.mkdir(parents=True)
    corpus.out.rename(moved)
    for row in [row for rows in datasets.load_from_disk(str(moved / "dataset")).values() for row in rows]:
        path = moved / "dataset" / row["audio"]
        assert not Path(row["audio"]).is_absolute()
        assert stack(token_files.read_tokens(path).codes).equal(stack(corpus.codes[row["id"]]))
        np.testing.assert_array_equal(np.load(moved / "dataset" / row["cond"]), corpus.values[row["id"]])
        assert json.loads((moved / "dataset" / row["cond"].replace(".npy", ".json")).read_text())["names"]


@pytest.mark.parametrize("materialize", ["hardlink", "copy"])
def test_folder_alone_is_complete(corpus, tmp_path, materialize):
    run(corpus, materialize=materialize)
    shutil.move(corpus.out / "dataset", tmp_path / "alone")
    shutil.rmtree(corpus.out)
    row = datasets.load_from_disk(str(tmp_path / "alone"))["validation"][0]
    assert token_files.read_header(tmp_path / "alone" / row["audio"]).num_frames == row["frames"]


def test_kind_of_the_files(corpus):
    source = corpus.path("a/b/long", ".ecdc")
    target = corpus.out / "dataset/tokens/a/b/long.ecdc"
    run(corpus, materialize="hardlink")
    assert target.samefile(source)
    assert not target.is_symlink()
    run(corpus, materialize="link")
    assert target.readlink() == Path("../../../../tokens/a/b/long.ecdc")
    run(corpus, materialize="copy")
    assert not target.samefile(source)
    assert target.read_bytes() == source.read_bytes()
    run(corpus, materialize="none")
    assert not (corpus.out / "dataset/tokens").exists()
    assert load(corpus)["validation"]["audio"] == ["../tokens/c.ecdc"]


@EVERY_WAY
def test_equal_input_gives_equal_bytes_and_a_rerun_does_nothing(corpus, tmp_path, materialize):
    run(corpus, materialize=materialize, inline=True)
    before = {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*")}
    again = run(corpus, materialize=materialize, inline=True)
    assert (again.done, again.kept) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*")} == before
    first = contents(corpus.out / "dataset")
    other = TokenCorpus(tmp_path / "other" / "folder")
    for item in corpus.items.values():
        frames, columns = len(corpus.values[item.id]), ("pitch", "gain")[: corpus.values[item.id].shape[1]]
        other.add(item.id, frames, columns, item.split, **item.metadata)
    run(other, materialize=materialize, inline=True)
    assert contents(other.out / "dataset") == first


def test_bytes_do_not_depend_on_the_process(corpus, tmp_path):
    run(corpus, inline=True)
    first = contents(corpus.out / "dataset")
    script = (
        "import pickle, sys; from voxlab.tasks.extract.build import build\n"
        "stage, info = pickle.loads(sys.stdin.buffer.read())\n"
        "build(stage, info=info, container='auto', materialize='hardlink', inline=True, push_to_hub=None)"
    )
    shutil.rmtree(corpus.out / "dataset")
    data = pickle.dumps((corpus.stage(), corpus.info))
    subprocess.run([sys.executable, "-c", script], input=data, check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert contents(corpus.out / "dataset") == first


def test_a_rerun_imports_no_datasets(corpus):
    run(corpus)
    script = (
        "import pickle, sys; from voxlab.tasks.extract.build import build\n"
        "stage, info = pickle.loads(sys.stdin.buffer.read())\n"
        "done = build(stage, info=info, container='auto', materialize='hardlink', inline=False, push_to_hub=None)\n"
        "assert done.kept == 3 and 'datasets' not in sys.modules and 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], input=pickle.dumps((corpus.stage(), corpus.info)), check=True)


@pytest.mark.parametrize("info", [ENCODEC, MIMI, SNAC], ids=lambda info: info.name)
def test_inline_columns(tmp_path, info):
    corpus = TokenCorpus(tmp_path / "out", info)
    corpus.add("a", 24, dtype="float32").add("b", 8, columns=()).add("c", 4, columns=None)
    run(corpus, inline=True)
    rows = load(corpus)["train"]
    assert rows.features["codes"] == datasets.List(datasets.List(datasets.Value("int16")))
    for row in rows:
        assert row["codes"] == [book[0].tolist() for book in corpus.codes[row["id"]].codebooks]
    assert np.array_equal(np.array(rows[0]["cond_values"], "float32"), corpus.values["a"])
    assert rows[1]["cond_values"] == [[]] * 8
    assert rows[2]["cond_values"] is None
    assert "scales" not in rows.features


def test_inline_scales(tmp_path):
    info = replace(ENCODEC, sample_rate=48000, channels=2, has_scales=True)
    corpus = TokenCorpus(tmp_path / "out", info, "safetensors")
    corpus.add("a", 200)
    run(corpus, inline=True)
    assert load(corpus)["train"][0]["scales"] == [0.5, 0.25]


@given(st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(0, 4))), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_nested_equals_pyarrows_own_conversion(shapes):
    matrices = [
        None if shape is None else np.arange(shape[0] * shape[1], dtype="float32").reshape(shape) for shape in shapes
    ]
    slow = [None if matrix is None else matrix.tolist() for matrix in matrices]
    assert _nested(matrices).to_pylist() == pa.array(slow, pa.list_(pa.list_(pa.float32()))).to_pylist()


def test_statistics_are_pooled_over_all_frames_of_a_split(corpus):
    run(corpus)
    found = json.loads((corpus.out / "dataset/cond_stats.json").read_text())["splits"]
    assert list(found) == ["train", "validation"]
    assert list(found["validation"]) == ["pitch"]
    frames = np.concatenate([corpus.values[name] for name in ("a/b/long", "a/foo_pitch_64.00_amp_.75")])
    for index, name in enumerate(("pitch", "gain")):
        column = frames[:, index].astype(np.float64)
        wanted = {"mean": column.mean(), "std": column.std(), "min": column.min(), "max": column.max()}
        assert found["train"][name].pop("unit") == ("Hz", "")[index]
        assert found["train"][name].pop("count") == 53
        assert found["train"][name] == pytest.approx(wanted, rel=1e-12)


@given(st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_pooling_equals_numpy_on_the_whole(parts):
    pooled = Pooled("")
    for part in parts:
        pooled.add(np.array(part))
    whole = np.concatenate(parts)
    found = pooled.result()
    assert (found["count"], found["min"], found["max"]) == (len(whole), whole.min(), whole.max())
    assert found["mean"] == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
    assert found["std"] == pytest.approx(whole.std(), rel=1e-6, abs=1e-6)


@given(st.floats(-1e4, 1e4, width=16), st.lists(st.integers(1, 50), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_constant_column_has_no_spread(value, lengths):
    pooled = Pooled("")
    for length in lengths:
        pooled.add(np.full(length, value))
    assert (pooled.result()["std"], pooled.result()["mean"]) == (0.0, value)


# ---- what changes, what is left out --------------------------------------------------------------------------------


def test_the_data_set_follows_the_items_and_their_splits(corpus):
    run(corpus)
    corpus.add("d", 5, split="test")
    corpus.items["c"] = replace(corpus.items["c"], split="train")
    del corpus.items["a/b/long"]
    assert run(corpus).done == 3
    found = load(corpus)
    assert {name: rows["id"] for name, rows in found.items()} == {
        "test": ["d"],
        "train": ["a/foo_pitch_64.00_amp_.75", "c"],
    }
    assert sorted(path.name for path in (corpus.out / "dataset").iterdir()) == [
        *("README.md", "codec.json", "cond_stats.json", "dataset_dict.json", "test", "tokens", "train"),
    ]
    assert not (corpus.out / "dataset/tokens/a/b").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda corpus: corpus.add("c", 9, split="validation", columns=("pitch",), speaker="bob"),
        lambda corpus: corpus.add("c", 7, split="validation", columns=("pitch", "gain"), speaker="bob"),
        lambda corpus: corpus.items.update(c=replace(corpus.items["c"], metadata={"speaker": "bea"})),
        lambda corpus: (corpus.out / "dataset/tokens/c.ecdc").unlink(),
        lambda corpus: (corpus.out / "dataset/tokens/c.cond.json").unlink(),
        lambda corpus: (corpus.out / "dataset/train/state.json").unlink(),
        lambda corpus: (corpus.out / ".state/build.json").unlink(),
        lambda corpus: shutil.rmtree(corpus.out / "dataset"),
    ],
    ids=["tokens", "columns", "metadata", "token_file", "sidecar", "table", "state", "folder"],
)
def test_built_anew_when_anything_changed(corpus, change):
    run(corpus)
    change(corpus)
    assert run(corpus).done == 3
    assert run(corpus).kept == 3
    row = load(corpus)["validation"][0]
    assert row["frames"] == len(corpus.values["c"])
    assert row["speaker"] == corpus.items["c"].metadata["speaker"]
    assert token_files.read_header(corpus.out / "dataset" / row["audio"]).num_frames == row["frames"]


def test_broken_links_are_replaced(corpus, tmp_path):
    run(corpus, materialize="link")
    link = corpus.out / "dataset/tokens/c.ecdc"
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    assert run(corpus, materialize="link").done == 3
    assert link.read_bytes() == corpus.path("c", ".ecdc").read_bytes()


def test_items_that_failed_earlier_are_absent(corpus):
    corpus.fail("encode", "bad")
    corpus.add("half", columns=None)
    corpus.fail("sidecars", "half", tokens="whatever")
    with pytest.raises(UserError, match=r"1 sidecar was made for other token files .*half"):
        run(corpus)
    digest = json.loads((corpus.out / ".state/encode.jsonl").read_text().splitlines()[-1])["sha256"]
    corpus.fail("sidecars", "half", tokens=digest)
    outcome = run(corpus)
    assert (outcome.done, dict(outcome.failed)) == (3, {})
    assert "half" not in load(corpus)["train"]["id"]


def test_items_without_sidecars_have_none_and_are_counted(corpus):
    corpus.add("bare", columns=None)
    outcome = run(corpus)
    assert outcome.warnings == ("1 of 4 items has no sidecar (run the stage sidecars): bare",)
    row = load(corpus)["train"][2]
    assert (row["id"], row["cond"], row["cond_names"]) == ("bare", None, [])
    assert not (corpus.out / "dataset/tokens/bare.cond.npy").exists()


def test_metadata_columns(tmp_path):
    corpus = TokenCorpus(tmp_path / "out")
    corpus.add("a", audio="mine", tempo=120, ok=True, empty=None)
    corpus.add("b", audio="yours", tempo=98.5, score=float("nan"), codes="clash with inline, too")
    run(corpus)
    rows = load(corpus)["train"]
    assert rows["meta_audio"] == ["mine", "yours"]
    assert rows["tempo"] == [120.0, 98.5]
    assert rows["ok"] == [True, None]
    assert rows["empty"] == [None, None]
    assert rows["meta_codes"] == [None, "clash with inline, too"]
    assert rows["audio"] == ["tokens/a.ecdc", "tokens/b.ecdc"]
    assert np.isnan(rows["score"][1])


# ---- refusals ------------------------------------------------------------------------------------------------------


def spoil_size(corpus):
    corpus.path("c", ".ecdc").write_bytes(b"ECDC")


def lose(corpus):
    corpus.path("c", ".cond.npy").unlink()


def other_codebooks(corpus):
    corpus.info = replace(ENCODEC, num_codebooks=8, strides=(1,) * 8)


def stale(corpus):
    corpus.add_tokens("c", 8)


def broken_json(corpus):
    path = corpus.path("c", ".cond.json")
    path.write_bytes(b"{" + b" " * (path.stat().st_size - 1))


def not_finite(corpus):
    corpus.values["c"][3, 0] = np.nan
    np.save(corpus.path("c", ".cond.npy"), corpus.values["c"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_size, r"1 file is not as .* left it in .*tokens: c\.ecdc \(4 bytes, not \d+\)"),
        (lose, r"c\.cond\.npy \(missing\)"),
        (other_codebooks, "has 4 codebooks, the codec encodec writes 8"),
        (stale, r"1 sidecar was made for other token files than are in .* now: c\."),
        (broken_json, r"bad_sidecar: c\.cond\.json is not readable JSON"),
        (not_finite, r"c\.cond\.npy holds values that are not finite"),
        (lambda corpus: corpus.add("d", split="tokens"), "split 'tokens' can't be a split"),
        (lambda corpus: corpus.add("d", split="a-b"), "split 'a-b' can't be a split"),
        (lambda corpus: corpus.add("d", speaker=3), r"'speaker' holds values of types .* str \(a/foo.*\), int \(d\)"),
        (lambda corpus: corpus.add("d", take=2**63), r"'take': 9223372036854775808 \(d\) takes more than 64 bits"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_old_data_set_stays(corpus, spoil, message):
    run(corpus)
    before = contents(corpus.out / "dataset" / "train")
    spoil(corpus)
    with pytest.raises(UserError, match=message):
        run(corpus, inline=True)
    assert contents(corpus.out / "dataset" / "train") == before
    assert [path.name for path in corpus.out.iterdir() if "tmp" in path.name] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"materialize": "symlink"}, "build.materialize=symlink: choose hardlink, link, copy, none"),
        ({"inline": "yes"}, "build.inline=yes: choose true or false"),
        ({"push_to_hub": "name"}, "build.push_to_hub=name: give owner/name"),
        ({"push_to_hub": "me/it", "materialize": "link"}, "not materialize=link.*hardlink"),
        ({"push_to_hub": "me/it", "materialize": "none"}, "not materialize=none"),
    ],
)
def test_wrong_settings(corpus, changes, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        check(**(DEFAULTS | changes))
    with pytest.raises(UserError, match=f"(?s){message}"):
        run(corpus, **changes)


def test_the_defaults_are_right():
    check(**DEFAULTS)


def test_nothing_encoded(tmp_path):
    with pytest.raises(UserError, match=r"no token files.*stages=\[encode,build\]"):
        run(TokenCorpus(tmp_path / "out"))
    corpus = TokenCorpus(tmp_path / "failed")
    corpus.fail("encode", "bad")
    assert run(corpus).warnings == ("no item has a token file: there is nothing to build",)
    assert not (corpus.out / "dataset").exists()


def test_tokens_whose_sidecars_all_failed_are_not_called_absent(tmp_path):
    corpus = TokenCorpus(tmp_path / "out")
    for name in ("a", "b"):
        digest = corpus.add(name, columns=None).add_tokens(name, 20)["sha256"]
        corpus.fail("sidecars", name, tokens=digest, error="no_match: no number")
    outcome = run(corpus)
    assert outcome.warnings == (
        "2 items have tokens, but their sidecars failed: a (no_match: no number), b (no_match: no number)",
    )
    corpus.add("c")
    outcome = run(corpus)
    assert (outcome.done, len(outcome.warnings)) == (1, 1)
    assert outcome.warnings[0].startswith("2 items have tokens, but their sidecars failed: a (")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_refuses_is_explained(corpus, monkeypatch, code):
    def refuse(self, target):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(UserError, match=r"(no room to|can't) write .*dataset: .*(.|\n)*out=\.\.\."):
        run(corpus, materialize="link")
    assert sorted(path.name for path in corpus.out.iterdir()) == [".state", "tokens"]


def test_a_full_disk_does_not_recommend_copies(corpus, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(UserError, match="no room to write"):
        run(corpus)


def test_entropy_coded_files_cannot_be_inlined_without_their_model(corpus, monkeypatch):
    def refuse(path):
        raise ValueError(f"lm_stream_unsupported: the codes are entropy-coded ({path})")

    monkeypatch.setattr(token_files, "read_tokens", refuse)
    with pytest.raises(UserError, match=r"(?s)lm_stream_unsupported.*build.inline=false"):
        run(corpus, inline=True)
    assert run(corpus).done == 3


def test_hard_links_across_file_systems(corpus, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(UserError, match=r"(?s)hard link.*build.materialize=copy"):
        run(corpus)
    assert not (corpus.out / "dataset").exists()


def test_foreign_files_are_not_deleted(corpus, tmp_path):
    notes = corpus.out / "dataset" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    with pytest.raises(UserError, match=r"did not write and would delete: notes\.txt"):
        run(corpus)
    notes.rename(tmp_path / "notes.txt")
    run(corpus)
    (tmp_path / "notes.txt").rename(notes)
    corpus.add("d")
    with pytest.raises(UserError, match=r"would delete: notes\.txt"):
        run(corpus)
    assert notes.read_text() == "mine"


def test_what_a_killed_build_left_is_removed(corpus):
    leftover = corpus.out / "dataset.tmp-0123abcd" / "tokens"
    leftover.mkdir(parents=True)
    (leftover / "c.ecdc").write_bytes(b"half")
    run(corpus)
    assert [path.name for path in corpus.out.iterdir() if "tmp" in path.name] == []


def test_dry_run_writes_nothing(corpus):
    before = contents(corpus.out)
    outcome = run(corpus, stage=corpus.stage(dry_run=True), materialize="copy", push_to_hub="me/it")
    assert outcome.facts["dataset_rows"] == "WRITE 3"
    assert contents(corpus.out) == before


def test_dry_run_counts_what_encode_would_make(corpus):
    corpus.fail("encode", "bad")
    corpus.items["new"] = replace(corpus.items["c"], id="new")
    outcome = run(corpus, stage=corpus.stage(dry_run=True))
    assert (outcome.done, outcome.facts["dataset_rows"]) == (4, "WRITE 4")


def test_dry_run_in_an_empty_folder(tmp_path):
    corpus = TokenCorpus(tmp_path / "out")
    corpus.items["new"] = AudioItem("new", Path("new.wav"), "train", "1:1")
    assert run(corpus, stage=corpus.stage(dry_run=True)).done == 1


# ---- the card and the hub ------------------------------------------------------------------------------------------


def test_card(corpus):
    run(corpus, inline=True)
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(corpus.out / "dataset/README.md")
    facts = yaml.safe_load(card.content.split("---")[1])
    assert facts["size_categories"] == ["n<1K"]
    assert facts["tags"] == ["audio", "audio-tokens", "encodec"]
    assert [entry["split"] for entry in facts["configs"][0]["data_files"]] == ["train", "validation"]
    for part in ("they are random", "| train | 2 | 53 |", "| train | pitch | Hz | 53 |", "load_from_disk"):
        assert part in card.text


@pytest.mark.parametrize("info", [ENCODEC, SNAC], ids=lambda info: info.name)
def test_the_cards_code_runs(tmp_path, monkeypatch, info):
    corpus = TokenCorpus(tmp_path / "out", info).add("a", 24)
    warnings = run(corpus, inline=True).warnings
    text = (corpus.out / "dataset/README.md").read_text()
    names: dict = {}
    monkeypatch.chdir(corpus.out)
    for snippet in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(snippet, names)  # the snippet is ours
    if info is ENCODEC:
        assert warnings == ()
        assert next(iter(names["loader"]))["codes"].shape == (1, 4, 150)
    else:
        assert len(warnings) == 1
        assert "TokenDataset does not read this data set" in warnings[0]
        assert "import TokenDataset" not in text
        assert [book.shape for book in names["codebooks"]] == [(1, 6), (1, 12), (1, 24)]


def test_card_names_the_licence_of_the_codec(tmp_path):
    corpus = TokenCorpus(tmp_path / "out", replace(ENCODEC, weights_id="sha256:0123"))
    run(corpus.add("a"))
    assert "published weights: CC BY-NC 4.0." in (corpus.out / "dataset/README.md").read_text()


def test_the_hubs_own_loader_reads_the_folder(corpus, tmp_path):
    run(corpus)
    found = datasets.load_dataset(str(corpus.out / "dataset"), cache_dir=str(tmp_path / "cache"))
    assert {name: rows["id"] for name, rows in found.items()} == {n: r["id"] for n, r in load(corpus).items()}


class FakeApi:
    calls: ClassVar[list] = []
    error: Exception | None = None

    def create_repo(self, repo_id, **options):
        if self.error:
            raise self.error
        self.calls.append(("create", repo_id, options))

    def upload_folder(self, **options):
        self.calls.append(("upload", options, contents(Path(options["folder_path"]))))


def test_push_to_hub(corpus, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "calls", [])
    run(corpus, push_to_hub="me/my-dataset")
    (create, repo, options), (upload, request, files) = FakeApi.calls
    assert (create, repo, options) == (
        "create",
        "me/my-dataset",
        {"repo_type": "dataset", "private": True, "exist_ok": True},
    )
    assert (upload, request["repo_id"], request["repo_type"]) == ("upload", "me/my-dataset", "dataset")
    assert files == contents(corpus.out / "dataset")
    run(corpus)
    assert len(FakeApi.calls) == 2


def test_calls_of_the_hub_have_these_arguments():
    import inspect

    from huggingface_hub import HfApi

    assert {"repo_type", "private", "exist_ok"} <= inspect.signature(HfApi.create_repo).parameters.keys()
    wanted = {"repo_id", "repo_type", "folder_path", "commit_message", "delete_patterns"}
    assert wanted <= inspect.signature(HfApi.upload_folder).parameters.keys()


def test_a_hub_that_refuses(corpus, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeApi)
    monkeypatch.setattr(FakeApi, "error", OSError("401 unauthorized"))
    with pytest.raises(UserError, match=r"(?s)can't upload .* me/my-dataset: OSError: 401 unauthorized.*hf auth login"):
        run(corpus, push_to_hub="me/my-dataset")
    assert load(corpus)["validation"].num_rows == 1
