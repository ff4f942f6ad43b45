"""The audit on hand-made trees: clean ones pass, each seeded fault is reported once, nothing makes it crash."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.token_trees import (
    IDS,
    NAMES,
    change_json,
    json_of,
    make_values,
    sha256_of,
    write_codes,
    write_foreign_tree,
    write_sidecar,
    write_tree,
)
from voxlab.codecs import token_files
from voxlab.codecs.base import CodecInfo, Codes
from voxlab.errors import UserError
from voxlab.sidecars import audit
from voxlab.sidecars.audit import audit_tokens, scan
from voxlab.sidecars.audit_report import render_csv, render_text
from voxlab.sidecars.audit_types import FAIL_ON, TYPES, Expectation
from voxlab.sidecars.schema import compute_stats

STRICT = Expectation(75.0, "float16", NAMES, {"pitch": (0.0, 127.0), "gain": (None, 1.0)}, True, 1024)


@pytest.mark.parametrize("container", ["ecdc", "safetensors", "torch"])
@pytest.mark.parametrize("expect", [Expectation(), STRICT], ids=["default", "strict"])
def test_clean_tree_has_no_findings(tmp_path, container, expect):
    found = audit_tokens(write_tree(tmp_path, container=container), expect=expect)
    assert found.findings == ()
    assert found.num_ok == len(found.files) == len(IDS)
    assert [file.codes.frames for file in found.files] == [30, 31, 32, 33]
    assert [file.values.names for file in found.files] == [NAMES] * 4


@pytest.mark.parametrize("version", [1, 2])
def test_tree_of_the_earlier_project_is_clean(tmp_path, version):
    found = audit_tokens(write_foreign_tree(tmp_path, version=version), expect=STRICT)
    assert found.findings == ()
    assert found.num_ok == len(IDS)


def test_skeletons_are_clean(tmp_path):
    write_tree(tmp_path)
    for number, name in enumerate(IDS):
        sha256 = sha256_of(tmp_path / f"{name}.ecdc")
        write_sidecar(tmp_path / f"{name}.cond.npy", make_values(30 + number)[:, :0], sha256, names=())
    assert audit_tokens(tmp_path).findings == ()


def test_sidecars_in_a_tree_of_their_own(tmp_path):
    tokens, cond = tmp_path / "tokens", tmp_path / "params"
    write_tree(tokens, cond=cond)
    assert audit_tokens(tokens, cond=cond, expect=STRICT).findings == ()
    missing = audit_tokens(tokens, expect=STRICT).findings
    assert [finding.type for finding in missing] == ["missing_sidecar"] * len(IDS)


def test_hierarchical_codes(tmp_path):
    snac = CodecInfo("snac", 24000, 1, 512, 3, 4096, (4, 2, 1), "random:0")
    books = tuple(torch.randint(0, 4096, (1, 5 * rate)) for rate in (1, 2, 4))
    token_files.write_tokens(tmp_path / "a.safetensors", Codes(books, torch.tensor([20])), snac)
    write_sidecar(tmp_path / "a.cond.npy", make_values(20), None, fps=46.875)
    assert audit_tokens(tmp_path, expect=Expectation(frame_rate=46.875)).findings == ()


def test_entropy_coded_files_are_taken_by_their_header(tmp_path):
    write_tree(tmp_path)
    header = json.dumps({"m": "encodec_24khz", "al": 30 * 320 - 7, "nc": 4, "lm": True}).encode()
    path = tmp_path / "a.ecdc"
    path.write_bytes(b"ECDC\0" + len(header).to_bytes(4, "big") + header + bytes(50))
    change_json(tmp_path / "a.cond.npy", codes_sha256=sha256_of(path))
    found = audit_tokens(tmp_path)
    assert found.findings == ()
    assert found.files[0].codes.frames == 30


# ---- seeded faults -------------------------------------------------------------------------------------------------

SEEDS = {}


def seeds(kind, name=""):
    """Register a function that puts one fault of type `kind` into the sidecar or token file of id "a"."""

    def register(function):
        SEEDS[f"{kind}-{name or function.__name__}"] = (kind, function)
        return function

    return register


def npy_of(root):
    return root / "a.cond.npy"


def restate(npy, values):
    """Write other values with the JSON that fits them."""
    write_sidecar(npy, values, sha256_of(npy.with_name("a.ecdc")))


for label, data in {"empty": b"", "magic": b"RIFF" + bytes(60), "cut": None, "json": b"ECDC\0\0\0\0\4nope"}.items():

    @seeds("bad_ecdc", label)
    def _(root, data=data):
        path = root / "a.ecdc"
        path.write_bytes(path.read_bytes()[:-9] if data is None else data)


@seeds("bad_ecdc")
def link_to_nothing(root):
    (root / "a.ecdc").unlink()
    (root / "a.ecdc").symlink_to("nowhere.ecdc")


@seeds("missing_sidecar")
def both_files_deleted(root):
    npy_of(root).unlink()
    json_of(npy_of(root)).unlink()


@seeds("missing_sidecar")
def values_deleted(root):
    npy_of(root).unlink()


@seeds("missing_json")
def json_deleted(root):
    json_of(npy_of(root)).unlink()


@seeds("missing_json")
def json_misnamed(root):
    json_of(npy_of(root)).rename(root / "a.cond.cond.json")


@seeds("orphan_sidecar")
def tokens_deleted(root):
    (root / "a.ecdc").unlink()


@seeds("orphan_sidecar")
def json_of_nothing(root):
    (root / "z.cond.json").write_text("{}")


for label, data in {"empty": b"", "text": b"0.5 0.5\n", "cut": None}.items():

    @seeds("bad_sidecar", f"values {label}")
    def _(root, data=data):
        npy_of(root).write_bytes(npy_of(root).read_bytes()[:-1] if data is None else data)


for label, text in {
    "cut": '{"schema_version": 1',
    "list": "[]",
    "version": '{"schema_version": 3}',
    "none": "{}",
}.items():

    @seeds("bad_sidecar", f"json {label}")
    def _(root, text=text):
        json_of(npy_of(root)).write_text(text)


@seeds("bad_sidecar")
def pickled(root):
    np.save(npy_of(root), np.array([{"a": 1}] * 30, object))


@seeds("bad_sidecar")
def huge_shape(root):
    values = npy_of(root).read_bytes().replace(b"(30, 2)", b"(9**9,)")
    npy_of(root).write_bytes(values)


@seeds("bad_shape")
def one_dimension(root):
    np.save(npy_of(root), np.zeros(30, np.float16))


@seeds("frame_mismatch")
def fewer_values(root):
    restate(npy_of(root), make_values(29))


@seeds("frame_mismatch")
def longer_codes(root):
    write_codes(root / "a.ecdc", 34)


@seeds("frame_mismatch")
def json_says_other_frames(root):
    change_json(npy_of(root), frames=31)


@seeds("stale_sidecar")
def other_codes(root):
    write_codes(root / "a.ecdc", 30, 99)


@seeds("dtype_mismatch")
def float32_values(root):
    restate(npy_of(root), make_values(30, 0, "float32"))


@seeds("dtype_mismatch")
def float64_values(root):
    restate(npy_of(root), make_values(30, 0, "float64"))


@seeds("dtype_mismatch")
def json_says_other_dtype(root):
    change_json(npy_of(root), dtype="float32")


for label, rate in {"other": 50, "missing": None, "text": "75"}.items():

    @seeds("fps_mismatch", label)
    def _(root, rate=rate):
        change_json(npy_of(root), fps=rate)


for label, names in {"missing": None, "empty": [], "numbers": [1, 2], "text": "pitch"}.items():

    @seeds("missing_names", label)
    def _(root, names=names):
        change_json(npy_of(root), names=names)


@seeds("missing_names")
def described_nowhere(root):
    empty = {key: [] for key in ("min", "max", "mean", "std")}
    change_json(npy_of(root), names=[], norm=empty)


@seeds("names_length_mismatch")
def more_names(root):
    change_json(npy_of(root), names=["pitch", "gain", "more"])


@seeds("names_length_mismatch")
def more_columns(root):
    values = make_values(30)
    np.save(npy_of(root), np.concatenate([values, values[:, :1]], axis=1))


@seeds("duplicate_names")
def same_name_twice(root):
    change_json(npy_of(root), names=["pitch", "pitch"])


@seeds("missing_features")
def other_name(root):
    change_json(npy_of(root), names=["pitch", "loudness"])


for label, value in {"nan": np.nan, "overflow": np.inf, "negative": -np.inf}.items():

    @seeds("nonfinite", label)
    def _(root, value=value):
        values = make_values(30)
        values[[3, 7], 1] = value
        np.save(npy_of(root), values)


@seeds("norm_invalid")
def no_norm(root):
    change_json(npy_of(root), norm=None)


@seeds("norm_invalid")
def text_in_norm(root):
    norm = compute_stats(make_values(30))
    change_json(npy_of(root), norm=norm | {"mean": [norm["mean"][0], "?"]})


@seeds("norm_invalid")
def negative_deviation(root):
    norm = compute_stats(make_values(30))
    change_json(npy_of(root), norm=norm | {"std": [norm["std"][0], -1.0]})


@seeds("norm_length_mismatch")
def one_mean(root):
    change_json(npy_of(root), norm=compute_stats(make_values(30)) | {"mean": [65.0]})


@seeds("norm_inverted")
def least_above_greatest(root):
    norm = compute_stats(make_values(30))
    change_json(npy_of(root), norm=norm | {"min": norm["max"], "max": norm["min"]})


@seeds("stats_mismatch")
def other_mean(root):
    norm = compute_stats(make_values(30))
    change_json(npy_of(root), norm=norm | {"mean": [norm["mean"][0] * 1.0001, norm["mean"][1]]})


@seeds("stats_mismatch")
def values_in_another_order(root):
    np.save(npy_of(root), make_values(30)[::-1])


@seeds("range_below_min")
def below_stored(root):
    values = make_values(30)
    values[4, 0] = 20
    np.save(npy_of(root), values)


@seeds("range_above_max")
def above_stored(root):
    values = make_values(30)
    values[4, 0] = 99
    np.save(npy_of(root), values)


@seeds("range_below_min")
def below_expected(root):
    values = make_values(30)
    values[4, 0] = -0.5
    restate(npy_of(root), values)


@seeds("range_above_max")
def above_expected(root):
    values = make_values(30)
    values[4, 1] = 1.25
    restate(npy_of(root), values)


@seeds("range_below_min")
def below_both(root):
    values = make_values(30)
    values[4, 0] = -3
    np.save(npy_of(root), values)


@seeds("range_unverifiable")
def no_statistics(root):
    change_json(npy_of(root), norm={key: [] for key in ("min", "max", "mean", "std")})


@seeds("codes_out_of_range")
def code_1024(root):
    books = torch.randint(0, 1024, (1, 1, 4, 30))
    books[0, 0, 2, 5] = 1024
    torch.save({"audio_codes": books, "audio_scales": [None], "audio_length": 9600}, root / "a.ecdc")
    change_json(npy_of(root), codes_sha256=None)


@seeds("mixed_codecs")
def other_bandwidth(root):
    restate_codes(root, codebooks=8)


def restate_codes(root, **options):
    change_json(npy_of(root), codes_sha256=write_codes(root / "a.ecdc", 30, **options))


@seeds("mixed_columns")
def one_column_less(root):
    write_sidecar(npy_of(root), make_values(30)[:, :1], sha256_of(root / "a.ecdc"), names=NAMES[:1])


def test_files_of_recordings_that_are_gone_are_orphans_and_nothing_else(tmp_path):
    write_tree(tmp_path)
    kept = {name.removesuffix(".ecdc") for name in scan(tmp_path).tokens} - {"a"}
    one_column_less(tmp_path)
    other_bandwidth(tmp_path)
    found = audit_tokens(tmp_path, recordings=kept)
    assert [(entry.tokens, entry.type, entry.severity) for entry in found.findings] == [
        ("a.ecdc", "orphan_tokens", "error")
    ]
    assert "orphan_tokens" not in {entry.type for entry in audit_tokens(tmp_path).findings}


# Errors only because `STRICT` asks for more than agreement.
ASKED = {
    *("dtype_mismatch-float32_values", "dtype_mismatch-float64_values", "missing_features-other_name"),
    *("fps_mismatch-other", "fps_mismatch-missing", "fps_mismatch-text"),
    *("range_below_min-below_expected", "range_above_max-above_expected", "range_below_min-below_both"),
}


@pytest.mark.parametrize("label", sorted(SEEDS))
def test_seeded_fault_is_reported_once(tmp_path, label):
    kind, seed = SEEDS[label]
    write_tree(tmp_path)
    seed(tmp_path)
    found = audit_tokens(tmp_path, expect=Expectation(75.0) if kind == "mixed_columns" else STRICT)
    assert [finding.type for finding in found.findings] == [kind], found.findings
    finding = found.findings[0]
    assert finding.severity == ("error" if kind in FAIL_ON or label in ASKED else "warning")
    assert finding.detail
    orphan = kind == "orphan_sidecar"
    assert finding.tokens == ("" if orphan else "a.ecdc")
    assert found.num_ok == len(found.files) - (0 if orphan else 1)


def test_range_of_a_column_that_is_not_there(tmp_path):
    expect = Expectation(ranges={"tempo": (0.0, 300.0)})
    found = audit_tokens(write_tree(tmp_path), expect=expect).findings
    assert [finding.type for finding in found] == ["range_unverifiable"] * len(IDS)


def test_error_of_the_audit_itself_is_a_finding(tmp_path, monkeypatch):
    write_tree(tmp_path)
    whole = audit.check_sidecar

    def fail_on_first(npy: Path, *rest):
        if npy.name.startswith("a."):
            raise RuntimeError("unforeseen")
        return whole(npy, *rest)

    monkeypatch.setattr(audit, "check_sidecar", fail_on_first)
    found = audit_tokens(tmp_path)
    assert [(entry.tokens, entry.type, entry.severity) for entry in found.findings] == [
        ("a.ecdc", "auditor_error", "error")
    ]
    assert "unforeseen" in found.findings[0].detail


def test_seeds_cover_every_type_of_a_single_tree():
    elsewhere = {"manifest_mismatch", "dataset_mismatch", "orphan_tokens", "auditor_error"}
    assert {kind for kind, _ in SEEDS.values()} | elsewhere == set(TYPES)


def test_several_faults_in_one_tree_are_all_reported(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "a.ecdc").write_bytes(b"")
    (tmp_path / f"{IDS[1]}.cond.npy").unlink()
    npy = tmp_path / f"{IDS[2]}.cond.npy"
    write_sidecar(npy, make_values(32, 0, "float32"), sha256_of(tmp_path / f"{IDS[2]}.ecdc"), fps=50)
    found = audit_tokens(tmp_path, expect=STRICT)
    assert [(entry.tokens, entry.type) for entry in found.findings] == [
        ("a.ecdc", "bad_ecdc"),
        (f"{IDS[1]}.ecdc", "missing_sidecar"),
        (f"{IDS[2]}.ecdc", "dtype_mismatch"),
        (f"{IDS[2]}.ecdc", "fps_mismatch"),
    ]
    assert found.num_ok == 1
    assert found.count("error") == {"bad_ecdc": 1, "dtype_mismatch": 1, "fps_mismatch": 1, "missing_sidecar": 1}


# ---- whatever the bytes --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """Return the bytes of one file of each kind, by name."""
    root = tmp_path_factory.mktemp("whole")
    write_codes(root / "a.ecdc", 5)
    write_codes(root / "s.safetensors", 5, container="safetensors")
    write_codes(root / "t.ecdc", 5, container="torch")
    write_sidecar(root / "a.cond.npy", make_values(5), sha256_of(root / "a.ecdc"))
    return {path.name: path.read_bytes() for path in root.iterdir()}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.ecdc", "a.cond.npy", "a.cond.json", "s.safetensors", "t.ecdc"]),
    keep=st.integers(0, 300),
    extra=st.binary(max_size=40),
    cut=st.booleans(),
)
def test_damaged_files_never_stop_it(tmp_path, whole_files, name, keep, extra, cut):
    for other, data in whole_files.items():
        (tmp_path / other).write_bytes(data)
    whole = whole_files[name]
    damaged = whole[:keep] if cut else whole[:keep] + extra + whole[keep + len(extra) :]
    (tmp_path / name).write_bytes(damaged)
    found = audit_tokens(tmp_path)
    assert len(found.files) == 3
    assert "auditor_error" not in {finding.type for finding in found.findings}
    if len(damaged) < len(whole):
        assert found.findings


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    meta=st.fixed_dictionaries(
        {"schema_version": st.sampled_from([1, 2])},
        optional={
            key: st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["min", "std", "x"]), inner)
                ),
                max_leaves=6,
            )
            for key in ("fps", "names", "norm", "features", "frames", "dtype", "codes_sha256", "values_sha256")
        },
    )
)
def test_odd_json_never_stops_it(tmp_path, meta):
    write_codes(tmp_path / "a.ecdc", 5)
    np.save(tmp_path / "a.cond.npy", make_values(5))
    (tmp_path / "a.cond.json").write_text(json.dumps(meta))
    found = audit_tokens(tmp_path, expect=STRICT).findings
    assert found
    assert "auditor_error" not in {finding.type for finding in found}


# ---- settings and forms --------------------------------------------------------------------------------------------


def test_empty_tree_is_an_error_of_the_user(tmp_path):
    (tmp_path / "a.cond.npy").write_bytes(b"")
    with pytest.raises(UserError, match="no token files") as caught:
        audit_tokens(tmp_path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("expect", "fail_on", "message"),
    [
        (Expectation(), ("bad_ecdc", "bad_egg"), "bad_egg"),
        (Expectation(dtype="float64"), FAIL_ON, "dtype=float64"),
        (Expectation(ranges={"x": (1.0, 0.0)}), FAIL_ON, "ranges: x from 1.0 to 0.0"),
    ],
    ids=["fail_on", "dtype", "ranges"],
)
def test_settings_that_cannot_be_meant(tmp_path, expect, fail_on, message):
    with pytest.raises(UserError, match=message):
        audit_tokens(write_tree(tmp_path), expect=expect, fail_on=fail_on)


def test_fail_on_decides_what_is_an_error(tmp_path):
    write_tree(tmp_path)
    change_json(npy_of(tmp_path), fps=50)
    assert audit_tokens(tmp_path).count("error") == {}
    assert audit_tokens(tmp_path, fail_on=("fps_mismatch",)).count("error") == {"fps_mismatch": 1}


@pytest.mark.parametrize("required", [None, False, True])
def test_sidecars_are_required_where_any_has_one(tmp_path, required):
    write_codes(tmp_path / "a.ecdc", 30)
    write_codes(tmp_path / "b.ecdc", 31)
    bare = audit_tokens(tmp_path, expect=Expectation(require_sidecars=required)).findings
    assert len(bare) == (2 if required else 0)
    write_sidecar(tmp_path / "a.cond.npy", make_values(30), None)
    half = audit_tokens(tmp_path, expect=Expectation(require_sidecars=required)).findings
    assert [entry.tokens for entry in half] == ([] if required is False else ["b.ecdc"])


def test_text_and_csv(tmp_path):
    write_tree(tmp_path)
    (tmp_path / f"{IDS[1]}.ecdc").write_bytes(b'"quoted",\n')
    found = audit_tokens(tmp_path)
    text = render_text(found)
    assert text.startswith("4 token files, ")
    assert "3 OK files" in text
    assert f"{IDS[1]}.ecdc: unknown magic" in text
    lines = render_csv(found).splitlines()
    assert lines[0] == "type,rel_ecdc,rel_cond,detail"
    assert lines[1].startswith(f"bad_ecdc,{IDS[1]}.ecdc,{IDS[1]}.cond.npy,")
    assert str(tmp_path) not in text + "".join(lines)
