"""Stage sidecars: what it tells when settings, a user's own producer or the corpus are not as needed."""

import logging
from functools import partial

import pytest

from tests.token_corpus import TokenCorpus
from voxlab.errors import UserError
from voxlab.sidecars.producers.basic import const, from_filename, lin
from voxlab.sidecars.producers.labels import from_labels
from voxlab.sidecars.producers.midi import from_midi
from voxlab.sidecars.producers.python import python
from voxlab.sidecars.producers.sound import from_audio
from voxlab.sidecars.producers.table import from_table
from voxlab.tasks.extract import sidecars as extract_sidecars
from voxlab.tasks.extract.sidecars import sidecars

SETTINGS = {"mode": "append", "dtype": "float16", "remove": []}
BUG = "import numpy as np\n\ndef produce(item, times):\n    return {'a': helper(times)}\n\n"
BUG += "def helper(times):\n    return times * x\n"


@pytest.fixture
def corpus(tmp_path):
    made = TokenCorpus(tmp_path / "out")
    for name in "abcd":
        made.add(name, frames=20, columns=None)
    return made


def run(corpus, producers, **changes):
    settings = {"info": corpus.info, "container": corpus.container, **SETTINGS}
    return sidecars(corpus.stage(), producers=producers, **settings | changes)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_bug_in_a_users_producer_is_placed_and_traced_once(corpus, tmp_path, caplog, legacy):
    path = tmp_path / "my_producer.py"
    path.write_text(BUG.replace("(item, times):", "(item, T, args):", 1).replace("(times)}", "(T)}") if legacy else BUG)
    with caplog.at_level(logging.WARNING):
        outcome = run(corpus, {"python": partial(python, path=str(path))})
    reason = "producer_failed: python: NameError: name 'x' is not defined (my_producer.py, line 7)"
    assert outcome.failed == dict.fromkeys("abcd", reason)
    (record,) = caplog.records
    assert "return times * x" in caplog.text
    assert record.getMessage().startswith("the producer python fails, first on ")


def test_a_failure_of_our_own_producers_is_not_traced(corpus, caplog):
    outcome = run(corpus, {"from_audio": partial(from_audio, features=["rms_db"])})
    assert outcome.failed["a"].startswith("producer_failed: from_audio: FileNotFoundError: ")
    assert caplog.records == []


def test_failures_are_not_done_and_old_columns_not_denied(corpus):
    def fail(item, times):
        raise RuntimeError("no")

    def fail_on_a(item, times):
        return fail(item, times) if item.id == "a" else {"b": times}

    run(corpus, {"lin": lin})
    outcome = run(corpus, {"mine": fail_on_a})
    assert (outcome.done, outcome.kept, list(outcome.failed)) == (3, 0, ["a"])
    outcome = run(corpus, {"mine": fail_on_a})
    assert (outcome.done, outcome.kept, list(outcome.failed)) == (0, 3, ["a"])
    outcome = run(corpus, {"mine": fail})
    assert (outcome.done, outcome.kept, len(outcome.failed)) == (0, 0, 4)
    assert outcome.facts["conditioning"] == "(as before: every item failed)"


def test_all_columns_are_named_with_how_many_have_them(corpus):
    def names(item, times):
        return {"pitch": times} if item.id != "c" else {"rate": times}

    assert run(corpus, {"lin": lin}).facts["conditioning"] == "position"
    outcome = run(corpus, {"lin": lin, "names": names})
    assert outcome.facts["conditioning"] == "position, pitch (3 of 4), rate (1 of 4)"


def test_a_table_that_is_not_given_is_asked_for(corpus):
    (warning,) = run(corpus, {"table": from_table}).warnings
    assert warning.startswith("the producer table found nothing for 4 items (a, b, c, ...): ")
    assert "give producers.table.file=TABLE.csv, or data.metadata=TABLE.csv" in warning
    corpus.add("e", 20, columns=None, tempo=3.0)
    warnings = run(corpus, {"table": from_table}).warnings
    assert "the producer table found nothing for 4 items (a, b, c, ...)" in warnings


@pytest.mark.parametrize(
    ("producer", "advice"),
    [
        (from_midi, "; type producers.mine.suffix=(how such files end) or producers.mine.missing=zeros"),
        (partial(from_labels, suffix=".txt"), "or producers.mine.missing=zeros"),
        (partial(from_table, suffix=".csv"), "; type producers.mine.suffix=(how such files end)"),
    ],
    ids=["midi", "labels", "table"],
)
def test_a_missing_companion_names_the_settings(corpus, producer, advice):
    reason = run(corpus, {"mine": producer}).failed["a"]
    assert reason.startswith("missing_companion: a has no ")
    assert reason.endswith(advice)


def test_nothing_encoded_stops_the_stage_before_it_writes(tmp_path):
    corpus = TokenCorpus(tmp_path / "out")
    with pytest.raises(UserError, match=r"Run the stage encode first \(stages=\[encode,sidecars\]\)") as caught:
        run(corpus, {"lin": lin})
    assert caught.value.exit_code == 2
    assert list(corpus.out.rglob("*")) == []


WRONG = {
    "mode": ({}, {"mode": "merge"}, r"sidecars\.mode=merge"),
    "dtype": ({}, {"dtype": "int8"}, r"sidecars\.dtype=int8"),
    "remove": ({}, {"remove": "pitch"}, r"sidecars\.remove=pitch: give a list"),
    "no function": ({"lin": {"columns": None}}, {}, r"producers\.lin is .*, no function"),
    "no plain value": ({"lin": partial(lin, columns={"a": {1}})}, {}, "must be plain values"),
    "unknown setting": ({"lin": partial(lin, speed=1)}, {}, r"producers\.lin can't be called .*'speed'"),
    "const": ({"const": partial(const, columns=None)}, {}, r"producers\.const\.columns={}: give a number"),
    "lin": ({"lin": partial(lin, columns={"a": [1]})}, {}, "give 2 numbers"),
    "pattern": ({"names": partial(from_filename, pattern="(")}, {}, "is not a regular expression"),
    "labels": ({"labels": partial(from_labels, suffix=".xyz")}, {}, "say the format"),
    "midi": ({"midi": partial(from_midi, channel=17)}, {}, "channel is null or 1 to 16"),
    "audio": ({"audio": partial(from_audio, features=["pitsch"])}, {}, "choose some of rms_db"),
    "table": ({"table": partial(from_table, file="a.csv", suffix=".csv")}, {}, "give either file"),
    "no path": ({"python": partial(python, path=None)}, {}, r"producers\.python\.path: give a \.py file"),
    "no file": ({"python": partial(python, path="no_such.py")}, {}, "no_such.py: there is no such file"),
    "no module": ({"python": partial(python, path="no_such_module_xyz")}, {}, "can't be loaded: ModuleNotFound"),
}


@pytest.mark.parametrize(("producers", "changes", "message"), WRONG.values(), ids=WRONG)
def test_settings_are_checked_before_any_work(producers, changes, message):
    with pytest.raises(UserError, match=message):
        extract_sidecars.check(producers=producers, **SETTINGS | changes)


def test_the_check_loads_a_users_code_once_and_calls_nothing(corpus, tmp_path):
    path, log = tmp_path / "mine.py", tmp_path / "log"
    path.write_text(
        f"LOG = open({str(log)!r}, 'a')\nLOG.write('load ')\nLOG.flush()\n"
        "def note(word):\n    LOG.write(word)\n    LOG.flush()\n"
        "def init(args):\n    note('init ')\n"
        "def produce(path, T, args):\n    return {'x': [1.0] * T}\n"
    )
    producers = {"python": partial(python, path=str(path))}
    extract_sidecars.check(producers=producers, **SETTINGS)
    assert log.read_text() == "load "
    assert run(corpus, producers).failed == {}
    assert log.read_text() == "load init "
    path.write_text("def produce(item):\n    return {}\n")
    with pytest.raises(UserError, match=r"produce\(item\) can't be called"):
        extract_sidecars.check(producers=producers, **SETTINGS)


def test_right_settings_pass_without_any_file(tmp_path):
    table = partial(from_table, file=str(tmp_path / "none.csv"))
    right = {"table": table, "midi": from_midi, "const": partial(const, columns={"a": 1}), "own": lambda i, t: {}}
    extract_sidecars.check(producers=right, **SETTINGS)
