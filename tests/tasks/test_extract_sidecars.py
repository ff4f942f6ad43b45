"""Stage sidecars: what is made, kept, made again and refused; interruption, ranks and the manifests."""

import csv
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from tests.token_corpus import ENCODEC, MIMI, SNAC, TokenCorpus
from voxlab import ledger
from voxlab.audio import encode_wav, load, resample
from voxlab.codecs import token_files
from voxlab.data.items import AudioItem
from voxlab.errors import UserError
from voxlab.ledger import Ledger
from voxlab.parallel import Ranks
from voxlab.sidecars import schema
from voxlab.sidecars.producers.basic import const, from_filename, lin
from voxlab.sidecars.producers.python import python
from voxlab.sidecars.producers.sound import from_audio
from voxlab.sidecars.producers.table import from_table
from voxlab.tasks.extract import sidecars as extract_sidecars
from voxlab.tasks.extract.sidecars import sidecars
from voxlab.tasks.extract.stage import Stage

PATTERN = r"_(?P<name>[A-Za-z]\w*?)_(?P<value>-?(?:\d+\.?\d*|\.\d+))(?=_|$)"
LIN, NAMES = partial(lin, columns=None), partial(from_filename, pattern=PATTERN)
IDS = ("plain", "s1/tone_pitch_64.00_amp_.75", "s1/tone_pitch_65")


@pytest.fixture
def corpus(tmp_path):
    """Three items with tokens and no sidecars."""
    made = TokenCorpus(tmp_path / "out")
    for n, name in enumerate(IDS):
        made.add(name, frames=20 + n, columns=None)
    return made


def run(corpus, producers=None, stage=None, **changes):
    settings = {"info": corpus.info, "container": corpus.container, "mode": "append", "dtype": "float16", "remove": []}
    return sidecars(stage or corpus.stage(), producers=producers or {}, **settings | changes)


def sidecar(corpus, name=IDS[1]):
    return schema.read(corpus.path(name, ".cond.npy"), corpus.path(name, ".cond.json"))


def columns(corpus, name=IDS[1]):
    found = sidecar(corpus, name)
    return {column: float(found.column(column)[-1]) for column in found.names}


def contents(out):
    """Every file outside the ledgers, with its bytes."""
    paths = [path for path in sorted(out.rglob("*")) if path.is_file() and ".state" not in path.parts]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def change_times(out, stamp):
    for path in out.rglob("*.cond.*"):
        os.utime(path, ns=(stamp, stamp))


def counting(calls, made=None):
    """A producer that notes for which items it was called."""

    def produce(item, times):
        calls.append(item.id)
        return {"count": np.full(len(times), 1.0)} if made is None else made(item, times)

    return produce


@pytest.mark.parametrize("dtype", schema.DTYPES)
def test_without_producers_there_are_skeletons(corpus, dtype):
    outcome = run(corpus, dtype=dtype)
    assert (outcome.done, outcome.kept, outcome.failed, outcome.warnings) == (3, 0, {}, ())
    for n, name in enumerate(IDS):
        found = sidecar(corpus, name)
        assert (found.values.shape, found.dtype, found.frame_rate) == ((20 + n, 0), dtype, 75.0)
        record = Ledger(corpus.out, "encode", Ranks()).records[name]
        assert found.tokens_sha256 == record["sha256"]


def test_producers_make_columns(corpus):
    outcome = run(corpus, {"lin": LIN, "from_filename": NAMES})
    assert columns(corpus) == {"position": 1, "pitch": 64, "amp": 0.75}
    assert columns(corpus, IDS[0]) == {"position": 1}
    np.testing.assert_array_equal(sidecar(corpus).column("position"), np.linspace(0, 1, 21).astype(np.float16))
    assert outcome.warnings == (
        "sidecars differ in their columns: most have ['position'], others have more or fewer: "
        "2 items (s1/tone_pitch_64.00_amp_.75, s1/tone_pitch_65)",
        "the producer from_filename found nothing for 1 item (plain)",
    )
    made = [(entry["name"], entry["args"], entry["columns"]) for entry in sidecar(corpus).producers]
    assert made == [
        ("lin", {"columns": None}, ["position"]),
        ("from_filename", {"pattern": PATTERN}, ["pitch", "amp"]),
    ]


@pytest.mark.parametrize("info", [ENCODEC, MIMI, SNAC], ids=lambda info: info.name)
def test_times_are_the_middles_of_the_tokens_frames(tmp_path, info):
    corpus = TokenCorpus(tmp_path / "out", info).add("a", frames=8, columns=None)
    run(corpus, {"time": lambda item, times: {"time": times}}, dtype="float32")
    found = sidecar(corpus, "a")
    np.testing.assert_allclose(found.column("time"), (np.arange(8) + 0.5) / info.frame_rate, rtol=1e-6)
    assert found.frame_rate == info.frame_rate


def test_a_producer_sees_the_item(corpus):
    seen = {}
    corpus.add("x", frames=9, columns=None, speaker="ann")
    run(corpus, {"look": lambda item, times: seen.update({item.id: item}) or {}})
    item = seen["x"]
    assert (item.frames, item.num_samples, item.sample_rate, item.frame_rate) == (9, 9 * 320 - 3, 24000, 75.0)
    assert (item.tokens, item.source, item.metadata) == (corpus.path("x", ".ecdc"), Path("x.wav"), {"speaker": "ann"})
    assert item.duration == pytest.approx(0.12, abs=2e-4)


def test_a_rerun_leaves_everything_alone(corpus):
    calls = []
    run(corpus, {"lin": LIN, "count": counting(calls)})
    change_times(corpus.out, 1)
    run(corpus, {"lin": LIN, "count": counting(calls)})  # the time of change of all files differs
    assert calls.count("plain") == 2
    stamps = {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*") if path.is_file()}
    assert {stamp for path, stamp in stamps.items() if ".cond." in path.name} == {1}  # yet the bytes are the same
    outcome = run(corpus, {"lin": LIN, "count": counting(calls)})
    assert (outcome.done, outcome.kept) == (0, 3)
    assert {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*") if path.is_file()} == stamps
    assert calls.count("plain") == 2


def test_only_what_is_new_is_computed(corpus):
    first, second = [], []
    one = counting(first)
    run(corpus, {"one": one})
    outcome = run(corpus, {"one": one, "two": counting(second, lambda item, times: {"t": times})})
    assert (len(first), len(second), outcome.done) == (3, 3, 3)
    assert list(columns(corpus)) == ["count", "t"]
    run(corpus, {"one": one}, mode="overwrite")
    assert len(first) == 3
    run(corpus, {"one": one}, dtype="float32")
    assert len(first) == 6
    assert sidecar(corpus).dtype == "float32"


def test_what_a_producer_looked_for_makes_its_sidecar_anew(corpus, tmp_path):
    """Found, missing, changed: only the item that it belongs to."""
    for name in IDS[:2]:
        path = tmp_path / f"tables/{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a\n1\n")
    table = {"from_table": partial(from_table, suffix=".csv", folder=str(tmp_path / "tables"))}
    outcome = run(corpus, table)
    assert list(outcome.failed) == [IDS[2]]
    assert outcome.failed[IDS[2]].startswith("missing_companion: s1/tone_pitch_65 has no ")
    assert (run(corpus, table).done, run(corpus, table).failed) == (0, outcome.failed)
    (tmp_path / f"tables/{IDS[2]}.csv").write_text("a\n3\n")
    outcome = run(corpus, table)
    assert (outcome.done, outcome.failed, columns(corpus, IDS[2])) == (1, {}, {"a": 3})
    (tmp_path / f"tables/{IDS[1]}.csv").write_text("a\n22\n")
    assert (run(corpus, table).done, columns(corpus)) == (1, {"a": 22})


def test_changed_metadata_and_tables_count(corpus, tmp_path):
    producer = {"from_table": partial(from_table, columns=["a"])}
    corpus.items = {name: AudioItem(name, Path(f"{name}.wav"), "train", "", {"a": 1}) for name in IDS}
    run(corpus, producer)
    assert columns(corpus) == {"a": 1}
    corpus.items["plain"] = AudioItem("plain", Path("plain.wav"), "train", "", {"a": 5, "odd": float("nan")})
    assert run(corpus, producer).failed == {}
    assert columns(corpus, "plain")["a"] == 5
    table = tmp_path / "all.csv"
    producer = {"table": partial(from_table, file=str(table))}
    for value in (7, 8):
        table.write_text("file_name,b\n" + "".join(f"{name}.wav,{value}\n" for name in IDS))
        assert (run(corpus, producer).done, columns(corpus)["b"]) == (3, value)
    assert run(corpus, producer).done == 0


def test_append_keeps_and_overwrite_replaces(corpus):
    run(corpus, {"const": partial(const, columns={"a": 1, "b": 2})})
    outcome = run(corpus, {"const": partial(const, columns={"b": 5, "c": 6})})
    assert columns(corpus) == {"a": 1, "b": 2, "c": 6}
    (warning,) = outcome.warnings
    assert warning.startswith("columns b were made by other settings and are kept in 3 items (plain, ")
    assert run(corpus, {"const": partial(const, columns={"b": 5, "c": 6})}).warnings == outcome.warnings
    outcome = run(corpus, {"const": partial(const, columns={"b": 5, "c": 6})}, mode="overwrite")
    assert columns(corpus) == {"b": 5, "c": 6}
    (warning,) = outcome.warnings
    assert warning.startswith("columns a belonged to other tokens, or no producer makes them now: dropped from 3 items")


def test_columns_are_removed(corpus):
    run(corpus, {"const": partial(const, columns={"a": 1, "b": 2})})
    outcome = run(corpus, remove=["a", "typo"])
    assert columns(corpus) == {"b": 2}
    assert outcome.warnings == ("sidecars.remove: no sidecar had a column 'typo'",)
    assert run(corpus, remove=["a", "typo"]).warnings == outcome.warnings


def test_new_tokens_need_new_columns(corpus):
    producers = {"const": partial(const, columns={"a": 1}), "lin": LIN}
    run(corpus, producers)
    corpus.add("plain", frames=33, columns=None)
    outcome = run(corpus, producers)
    assert (outcome.done, outcome.failed, sidecar(corpus, "plain").frames) == (1, {}, 33)
    corpus.add("plain", frames=11, columns=None)
    outcome = run(corpus, {"lin": LIN})
    assert outcome.failed == {
        "plain": "stale_sidecar: plain.cond.npy: columns a belong to other tokens; name their producers again "
        "(const), or drop them with sidecars.mode=overwrite"
    }
    outcome = run(corpus, {"lin": LIN}, mode="overwrite")
    assert (outcome.failed, columns(corpus, "plain")) == ({}, {"position": 1})
    warning = "columns a belonged to other tokens, or no producer makes them now: dropped from 1 item (plain)"
    assert warning in outcome.warnings


def test_a_bad_item_stops_no_other(corpus):
    def produce(item, times):
        if item.id == "plain":
            raise RuntimeError("out of luck")
        return {"big": np.full(len(times), 70000.0 if item.id == IDS[2] else 1.0)}

    outcome = run(corpus, {"odd": produce})
    line = produce.__code__.co_firstlineno + 2
    assert outcome.failed == {
        "plain": f"producer_failed: odd: RuntimeError: out of luck (test_extract_sidecars.py, line {line})",
        IDS[2]: "overflow: tone_pitch_65.cond.npy: column 'big' is 70000.0 at frame 0; float16 ends at 65504; "
        "set sidecars.dtype=float32 or scale the column",
    }
    assert columns(corpus) == {"big": 1}
    assert not corpus.path("plain", ".cond.npy").exists()
    assert run(corpus, {"odd": produce}).done == 0
    record = Ledger(corpus.out, "sidecars", Ranks()).records["plain"]
    assert (record["path"], record["error"]) == ("plain.wav", outcome.failed["plain"])


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda item, times: None, "producer_failed: odd returned a NoneType; needs {name: (T,) array}"),
        (lambda item, times: {"a": times[:-1]}, r"bad_column: plain.cond.npy: column 'a' has shape (19,); needs (20,)"),
        (
            lambda item, times: {"position": times},
            "name_collision: plain.cond.npy: column 'position' comes from lin and odd",
        ),
        (lambda item, times: {"": times}, "bad_name: plain.cond.npy: '' can't name a column; needs visible characters"),
    ],
    ids=["nothing", "short", "collision", "name"],
)
def test_what_a_producer_gives_is_checked(corpus, made, reason):
    assert run(corpus, {"lin": LIN, "odd": made}).failed["plain"] == reason


def test_wrong_settings_stop_the_run(corpus):
    with pytest.raises(UserError, match=r"producers\.const\.columns={}: give a number"):
        run(corpus, {"const": partial(const, columns=None)})
    with pytest.raises(UserError, match=r"sidecars\.mode=merge, .*: mode is append or overwrite"):
        run(corpus, mode="merge")
    with pytest.raises(UserError, match="dtype is float16 or float32"):
        run(corpus, dtype="int8")
    with pytest.raises(UserError, match=r"producers\.lin is \{'columns': None\}, no function"):
        run(corpus, {"lin": {"columns": None}})
    with pytest.raises(UserError, match=r"producers\.lin: .* must be plain values"):
        run(corpus, {"lin": partial(lin, columns={"a": {1, 2}})})


def test_items_without_tokens_are_left_out(corpus):
    corpus.fail("encode", "broken")
    corpus.items["new"] = AudioItem("new", Path("new.wav"), "train", "")
    outcome = run(corpus, {"lin": LIN})
    assert (outcome.done, outcome.failed) == (3, {})


def test_a_dry_run_counts_and_writes_nothing(corpus):
    corpus.items["new"] = AudioItem("new", Path("new.wav"), "train", "")
    corpus.fail("encode", "broken")
    before = contents(corpus.out)
    outcome = run(corpus, {"lin": LIN}, corpus.stage(dry_run=True))
    assert outcome.facts == {"sidecars to write": 4, "sidecars to keep": 0}
    assert contents(corpus.out) == before
    run(corpus, {"lin": LIN})
    assert run(corpus, {"lin": LIN}, corpus.stage(dry_run=True)).facts["sidecars to keep"] == 3


def test_sidecars_of_the_earlier_project_are_taken_over(corpus):
    values = np.arange(20, dtype=np.float16)[:, None]
    np.save(corpus.path("plain", ".cond.npy"), values)
    norm = {"min": [], "max": [], "mean": [], "std": []}
    content = {"schema_version": 1, "fps": 75, "source_rate": 75, "names": ["tempo"], "norm": norm}
    corpus.path("plain", ".cond.json").write_text(json.dumps(content))
    assert run(corpus, {"lin": LIN}).failed == {}
    found = sidecar(corpus, "plain")
    np.testing.assert_array_equal(found.column("tempo"), values[:, 0])
    assert (found.names, found.stats["max"]) == (("position", "tempo"), [1, 19])


def test_a_broken_sidecar_is_named_or_made_anew(corpus):
    corpus.path("plain", ".cond.npy").write_bytes(b"x")
    outcome = run(corpus, {"lin": LIN})
    assert outcome.failed["plain"].startswith("bad_sidecar: plain.cond.npy is not a NumPy array file")
    assert outcome.failed["plain"].endswith("delete the sidecar, or let sidecars.mode=overwrite make it anew")
    assert run(corpus, {"lin": LIN}, mode="overwrite").failed == {}
    assert columns(corpus, "plain") == {"position": 1}


def test_tokens_that_are_gone_are_named(corpus):
    corpus.path("plain", ".ecdc").unlink()
    assert run(corpus, {"lin": LIN}).failed["plain"].startswith("unreadable: FileNotFoundError")


@pytest.mark.parametrize("container", ["torch", "safetensors"])
def test_other_containers(tmp_path, container):
    corpus = TokenCorpus(tmp_path / "out", container=container).add("a_pitch_3.5", frames=6, columns=None)
    run(corpus, {"names": NAMES})
    assert columns(corpus, "a_pitch_3.5") == {"pitch": 3.5}
    (line,) = csv.DictReader((corpus.out / "manifest.csv").open())
    assert line["rel_ecdc"] == f"tokens/a_pitch_3.5{token_files.suffix(ENCODEC, container)}"


# ---- the audio that producers hear ----------------------------------------------------------------------------------


@pytest.fixture
def recording(tmp_path):
    """One stereo recording of 48 kHz with its tokens, 30 frames at 24 kHz."""
    corpus = TokenCorpus(tmp_path / "out").add("a", frames=30, columns=None)
    wav = np.random.default_rng(0).normal(0, 0.1, ((30 * 320 - 3) * 2, 2))
    soundfile.write(tmp_path / "a.wav", wav, 48000)
    corpus.items["a"] = AudioItem("a", tmp_path / "a.wav", "train", "")
    return corpus


HEAR = {"from_audio": partial(from_audio, features=["rms_db"])}


def rms_db(wav):
    blocks = np.pad(wav, (0, 3)).reshape(30, 320).astype(np.float64)
    return [20 * np.log10(np.sqrt(np.mean(block**2) + 1e-12) + 1e-12) for block in blocks]


def test_the_original_is_heard_at_the_codecs_rate(recording, tmp_path):
    assert run(recording, HEAR, dtype="float32").failed == {}
    wav, rate = load(tmp_path / "a.wav")
    mono = resample(wav.mean(0, keepdim=True), rate, 24000)[0].numpy()
    np.testing.assert_allclose(sidecar(recording, "a").column("rms_db"), rms_db(mono), rtol=1e-4)
    assert sidecar(recording, "a").units == ("dB",)


def test_the_normalized_recording_comes_first(recording):
    wav = torch.full((1, 30 * 320 - 3), 0.25)
    (recording.out / "normalized").mkdir()
    (recording.out / "normalized/a.wav").write_bytes(encode_wav(wav, 24000))
    run(recording, HEAR, dtype="float32")
    np.testing.assert_allclose(sidecar(recording, "a").column("rms_db")[:29], 20 * np.log10(0.25), atol=1e-3)


def test_audio_that_does_not_fit_its_tokens_is_named(recording, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(4800), 48000)
    assert (
        run(recording, HEAR)
        .failed["a"]
        .startswith("length_mismatch: the audio has 2400 samples at 24000 Hz, the token")
    )
    (tmp_path / "a.wav").unlink()
    assert run(recording, {"hear": HEAR["from_audio"]}).failed["a"].startswith("producer_failed: hear: FileNotFound")


# ---- interruption and ranks -----------------------------------------------------------------------------------------


def grown(out, count=6):
    corpus = TokenCorpus(out)
    for n in range(count):
        corpus.add(f"s{n % 3}/take_pitch_{n}", frames=10 + n, columns=None)
    run(corpus, {"lin": LIN})  # sidecars that the next run changes
    return corpus


FULL = {"lin": partial(lin, columns={"position": [1, 0], "gain": [0, 2]}), "names": NAMES}


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 10, 16])
def test_a_run_that_was_killed_is_finished_by_the_next(tmp_path, monkeypatch, steps):
    """Stopped after so many changes to the folder, at one worker; the bytes equal those of an undisturbed run."""
    whole = grown(tmp_path / "whole")
    run(whole, FULL, mode="overwrite")
    corpus = grown(tmp_path / "killed")
    left = [steps]

    def counted(change):
        def call(*args):
            if not left[0]:
                raise Killed
            left[0] -= 1
            return change(*args)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(schema, "atomic_write_bytes", counted(schema.atomic_write_bytes))
        patch.setattr(Ledger, "add", counted(Ledger.add))
        with pytest.raises(Killed):
            run(corpus, FULL, mode="overwrite", workers=1)
    assert contents(corpus.out) != contents(whole.out)
    assert run(corpus, FULL, mode="overwrite").failed == {}
    assert contents(corpus.out) == contents(whole.out)


def test_two_ranks_do_the_work_of_one(tmp_path, monkeypatch):
    alone = grown(tmp_path / "alone")
    outcome = run(alone, FULL, mode="overwrite")
    shared = grown(tmp_path / "shared")
    barrier = threading.Barrier(2)
    monkeypatch.setattr(extract_sidecars, "barrier", lambda ranks: barrier.wait(60))
    monkeypatch.setattr(ledger, "barrier", lambda ranks: barrier.wait(60))
    made = {0: [], 1: []}

    def rank(n):
        stage = Stage(shared.out, shared.stage().items, Ranks(n, 2))
        return run(shared, {**FULL, "count": counting(made[n], lambda item, times: {})}, stage, mode="overwrite")

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(rank, [0, 1]))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].done == outcome.done == 6
    assert (len(made[0]), len(made[1]), len({*made[0], *made[1]})) == (3, 3, 6)
    assert contents(shared.out) == contents(alone.out)


# ---- the manifests --------------------------------------------------------------------------------------------------


def test_the_manifests_list_every_token_file(corpus):
    corpus.add("held", frames=4, columns=None, split="test")
    run(corpus, {"names": NAMES, "bad": lambda item, times: {"x": times[:3]} if item.id == "held" else {}})
    lines = (corpus.out / "manifest.csv").read_text().splitlines()
    assert lines == [
        "rel_ecdc,rel_cond,frames,D,fps,codebooks",
        "tokens/held.ecdc,,4,0,75,4",
        "tokens/plain.ecdc,tokens/plain.cond.npy,20,0,75,4",
        f"tokens/{IDS[1]}.ecdc,tokens/{IDS[1]}.cond.npy,21,2,75,4",
        f"tokens/{IDS[2]}.ecdc,tokens/{IDS[2]}.cond.npy,22,1,75,4",
    ]
    rows = pq.read_table(corpus.out / "manifest.parquet").to_pylist()
    assert [row["names"] for row in rows] == [[], [], ["pitch", "amp"], ["pitch"]]
    assert [row["split"] for row in rows] == ["test", "train", "train", "train"]
    assert rows[0] == dict(zip(lines[0].split(","), ["tokens/held.ecdc", "", 4, 0, 75.0, 4], strict=True)) | {
        "id": "held",
        "split": "test",
        "num_samples": 4 * 320 - 3,
        "names": [],
    }


def test_the_manifests_follow_the_items(corpus):
    run(corpus, {"lin": LIN})
    before = contents(corpus.out)
    stamp = (corpus.out / "manifest.csv").stat().st_mtime_ns
    run(corpus, {"lin": LIN})
    assert (corpus.out / "manifest.csv").stat().st_mtime_ns == stamp
    (corpus.out / "manifest.parquet").unlink()
    run(corpus, {"lin": LIN})
    assert contents(corpus.out) == before
    del corpus.items["plain"]
    run(corpus, {"lin": LIN})
    assert "plain" not in (corpus.out / "manifest.csv").read_text()
    assert corpus.path("plain", ".cond.npy").exists()  # nothing is deleted
    assert "plain" not in Ledger(corpus.out, "sidecars", Ranks()).records


# ---- users' code ----------------------------------------------------------------------------------------------------

MINE = "import numpy as np\n\ndef produce(item, times, *, value=1):\n    return {'mine': np.full(len(times), value)}\n"


def test_a_changed_producer_file_is_run_again(corpus, tmp_path):
    path = tmp_path / "mine.py"
    producer = {"mine": partial(python, path=str(path), args={"value": 3})}
    path.write_text(MINE)
    run(corpus, producer)
    assert columns(corpus) == {"mine": 3}
    assert run(corpus, producer).done == 0
    path.write_text(MINE.replace("value)", "value * 2)"))
    assert run(corpus, producer).done == 3
    assert columns(corpus) == {"mine": 6}
    path.write_text("x = 1\n")
    with pytest.raises(UserError, match=r"mine\.py: there is no function produce"):
        run(corpus, producer)
