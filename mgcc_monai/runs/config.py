"""The config that is being run: its parser, its parts as plain values, and whether it says what can be."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser
from monai.bundle.workflows import ConfigWorkflow
from monai.utils import optional_import

from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.parse import suggest
from mgcc_monai.runs.options import read_options, wrong_values

__all__ = ["TRACKED", "active_parser", "active_workflow", "check_config", "literal", "using", "written"]

_RUN_OPTIONS = ("config_file", "meta_file", "logging_file", "tracking", "init_id", "final_id", "run_id", "args_file")
TRACKED = ("experiment_name", "is_not_rank0", "save_execute_config", "tracking_uri")
"""Names that MONAI's ``--tracking`` adds to a config."""

_given: ContextVar[ConfigParser | None] = ContextVar("parser", default=None)


@contextmanager
def using(parser: ConfigParser) -> Iterator[None]:
    """Make a parser the active one, for checks that no config is calling."""
    token = _given.set(parser)
    try:
        yield
    finally:
        _given.reset(token)


def active_parser() -> ConfigParser | None:
    """Return the config parser that is evaluating the caller, if one is.

    A bundle's expressions have no name for their own config; the parser stands on the call stack.
    """
    if (given := _given.get()) is not None:
        return given
    workflow = active_workflow()
    if workflow is not None:
        return workflow.parser
    return next((holder for holder in reversed(_holders()) if isinstance(holder, ConfigParser)), None)


def active_workflow() -> ConfigWorkflow | None:
    """Return the workflow that is evaluating the caller, if one is."""
    return next((holder for holder in _holders() if isinstance(holder, ConfigWorkflow)), None)


def _holders() -> list[Any]:
    """Return the objects whose methods stand on the call stack, innermost first."""
    frame, holders = inspect.currentframe(), []
    while frame is not None:
        holders.append(frame.f_locals.get("self"))
        frame = frame.f_back
    return holders


def literal(parser: ConfigParser, id: str) -> Any:
    """Return a part of a config with every reference, macro and expression in it replaced by its value.

    ``_target_`` dictionaries stay as they are written, so the result can stand alone in a JSON file.

    Args:
        parser: the parser of the config.
        id: the part's id, such as "network_def".

    Raises:
        MGCCError: when a value in it cannot be written as JSON.
    """
    raw = parser.get(id)
    if isinstance(raw, str) and raw[:1] == "@" and isinstance(parser.get(raw[1:]), Mapping | list):
        return literal(parser, raw[1:])
    if isinstance(raw, Mapping):
        return {key: literal(parser, f"{id}::{key}") for key in raw}
    if isinstance(raw, list):
        return [literal(parser, f"{id}::{index}") for index in range(len(raw))]
    value = parser.get_parsed_content(id) if isinstance(raw, str) and raw[:1] in "@$" else raw
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise MGCCError(f"The config's '{id}' is {type(value).__name__}, which no JSON file can hold.") from None


def written(id: str) -> Any:
    """Return a part of the running config as :func:`literal` does."""
    return literal(active_parser(), id)


def check_config(bundle_root: str | Path) -> None:
    """Refuse names in the running config that nothing uses, and values that an option cannot have.

    A top-level name is known when ``options.yaml`` lists it or something in the config refers to it; a name inside a
    component is known when the component has such an argument. Expressions are not looked into.

    Args:
        bundle_root: the bundle's folder; see :func:`read_options`.

    Raises:
        MGCCError: lists every unknown name with the nearest known one, and every such value.
    """
    parser = active_parser()
    if parser is None:
        return
    config = {key: value for key, value in parser.config.items() if key != "_meta_"}
    options = read_options(bundle_root)
    known = {*options, *_RUN_OPTIONS, *(TRACKED if "tracking_uri" in config else ())}
    text = json.dumps(config, default=str)
    errors = []
    for name in config if options else ():
        if name not in known and not re.search(rf"[@%]{re.escape(name)}\b", text):
            errors.append(f"--{name}: there is no such option{suggest(name, known | set(config) - {name})}")
    errors += wrong_values(config, options)
    for id, component in _components(config):
        errors += _unknown_arguments(id, component, parser.locator)
    raise_errors(errors, "options")


def _components(config: Any, id: str = "") -> list[tuple[str, Mapping[str, Any]]]:
    found = []
    items = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    if isinstance(config, Mapping) and "_target_" in config:
        found.append((id, config))
    for key, value in items:
        found += _components(value, f"{id}#{key}" if id else str(key))
    return found


def _unknown_arguments(id: str, component: Mapping[str, Any], locator: ComponentLocator) -> list[str]:
    target = component["_target_"]
    try:
        located = ConfigComponent(config=dict(component), id=id, locator=locator).resolve_module_name()
        if isinstance(located, str):
            module, _, name = located.rpartition(".")
            located, found = optional_import(module, name=name)
            if not found:
                return [f"{id}: '{target}' cannot be imported."]
        parameters = inspect.signature(located).parameters
    except (ModuleNotFoundError, ValueError, TypeError):
        return []
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return []
    extra = [key for key in component if not key.startswith("_") and key not in parameters]
    return [
        f"--{id}#{key}: {str(target).rpartition('.')[2]} has no such argument{suggest(key, parameters)}"
        for key in extra
    ]
