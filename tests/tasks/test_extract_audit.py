"""The stage audit: its reports, when it fails, and that an unchanged folder is not read again."""

import contextlib
import csv
import json
import os

import pytest

from tests.token_corpus import ENCODEC, MIMI, SNAC, TokenCorpus
from tests.token_trees import (
    IDS,
    change_json,
    make_values,
    sha256_of,
    write_codes,
    write_manifest,
    write_sidecar,
    write_tree,
)
from voxlab.codecs.base import CodecInfo
from voxlab.errors import AuditFailed, UserError
from voxlab.parallel import Ranks
from voxlab.sidecars import audit as auditing
from voxlab.sidecars.audit_types import FAIL_ON, TYPES
from voxlab.tasks import extract_audit
from voxlab.tasks.extract_audit import audit
from voxlab.tasks.extract_build import build
from voxlab.tasks.extract_stage import Stage

REPORTS = ("audit.txt", "audit.json", "audit.csv", "audit.html")


@pytest.fixture
def stage(tmp_path):
    write_tree(tmp_path / "out/tokens")
    write_manifest(tmp_path / "out/manifest.csv", tmp_path / "out/tokens")
    return Stage(tmp_path / "out", (), Ranks())


def findings(stage):
    return json.loads((stage.out / "audit.json").read_text())["findings"]


def write_float32(stage):
    """Make a warning, and no error: the values of "a" are of another type than is expected."""
    npy = stage.out / "tokens/a.cond.npy"
    write_sidecar(npy, make_values(30, 0, "float32"), sha256_of(stage.out / "tokens/a.ecdc"))


def test_clean_folder(stage):
    outcome = audit(stage)
    assert (outcome.done, outcome.kept, outcome.warnings) == (len(IDS), 0, ())
    page = str(stage.out / "audit.html")
    assert outcome.facts == {"audit_ok_files": 4, "audit_errors": 0, "audit_warnings": 0, "audit_page": page}
    assert findings(stage) == []
    assert "4 OK files" in (stage.out / "audit.txt").read_text()
    assert (stage.out / "audit.csv").read_text() == "type,rel_ecdc,rel_cond,detail\n"
    page = (stage.out / "audit.html").read_text()
    assert page.count("data:image/png") == 3  # durations, and the two columns
    assert "pitch" in page


def test_errors_fail_after_the_reports_are_written(stage):
    (stage.out / "tokens/a.ecdc").write_bytes(b"")
    with pytest.raises(AuditFailed, match="errors: 1, warnings: 0; 3 of 4 token files are OK") as caught:
        audit(stage)
    assert caught.value.exit_code == 1
    assert "a.ecdc: bad_ecdc: " in str(caught.value)
    with (stage.out / "audit.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["type"], row["rel_ecdc"], row["rel_cond"]) for row in rows] == [("bad_ecdc", "a.ecdc", "a.cond.npy")]
    assert findings(stage)[0]["severity"] == "error"
    assert "bad_ecdc" in (stage.out / "audit.html").read_text()


def test_warnings_fail_where_strict(stage):
    write_float32(stage)
    outcome = audit(stage, dtype="float16")
    assert outcome.warnings == (f"1 x dtype_mismatch: {TYPES['dtype_mismatch']}",)
    with pytest.raises(AuditFailed, match=r"a\.ecdc: dtype_mismatch"):
        audit(stage, dtype="float16", strict=True)
    with pytest.raises(AuditFailed, match="errors: 1"):
        audit(stage, dtype="float16", fail_on=["dtype_mismatch"])


def test_the_four_types_that_always_failed_do_and_the_others_of_old_do_not():
    old = {"bad_shape", "dtype_mismatch", "fps_mismatch", "duplicate_names", "names_length_mismatch", "missing_names"}
    old |= {"missing_features", "norm_invalid", "norm_length_mismatch", "norm_inverted"}
    old |= {"range_below_min", "range_above_max", "range_unverifiable"}
    assert {"bad_ecdc", "bad_sidecar", "frame_mismatch", "missing_sidecar"} <= set(FAIL_ON)
    assert not old & set(FAIL_ON)


@pytest.mark.parametrize("good", [True, False])
def test_unchanged_folder_is_not_read_again(stage, monkeypatch, good):
    if not good:
        (stage.out / "tokens/a.ecdc").write_bytes(b"")

    def run():
        try:
            return audit(stage)
        except AuditFailed as error:
            return str(error)

    first = run()
    before = {name: (stage.out / name).stat().st_mtime_ns for name in REPORTS}
    monkeypatch.setattr(auditing, "read_codes", lambda *_: pytest.fail("a token file was read"))
    second = run()
    assert {name: (stage.out / name).stat().st_mtime_ns for name in REPORTS} == before
    if good:
        assert (first.done, second.done, second.kept) == (len(IDS), 0, len(IDS))
        assert second.facts == first.facts
    else:
        assert second == first


@pytest.mark.parametrize(
    "change",
    [
        lambda out: write_codes(out / "tokens/new.ecdc", 9),
        lambda out: (out / "tokens/a.cond.npy").write_bytes(b"123"),
        lambda out: os.utime(out / "tokens/a.ecdc", ns=(1, 1)),
        lambda out: (out / "manifest.csv").unlink(),
        lambda out: (out / "dataset").mkdir() or (out / "dataset/dataset_dict.json").write_text("{}"),
        lambda out: (out / "audit.html").unlink(),
    ],
    ids=["new file", "sidecar", "time", "manifest", "data set", "report"],
)
def test_changed_folder_is_read_again(stage, monkeypatch, change):
    audit(stage)
    change(stage.out)
    calls = []
    whole = extract_audit.audit_tokens
    monkeypatch.setattr(extract_audit, "audit_tokens", lambda *args, **keys: calls.append(1) or whole(*args, **keys))
    with contextlib.suppress(AuditFailed):
        audit(stage)
    assert calls == [1]


def test_other_settings_are_another_audit(stage):
    audit(stage)
    with pytest.raises(AuditFailed, match="warnings: 8"):
        audit(stage, require=["tempo"], ranges={"beat": [0, None]}, strict=True)
    assert audit(stage).done == len(IDS)


def test_equal_folders_give_equal_reports(stage, tmp_path):
    other = Stage(tmp_path / "elsewhere", (), Ranks())
    write_tree(other.out / "tokens")
    write_manifest(other.out / "manifest.csv", other.out / "tokens")
    for place in (stage, other):
        change_json(place.out / "tokens/a.cond.npy", fps=50)
        audit(place)
    for name in REPORTS:
        assert (stage.out / name).read_bytes() == (other.out / name).read_bytes()


def test_dry_run_writes_nothing(stage):
    before = sorted(stage.out.rglob("*"))
    (stage.out / "tokens/a.ecdc").write_bytes(b"")
    outcome = audit(Stage(stage.out, (), Ranks(), dry_run=True))
    assert outcome.done == len(IDS)
    assert sorted(stage.out.rglob("*")) == before


def test_folder_without_token_files(tmp_path):
    with pytest.raises(UserError, match="no token files") as caught:
        audit(Stage(tmp_path, (), Ranks()))
    assert caught.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fail_on": ["bad_egg"]}, "unknown types bad_egg"),
        ({"dtype": "int8"}, "dtype=int8"),
        ({"ranges": {"pitch": [1]}}, "pitch: give \\[lowest, highest\\]"),
        ({"ranges": {"pitch": [2, 1]}}, "pitch from 2 to 1"),
    ],
    ids=["fail_on", "dtype", "one limit", "no value"],
)
def test_wrong_settings(stage, settings, message):
    with pytest.raises(UserError, match=message):
        audit(stage, **settings)


@pytest.mark.parametrize("problem", [False, True])
def test_second_rank_learns_what_the_first_found(stage, monkeypatch, problem):
    """The first rank's conclusion reaches the others, also when it is that there is nothing to audit."""
    sent = []
    if problem:
        for path in stage.out.rglob("*.ecdc"):
            path.unlink()
    monkeypatch.setattr(extract_audit, "gather", lambda ranks, value: sent.append(value) or [value])
    first = None
    try:
        first = audit(stage)
    except UserError as error:
        first = str(error)
    monkeypatch.setattr(extract_audit, "gather", lambda ranks, value: [sent[0], value])
    other = Stage(stage.out, (), Ranks(1, 2))
    monkeypatch.setattr(extract_audit, "_audit", lambda *_: pytest.fail("the second rank works"))
    if problem:
        with pytest.raises(UserError, match="no token files") as caught:
            audit(other)
        assert str(caught.value) == first
    else:
        assert audit(other) == first


ENCODEC_48 = CodecInfo("encodec", 48000, 2, 320, 4, 1024, (1,) * 4, "random:0", has_scales=True)


@pytest.mark.parametrize(
    ("info", "materialize", "inline"),
    [
        *((ENCODEC, kind, False) for kind in ("hardlink", "link", "copy", "none")),
        *((info, "hardlink", True) for info in (ENCODEC, ENCODEC_48, MIMI, SNAC)),
    ],
    ids=["hardlink", "link", "copy", "none", "inline encodec", "inline encodec 48", "inline mimi", "inline snac"],
)
def test_what_the_stage_build_writes_is_clean(tmp_path, info, materialize, inline):
    corpus = TokenCorpus(tmp_path / "out", info, "safetensors" if info is ENCODEC_48 else "auto")
    corpus.add("a/foo_pitch_64.00_amp_.75", 20, speaker="ann")
    corpus.add("c", 8, split="validation", columns=("pitch",))
    settings = {"materialize": materialize, "inline": inline, "push_to_hub": None}
    build(corpus.stage(), info=corpus.info, container=corpus.container, **settings)
    assert audit(corpus.stage(), strict=True).facts["audit_ok_files"] == 2
    corpus.add("new", 12)
    with pytest.raises(AuditFailed, match=r"new\.\w+: dataset_mismatch: not listed"):
        audit(corpus.stage())
