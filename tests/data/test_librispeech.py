"""LibriSpeech's layout: what is read, how it is split, what is reported, and how the archives are fetched."""

import hashlib
import io
import os
import shutil
import tarfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from urllib import request
from urllib.error import HTTPError

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.datasets.librispeech import _CHECKSUMS

from voxlab.audio import load
from voxlab.data import archives, librispeech
from voxlab.data.items import file_stamp
from voxlab.data.librispeech import ARCHIVES, LibriSpeech
from voxlab.data.sample.librispeech import write_sample
from voxlab.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "LibriSpeech"
    write_sample(folder)
    return folder


@pytest.fixture
def root(written, tmp_path):
    """A copy of the sample corpus that a test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "LibriSpeech"))


def corpus(root, **options):
    return LibriSpeech(**{"root": str(root), "subsets": None, **options})


def by_id(found):
    return {item.id: item for item in found.items()}


def test_the_sample_is_read_like_the_real_corpus(tmp_path):
    sample = LibriSpeech(source="sample", root=str(tmp_path / "LibriSpeech"), subsets=None)
    sample.prepare()
    items = sample.items()
    ids = [item.id for item in items]
    assert ids == sorted(ids)
    assert len(ids) == 22
    for item in items:
        subset, speaker, chapter, stem = item.id.split("/")
        assert item.path == sample.folder / f"{item.id}.flac"
        assert item.stamp == file_stamp(item.path)
        assert item.metadata["subset"] == subset
        assert stem == f"{speaker}-{chapter}-{item.metadata['utterance']}"
        assert (item.metadata["speaker"], item.metadata["chapter"]) == (speaker, chapter)
        assert item.metadata["sex"] in ("F", "M")
        assert str(item.metadata["text"]).isupper()
    assert sample.check() == []
    assert len({item.metadata["speaker"] for item in items}) == 6


def test_the_sample_is_small_16_khz_and_the_same_each_time(written, tmp_path):
    write_sample(tmp_path)
    names = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert [(tmp_path / name).read_bytes() for name in names] == [(written / name).read_bytes() for name in names]
    assert sum((written / name).stat().st_size for name in names) < 1e6
    for path in written.rglob("*.flac"):
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 0.05 < load(path)[0].abs().max() < 0.9


def test_what_is_there_of_the_sample_is_not_written_again(root):
    path = min(root.rglob("*.flac"))
    path.write_bytes(b"mine")
    write_sample(root)
    assert path.read_bytes() == b"mine"


def test_a_sample_of_a_dry_run_is_not_there_yet(tmp_path):
    with pytest.raises(UserError, match="holds no sample corpus yet"):
        LibriSpeech(source="sample", root=str(tmp_path / "LibriSpeech")).items()


def test_the_root_may_be_the_folder_the_one_above_or_a_subset(root):
    expected = corpus(root).items()
    assert corpus(root.parent).items() == expected
    assert corpus(root / "dev-clean").items() == expected
    assert corpus(root).folder == corpus(root.parent).folder == corpus(root / "dev-clean").folder == root


def test_subsets_are_chosen(root):
    subsets = {item.metadata["subset"] for item in corpus(root, subsets=["test-clean", "dev-clean"]).items()}
    assert subsets == {"dev-clean", "test-clean"}
    default = LibriSpeech(root=str(root)).items()
    assert {item.metadata["subset"] for item in default} == {"train-clean-100"}


def test_speakers_file_with_comments_bars_in_names_and_odd_lines(root):
    lines = [
        "; comment | M",
        "",
        "1003|F | train-clean-100  | 20.18 | |CBW|Simon",
        " 1007 | M |",
        "x | F | y",
        "1012 | ?",
    ]
    (root / "SPEAKERS.TXT").write_text("\n".join(lines))
    found = corpus(root, subsets=["train-clean-100"])
    sexes = {item.metadata["speaker"]: item.metadata["sex"] for item in found.items()}
    assert sexes == {"1003": "F", "1007": "M", "1012": None, "1018": None}
    assert found.check()[:2] == [
        "2 lines of SPEAKERS.TXT are not understood: line 5, line 6",
        "2 speakers are not in SPEAKERS.TXT: 1012, 1018",
    ]


# ---- splits --------------------------------------------------------------------------------------------------------


def test_splits_by_subset_and_official(root):
    assert Counter(item.split for item in corpus(root, splits="subset").items()) == {
        "train_clean_100": 16,
        "dev_clean": 3,
        "test_clean": 3,
    }
    official = corpus(root, splits="official").items()
    assert Counter(item.split for item in official) == {"train": 16, "validation": 3, "test": 3}


def test_official_needs_names_that_say_it(root):
    (root / "dev-clean").rename(root / "mine")
    with pytest.raises(UserError, match="subset mine is neither"):
        corpus(root, splits="official").items()


@given(seed=st.integers(0, 1000), share=st.floats(0.05, 0.95))
def test_no_speaker_is_in_two_splits_and_new_speakers_move_nobody(written, seed, share):
    options = {"split_seed": seed, "split_fractions": {"train": 1 - round(share, 3), "validation": round(share, 3)}}
    few, all_ = corpus(written, subsets=["train-clean-100"], **options), corpus(written, **options)
    split_of = {item.metadata["speaker"]: item.split for item in all_.items()}
    assert all(item.split == split_of[item.metadata["speaker"]] for item in all_.items())
    assert all(item.split == split_of[item.metadata["speaker"]] for item in few.items())


def test_the_default_split_of_the_sample_has_a_speaker_to_validate_on(root):
    items = LibriSpeech(root=str(root)).items()
    assert {item.metadata["speaker"] for item in items if item.split == "validation"} == {"1018"}
    assert {item.split for item in items} == {"train", "validation"}


def test_utterances_are_dealt_one_by_one(root):
    options = {"splits": "utterance", "split_fractions": {"train": 0.5, "validation": 0.5}}
    before = {item.id: item.split for item in corpus(root, **options).items()}
    speakers = {(item_id.split("/")[1], split) for item_id, split in before.items()}
    assert len(speakers) > 6
    chapter = root / "dev-clean/1102/11021"
    shutil.copy(chapter / "1102-11021-0000.flac", chapter / "1102-11021-0099.flac")
    after = {item.id: item.split for item in corpus(root, **options).items()}
    assert len(after) == 23
    assert {item_id: after[item_id] for item_id in before} == before


def test_a_split_that_nobody_falls_to_is_reported(root):
    found = corpus(root, subsets=["dev-clean"])
    assert found.check() == [
        "no speaker falls to the split validation (1 speakers in all)",
        "dev-clean: 3 of 2703 utterances are here",
    ]


# ---- findings ------------------------------------------------------------------------------------------------------


def test_what_is_odd_is_a_warning_in_training_and_a_finding(root, caplog):
    chapter = root / "dev-clean/1102/11021"
    (chapter / "1102-11021.trans.txt").write_text(
        "1102-11021-0000 HELLO THERE\n1102-11021-0001\n1102-11021-0007 NOBODY SAYS IT\n"
    )
    shutil.copy(chapter / "1102-11021-0000.flac", chapter / "1102-99-0000.flac")
    shutil.copy(chapter / "1102-11021-0000.flac", chapter / "notes.flac")
    (chapter / ".hidden.flac").write_bytes(b"")
    (chapter / "1102-11021-0002.flac.tmp-01234567").write_bytes(b"")
    (root / "test-clean/1103/11031/1103-11031.trans.txt").unlink()
    (root / "SPEAKERS.TXT").unlink()
    found = corpus(root, subsets=["dev-clean", "test-clean"], splits="official")
    texts = {item_id: item.metadata["text"] for item_id, item in by_id(found).items()}
    below = "dev-clean/1102/11021"
    assert texts == {
        f"{below}/1102-11021-0000": "HELLO THERE",
        f"{below}/1102-11021-0001": None,
        f"{below}/1102-11021-0002": None,
        **{f"test-clean/1103/11031/1103-11031-000{n}": None for n in range(3)},
    }
    expected = [
        "1 table of speakers is missing, their sex is unknown: SPEAKERS.TXT",
        f"2 recordings have no text in their trans.txt: {below}/1102-11021-0001, {below}/1102-11021-0002",
        f"2 files are left out, their names don't fit their folders: {below}/1102-99-0000.flac, {below}/notes.flac",
        f"1 texts have no recording: {below}/1102-11021-0007",
        "1 chapters have no trans.txt: test-clean/1103/11031",
    ]
    assert sorted(found.check()[:5]) == sorted(expected)
    assert sorted(record.getMessage() for record in caplog.records) == sorted(f"{root}: {line}" for line in expected)


def test_check_reads_headers(root):
    chapter = root / "dev-clean/1102/11021"
    (chapter / "1102-11021-0000.flac").write_bytes(b"")
    soundfile.write(chapter / "1102-11021-0001.flac", [[0.1, 0.2]] * 100, 8000)
    (chapter / "1102-11021-0002.flac").unlink()
    (chapter / "1102-11021-0002.flac").symlink_to("nowhere")
    findings = corpus(root, subsets=["dev-clean"], splits="subset").check()
    assert findings[0].startswith("2 files can't be read: dev-clean/1102/11021/1102-11021-0000 (")
    assert "dev-clean/1102/11021/1102-11021-0002 (" in findings[0]
    assert findings[1] == (
        "1 files are not 16000 Hz, 1 channel: dev-clean/1102/11021/1102-11021-0001 (8000 Hz, 2 channels)"
    )


def test_a_transcript_that_is_not_text_is_a_finding(root):
    (root / "dev-clean/1102/11021/1102-11021.trans.txt").write_bytes(b"1102-11021-0000 \xff\xfe")
    assert (
        corpus(root, subsets=["dev-clean"], splits="subset")
        .check()[0]
        .startswith("1 trans.txt can't be read: dev-clean/1102/11021 ('utf-8' codec")
    )


# ---- messages ------------------------------------------------------------------------------------------------------


def test_a_missing_subset_names_path_subsets_archive_and_size(root):
    with pytest.raises(UserError) as error:
        corpus(root, subsets=["train-clean-360", "dev-clean"]).items()
    text = str(error.value)
    assert f"no subset train-clean-360 under {root} (present: dev-clean, test-clean, train-clean-100)" in text
    assert "train-clean-360.tar.gz has 23 GB: https://www.openslr.org/resources/12/train-clean-360.tar.gz" in text
    assert "data.source=download" in text
    assert "Did you mean" not in text


@pytest.mark.parametrize(("typed", "meant"), [("dev-claen", "dev-clean"), ("train-clean100", "train-clean-100")])
def test_a_misspelt_subset_has_its_neighbour_named(root, typed, meant):
    with pytest.raises(UserError, match=f"no subset {typed} under .*Did you mean {meant}\\?"):
        corpus(root, subsets=[typed]).items()


def test_a_missing_root(tmp_path):
    with pytest.raises(UserError, match=r"no subset train-clean-100 under .*nowhere \(there is no such folder\)"):
        LibriSpeech(root=str(tmp_path / "nowhere")).items()
    with pytest.raises(UserError, match="no subset at all under"):
        corpus(tmp_path).items()


def test_an_empty_subset(tmp_path):
    (tmp_path / "dev-clean/1/2").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no recording under .*dev-clean: expected 19/198/19-198-0000.flac"):
        corpus(tmp_path, subsets=["dev-clean"]).items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subsets": "dev-clean"}, r"data.subsets=dev-clean: give a list"),
        ({"subsets": []}, r"data.subsets=\[\]: give a list"),
        ({"splits": "folder"}, "data.splits=folder: choose speaker, utterance, subset, official"),
        ({"splits": "subset", "split_fractions": {"train": 1}}, "data.split_fractions=.* goes with data.splits="),
        ({"split_fractions": {"train": 0.5}}, "give shares"),
    ],
)
def test_wrong_settings(written, options, message):
    found = corpus(written, **options)
    with pytest.raises(UserError, match=message):
        found.items()
    assert len(found.check()) == 1


def test_an_unknown_source():
    with pytest.raises(UserError, match=r"data.source=hub: choose disk, sample or download"):
        LibriSpeech(source="hub").prepare()


# ---- download ------------------------------------------------------------------------------------------------------


def test_checksums_are_those_of_torchaudio():
    theirs = {url.rpartition("/")[2].removesuffix(".tar.gz"): checksum for url, checksum in _CHECKSUMS.items()}
    assert {subset: archive.sha256 for subset, archive in ARCHIVES.items()} == theirs


@pytest.fixture
def mirror(written, tmp_path, monkeypatch):
    """A folder with archives of the sample's subsets, and their checksums."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for subset in ("dev-clean", "test-clean"):
        with tarfile.open(folder / f"{subset}.tar.gz", "w:gz") as tar:
            tar.add(written / "SPEAKERS.TXT", "LibriSpeech/SPEAKERS.TXT")
            tar.add(written / subset, f"LibriSpeech/{subset}")
        checksum = hashlib.sha256((folder / f"{subset}.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setitem(librispeech.ARCHIVES, subset, ARCHIVES[subset]._replace(sha256=checksum))
    return folder


def download(mirror, tmp_path, **options):
    options = {"subsets": ["dev-clean", "test-clean"], "splits": "official", **options}
    return LibriSpeech(source="download", root=str(tmp_path / "LS"), url=mirror.as_uri(), **options)


def test_download(mirror, tmp_path, written):
    found = download(mirror, tmp_path)
    found.prepare()
    expected = corpus(written, subsets=["dev-clean", "test-clean"], splits="official").items()
    assert [(item.id, item.split, item.metadata, item.read()) for item in found.items()] == [
        (item.id, item.split, item.metadata, item.read()) for item in expected
    ]
    assert sorted(path.name for path in (tmp_path / "LS").iterdir()) == ["SPEAKERS.TXT", "dev-clean", "test-clean"]
    shutil.rmtree(mirror)
    found.prepare()  # nothing is left to fetch


def test_a_run_that_was_killed_while_it_unpacked_starts_that_over(mirror, tmp_path):
    for name in (".dev-clean.unpacked", "..dev-clean.unpacked.unpacking"):
        (tmp_path / "LS" / name / "LibriSpeech/dev-clean/1/2").mkdir(parents=True)
    shutil.copy(mirror / "dev-clean.tar.gz", tmp_path / "LS")
    (mirror / "dev-clean.tar.gz").unlink()
    found = download(mirror, tmp_path, subsets=["dev-clean"])
    found.prepare()
    assert len(found.items()) == 3
    assert sorted(path.name for path in (tmp_path / "LS").iterdir()) == ["SPEAKERS.TXT", "dev-clean"]


class Server:
    """Answers like an HTTP server that knows ranges (or not), and hangs up after some bytes."""

    def __init__(self, data, *, ranges=True, hangs_up_after=None):
        self.data, self.ranges, self.hangs_up_after, self.asked = data, ranges, hangs_up_after, []

    def __call__(self, asked, timeout):
        start = int((asked.get_header("Range") or "bytes=0-")[6:-1]) if self.ranges else 0
        self.asked.append(start)
        if start >= len(self.data):
            raise HTTPError(asked.full_url, 416, "Range Not Satisfiable", {}, None)
        left = self.data[start:]
        response = io.BytesIO(left[: self.hangs_up_after])
        response.status, response.headers = 206 if start else 200, {"Content-Length": str(len(left))}
        return response


@pytest.mark.parametrize(("ranges", "second"), [(True, 1000), (False, 0)])
def test_a_download_goes_on_where_it_broke_off(tmp_path, monkeypatch, ranges, second):
    data = os.urandom(5000)
    server = Server(data, ranges=ranges, hangs_up_after=1000)
    monkeypatch.setattr(request, "urlopen", server)
    path, checksum = tmp_path / "a.tar.gz", hashlib.sha256(data).hexdigest()
    with pytest.raises(UserError, match="broke off after 1000 of 5000 bytes") as error:
        archives.fetch("http://host/a.tar.gz", path, checksum)
    assert "goes on from the 1000 bytes in" in str(error.value)
    assert not path.exists()
    server.hangs_up_after = None
    archives.fetch("http://host/a.tar.gz", path, checksum)
    assert path.read_bytes() == data
    assert server.asked == [0, second]
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_that_is_complete_needs_no_more_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(request, "urlopen", Server(b"data"))
    (tmp_path / "a.part").write_bytes(b"data")
    archives.fetch("http://host/a", tmp_path / "a", hashlib.sha256(b"data").hexdigest())
    assert (tmp_path / "a").read_bytes() == b"data"


def test_a_wrong_checksum_unpacks_nothing(mirror, tmp_path, monkeypatch):
    monkeypatch.setitem(librispeech.ARCHIVES, "dev-clean", ARCHIVES["dev-clean"]._replace(sha256="0" * 64))
    with pytest.raises(UserError, match=r"dev-clean.tar.gz.part has the SHA-256 \w{64}, not 0{64}"):
        download(mirror, tmp_path).prepare()
    assert not (tmp_path / "LS/dev-clean").exists()


def test_an_archive_that_can_not_be_reached(mirror, tmp_path):
    (mirror / "dev-clean.tar.gz").unlink()
    with pytest.raises(UserError, match=r"can't download file://.*dev-clean.tar.gz: .*No such file"):
        download(mirror, tmp_path).prepare()


def test_a_full_disk_is_noticed_before_the_download(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"no room in .*LS: the archive and its files take 0.00 GB more"):
        download(mirror, tmp_path).prepare()


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "link/outside.txt"])
def test_an_archive_that_writes_outside_is_refused(tmp_path, name):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../.."
        tar.addfile(link)
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="can't unpack"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar.gz"]


def test_a_damaged_archive_leaves_nothing(mirror, tmp_path):
    data = (mirror / "dev-clean.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="can't unpack"):
        archives.unpack(tmp_path / "a.tar.gz", tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "mirror"]


@pytest.mark.parametrize(("subsets", "hint"), [(None, ""), (["dev-claen"], r".*Did you mean dev-clean\?")])
def test_a_download_needs_names_of_archives(tmp_path, subsets, hint):
    found = LibriSpeech(source="download", root=str(tmp_path), subsets=subsets)
    with pytest.raises(UserError, match=r"choose from dev-clean \(337 MB\), .*train-other-500 \(30 GB\)" + hint):
        found.prepare()


# ---- the real corpus -----------------------------------------------------------------------------------------------


@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="set VOXLAB_REAL_DATA to the folder of real samples")
def test_real_recordings():
    root = Path(os.environ["VOXLAB_REAL_DATA"]) / "librispeech"
    found = corpus(root, splits="official")
    items = found.items()
    flacs = sorted(path.relative_to(found.folder).as_posix() for path in root.rglob("*.flac"))
    assert [f"{item.id}.flac" for item in items] == flacs
    assert all(item.metadata["text"] and item.metadata["sex"] for item in items)
    subsets = sorted({item.metadata["subset"] for item in items})
    assert [line.partition(":")[0] for line in found.check()] == subsets  # an excerpt: too few, and nothing else
