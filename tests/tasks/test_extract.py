"""task=extract through main.py, with tiny models: every stage, reruns, single stages, ranks, SIGKILL, real speech."""

import hashlib
import json
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from encodec.compress import decompress

from tests import main_process
from tests.tiny_models import write_tiny_encodec
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.token_files import read_tokens
from voxlab.sidecars import schema
from voxlab.tasks.extract import summary

ROOT = Path(__file__).parents[2]
KILLS = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_encodec(tmp_path_factory.mktemp("models") / "encodec")


@pytest.fixture(scope="module")
def settings(weights, tmp_path_factory):
    """The sample corpus, tiny EnCodec, two producers."""
    return {
        "task": "extract",
        "data": "audiofolder",
        "data.source": "sample",
        "data.root": tmp_path_factory.mktemp("corpus") / "audio",
        "codec": "encodec",
        "codec.weights": weights,
        "producers": "[lin,from_filename]",
    }


def command(settings, out, *extra):
    words = [f"{key}={value}" for key, value in settings.items()]
    return [*words, f"out={out}", *extra]


def run(settings, out, *extra, world=1, code=0):
    """Run main.py in a folder beside `out` and return what it printed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    done = main_process.run(command(settings, out, *extra), out.parent, world=world)
    assert done.returncode == code, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def digests(out):
    """Return the hash of every file of the output, besides ledgers."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".state" not in path.parts
    }


def times(out):
    return {path.relative_to(out): path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}


def count(out):
    return sum(len(names) for _, _, names in os.walk(out))


@pytest.fixture(scope="module")
def quiet(settings, tmp_path_factory):
    """One uninterrupted run, with its output."""
    out = tmp_path_factory.mktemp("quiet") / "out"
    printed = run(settings, out)
    return out, printed


def test_the_data_set_is_complete(quiet):
    out, printed = quiet
    data = datasets.load_from_disk(str(out / "dataset"))
    rows = [row for split in data.values() for row in split]
    assert len(rows) == len(list((out / "normalized").rglob("*.wav"))) >= 12
    for row in rows:
        tokens = read_tokens(out / "dataset" / row["audio"])
        sidecar = schema.read(*schema.paths_beside(out / "dataset" / row["audio"]))
        assert tokens.num_frames == sidecar.frames == row["frames"]
        assert "position" in sidecar.names
    assert (out / "errors.jsonl").read_text() == ""
    assert json.loads((out / "audit.json").read_text())["findings"] == []
    assert "report" in printed


def test_the_advice_on_mixed_columns_ends_in_a_clean_audit(weights, tmp_path):
    (tmp_path / "in").mkdir()
    for number, name in enumerate(("a_pitch_60_amp_.5", "b_pitch_62_amp_.5", "tone")):
        tone = 0.3 * np.sin((0.05 + 0.01 * number) * np.arange(9000))
        soundfile.write(tmp_path / "in" / f"{name}.wav", tone, 24000)
    settings = {"task": "extract", "data.root": "in", "codec.weights": weights}
    made = ("producers=[lin,from_filename]",)
    failed = run(settings, tmp_path / "out", *made, code=1)
    assert "mixed_columns: without amp, pitch, unlike most: tone.ecdc" in failed
    (key, columns) = re.findall(r"drop the producer and add (sidecars\.remove)='(\S+)'\)", failed)[0]
    assert columns == "[amp,pitch]"
    run(settings, tmp_path / "out", *made, f"{key}={columns}")
    run(settings, tmp_path / "out", *made, code=1)  # the producer is still there, and makes them again
    run(settings, tmp_path / "out", "producers=[lin]", f"{key}={columns}")
    run(settings, tmp_path / "out", "producers=[lin]")
    assert json.loads((tmp_path / "out/audit.json").read_text())["findings"] == []
    for path in (tmp_path / "out/tokens").glob("*.cond.json"):
        assert json.loads(path.read_text())["names"] == ["position"]


def test_the_report_says_of_each_clip_what_it_is(quiet):
    out, printed = quiet
    page = Path(re.findall(r"\S+/report\.html", printed)[-1]).read_text()
    cards = re.findall(r"<article>.*?</article>", page)
    rows = {row["id"]: row for split in datasets.load_from_disk(str(out / "dataset")).values() for row in split}
    assert len(cards) == 4
    for card in cards:
        row = rows[re.sub(r"<.*?>", "", re.findall(r"<h3>(.*?)</h3>", card)[0])]
        (note,) = re.findall(r'<p class="transcript">(.*?)</p>', card)
        assert f"{row['frames']} frames of tokens" in note
        assert re.search(r"; gain [+\u2212]\d+\.\d dB, loudest part from \u2212\d+\.\d dB to \u221220\.0 dB; ", note)
    assert len({note for card in cards for note in re.findall(r'<p class="transcript">.*?</p>', card)}) == 4


def test_constant_columns_of_a_clip_are_told_apart():
    columns = {"position": np.array([0.0, 1.0, 2.0]), "pitch": np.full(3, 57.0), "amp": np.zeros(3)}
    chart = summary._draw_columns(columns, np.arange(3.0))
    lines = chart.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["position 0 to 2", "pitch = 57", "amp = 0"]
    assert [line.get_linestyle() for line in lines] == ["-", "--", "--"]
    heights = [set(np.asarray(line.get_ydata()).tolist()) for line in lines[1:]]
    assert heights == [{1 / 3}, {2 / 3}]


def test_token_files_are_what_the_codec_makes_of_the_normalized_audio(quiet, weights):
    from voxlab import audio

    out, _ = quiet
    codec = Encodec(weights=str(weights)).to("cpu")
    for path in sorted((out / "normalized").rglob("*.wav"))[:4]:
        wav, _ = audio.load(path)
        expected = codec.encode(wav[None], torch.tensor([wav.shape[-1]]))
        name = path.relative_to(out / "normalized").as_posix().removesuffix(".wav") + ".ecdc"
        found = read_tokens(out / "tokens" / name).codes
        assert all(torch.equal(a, b) for a, b in zip(found.codebooks, expected.codebooks, strict=True))
        assert int(found.num_samples[0]) == wav.shape[-1]


def test_the_encodec_package_decodes_the_token_files(quiet, weights, monkeypatch):
    out, _ = quiet
    codec = Encodec(weights=str(weights), backend="encodec").to("cpu")
    module = sys.modules["encodec.compress"]
    monkeypatch.setitem(module.MODELS, "encodec_24khz", lambda: codec._model)
    path = min((out / "tokens").rglob("*.ecdc"), key=lambda path: path.stat().st_size)
    wav, sample_rate = decompress(path.read_bytes())
    expected, lengths = codec.decode(read_tokens(path).codes)
    assert sample_rate == 24000
    torch.testing.assert_close(wav, expected[0, :, : int(lengths[0])], atol=1e-6, rtol=0)


def test_a_rerun_touches_nothing(quiet, settings):
    out, _ = quiet
    before = times(out)
    printed = run(settings, out)
    assert times(out) == before
    assert "up to date" in printed


def test_stage_by_stage_gives_the_same_bytes(quiet, settings, tmp_path):
    out = tmp_path / "out"
    for stages in ("[normalize]", "[encode]", "[sidecars]", "[build,audit]"):
        run(settings, out, f"stages={stages}")
    assert digests(out) == digests(quiet[0])


def test_one_stage_again_touches_only_what_changed(quiet, settings, tmp_path):
    corpus, out = tmp_path / "audio", tmp_path / "out"
    shutil.copytree(f"{settings['data.root']}-sample", corpus)
    own = settings | {"data.source": "disk", "data.root": corpus}
    run(own, out)
    before = times(out)
    changed = sorted(path for path in corpus.rglob("*.wav"))[0]
    other = sorted(path for path in corpus.rglob("*.wav"))[1]
    shutil.copyfile(other, changed)
    run(own, out, "stages=[normalize,encode,sidecars]")
    touched = {path.as_posix() for path, time_ns in times(out).items() if before.get(path) != time_ns}
    name = changed.relative_to(corpus).as_posix().removesuffix(".wav")
    files = [f"normalized/{name}.wav", *(f"tokens/{name}{end}" for end in (".ecdc", ".cond.npy", ".cond.json"))]
    assert {path for path in touched if path.startswith(("normalized", "tokens"))} == set(files)


def test_other_settings_are_refused_and_overwrite_accepts_them(quiet, settings, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet[0], out)
    before = digests(out)
    printed = run(settings, out, "codec.bandwidth=3.0", code=2)
    assert "bandwidth: 6.0 -> 3.0" in printed
    assert "overwrite=true" in printed
    assert digests(out) == before
    run(settings, out, "codec.bandwidth=3.0", "overwrite=true")
    assert {read_tokens(path).num_codebooks for path in (out / "tokens").rglob("*.ecdc")} == {4}


def test_a_dry_run_writes_nothing(settings, quiet, tmp_path):
    out = tmp_path / "out"
    printed = run(settings, out, "dry_run=true")
    assert not out.exists()
    assert "items: " in printed
    assert "nothing to do" not in printed
    assert "encode audio: " in printed
    assert "normalize disk: about " in printed


def test_missing_and_orphaned_tokens_are_listed(settings, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet[0], out)
    first = sorted((out / "tokens").rglob("*.ecdc"))[0]
    first.rename(first.with_name("stray.ecdc"))
    printed = run(settings, out, "list_missing=true")
    assert first.relative_to(out / "tokens").as_posix().removesuffix(".ecdc") in printed
    assert "stray.ecdc" in printed


def test_an_audit_alone_says_that_it_knows_no_recordings(settings, quiet, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(quiet[0], out)
    first = sorted((out / "tokens").rglob("*.ecdc"))[0]
    stray = first.with_name("stray.ecdc")
    for old, new in zip((first, *schema.paths_beside(first)), (stray, *schema.paths_beside(stray)), strict=True):
        shutil.copy(old, new)
    alone = run(settings, out, "stages=[audit]")
    assert re.search(r"stray\.ecdc: \w+_mismatch: not listed: .*the recordings were not looked at", alone)
    told = run(settings, out, "stages=[build,audit]", code=1)
    assert re.search(r"orphan_tokens: its recording is gone: .*stray\.ecdc", told)


@pytest.mark.slow
def test_two_ranks_write_the_bytes_of_one(quiet, settings, tmp_path):
    out = tmp_path / "out"
    run(settings, out, world=2)
    assert digests(out) == digests(quiet[0])


@pytest.mark.slow
def test_killed_and_resumed_gives_the_bytes_of_a_quiet_run(quiet, settings, tmp_path):
    out, rng, kills = tmp_path / "out", random.Random(0), 0
    for _ in range(KILLS):
        before, deadline = count(out), time.monotonic() + 60
        process = main_process.start(command(settings, out), tmp_path)
        while process.is_alive() and count(out) <= before + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        if not process.is_alive():
            break
        main_process.kill(process)
        kills += 1
    assert kills >= 3
    run(settings, out)
    assert digests(out) == digests(quiet[0])
    assert list(out.rglob("*.tmp-*")) == []


@pytest.mark.slow
@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="set VOXLAB_REAL_DATA to the folder of real samples")
def test_real_speech_of_mixed_formats_with_one_corrupt_file(weights, tmp_path):
    corpus, out = tmp_path / "speech", tmp_path / "out"
    shutil.copytree(Path(os.environ["VOXLAB_REAL_DATA"]) / "speech", corpus)
    whole = (corpus / "mfa" / "mfa_words.flac").read_bytes()
    (corpus / "mfa" / "corrupt.flac").write_bytes(whole[:100] + bytes(2000) + whole[2100:5000])
    settings = {
        "task": "extract",
        "data.root": corpus,
        "codec.weights": weights,
        "producers": "[lin,from_audio]",
        "producers.from_audio.features": "[rms_db]",
    }
    run(settings, out)
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["id"]) for line in errors] == [("normalize", "mfa/corrupt")]
    assert errors[0]["reason"].startswith("bad_audio")
    recordings = [path for path in corpus.rglob("*") if path.suffix in (".wav", ".flac", ".mp3")]
    data = datasets.load_from_disk(str(out / "dataset"))
    assert sum(map(len, data.values())) == len(recordings) - 1
    assert json.loads((out / "audit.json").read_text())["findings"] == []
