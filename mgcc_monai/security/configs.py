"""Reading a bundle's configs and its logging.conf without evaluating anything, and saying what they would run."""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import logging
import logging.handlers
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ReferenceResolver

from mgcc_monai.security.expressions import expression_faults
from mgcc_monai.security.targets import argument_faults, target_fault

__all__ = ["MAX_BYTES", "MAX_DEPTH", "config_faults", "file_faults", "logging_faults"]

MAX_BYTES = 2_000_000
"""Bytes of a config that is read; ours have some 20,000."""

MAX_DEPTH = 50
"""Levels of nesting that are read; ours have 8."""

_STREAMS = ("sys.stderr", "sys.stdout")
_LITERAL = (ast.Constant, ast.Dict, ast.Expression, ast.List, ast.Load, ast.Tuple, ast.UnaryOp, ast.USub)
_HANDLERS = ("NullHandler", "StreamHandler")
_EVALUATED = ("args", "kwargs", "defaults")


def config_faults(config: Any, id: str = "") -> Iterator[tuple[str, str]]:
    """Find every component and expression of a config that is not on the list.

    Args:
        config: what a JSON or YAML file holds.
        id: the config's place in its file.

    Yields:
        the place and what is wrong there.
    """
    stack = [(id, config, 0)]
    while stack:
        place, value, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield place[:200], f"is nested more than {MAX_DEPTH} levels deep"
            continue
        if isinstance(value, str):
            for fault in _text_faults(place, value):
                yield place, fault
        elif isinstance(value, Mapping):
            for name, fault in argument_faults(value):
                yield f"{place}#{name}".lstrip("#"), fault
            for key, inner in reversed(value.items()):
                inside = f"{place}#{key}" if place else str(key)
                last = ReferenceResolver.split_id(str(key))[-1].lstrip("+")
                if last == "_target_" and (fault := target_fault(inner)):
                    yield inside, f"_target_ {fault}"
                elif last != key:  # the overlay's way to say it, as in "validate#dataset#reader"
                    yield from ((inside, fault) for _, fault in argument_faults({last: inner}))
                stack.append((inside, inner, depth + 1))
        elif isinstance(value, list):
            stack += [(f"{place}#{i}", inner, depth + 1) for i, inner in reversed(list(enumerate(value)))]


def _text_faults(place: str, value: str) -> list[str]:
    if value.startswith("$"):
        return [f"expression {fault}" for fault in expression_faults(value, place)]
    if value.startswith("%") and any(end in value.lower() for end in (".json", ".yaml", ".yml")):
        return [f"'{value[:80]}' reads another file, which may be anywhere"]
    return []


def file_faults(path: Path) -> list[tuple[str, str]]:
    """Find what is not allowed in one JSON or YAML file.

    Args:
        path: the file, which ends in .json, .yaml or .yml.

    Returns:
        Pairs of the place in it (may be empty) and what is wrong.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        return [("", f"has {size} bytes, more than the {MAX_BYTES} that are read")]
    twice: list[str] = []
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            config = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, twice))
        else:
            aliases = [
                event for event in yaml.parse(text, Loader=yaml.SafeLoader) if isinstance(event, yaml.AliasEvent)
            ]
            if aliases:
                return [("", f"has the YAML alias '*{aliases[0].anchor}'; a few of them can fill the memory")]
            _keys(yaml.compose(text, Loader=yaml.SafeLoader), twice)
            config = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        return [("", f"cannot be read ({' '.join(str(error).split())[:160] or type(error).__name__})")]
    faults = [("", f"has the key '{key}' twice; another reader may see the other value") for key in twice]
    return faults + list(config_faults(config))


def _once(pairs: list[tuple[str, Any]], twice: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            twice.append(key)
        content[key] = value
    return content


def _keys(node: yaml.Node | None, twice: list[str]) -> None:
    if isinstance(node, yaml.MappingNode):
        names = [str(key.value) for key, _ in node.value]
        twice += sorted({name for name in names if names.count(name) > 1})
        for pair in node.value:
            for part in pair:
                _keys(part, twice)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _keys(part, twice)


def logging_faults(path: Path) -> list[tuple[str, str]]:
    """Find what a logging.conf would run: ``logging.config.fileConfig`` evaluates several of its options.

    These are ``class``, ``args``, ``kwargs`` and, since Python 3.12, ``defaults``.

    Args:
        path: the file.

    Returns:
        Pairs of the section and option, and what is wrong.
    """
    if path.stat().st_size > MAX_BYTES:
        return [("", f"has more than the {MAX_BYTES} bytes that are read")]
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (ValueError, configparser.Error) as error:
        return [("", f"cannot be read ({' '.join(str(error).split())[:160]})")]
    faults = []
    for section in [*parser.sections(), parser.default_section]:
        for option, value in parser.items(section):
            fault = ""
            if option == "class":
                fault = _class_fault(value.strip())
            elif option in _EVALUATED:
                fault = _literal_fault(value.strip())
            if fault:
                faults.append((f"{section}#{option}", fault))
    return faults


def _class_fault(name: str) -> str:
    """Of the standard library: a handler of streams, or a formatter."""
    last = name.rpartition(".")[2]
    for home in (logging, logging.handlers):
        known = getattr(home, last, None) if name in (last, f"{home.__name__}.{last}") else None
        if inspect.isclass(known) and (last in _HANDLERS or issubclass(known, logging.Formatter)):
            return ""
    return f"'{name[:80]}' is neither logging's StreamHandler or NullHandler nor a formatter"


def _literal_fault(text: str) -> str:
    if not text:
        return ""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"cannot be read ({type(error).__name__})"
    allowed = {id(part) for node in ast.walk(tree) if ast.unparse(node) in _STREAMS for part in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) not in allowed and not isinstance(node, _LITERAL):
            return f"'{text[:80]}' is more than plain values, sys.stderr and sys.stdout; it would be evaluated"
    return ""
