"""Producers as they are called on one recording: what identifies a call, and what its errors become."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from voxlab.errors import UserError
from voxlab.sidecars.item import Columns, Producer, SidecarItem
from voxlab.sidecars.producers.python import python, source_file
from voxlab.storage import fingerprint

_LONGEST_PATH = 256


@dataclass(frozen=True)
class Call:
    """A producer with its settings.

    Attributes:
        name: its key in the configuration.
        function: of (item, times), settings bound.
        args: the settings, as plain values.
        fingerprint: of name, function, settings and the files that the settings name.
    """

    name: str
    function: Producer
    args: Mapping[str, Any]
    fingerprint: str

    def describe(self) -> dict[str, Any]:
        """Return what a sidecar says of the maker of its columns."""
        return {"name": self.name, "args": dict(self.args), "fingerprint": self.fingerprint}


def prepare(producers: Mapping[str, Producer]) -> list[Call]:
    """Describe producers, in their order.

    Args:
        producers: name -> function of (item, times), settings bound with `functools.partial`.

    Raises:
        UserError: one can't be called.
    """
    return [_prepare(name, function) for name, function in producers.items()]


def _prepare(name: str, producer: Producer) -> Call:
    if not callable(producer):
        raise UserError(
            f"producers.{name} is {producer!r}, no function. Choose a file of conf/producers, for example "
            f"producers='[lin]', or give producers.{name} the keys _target_ and _partial_: true."
        )
    function = producer.func if isinstance(producer, partial) else producer
    keywords = producer.keywords if isinstance(producer, partial) else {}
    try:
        args = json.loads(json.dumps(keywords, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"producers.{name}: {dict(keywords)} must be plain values: {error}.") from None
    target = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    hashes = {str(path): _sha256(path) for path in _files(function, args)}
    settings = {"name": name, "target": target, "args": args, "files": hashes}
    return Call(name, producer, args, fingerprint(settings))


def _files(function: Callable[..., Any], args: Mapping[str, Any]) -> list[Path]:
    """Files whose content decides about the columns: those that settings name, and a user's own code."""
    named = [Path(text) for text in _strings(args)]
    code = source_file(args["path"]) if function is python and args.get("path") else None
    if function.__module__.partition(".")[0] != "voxlab":
        code = source_file(function.__module__)
    return sorted({path for path in [*named, *([code] if code else [])] if path.is_file()})


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
            raise
        raise ValueError(f"producer_failed: {call.name}: {type(error).__name__}: {error}") from error
    if not isinstance(columns, Mapping):
        raise ValueError(
            f"producer_failed: {call.name} returned a {type(columns).__name__}; needs {{name: (T,) array}}"
        )
    return {name: np.asarray(column) for name, column in columns.items()}


def _has_code(reason: str) -> bool:
    """Reasons of bad items begin with one word of small letters: "bad_midi", "bad_audio:empty"."""
    code = reason.partition(":")[0]
    return code.isidentifier() and code.islower() and "_" in code
