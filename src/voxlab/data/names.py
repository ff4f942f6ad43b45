"""Names of recordings in tables and lists: one spelling, the recording that is meant, and names in messages."""

import re
from collections.abc import Callable, Mapping, Sequence

from voxlab.storage import plain_name

_LISTED = 20
_FORMS = re.compile(r"\[([^][|]*)\|([^][|]*)\]")


def finder(files: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function that finds the id of a recording by its relative path, with or without suffix.

    Args:
        files: relative path -> id of each recording.
    """
    ids = set(files.values())
    by_path = {plain_name(name): item_id for name, item_id in files.items()}
    by_id = {plain_name(item_id): item_id for item_id in ids}

    def find(name: str) -> str | None:
        exact = files.get(name) or (name if name in ids else None)
        if exact is not None:
            return exact
        plain = plain_name(name)
        return by_path.get(plain) or by_id.get(plain)

    return find


def listed(names: Sequence[str], between: str = ", ") -> str:
    """Join the first 20 names for a message, and count the others."""
    more = f"{between}and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return between.join(names[:_LISTED]) + more


def counted(text: str, names: Sequence[str]) -> list[str]:
    """Return no line for no names; else one with `text` as `inflected` to their number, and the names."""
    return [f"{inflected(text, len(names))}: {listed(names)}"] if names else []


def inflected(text: str, number: int) -> str:
    """Put a number in place of `{}`, and of each `[file is|files are]` the form that goes with it."""
    return _FORMS.sub(r"\1" if number == 1 else r"\2", text).replace("{}", str(number))
