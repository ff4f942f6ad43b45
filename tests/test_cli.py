"""What a user sees: the overview, the help, and the message for each kind of mistake, all without torch."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    "task=laughter shift=abc": ["shift=abc: give a whole number. Without this word it is 5."],
    "shift=1.5 task=laughter": ["shift=1.5: give a whole number"],
    "task=laughter shift=": ["shift=: give a whole number"],
    "task=laughter shift=null": ["shift=null: give a whole number"],
    "-m task=laughter,compare shift=abc,1": ["shift=abc: give a whole number"],
    "task=convert max_seconds=abc": ["max_seconds=abc: give a number. Without this word it is 300.0."],
    "task=convert max_batch_seconds=x": ["give a number or null. Without this word it is null."],
    "seed=abc": ["seed=abc: give a whole number. Without this word it is 0."],
    "task=convert dry_run=maybe": ["dry_run=maybe: give true or false. Without this word it is false."],
    "task=extract out=[1]": ["out=[1]: give a word"],
    "task=laughter tags=a": ["tags=a: give a list, each a word. Write: tags='[a]'"],
    "task=laughter tags={a:1}": ["tags={a:1}: give a list, each a word"],
    "task=laughter shift=1,2": ["shift=1,2: several values", "-m shift=1,2", "shift='[1,2]'"],
    "task=laughter name={a": ["name={a: this can't be read", "name='[a, b]'"],
    "task=laughter labels=5": ["labels=5: this stands for several keys", "labels.mode=..."],
    "task=a2g fit.masking=random": ["fit.masking=random: this stands for several keys", "fit.masking.mode=..."],
    "task=laughter optim=null": ["optim=null: there is no such option", "Options of optim: adamw_cosine"],
    "task=laughter data=5": ["data=5: there is no such option", "podcastfillers"],
    "task=laughter stage=fitt": [
        "stage=fitt",
        "Did you mean: fit?",
        "stage=fit, stage=test, stage=stream, stage=compare",
    ],
    "stage=fitt": [
        "stage=fitt: give one of",
        "fit, test, generate, reconstruct, export, stream, compare, evaluate, tokenize, check",
        "Did you mean: fit?",
    ],
    "task=convert stage=test": ["stage=test: task=convert has no such stage", "It has stage=fit"],
    "task=extract stage=compare": ["task=extract has no such stage", "stage=fit, stage=check"],
    "task=laughter stage=generate": ["stage=fit, stage=test, stage=stream, stage=compare"],
    "task=convert input=speech": ["input=speech: give one of tokens, text, audio"],
    "task=convert input=texts": ["Did you mean: text?"],
    "task=convert data.batchsize=3": ["data.batchsize: there is no such key", "Keys here: source, root"],
    "task=convert data.num_file=3": ["Did you mean: data.num_files?"],
    "task=convert trainer.gradient_clip=1": ["Did you mean: trainer.gradient_clip_val"],
    "task=convert shift=5": ["shift: no such key here; it is a key of task=laughter"],
    "task=convert codec=mimy": ["codec=mimy", "Did you mean: mimi?", "encodec"],
    "task=laughter loss.focal_gamma=2": ["loss.focal_gamma: there is no such key"],
    "task=laughter loss=bce loss.gama=3": ["Did you mean: loss.gamma? It is a key of", "loss=focal"],
    "task=laughter loss=focal loss.gama=3": ["Did you mean: loss.gamma?"],
    "task=laughter task.shift=3": ["Write shift=3"],
    "task=laughter task.corpus=beat2": ["Write data=beat2"],
    "task=laughter task.corpus.root=x": ["Did you mean: data.root?"],
    "task=laughter corpus.root=x": ["Did you mean: data?"],
    "-m task=laughter shift=1 5": ["several values are joined by commas", "Write: -m shift=1,5"],
    "task=laughter task.optim.lr=3": ["Did you mean: optim.lr?"],
    "task=laughter loss=bce loss.gamma=3": ["no such key here; it is a key of", "loss=focal"],
    "task=laughter loss=gru": ["loss=gru: there is no such option", "There is model=gru", "Options of loss"],
    "task=convert optim=adam": ["optim=adam: there is no such option", "Options of optim: adamw_cosine"],
    "task=extract producers=[linn]": ["producers=linn", "Did you mean: lin?", "from_filename"],
    "task=extract producers.const.units=null": ["const is not chosen", "producers='[const]'"],
    "task=extract stages=encode": ["give a list", "Write: stages='[encode]'"],
    "task=extract stages=[encod]": ["each one of normalize, encode, sidecars, build, audit", "Did you mean: encode?"],
    "experiment=quik": ["experiment=quik", "quickstart"],
    "--shift 5": ["--shift: there is no such option", "python main.py shift=5"],
    "--max-bad-fraction=0.1 task=convert": ["python main.py max_bad_fraction=0.1"],
    "task=laughter --hlep": ["--hlep: there is no such option. Did you mean: --help?"],
    "help": ["help: there is no such option. Did you mean: --help?"],
    "task=extract out=": ["out= names no place", "out=<folder or file>, or leave the word out"],
    "task=laughter data.root=": ["data.root= names no place"],
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
    assert [word for word in ("Traceback", "full_key", "Error merging", "Config") if word in text] == []


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
    assert "stage: fit # fit | test | generate | evaluate | tokenize\n" in done.stdout
    assert "_target_" not in done.stdout
    assert "== features@acoustic=mfcc (or: " in done.stdout


def test_help_of_a_task_has_each_key_once_with_its_value_and_comment() -> None:
    done = _main("task=laughter", "data=beat2", "optim.lr=0.5", "--help")
    assert done.returncode == 0, done.stderr
    names = _dotted(done.stdout)
    assert len(names) == len(set(names)) > 80
    own = yaml.safe_load((ROOT / "conf" / "task" / "laughter.yaml").read_text())
    data = yaml.safe_load((ROOT / "conf" / "data" / "beat2.yaml").read_text())
    wanted = {*own, *(f"data.{key}" for key in data), "fit.patience", "optim.betas", "trainer.max_epochs", "seed"}
    assert wanted - {"defaults", "task", "data._target_"} - set(names) == set()
    assert [key for key in ("source", "codec", "vocoder", "acoustic", "hydra") if key in names] == []
    assert "  lr: 0.5 # the highest\n" in done.stdout
    assert "== data=beat2 (or: audiofolder, librispeech, " in done.stdout
    assert "  fps: 30 # frames a second\n" in done.stdout
    assert "features: codes, logmel" in done.stdout
    assert "experiment: laughter, laughter_legacy_parity, laughter_search\n" in done.stdout
    assert len(done.stdout.splitlines()) < 150


def _dotted(page: str) -> list[str]:
    """The names of the keys on a page, those of nodes by their indentation."""
    found: list[str] = []
    above: list[tuple[int, str]] = []
    body = page.partition("== Keys of every run ==")[2].partition("== Other options")[0]
    for indent, name in re.findall(r"^( *)(\w+):(?: |$)", body, re.MULTILINE):
        above = [*((depth, each) for depth, each in above if depth < len(indent)), (len(indent), name)]
        found.append(".".join(each for _, each in above))
    return found


def test_help_explains_chosen_producers_and_nested_options() -> None:
    page = _main("task=extract", "producers=[lin]", "codec=rvq_tiny", "--help").stdout
    assert "    columns: null # name -> [first, last]; null: {position: [0, 1]}\n" in page
    assert "      f_max: null # null: half the sample rate\n" in page
    assert "== vocoder=griffin_lim (or: hifigan, istft, vocos) ==" in page  # codec=rvq uses one


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
    assert [word for word in expected if word not in _tab(typed)] == []


@pytest.mark.parametrize(
    ("typed", "expected"),
    {
        "": ["experiment=", "logger=", "seed=", "task="],
        "task=": ["task=a2g", "task=compare", "task=convert", "task=extract", "task=laughter", "task=train_tokenizer"],
        "beat2": [],  # a folder of recipes/
        "task=laughter loss=": ["loss=adaptive_focal", "loss=bce", "loss=focal", "loss=focal_sum"],
        "task=a2g model=": ["model=a2g_base", "model=a2g_legacy", "model=a2g_tiny"],
        "task=convert loss=": [],
        "task=convert mod": [],
        "task=convert codec=rvq voc": ["vocoder.", "vocoder="],
        "task=convert codec=mimi voc": [],
        "task=laughter stage=": ["stage=compare", "stage=fit", "stage=stream", "stage=test"],
        "task=laughter data.source=": ["data.source=disk", "data.source=download", "data.source=sample"],
        "task=convert input=": ["input=audio", "input=text", "input=tokens"],
        "task=convert dry_run=": ["dry_run=false", "dry_run=true"],
        "task=a2g features@acoustic=mf": ["features@acoustic=mfcc"],
        "task=laughter experiment=": [
            *("experiment=laughter", "experiment=laughter_legacy_parity", "experiment=laughter_search")
        ],
        "task=laughter loss.": ["loss.pos_weight=", "loss.pos_weight_max="],
        "-m task=laughter shift=1,2 labels.mo": ["labels.mode="],
        "task=laughter shift=abc lab": [],
        "task=extract producers=from_m": ["producers=from_midi"],
        "hydra/launcher=ba": ["hydra/launcher=basic"],
        "task=laughter data.root=./con": ["data.root=./conf"],
        "rerun=recipes/exp": ["rerun=recipes/experiment/"],
        "task=compare runs=recipes/experiment/laughter_s": ["runs=recipes/experiment/laughter_search.yaml"],
        "task=laughter data.root=nowhere/": [],
        "-m task=laughter loss=bce,fo": ["loss=bce,focal", "loss=bce,focal_sum"],
        "-m task=laughter shift=1,": ["shift=1,5"],
    }.items(),
)
def test_tab_offers_what_the_task_uses_and_nothing_else(typed: str, expected: list[str]) -> None:
    always = {
        f"{key}=" for key in ("ckpt", "device", "dry_run", "name", "objective", "rerun", "resume", "stage", "tags")
    }
    assert [word for word in _tab(typed) if word not in always | {"logger."}] == expected


def test_tab_knows_options_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text("_target_: mine.Loss\nwidth: 3\n")
    assert "loss=mine" in _tab(f"--config-dir {tmp_path} task=laughter loss=")
    assert _tab(f"--config-dir {tmp_path} task=laughter loss=mine loss.") == ["loss.width="]


def _tab(typed: str) -> list[str]:
    line = f"python main.py {typed}"
    place = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_CWORD": str(len(line.split()) - 1)}
    command = [sys.executable, "main.py", "-sc", "query=bash"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **place}, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_the_line_of_the_readme_installs_completion() -> None:
    line = 'eval "$(python main.py -sc install=bash)"'
    assert line in (ROOT / "README.md").read_text()
    asked = 'COMP_LINE="python main.py task=laughter loss=fo" COMP_POINT=36 COMP_CWORD=3; hydra_bash_completion'
    script = f"{line}\n{asked}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["loss=focal", "loss=focal_sum"], done.stderr


@pytest.mark.parametrize("words", [[], ["--help"], ["task=a2g", "--help"]], ids=["overview", "help", "help of a task"])
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


OWN_TASK = """# @package _global_
# Do a thing
# voxlab task=thing
defaults:
  - _self_
task:
  _target_: mythings.thing.{name}
  _partial_: true
  width: 3
"""
OWN_CODE = "{first}def run(width, ranks, run_dir):\n    return {{'width': width}}\n"


@pytest.mark.slow  # five whole runs
@pytest.mark.parametrize(
    ("place", "name", "first", "path", "expected"),
    [
        (
            "lib",
            "run",
            "",
            "",
            [
                "mythings.thing.run can't be imported: there is no module mythings on Python's path; lib/mythings lies",
                "must be on PYTHONPATH (or the package be installed: pip install -e ...)",
                "PYTHONPATH=lib python main.py --config-dir conf task=thing",
            ],
        ),
        ("a/b/c", "run", "", "", ["it isn't in this folder either", "PYTHONPATH=DIR python main.py --config-dir conf"]),
        ("lib", "ran", "", "lib", ["the module mythings.thing has no ran"]),
        ("lib", "run", "import nosuchmodule\n", "lib", ["mythings.thing.run needs the module nosuchmodule"]),
        ("lib", "run", "", "lib", []),
    ],
    ids=["not on the path", "elsewhere", "another name", "lacks a module", "found"],
)
def test_code_of_ones_own_that_is_not_found_gets_a_hint(
    tmp_path: Path, place: str, name: str, first: str, path: str, expected: list[str]
) -> None:
    folder = tmp_path / place / "mythings"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "thing.py").write_text(OWN_CODE.format(first=first))
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "thing.yaml").write_text(OWN_TASK.format(name=name))
    command = [sys.executable, str(ROOT / "main.py"), "--config-dir", "conf", "task=thing", "device=cpu"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == (2 if expected else 0), done.stderr
    assert [part for part in expected if part not in done.stderr] == []
    assert "Traceback" not in done.stderr
