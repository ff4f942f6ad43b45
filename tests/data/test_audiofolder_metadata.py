"""Tables of metadata: types, joining by name, and every fault with its line."""

import json

import pytest
import torch

from voxlab.audio import encode_wav
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.metadata import read_table
from voxlab.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name in ("a/x.wav", "a/y.v2.wav", "b/z.flac"):
        (tmp_path / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "music" / name).write_bytes(encode_wav(torch.zeros(1, 8), 16000))
    return tmp_path / "music"


def metadata(root, **options):
    return {item.id: item.metadata for item in AudioFolder(root=str(root), **options).items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_columns_of_a_csv_file_have_types(root, delimiter, prefix, newline):
    rows = [
        ["file_name", "pitch", "amp", "take", "note", "empty", "mixed"],
        ["a/x.wav", "64", ".75", "007", "hé, \u2014; x", "", "1"],
        ["a/y.v2", "-3", "1e-2", "012", "", "", "2.5"],
        ["b/z", "", "3", "1", ' "q" ', "", ""],
    ]
    cells = [['"' + cell.replace('"', '""') + '"' if set(cell) & set('",;') else cell for cell in row] for row in rows]
    text = newline.join(delimiter.join(row) for row in cells) + newline
    (root / "metadata.csv").write_bytes(prefix + text.encode())
    found = metadata(root)
    assert found == {
        "a/x": {"pitch": 64, "amp": 0.75, "take": "007", "note": "hé, \u2014; x", "empty": None, "mixed": 1.0},
        "a/y.v2": {"pitch": -3, "amp": 0.01, "take": "012", "note": None, "empty": None, "mixed": 2.5},
        "b/z": {"pitch": None, "amp": 3.0, "take": "1", "note": '"q"', "empty": None, "mixed": None},
    }
    assert [type(found["a/x"][name]) for name in ("pitch", "amp", "mixed")] == [int, float, float]


@pytest.mark.parametrize("word", ["nan", "inf", "1e999", "1_000", "0x10", "1,5", str(2**63)])
def test_words_that_only_look_like_numbers_stay_text(tmp_path, word):
    (tmp_path / "t.csv").write_text(f"file_name\tvalue\nx\t{word}\n")
    assert read_table(tmp_path / "t.csv", "file_name")[0].values == {"value": word if word != str(2**63) else 2.0**63}


def test_jsonl_has_one_type_a_column_and_every_column_in_every_row(root):
    lines = [
        {"file_name": "a/x.wav", "pitch": 64, "loud": True, "text": "é"},
        {"file_name": "./a/y.v2.wav", "pitch": 0.5, "text": ""},
        {"file_name": "b\\z.flac", "loud": None},
    ]
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    found = metadata(root)
    assert found == {
        "a/x": {"pitch": 64.0, "loud": True, "text": "é"},
        "a/y.v2": {"pitch": 0.5, "loud": None, "text": None},
        "b/z": {"pitch": None, "loud": None, "text": None},
    }
    assert isinstance(found["a/x"]["pitch"], float)


def test_the_path_wins_over_an_id_of_the_same_spelling(root):
    (root / "a" / "x.wav.flac").write_bytes(b"fLaC")
    (root / "metadata.csv").write_text("file_name,n\na/x.wav,1\na/x.wav.flac,2\na/y.v2,3\nb/z,4\n")
    assert {key: values["n"] for key, values in metadata(root).items()} == {
        "a/x": 1,
        "a/x.wav": 2,
        "a/y.v2": 3,
        "b/z": 4,
    }


def test_rows_without_file_and_files_without_row_are_findings(root, caplog):
    (root / "metadata.csv").write_text("file_name,n\na/x.wav,1\nc/none.wav,2\nd,3\n\n,,\n".replace(",,", ","))
    corpus = AudioFolder(root=str(root))
    assert [item.metadata for item in corpus.items()] == [{"n": 1}, {"n": None}, {"n": None}]
    assert corpus.check() == [
        "2 rows of metadata.csv name no file: c/none.wav (line 3), d (line 4)",
        "2 files have no row in metadata.csv: a/y.v2, b/z",
    ]
    assert "2 files have no row in metadata.csv" in caplog.text


def test_a_table_elsewhere_with_another_key(root, tmp_path, monkeypatch):
    (tmp_path / "params.tsv").write_text("pitch\tPath\n60\ta/x\n")
    options = {"metadata_key": "Path"}
    assert metadata(root, metadata=str(tmp_path / "params.tsv"), **options)["a/x"] == {"pitch": 60}
    monkeypatch.chdir(tmp_path)
    assert metadata(root, metadata="params.tsv", **options)["a/x"] == {"pitch": 60}
    (root / "params.tsv").write_text("pitch\tPath\n61\ta/x\n")
    assert metadata(root, metadata="params.tsv", **options)["a/x"] == {"pitch": 61}


def test_tables_can_be_left_unread(root):
    (root / "metadata.csv").write_text("no key here\n")
    assert metadata(root, metadata=None)["a/x"] == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"file_name,a\na/x,1\na/x.wav,2\n", r"several rows for one file:\n  a/x: lines 2, 3"),
        ("m.csv", b"file_name,a\na/x,1,2\nb/z\n", r"line 2: 3 cells, the header has 2\n  line 3: 1 cell,"),
        ("m.csv", b'file_name,a\na/x,"un"closed\n', r"line 2: '(,|.)' expected after"),
        ("m.csv", b"file_name,a\na/x,caf\xe9\n", "line 2 is not UTF-8"),
        ("m.csv", b"name,a\na/x,1\n", r"no column file_name; found \['name', 'a'\].*metadata_key"),
        ("m.csv", b"", r"no column file_name; found \[\]"),
        ("m.csv", b"file_name,a,a,\na/x,1,2,3\n", r"column \(empty\) needs a name(.|\n)*column a needs a name"),
        ("m.csv", b"file_name,a\n,1\n", "line 2: no file_name"),
        ("m.csv", b"file_name,a\nq,1\n", r"none of its rows names a recording: line 2 has 'q', a file is 'a/x\.wav'"),
        (
            "m.jsonl",
            b'{"file_name": "a/x"}\n{"file_name": \n[1]\n',
            r"line 2: Expecting value(.|\n)*line 3: not a JSON",
        ),
        ("m.jsonl", b'{"file_name": "a/x", "v": [1]}\n', "line 1: v: lists and objects"),
        ("m.jsonl", b'{"file_name": "a/x", "v": NaN}\n', "line 1: NaN is no JSON number"),
        ("m.jsonl", b'{"file_name": "a/x", "v": 1}\n{"file_name": "b/z", "v": "s"}\n', "int in line 1, str in line 2"),
        (
            "m.jsonl",
            b'{"file_name": "a/x", "v": 1}\n{"file_name": "b/z", "v": true}\n',
            "int in line 1, bool in line 2",
        ),
        ("m.jsonl", b'{"file_name": 7}\n', "line 1: no file_name"),
        ("m.xlsx", b"PK", r"must be \.csv, \.tsv, \.jsonl"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:24],
)
def test_faulty_tables_name_the_line(root, name, content, message):
    (root / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        metadata(root, metadata=name)


def test_a_table_that_is_named_must_be_there(root):
    with pytest.raises(UserError, match=r"data\.metadata: there is neither .*music/none\.csv nor none\.csv"):
        metadata(root, metadata="none.csv")


def test_two_tables_to_choose_from_are_refused(root):
    for name in ("metadata.csv", "metadata.jsonl"):
        (root / name).write_text("file_name\na/x\n")
    with pytest.raises(UserError, match=r"holds metadata\.csv and metadata\.jsonl: choose"):
        metadata(root)
