"""Columns from a user's own code: a `.py` file or a dotted module, written for voxlab or for EncHF_Dataset."""

import argparse
import importlib
import importlib.util
import inspect
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, SidecarItem

_loaded: dict[tuple[str, str], "_Loaded"] = {}
_lock = threading.RLock()


@dataclass(frozen=True)
class _Loaded:
    """A producer module that is ready: the function to call, and what to do when the work is done."""

    produce: Callable[..., Any]
    shutdown: Any = None
    serial: bool = False


def python(item: SidecarItem, times: np.ndarray, *, path: str | None, args: Mapping[str, Any] | None = None) -> Columns:
    """Call `produce` of a user's module.

    Ours: `produce(item, times, **args) -> {name: (T,) numbers}`; several threads call it at once.
    EncHF_Dataset's: `produce(ecdc_path, T, args)`, with `add_cli_args(parser)`, `init(args)` and `shutdown(args)` where
    the module has them; `args` sets the values of its options by their names. One call at a time.

    Args:
        item: the recording.
        times: (T,) seconds.
        path: of the `.py` file, or dotted name of the module.
        args: settings for the module.

    Raises:
        UserError: the module can't be loaded, lacks `produce`, or doesn't know a setting; names file and reason.
    """
    path = _given(path)
    with _lock:
        key = (path, repr(sorted((args or {}).items())))
        if key not in _loaded:
            _loaded[key] = _prepare(path, dict(args or {}))
        loaded = _loaded[key]
        if loaded.serial:
            return dict(loaded.produce(item, times) or {})
    return dict(loaded.produce(item, times) or {})


def check_python(*, path: str | None, args: Mapping[str, Any] | None = None) -> None:
    """Load a user's module and check that it can be called, without calling it; raises UserError."""
    _bind(_given(path), dict(args or {}))


def _given(path: str | None) -> str:
    if not path:
        raise UserError("producers.python.path: give a .py file or a dotted module, producers.python.path=my_file.py.")
    return path


def shutdown() -> None:
    """Let the modules that were used clean up, and forget them."""
    with _lock:
        while _loaded:
            _, loaded = _loaded.popitem()
            if loaded.shutdown is not None:
                loaded.shutdown()


def source_file(path: str) -> Path | None:
    """Return the file that `path` names, without running it; None for a module that has none or isn't there."""
    if path.endswith(".py"):
        return Path(path)
    try:
        spec = importlib.util.find_spec(path)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _prepare(path: str, args: dict[str, Any]) -> _Loaded:
    module, settings = _bind(path, args)
    return _Loaded(partial(module.produce, **args)) if settings is None else _prepare_legacy(module, settings)


def _bind(path: str, args: dict[str, Any]) -> tuple[ModuleType, argparse.Namespace | None]:
    """Load a module; returns it, and for one of EncHF_Dataset's what its `produce` takes as `args`."""
    module = _load(path)
    produce = getattr(module, "produce", None)
    if not callable(produce):
        raise UserError(f"producers.python.path={path}: there is no function produce(item, times) in it.")
    signature = inspect.signature(produce)
    if _is_legacy(list(signature.parameters)):
        return module, _legacy_args(module, path, args)
    try:
        signature.bind(None, None, **args)
    except TypeError as error:
        raise UserError(
            f"producers.python.path={path}: produce{signature} can't be called with (item, times) and "
            f"producers.python.args={args}: {error}."
        ) from None
    return module, None


def _is_legacy(names: list[str]) -> bool:
    """EncHF_Dataset's producers take the path, the number of frames (`T`) and the parsed command line (`args`)."""
    return names[1:2] == ["T"] or "args" in names[2:]


def _load(path: str) -> ModuleType:
    try:
        if not path.endswith(".py"):
            return importlib.import_module(path)
        if not Path(path).is_file():
            raise UserError(f"producers.python.path={path}: there is no such file.")
        return _run_file(path, Path(path).read_bytes())
    except UserError:
        raise
    except Exception as error:
        line = error.lineno if isinstance(error, SyntaxError) else last_line(error, source_file(path))
        where = f", line {line}" if line else ""
        raise UserError(
            f"producers.python.path={path}: can't be loaded{where}: {type(error).__name__}: {error}.\n"
            "Give the path of a .py file, or the dotted name of a module that Python can import."
        ) from error


def last_line(error: BaseException, file: Path | None) -> int | None:
    """Return the last line of a file that an error passed through, None where it did not."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return lines[-1] if lines else None


@lru_cache(maxsize=8)
def _run_file(path: str, source: bytes) -> ModuleType:
    """Run a file as a module of its own, once. Not by an import, which would leave `__pycache__` beside it."""
    module = ModuleType(f"voxlab_producer_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses and pickle look their module up
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def _prepare_legacy(module: ModuleType, settings: argparse.Namespace) -> _Loaded:
    if callable(init := getattr(module, "init", None)):
        init(settings)

    def produce(item: SidecarItem, times: np.ndarray) -> Mapping[str, Any]:
        return module.produce(item.tokens, len(times), args=settings)

    end = getattr(module, "shutdown", None)
    return _Loaded(produce, partial(end, settings) if callable(end) else None, serial=True)


def _legacy_args(module: ModuleType, path: str, args: dict[str, Any]) -> argparse.Namespace:
    """Fill in a producer's command-line options: its defaults, then `args`."""
    parser = argparse.ArgumentParser(add_help=False)
    if callable(add := getattr(module, "add_cli_args", None)):
        add(parser)
    options = {action.dest: action for action in parser._actions}
    unknown = [name for name in args if name not in options]
    absent = [name for name, action in options.items() if action.required and name not in args]
    if unknown or absent:
        told = {name: options[name].help for name in options}
        raise UserError(
            f"producers.python.path={path}: options unknown to it: {unknown}; required and not given: {absent}.\n"
            f"Set them with producers.python.args='{{name: value}}'. It has: {told}."
        )
    given = {name: _typed(options[name], value) for name, value in args.items()}
    return argparse.Namespace(**{name: action.default for name, action in options.items()} | given)


def _typed(action: argparse.Action, value: Any) -> Any:
    """Convert text as the command line would: to a path, a number."""
    return action.type(value) if isinstance(value, str) and callable(action.type) else value
