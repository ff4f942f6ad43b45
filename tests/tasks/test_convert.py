"""task=convert on the sample corpus and on hand-made files, with tiny models, against the upstream packages."""

import json
import os
import re
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from moshi.models.loaders import get_mimi
from snac import SNAC

from tests.tiny_models import write_tiny_encodec
from tests.tiny_tts import write_tiny_tts
from voxlab import parquet, storage
from voxlab.audio import load
from voxlab.codecs.base import Codes, item_seed
from voxlab.codecs.encodec import Encodec
from voxlab.codecs.layouts import parse_tokens
from voxlab.codecs.mimi import Mimi
from voxlab.codecs.snac import Snac
from voxlab.codecs.tts import MoshiTTS
from voxlab.data.audiofolder import AudioFolder
from voxlab.data.sample.voiceassistant import SCHEMA
from voxlab.data.voiceassistant import VoiceAssistant
from voxlab.errors import TooManyBadItems, UserError
from voxlab.parallel import Ranks
from voxlab.tasks.convert.task import convert

SAMPLE_FILES = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
HOP = 2048


def tokens(groups, seed=0):
    codes = np.random.default_rng(seed).integers(0, 4096, (groups, 7))
    return " ".join("# " + " ".join(map(str, group)) for group in codes)


def write_corpus(root, answers, name="train-00000-of-00001.parquet", row_group_size=100):
    rows = [
        {"split_name": "test", "index": f"i{n}", "round": "1", "question": "q", "question_audio": None, "answer": "a"}
        for n in range(len(answers))
    ]
    table = pa.Table.from_pylist(
        [row | {"answer_snac": answer} for row, answer in zip(rows, answers, strict=True)], SCHEMA
    )
    (root / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / "data" / name, row_group_size=row_group_size)
    return VoiceAssistant(root=str(root))


@pytest.fixture
def run(tmp_path, tiny_snac, tiny_mimi):
    """Call convert with tiny codecs and the defaults of conf/task/convert.yaml."""

    def call(corpus, out="out", **changes):
        arguments = {
            "corpus": corpus,
            "source": Snac(weights=str(tiny_snac)),
            "codec": Mimi(weights=str(tiny_mimi)),
            "tts": None,
            "input": "tokens",
            "out": str(tmp_path / out),
            "audio_format": "float32",
            "partial_tail": "error",
            "max_seconds": 1800.0,
            "unit_rows": 128,
            "max_batch_seconds": None,
            "tts_batch_size": 32,
            "max_bad_fraction": 0.05,
            "restart": False,
            "seed": 0,
            "dry_run": False,
            "ranks": Ranks(),
            "run_dir": tmp_path / "run",
        }
        return convert(**(arguments | changes))

    return call


@pytest.fixture
def sample(tmp_path):
    return VoiceAssistant(source="sample", root=str(tmp_path / "va"))


def read(tmp_path, name, out="out"):
    return pq.read_table(tmp_path / out / name)


def upstream(snac_folder, mimi_folder, cell, seed=0):
    """The obvious way: the packages called directly, one row at a time."""
    snac = SNAC.from_pretrained(str(snac_folder))
    levels = parse_tokens(cell, "mini_omni").levels
    torch.manual_seed(item_seed(seed, cell))
    with torch.inference_mode():
        wav = snac.decode([torch.from_numpy(level)[None] for level in levels])
        config = json.loads((mimi_folder / "mimi_config.json").read_text())
        weights = next(mimi_folder.glob("*.safetensors"))
        mimi = get_mimi(weights, config, num_codebooks=config["quantizer"]["n_q"])
        codes = mimi.encode(wav)[0]
    return wav[0, 0].numpy(), codes.numpy()


def test_columns_equal_the_upstream_packages(run, sample, tmp_path, tiny_snac, tiny_mimi):
    summary = run(sample)
    assert summary["rows"] == 20
    assert summary["failed_rows"] == 0
    for name in SAMPLE_FILES:
        original = pq.read_table(sample.folder / name)
        table = read(tmp_path, name)
        assert table.select(original.column_names).equals(original)
        assert table.column_names == [*original.column_names, "answer_audio", "answer_mimi", "convert_error"]
        assert table.schema.field("answer_mimi").type == pa.list_(pa.list_(pa.int16()))
        for row in table.slice(0, 3).to_pylist():
            wav, codes = upstream(tiny_snac, tiny_mimi, row["answer_snac"])
            assert row["answer_audio"] == wav.astype("<f4").tobytes()
            assert np.array_equal(np.array(row["answer_mimi"]), codes)
            assert row["convert_error"] is None


def test_readers_of_the_documented_form_work(run, sample, tmp_path):
    run(sample)
    frame = pd.read_parquet(tmp_path / "out" / SAMPLE_FILES[0])
    audio = np.frombuffer(frame["answer_audio"].iloc[0], dtype=np.float32)
    groups = frame["answer_snac"].iloc[0].count("#")
    assert len(audio) == HOP * groups
    soundfile.write(tmp_path / "output.wav", audio, 24000)
    codes = frame["answer_mimi"].iloc[0]
    assert {len(book) for book in codes} == {-(-HOP * groups // 1920)}
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(tmp_path / "out" / "data"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert len(loaded) == 20
    assert loaded[0]["index"] == "0"
    assert loaded.features["question_audio"]["path"].dtype == "string"


def test_flac_is_what_the_codes_were_made_from(run, sample, tmp_path, tiny_mimi):
    run(sample, audio_format="flac")
    codec = Mimi(weights=str(tiny_mimi)).to("cpu")
    for row in read(tmp_path, SAMPLE_FILES[0]).slice(0, 3).to_pylist():
        wav, sample_rate = load(row["answer_audio"]["bytes"])
        assert sample_rate == 24000
        codes = codec.encode(wav[None], torch.tensor([wav.shape[-1]]))
        assert np.array_equal(np.array(row["answer_mimi"]), torch.cat(codes.codebooks).numpy())
    features = datasets.load_dataset(
        "parquet", data_dir=str(tmp_path / "out" / "data"), split="train", cache_dir=str(tmp_path / "c")
    ).features
    assert features["answer_audio"] == datasets.Audio(sampling_rate=24000)


@pytest.mark.parametrize("audio_format", ["float32", "none"])
def test_audio_format_and_codec_choose_the_columns(run, sample, tmp_path, audio_format):
    run(sample, audio_format=audio_format)
    new = read(tmp_path, SAMPLE_FILES[0]).column_names[7:]
    assert new == [*(["answer_audio"] if audio_format == "float32" else []), "answer_mimi", "convert_error"]


def test_unreadable_question_audio_passes_through(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [tokens(2), tokens(3)])
    path = corpus.paths()[0]
    table = pq.read_table(path)
    noise = pa.array([{"bytes": b"no audio", "path": "x"}, {"bytes": None, "path": None}], table.schema.field(4).type)
    pq.write_table(table.set_column(4, "question_audio", noise), path)
    summary = run(corpus)
    assert summary["failed_rows"] == 0
    assert "bad_audio:unreadable" in (tmp_path / "run/report.html").read_text()
    assert read(tmp_path, "data/train-00000-of-00001.parquet")["question_audio"].to_pylist() == noise.to_pylist()


def test_codec_none_writes_audio_only(run, sample, tmp_path):
    run(sample, codec=None)
    assert read(tmp_path, SAMPLE_FILES[0]).column_names[7:] == ["answer_audio", "convert_error"]


BAD_CELLS = {
    None: "null_tokens",
    "  ": "empty_tokens",
    "1 2 3": "no_hash",
    "x # 1 2 3 4 5 6 7": "leading_garbage",
    "# 1 2 a 4 5 6 7": "non_integer:a@0",
    "# 1 2 3 # 1 2 3 4 5 6 7": "bad_group:3@0",
    "# 1 2 3 4 5 6 7 # 1 2": "partial_tail:2",
    "# 1 2 3 4 5 6 4096 # 1 2 3 4 5 6 7": "out_of_range:4096@0",
    "# 1 2 3 4 5 6 -1": "out_of_range:-1@0",
}


def test_bad_rows_keep_their_place_with_a_reason(run, tmp_path):
    good = [tokens(3, 1), tokens(5, 2), tokens(2, 3) + " # 4097 4097 4097 4097 4097 4097 4097"]
    corpus = write_corpus(tmp_path / "in", [*BAD_CELLS, *good])
    with pytest.raises(TooManyBadItems, match=r"9 of 12 rows failed.*\n.*errors\.jsonl"):
        run(corpus)
    table = read(tmp_path, "data/train-00000-of-00001.parquet")
    assert table.num_rows == 12
    rows = table.to_pylist()
    assert [row["convert_error"] for row in rows[:9]] == list(BAD_CELLS.values())
    assert all(row["answer_audio"] is None and row["answer_mimi"] is None for row in rows[:9])
    assert [row["convert_error"] for row in rows[9:]] == [None, None, "note:stripped_special:1"]
    assert len(rows[11]["answer_audio"]) == 4 * HOP * 2
    errors = [json.loads(line) for line in (tmp_path / "out" / "errors.jsonl").read_text().splitlines()]
    assert [(e["row"], e["index"], e["reason"]) for e in errors] == [
        (n, f"i{n}", r) for n, r in enumerate(BAD_CELLS.values())
    ]
    # The good rows are what they are without bad neighbours.
    run(write_corpus(tmp_path / "alone", good), out="alone_out")
    alone = read(tmp_path, "data/train-00000-of-00001.parquet", "alone_out").to_pylist()
    assert [row["answer_audio"] for row in alone] == [row["answer_audio"] for row in rows[9:]]


def test_bad_rows_within_the_limit_pass(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [None, tokens(2)])
    assert run(corpus, max_bad_fraction=0.5)["failed_rows"] == 1


def test_partial_tail_can_be_dropped(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", ["# 1 2 3 4 5 6 7 # 1 2"])
    run(corpus, partial_tail="drop")
    row = read(tmp_path, "data/train-00000-of-00001.parquet").to_pylist()[0]
    assert row["convert_error"] == "note:partial_tail:2"
    assert len(row["answer_audio"]) == 4 * HOP


def test_other_types_of_key_columns_pass_through(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [tokens(2)])
    path = tmp_path / "in/data/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    table = table.set_column(1, "index", pa.array([2**40], pa.int64())).set_column(
        5, "answer", pa.array(["a"], pa.large_string())
    )
    pq.write_table(table, path)
    run(corpus)
    assert read(tmp_path, "data/train-00000-of-00001.parquet").select(table.column_names).equals(table)


def test_legacy_order_differs(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [tokens(6)])
    wrong = VoiceAssistant(root=corpus.root, layout="legacy_breadth_first")
    run(corpus)
    run(wrong, out="legacy")
    waves = [
        np.frombuffer(read(tmp_path, "data/train-00000-of-00001.parquet", out)["answer_audio"][0].as_py(), "<f4")
        for out in ("out", "legacy")
    ]
    assert np.abs(waves[0] - waves[1]).max() > 0.05


def test_codes_convert_to_any_other_codec(run, sample, tmp_path, tiny_mimi, tiny_snac):
    run(sample)
    back = VoiceAssistant(root=str(tmp_path / "out"), tokens_column="answer_mimi", output_prefix="again")
    run(back, out="back", source=Mimi(weights=str(tiny_mimi)), codec=Snac(weights=str(tiny_snac)))
    row = read(tmp_path, SAMPLE_FILES[0], "back").to_pylist()[0]
    source = Mimi(weights=str(tiny_mimi)).to("cpu")
    codes = torch.tensor(row["answer_mimi"])
    wav = np.frombuffer(row["again_audio"], "<f4")
    assert len(wav) == 1920 * codes.shape[1]
    levels = parse_tokens(row["again_snac"], "mini_omni").levels
    expected = (
        Snac(weights=str(tiny_snac))
        .to("cpu")
        .encode(torch.from_numpy(wav.copy())[None, None], torch.tensor([len(wav)]))
    )
    assert all(np.array_equal(level, book[0]) for level, book in zip(levels, expected.codebooks, strict=True))
    assert source.info.num_codebooks == len(row["answer_mimi"])


def test_text_column_is_refused_for_codecs_of_lists(run, sample, tiny_mimi):
    with pytest.raises(UserError, match=r"column answer_snac is string; needed are mimi codes(.|\n)*codec@source=snac"):
        run(sample, source=Mimi(weights=str(tiny_mimi)))


@pytest.mark.parametrize("stereo", [False, True])
def test_encodec_codes_can_be_read_back(run, sample, tmp_path, stereo):
    folder = write_tiny_encodec(tmp_path / "encodec", stereo=stereo)
    codec = Encodec(weights=str(folder), bandwidth=6.0)
    run(sample, input="audio", codec=codec)
    corpus = VoiceAssistant(root=str(tmp_path / "out"), tokens_column="question_encodec", output_prefix="back")
    run(corpus, out="back", source=codec, codec=None)
    row = read(tmp_path, SAMPLE_FILES[0], "back").to_pylist()[0]
    wav, rate = load(row["question_audio"]["bytes"], codec.info.sample_rate)
    assert rate == (48000 if stereo else 24000)
    codes = codec.encode(wav.expand(1, codec.info.channels, -1), torch.tensor([wav.shape[-1]]))
    decoded, lengths = codec.decode(codes if stereo else replace(codes, num_samples=None))
    assert np.array_equal(np.frombuffer(row["back_audio"], "<f4"), decoded[0].T.numpy().ravel())
    assert lengths[0] == decoded.shape[-1]


def test_audio_column_becomes_tokens(run, sample, tmp_path, tiny_mimi):
    run(sample, input="audio")
    row = read(tmp_path, SAMPLE_FILES[0]).to_pylist()[0]
    wav, _ = load(row["question_audio"]["bytes"], 24000)
    codes = Mimi(weights=str(tiny_mimi)).to("cpu").encode(wav[None], torch.tensor([wav.shape[-1]]))
    assert np.array_equal(np.array(row["question_mimi"]), torch.cat(codes.codebooks).numpy())
    assert "question_audio" in row
    assert "answer_audio" not in row


@pytest.fixture
def speech(tmp_path):
    folder = write_tiny_tts(tmp_path / "tts")
    return {
        "input": "text",
        "tts": MoshiTTS(
            weights=str(folder), voice="tiny.wav", voice_repo=str(folder), num_codebooks=8, dtype="float32"
        ),
        "codec": Mimi(weights=str(folder), num_codebooks=8),
    }


def write_answers(root, answers):
    corpus, path = write_corpus(root, [tokens(1)] * len(answers)), root / "data/train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(5, "answer", pa.array(answers)), path)
    return corpus


def test_text_becomes_tokens_and_audio(run, tmp_path, speech):
    corpus = write_answers(tmp_path / "in", ["It has seven days.", "Blue.", "Four, and no more.", "Yes", "A cat"])
    run(corpus, **speech)
    row = read(tmp_path, "data/train-00000-of-00001.parquet").to_pylist()[0]
    assert row["convert_error"] is None
    codes = torch.tensor(row["answer_mimi"])
    assert len(codes) == 8
    wav, _ = speech["codec"].decode(Codes(codes[:, None].unbind(), torch.tensor([codes.shape[1]])))
    assert np.array_equal(np.frombuffer(row["answer_audio"], "<f4"), wav[0, 0].numpy())
    # In small batches and units the answers are others (sampling is per batch), but all are there.
    run(corpus, out="other", tts_batch_size=2, unit_rows=3, audio_format="none", **speech)
    assert read(tmp_path, "data/train-00000-of-00001.parquet", "other")["answer_mimi"].null_count == 0


def test_text_that_cannot_be_spoken_is_listed(run, tmp_path, speech):
    run(write_answers(tmp_path / "in", ["  ", "one two", None]), max_bad_fraction=1.0, **speech)
    rows = read(tmp_path, "data/train-00000-of-00001.parquet").to_pylist()
    assert [row["convert_error"] for row in rows] == ["empty_text", None, "empty_text"]


def test_speech_model_and_codec_must_match(run, sample, speech):
    with pytest.raises(UserError, match=r"codec\.num_codebooks=8"):
        run(sample, **(speech | {"codec": Mimi(weights=speech["codec"].weights, num_codebooks=4)}))


def test_batches_give_the_rows_of_single_conversion(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [tokens(n, n) for n in (12, 3, 7, 30, 1, 9)])
    run(corpus)
    run(corpus, out="batched", max_batch_seconds=6.0)
    single, batched = (
        read(tmp_path, "data/train-00000-of-00001.parquet", out).to_pylist() for out in ("out", "batched")
    )
    for one, other in zip(single, batched, strict=True):
        wavs = [np.frombuffer(row["answer_audio"], "<f4") for row in (one, other)]
        assert np.abs(wavs[0] - wavs[1]).max() <= 1e-5
        same = np.array(one["answer_mimi"]) == np.array(other["answer_mimi"])
        assert same.mean() >= 0.999


def test_noise_follows_the_row_not_its_place(run, tmp_path):
    cells = [tokens(4, 1), tokens(6, 2), tokens(4, 1)]
    run(write_corpus(tmp_path / "a", cells))
    run(write_corpus(tmp_path / "b", cells[::-1], row_group_size=1), out="other", unit_rows=1)
    run(write_corpus(tmp_path / "a", cells), out="seeded", seed=1)
    columns = [
        read(tmp_path, "data/train-00000-of-00001.parquet", out)["answer_audio"].to_pylist()
        for out in ("out", "other", "seeded")
    ]
    assert columns[0] == columns[1][::-1]
    assert columns[0][0] == columns[0][2]
    assert columns[0][0] != columns[2][0]


def test_finished_folder_is_left_alone_and_loads_no_model(run, sample, tmp_path, tiny_snac, monkeypatch):
    run(sample)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(Snac, "to", None)
    assert run(sample)["rows_this_run"] == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "errors.jsonl", "manifest.json"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"unit_rows": 7}, "unit_rows: 128 -> 7"),
        ({"audio_format": "flac"}, "audio_format: float32 -> flac"),
    ],
)
def test_other_settings_are_refused_before_a_model_loads(run, sample, monkeypatch, change, key):
    run(sample)
    monkeypatch.setattr(Snac, "to", None)
    with pytest.raises(UserError, match=key):
        run(sample, **change)


def test_another_weight_byte_is_refused(run, sample, tiny_snac, tmp_path):
    run(sample)
    other = tmp_path / "other_snac"
    other.mkdir()
    for file in tiny_snac.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(UserError, match=r"source\.weights_id"):
        run(sample, source=Snac(weights=str(other)))


def test_restart_begins_again(run, sample, tmp_path):
    run(sample)
    run(sample, seed=1, restart=True)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["settings"]["seed"] == 1
    assert manifest["complete"]
    assert manifest["totals"]["rows"] == 20


def test_files_without_rows_are_published_too(run, tmp_path):
    corpus = write_corpus(tmp_path / "in", [])
    write_corpus(tmp_path / "in", [tokens(2)], name="train-00001.parquet")
    run(corpus)
    assert read(tmp_path, "data/train-00000-of-00001.parquet").num_rows == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text())["complete"]


def test_parts_left_behind_a_published_file_are_swept_up(run, sample, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # as if killed between publishing and deleting the parts
        patch.setattr("voxlab.parquet.delete_parts", lambda out, name: None)
        run(sample)
    (tmp_path / "out/data/train.parquet.tmp-0123abcd").write_bytes(b"half")
    run(sample)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["data", "errors.jsonl", "manifest.json"]
    assert len(list((tmp_path / "out/data").iterdir())) == 2


def test_an_input_is_never_the_target(run, tmp_path):
    write_corpus(tmp_path / "out", [tokens(1)])
    (tmp_path / "a").mkdir()
    before = (tmp_path / "out/data/train-00000-of-00001.parquet").read_bytes()
    with pytest.raises(UserError, match="never modified"):
        run(VoiceAssistant(root=str(tmp_path / "a"), pattern="../out/data/*.parquet"), restart=True)
    assert (tmp_path / "out/data/train-00000-of-00001.parquet").read_bytes() == before


def test_an_input_replaced_during_the_run_is_not_published(run, tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "in", [tokens(2, 1)])
    assemble = parquet.assemble

    def replaced(*arguments, **options):
        write_corpus(tmp_path / "in", [tokens(3, 2)])
        return assemble(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "assemble", replaced)
        with pytest.raises(TooManyBadItems, match="changed while it was read"):
            run(corpus)
    assert not (tmp_path / "out/data/train-00000-of-00001.parquet").exists()
    run(corpus)
    assert len(read(tmp_path, "data/train-00000-of-00001.parquet")["answer_audio"][0].as_py()) == 4 * HOP * 3


def test_restart_leaves_no_file_of_the_earlier_settings(run, sample, tmp_path):
    run(sample)
    run(replace(sample, num_files=1), seed=1, restart=True)
    assert [path.name for path in (tmp_path / "out/data").iterdir()] == ["train-00000-of-00002.parquet"]


def test_native_noise_is_not_resumed(run, sample, tiny_snac):
    run(sample, source=Snac(weights=str(tiny_snac), noise="native"))
    with pytest.raises(UserError, match="can't be resumed"):
        run(sample, source=Snac(weights=str(tiny_snac), noise="native"))


def test_malformed_cells_fail_alone(run, tmp_path, tiny_snac):
    good = [[1], [1, 2], [1, 2, 3, 4]]
    cells = [good, [[1], None, [1, 2, 3, 4]], [[1], [1, None], [1, 2, 3, 4]], [[1], [1, 2], [1, 2, 3]], None]
    (tmp_path / "in/data").mkdir(parents=True)
    table = pa.table({"answer_snac": pa.array(cells, pa.list_(pa.list_(pa.int64())))})
    pq.write_table(table, tmp_path / "in/data/a.parquet")
    run(VoiceAssistant(root=str(tmp_path / "in")), max_bad_fraction=1.0)
    found = read(tmp_path, "data/a.parquet")["convert_error"].to_pylist()
    assert found == [None, "malformed_codes", "malformed_codes", "ragged_codes", "null_tokens"]


def test_text_that_is_not_utf8_fails_alone(run, tmp_path):
    raw = pa.array([tokens(2).encode(), b"# \xff 1"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    (tmp_path / "in/data").mkdir(parents=True)
    pq.write_table(pa.table({"answer_snac": text}), tmp_path / "in/data/a.parquet")
    run(VoiceAssistant(root=str(tmp_path / "in")), max_bad_fraction=1.0)
    assert read(tmp_path, "data/a.parquet")["convert_error"].to_pylist() == [None, "bad_utf8"]


def test_other_forms_of_columns_pass_through(run, tmp_path):
    arrays = {"array": [0.1, 0.2], "path": "x", "sampling_rate": 16000}
    table = pa.table(
        {
            "answer_snac": pa.array([tokens(2), None]).dictionary_encode(),
            "question_audio": [arrays, None],
            "index": pa.array([1, 2], pa.timestamp("ms")),
            "digest": pa.array([b"0123", b"4567"], pa.binary(4)),
        }
    )
    (tmp_path / "in/data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "in/data/a.parquet")
    run(VoiceAssistant(root=str(tmp_path / "in")), max_bad_fraction=1.0)
    result = read(tmp_path, "data/a.parquet")
    assert result.select(table.column_names).to_pylist() == table.to_pylist()
    assert "1970-01-01" in (tmp_path / "out/errors.jsonl").read_text()


def test_a_changed_input_is_converted_again(run, tmp_path):
    run(write_corpus(tmp_path / "in", [tokens(2, 1)]))
    run(write_corpus(tmp_path / "in", [tokens(3, 2)]))
    row = read(tmp_path, "data/train-00000-of-00001.parquet").to_pylist()[0]
    assert row["answer_snac"] == tokens(3, 2)
    assert len(row["answer_audio"]) == 4 * HOP * 3


def test_bad_files_do_not_stop_the_others(run, sample, tmp_path):
    sample.prepare()
    root = sample.folder / "data"
    (root / "train-00002.parquet").write_bytes((root / "train-00000-of-00002.parquet").read_bytes()[:-20])
    pq.write_table(pa.table({"other": [1]}), root / "train-00003.parquet")
    with pytest.raises(TooManyBadItems, match="2 input files") as caught:
        run(sample)
    assert "train-00002.parquet: unreadable Parquet file" in str(caught.value)
    assert "column answer_snac missing; found ['other']" in str(caught.value)
    assert read(tmp_path, SAMPLE_FILES[1]).num_rows == 10
    assert len(sample.check()) == 2


def test_a_damaged_row_group_spares_the_rest(run, tmp_path):
    write_corpus(tmp_path / "in", [tokens(40, n) for n in range(4)], row_group_size=2)
    corpus = write_corpus(tmp_path / "in", [tokens(2)], name="train-00001.parquet")
    path = tmp_path / "in/data/train-00000-of-00001.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(7)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    with pytest.raises(TooManyBadItems, match="row group 0"):
        run(corpus)
    assert not (tmp_path / "out" / "data" / path.name).exists()
    assert read(tmp_path, "data/train-00001.parquet").num_rows == 1


def test_settings_that_cannot_work_say_what_to_type(run, sample, tmp_path):
    for changes, message in [
        ({"codec": None, "audio_format": "none"}, "nothing to write"),
        ({"input": "audio", "codec": None}, "codec=mimi"),
        ({"source": None}, "codec@source=snac"),
        ({"audio_format": "mp3"}, "float32, flac, none"),
        ({"input": "text", "codec": None}, "codec=mimi"),
        ({"out": sample.folder}, "never modified"),
        ({"unit_rows": 0}, "unit_rows=0: give 1 or more"),
        ({"max_bad_fraction": 5}, "from 0 to 1"),
        ({"corpus": replace(sample, layout="foo")}, "mini_omni"),
        ({"corpus": replace(sample, num_files=-1)}, "num_files=-1"),
        ({"input": "audio", "corpus": replace(sample, audio_column="answer")}, "data.audio_column"),
        ({"input": "text", "corpus": replace(sample, text_column="question_audio")}, "codec=mimi"),
    ]:
        with pytest.raises(UserError, match=message):
            run(changes.pop("corpus", sample), **changes)


def test_missing_input_names_the_three_sources(run, tmp_path):
    with pytest.raises(UserError, match=r"data\.root=(.|\n)*data\.source=download(.|\n)*data\.source=sample"):
        run(VoiceAssistant(root=str(tmp_path / "nowhere")))


def test_taken_column_names_are_refused(run, sample, tiny_snac):
    with pytest.raises(UserError, match=r"answer_snac already.*data\.output_prefix"):
        run(sample, codec=Snac(weights=str(tiny_snac)))


def test_foreign_output_is_not_overwritten(run, sample, tmp_path):
    target = tmp_path / "out" / SAMPLE_FILES[0]
    target.parent.mkdir(parents=True)
    pq.write_table(pa.table({"mine": [1]}), target)
    with pytest.raises(UserError, match="not written by voxlab"):
        run(sample)
    assert pq.read_table(target).column_names == ["mine"]


def test_full_disk_says_so_and_resumes(run, sample, tmp_path, monkeypatch):
    run(sample, out="whole")
    calls = []

    def full(path):
        calls.append(path)
        if len(calls) > 4:
            raise UserError(f"no room to write {path}")
        return storage.atomic_path(path)

    monkeypatch.setattr("voxlab.parquet.atomic_path", full)
    with pytest.raises(UserError, match="no room"):
        run(sample)
    monkeypatch.undo()
    summary = run(sample)
    assert 0 < summary["rows_this_run"] < 20
    for name in SAMPLE_FILES:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_dry_run_measures_a_few_rows_and_writes_nothing(run, sample, tmp_path):
    sample.prepare()
    plan = run(sample, dry_run=True)
    assert plan["rows"] == 20
    assert re.fullmatch(r"about [\d.]+ [MG]B in the end", plan["disk"])
    assert plan["audio_hours"] == pytest.approx(plan["mean_seconds"] * 20 / 3600, abs=0.01)
    assert re.fullmatch(r"about [\d.]+ s \(\d rows measured, [\d.e+]+ x real time\)", plan["time"])
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


def test_dry_run_says_why_nothing_could_be_measured(run, sample, tmp_path, monkeypatch):
    sample.prepare()

    def missing(codec, device):
        raise UserError("the weights are not there\nfetch them")

    monkeypatch.setattr(Snac, "to", missing)
    assert run(sample, dry_run=True)["time"] == "not measured: the weights are not there"


def test_dry_run_of_finished_work_has_nothing_to_do(run, sample):
    run(sample)
    assert run(sample, dry_run=True)["time"] == "about 0.0 s (everything is done)"


@pytest.mark.skipif("VOXLAB_REAL_DATA" not in os.environ, reason="needs VOXLAB_REAL_DATA")
def test_real_rows_convert(run, tmp_path, tiny_snac, tiny_mimi):
    root = os.path.join(os.environ["VOXLAB_REAL_DATA"], "voiceassistant/VoiceAssistant-400K")  # noqa: PTH118
    corpus = VoiceAssistant(root=root)
    summary = run(corpus)
    assert summary["failed_rows"] == 0
    original = pq.read_table(corpus.paths()[0])
    table = read(tmp_path, "data/train-00000-of-00001.parquet")
    assert table.select(original.column_names).equals(original)
    row = table.to_pylist()[0]
    wav, codes = upstream(tiny_snac, tiny_mimi, row["answer_snac"])
    assert row["answer_audio"] == wav.tobytes()
    assert np.array_equal(np.array(row["answer_mimi"]), codes)
    run(corpus, out="questions", input="audio")
    assert read(tmp_path, "data/train-00000-of-00001.parquet", "questions")["convert_error"].null_count == 3


def test_a_folder_of_recordings_is_a_matter_of_extract(run, tmp_path):
    with pytest.raises(UserError, match="task=extract data=audiofolder"):
        run(AudioFolder(root=str(tmp_path)))
