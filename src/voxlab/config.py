"""The command line's configuration: typed schemas, resolvers, the recipe search path, and errors as short messages.

Imported by main.py before anything else, so help, completion and typos answer without torch.
"""

import os
import re
import secrets
import shlex
import string
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.completion_plugin import CompletionPlugin
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from voxlab import arguments, choices, completion, help_page, messages, parallel, rerun, search
from voxlab.errors import JobError, UserError
from voxlab.schemas import PLACES, SCHEMAS, SOURCES, STAGES, Config
from voxlab.tasks import sweeps
from voxlab.tasks.compare.find import find_runs

_PACKAGE = Path(__file__).resolve().parent
# A wheel carries both folders inside of the package; a checkout has them beside `src`.
ROOT = _PACKAGE if (_PACKAGE / "conf").is_dir() else _PACKAGE.parents[1]
CONF, RECIPES = ROOT / "conf", ROOT / "recipes"
_VERBOSE = "VOXLAB_FULL_ERROR"


class Recipes(SearchPathPlugin):
    """Makes recipes/experiment/*.yaml options of the group `experiment`, from any working directory."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the recipes folder."""
        search_path.append("recipes", f"file://{RECIPES}")


def register() -> None:
    """Make schemas, resolvers and recipes known to Hydra; may be called again."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for task, schema in SCHEMAS.items():
        store.store(name=f"schema_{task}", node=schema, package="_global_")
    Plugins.instance().register(Recipes)
    resolvers: dict[str, Callable[..., Any]] = {
        "first": lambda *values: next((value for value in values if value not in (None, "none")), None),
        "by_rank": lambda first, others: first if _rank() == 0 else others,
        "run_dir": run_dir,
        "sweep_dir": sweep_dir,
        "log_file": log_file,
        "job_mark": job_mark,
        "selected": selected,
        "modulo": lambda number, count: int(number) % int(count),  # of a job: which GPU it takes
    }
    for name, resolver in resolvers.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)
    OmegaConf.register_new_resolver("run_stamp", run_stamp, use_cache=True, replace=True)


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def run_stamp() -> str:
    """Return launch time and four random digits, the same on all ranks, nodes and elastic restarts."""
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(2)}"
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return stamp
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    # The launcher's agent keeps this store: the first rank to arrive writes the stamp, the others read it.
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return store.compare_set("run_stamp", "", stamp).decode()


def run_dir(stamp: str, *, _root_: DictConfig) -> str:
    """Return the run folder; evaluated before Hydra creates it, so what can't run leaves no folder behind.

    Raises:
        UserError: no task is chosen, or there is no run to resume or to compare.
    """
    chosen = _choices(_root_)
    if _root_.resume is not None and not (Path(_root_.resume) / "config.yaml").is_file():
        raise UserError(messages.no_such_run(_root_.resume))
    if chosen.get("task") is None:
        raise UserError(messages.overview(CONF))
    _refuse_words(_root_, chosen)
    folder = _root_.resume or f"outputs/{chosen['task']}/{stamp}"
    if chosen["task"] == "compare":
        find_runs(_root_.runs, Path(folder))
    if _root_.dry_run:
        return "."  # exists already: a dry run writes nothing
    place = next(parent for parent in Path(folder).absolute().parents if parent.is_dir())
    if not os.access(place, os.W_OK):
        raise UserError(f"{folder} can't be made: {place} can't be written to.\nName another place: hydra.run.dir=DIR")
    return folder


def sweep_dir(stamp: str, *, _root_: DictConfig) -> str:
    """Return the folder of a sweep; evaluated once for the whole (its task unknown if swept) and for every job."""
    chosen = _choices(_root_)
    _refuse_words(_root_, chosen)
    if _root_.resume is not None or _root_.dry_run:
        raise UserError(
            "resume and dry_run concern one run, not a sweep (-m).\nTo go on with a sweep, run it again "
            "with hydra.sweep.dir=<its folder>: finished jobs are skipped."
        )
    return f"outputs/{chosen.get('task') or 'sweep'}/{stamp}"


def log_file(*, _root_: DictConfig) -> str:
    """Return this rank's log file in the run folder; a dry run has none."""
    return os.devnull if _root_.dry_run else f"{_root_.hydra.runtime.output_dir}/rank{_rank()}.log"


def job_mark(*, _root_: DictConfig) -> str:
    """Return what the console's lines of a sweep's job begin with: those of jobs at the same time are mixed."""
    return f"[{_root_.hydra.job.num}] " if _root_.hydra.mode == RunMode.MULTIRUN else ""


def selected(*groups: str, _root_: DictConfig) -> str:
    """Return the words of the command line that choose the options of some groups, with every key that was changed."""
    words = []
    for group in groups:
        option = HydraConfig.get().runtime.choices.get(group)
        if option in (None, "none"):
            continue
        words.append(f"{group}={option}")
        path = CONF / group / f"{option}.yaml"
        if path.is_file() and isinstance(node := _root_.get(group), DictConfig):
            words += choices.changes(
                group, OmegaConf.to_container(OmegaConf.load(path)), OmegaConf.to_container(node, resolve=True)
            )
    return " ".join(words)


def _choices(root: DictConfig) -> dict[str, str | None]:
    """Return group -> chosen option."""
    return {str(key): value for key, value in root.hydra.runtime.choices.items() if not str(key).startswith("hydra/")}


def _refuse_words(root: DictConfig, chosen: dict[str, str | None]) -> None:
    """Stop at words that can't be meant: an option where a group's settings belong, a stage of another task."""
    for group in chosen:
        node = choices.node_of(group)
        if isinstance(value := root.get(node), str):
            raise UserError(f"{node}={value}: this is an option of a group. Write {group}={value}")
    source = OmegaConf.select(root, "data.source")
    if source not in SOURCES and (CONF / "data" / f"{chosen.get('data')}.yaml").is_file():
        raise UserError(messages.no_source(source, SOURCES))
    task, stage = chosen.get("task"), root.stage.name
    if (path := CONF / "task" / f"{task}.yaml").is_file():
        default: Any = OmegaConf.load(path)
        _refuse_values(root, default)
        _refuse_aliases(root.task, default.task)
    if task in STAGES and stage not in STAGES[task]:  # a task from --config-dir decides by itself
        raise UserError(messages.no_stage(task, stage, STAGES[task]))


def _refuse_values(node: DictConfig, default: Any, above: str = "") -> None:
    """Stop at a value in the place of keys: labels=5."""
    for key in default:
        keys, path = default._get_node(key), f"{above}{key}"
        if not isinstance(keys, DictConfig) or not len(keys):
            continue
        value = node._get_node(key)
        if not isinstance(value, DictConfig) or value._is_none():
            first = ", ".join(f"{path}.{name}=..." for name in list(keys)[:3])
            raise UserError(f"{path}={value}: this stands for several keys. Set one of them: {first}")
        _refuse_values(value, keys, f"{path}.")


def _refuse_aliases(node: DictConfig, default: DictConfig) -> None:
    """Stop at task.shift=5: shift itself would stay as it was, in the record of the run and for other nodes."""
    for key, source in OmegaConf.to_container(default).items():  # type: ignore[union-attr]
        found = re.fullmatch(r"\$\{(\w+)\}", str(source))
        if found and key in node and not OmegaConf.is_interpolation(node, str(key)):
            raise UserError(f"task.{key}={node[key]}: this key is given by {found[1]}.\nWrite {found[1]}={node[key]}")


def launch(main: Callable[[], Any]) -> None:
    """Run the decorated main; errors of the command line become a few lines and the right exit code.

    0 done, 1 a bug or a sweep with failed jobs, 2 the user's to fix, 3 too many bad items, 130 interrupted.
    """
    # Hydra's flags may stand anywhere; its parser wants all settings behind them.
    typed = sys.argv[1:]
    sys.argv[1:] = sorted(typed, key=lambda word: "=" in word and not word.startswith("-"))
    # Makes Hydra raise its errors instead of printing them; whoever has set it gets every frame.
    os.environ.setdefault(_VERBOSE, "1" if os.environ.get("HYDRA_FULL_ERROR") == "1" else "")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ[parallel.COMMAND] = shlex.join(sys.argv)  # a job's own process may be started by other words
    try:
        options, unknown = get_args_parser().parse_known_args(sys.argv[1:])
        arguments.refuse_arguments(typed, unknown, options.overrides)
        arguments.refuse_empty_places(options.overrides, PLACES)
        arguments.refuse_values_of_groups(options.overrides, _options(CONF))
        if rerun.folder_of(options.overrides):
            _replay(options.overrides, sweep=options.multirun)
        elif rerun.folder_of(options.overrides, "resume=") and not options.multirun:
            _take(options.overrides, rerun.go_on(options.overrides, _options(CONF)))
        if options.help:
            print(_help_page(options.overrides, options.config_dir))
        elif options.shell_completion and options.overrides[:1] and options.overrides[0].startswith("query="):
            _complete(os.environ["COMP_LINE"], main)
        else:
            parallel.refuse_lone_copies()
            if options.multirun and (sweep := rerun.folder_of(options.overrides, "hydra.sweep.dir=")):
                sweeps.refuse_other_values(Path(sweep), options.overrides, _has_several)
            with search.judged():
                main()
    except (Exception, KeyboardInterrupt) as error:
        stop(error)


def _has_several(word: str) -> bool:
    """Tell whether a word stands for several jobs of a sweep."""
    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False  # which Hydra tells in its own time


def _replay(words: list[str], *, sweep: bool) -> None:
    """Put the words of the run that is repeated before those of the command line.

    Raises:
        UserError: it is a sweep, or there is no such run.
    """
    if sweep:
        raise UserError(
            "rerun= repeats one run, not a sweep (-m).\nTo repeat a run with several values, write a line for each: "
            f"for s in 1 2; do python main.py rerun={rerun.folder_of(words)} seed=$s; done\n"
            "To repeat a sweep, type its command again: it stands in command.txt of each of its jobs."
        )
    _take(words, rerun.expand(words, _options(CONF)))


def _take(typed: list[str], words: list[str]) -> None:
    """Put settings in the place of those that were typed."""
    sys.argv[1:] = [*(word for word in sys.argv[1:] if word not in typed), *words]


def _help_page(words: list[str], own_conf: str | None) -> str:
    """Return the page of a task, or of all: Hydra's own way to it copies its state once a group, for half a second."""
    composed = _composed(words, own_conf)
    told = composed.settings["hydra"]["help"]
    examples, recipes = told["template"].partition("== Recipes")[0], messages.list_recipes(RECIPES)
    if composed.task:
        parts = [told["header"], help_page.task_page(composed, CONF, examples), string.Template(told["footer"])]
        return _spelled("\n\n".join(part if isinstance(part, str) else part.substitute() for part in parts))
    listed = {group: options for group, options in composed.options.items() if group != "experiment"}
    groups = "\n".join(f"{group}: {', '.join(options)}" for group, options in listed.items())
    page = string.Template(told["template"].replace("${hydra.help.header}", told["header"]))
    keys = help_page.run_wide(composed, CONF)
    text = page.safe_substitute(RECIPES=recipes, APP_CONFIG_GROUPS=groups, CONFIG=keys)
    return _spelled(text.replace("${hydra.help.footer}", string.Template(told["footer"]).substitute()))


def _composed(words: list[str], own_conf: str | None = None) -> choices.Composed:
    """Compose some words of a command line.

    Args:
        words: settings of the command line.
        own_conf: folder of `--config-dir`, whose options are added.
    """
    folders = [CONF, *([] if own_conf is None else [Path(own_conf).resolve()])]
    places = [f"hydra.searchpath=[{choices.spell(f'file://{folder}')}]" for folder in folders[1:]]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings: Any = compose("config", [*places, *words], return_hydra_config=True)
    plain: Any = OmegaConf.to_container(settings, enum_to_str=True)
    return choices.Composed(plain, _choices(settings), _options(*folders))


def _complete(line: str, main: Callable[[], Any]) -> None:
    """Print what the last word of a line of the shell can become; Hydra itself knows its own keys, and files."""
    line = CompletionPlugin.strip_python_or_app_name(line)
    options, _ = get_args_parser().parse_known_args(line.split())
    *words, word = options.overrides if options.overrides and not line.endswith(" ") else [*options.overrides, ""]
    if word.startswith("hydra") or CompletionPlugin._get_filename(word)[1] is not None:
        main()
        return
    # Of a sweep's values, the first stands for all.
    words = [text if re.search(r"[\[{(\"']", text) else text.partition(",")[0] for text in words]
    try:
        print("\n".join(completion.complete(_composed(words, options.config_dir), word)))
    except HydraException:
        return  # words that don't compose can't be gone on with; the shell shows nothing, as for any unknown word


def _options(*folders: Path) -> dict[str, dict[str, Path]]:
    return choices.list_options(folders, RECIPES)


def is_verbose() -> bool:
    """Tell whether the user wants to see every traceback."""
    return bool(os.environ.get(_VERBOSE))


def stop(error: BaseException) -> NoReturn:
    """Tell the user what went wrong, unless that is done, and end the process."""
    if isinstance(error, KeyboardInterrupt):
        if _rank() == 0:
            print(_spelled(f"interrupted. {error}".strip()), file=sys.stderr)
        sys.exit(130)
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if isinstance(error, JobError):
        sys.exit(error.exit_code)
    message = user_message(error)
    if message is None or is_verbose():
        traceback.print_exception(error)
    elif _rank() == 0:
        print(message, file=sys.stderr)
    sys.exit(1 if message is None else getattr(error, "exit_code", 2))


def user_message(error: BaseException) -> str | None:
    """Return what to tell the user about a mistake in the command line or the configuration; None for a bug."""
    known = isinstance(error, (UserError, HydraException, OmegaConfBaseException))
    return _spelled(messages.explain(error, SCHEMAS, STAGES, CONF)) if known else None


def _spelled(text: str) -> str:
    """Write commands as the user started this program: a job's own process may be started by other words."""
    words = shlex.split(os.environ.get(parallel.COMMAND, "")) or sys.argv
    return messages.spelled(text, words[0])
