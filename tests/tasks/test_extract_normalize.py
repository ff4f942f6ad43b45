"""Stage normalize: levels against a slow reference, policies, bad recordings, resume, ranks."""

import csv
import errno
import hashlib
import io
import math
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile

from voxlab import ledger as ledger_module
from voxlab import storage
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.voiceassistant import VoiceAssistant
from voxlab.errors import UserError
from voxlab.ledger import Ledger
from voxlab.parallel import Ranks
from voxlab.tasks.extract import normalize as extract_normalize
from voxlab.tasks.extract.normalize import normalize, settings
from voxlab.tasks.extract.stage import Stage

COLUMNS = [
    *("id", "sample_rate_in", "channels_in", "num_samples_in", "num_samples"),
    *("peak_rms_in", "gain_db", "gain_wanted_db", "peak_rms_out", "true_peak_out", "status"),
]


def slow_peak_db(samples, sample_rate, window_ms=250):
    """The definition, one window at a time; samples (T, C)."""
    energy = (samples.astype(np.float64) ** 2).mean(1)
    window = int(sample_rate * window_ms / 1000)
    if len(energy) <= window:
        return 10 * math.log10(math.fsum(energy) / len(energy))
    peak = max(energy[start : start + window].sum() for start in range(len(energy) - window + 1))
    return 10 * math.log10(peak / window)


def stage_of(out, corpus, **changes):
    return replace(Stage(out, tuple(corpus.items()), Ranks()), **changes)


def report(out):
    with (out / "normalize.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def digests(out):
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and ".state" not in path.parts
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    corpus = AudioFolder(source="sample", root=str(tmp_path_factory.mktemp("corpus") / "audio"))
    corpus.prepare()
    return corpus


@pytest.fixture
def folder(tmp_path):
    """Write (T, C) signals as files of a corpus."""

    def write(subtype="FLOAT", **signals):
        root = tmp_path / "music"
        root.mkdir(exist_ok=True)
        for name, (samples, sample_rate) in signals.items():
            soundfile.write(root / f"{name}.wav", samples, sample_rate, subtype=subtype)
        return AudioFolder(root=str(root))

    return write


def noise(length, channels=1, level=0.05, seed=0):
    return (level * np.random.default_rng(seed).standard_normal((length, channels))).astype(np.float32)


# ---- levels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pcm16", "float32"])
@pytest.mark.parametrize("target", [0.1, 0.02])
def test_every_recording_reaches_the_target_within_a_hundredth_of_a_decibel(sample, tmp_path, form, target):
    outcome = normalize(
        stage_of(tmp_path / "out", sample), sample_rate=24000, channels=1, target_rms=target, format=form
    )
    assert (outcome.done, outcome.kept, outcome.failed, outcome.warnings) == (12, 0, {}, ())
    rows = report(tmp_path / "out")
    assert list(rows) == [item.id for item in sample.items()]
    for item in sample.items():
        path = tmp_path / "out" / "normalized" / f"{item.id}.wav"
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16" if form == "pcm16" else "FLOAT")
        samples = soundfile.read(path, dtype="float64", always_2d=True)[0]
        assert slow_peak_db(samples, 24000) == pytest.approx(20 * math.log10(target), abs=0.01)
        assert np.abs(samples).max() <= 0.99
        row = rows[item.id]
        assert list(row) == COLUMNS
        source = soundfile.info(str(item.path))
        assert int(row["num_samples_in"]) == source.frames
        assert int(row["num_samples"]) == len(samples) == math.ceil(source.frames * 24000 / source.samplerate)
        assert (int(row["sample_rate_in"]), int(row["channels_in"])) == (source.samplerate, source.channels)
        assert float(row["peak_rms_out"]) == pytest.approx(10 ** (slow_peak_db(samples, 24000) / 20), abs=1e-7)
        gain = 10 ** (float(row["gain_db"]) / 20)
        assert float(row["peak_rms_in"]) * gain == pytest.approx(target, rel=1e-4)
        assert row["gain_wanted_db"] == row["gain_db"]
        assert row["status"] == "ok"


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_level_holds_at_any_rate_and_for_stereo(folder, tmp_path, sample_rate, channels):
    quiet, loud = noise(sample_rate, channels, 1e-4), noise(sample_rate // 3, channels, 0.1, seed=1)
    corpus = folder(x=(np.concatenate([loud, quiet, loud * 0.7]), sample_rate))
    normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=channels, target_rms=0.05)
    samples = soundfile.read(tmp_path / "out/normalized/x.wav", always_2d=True)[0]
    assert samples.shape[1] == channels
    assert slow_peak_db(samples, 24000) == pytest.approx(20 * math.log10(0.05), abs=0.01)


def test_a_clip_shorter_than_the_window(folder, tmp_path):
    corpus = folder(x=(noise(1000), 24000), y=(np.full((1, 1), 0.5), 24000))
    normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)
    samples = soundfile.read(tmp_path / "out/normalized/x.wav", always_2d=True)[0]
    assert slow_peak_db(samples, 24000) == pytest.approx(-20, abs=0.01)
    assert soundfile.read(tmp_path / "out/normalized/y.wav")[0].tolist() == pytest.approx([0.1], abs=2**-15)


@pytest.mark.parametrize("hop", ["sample", "quarter"])
def test_hop_decides_whether_the_end_is_measured(folder, tmp_path, hop):
    samples = np.concatenate([noise(6000, level=0.01), noise(1400, level=0.1, seed=1)])
    normalize(stage_of(tmp_path / "out", folder(x=(samples, 24000))), sample_rate=24000, channels=1, hop=hop)
    level = slow_peak_db(soundfile.read(tmp_path / "out/normalized/x.wav", always_2d=True)[0], 24000)
    assert (level == pytest.approx(-20, abs=0.01)) == (hop == "sample")


def test_channels_become_those_of_the_codec(folder, tmp_path):
    signals = {f"c{channels}": (noise(24000, channels), 24000) for channels in (1, 2, 6)}
    corpus = folder(**signals)
    normalize(stage_of(tmp_path / "mono", corpus), sample_rate=24000, channels=1, format="float32")
    normalize(stage_of(tmp_path / "stereo", corpus), sample_rate=24000, channels=2, format="float32")
    for name, (samples, _) in signals.items():
        mono = soundfile.read(tmp_path / f"mono/normalized/{name}.wav", always_2d=True)[0]
        stereo = soundfile.read(tmp_path / f"stereo/normalized/{name}.wav", always_2d=True)[0]
        mean = samples.astype(np.float64).mean(1)
        np.testing.assert_allclose(mono[:, 0] / mono.std(), mean / mean.std(), atol=1e-5)
        if name == "c2":
            np.testing.assert_allclose(stereo / stereo.std(), samples / samples.astype("f8").std(), atol=1e-5)
        else:
            np.testing.assert_array_equal(stereo, mono.repeat(2, 1))


def test_integrated_loudness(folder, tmp_path):
    corpus = folder(x=(noise(48000, 2), 48000), short=(noise(9000), 48000), y=(noise(24000, level=1e-3), 24000))
    outcome = normalize(
        stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1, method="lufs", target_lufs=-20
    )
    for name in ("x", "y"):
        samples, rate = soundfile.read(tmp_path / f"out/normalized/{name}.wav")
        assert pyloudnorm.Meter(rate).integrated_loudness(samples) == pytest.approx(-20, abs=0.01)
    assert outcome.failed == {"short": "too_short: 0.188 s; EBU R128 needs 0.4 s"}
    assert not (tmp_path / "out/normalized/short.wav").exists()


# ---- policies ------------------------------------------------------------------------------------------------------


@pytest.fixture
def clicks(folder):
    samples = noise(24000, level=0.01)
    samples[5000] = 0.9
    return folder(click=(samples, 24000), plain=(noise(24000), 24000))


def test_limit_lowers_the_gain_to_the_ceiling(clicks, tmp_path):
    for form in ("pcm16", "float32"):
        out = tmp_path / form
        outcome = normalize(stage_of(out, clicks), sample_rate=24000, channels=1, ceiling=0.8, format=form)
        row = report(out)["click"]
        samples = soundfile.read(out / "normalized/click.wav")[0]
        assert np.abs(samples).max() == pytest.approx(0.8, abs=2**-15)
        assert np.abs(samples).max() <= 0.8
        assert (row["status"], float(row["true_peak_out"])) == ("limited", pytest.approx(0.8, abs=1e-5))
        assert float(row["gain_db"]) < float(row["gain_wanted_db"]) - 3
        assert [line.split(" recording ")[0] for line in outcome.warnings] == ["1"]
        assert outcome.warnings[0].endswith(": click")
        assert report(out)["plain"]["status"] == "ok"


def test_the_ceiling_holds_between_the_samples(folder, tmp_path):
    times = np.arange(24000) / 24000
    tone = np.sin(2 * math.pi * 6000 * times + math.pi / 4) * np.hanning(24000)  # samples at 0.707 of its peak
    out = tmp_path / "out"
    normalize(stage_of(out, folder(x=(tone, 24000))), sample_rate=24000, channels=1, target_rms=0.9, ceiling=0.9)
    samples = soundfile.read(out / "normalized/x.wav")[0]
    assert np.abs(samples).max() == pytest.approx(0.9 * math.sqrt(0.5), rel=0.005)


def test_error_fails_what_would_exceed_the_ceiling(clicks, tmp_path):
    outcome = normalize(stage_of(tmp_path / "out", clicks), sample_rate=24000, channels=1, clip="error")
    assert outcome.failed.keys() == {"click"}
    assert outcome.failed["click"].startswith("clipping: the true peak would be ")
    assert report(tmp_path / "out")["click"] == dict.fromkeys(COLUMNS, "") | {"id": "click", "status": "failed"}


def test_allow_writes_it_and_warns(clicks, tmp_path):
    for form in ("pcm16", "float32"):
        out = tmp_path / form
        outcome = normalize(stage_of(out, clicks), sample_rate=24000, channels=1, clip="allow", format=form)
        samples = soundfile.read(out / "normalized/click.wav")[0]
        assert outcome.failed == {}
        assert len(outcome.warnings) == 1
        assert "1 recording has a true peak above the ceiling" in outcome.warnings[0]
        row = report(out)["click"]
        assert (row["status"], row["gain_db"]) == ("over", row["gain_wanted_db"])
        assert float(row["true_peak_out"]) > 1.5
        assert (np.abs(samples).max() > 1.5) == (form == "float32")
        assert float(row["peak_rms_out"]) == pytest.approx(10 ** (slow_peak_db(samples[:, None], 24000) / 20), abs=1e-6)


def test_silence(folder, tmp_path):
    corpus = folder(silent=(np.zeros(8000), 16000), faint=(noise(8000, level=1e-10), 16000), x=(noise(8000), 16000))
    kept = normalize(stage_of(tmp_path / "keep", corpus), sample_rate=24000, channels=1, format="float32")
    assert (kept.failed, kept.done) == ({}, 3)
    assert kept.warnings == (
        "2 recordings are silent and were written without gain (normalize.silence=keep): faint, silent",
    )
    rows = report(tmp_path / "keep")
    assert [rows[name]["status"] for name in ("faint", "silent", "x")] == ["silent", "silent", "ok"]
    assert (rows["silent"]["gain_db"], rows["silent"]["peak_rms_out"]) == ("0.0000", "0.00000000")
    assert soundfile.read(tmp_path / "keep/normalized/silent.wav")[0].tolist() == [0.0] * 12000
    assert 0 < np.abs(soundfile.read(tmp_path / "keep/normalized/faint.wav")[0]).max() < 1e-8

    skipped = normalize(stage_of(tmp_path / "skip", corpus), sample_rate=24000, channels=1, silence="skip")
    assert skipped.failed == {}
    assert "2 recordings are silent and were left out" in skipped.warnings[0]
    assert [path.name for path in (tmp_path / "skip/normalized").iterdir()] == ["x.wav"]
    assert report(tmp_path / "skip")["silent"]["status"] == "skipped"
    assert all("error" in Ledger(tmp_path / "skip", "normalize", Ranks()).records[key] for key in ("faint", "silent"))

    failed = normalize(stage_of(tmp_path / "error", corpus), sample_rate=24000, channels=1, silence="error")
    assert failed.failed == {"faint": "silent_audio", "silent": "silent_audio"}


@pytest.mark.parametrize("method", ["rms", "lufs"])
def test_settings_name_what_decides_the_bytes_and_nothing_else(method):
    found = settings(sample_rate=24000, channels=1, method=method)
    assert ("target_rms" in found, "target_lufs" in found) == (method == "rms", method == "lufs")
    assert found["format_version"] == 1
    other = {"target_lufs": -3.0} if method == "rms" else {"target_rms": 0.3}
    assert settings(sample_rate=24000, channels=1, method=method, **other) == found
    assert settings(sample_rate=24000, channels=1, method=method, ceiling=0.5) != found


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method", "peak", "choose rms, lufs"),
        ("hop", "half", "choose sample, quarter"),
        ("clip", "scale", "choose limit, error, allow"),
        ("silence", "drop", "choose keep, skip, error"),
        ("format", "pcm24", "choose pcm16, float32"),
        ("target_rms", 0, "more than 0, at most 1"),
        ("target_rms", 1.5, "more than 0, at most 1"),
        ("target_rms", math.nan, "more than 0, at most 1"),
        ("target_lufs", -99, "more than -70, at most 0"),
        ("ceiling", 2, "more than 0, at most 1"),
        ("window_ms", 0, "more than 0"),
        ("window_ms", 0.01, "less than a sample at 24000 Hz"),
        ("channels", 3, "1 or 2 channels, not 3"),
    ],
)
def test_wrong_settings_say_what_is_right(sample, tmp_path, key, value, message):
    with pytest.raises(UserError, match=message):
        normalize(stage_of(tmp_path / "out", sample), **{"sample_rate": 24000, "channels": 1} | {key: value})
    assert not (tmp_path / "out").exists()


# ---- bad recordings ------------------------------------------------------------------------------------------------


def test_bad_recordings_are_failures_with_a_reason_and_stop_nothing(folder, tmp_path):
    corpus = folder(good=(noise(24000), 24000), nan=(np.full(100, np.nan), 24000), none=(np.zeros((0, 1)), 24000))
    root = tmp_path / "music"
    flac = io.BytesIO()
    soundfile.write(flac, noise(24000), 24000, format="FLAC")
    (root / "cut.flac").write_bytes(flac.getvalue()[:9000])
    (root / "empty.wav").write_bytes(b"")
    (root / "text.mp3").write_bytes(b"hello, this is no audio" * 9)
    (root / "broken.wav").symlink_to(root / "absent.wav")
    stage = stage_of(tmp_path / "out", corpus)
    outcome = normalize(stage, sample_rate=24000, channels=1)
    assert {key: reason.split(": ")[0] for key, reason in outcome.failed.items()} == {
        "broken": "unreadable_file",
        "cut": "bad_audio:unreadable",
        "empty": "bad_audio:empty",
        "nan": "bad_audio:nonfinite",
        "none": "bad_audio:empty",
        "text": "bad_audio:unreadable",
    }
    assert outcome.failed["broken"] == "unreadable_file: No such file or directory"
    assert outcome.failed["text"] == "bad_audio:unreadable: Format not recognised."
    assert [path.name for path in (tmp_path / "out/normalized").iterdir()] == ["good.wav"]
    assert [row["status"] for row in report(tmp_path / "out").values()] == [*["failed"] * 3, "ok", *["failed"] * 3]
    records = Ledger(tmp_path / "out", "normalize", Ranks()).records
    assert records["cut"].keys() == {"id", "source", "settings", "path", "error"}
    assert records["good"]["path"] == str(root / "good.wav")
    again = normalize(stage, sample_rate=24000, channels=1)
    assert (again.done, again.kept, again.failed) == (0, 1, outcome.failed)


def test_a_recording_that_breaks_later_loses_its_output(folder, tmp_path):
    corpus = folder(a=(noise(24000), 24000), b=(noise(24000), 24000))
    normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)
    (tmp_path / "music/a.wav").write_bytes(b"broken now")
    outcome = normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)
    assert (outcome.done, outcome.kept, list(outcome.failed)) == (0, 1, ["a"])
    assert [path.name for path in (tmp_path / "out/normalized").iterdir()] == ["b.wav"]


@pytest.mark.parametrize("place", ["music", "music/out", "music/deep/out"])
def test_an_output_folder_among_the_recordings_is_refused(folder, tmp_path, place):
    (tmp_path / "music/deep").mkdir(parents=True)
    corpus = folder(x=(noise(100), 24000))
    soundfile.write(tmp_path / "music/deep/take.1.wav", noise(100), 24000)
    with pytest.raises(UserError, match="lies in the folder of the recordings"):
        normalize(stage_of(tmp_path / place, corpus), sample_rate=24000, channels=1)


def test_recordings_in_the_output_folder_are_refused(folder, tmp_path):
    normalize(stage_of(tmp_path / "out", folder(x=(noise(100), 24000))), sample_rate=24000, channels=1)
    for root in ("out/normalized", "out"):
        corpus = AudioFolder(root=str(tmp_path / root))
        with pytest.raises(UserError, match="input is never modified"):
            normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)


def test_recordings_may_lie_beside_the_output(folder, tmp_path):
    corpus = folder(x=(noise(100), 24000))
    assert normalize(stage_of(tmp_path / "music-out", corpus), sample_rate=24000, channels=1).done == 1


def test_recordings_in_parquet_cells(tmp_path):
    corpus = VoiceAssistant(source="sample", root=str(tmp_path / "va"))
    corpus.prepare()
    outcome = normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)
    assert (outcome.done, outcome.failed) == (20, {})
    for item in corpus.items():
        samples = soundfile.read(tmp_path / "out/normalized" / f"{item.id}.wav", always_2d=True)[0]
        assert slow_peak_db(samples, 24000) == pytest.approx(-20, abs=0.01)


# ---- reruns --------------------------------------------------------------------------------------------------------


def test_a_rerun_does_nothing_and_a_changed_file_is_done_alone(folder, tmp_path):
    corpus = folder(a=(noise(24000), 24000), b=(noise(24000), 24000))
    out = tmp_path / "out"
    normalize(stage_of(out, corpus), sample_rate=24000, channels=1)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = normalize(stage_of(out, corpus), sample_rate=24000, channels=1)
    assert (again.done, again.kept) == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == times

    folder(b=(noise(12000), 24000))
    changed = normalize(stage_of(out, corpus), sample_rate=24000, channels=1)
    assert (changed.done, changed.kept) == (1, 1)
    assert soundfile.info(str(out / "normalized/b.wav")).frames == 12000

    (out / "normalized/a.wav").write_bytes(b"somebody else's")
    assert normalize(stage_of(out, corpus), sample_rate=24000, channels=1).done == 1
    assert normalize(stage_of(out, corpus), sample_rate=24000, channels=1, target_rms=0.2).done == 2

    (tmp_path / "music/a.wav").unlink()
    gone = normalize(stage_of(out, corpus), sample_rate=24000, channels=1, target_rms=0.2)
    assert (gone.done, gone.kept, list(report(out))) == (0, 1, ["b"])


@pytest.mark.parametrize("what", ["write", "add"])
def test_a_full_disk_is_explained(folder, tmp_path, monkeypatch, what):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    corpus = folder(a=(noise(2_000), 8000))
    monkeypatch.setattr(*((Ledger, "add") if what == "add" else (Path, "write_bytes")), refuse)
    with pytest.raises(UserError, match=r"no room to write .*out/(normalized/a\.wav|\.state)"):
        normalize(stage_of(tmp_path / "out", corpus), sample_rate=8000, channels=1)


def test_dry_run_writes_nothing(sample, tmp_path):
    outcome = normalize(stage_of(tmp_path / "out", sample, dry_run=True), sample_rate=24000, channels=1)
    assert outcome.facts["normalize_plan"] == "WRITE 12, SKIP 0"
    assert outcome.expected is not None
    assert outcome.basis == "12 recordings measured"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["pcm16", "float32"])
def test_an_interrupted_run_ends_in_the_same_bytes(sample, tmp_path, monkeypatch, form):
    options = {"sample_rate": 24000, "channels": 1, "format": form}
    normalize(stage_of(tmp_path / "whole", sample), workers=3, **options)
    time.sleep(1.1)  # a format that stores the time of day would show now
    write, written = storage.atomic_write_bytes, []

    def dying(path, data):
        if len(written) == 5:
            path.with_name(f"{path.name}.tmp-0123abcd").write_bytes(data[:100])  # what SIGKILL leaves behind
            raise SystemExit
        write(path, data)
        written.append(path)

    monkeypatch.setattr(storage, "atomic_write_bytes", dying)
    with pytest.raises(SystemExit):
        normalize(stage_of(tmp_path / "out", sample), workers=1, **options)
    assert len(written) == 5
    monkeypatch.undo()
    (tmp_path / "out/normalize.csv.tmp-0123abcd").write_bytes(b"id")
    outcome = normalize(stage_of(tmp_path / "out", sample), workers=2, **options)
    assert (outcome.done, outcome.kept) == (7, 5)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_work_and_change_nothing(sample, tmp_path, monkeypatch, world):
    normalize(stage_of(tmp_path / "one", sample), sample_rate=24000, channels=1)
    meeting = threading.Barrier(world)
    for module in (extract_normalize, ledger_module):
        monkeypatch.setattr(module, "barrier", lambda ranks: meeting.wait(60))
    outcomes = {}

    def work(rank):
        stage = stage_of(tmp_path / "many", sample, ranks=Ranks(rank, world))
        outcomes[rank] = normalize(stage, sample_rate=24000, channels=1, workers=1)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(outcomes.values()) == [outcomes[0]] * world
    assert outcomes[0].done == 12
    assert digests(tmp_path / "many") == digests(tmp_path / "one")


@pytest.mark.parametrize(("capacity", "together"), [(1, 1), (200_000, 3)])
def test_long_recordings_wait_for_each_other(folder, tmp_path, monkeypatch, capacity, together):
    corpus = folder(**{f"x{number}": (noise(24000, 2), 24000) for number in range(9)})
    at_work, most = [], []
    inner = extract_normalize.normalize_item

    def watched(item, rules):
        at_work.append(item.id)
        time.sleep(0.05)
        most.append(len(at_work))
        at_work.remove(item.id)
        return inner(item, rules)

    monkeypatch.setattr(extract_normalize, "normalize_item", watched)
    monkeypatch.setattr(extract_normalize, "_MOST_SAMPLES", capacity)
    outcome = normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1, workers=3)
    assert outcome.done == 9
    assert max(most) == together


@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="needs VOXLAB_REAL_DATA")
def test_real_recordings_reach_the_target(tmp_path):
    corpus = AudioFolder(root=os.environ["VOXLAB_REAL_DATA"], metadata=None, pattern="speech/**/*")
    outcome = normalize(stage_of(tmp_path / "out", corpus), sample_rate=24000, channels=1)
    rows = report(tmp_path / "out")
    assert len(rows) == len(corpus.items())
    assert {key for key, row in rows.items() if row["status"] == "failed"} == outcome.failed.keys()
    for key in [key for key, row in rows.items() if row["status"] == "ok"][:10]:
        samples = soundfile.read(tmp_path / "out/normalized" / f"{key}.wav", always_2d=True)[0]
        assert slow_peak_db(samples, 24000) == pytest.approx(-20, abs=0.01)
