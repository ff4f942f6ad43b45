"""`task=extract stage=check` through main.py: tables, findings, exit codes, and the page."""

import pytest

from tests.data.beat2_trees import FOLDER, IDS, copy_speaker
from tests.tasks.command_lines import answers
from voxlab.data.sample.beat2 import write_sample

CHECK = ["task=extract", "data=beat2", "stage=check"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What main.py answers: of the sample, of one speaker with a damaged clip, and to wrong commands."""
    folder = tmp_path_factory.mktemp("check")
    write_sample(folder / "BEAT2-sample" / FOLDER)
    damaged = copy_speaker(folder / "BEAT2-sample" / FOLDER, folder / "damaged") / "smplxflame_30" / f"{IDS[0]}.npz"
    damaged.write_bytes(damaged.read_bytes()[:500])
    lines = {
        "good": [*CHECK, "data.source=sample", "data.root=BEAT2", "data.speakers=null"],
        "bad": [*CHECK, "data.root=damaged", "data.speakers=[4]", "strict=true"],
        "passed over": [*CHECK, "data.root=damaged", "data.speakers=[4]", "dry_run=true"],
        "other": ["task=extract", "data=beat2", "stage=test"],
        "absent": [*CHECK, "data.root=nowhere"],
        "folder": ["task=extract", "data=audiofolder", "stage=check", "data.source=sample", "data.root=tones"],
    }
    return folder, answers(folder, lines)


def pages(folder):
    return [path.read_text() for path in sorted((folder / "outputs" / "extract").glob("*/report.html"))]


def test_a_good_corpus_has_tables_and_no_finding(told):
    folder, found = told
    code, text = found["good"]
    assert code == 0, text
    assert "findings: 0" in text
    assert "clips: 18" in text
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["2"], ["4"])]
    counts = {(row[0], row[2]): int(row[3]) for row in rows}
    assert counts == {
        **{("2", "train"): 8, ("2", "validation"): 2, ("2", "test"): 3},
        **{("4", "train"): 3, ("4", "validation"): 1, ("4", "test"): 1},
    }
    assert "Nothing is wrong." in pages(folder)[0]
    assert "Speakers and splits" in pages(folder)[0]


def test_findings_are_told_and_fail_a_strict_check(told):
    folder, found = told
    code, text = found["bad"]
    assert code == 1
    assert f"1 clip can't be used: {IDS[0]} (corrupt motion file" in text
    assert "1 kind of findings" in text
    assert any("Clips that can" in page and "corrupt motion file" in page for page in pages(folder))
    code, text = found["passed over"]
    assert code == 0
    assert "findings: 1" in text


def test_other_stages_and_absent_corpora_are_refused(told):
    _, found = told
    assert found["other"][0] == found["absent"][0] == 2
    assert "task=extract has no such stage" in found["other"][1]
    assert "data.source=sample" in found["absent"][1]


def test_any_corpus_can_be_checked(told):
    code, text = told[1]["folder"]
    assert code == 0, text
    assert "findings:" in text
