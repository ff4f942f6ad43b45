"""How values and text become HTML on a report page: numbers spelled, everything escaped, long words breakable."""

import html
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

_LONG_WORD = re.compile(r"\S{20,}")  # paths and the like, which may have to be broken


def spell(value: Any) -> str:
    """Spell a value: 1234567 as 1,234,567; floats to four digits; None and empty collections as a dash."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {spell(item)}" for name, item in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(spell(item) for item in value) or "–"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return f"{int(value):,}"
    if isinstance(value, Real):
        number = float(value)
        return f"{number:,.0f}" if 1e4 <= abs(number) < 1e15 else f"{number:.4g}"
    return str(value)


def escape(value: object) -> str:
    """Escape text for HTML, quotes as well."""
    # File names can hold lone surrogates (undecodable bytes), which no UTF-8 page may.
    return html.escape(str(value).encode("utf-8", "backslashreplace").decode(), quote=True)


def escape_words(value: object) -> str:
    """Escape text that may hold paths and names, which are rather broken after / and _ than anywhere in them."""
    return _LONG_WORD.sub(lambda word: re.sub(r"([/_]+)(?=.)", r"\1<wbr>", word[0]), escape(value))
