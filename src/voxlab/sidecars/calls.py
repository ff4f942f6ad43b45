"""Producers as they are called on one recording: what identifies a call, and what its errors become."""

import hashlib
import inspect
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, Producer, SidecarItem
from voxlab.sidecars.producers import basic, labels, midi, sound, table
from voxlab.sidecars.producers.python import check_python, last_line, python, source_file
from voxlab.storage import fingerprint

log = logging.getLogger(__name__)

_LONGEST_PATH = 256
_CHECKS: dict[Any, Callable[..., Any]] = {
    basic.const: basic.const_values,
    basic.lin: basic.lin_ends,
    basic.from_filename: lambda pattern, **_: basic.compile_pattern(pattern),
    labels.from_labels: labels.check_labels,
    midi.from_midi: midi.check_midi,
    sound.from_audio: sound.check_audio,
    table.from_table: table.check_table,
    python: check_python,
}


@dataclass(frozen=True)
class Call:
    """A producer with its settings.

    Attributes:
        name: its key in the configuration.
        function: of (item, times), settings bound.
        args: the settings, as plain values.
        fingerprint: of name, function, settings and the files that the settings name.
        failures: counts the recordings on which a user's own code has failed.
    """

    name: str
    function: Producer
    args: Mapping[str, Any]
    fingerprint: str
    failures: Iterator[int] = field(default_factory=itertools.count, compare=False, repr=False)

    def describe(self) -> dict[str, Any]:
        """Return what a sidecar says of the maker of its columns."""
        return {"name": self.name, "args": dict(self.args), "fingerprint": self.fingerprint}

    def reads_metadata(self) -> bool:
        """Tell whether it takes its numbers from what the corpus knows of a recording."""
        return _function(self) is table.from_table and not (self.args.get("file") or self.args.get("suffix"))


def prepare(producers: Mapping[str, Producer]) -> list[Call]:
    """Describe producers, in their order.

    Args:
        producers: name -> function of (item, times), settings bound with `functools.partial`.

    Raises:
        UserError: one can't be called.
    """
    return [_prepare(name, function) for name, function in producers.items()]


def check(producers: Mapping[str, Producer]) -> None:
    """Check producers and their settings, without a look at any file but a user's own code.

    Raises:
        UserError: one can't be called, or a setting is wrong.
    """
    for name, producer in producers.items():
        function, args = _take_apart(name, producer)
        try:
            inspect.signature(function).bind(None, None, **args)
        except TypeError as error:
            raise UserError(f"producers.{name} can't be called with (item, times) and {args}: {error}.") from None
        if function in _CHECKS:
            _CHECKS[function](**args)


def _take_apart(name: str, producer: Producer) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return a producer's function and its settings as plain values."""
    if not callable(producer):
        raise UserError(
            f"producers.{name} is {producer!r}, no function. Choose a file of conf/producers, for example "
            f"producers='[lin]', or give producers.{name} the keys _target_ and _partial_: true."
        )
    function: Callable[..., Any] = producer.func if isinstance(producer, partial) else producer
    keywords = producer.keywords if isinstance(producer, partial) else {}
    try:
        args = json.loads(json.dumps(keywords, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"producers.{name}: {dict(keywords)} must be plain values: {error}.") from None
    return function, args


def _prepare(name: str, producer: Producer) -> Call:
    function, args = _take_apart(name, producer)
    target = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    hashes = {str(path): _sha256(path) for path in _files(function, args)}
    settings = {"name": name, "target": target, "args": args, "files": hashes}
    return Call(name, producer, args, fingerprint(settings))


def _files(function: Callable[..., Any], args: Mapping[str, Any]) -> list[Path]:
    """Files whose content decides about the columns: those that settings name, and a user's own code."""
    named = [Path(text) for text in _strings(args)]
    code = _own_code(function, args)
    return sorted({path for path in [*named, *([code] if code else [])] if path.is_file()})


def _own_code(function: Callable[..., Any], args: Mapping[str, Any]) -> Path | None:
    """Return the file of a producer that is not one of voxlab's."""
    if function is python:
        return source_file(args["path"]) if args.get("path") else None
    return None if function.__module__.partition(".")[0] == "voxlab" else source_file(function.__module__)


def _strings(value: Any) -> Iterator[str]:
    """All strings that could be paths in plain settings."""
    if isinstance(value, str) and len(value) < _LONGEST_PATH:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(call: Call, item: SidecarItem, times: np.ndarray) -> Columns:
    """Call a producer on a recording.

    Raises:
        UserError: its settings are wrong: for every recording.
        ValueError: "<code>: ..." of this recording: the producer's own, or "producer_failed: ..." with what was raised.
    """
    try:
        columns = call.function(item, times)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and _has_code(str(error)):
            raise ValueError(f"{error}{_advise(call, str(error))}") from error
        raise ValueError(f"producer_failed: {call.name}: {_explain(call, item, error)}") from error
    if not isinstance(columns, Mapping):
        raise ValueError(
            f"producer_failed: {call.name} returned a {type(columns).__name__}; needs {{name: (T,) array}}"
        )
    return {name: np.asarray(column) for name, column in columns.items()}


def _function(call: Call) -> Callable[..., Any]:
    return call.function.func if isinstance(call.function, partial) else call.function


def _advise(call: Call, reason: str) -> str:
    if not reason.startswith("missing_companion: "):
        return ""
    known = inspect.signature(_function(call)).parameters
    ways = [f"producers.{call.name}.suffix=(how such files end)"] if "suffix" in known else []
    ways += [f"producers.{call.name}.missing=zeros"] if "missing" in known else []
    return f"; type {' or '.join(ways)}" if ways else ""


def _explain(call: Call, item: SidecarItem, error: Exception) -> str:
    """Return what was raised, with the place in a user's own code; the log gets the first traceback from there."""
    code = _own_code(_function(call), call.args)
    line = last_line(error, code)
    if code is None or line is None:
        return f"{type(error).__name__}: {error}"
    if next(call.failures) == 0:
        log.warning("the producer %s fails, first on %s:", call.name, item.id, exc_info=error)
    return f"{type(error).__name__}: {error} ({code.name}, line {line})"


def _has_code(reason: str) -> bool:
    """Reasons of bad items begin with one word of small letters: "bad_midi", "bad_audio:empty"."""
    code = reason.partition(":")[0]
    return code.isidentifier() and code.islower() and "_" in code
