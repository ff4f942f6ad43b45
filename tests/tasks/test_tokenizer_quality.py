"""The quality report: a codec without loss scores perfectly, missing values stay missing, any codec will do."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests import main_process
from tests.tasks.launches import launch
from tests.tasks.pcm_codec import Pcm, StreamingPcm
from voxlab import run
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.snac import Snac
from voxlab.data.audiofolder import AudioFolder
from voxlab.errors import TooManyBadItems, UserError
from voxlab.parallel import Ranks
from voxlab.tasks.train_tokenizer import anchors as tokenizer_anchors
from voxlab.tasks.train_tokenizer import quality as tokenizer_quality
from voxlab.tasks.train_tokenizer import test_settings as tokenizer_test_settings
from voxlab.tasks.train_tokenizer.compare import compare
from voxlab.tasks.train_tokenizer.measure import Judges, prefix_counts, spread
from voxlab.tasks.train_tokenizer.speed import measure_speed
from voxlab.tasks.train_tokenizer.stability import measure_stability

ROOT = Path(__file__).parents[2]
SMALL = {"limit": None, "clips": 1, "prefix_files": 2, "stability_files": 1, "speed_repeats": 1, "speed_seconds": 1}
TOP = {"pesq_wb": 4.5, "pesq_nb": 4.4, "stoi": 0.999, "estoi": 0.99}


def voice(path: Path, seconds: float = 2.5, seed: int = 0, sample_rate: int = 16000) -> None:
    """Write syllables of a buzz with a moving pitch: PESQ and STOI take them for speech."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * time + seed)) / sample_rate
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    wav = 0.1 * (buzz + 0.1 * rng.normal(size=time.size)) * np.clip(np.sin(2 * np.pi * 2 * time), 0, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, sample_rate)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    for seed in range(4):
        voice(folder / f"speaker{seed % 2}" / f"take{seed}.wav", seed=seed)
    return folder


def measure(root, run_dir, codec=None, ranks=None, max_bad_fraction=0.0, **changes):
    return tokenizer_quality.test(
        corpus=AudioFolder(root=str(root), metadata=None),
        codec=codec or Pcm(),
        seed=0,
        max_bad_fraction=max_bad_fraction,
        dry_run=False,
        ranks=ranks or Ranks(),
        run_dir=run_dir,
        **{**SMALL, **changes},
    )


@pytest.fixture(scope="module")
def perfect(root, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("perfect")
    return measure(root, run_dir), run_dir


def read(run_dir):
    return json.loads((run_dir / "quality.json").read_text())


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_codec_without_loss_scores_perfectly(perfect):
    summary, _ = perfect
    for name, least in TOP.items():
        assert summary[name] > least, name
    assert summary["ms_mel"] == summary["mel_l1"] == summary["mse"] == summary["peak"] == 0
    assert summary["si_sdr"] > 100
    assert summary["silence_mae"] > 0.01
    assert summary["bitrate"] == 256_000
    assert summary["tokens_per_second"] == 32_000
    assert summary["entropy_bitrate"] < summary["bitrate"]


def test_missing_measures_are_missing_and_not_zero(perfect):
    summary, run_dir = perfect
    assert "wer" not in summary
    assert summary["details"]["wer"] == {"low": None, "high": None, "n": 0, "missing": {"no model given (test.asr)": 4}}
    page = (run_dir / "report.html").read_text()
    assert "no model given (test.asr): 4" in page
    assert "not built in: 4" in page


def test_the_files_of_a_report_agree(perfect):
    summary, run_dir = perfect
    quality, table = read(run_dir), rows(run_dir / "per_file.csv")
    assert [row["id"] for row in table] == quality["recordings"] == sorted(row["id"] for row in table)
    assert np.mean([float(row["stoi"]) for row in table]) == pytest.approx(summary["stoi"])
    low, high = (quality["measures"]["stoi"][end] for end in ("low", "high"))
    assert low <= summary["stoi"] <= high
    books = rows(run_dir / "codebooks.csv")
    assert [int(book["num_codes"]) for book in books] == [4 * 40000] * 2
    assert float(books[0]["ceiling"]) == pytest.approx(1)
    for name in ("codebooks", "codebook_use", "prefix_curve", "prefix_curve_stoi"):
        assert (run_dir / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    for name in quality["clips"]:
        wav, rate = soundfile.read(run_dir / "audio" / f"{name}.rec.wav")
        assert (rate, len(wav)) == (16000, 40000)


def test_the_page_shows_what_matters(perfect):
    _, run_dir = perfect
    page = (run_dir / "report.html").read_text()
    for text in (
        "Llasa",
        "mean squared error of silence",
        "no measure of quality",
        "real-time factor",
        "audio controls",
        "Codec-SUPERB",
    ):
        assert text in page, text


def test_prefixes_get_better_and_end_in_the_whole(perfect):
    _, run_dir = perfect
    prefixes = read(run_dir)["prefixes"]
    assert [point["kbit"] for point in prefixes.values()] == [128, 256]
    assert prefixes["1"]["mel_l1"] > 0.1 > prefixes["2"]["mel_l1"] == 0
    assert prefixes["1"]["stoi"] < prefixes["2"]["stoi"]


def test_stable_tokens(perfect):
    _, run_dir = perfect
    stability = read(run_dir)["stability"]
    assert stability["decoded and encoded again"]["all"] == 1
    assert stability["chunks of 1 s"] == {"all": 1, "codebooks": [1, 1]}
    assert stability["gain -6 dB"]["all"] < 0.9
    assert stability["shifted by 64 samples"]["all"] < 0.9


def test_the_same_numbers_again_and_with_more_ranks(root, tmp_path, perfect, monkeypatch):
    parts = {}

    def gather_later(ranks, value):
        parts[ranks.rank] = value
        return [parts[0], value] if ranks.rank else [value]

    settings = tokenizer_test_settings.Settings(**SMALL)
    items = tokenizer_quality.choose_items(AudioFolder(root=str(root), metadata=None).items(), None, None)
    work = tokenizer_quality._Work(items, Pcm(), Judges(), settings, 0)
    whole = tokenizer_quality._measure_all(work, Ranks())
    monkeypatch.setattr(tokenizer_quality, "gather", gather_later)
    with pytest.raises(KeyError):
        tokenizer_quality._measure_all(work, Ranks(0, 2))
    both = tokenizer_quality._measure_all(work, Ranks(1, 2))
    assert [(one.id, one.values, one.facts, one.stability) for one in both] == [
        (one.id, one.values, one.facts, one.stability) for one in whole
    ]
    measure(root, tmp_path)
    first, second = (read(folder) for folder in (perfect[1], tmp_path))
    for quality in (first, second):
        quality.pop("speed")
    assert first == second


def test_a_late_and_quiet_output_shows_in_its_measures(root, tmp_path):
    summary = measure(root, tmp_path, Pcm(gain=10 ** (-6 / 20), late=100), prefix_files=0, stability_files=0)
    table = rows(tmp_path / "per_file.csv")
    assert {row["late"] for row in table} == {"100"}
    assert summary["si_sdr"] > 60  # after alignment
    assert 0.3 < summary["mel_l1"] < 1.2
    assert not (tmp_path / "prefix_curve.png").exists()


def test_silent_short_and_broken_recordings(root, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(root, folder)
    soundfile.write(folder / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(folder / "short.wav", 0.1 * np.ones(300), 16000)
    (folder / "broken.wav").write_bytes(b"RIFF junk")
    with pytest.raises(TooManyBadItems, match=r"(?s)1 of 7 recordings.*broken: bad_audio:unreadable"):
        measure(folder, tmp_path / "strict")
    summary = measure(folder, tmp_path / "run", max_bad_fraction=0.5)
    assert (summary["recordings"], summary["failed"]) == (7, 1)
    details = summary["details"]
    assert details["pesq_wb"]["missing"] == {"the original is silent": 1, "the recording is too short": 1}
    assert details["ms_mel"]["missing"] == {"the recording is too short": 1}
    assert summary["pesq_wb"] > 4.5
    found = {row["id"]: row for row in rows(tmp_path / "run" / "per_file.csv")}
    assert found["silent"]["silent"] == "True"
    assert found["silent"]["pesq_wb"] == found["short"]["stoi"] == ""
    assert "pesq_wb: the original is silent" in found["silent"]["missing"]
    assert found["broken"]["error"] == "bad_audio:unreadable: Format not recognised."
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 6 recordings are silent" in page
    assert "Failed recordings (1)" in page


def test_an_output_that_is_no_number_is_a_failure(root, tmp_path):
    with pytest.raises(TooManyBadItems, match=r"4 of 4 recordings.*(?s:.)*NaN or infinity: its weights are damaged"):
        measure(root, tmp_path, Pcm(gain=float("nan")))


def test_silent_outputs_are_told(root, tmp_path):
    summary = measure(root, tmp_path, Pcm(gain=0.0), prefix_files=0, stability_files=0)
    assert "si_sdr" not in summary
    assert summary["details"]["si_sdr"]["missing"] == {"the output is silent": 4}
    assert summary["mae"] == pytest.approx(summary["silence_mae"])
    assert "4 of 4 outputs are silent" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", ["mimi", "encodec", "encodec48", "snac"])
def test_any_codec_of_the_house(name, root, tmp_path, tiny_mimi, tiny_snac):
    from tests.tiny_models import write_tiny_encodec

    codec = {
        "mimi": lambda: Mimi(weights=str(tiny_mimi), num_codebooks=3),
        "encodec": lambda: Encodec(weights=str(write_tiny_encodec(tmp_path / "encodec")), bandwidth=1.5),
        "encodec48": lambda: Encodec(weights=str(write_tiny_encodec(tmp_path / "48", stereo=True)), bandwidth=3.0),
        "snac": lambda: Snac(weights=str(tiny_snac)),
    }[name]()
    summary = measure(root, tmp_path / "run", codec, limit=2, prefix_files=1)
    quality = read(tmp_path / "run")
    books = codec.info.num_codebooks
    assert len(quality["codebooks"]) == books
    assert list(quality["prefixes"]) == [str(count) for count in range(1, books + 1)]
    assert quality["prefixes"][str(books)]["kbit"] == pytest.approx(codec.info.bitrate / 1000)
    assert 0 < summary["entropy_bitrate"] <= codec.info.bitrate
    assert math.isfinite(summary["ms_mel"])
    streams = isinstance(quality["speed"]["streaming"], dict)
    assert streams == (name == "mimi")
    assert "chunks of 1 s" in quality["stability"] or name == "encodec48"


def test_the_whole_prefix_is_the_codec_itself(root, tiny_snac):
    codec = Snac(weights=str(tiny_snac)).to("cpu")
    wav = 0.1 * torch.randn(1, 1, 24000, generator=torch.Generator().manual_seed(0))
    codes = codec.encode(wav, torch.tensor([24000]))
    whole, _ = codec.decode(codes, seeds=[1])
    assert torch.equal(codec.with_codebooks(3).decode(codes, seeds=[1])[0], whole)
    assert codec.info.num_codebooks == 3
    with pytest.raises(ValueError, match="4 codebooks; allowed are 1 to 3"):
        codec.with_codebooks(4)


def test_a_sweep_is_compared(root, tmp_path):
    for job in "012":
        launch(tmp_path / job, "MULTIRUN")
    measure(root, tmp_path / "0")
    assert "1 codec" in (tmp_path / "comparison.html").read_text()
    measure(root, tmp_path / "1", Pcm(gain=0.3))
    table = rows(tmp_path / "comparison.csv")
    assert [row["job"] for row in table] == ["0: pcm, 256 kbit/s", "1: pcm, 256 kbit/s"]
    assert float(table[0]["ms_mel"]) == 0 < float(table[1]["ms_mel"])
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("<audio") == 3  # one clip: the original and two codecs
    assert "measured other recordings" not in page
    measure(root, tmp_path / "2", limit=2)
    assert "measured other recordings" in (tmp_path / "comparison.html").read_text()


def test_a_damaged_job_is_named_and_the_others_compared(root, tmp_path, caplog):
    measure(root, tmp_path / "0", limit=1)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    path = tmp_path / "0" / "quality.json"
    whole = path.read_text()
    damages = {
        whole[: len(whole) // 2]: "quality.json: ",
        "[1, 2]": "not an object with keys",
        whole.replace('"ms_mel": {', '"other": {', 1): "missing or damaged: measures.ms_mel",
        whole.replace('"rates"', '"rates of before"'): "rates is 'missing'",
    }
    for text, said in damages.items():
        path.write_text(text)
        caplog.clear()
        page = compare(tmp_path)
        (warning,) = [record.message for record in caplog.records if "left out" in record.message]
        assert f"left out {path}" in warning
        assert said in warning
        assert f"delete {tmp_path / '0'} and type the same command with hydra.sweep.dir={tmp_path}" in warning
        assert [row["job"] for row in rows(tmp_path / "comparison.csv")] == ["1: pcm, 256 kbit/s"]
        assert "Left out: " in page.read_text()
    (tmp_path / "1" / "quality.json").write_text("")
    assert compare(tmp_path) is None


def test_published_figures_at_the_nearest_rate():
    near = tokenizer_anchors.nearest_anchors(1100)
    names = [anchor.codec for anchor in near[tokenizer_anchors.LLASA]]
    assert names[0] == "the original"
    assert "Mimi, 8 codebooks" in names
    assert "EnCodec 24 kHz, 8 codebooks" not in names
    assert len(near[tokenizer_anchors.SUPERB]) == 4


def test_which_recordings(root):
    items = AudioFolder(root=str(root), metadata=None, splits="folder").items()
    choose = tokenizer_test_settings.choose_items
    assert [item.id for item in choose(items, "speaker1", None)] == ["speaker1/take1", "speaker1/take3"]
    assert len(choose(items, None, None)) == 4
    assert [item.id for item in choose(items, None, 2)] == ["speaker0/take2", "speaker1/take3"]
    with pytest.raises(UserError, match=r"test\.split=dev: the corpus has speaker0, speaker1"):
        choose(items, "dev", None)


@pytest.mark.parametrize(("total", "count"), [(10, 3), (7, 7), (3, 9), (100, 1), (5, 0)])
def test_spread_positions_differ_and_are_in_range(total, count):
    found = spread(total, count)
    assert len(set(found)) == len(found) == min(total, count)
    assert all(0 <= position < total for position in found)


def test_prefixes_of_many_codebooks_are_thinned():
    assert prefix_counts(8) == list(range(1, 9))
    assert prefix_counts(32)[0] == 1
    assert prefix_counts(32)[-1] == 32
    assert len(prefix_counts(32)) <= 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, r"test\.limit=0: give a whole number of 1 or more"),
        ({"clips": 1.5}, r"test\.clips=1\.5"),
        ({"resamples": 5}, r"test\.resamples=5"),
        ({"max_seconds": 0.1}, r"test\.max_seconds=0\.1: give half a second"),
        ({"asr": "nowhere"}, r"test\.asr=nowhere: there is no such folder"),
        ({"speaker": "nowhere"}, r"test\.speaker=nowhere"),
    ],
    ids=["limit", "clips", "resamples", "max_seconds", "asr", "speaker"],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(UserError, match=message):
        tokenizer_quality.check(**change)


def test_no_codec(root, tmp_path):
    with pytest.raises(UserError, match="choose one"):
        tokenizer_quality.test(
            corpus=AudioFolder(root=str(root)),
            codec=None,
            seed=0,
            max_bad_fraction=0,
            dry_run=False,
            ranks=Ranks(),
            run_dir=tmp_path,
        )


def test_word_errors_need_transcripts_and_use_them(root, tmp_path):
    from tests.metrics.test_words import write_tiny_asr, write_tiny_speaker

    models = {"asr": str(write_tiny_asr(tmp_path / "asr")), "speaker": str(write_tiny_speaker(tmp_path / "speaker"))}
    summary = measure(root, tmp_path / "plain", prefix_files=0, stability_files=0, **models)
    assert summary["details"]["wer"]["missing"] == {"no transcript": 4}
    assert summary["speaker_similarity"] == pytest.approx(1, abs=1e-5)
    assert summary["details"]["dwer"]["n"] + sum(summary["details"]["dwer"]["missing"].values()) == 4
    assert summary.get("dwer", 0) == 0
    table = tmp_path / "texts.csv"
    lines = [f"speaker{n % 2}/take{n}.wav,{'WORDS ARE HERE' if n else ''}" for n in range(4)]
    table.write_text("\n".join(["file_name,text", *lines]) + "\n")
    corpus = AudioFolder(root=str(root), metadata=str(table))
    arguments = {"seed": 0, "max_bad_fraction": 0, "dry_run": False, "ranks": Ranks(), "run_dir": tmp_path / "text"}
    with pytest.raises(UserError, match=r"1 of 4 have none \(speaker0/take0\)"):
        tokenizer_quality.test(corpus=corpus, codec=Pcm(), **arguments, **SMALL, **models)
    table.write_text(table.read_text().replace("take0.wav,", "take0.wav,FIVE MORE WORDS OF TEXT"))
    summary = tokenizer_quality.test(corpus=corpus, codec=Pcm(), **arguments, **SMALL, **models)
    assert summary["wer"] > 0
    assert summary["details"]["wer"]["n"] == 4


def test_streaming_is_timed():
    wav = 0.1 * torch.randn(1, 1, 1600, generator=torch.Generator().manual_seed(0))
    speed = measure_speed(StreamingPcm(), wav, "cpu", 2, 3)
    assert speed["rtf"] == pytest.approx(speed["encode_rtf"] + speed["decode_rtf"])
    assert speed["batch"] == 3
    assert speed["streaming"]["latency_ms"] == 1 / 16
    assert 0 < speed["streaming"]["encode_ms"]["median"] <= speed["streaming"]["encode_ms"]["p95"]


def test_a_codec_that_forgets_chunks_is_not_stable():
    class Forgetful(Pcm):
        def encode(self, wav, lengths):
            return super().encode(wav + 1e-3 * wav.shape[-1] / 16000, lengths)

    codec, wav = Forgetful(), 0.1 * torch.randn(1, 1, 48000, generator=torch.Generator().manual_seed(0))
    codes = codec.encode(wav, torch.tensor([48000]))
    found = measure_stability(codec, wav, [book[0] for book in codes.codebooks], wav[0])
    equal, total = found["chunks of 1 s"][0]
    assert total == 3 * (16000 - 8)
    assert 0.3 < equal / total < 0.95


def test_a_dry_run_writes_nothing(root, tmp_path):
    plan = tokenizer_quality.test(
        corpus=AudioFolder(root=str(root)),
        codec=Pcm(),
        seed=0,
        max_bad_fraction=0,
        dry_run=True,
        ranks=Ranks(),
        run_dir=tmp_path / "run",
        **SMALL,
    )
    assert plan["recordings"] == 4
    assert plan["bitrate"] == 256_000
    assert not (tmp_path / "run").exists()


# ---- stage=reconstruct ---------------------------------------------------------------------------------------------


def reconstruct(source, run_dir, out=None, codec=None, **changes):
    return tokenizer_quality.reconstruct(
        codec=codec or Pcm(),
        audio=source,
        out=out,
        seed=0,
        ranks=Ranks(),
        run_dir=run_dir,
        **{"dry_run": False, **changes},
    )


def test_one_file_in_three_out(root, tmp_path):
    source = root / "speaker0" / "take0.wav"
    summary = reconstruct(str(source), tmp_path)
    assert summary["bitrate"] == 256_000
    assert summary["frames"] == 40000
    wav, rate = soundfile.read(summary["out"])
    assert rate == 16000
    assert np.abs(wav - soundfile.read(source)[0]).max() == 0
    assert Path(summary["tokens"]).name == "take0.rec.safetensors"
    assert Path(summary["spectrograms"]).read_bytes().startswith(b"\x89PNG")
    named = reconstruct(str(source), tmp_path, out=str(tmp_path / "named.wav"))
    assert Path(named["tokens"]) == tmp_path / "named.safetensors"
    folder = reconstruct(str(source), tmp_path, out=str(tmp_path / "folder"))
    assert Path(folder["out"]) == tmp_path / "folder" / "take0.rec.wav"


def test_stereo_at_another_rate_and_silence(tmp_path, caplog):
    soundfile.write(tmp_path / "in.wav", np.zeros((44100, 2)), 44100)
    with caplog.at_level("INFO"):
        summary = reconstruct(str(tmp_path / "in.wav"), tmp_path)
    assert summary["silent"] is True
    assert summary["frames"] == 16000
    for text in ("2 channels averaged", "resampled from 44100 to 16000", "is silent"):
        assert text in caplog.text


def test_files_that_can_not_be_reconstructed(tmp_path):
    with pytest.raises(UserError, match=r"audio=in\.wav"):
        reconstruct(None, tmp_path)
    with pytest.raises(UserError, match="there is no such file"):
        reconstruct(str(tmp_path / "none.wav"), tmp_path)
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    with pytest.raises(UserError, match=r"empty\.wav: bad_audio:empty.*at least one sample"):
        reconstruct(str(tmp_path / "empty.wav"), tmp_path)
    soundfile.write(tmp_path / "bad.wav", np.array([0.0, np.nan]), 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="bad_audio:nonfinite: sample 1 is NaN or infinite"):
        reconstruct(str(tmp_path / "bad.wav"), tmp_path)
    with pytest.raises(UserError, match="is the file to read"):
        reconstruct(str(tmp_path / "bad.wav"), tmp_path, out=str(tmp_path / "bad.wav"))
    with pytest.raises(UserError, match=r"out=.*x\.flac: reconstructions are WAV files"):
        reconstruct(str(tmp_path / "bad.wav"), tmp_path, out=str(tmp_path / "x.flac"))


def test_a_file_that_the_codec_refuses_is_named(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("an item of 2.5 s; allowed are 1")

    monkeypatch.setattr(Pcm, "encode", refuse)
    with pytest.raises(UserError, match=r"audio=.*take0\.wav: an item of 2\.5 s; allowed are 1"):
        reconstruct(str(root / "speaker0" / "take0.wav"), tmp_path)


def test_both_stages_through_their_configuration(composed, tmp_path, root, tiny_snac):
    words = ["task=train_tokenizer", "data=audiofolder", f"data.root={root}", "codec=snac"]
    words += [f"codec.weights={tiny_snac}", "logger=none"]
    place = {"ranks": Ranks(), "run_dir": tmp_path}
    settings = composed(*words, "stage=reconstruct", f"audio={root / 'speaker0' / 'take0.wav'}")
    assert run.build(settings.task)(**place)["out"] == str(tmp_path / "take0.rec.wav")
    small = [f"test.{key}={'null' if value is None else value}" for key, value in SMALL.items()]
    summary = run.build(composed(*words, "stage=test", *small).task)(**place)
    assert summary["recordings"] == 4
    assert summary["bitrate"] == 984.375


@pytest.mark.slow
def test_a_sweep_through_the_command_line(tmp_path, root):
    settings = {
        "task": "train_tokenizer",
        "stage": "test",
        "data": "audiofolder",
        "data.root": root,
        "codec": "encodec,snac",
        "codec.weights": "random",
        "hydra.sweep.dir": tmp_path / "sweep",
        **{f"test.{key}": value for key, value in (SMALL | {"limit": 2, "prefix_files": 1}).items()},
    }
    done = main_process.run(["-m", *(f"{key}={value}" for key, value in settings.items())], tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    codecs = [row["codec"] for row in rows(tmp_path / "sweep" / "comparison.csv")]
    assert codecs == ["encodec", "snac"]
    assert "Random weights" in (tmp_path / "sweep" / "comparison.html").read_text()
    table = rows(tmp_path / "sweep" / "sweep.csv")
    assert [row["state"] for row in table] == ["done", "done"]
    assert float(table[0]["stoi"]) == json.loads((tmp_path / "sweep" / "0" / "metrics.json").read_text())["stoi"]
