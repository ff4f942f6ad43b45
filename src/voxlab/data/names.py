"""Names of recordings in tables and lists: one spelling, the recording that is meant, and names in messages."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence

_LISTED = 20


def plain_name(name: str) -> str:
    """Spell a relative path in one way, whichever system wrote it: "/" between folders, composed accents, no "./"."""
    plain = name.strip().replace("\\", "/").removeprefix("./")
    return plain if plain.isascii() else unicodedata.normalize("NFC", plain)


def finder(files: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function that finds the id of a recording by its relative path, with or without suffix.

    Args:
        files: relative path -> id of each recording.
    """
    by_path = {plain_name(name): item_id for name, item_id in files.items()}
    by_id = {plain_name(item_id): item_id for item_id in files.values()}

    def find(name: str) -> str | None:
        plain = plain_name(name)
        return by_path.get(plain) or by_id.get(plain)

    return find


def listed(names: Sequence[str], between: str = ", ") -> str:
    """Join the first 20 names for a message, and count the others."""
    more = f"{between}and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return between.join(names[:_LISTED]) + more


def counted(text: str, names: Sequence[str]) -> list[str]:
    """Return no line for no names; else one with their number in place of `{}`, and the names."""
    return [f"{text.format(len(names))}: {listed(names)}"] if names else []
