"""Which files a folder of audio yields, under which ids, and what it says about the others."""

import math
import os
import unicodedata

import pytest
import soundfile
import torch

from voxlab.audio import encode_wav, load
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.items import file_stamp
from voxlab.errors import UserError

WAV = encode_wav(torch.zeros(1, 8), 16000)


@pytest.fixture
def write(tmp_path):
    """Write files with some bytes below the root; returns the root."""

    def files(*names, content=WAV):
        for name in names:
            path = tmp_path / "music" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "music"

    return files


def ids(root, **options):
    return [item.id for item in AudioFolder(root=str(root), **options).items()]


def test_ids_are_relative_paths_without_suffix_in_order(write):
    root = write(
        "b/take_2.WAV", "b/take_10.flac", "a.wav", "b/foo_pitch_64.00_amp_.75.Mp3", "b/deep/er/x.ogg", "é ü.aif"
    )
    found = AudioFolder(root=str(root)).items()
    assert [item.id for item in found] == sorted(
        ["a", "b/deep/er/x", "b/foo_pitch_64.00_amp_.75", "b/take_10", "b/take_2", "é ü"]
    )
    assert [item.path.read_bytes() for item in found] == [item.read() for item in found] == [WAV] * 6
    for item in found:
        assert item.path.is_relative_to(root)
        assert item.stamp == file_stamp(item.path)
        assert item.split == "train"
        assert item.metadata == {}
        assert item.content is None


def test_other_files_hidden_ones_and_temporaries_are_left_out(write):
    root = write("a.wav", ".hidden.wav", "._a.wav", ".git/b.wav", "c.wav.tmp-0123abcd", "d.txt", "wav", "e.wav.bak")
    assert ids(root) == ["a"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*", ["a", "x/b", "x/y/c", "z/x/d"]),
        ("*", ["a"]),
        ("x/**/*", ["x/b", "x/y/c"]),
        ("x/*", ["x/b"]),
        ("**/x/*", ["x/b", "z/x/d"]),
        ("**/[bc].wav", ["x/b", "x/y/c"]),
        ("?.wav", ["a"]),
    ],
)
def test_pattern(write, pattern, expected):
    root = write("a.wav", "x/b.wav", "x/y/c.wav", "z/x/d.wav")
    assert ids(root, pattern=pattern) == expected


def test_extensions_choose_formats(write):
    root = write("a.wav", "b.FLAC", "c.mp3")
    assert ids(root, extensions=["flac", ".MP3"]) == ["b", "c"]


def test_an_empty_file_is_an_item_and_a_finding(write):
    root = write("a.wav")
    write("b.wav", content=b"")
    assert ids(root) == ["a", "b"]
    assert AudioFolder(root=str(root)).check() == ["1 file of no bytes: b"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(write, tmp_path):
    root = write("a.wav", "sub/b.wav")
    (root / "linked.wav").symlink_to(root / "a.wav")
    (root / "folder").symlink_to(root / "sub")
    (root / "loop").symlink_to(root)
    (root / "broken.wav").symlink_to(tmp_path / "nowhere.wav")
    assert ids(root) == ["a", "broken", "linked", "sub/b"]
    broken = AudioFolder(root=str(root)).items()[1]
    assert broken.stamp == "absent"
    with pytest.raises(FileNotFoundError):
        broken.read()
    assert AudioFolder(root=str(root)).check() == ["1 broken link: broken"]


def test_check_tells_of_damage_and_of_several_rates(write):
    root = write("a.wav", "b.wav")
    write("c.wav", content=encode_wav(torch.zeros(2, 8), 44100))
    write("d.wav", content=b"RIFF")
    assert AudioFolder(root=str(root)).check() == [
        "1 file can't be read: d (Format not recognised)",
        "2 files of 16000 Hz: a, b",
        "1 file of 44100 Hz: c",
    ]


def test_files_with_one_id_are_refused_all_at_once(write):
    root = write("a.wav", "a.WAV", "b/c.flac", "b/c.wav", "b/d.wav")
    with pytest.raises(UserError, match="2 ids belong to several files") as caught:
        ids(root)
    assert "a.WAV and a.wav" in str(caught.value)
    assert "b/c.flac and b/c.wav" in str(caught.value)
    assert ids(root, extensions=["flac"]) == ["b/c"]
    assert AudioFolder(root=str(root)).check() == [str(caught.value)]


def test_ids_that_differ_in_case_are_a_finding(write, caplog):
    root = write("take/A.wav", "take/a.wav", "b.wav")
    assert ids(root) == ["b", "take/A", "take/a"]
    assert "1 pair of ids that differ in case only" in caplog.text
    assert "take/A and take/a" in caplog.text


def test_audio_that_can_not_be_read_is_a_finding(write):
    root = write("a.wav", "b.m4a", "c.M4A", "notes.txt")
    assert AudioFolder(root=str(root)).check() == ["2 .m4a files are not read (convert them to FLAC)"]
    assert AudioFolder(root=str(root), extensions=["wav", "m4a"]).check() == []


def test_names_that_are_not_text_are_refused(write):
    root = write("a.wav")
    (root / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"not UTF-8 text: 'caf\\udce9\.wav'. Rename"):
        ids(root)


def test_no_recordings_and_no_folder_say_what_to_do(write, tmp_path):
    root = write("b.m4a", "c.txt", "d.txt")
    with pytest.raises(
        UserError, match=r"has \{'m4a': 1, 'txt': 2\} files(.|\n)*data\.root=(.|\n)*data\.source=sample"
    ):
        ids(root)
    with pytest.raises(UserError, match=r"is not there(.|\n)*disk(.|\n)*data\.source=sample\.$"):
        ids(tmp_path / "absent")
    with pytest.raises(UserError, match="without dry_run=true writes it"):
        AudioFolder(source="sample", root=str(tmp_path / "absent")).items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extensions": "wav"}, "give a list"),
        ({"extensions": []}, "give a list"),
        ({"pattern": "../*"}, "below data.root"),
        ({"pattern": "/music/*"}, "below data.root"),
        ({"splits": "half"}, "choose none, folder, list, fraction"),
        ({"splits": "list"}, "data.splits=list needs data.split_lists, for .* data.split_lists='{train: train.txt, "),
        (
            {"split_lists": {"train": "a.txt"}},
            "goes with data.splits=list, not with data.splits=none: set data.splits=",
        ),
        ({"splits": "fraction"}, "needs .* for example data.split_fractions='{train: 0.9, validation: 0.1}'"),
        ({"split_group": "folder"}, "split_group=folder belongs to data.splits=fraction"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_settings_that_can_not_be(write, options, message):
    with pytest.raises(UserError, match=message):
        ids(write("a.wav"), **options)


@pytest.mark.parametrize("source", ["download", "web"])
def test_unknown_source_lists_the_choices(tmp_path, source):
    with pytest.raises(UserError, match="choose disk or sample"):
        AudioFolder(source=source, root=str(tmp_path)).prepare()


def test_composed_and_decomposed_accents_are_one_name_in_a_table(write):
    name = unicodedata.normalize("NFD", "é.wav")
    root = write(name)
    (root / "metadata.csv").write_text("file_name,x\né,1\n", encoding="utf-8")
    assert [item.metadata for item in AudioFolder(root=str(root)).items()] == [{"x": 1}]


# ---- the sample corpus ---------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path):
    corpus = AudioFolder(source="sample", root=str(tmp_path / "audio"))
    corpus.prepare()
    return corpus


def test_sample_holds_many_kinds_of_files_and_all_that_is_found_are_their_rates(sample):
    items = sample.items()
    assert [line.partition(":")[0].partition(" of ")[2] for line in sample.check()] == [
        *("8000 Hz", "16000 Hz", "22050 Hz", "24000 Hz", "44100 Hz", "48000 Hz"),
    ]
    assert len(items) == 12
    assert {item.path.suffix for item in items} == {".wav", ".flac", ".ogg", ".mp3", ".aiff"}
    kinds = [soundfile.info(str(item.path)) for item in items]
    assert {kind.samplerate for kind in kinds} == {8000, 16000, 22050, 24000, 44100, 48000}
    assert {kind.channels for kind in kinds} == {1, 2}
    assert {"PCM_16", "PCM_24", "FLOAT"} <= {kind.subtype for kind in kinds}
    for item in items:
        wav, sample_rate = load(item.read())
        assert 0.5 < wav.shape[1] / sample_rate < 2.6
        assert 0.1 < wav.abs().max() < 1
        assert item.metadata["session"] == item.id.split("/")[0]
        assert isinstance(item.metadata["brightness"], float)
    assert sorted(item.metadata["take"] for item in items) == list(range(1, 13))


def test_sample_pitch_is_that_of_its_name(sample):
    for item in sample.items():
        wav, sample_rate = load(item.read())
        note = float(item.id.split("_pitch_")[1].split("_")[0])
        spectrum = torch.fft.rfft(wav[0] * torch.hann_window(wav.shape[1]), n=1 << 18).abs()
        strongest = int(spectrum.argmax()) * sample_rate / (1 << 18)  # harmonics are weaker
        assert 69 + 12 * math.log2(strongest / 440) == pytest.approx(note, abs=0.1), item.id


def test_sample_is_the_same_each_time_small_and_beside_the_root(sample, tmp_path):
    files = sorted(path for path in sample.folder.rglob("*") if path.is_file())
    assert sum(path.stat().st_size for path in files) < 2e6
    times = [path.stat().st_mtime_ns for path in files]
    again = AudioFolder(source="sample", root=str(tmp_path / "again"))
    again.prepare()
    assert [path.read_bytes() for path in files] == [
        (again.folder / path.relative_to(sample.folder)).read_bytes() for path in files
    ]
    sample.prepare()
    assert [path.stat().st_mtime_ns for path in files] == times
    assert not (tmp_path / "audio").exists()
