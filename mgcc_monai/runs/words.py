"""Words of a command line: what was typed, what fire and MONAI read of it, and how text passes both unchanged.

fire reads every word as Python where it can (``scan#2`` is ``scan``, ``2024_06_30`` is 20240630), and MONAI turns ``#``
into ``::`` in every string of a config.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from fire.parser import DefaultParseValue

from mgcc_monai.errors import MGCCError, raise_errors, tell_os_errors
from mgcc_monai.parse import split_words
from mgcc_monai.runs.options import Option, read_options

__all__ = ["check_call", "is_text", "lost", "monai_text"]

_SYNTAX = ("$", "@", "%")  # with which an expression, a reference and a macro of a config begin
_PATHS = ("_dir", "_path", "_root")


def monai_text(text: str) -> str:
    """Write text so that fire and MONAI read it back unchanged: as it is where they do, else as a Python string."""
    if not set(text) & set("#@%$") and text[:1] not in ("-", "~") and DefaultParseValue(text) == text:
        return text
    return "$" + re.sub("[#@%]", lambda found: f"\\x{ord(found[0]):02x}", json.dumps(text, ensure_ascii=False))


def is_text(name: str, options: Mapping[str, Option]) -> bool:
    """Tell whether an option is a path or a word, which must arrive as it was typed.

    Args:
        name: of the option.
        options: see :func:`mgcc_monai.runs.options.read_options`.
    """
    return options[name].kind in ("path", "text") if name in options else name.endswith(_PATHS)


def lost(text: str | None, as_text: bool) -> bool:
    """Tell whether fire and MONAI would change what was typed.

    Args:
        text: as typed; None where no value was.
        as_text: it is a path or a name, not a number, switch or list.
    """
    if text is None or text.startswith(_SYNTAX):
        return text is None and as_text
    value = DefaultParseValue(text)
    if as_text and value != text:
        return True
    return any("#" in leaf for leaf in _plain(value)) or str(value).count("#") < text.count("#")  # a comment


def check_call(bundle_root: str | Path) -> None:
    """Refuse config files in the wrong order, and options that are not what was typed, before anything is read.

    It looks at the ``monai.bundle run`` that is under way, at the command line if that is one of MONAI's, and at the
    files that it names; elsewhere it does nothing.

    Args:
        bundle_root: the bundle's folder, for its ``options.yaml``.

    Raises:
        MGCCError: lists every error.
    """
    words = None
    if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py") and sys.argv[1:2] != []:
        words, sys.excepthook = sys.argv[2:], tell_os_errors
    given = _running_call()
    if given is None:
        return
    files = _config_files(given.pop("config_file", None))
    _check_order(files)
    options = read_options(bundle_root)
    faults: dict[str, str] = {}
    if words is not None:
        faults |= _typed_faults(words, options)
    for source in (given, *map(_content, files)):
        for name, value in source.items():
            if name not in faults and (fault := _value_fault(str(name), value, is_text(str(name), options))):
                faults[name] = f"--{name} {value}: {fault}"
    raise_errors(list(faults.values()), "options")


def _running_call() -> dict[str, Any] | None:
    """The arguments of the ``monai.bundle.run`` on the call stack, over those of its ``args_file``."""
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "monai.bundle.scripts" and frame.f_code.co_name in (
            "run",
            "run_workflow",
        ):
            found = frame.f_locals
            from monai.bundle import update_kwargs

            options = found.get("override", found.get("kwargs", {}))
            return update_kwargs(found["args_file"], config_file=found.get("config_file"), **options)
        frame = frame.f_back
    return None


def _config_files(given: Any) -> list[Path]:
    return [Path(name) for name in ([given] if isinstance(given, str | os.PathLike) else given or [])]


def _content(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if path.suffix.lower() == ".json" else yaml.safe_load(text)
    return found if isinstance(found, dict) else {}


def _check_order(files: Sequence[Path]) -> None:
    """Workflows come first, presets and methods next, and what moves ``run``, as evaluate.json does, behind them."""
    ranks: list[int] = []
    for path in files:
        content, before = _content(path), max(ranks, default=1)
        if {"imports", "run"} <= content.keys():
            ranks.append(0)
        elif "run" in content:
            ranks.append(2)
        else:
            ranks.append(1 if path.parent.name in ("presets", "methods") else max(1, before))
    for place, (rank, path) in enumerate(zip(ranks, files)):
        if 0 in ranks and rank > min(ranks[place:]):
            ordered = [str(file) for _, file in sorted(zip(ranks, files), key=lambda pair: pair[0])]
            raise MGCCError(
                f"--config_file: {path.name} stands before {files[place + 1].name}, and later files win; give "
                f'"{ordered}".'
            )


def _typed_faults(words: Sequence[str], known: Mapping[str, Option]) -> dict[str, str]:
    """What of MONAI's command line does not arrive as it was typed, by the names of the options."""
    options, alone = split_words(words)
    faults = {}
    if len(alone) > 1:
        faults[""] = f"'{alone[1]}' stands alone: give options as --name value, and put quotes around spaces."
    for name, text, _ in options:
        if name in ("config_file", "args_file", "meta_file", "logging_file") or not lost(text, is_text(name, known)):
            continue
        if text is None:
            faults[name] = f"--{name}: give a value."
            continue
        read = DefaultParseValue(text)
        read = read.replace("#", "::") if isinstance(read, str) else read
        faults[name] = f"--{name} {text}: would be read as {read!r}; write {_cure(name, text)}."
    return faults


def _cure(name: str, text: str) -> str:
    """How to write a value on MONAI's command line so that it arrives."""
    relative = f"./{text}"
    plain = name.endswith(_PATHS) and monai_text(relative) == relative
    return shlex.quote(relative if plain else monai_text(text))


def _value_fault(name: str, value: Any, as_text: bool) -> str:
    """What is wrong with a value, of a file or of Python, that MONAI takes into the config."""
    if changed := next((leaf for leaf in _plain(value) if "#" in leaf), ""):
        return f"'#' would be read as '::'; write {monai_text(changed)} for {changed}."
    if not as_text or value is None and not name.endswith(_PATHS):
        return ""
    if not isinstance(value, str | os.PathLike):
        return "is not text; put it in quotes."
    if str(value)[:1] == "~" and str(value) != os.path.expanduser(value):
        return f"'~' is not expanded here; give {os.path.expanduser(value)}, or ./{value} for a folder of that name."
    return "is empty; give a path." if name.endswith(_PATHS[::2]) and not str(value) else ""


def _plain(value: Any) -> Iterator[str]:
    """The strings in a value that are no expression, reference or macro of a config, nor a description."""
    if isinstance(value, str):
        yield from () if value.startswith(_SYNTAX) else (value,)
    elif isinstance(value, Mapping):
        yield from _plain([part for key, part in value.items() if key != "_desc_"])
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _plain(part)
