"""task=extract features=... through main.py: SIGKILL in the middle, several ranks, other settings, wrong options."""

import hashlib
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests import main_process
from tests.tasks.command_lines import answers
from voxlab.data.feature_store import open_store

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"a": 90, "b": 70, "c": 50}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number, (name, seconds) in enumerate(SECONDS.items()):
        noise = np.random.default_rng(number).uniform(-0.3, 0.3, seconds * 16_000)
        soundfile.write(folder / f"{name}.wav", noise, 16_000)
    return folder


def run(recordings, folder, *extra, world=1, code=0, **environment):
    words = ["task=extract", "data=audiofolder", f"data.root={recordings}", "features=logmel", "out=out", *extra]
    folder.mkdir(exist_ok=True)
    done = main_process.run(words, folder, world=world, **environment)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def digests(out):
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and ".state" not in path.parts]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(recordings, tmp_path_factory):
    """The store of a run that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    text = run(recordings, folder)
    assert "extracted: 3" in text
    assert "frames in" not in text  # no line for each recording of work that takes a moment
    return digests(folder / "out")


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(recordings, whole, tmp_path):
    dying = "features._target_=tests.tasks.feature_fakes.DyingLogMel"
    run(recordings, tmp_path, dying, code=-signal.SIGKILL, DIE="1")
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert any(".tmp-" in name for name in left)
    assert len(list((tmp_path / "out").rglob("episode.json"))) == 1
    text = run(recordings, tmp_path)
    assert "extracted: 2" in text
    assert "up to date: 1" in text
    assert digests(tmp_path / "out") == whole
    assert list((tmp_path / "out").rglob("*.tmp-*")) == list((tmp_path / "out").rglob("leases/*")) == []


@pytest.mark.slow
def test_two_ranks_write_the_bytes_of_one(recordings, whole, tmp_path):
    text = run(recordings, tmp_path, world=2)
    assert "extracted: 3" in text
    assert digests(tmp_path / "out") == whole
    assert "extracted: 0" in run(recordings, tmp_path, world=2)


def test_command_lines(recordings, tmp_path):
    base = ["task=extract", "data=audiofolder", f"data.root={recordings}", "features=logmel"]
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.wav").write_bytes(b"RIFF")
    lines = {
        "plan": [*base, "dry_run=true"],
        "named": base,
        "other settings": [*base, "features.align=raw"],
        "token option": [*base, "overwrite=true"],
        "fraction": [*base, "max_bad_fraction=2"],
        "verify": [*base, "verify=md5"],
        "failing": ["task=extract", "data=audiofolder", f"data.root={bad}", "features=logmel", "out=bad-out"],
        "neither": ["task=extract", "data=audiofolder", f"data.root={recordings}", "codec=none"],
    }
    found = answers(tmp_path, lines)
    assert {name: code for name, (code, _) in found.items()} == {
        "plan": 0,
        "named": 0,
        "other settings": 0,
        "token option": 2,
        "fraction": 2,
        "verify": 2,
        "failing": 3,
        "neither": 2,
    }
    assert "to do: 3" in found["plan"][1]
    assert "overwrite=true is for token files" in found["token option"][1]
    assert "max_bad_fraction=2.0: give a fraction from 0 to 1" in found["fraction"][1]
    assert "1 of 1 recordings have no features (allowed: 0.0%)" in found["failing"][1]
    assert "choose codec=encodec or features=moshi" in found["neither"][1]
    stores = sorted((tmp_path / "extracted" / "audiofolder-logmel").iterdir())
    assert len(stores) == 2
    raw = open_store(tmp_path / "extracted" / "audiofolder-logmel", features={"align": "raw"}).split("train")[0]
    shifted = open_store(tmp_path / "extracted" / "audiofolder-logmel", features={"align": "decision"}).split("train")[
        0
    ]
    assert np.array_equal(np.asarray(raw.features())[:-1], np.asarray(shifted.features())[1:])
    assert len((next((tmp_path / "bad-out").iterdir()) / "failures.jsonl").read_text().splitlines()) == 1
