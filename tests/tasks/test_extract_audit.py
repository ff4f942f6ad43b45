"""The stage audit: its reports, when it fails, and that an unchanged folder is not read again."""

import contextlib
import csv
import json
import os
import re
from pathlib import Path

import numpy as np
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
from voxlab.data.items import AudioItem
from voxlab.errors import AuditFailed, UserError
from voxlab.parallel import Ranks
from voxlab.sidecars import audit as auditing
from voxlab.sidecars.audit_types import FAIL_ON, TYPES
from voxlab.tasks.extract import audit as extract_audit
from voxlab.tasks.extract.audit import audit
from voxlab.tasks.extract.build import build
from voxlab.tasks.extract.stage import Stage

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


def test_an_audit_without_recordings_says_what_it_cannot_tell(stage):
    audit(stage)
    for name in ("audit.txt", "audit.html"):
        text = (stage.out / name).read_text()
        assert "The recordings were not looked at: token files whose recording is gone are not told" in text
        assert "stages=" in text
    items = tuple(AudioItem(name, Path(name), "train", "") for name in IDS)
    assert audit(Stage(stage.out, items, Ranks())).done == len(IDS)
    for name in ("audit.txt", "audit.html"):
        assert "not looked at" not in (stage.out / name).read_text()
    assert json.loads((stage.out / "audit.json").read_text())["recordings"] == len(IDS)


def test_histograms_fill_the_cards_of_the_page(stage):
    audit(stage)
    widths = re.findall(r'<img src="[^"]*" width="(\d+)"', (stage.out / "audit.html").read_text())
    assert [1000 < int(width) < 1040 for width in widths] == [True] * 3


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
    page = (stage.out / "audit.html").read_text()
    assert "bad_ecdc" in page
    assert '<p class="notice error" role="note"><strong>Error</strong> errors: 1, warnings: 0' in page
    assert f"data set in {stage.out.name}<" in page


def test_warnings_fail_where_strict(stage):
    write_float32(stage)
    outcome = audit(stage, dtype="float16", fail_on=[])
    found = "1 x a.ecdc: dtype_mismatch: values are float32, expected float16"
    assert outcome.warnings == (f"{found} ({stage.out / 'audit.txt'})",)
    with pytest.raises(AuditFailed, match=r"a\.ecdc: dtype_mismatch"):
        audit(stage, dtype="float16", fail_on=[], strict=True)
    with pytest.raises(AuditFailed, match="errors: 1"):
        audit(stage, dtype="float16", fail_on=["dtype_mismatch"])


ASKED = {
    "require": ({"require": ["tempo"]}, "missing_features", "no column tempo"),
    "range": ({"ranges": {"pitch": [None, 1]}}, "range_above_max", "pitch: greatest value"),
    "range of no column": ({"ranges": {"tempo": [0, 1]}}, "range_unverifiable", "tempo: there is no such column"),
    "dtype": ({"dtype": "float32"}, "dtype_mismatch", "values are float16, expected float32"),
    "frame rate": ({"frame_rate": 50}, "fps_mismatch", "fps in the JSON: 75.0, expected 50"),
}


@pytest.mark.parametrize(("settings", "kind", "text"), ASKED.values(), ids=ASKED)
def test_what_the_settings_ask_for_fails_the_run(stage, settings, kind, text):
    with pytest.raises(AuditFailed, match=rf"errors: 4, warnings: 0(.|\n)*a\.ecdc: {kind}: {text}.* \(and 3 more\)"):
        audit(stage, **settings)
    outcome = audit(stage, **settings, fail_on=["bad_ecdc"])
    assert outcome.facts["audit_warnings"] == 4
    assert outcome.warnings[0].startswith(f"4 x a.ecdc: {kind}: {text}")


def test_what_a_file_says_of_itself_is_a_warning(stage):
    npy = stage.out / "tokens/a.cond.npy"
    values = make_values(30)
    values[4, 0] = 99
    np.save(npy, values)
    change_json(stage.out / f"tokens/{IDS[1]}.cond.npy", dtype="float32")
    first, second = audit(stage).warnings
    assert first.startswith(f"1 x {IDS[1]}.ecdc: dtype_mismatch: ")
    assert second == f"1 x a.ecdc: range_above_max: values above the max in the JSON: pitch ({stage.out / 'audit.txt'})"


def test_sidecars_with_other_columns_fail(stage):
    npy = stage.out / "tokens/a.cond.npy"
    write_sidecar(npy, make_values(30), sha256_of(stage.out / "tokens/a.ecdc"), names=("pitch", "tempo"))
    (stage.out / "manifest.csv").unlink()
    with pytest.raises(AuditFailed) as caught:
        audit(stage)
    assert [entry["type"] for entry in findings(stage)] == ["mixed_columns"]
    assert str(caught.value).splitlines()[1:3] == [
        "  mixed_columns: without gain and with tempo, unlike most: a.ecdc",
        "Give all the same columns (mend names or tables, or drop the producer and add "
        "sidecars.remove='[gain,tempo]'), then run all stages again; or choose audit.fail_on=[...].",
    ]


def test_only_columns_that_differ_are_to_be_removed(stage):
    """Sidecars of recordings that are gone don't count, nor do columns that all have."""
    for name, names in (("a", ("pitch", "odd one")), ("deep/c", ("pitch", "gone"))):
        npy = stage.out / f"tokens/{name}.cond.npy"
        frames = len(np.load(npy))
        write_sidecar(npy, make_values(frames), sha256_of(stage.out / f"tokens/{name}.ecdc"), names=names)
    there = tuple(AudioItem(name, Path(name), "train", "") for name in IDS if name != "deep/c")
    with pytest.raises(AuditFailed, match=r"add sidecars\.remove='\[gain,\"odd one\"\]'\) and"):
        audit(Stage(stage.out, there, Ranks()))


def test_tokens_of_recordings_that_are_gone_are_named(stage):
    there = [AudioItem(name, Path(name), "train", "") for name in IDS[2:]]
    with pytest.raises(AuditFailed) as caught:
        audit(Stage(stage.out, tuple(there), Ranks()))
    assert {(entry["type"], entry["tokens"]) for entry in findings(stage)} == {
        ("orphan_tokens", f"{name}.ecdc") for name in IDS[:2]
    }
    names = ", ".join(sorted(f"{name}.ecdc" for name in IDS[:2]))
    assert str(caught.value).splitlines()[1:3] == [
        f"  orphan_tokens: its recording is gone: stage=clean removes what it left: {names}",
        "Remove what has no recording (the same command with stage=clean; dry_run=true lists it), then run all stages "
        "again; or choose audit.fail_on=[...].",
    ]


def test_the_error_carries_the_outcome(stage):
    (stage.out / "tokens/a.ecdc").write_bytes(b"")
    with pytest.raises(AuditFailed) as caught:
        audit(stage)
    outcome = caught.value.outcome
    assert (outcome.done, outcome.facts["audit_errors"]) == (4, 1)
    assert outcome.facts["audit_page"] == str(stage.out / "audit.html")


def test_the_message_is_short_and_names_the_stages(stage):
    ids = [f"tokens/{name}" for name in IDS]
    (stage.out / f"{ids[0]}.ecdc").write_bytes(b"")
    (stage.out / f"{ids[1]}.cond.npy").unlink()
    names = [f"column_{n}" for n in range(99)]
    sha256 = sha256_of(stage.out / f"{ids[2]}.ecdc")
    write_sidecar(stage.out / f"{ids[2]}.cond.npy", np.zeros((32, 99), np.float16), sha256, names=names)
    (stage.out / f"{ids[3]}.cond.json").unlink()
    (stage.out / "dataset").mkdir()
    with pytest.raises(AuditFailed) as caught:
        audit(stage)
    lines = str(caught.value).replace(str(stage.out), "OUT").splitlines()
    assert len(lines) == 6
    assert all(len(line) <= 200 for line in lines)
    assert "there are 2 more types" in lines[0]
    assert lines[4].startswith("Give all the same columns ")
    assert "sidecars.remove='[column_0,column_1,column_10,column_11,...]')" in lines[4]
    assert lines[5] == "All findings: OUT/audit.txt (also audit.json, audit.csv, audit.html)."


@pytest.mark.parametrize(
    ("kind", "stages"),
    [
        ("dataset_mismatch", "build"),
        *((kind, "sidecars") for kind in ("stale_sidecar", "missing_sidecar", "manifest_mismatch")),
        *((kind, "encode") for kind in ("bad_ecdc", "codes_out_of_range")),
    ],
)
def test_each_fault_names_the_stage_that_mends_it(tmp_path, kind, stages):
    counts = {"error": {kind: 1}, "warning": {}}
    totals = {"errors": 1, "warnings": 0, "ok_files": 0, "files": 1}
    conclusion = {"totals": totals, "counts": counts, "first": {"error": {kind: "x"}, "warning": {}}}
    assert f"stages='[{stages},audit]'" in extract_audit._explain(tmp_path, conclusion, ["error"])
    assert extract_audit._advise({"bad_ecdc", "bad_sidecar", "dataset_mismatch"}).startswith(
        "Run again stages='[encode,sidecars,build,audit]', or say"
    )


def test_every_type_has_a_stage_or_none_can_help():
    assert TYPES.keys() - extract_audit._AGAIN.keys() - extract_audit._BY_HAND.keys() == {
        "range_below_min",
        "range_above_max",
        "auditor_error",
        "orphan_sidecar",
    }


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
    with pytest.raises(AuditFailed, match="errors: 8"):
        audit(stage, require=["tempo"], ranges={"beat": [0, None]}, strict=True)
    assert audit(stage).done == len(IDS)


def test_equal_folders_give_equal_reports(stage, tmp_path):
    other = Stage(tmp_path / "elsewhere" / stage.out.name, (), Ranks())
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
        ({"fail_on": ["bad_ecd"]}, r"audit\.fail_on=\[bad_ecd\]: .*Did you mean .*bad_ecdc"),
        ({"dtype": "int8"}, "dtype=int8"),
        ({"ranges": {"pitch": [1]}}, "pitch: give \\[lowest, highest\\]"),
        ({"ranges": {"pitch": [2, 1]}}, "pitch from 2 to 1"),
    ],
    ids=["fail_on", "dtype", "one limit", "no value"],
)
def test_wrong_settings(stage, settings, message):
    with pytest.raises(UserError, match=message) as caught:
        audit(stage, **settings)
    assert max(map(len, str(caught.value).splitlines())) <= 120
    with pytest.raises(UserError, match=message):
        extract_audit.check(**settings)
    extract_audit.check(strict=True)


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
    corpus.add("c", 8, split="validation", columns=("gain", "pitch"))  # order does not matter
    settings = {"materialize": materialize, "inline": inline, "push_to_hub": None}
    build(corpus.stage(), info=corpus.info, container=corpus.container, **settings)
    assert audit(corpus.stage(), strict=True).facts["audit_ok_files"] == 2
    corpus.add("new", 12)
    with pytest.raises(AuditFailed, match=r"new\.\w+: dataset_mismatch: not listed"):
        audit(corpus.stage())
