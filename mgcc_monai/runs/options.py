"""The options of a bundle, as its ``options.yaml`` lists them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.parse import parse_bool

__all__ = ["Option", "find_bundle", "option_table", "read_options", "wrong_values"]

_LISTS = {
    "sides": ("integer", "[128, 128]"),
    "integers": ("integer", "[32, 64]"),
    "numbers": ("number", "[0.5, 0.5]"),
    "switches": ("switch", "[True, False]"),
}


class Option(NamedTuple):
    """A top-level name of the configs, as ``options.yaml`` describes it."""

    kind: str
    meaning: str
    default: Any = None
    unit: str = ""
    least: float | None = None
    most: float | None = None


def read_options(bundle_root: str | Path) -> dict[str, Option]:
    """Read a bundle's ``options.yaml``, in ``configs`` or in a run's folder itself; an empty dict where it has none."""
    files = [Path(bundle_root) / "configs" / "options.yaml", Path(bundle_root) / "options.yaml"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return {}
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: Option(**fields) for name, fields in content.items()}


def find_bundle(given: str | None = None) -> Path:
    """Return the bundle's folder: the one that is given, or the one at hand.

    Raises:
        MGCCError: when there is none.
    """
    places = [given] if given else [".", "bundle", Path(__file__).parents[2] / "bundle"]
    for place in places:
        if (Path(place) / "configs" / "metadata.json").is_file():
            return Path(place).absolute()
    raise MGCCError(f"--bundle_root {given or '.'}: there is no configs/metadata.json in it; give the bundle's folder.")


def option_table(options: Mapping[str, Option]) -> str:
    """Return all options for a terminal: name, default, bounds with the unit, and meaning."""
    rows = []
    for name, option in options.items():
        if option.kind != "part":
            bounds = " to ".join(f"{bound:g}" for bound in (option.least, option.most) if bound is not None)
            notes = ", ".join(filter(None, [option.unit, f"from {bounds}" if bounds else ""]))
            default = json.dumps(option.default).strip('"') if option.default != "" else "''"
            rows.append(f"  --{name} ({default})\n      {option.meaning}{f' [{notes}]' if notes else ''}")
    return "\n".join(rows)


def wrong_values(settings: Mapping[str, Any], options: Mapping[str, Option]) -> list[str]:
    """Return what is wrong with the values of options, one line each.

    Args:
        settings: names and values.
        options: see :func:`read_options`.
    """
    errors = [wrong_value(name, settings[name], option) for name, option in options.items() if name in settings]
    return [error for error in [*errors, _wrong_device(settings.get("device"))] if error]


def wrong_value(name: str, value: Any, option: Option) -> str:
    """Return what is wrong with an option's value, or nothing."""
    if (isinstance(value, str) and value[:1] in tuple("$@%")) or option.kind in ("path", "text", "texts", "part"):
        return ""
    if option.kind == "any":
        return _wrong_part(name, value, "number", option) if isinstance(value, int | float) else ""
    if option.kind not in _LISTS:
        return _wrong_part(name, value, option.kind, option)
    kind, example = _LISTS[option.kind]
    if not isinstance(value, list | tuple) or not value or (option.kind == "sides" and len(value) != 2):
        return f"--{name} must be a list such as {example}, got {value}."
    if kind == "switch" and not all(isinstance(part, bool) for part in value):
        return f"--{name} must be a list of True and False, with capital letters, got {value}."
    return next(filter(None, (_wrong_part(name, part, kind, option) for part in value)), "")


def _wrong_part(name: str, value: Any, kind: str, option: Option) -> str:
    if kind == "switch":
        try:
            parse_bool(value, name)
        except MGCCError as error:
            return error.message
        return ""
    bounds = [f">= {option.least:g}"] if option.least is not None else []
    bounds += [f"<= {option.most:g}"] if option.most is not None else []
    number = not isinstance(value, bool) and isinstance(value, int if kind == "integer" else int | float)
    least, most = (-math.inf if option.least is None else option.least, option.most)
    if number and math.isfinite(value) and least <= value and (most is None or value <= most):
        return ""
    article = "an integer" if kind == "integer" else "a number"
    return f"--{name} must be {' '.join([article, ' and '.join(bounds)]).strip()}, got {value}."


def _wrong_device(device: Any) -> str:
    """Return what is wrong with a device's name, or nothing."""
    if not isinstance(device, str) or device[:1] == "$":
        return ""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = one_line(error)
        return f"--device {device}: cannot be used here ({reason}); give cpu, or leave it out."
    return ""
