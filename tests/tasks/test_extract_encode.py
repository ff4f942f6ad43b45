import errno
import hashlib
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests import main_process
from tests.tiny_models import write_tiny_encodec, write_tiny_mimi, write_tiny_snac
from voxlab import audio
from voxlab.codecs.base import Codes, stack
from voxlab.codecs.ecdc import read_ecdc
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.snac import Snac
from voxlab.codecs.token_files import read_header, read_tokens
from voxlab.data.items import AudioItem, file_stamp
from voxlab.errors import UserError
from voxlab.ledger import Ledger
from voxlab.parallel import Ranks
from voxlab.tasks.extract import encode as extract_encode
from voxlab.tasks.extract import encode_work as extract_encode_work
from voxlab.tasks.extract.encode import encode, list_missing
from voxlab.tasks.extract.stage import Stage

RANKS = Ranks()
# name -> (samples, rate, channels)
FILES = {
    "a/take_pitch_64.00_amp_.75.wav": (9_000, 24000, 1),
    "a/stereo.flac": (20_000, 44100, 2),
    "b/short.wav": (40, 8000, 1),
    "b/long.wav": (60_000, 24000, 1),
    "b/mid.ogg": (22_050, 22050, 1),
    "c.wav": (9_000, 24000, 1),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_tiny_encodec(tmp_path_factory.mktemp("encodec")))


@pytest.fixture
def corpus(tmp_path):
    rng = np.random.default_rng(0)
    for name, (samples, rate, channels) in FILES.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.uniform(-0.2, 0.2, (samples, channels)), rate)
    return tmp_path / "in"


def items_of(root: Path) -> tuple[AudioItem, ...]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    named = {path.relative_to(root).as_posix().rpartition(".")[0]: path for path in paths}
    return tuple(AudioItem(key, path, "train", file_stamp(path)) for key, path in sorted(named.items()))


def stage_of(root: Path, out: Path, **options) -> Stage:
    return Stage(out, items_of(root), options.pop("ranks", RANKS), max_batch_seconds=2.0, **options)


def contents(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted((out / "tokens").rglob("*.*"))}


class Counting(Encodec):
    """Counts calls, and can be killed or made to fail by the length of an item."""

    calls = 0
    bad_samples = 0
    die_at = 0

    def encode(self, wav: torch.Tensor, lengths: torch.Tensor) -> Codes:
        type(self).calls += 1
        if type(self).calls == self.die_at:
            raise KeyboardInterrupt
        if self.bad_samples in lengths.tolist():
            raise RuntimeError("a bug in the model")
        return super().encode(wav, lengths)


def test_every_recording_gets_the_codes_of_its_audio(corpus, weights, tmp_path):
    codec, stage = Encodec(weights=weights), stage_of(corpus, tmp_path / "out")
    outcome = encode(stage, codec)
    assert (outcome.done, outcome.kept, outcome.failed, outcome.warnings) == (6, 0, {}, ())
    for item in stage.items:
        wav, rate = audio.load(item.path)
        wav = audio.resample(audio.to_mono(wav), rate, 24000)
        wanted = codec.encode(wav[None], torch.tensor([wav.shape[-1]]))
        path = tmp_path / "out" / "tokens" / f"{item.id}.ecdc"
        found, header = read_ecdc(path.read_bytes())
        assert torch.equal(stack(found), stack(wanted))
        record = Ledger(tmp_path / "out", "encode", RANKS).records[item.id]
        assert record["frames"] == header.num_frames
        assert record["num_samples"] == header.num_samples == wav.shape[-1]
        assert (record["input"], record["num_codebooks"]) == (item.stamp, 8)


def test_a_rerun_does_nothing_and_a_changed_recording_is_done_again(corpus, weights, tmp_path, monkeypatch):
    out = tmp_path / "out"
    encode(stage_of(corpus, out), Encodec(weights=weights))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(Encodec, "to", lambda *_: pytest.fail("the model was loaded"))
    outcome = encode(stage_of(corpus, out), Encodec(weights=weights))
    assert (outcome.done, outcome.kept) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    monkeypatch.undo()
    soundfile.write(corpus / "c.wav", np.full(5_000, 0.1), 24000)
    (out / "tokens/b/mid.ecdc").unlink()
    outcome = encode(stage_of(corpus, out), Encodec(weights=weights))
    assert (outcome.done, outcome.kept) == (2, 4)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    changed = {path.relative_to(out).as_posix() for path in after if after[path] != before.get(path)}
    assert changed == {"tokens/c.ecdc", "tokens/b/mid.ecdc", ".state/encode.jsonl"}


def test_normalized_files_are_preferred_and_only_good_ones_take_part(corpus, weights, tmp_path):
    out, stage = tmp_path / "out", stage_of(corpus, tmp_path / "out")
    ledger = Ledger(out, "normalize", RANKS)
    (out / "normalized").mkdir(parents=True)
    soundfile.write(out / "normalized/c.wav", np.full(7_000, 0.1), 24000)
    digest = hashlib.sha256((out / "normalized/c.wav").read_bytes()).hexdigest()
    stamps = {item.id: item.stamp for item in stage.items}
    ledger.add("c", {"sha256": digest, "status": "ok", "source": stamps["c"]})
    ledger.add("b/short", {"error": "silent_audio", "source": stamps["b/short"]})
    outcome = encode(stage, Encodec(weights=weights))
    assert (outcome.done, outcome.kept, len(outcome.failed)) == (1, 0, 4)
    assert all(reason.startswith("not_normalized: ") for reason in outcome.failed.values())
    assert set(contents(out)) == {"tokens/c.ecdc"}
    assert read_header(out / "tokens/c.ecdc").num_samples == 7_000
    assert Ledger(out, "encode", RANKS).records["c"]["input"] == digest
    (out / "tokens/a").mkdir()
    (out / "tokens/a/stereo.ecdc").touch()
    assert encode(stage, Encodec(weights=weights)).warnings == ()  # not normalized yet, but no orphan


def test_bad_recordings_are_recorded_and_leave_the_others_alone(corpus, weights, tmp_path):
    good = tmp_path / "good"
    encode(stage_of(corpus, good), Encodec(weights=weights))
    (corpus / "broken.wav").write_bytes(b"RIFF nothing")
    (corpus / "empty.wav").write_bytes(b"")
    soundfile.write(corpus / "too_long.wav", np.full(50_000, 0.1), 8000)
    out = tmp_path / "out"
    codec = Counting(weights=weights, max_seconds=3)
    Counting.bad_samples, Counting.calls, Counting.die_at = 40 * 3, 0, 0
    try:
        outcome = encode(stage_of(corpus, out), codec)
    finally:
        Counting.bad_samples = 0
    assert outcome.failed["broken"].startswith("bad_audio:unreadable: ")
    assert outcome.failed["empty"].startswith("bad_audio:unreadable: ")
    assert outcome.failed["too_long"].startswith("failed: encodec: an item of 6.2 s; allowed are 3")
    assert outcome.failed["b/short"] == "failed:RuntimeError"
    assert (outcome.done, outcome.kept, len(outcome.failed)) == (5, 0, 4)
    expected = {key: data for key, data in contents(good).items() if key != "tokens/b/short.ecdc"}
    assert contents(out) == expected
    Counting.calls = 0
    again = encode(stage_of(corpus, out), codec)
    assert (again.failed, again.done, Counting.calls) == (outcome.failed, 0, 0)


def test_an_interrupted_run_ends_in_the_same_bytes(corpus, weights, tmp_path):
    encode(stage_of(corpus, tmp_path / "whole"), Encodec(weights=weights))
    out = tmp_path / "out"
    for attempt in itertools.count(1):
        Counting.calls, Counting.die_at = 0, 2
        try:
            encode(stage_of(corpus, out), Counting(weights=weights))
            break
        except KeyboardInterrupt:
            assert attempt < 9
    Counting.die_at = 0
    assert attempt > 2
    assert contents(out) == contents(tmp_path / "whole")
    kept = [json.loads(line) for line in (out / ".state/encode.jsonl").read_text().splitlines()]
    assert [record["id"] for record in kept] == sorted(record["id"] for record in kept)


SHARE = """
import sys
from pathlib import Path
from tests.tasks.test_extract_encode import stage_of
from voxlab.codecs.encodec import Encodec
from voxlab.parallel import launched, shutdown
from voxlab.tasks.extract.encode import encode
ranks = launched("cpu")
outcome = encode(stage_of(Path(sys.argv[1]), Path(sys.argv[2]), ranks=ranks), Encodec(weights=sys.argv[3]), verify=3)
assert (outcome.done, outcome.kept, outcome.failed) == (6, 0, {}), outcome
assert outcome.facts["verified"].startswith("3 token files, 0 wrong"), outcome
shutdown(ranks)
"""


def test_two_ranks_write_what_one_does(corpus, weights, tmp_path):
    encode(stage_of(corpus, tmp_path / "one"), Encodec(weights=weights))
    script = tmp_path / "share.py"
    script.write_text(SHARE)
    done = main_process.run([corpus, tmp_path / "two", weights], tmp_path, script=script, world=2)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_verify_finds_damage(corpus, weights, tmp_path, monkeypatch):
    spell = extract_encode_work.token_files.spell_tokens

    def damage(codes, info, container, *, lm=None):
        books = [book.clone() for book in codes.codebooks]
        if int(codes.num_samples[0]) == 60_000:
            books[0] = (books[0] + 1) % 1024
        return spell(Codes(tuple(books), codes.lengths, codes.scales, codes.num_samples), info, container, lm=lm)

    outcome = encode(stage_of(corpus, tmp_path / "a"), Encodec(weights=weights), verify=99)
    assert outcome.failed == {}
    assert outcome.facts["verified"].startswith("6 token files, 0 wrong, 100.0000% of ")
    monkeypatch.setattr(extract_encode_work.token_files, "spell_tokens", damage)
    outcome = encode(stage_of(corpus, tmp_path / "b"), Encodec(weights=weights), verify=99)
    assert (outcome.done, list(outcome.failed)) == (5, ["b/long"])
    assert outcome.failed["b/long"] == "verify_mismatch: 1316 of 1504 codes equal a fresh encoding"


@pytest.mark.parametrize(
    ("codec", "suffix", "container"),
    [
        (lambda folder: Snac(weights=str(write_tiny_snac(folder))), "safetensors", "auto"),
        (lambda folder: Mimi(weights=str(write_tiny_mimi(folder)), num_codebooks=4), "safetensors", "auto"),
        (lambda folder: Encodec(weights=str(write_tiny_encodec(folder, stereo=True))), "ecdc", "auto"),
        (lambda folder: Encodec(weights=str(write_tiny_encodec(folder))), "ecdc", "torch"),
    ],
    ids=["snac", "mimi", "encodec48", "torch"],
)
def test_any_codec_and_container(codec, suffix, container, corpus, tmp_path):
    model = codec(tmp_path / "weights")
    outcome = encode(stage_of(corpus, tmp_path / "out"), model, container=container, verify=2)
    assert outcome.failed == {}
    assert outcome.facts["verified"].startswith("2 token files, 0 wrong")
    assert all(name.endswith(f".{suffix}") for name in contents(tmp_path / "out"))
    file = read_tokens(tmp_path / f"out/tokens/a/take_pitch_64.00_amp_.75.{suffix}")
    assert file.num_codebooks == model.info.num_codebooks
    assert file.container == {"ecdc": "torch" if container == "torch" else "ecdc"}.get(suffix, suffix)


def test_other_settings_are_made_again(corpus, weights, tmp_path):
    out = tmp_path / "out"
    encode(stage_of(corpus, out), Encodec(weights=weights))
    outcome = encode(stage_of(corpus, out), Encodec(weights=weights, bandwidth=3.0))
    assert (outcome.done, outcome.kept) == (6, 0)
    assert {read_header(out / name).num_codebooks for name in contents(out)} == {4}


def test_plan_counts_and_writes_nothing(corpus, weights, tmp_path):
    stage = stage_of(corpus, tmp_path / "out", dry_run=True)
    outcome = encode(stage, Encodec(weights=weights))
    assert (outcome.done, outcome.facts["encode_plan"]) == (6, "WRITE 6, SKIP 0")
    assert not (tmp_path / "out").exists()
    encode(stage_of(corpus, tmp_path / "out"), Encodec(weights=weights))
    headers = [read_header(tmp_path / "out" / name) for name in contents(tmp_path / "out")]
    assert outcome.facts["encode_bytes"] == sum(header.num_frames for header in headers) * 10
    assert outcome.facts["encode_seconds"] == round(sum(header.num_samples for header in headers) / 24000, 1)
    assert encode(stage, Encodec(weights=weights)).facts["encode_plan"] == "WRITE 0, SKIP 6"


def test_missing_and_orphans_are_listed_and_left_alone(corpus, weights, tmp_path):
    out = tmp_path / "out"
    assert list_missing(stage_of(corpus, out))[0].startswith("6 recordings have no token file: a/stereo, a/take_")
    encode(stage_of(corpus, out), Encodec(weights=weights))
    assert list_missing(stage_of(corpus, out)) == []
    (corpus / "c.wav").unlink()
    (out / "tokens/b/mid.ecdc").unlink()
    for index in range(22):
        (out / f"tokens/x{index:02}.safetensors").touch()
    lines = list_missing(stage_of(corpus, out))
    assert lines[0] == "1 recording has no token file: b/mid"
    assert lines[1].startswith("23 token files have no recording: c.ecdc, x00.safetensors, ")
    assert lines[1].endswith("x18.safetensors, and 3 more")
    outcome = encode(stage_of(corpus, out), Encodec(weights=weights))
    assert outcome.warnings[0].startswith("23 token files have no recording: c.ecdc, x00")
    assert "nothing is deleted by itself; stage=clean removes them, their sidecars" in outcome.warnings[0]
    (out / "tokens/b/mid.safetensors").touch()  # its recording is there: not what stage=clean removes
    other = encode(stage_of(corpus, out), Encodec(weights=weights)).warnings[1]
    assert other.startswith("1 token file belongs to no recording that was encoded: b/mid.safetensors (left from other")
    assert "stage=clean" not in other
    assert (out / "tokens/c.ecdc").exists()
    assert "c" not in Ledger(out, "encode", RANKS).records


def test_batches_are_those_of_the_whole_corpus(corpus, weights, tmp_path, monkeypatch):
    seen: list[list[str]] = []
    original = extract_encode_work.with_retries

    def watch(batch, work, failed):
        seen.append([clip.source.item.id for clip in batch])
        return original(batch, work, failed)

    monkeypatch.setattr(extract_encode_work, "with_retries", watch)
    out = tmp_path / "out"
    encode(stage_of(corpus, out), Encodec(weights=weights))
    whole = list(seen)
    assert max(map(len, whole)) > 1
    partner = next(batch for batch in whole if "c" in batch)
    assert len(partner) > 1
    (out / "tokens/c.ecdc").unlink()
    seen.clear()
    encode(stage_of(corpus, out), Encodec(weights=weights))
    assert seen == [partner]


@pytest.mark.parametrize("what", ["write", "add"])
def test_a_full_disk_is_explained(corpus, weights, tmp_path, monkeypatch, what):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if what == "add":
        monkeypatch.setattr(Ledger, "add", refuse)
    else:
        monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"no room to write .*out/(tokens|\.state)"):
        encode(stage_of(corpus, tmp_path / "out"), Encodec(weights=weights))


def test_wrong_options_are_refused(corpus, weights, tmp_path):
    stage = stage_of(corpus, tmp_path / "out")
    for options, message in [
        ({"container": "zip"}, "container='zip' is unknown"),
        ({"verify": -1}, "encode.verify=-1: give the number"),
        ({"container": "torch", "lm_weights": "published"}, "lm_weights=published is for container=ecdc, not torch"),
        ({"lm_weights": "nowhere.th"}, "lm_weights=nowhere.th: no such file"),
    ]:
        with pytest.raises(UserError, match=message):
            encode(stage, Encodec(weights=weights), **options)
    assert not (tmp_path / "out").exists()


def test_entropy_coded_tokens_are_written_and_verified(tmp_path, weights):
    pytest.importorskip("encodec")
    from voxlab.codecs.ecdc import FORMATS
    from voxlab.codecs.ecdc_lm import build_lm

    torch.save(build_lm(FORMATS["encodec_24khz"]).state_dict(), tmp_path / "lm.th")
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in/a.wav", np.random.default_rng(0).uniform(-0.2, 0.2, 3_000), 24000)
    options = {"lm_weights": str(tmp_path / "lm.th"), "verify": 1}
    outcome = encode(stage_of(tmp_path / "in", tmp_path / "out"), Encodec(weights=weights, bandwidth=1.5), **options)
    assert outcome.failed == {}
    assert outcome.facts["verified"].startswith("1 token file, 0 wrong, 100.0000% of 20 codes")
    assert read_header(tmp_path / "out/tokens/a.ecdc").lm


def test_nothing_to_do_is_fast(weights, tmp_path):
    """A tenth of a 10,000 file corpus: no file is opened, so the whole takes seconds at most."""
    out = tmp_path / "out"
    (out / "tokens").mkdir(parents=True)
    items = tuple(AudioItem(f"{n:05}", tmp_path / "x", "train", "1:1") for n in range(1000))
    stage, codec = Stage(out, items, RANKS, max_batch_seconds=2.0), Encodec(weights=weights)
    ledger = Ledger(out, "encode", RANKS)
    made_by = extract_encode.storage.fingerprint(extract_encode.settings(stage, codec, container="auto"))
    for item in items:
        path = out / f"tokens/{item.id}.ecdc"
        path.touch()
        stat = [[0, path.stat().st_mtime_ns]]
        ledger.add(item.id, {"input": "1:1", "settings": made_by, "stat": stat, "planned": 1})
    ledger.merge()
    started = time.monotonic()
    outcome = encode(stage, codec)
    assert (outcome.done, outcome.kept) == (0, 1000)
    assert time.monotonic() - started < 1.0
