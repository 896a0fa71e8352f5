"""Words and numbers of a user, read strictly."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mgcc_monai.errors import MGCCError

__all__ = ["Word", "nearest", "parse_bool", "parse_int", "split_words", "suggest"]

_FLAG = re.compile("--|-[a-zA-Z]")

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def parse_bool(value: Any, name: str = "a switch") -> bool:
    """Read a switch strictly; on the command line ``false`` arrives as a string, which Python takes for true.

    Args:
        value: a bool, 0 or 1, or one of the words true, false, yes, no, on, off in any case.
        name: the option, for the message.

    Raises:
        MGCCError: when it is anything else.
    """
    word = str(value).strip().lower()
    if word not in _WORDS:
        raise MGCCError(f"--{name} {value}: is neither true nor false; give one of the two.")
    return _WORDS[word]


def parse_int(value: Any, name: str, least: int) -> int:
    """Return a whole number.

    Args:
        value: an int of any kind.
        name: the option, for the message.
        least: the smallest that is allowed.

    Raises:
        MGCCError: when it is none, or smaller.
    """
    try:
        number = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        raise MGCCError(f"{name} {value}: give a whole number of at least {least}.")
    return number


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the name that is most like another one, or nothing where none is."""
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)), "")


def suggest(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a name that does not exist: the nearest that does, if one is near."""
    close = nearest(name, names)
    return f"; did you mean '{close}'?" if close else "; leave it out."


class Word(NamedTuple):
    """An option as typed: its name, its text (None where there is none), and whether it is ``--name=text``."""

    name: str
    text: str | None
    joined: bool


def split_words(words: Sequence[str]) -> tuple[list[Word], list[str]]:
    """Split the words behind a command as fire does: options with their text, and words that stand alone."""
    options, alone, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not _FLAG.match(word):
            alone.append(word)
            continue
        name, joined, text = word.lstrip("-").partition("=")
        if not joined:
            text = rest.pop(0) if rest and not _FLAG.match(rest[0]) else None
        options.append(Word(name.replace("-", "_"), text, bool(joined)))
    return options, alone
