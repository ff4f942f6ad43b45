"""What a user sees: the overview, the help, and the message for each kind of mistake, all without torch."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "lightning", "numpy", "pyarrow", "transformers")
# Runs main.py for each of the given command lines in one process; prints what each said and which packages came in.
DRIVER = """
import contextlib, io, json, runpy, sys
results = []
main, lines = sys.argv[1:]
for words in json.loads(lines):
    sys.argv = [main, *words]
    text, code = io.StringIO(), 0
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(text):
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    results.append([code, text.getvalue()])
print(json.dumps([results, sorted(sys.modules)]))
"""
MISTAKES = {
    "task=laughtr": ["task=laughtr: there is no such option", "Did you mean: laughter?", "train_tokenizer"],
    "task=laughter shif=5": ["shif: there is no such key", "Did you mean: shift?"],
    "shif=5": ["Did you mean: shift?"],
    "taks=laughter": ["taks: there is no such key", "Did you mean: task"],
    "task=laughter shift=abc": ["shift=abc", "'abc'", "Integer"],
    "task=laughter stage=fitt": [
        "'fitt'",
        "[fit, test, generate, reconstruct, export, stream, compare, evaluate, tokenize, check]",
    ],
    "task=convert stage=test": ["stage=test: task=convert has no such stage", "It has stage=fit"],
    "task=extract stage=compare": ["task=extract has no such stage", "stage=fit, stage=check"],
    "task=laughter stage=generate": ["stage=fit, stage=test, stage=stream, stage=compare"],
    "task=convert input=speech": ["'speech'", "[tokens, text, audio]"],
    "task=convert data.batchsize=3": ["data.batchsize: there is no such key", "Keys here: source, root"],
    "task=convert data.num_file=3": ["Did you mean: data.num_files?"],
    "task=convert trainer.gradient_clip=1": ["Did you mean: trainer.gradient_clip_val"],
    "task=convert shift=5": ["shift: no such key here; it is a key of task=laughter"],
    "task=convert codec=mimy": ["codec=mimy", "Did you mean: mimi?", "encodec"],
    "task=laughter loss.focal_gamma=2": ["loss.focal_gamma: there is no such key"],
    "task=laughter loss=bce loss.gamma=3": ["no such key here; it is a key of", "loss=focal"],
    "task=laughter loss=gru": ["loss=gru: there is no such option", "There is model=gru", "Options of loss"],
    "task=convert optim=adam": ["optim=adam: there is no such option", "Options of optim: adamw_cosine"],
    "task=extract producers=[linn]": ["producers=linn", "Did you mean: lin?", "from_filename"],
    "task=extract producers.const.units=null": ["const is not chosen", "producers='[const]'"],
    "task=extract stages=encode": ["this is a list", "stages='[encode]'"],
    "task=extract stages=[encod]": ["'encod'", "[normalize, encode, sidecars, build, audit]"],
    "experiment=quik": ["experiment=quik", "quickstart"],
    "--shift 5": ["--shift: there is no such option", "python main.py shift=5"],
    "--max-bad-fraction=0.1 task=convert": ["python main.py max_bad_fraction=0.1"],
    "task laughter": ["task: this has no value", "python main.py task=laughter"],
    "task=convert source=encodec": ["source=encodec: this is an option of a group", "Write codec@source=encodec"],
    "task=a2g acoustic=mfcc": ["Write features@acoustic=mfcc"],
    "task=convert resume=nowhere": ["resume=nowhere: no run folder"],
    "resume=nowhere": ["resume=nowhere: no run folder"],
    "task=convert codec=encodec codec.bandwith=3": ["Did you mean: codec.bandwidth?"],
    "task=laughter data.source=samples": ["data.source=samples", "Did you mean: sample?", "disk, sample, download"],
    "task=compare": ["task=compare needs run folders", "The latest runs: none here"],
    "task=compare runs=[nowhere*]": ["runs=nowhere*: no such folder"],
    "-m task=convert dry_run=true codec=none,mimi": ["not a sweep"],
}


def _main(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "main.py", *words], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What main.py answers to each mistake, the packages imported by then, and the folders left behind."""
    folder = tmp_path_factory.mktemp("cli")
    lines = json.dumps([words.split() for words in MISTAKES])
    command = [sys.executable, "-c", DRIVER, str(ROOT / "main.py"), lines]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    results, modules = json.loads(done.stdout.splitlines()[-1])
    left = [path.name for path in folder.glob("outputs/*") if path.name != "sweep"]
    return {**dict(zip(MISTAKES, results, strict=True)), "modules": modules, "folders": left}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_a_message_that_names_the_fix(answers: dict[str, list], line: str) -> None:
    code, text = answers[line]
    assert code == 2
    assert len(text.strip().splitlines()) <= 6
    assert [part for part in MISTAKES[line] if part not in text] == []
    assert "Traceback" not in text


def test_mistakes_import_nothing_heavy_and_leave_no_folder(answers: dict[str, list]) -> None:
    assert [name for name in HEAVY if name in answers["modules"]] == []
    assert answers["folders"] == []


def test_without_arguments_the_tasks_are_listed() -> None:
    done = _main()
    assert done.returncode == 2
    for task in ("convert", "extract", "train_tokenizer", "laughter", "a2g", "compare"):
        assert re.search(rf"^{task}: .+\n    python main.py task={task}", done.stderr, re.MULTILINE)
    last = done.stderr.splitlines()[-1]
    assert "experiment=quickstart" in last
    assert "task=laughter data.source=sample" in last


def test_help_of_a_task_explains_its_keys() -> None:
    done = _main("task=a2g", "--help")
    assert done.returncode == 0, done.stderr
    assert "python main.py task=a2g tokenizers=" in done.stdout
    assert "audio: null # stage=generate: file or folder" in done.stdout
    assert "_target_: voxlab.tasks.a2g.task.a2g" in done.stdout


def test_help_lists_groups_recipes_and_examples() -> None:
    done = _main("--help")
    assert done.returncode == 0, done.stderr
    for expected in (
        "task: a2g, compare, convert, extract, laughter, train_tokenizer",
        "data: audiofolder, beat2, librispeech, podcastfillers, podcastfillers_legacy, voiceassistant",
        "codec: encodec, mimi, motion_rvq, motion_rvq_base, motion_rvq_tiny, none, rvq, rvq_16k, rvq_legacy50, "
        "rvq_tiny, rvq_wave, rvq_wave_tiny, snac, vocoder",
        "quickstart",
    ):
        assert expected in done.stdout
    assert done.stdout.partition("== Groups")[0].count("main.py") >= 4


def test_help_says_what_each_recipe_does() -> None:
    page = _main("--help").stdout.partition("== Recipes")[2].partition("== Groups")[0]
    for path in (ROOT / "recipes" / "experiment").glob("*.yaml"):
        assert re.search(rf"^{path.stem} +\S.{{20}}", page, re.MULTILINE), path.stem


def test_help_follows_the_task() -> None:
    assert "max_bad_fraction: 0.05" in _main("task=convert", "--help").stdout


def test_a_run_can_be_shown_resolved() -> None:
    done = _main("task=convert", "codec=encodec", "--cfg", "job", "--resolve")
    assert done.returncode == 0, done.stderr
    assert "out: converted/voiceassistant-encodec" in done.stdout


def test_recipes_are_found_from_any_folder(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "main.py"), "experiment=quickstart", "--cfg", "job", "--package", "data"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "source: sample" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("typed", "expected"),
    {
        "task=l": ["task=laughter"],
        "task=laughter loss=": ["loss=focal", "loss=bce"],
        "task=convert codec=mi": ["codec=mimi"],
        "task=laughter shi": ["shift="],
        "task=laughter fit.pat": ["fit.patience="],
        "task=a2g fit.masking.dr": ["fit.masking.drop_audio=", "fit.masking.drop_text="],
        "experiment=qui": ["experiment=quickstart"],
    }.items(),
)
def test_tab_completes_options_and_keys(typed: str, expected: list[str]) -> None:
    # What the installed shell function does: it looks for hydra.main in the script, then asks the script.
    assert "@hydra.main" in (ROOT / "main.py").read_text()
    line = f"python main.py {typed}"
    place = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": str(len(line.split()) - 1)}
    command = [sys.executable, "main.py", "-sc", "query=bash"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **place}, capture_output=True, text=True, check=False)
    assert [word for word in expected if word not in done.stdout.split()] == []


@pytest.mark.parametrize("words", [[], ["--help"]], ids=["overview", "help"])
def test_answers_within_a_second(words: list[str]) -> None:
    # Processor time, best of three: the machine may be busy with other things.
    assert min(_cpu_seconds(words) for _ in range(3)) < 1.0


def _cpu_seconds(words: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _main(*words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_knows_options_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    text = "# @package _global_\n# Do a thing\n# voxlab task=thing\ndefaults:\n  - _self_\ntask:\n  width: 3\n"
    (tmp_path / "task" / "thing.yaml").write_text(text)
    done = _main("--config-dir", str(tmp_path), "task=thing", "--help")
    assert done.returncode == 0, done.stderr
    assert "== task=thing ==\nDo a thing\n" in done.stdout
    assert "laughter, thing, train_tokenizer" in done.stdout
    assert "width: 3" in done.stdout
    wrong = _main("--config-dir", str(tmp_path), "task=thing", "width=4")
    assert "width: there is no such key. Did you mean: task.width?" in wrong.stderr
