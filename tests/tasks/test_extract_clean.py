"""stage=clean of task=extract: what renamed and removed recordings have left goes, and nothing else ever does."""

import errno
import fcntl
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from tests import main_process
from tests.tiny_models import write_tiny_encodec
from voxlab import run
from voxlab.errors import AuditFailed, UserError
from voxlab.parallel import Ranks
from voxlab.sidecars.audit import scan, without_recording


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_encodec(tmp_path_factory.mktemp("models") / "encodec")


def write_wav(path: Path, frequency: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * np.arange(9000) / 24000), 24000)


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("a", "deep/b", "deep/down/c", "d")):
        write_wav(tmp_path / "audio" / f"{name}.wav", 200.0 + 100 * number)
    return tmp_path / "audio"


@pytest.fixture
def extract(composed, weights, root, tmp_path):
    """Call the task with its configuration, in this process."""

    def call(*overrides: str, ranks: Ranks | None = None):
        words = ["task=extract", f"data.root={root}", f"codec.weights={weights}", f"out={tmp_path / 'out'}"]
        task = run.build(composed(*words, "producers=[lin]", *overrides).task)
        return task(ranks=ranks or Ranks(), run_dir=tmp_path / "run")

    return call


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, besides locks."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.name != "lock"}
    return {name: path.read_bytes() for name, path in found.items() if path.is_file()}


def files_of(*ids: str) -> set[str]:
    ends = (".ecdc", ".cond.npy", ".cond.json")
    return {f"normalized/{key}.wav" for key in ids} | {f"tokens/{key}{end}" for key in ids for end in ends}


def test_renamed_recordings_end_in_a_clean_audit(root, weights, tmp_path):
    words = ["task=extract", f"data.root={root}", f"codec.weights={weights}", "producers=[lin]", "out=out"]

    def main(*extra, code=0):
        done = main_process.run([*words, *extra], tmp_path)
        assert done.returncode == code, done.stderr[-3000:]
        return done.stderr

    main()
    (root / "deep").rename(root / "other")
    (root / "a.wav").unlink()
    failed = main(code=1)
    assert "orphan_tokens: its recording is gone" in failed
    assert "Remove what has no recording (the same command with stage=clean; dry_run=true lists it)" in failed
    (page,) = re.findall(r"report: (\S+report\.html)", failed)
    assert (tmp_path / page).is_file()
    out, recordings = tmp_path / "out", contents(root)
    before = contents(out)
    gone = files_of("a", "deep/b", "deep/down/c")
    size = sum(len(before[name]) for name in gone)

    planned = main("stage=clean", "dry_run=true")
    assert contents(out) == before
    told = rf"3 items without recording, 12 files, {size / 1e3:.3g} kB"
    assert f"to remove from out: {told}" in planned
    for name in ("a", "deep/b", "deep/down/c"):
        assert re.search(rf"^  {name}: \.wav, \.cond\.json, \.cond\.npy, \.ecdc \([\d.]+ kB\)$", planned, re.M)

    assert f"removed from out: {told}" in main("stage=clean")
    assert contents(out) == {name: data for name, data in before.items() if name not in gone}
    assert not (out / "tokens/deep").exists()
    assert not (out / "normalized/deep").exists()
    assert contents(root) == recordings

    main()
    audit = json.loads((out / "audit.json").read_text())
    assert audit["findings"] == []
    splits: Any = datasets.load_from_disk(str(out / "dataset"))
    assert sorted(row["id"] for split in splits.values() for row in split) == ["d", "other/b", "other/down/c"]
    after = contents(out)
    assert "nothing to remove: all that out holds belongs to one of 3 recordings" in main("stage=clean")
    assert contents(out) == after


def test_listings_are_right_again_where_it_is_cleaned_before_the_stages_run(extract, root, tmp_path):
    extract()
    (root / "a.wav").unlink()
    done = extract("stage=clean")
    assert (done["items"], done["files"], done["recordings"]) == (1, 4, 3)
    with pytest.raises(AuditFailed, match="dataset_mismatch"):
        extract("stages=[audit]")
    assert extract()["audit_errors"] == 0
    assert "a," not in (tmp_path / "out" / "normalize.csv").read_text()


def test_sidecars_alone_and_audio_alone_go_too(extract, tmp_path):
    extract()
    out = tmp_path / "out"
    before = contents(out)
    for name in ("tokens/x/old.cond.npy", "tokens/x/old.cond.json", "normalized/x/old.wav", "tokens/older.safetensors"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"left")
    for name in ("tokens/notes.txt", "normalized/cover.png", "tokens/.hidden.ecdc"):  # not of the stages
        (out / name).write_bytes(b"mine")
        before[name] = b"mine"
    with pytest.raises(AuditFailed):
        extract()
    assert "no recording (stage=clean removes it)" in (out / "audit.txt").read_text()
    assert extract("stage=clean")["files"] == 4
    reports = {f"audit.{end}" for end in ("txt", "json", "csv", "html")} | {".state/audit.json"}
    assert {name: data for name, data in contents(out).items() if name not in reports} == {
        name: data for name, data in before.items() if name not in reports
    }
    assert not (out / "tokens/x").exists()


def test_what_belongs_to_a_recording_is_never_left_over(tmp_path):
    for name in ("x.ecdc", "x.cond.npy", "x.cond.cond.json", "y.cond.cond.json", "v1.0.ecdc", "z.ecdc"):
        (tmp_path / name).touch()
    left = without_recording(scan(tmp_path), {"x", "v1.0"})  # EncHF_Dataset's name for the JSON of x
    assert left == {"y.cond.cond.json": "y", "z.ecdc": "z"}


def test_an_item_that_is_named_like_a_sidecar_owns_its_own(tmp_path):
    ends = (".ecdc", ".cond.npy", ".cond.json")
    for key in ("x", "x.cond", "y.cond"):
        for end in ends:
            (tmp_path / f"{key}{end}").touch()
    mine = {f"x.cond{end}": "x.cond" for end in ends}
    gone = {f"y.cond{end}": "y.cond" for end in ends}
    assert without_recording(scan(tmp_path), {"x", "x.cond"}) == gone
    assert without_recording(scan(tmp_path), {"x"}) == gone | mine
    (tmp_path / "x.cond.json").unlink()  # then x.cond.cond.json may be that of x, by EncHF_Dataset
    assert without_recording(scan(tmp_path), {"x"}) == gone | {f"x.cond{end}": "x.cond" for end in ends[:2]}


def test_an_item_that_is_named_like_a_sidecar_is_counted_once(extract, root):
    write_wav(root / "gone.cond.wav", 300.0)
    extract()
    (root / "gone.cond.wav").unlink()
    done = extract("stage=clean")
    assert (done["items"], done["files"]) == (1, 4)


def refused(extract, tmp_path, match: str, *overrides: str) -> None:
    """Check that nothing is removed, anywhere."""
    before = contents(tmp_path)
    for more in ((), ("dry_run=true",)):
        with pytest.raises(UserError, match=match):
            extract("stage=clean", *overrides, *more)
        assert contents(tmp_path) == before


def test_nothing_is_removed_where_the_recordings_are_not_there(extract, root, tmp_path):
    extract()
    root.rename(tmp_path / "unmounted")
    refused(extract, tmp_path, "is not there")
    root.mkdir()
    refused(extract, tmp_path, "no recording under")
    write_wav(root / "other.wav", 300.0)  # another disk, or another folder
    refused(
        extract, tmp_path, r"holds nothing of the 1 recording in .*: all of its 4 items would be removed \(first: a\)"
    )


def test_more_than_stays_goes_on_confirmation_only(extract, tmp_path):
    extract()
    refused(extract, tmp_path, r"out holds 1 item of the 1 recording in .*, and 3 items would", "data.pattern=a.wav")
    assert extract("stage=clean", "data.pattern=a.wav", "overwrite=true")["items"] == 3
    assert files_of("a") <= contents(tmp_path / "out").keys()


def test_only_an_output_folder_of_the_stages_is_cleaned(extract, root, tmp_path):
    (tmp_path / "out" / "tokens").mkdir(parents=True)
    (tmp_path / "out" / "tokens" / "mine.ecdc").write_bytes(b"mine")
    refused(extract, tmp_path, "was not made by task=extract")
    refused(extract, tmp_path, "stage=clean is for token files", "features=mfcc")


@pytest.mark.parametrize("place", ["out/normalized", "out/tokens/more", "out", "."])
def test_recordings_among_the_outputs_are_no_leftovers(extract, root, tmp_path, place):
    extract()
    shutil.copytree(root, tmp_path / "out/tokens/more")
    refused(extract, tmp_path, "lie one in the other", f"data.root={tmp_path / place}")


@pytest.mark.parametrize("place", ["normalized/kept.wav", "tokens/deeper/kept.wav"])
def test_recordings_that_are_links_into_the_outputs_are_no_leftovers(extract, root, tmp_path, place):
    extract()
    kept = tmp_path / "out" / place
    kept.parent.mkdir(exist_ok=True)
    (root / "a.wav").rename(kept)
    (root / "between.wav").symlink_to(kept)
    (root / "a.wav").symlink_to("between.wav")
    refused(
        extract, tmp_path, rf"the recording {root / 'a.wav'} is a link to {kept}, in the output: nothing is removed"
    )
    (tmp_path / "elsewhere.wav").write_bytes(kept.read_bytes())  # links to other places are recordings like any other
    (root / "between.wav").unlink()
    (root / "a.wav").unlink()
    (root / "a.wav").symlink_to(tmp_path / "elsewhere.wav")
    assert extract("stage=clean", "dry_run=true")["recordings"] == 4


def failing(original, *names: str):
    """Return a function of a path that is refused for these names, as to a user without the right to do that."""

    def call(path, *args, **options):
        if str(path).endswith(names):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return original(path, *args, **options)

    return call


def test_what_cannot_be_removed_is_named_and_the_rest_goes(extract, root, tmp_path, monkeypatch, caplog):
    extract()
    (root / "deep").rename(root / "other")
    out, gone = tmp_path / "out", files_of("deep/b", "deep/down/c")
    before = contents(out)
    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(Path, "unlink", failing(Path.unlink, "out/tokens/deep/b.cond.npy"))
        patch.setattr(Path, "rmdir", failing(Path.rmdir, "out/normalized/deep"))
        with pytest.raises(UserError) as caught:
            extract("stage=clean")
    assert str(caught.value).splitlines() == [
        f"removed 7 of 8 files from {out}; 1 file and 1 folder could not be removed:",
        f"  {out}/tokens/deep/b.cond.npy: Permission denied",
        f"  {out}/normalized/deep: Permission denied",
        "Mend that (mostly permissions), then run the same command again; dry_run=true lists what is left.",
    ]
    stays = {name: data for name, data in before.items() if name not in gone}
    assert contents(out) == stays | {"tokens/deep/b.cond.npy": before["tokens/deep/b.cond.npy"]}
    for item in ("deep/b", "deep/down/c"):
        assert f"  {item}: .wav, .cond.json, .cond.npy, .ecdc (" in caplog.text
    assert "removed from" not in caplog.text
    assert extract("stage=clean")["files"] == 1
    assert contents(out) == stays
    assert not (out / "tokens/deep").exists()


def test_the_list_comes_before_anything_goes(extract, root, monkeypatch, caplog):
    extract()
    (root / "a.wav").unlink()

    def interrupted(path, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", interrupted)
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        extract("stage=clean")
    monkeypatch.undo()
    assert "  a: .wav, .cond.json, .cond.npy, .ecdc (" in caplog.text


@pytest.mark.parametrize("words", [["stage=clean"], ["stage=clean", "dry_run=true"], ["stages=[audit]"]], ids=str)
@pytest.mark.parametrize("name", ["out/tokens", "out/tokens/deep/down"])
def test_folders_that_cannot_be_listed_are_named(extract, tmp_path, monkeypatch, words, name):
    extract()
    monkeypatch.setattr(os, "scandir", failing(os.scandir, name))
    with pytest.raises(UserError, match=f"can't list {tmp_path / name}: Permission denied"):
        extract(*words)


def test_files_that_cannot_be_looked_at_are_named(extract, root, tmp_path, monkeypatch):
    extract()
    (root / "a.wav").unlink()
    monkeypatch.setattr(Path, "lstat", failing(Path.lstat, "tokens/a.ecdc"))
    with pytest.raises(UserError, match=rf"can't look at {tmp_path}/out/tokens/a\.ecdc: Permission denied"):
        extract("stage=clean")


def test_a_sample_that_is_not_there_is_nothing_to_clean(extract, weights, tmp_path):
    extract()
    before = contents(tmp_path / "out")
    words = ["task=extract", f"codec.weights={weights}", "out=out", "data.source=sample", "data.root=in/smp"]
    told = "there is no sample in in/smp-sample yet, and nothing to clean: the stages write it first"
    for more in ([], ["dry_run=true"]):
        done = main_process.run([*words, "stage=clean", *more], tmp_path)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
        assert contents(tmp_path / "out") == before
    assert not (tmp_path / "in").exists()


def test_two_commands_at_once_are_refused(extract, tmp_path):
    extract()
    (tmp_path / "out" / "tokens" / "old.ecdc").touch()
    with (tmp_path / "out" / ".state" / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another command works in"):
            extract("stage=clean")
    assert extract("stage=clean")["files"] == 1


def test_ranks_stop_and_end_together(extract, root, weights, tmp_path):
    extract()
    words = ["task=extract", f"codec.weights={weights}", f"out={tmp_path / 'out'}", "stage=clean"]
    write_wav(tmp_path / "else" / "other.wav", 300.0)
    stopped = main_process.run([*words, f"data.root={tmp_path / 'else'}"], tmp_path, world=2, timeout=60)
    assert stopped.returncode == 2
    assert "would be removed" in stopped.stderr
    (root / "a.wav").unlink()
    done = main_process.run([*words, f"data.root={root}"], tmp_path, world=2, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("removed from") == 1
