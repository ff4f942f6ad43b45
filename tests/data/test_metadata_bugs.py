"""What tables, names, splits and manifests once got wrong: odd names, long numbers, reserved splits."""

import csv
import os
from itertools import product

import pytest

from tests.token_corpus import TokenCorpus
from voxlab.codecs import token_files
from voxlab.data import splits
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.metadata import read_table
from voxlab.data.names import finder
from voxlab.errors import UserError
from voxlab.sidecars import audit_listings
from voxlab.sidecars.schema import PENDING_SUFFIX
from voxlab.storage import atomic_write_bytes
from voxlab.tasks.extract.build_files import OURS
from voxlab.tasks.extract.manifest import write_manifest


def test_the_exact_name_comes_first():
    for files in ({" x.wav": " x", "x.wav": "x"}, {"x.wav": "x", " x.wav": " x"}):
        find = finder(files)
        assert [find(name) for name in ("x.wav", "x", " x.wav", " x")] == ["x", "x", " x", " x"]
    assert finder({"x.wav": "x"})(" ./x.wav ") == "x"
    assert finder({"x.wav": "x"})("y.wav") is None


def test_metadata_goes_to_the_file_of_that_name(tmp_path):
    for name in (" x.wav", "x.wav"):
        (tmp_path / name).write_bytes(b"RIFF")
    (tmp_path / "metadata.csv").write_text("file_name,amp\nx.wav,3\n")
    found = {item.id: item.metadata["amp"] for item in AudioFolder(root=str(tmp_path)).items()}
    assert found == {" x": None, "x": 3}


@pytest.mark.parametrize("rows", ["60,1\n61,2\n", "60.0,1\n61.5,2\n"], ids=["whole", "decimal"])
def test_numbers_name_files(tmp_path, rows):
    names = [row.split(",")[0] for row in rows.split()]
    for name in names:
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF")
    (tmp_path / "metadata.csv").write_text(f"file_name,amp\n{rows}")
    assert [row.name for row in read_table(tmp_path / "metadata.csv", "file_name")] == names
    items = AudioFolder(root=str(tmp_path)).items()
    assert {item.id: item.metadata for item in items} == {names[0]: {"amp": 1}, names[1]: {"amp": 2}}


def test_a_table_without_rows_is_empty(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,amp\n")
    assert read_table(tmp_path / "metadata.csv", "file_name") == []


def test_cells_of_very_many_digits_are_text(tmp_path):
    long = "9" * 5000
    (tmp_path / "t.csv").write_text(f"file_name,long,large,small\na,{long},{2**63 - 1},{-(2**63) + 1}\n")
    values = read_table(tmp_path / "t.csv", "file_name")[0].values
    assert values == {"long": long, "large": 2**63 - 1, "small": -(2**63) + 1}


@pytest.mark.parametrize("line", [r'{"file_name": "a", "t": "x\ud800"}', r'{"file_name": "a", "\ud800": 1}'])
def test_half_characters_are_refused_with_their_line(tmp_path, line):
    (tmp_path / "t.jsonl").write_text('{"file_name": "b"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"line 2: '\\ud800' is half of a character"):
        read_table(tmp_path / "t.jsonl", "file_name")


def test_whole_characters_in_two_escapes_are_read(tmp_path):
    (tmp_path / "t.jsonl").write_text(r'{"file_name": "a", "t": "\ud83d\ude00"}')
    assert read_table(tmp_path / "t.jsonl", "file_name")[0].values == {"t": "😀"}


# ---- names of splits and files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*OURS, "all"])
def test_splits_that_a_build_refuses_are_refused_at_once(tmp_path, name):
    with pytest.raises(UserError, match=f"split {name!r}: "):
        splits.check_name(name)
    with pytest.raises(UserError, match=f"split {name!r}: "):
        splits.by_folder({f"{name}/a.wav": f"{name}/a"})


LONGEST = 255 - len(f"{PENDING_SUFFIX}.tmp-xxxxxxxx")


@pytest.mark.parametrize(("letter", "width"), [("a", 1), ("é", 2)], ids=["ASCII", "two bytes"])
def test_names_that_are_too_long_for_the_outputs_are_refused_together(tmp_path, letter, width):
    fits, long = letter * (LONGEST // width), letter * (LONGEST // width + 1)
    for folder, name in product(("s1", "s2"), (fits, long)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=f"2 file names are too long .* s1/{long}, s2/{long}"):
        AudioFolder(root=str(tmp_path)).items()
    for folder in ("s1", "s2"):
        (tmp_path / folder / f"{long}.wav").unlink()
    items = AudioFolder(root=str(tmp_path)).items()
    assert [item.id for item in items] == [f"s1/{fits}", f"s2/{fits}"]
    for item in items:
        atomic_write_bytes(tmp_path / f"out/{item.id}{PENDING_SUFFIX}", b"x")
    assert len(os.fsencode(fits)) in (LONGEST, LONGEST - 1)


# ---- manifest ------------------------------------------------------------------------------------------------------


def manifest(corpus, ids):
    facts = {"frames": 9, "num_codebooks": corpus.info.num_codebooks, "num_samples": 2880, "sha256": "0" * 64}
    encoded = dict.fromkeys(ids, facts)
    write_manifest(corpus.stage(), info=corpus.info, container=corpus.container, encoded=encoded, sidecars={})
    return corpus.out / "manifest.csv"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", ",", '"'], ids=["CR", "LF", "CRLF", "comma", "quote"])
def test_odd_ids_are_read_back_from_the_manifest(tmp_path, end):
    corpus = TokenCorpus(tmp_path / "out").add("plain", 9, columns=None).add(f"a{end}b", 9, columns=None)
    path = manifest(corpus, ["plain", f"a{end}b"])
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["rel_ecdc"]: row["frames"] for row in csv.DictReader(file)}
    suffix = token_files.suffix(corpus.info, corpus.container)
    assert rows == {f"tokens/plain{suffix}": "9", f"tokens/a{end}b{suffix}": "9"}
    assert set(audit_listings._read_manifest(path, corpus.out / "tokens")) == {f"plain{suffix}", f"a{end}b{suffix}"}


def test_a_manifest_is_not_replaced_by_one_without_rows(tmp_path):
    corpus = TokenCorpus(tmp_path / "out").add("a", 9, columns=None)
    before = manifest(corpus, ["a"]).read_bytes()
    assert manifest(corpus, []).read_bytes() == before
    other = TokenCorpus(tmp_path / "other").add("a", 9, columns=None)
    assert not manifest(other, []).exists()
