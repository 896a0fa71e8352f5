"""Which class is meant: names as text come first, positions only where no name could be taken for one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mgcc_monai.errors import MGCCError

__all__ = ["class_ids", "class_probabilities"]


def class_ids(labels: Any, names: Sequence[str], count: int) -> list[int]:
    """Return the position of the class of each image.

    A command line or a YAML file has made numbers, lists and such of some words, so what is no text is compared by
    what it looks like: the whole number 2 is the class "2". Where no name is a number, a whole number (a NumPy integer
    too, but no boolean and no float) is the position of a class, from 0.

    Args:
        labels: the class of all images, or a list of one for each.
        names: the classes that the model knows, in order.
        count: number of images.

    Raises:
        MGCCError: for a class that the model does not know, one that cannot be told from another, or a wrong number
            of them.
    """
    labels = _plain(labels)
    if not isinstance(labels, Sequence) or isinstance(labels, str | bytes):
        return [_class_id(labels, names)] * count
    labels = [_plain(label) for label in labels]
    for name in names:
        if "," in name and _parts(name) == [str(label).strip() for label in labels]:
            raise MGCCError(f"--class_labels {name}: was read as a list of classes.{_quoted(name)}")
    if len(labels) != count:
        raise MGCCError(f"--class_labels: {len(labels)} for {count} images; give one, or one an image.")
    return [_class_id(label, names) for label in labels]


def class_probabilities(mix: Any, names: Sequence[str]) -> list[float]:
    """Return the share of each class, which add up to 1; equal ones where none are given.

    Args:
        mix: a number of at least 0 for each class, in order.
        names: the classes.

    Raises:
        MGCCError: when they are not one number a class, or negative.
    """
    try:
        shares = np.asarray(mix if len(mix) else [1.0] * len(names), dtype=np.float64)
    except (TypeError, ValueError):
        shares = np.array(np.nan)
    wrong = shares.shape != (len(names),) or not np.isfinite(shares).all() or (shares < 0).any()
    if wrong or (len(names) and not shares.sum()):
        raise MGCCError(
            f"class_proportions {mix}: give {len(names)} shares from 0 to 1, of {', '.join(names) or 'no class'}."
        )
    return (shares / shares.sum()).tolist() if len(names) else []


def _class_id(label: Any, names: Sequence[str]) -> int:
    text = str(label)
    alike = [] if isinstance(label, str) else [name for name in names if _looks_like(name, label)]
    if len(alike) > 1:
        raise MGCCError(f"--class_labels {text}: may be any of the classes {_list(alike)}.{_quoted(alike[0])}")
    if text in names:
        return names.index(text)
    position = int(text) if not isinstance(label, bool) and re.fullmatch("0|[1-9][0-9]{0,5}", text) else len(names)
    if position < len(names) and not any(map(_numbers, names)):
        return position
    hint = "" if not alike and isinstance(label, str | int) and not isinstance(label, bool) else _quoted(*alike[:1])
    shown = " ".join(text.split())[:80]
    raise MGCCError(f"--class_labels {shown}: no such class; the model knows {_list(names)}.{hint}")


def _plain(value: Any) -> Any:
    """Return what stands in a NumPy or PyTorch number or array; anything else as it is."""
    return value.tolist() if hasattr(value, "tolist") else value


def _numbers(name: str) -> set[float]:
    """Return the numbers that a name may be read as: of decimal digits, as 0x10, or octal with a 0, as in YAML."""
    found = set()
    for read in (float, lambda text: float(int(text, 0)), lambda text: float(int(text, 8 if text[:1] == "0" else 10))):
        with contextlib.suppress(ValueError, OverflowError):
            found.add(read(name))
    return found


def _looks_like(name: str, label: Any) -> bool:
    """Whether a name may have become a value that is no text."""
    is_number = isinstance(label, int | float) and not isinstance(label, bool)
    return name.casefold() == str(label).casefold() or (is_number and label in _numbers(name))


def _parts(name: str) -> list[str]:
    return [part.strip() for part in re.sub(r"[][(){}'\"]", "", name).split(",")]


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _quoted(name: str = "NAME") -> str:
    """Say how to give a name of which the command line would make a number, a list or a truth value."""
    return f" Give such a name in two pairs of quotes: --class_labels \"'{name}'\"."
