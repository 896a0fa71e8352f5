"""What was asked for on the command line and in config files: read strictly, refused where it is misspelt."""

from __future__ import annotations

import difflib
import inspect
import json
import math
import operator
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser
from monai.bundle.workflows import ConfigWorkflow
from monai.utils import optional_import

from mgcc_monai.errors import MGCCError, one_line, raise_faults

__all__ = ["active_parser", "active_workflow", "boolean", "check_options", "literal", "whole"]

_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_FROM_ZERO = ("seed", "cache_num", "preview_count")  # of whole numbers whose default is not 0; and *_warmup
_RUN_OPTIONS = ("config_file", "meta_file", "logging_file", "tracking", "init_id", "final_id", "run_id", "args_file")
_BUNDLE_NAMES = (
    "imports",
    "initialize",
    "finalize",
    "run",
    "training",
    "evaluating",
    "inferring",
    "generating",
    "modality",
)


def boolean(value: Any, name: str = "a switch") -> bool:
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


def whole(value: Any, name: str, least: int) -> int:
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


def active_parser() -> ConfigParser | None:
    """Return the config parser that is evaluating the caller, if one is.

    A bundle's expressions have no name for their own config; the parser stands on the call stack.
    """
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
    if isinstance(raw, Mapping):
        return {key: literal(parser, f"{id}::{key}") for key in raw}
    if isinstance(raw, list):
        return [literal(parser, f"{id}::{index}") for index in range(len(raw))]
    value = parser.get_parsed_content(id) if isinstance(raw, str) and raw[:1] in "@$" else raw
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise MGCCError(f"The config's '{id}' is {type(value).__name__}, which no JSON file can hold.") from None


def known_names(configs: Path) -> set[str]:
    """Return every top-level name that the bundle's configs, presets and methods use."""
    names: set[str] = set()
    for path in sorted(configs.rglob("*")):
        if path.suffix == ".json":
            content = json.loads(path.read_text())
        elif path.suffix in (".yaml", ".yml"):
            content = yaml.safe_load(path.read_text())
        else:
            continue
        names.update(re.split(r"::|#", str(key).lstrip("+"))[0] for key in content or {})
    return names


def _plain_values(configs: Path) -> dict[str, Any]:
    """Return the top-level names to which the bundle's workflows give a plain value, and that value."""
    found: dict[str, Any] = {}
    for path in sorted(configs.glob("*.json")):
        for name, value in json.loads(path.read_text()).items():
            flat = value if isinstance(value, list) and value else [value]
            if all(isinstance(part, bool | int | float) for part in flat):
                found.setdefault(name, value)
    return found


def check_options(configs: str | Path) -> None:
    """Refuse names in the running config that nothing uses, and values that cannot be what the name stands for.

    A top-level name is known when a file of the bundle sets it or something in the config refers to it; a name inside
    a component is known when the component has such an argument. Where the bundle gives a top-level name a switch, a
    number or a list of these, the running config must give it the same; expressions are not looked into.

    Args:
        configs: the bundle's folder of configs; it may be missing.

    Raises:
        MGCCError: lists every unknown name with the nearest known one, and every such value.
    """
    parser = active_parser()
    if parser is None:
        return
    config = {key: value for key, value in parser.config.items() if key != "_meta_"}
    known = known_names(Path(configs)) | {*_RUN_OPTIONS, *_BUNDLE_NAMES}
    text = json.dumps(config, default=str)
    faults = []
    for name in config:
        if name not in known and not re.search(rf"[@%]{re.escape(name)}\b", text):
            others = known | set(config) - {name}
            faults.append(f"--{name}: there is no such option{nearest(name, others)}")
    faults += wrong_values(config, Path(configs))
    for id, component in _components(config):
        faults += _unknown_arguments(id, component, parser.locator)
    raise_faults(faults, "options")


def wrong_values(settings: Mapping[str, Any], configs: Path) -> list[str]:
    """Return what is wrong with the values of options, a line each; see :func:`check_options`.

    Args:
        settings: names and values.
        configs: the bundle's folder of configs.
    """
    defaults = _plain_values(configs)
    faults = [_wrong_value(name, settings[name], default) for name, default in defaults.items() if name in settings]
    return [fault for fault in [*faults, _wrong_device(settings.get("device"))] if fault]


def _wrong_value(name: str, value: Any, default: Any) -> str:
    """Return what is wrong with an option's value, or nothing."""
    if isinstance(value, str) and value[:1] in tuple("$@%"):
        return ""
    if not isinstance(default, list):
        return _wrong_part(name, value, default)
    if not isinstance(value, list | tuple) or not value or (name == "image_size" and len(value) != 2):
        return f"--{name} {value}: give a list such as {default}."
    if isinstance(default[0], bool) and not all(isinstance(part, bool) for part in value):
        return f"--{name} {value}: give a list of True and False, with capital letters."
    return next(filter(None, (_wrong_part(name, part, default[0]) for part in value)), "")


def _wrong_part(name: str, value: Any, default: Any) -> str:
    try:
        if isinstance(default, bool):
            boolean(value, name)
        elif isinstance(default, int):
            whole(value, f"--{name}", 0 if default == 0 or name in _FROM_ZERO or name.endswith("_warmup") else 1)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            return f"--{name} {value}: give a number of at least 0."
    except MGCCError as error:
        return error.message
    return ""


def _wrong_device(device: Any) -> str:
    """Return what is wrong with a device's name, or nothing."""
    if not isinstance(device, str) or device[:1] == "$":
        return ""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        return f"--device {device}: cannot be used here ({reason}); give cpu, or leave it out."
    return ""


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
        f"--{id}#{key}: {str(target).rpartition('.')[2]} has no such argument{nearest(key, parameters)}"
        for key in extra
    ]


def nearest(name: str, known: Any) -> str:
    """Return the end of a message about a name that does not exist: the nearest that does, if one is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "; leave it out."
