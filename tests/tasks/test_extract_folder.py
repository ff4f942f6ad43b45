"""What an output folder of task=extract refuses and recovers from: foreign files, stale stages, other commands."""

import fcntl
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.tiny_models import write_tiny_encodec
from voxlab import run
from voxlab.codecs import ecdc_legacy
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.token_files import read_header, read_tokens
from voxlab.errors import TooManyBadItems, UserError
from voxlab.parallel import Ranks


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_encodec(tmp_path_factory.mktemp("models") / "encodec")


def write_wav(path: Path, frequency: float = 220.0, seconds: float = 0.5, sample_rate: int = 24000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * sample_rate)) / sample_rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * times), sample_rate)


@pytest.fixture
def root(tmp_path):
    for name, frequency in (("a", 220.0), ("b", 330.0)):
        write_wav(tmp_path / "audio" / f"{name}.wav", frequency)
    return tmp_path / "audio"


@pytest.fixture
def extract(composed, weights, root, tmp_path):
    """Call the task with its configuration, in this process."""

    def call(*overrides: str):
        words = ["task=extract", f"data.root={root}", f"codec.weights={weights}", f"out={tmp_path / 'out'}"]
        return run.build(composed(*words, *overrides).task)(ranks=Ranks(), run_dir=tmp_path / "run")

    return call


def errors(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "errors.jsonl").read_text().split("\n")[:-1]]


def test_recordings_that_normalize_has_not_seen_are_failures(extract, root, tmp_path):
    extract()
    write_wav(root / "c.wav", 440.0)
    write_wav(root / "a.wav", 550.0)
    later = "stages=[encode,sidecars,build,audit]"
    with pytest.raises(TooManyBadItems, match="run the stage normalize"):
        extract(later, "audit.fail_on=[]")
    assert {line["id"] for line in errors(tmp_path / "out")} == {"a", "c"}
    extract()
    assert errors(tmp_path / "out") == []


def test_a_normalized_file_that_was_changed_is_not_encoded(extract, tmp_path):
    out = tmp_path / "out"
    extract()
    before = (out / "tokens" / "a.ecdc").read_bytes()
    (out / "tokens" / "a.ecdc").unlink()
    write_wav(out / "normalized" / "a.wav", 990.0)
    with pytest.raises(TooManyBadItems, match="the normalized file was changed"):
        extract("stages=[encode]")
    extract()
    assert (out / "tokens" / "a.ecdc").read_bytes() == before


def test_sidecars_of_tokens_made_from_other_audio_are_refused(extract):
    extract("stages=[normalize,encode]")
    extract("stages=[normalize]", "normalize.target_rms=0.01", "overwrite=true")
    with pytest.raises(UserError, match=r"(?s)2 token files .*Run the stage encode again"):
        extract("stages=[sidecars]")


def test_normalized_files_of_another_rate_are_not_encoded(extract):
    extract("stages=[normalize]")
    with pytest.raises(UserError, match="24000 Hz, 1 channels; encodec takes 48000 Hz, 2"):
        extract("stages=[encode]", "codec.weights=random", "codec.sample_rate=48000", "overwrite=true")


def test_a_failure_that_may_pass_is_tried_again(extract, root, tmp_path, monkeypatch):
    original = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == root / "a.wav":
            raise PermissionError(13, "Permission denied")
        return original(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(TooManyBadItems, match="Permission denied"):
            extract("stages=[normalize,encode]")
    extract("stages=[normalize,encode]")
    assert (tmp_path / "out" / "tokens" / "a.ecdc").is_file()


def test_two_commands_at_once_are_refused(extract, tmp_path):
    lock = tmp_path / "out" / ".state" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another command works in"):
            extract()
    extract("stages=[normalize]")


@pytest.mark.parametrize("name", ["tokens/a.ecdc", "normalized/a.wav", "manifest.csv"])
def test_files_of_others_are_not_overwritten(extract, tmp_path, name):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="was not made by voxlab"):
        extract()
    assert path.read_bytes() == b"mine"


def test_what_failed_is_told_when_nothing_is_left_to_build(extract, root, tmp_path):
    for path in root.iterdir():
        path.write_bytes(b"RIFF junk")
    with pytest.raises(TooManyBadItems, match="bad_audio"):
        extract()
    assert len(errors(tmp_path / "out")) == 2
    shutil.copy(root / "a.wav", root / "line\u2028break.wav")
    for _ in range(2):
        with pytest.raises(TooManyBadItems, match="3 of 3 items failed"):
            extract()


def test_later_settings_are_checked_before_any_work(extract, tmp_path):
    for override in ("build.materialize=hard", "producers=[const]", "audit.fail_on=[foo]", "sidecars.dtype=int8"):
        with pytest.raises(UserError):
            extract(override)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["codec.bandwidth=7"], "bandwidth=7"),
        (["codec.bandwidth=7", "stages=[encode]"], "bandwidth=7"),
        (["codec.weights=random", "codec.tail=zeros", "codec.sample_rate=48000"], "tail=zeros"),
        (["encode.container=mp3"], "container"),
        (["normalize.clip=no"], "clip"),
        (["data.root=missing"], "no recording under missing"),
        (["data.root=missing", "features=logmel"], "no recording under missing"),
        (["data.root=missing", "stage=clean"], "was not made by task=extract"),
        (["stages=[sidecars]"], "no token files to describe"),
        (["stages=[build]"], "no token files to build from"),
    ],
)
def test_what_is_refused_at_once_makes_nothing(extract, tmp_path, overrides, message):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=message):
        extract(*overrides)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["audio/out", "foreign"])
def test_a_folder_that_is_refused_stays_as_it_is(extract, tmp_path, place):
    (tmp_path / "foreign" / "tokens").mkdir(parents=True)
    (tmp_path / "foreign" / "tokens" / "a.ecdc").write_bytes(b"mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"lies in the folder of the recordings|was not made by voxlab"):
        extract(f"out={tmp_path / place}")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_batch_size_that_a_folder_was_begun_with_stays(extract, tmp_path):
    extract("stages=[normalize,encode]", "max_batch_seconds=7")
    extract("stages=[normalize,encode]")
    settings = json.loads((tmp_path / "out" / "manifest.json").read_text())["settings"]
    assert settings["encode"]["max_batch_seconds"] == 7
    with pytest.raises(UserError, match="max_batch_seconds"):
        extract("max_batch_seconds=-1")


def test_torch_saved_files_are_upgraded(extract, weights, tmp_path):
    codec = Encodec(weights=str(weights)).to("cpu")
    codes = codec.encode(torch.randn(1, 1, 6720) * 0.1, torch.tensor([6720]))
    path = tmp_path / "out" / "tokens" / "old.ecdc"
    path.parent.mkdir(parents=True)
    path.write_bytes(ecdc_legacy.write_legacy(codes, codec.info))
    assert read_header(path).container == "torch"
    extract("upgrade=true")
    assert read_header(path).container == "ecdc"
    found = read_tokens(path).codes
    assert all(torch.equal(a, b) for a, b in zip(found.codebooks, codes.codebooks, strict=True))


def test_a_report_leaves_out_files_that_can_not_be_read(extract, root, tmp_path):
    extract("stages=[normalize,encode]")
    (tmp_path / "out" / "tokens" / "a.ecdc").unlink()
    write_wav(root / "c.wav", 440.0)
    extract("stages=[normalize]")
    assert "audio controls" in (tmp_path / "run" / "report.html").read_text()


def test_another_container_replaces_the_files(extract, tmp_path):
    extract()
    extract("encode.container=safetensors", "overwrite=true", "sidecars.mode=overwrite", "strict=true")
    names = {path.name for path in (tmp_path / "out" / "tokens").iterdir()}
    assert names == {f"{item}{end}" for item in "ab" for end in (".safetensors", ".cond.npy", ".cond.json")}
