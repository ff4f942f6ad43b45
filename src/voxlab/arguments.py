"""Words of the command line that can't be meant, refused before Hydra reads them."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping

from voxlab.errors import UserError


def refuse_arguments(arguments: list[str], unknown: list[str], overrides: list[str]) -> None:
    """Stop at `--key value` and `key value`, and say how they are written here.

    Args:
        arguments: the whole command line.
        unknown: those that look like options but are none of Hydra's.
        overrides: those that are taken for key=value.

    Raises:
        UserError: shows the corrected words.
    """
    wrong = next((word for word in unknown if word.startswith("-")), None)
    if wrong is None:
        wrong = next((word for word in overrides if "=" not in word and not word.startswith("~")), None)
    if wrong is None:
        return
    before = arguments[arguments.index(wrong) - 1]
    if re.fullmatch(r"-?[\d.]+", wrong) and "=" in before:
        raise UserError(f"{before} {wrong}: several values are joined by commas.\nWrite: -m {before},{wrong}")
    key, equals, value = wrong.lstrip("-").partition("=")
    if option := difflib.get_close_matches(key, ["help", "multirun"], 1, cutoff=0.7):
        raise UserError(f"{wrong}: there is no such option. Did you mean: --{option[0]}?")
    following = arguments[arguments.index(wrong) + 1 :][:1]
    if not equals:
        value = following[0] if following and "=" not in following[0] and following[0][0] != "-" else "VALUE"
    kind = "there is no such option" if wrong.startswith("-") else "this has no value"
    raise UserError(
        f"{wrong}: {kind}; settings are written key=value.\nWrite: python main.py {key.replace('-', '_')}={value}"
    )


def refuse_empty_places(words: Iterable[str], places: Collection[str]) -> None:
    """Stop at a folder or file that is left empty, as out=$UNSET is: it would be the current folder.

    Args:
        words: of the command line, taken for key=value.
        places: keys that hold a folder or a file.

    Raises:
        UserError: names the key.
    """
    for word in words:
        key = word.removesuffix("=").lstrip("+")
        if word.endswith("=") and key in places:
            raise UserError(f"{word} names no place.\nWrite {key}=<folder or file>, or leave the word out.")


def refuse_values_of_groups(words: Iterable[str], options: Mapping[str, Iterable[str]]) -> None:
    """Stop at what is no word where an option belongs: data=5, optim=null.

    Args:
        words: of the command line, taken for key=value.
        options: group -> options.

    Raises:
        UserError: names the options.
    """
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if group in options and re.fullmatch(r"null|true|false|-?[\d.]+", value, re.IGNORECASE):
            raise UserError(f"{word}: there is no such option.\nOptions of {group}: {', '.join(options[group])}")
