"""Folder layouts of datasets as distributed: a registry with one module per layout.

To add a layout from outside this package, call :func:`register` in a file and pass it as ``prepare --layout FILE.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.parse import suggest

_SHOWN = 6  # folders, and kinds of files, in a message

__all__ = ["LAYOUTS", "Layout", "find_layout", "register"]


class Layout(NamedTuple):
    """How a dataset is arranged in its folder.

    Args:
        name: name of the layout.
        looks_like: returns whether a folder has this layout; the first registered match is used.
        scan: returns the cases of a folder and its errors; ``skip`` lists paths not to read.
        description: the arrangement in words, for the message when no layout fits.
        general: it fits more than one dataset, so it is tried last.
    """

    name: str
    looks_like: Callable[[str | Path], bool]
    scan: Callable[[str | Path, Iterable[Any]], tuple[list[Any], list[str]]]
    description: str
    general: bool = False


LAYOUTS: dict[str, Layout] = {}


def register(layout: Layout) -> Layout:
    """Add a layout, or replace the one with the same name."""
    LAYOUTS[layout.name] = layout
    return layout


def find_layout(source: str | Path, name: str = "auto") -> Layout:
    """Return the layout of a folder.

    Args:
        source: the folder.
        name: name of a layout; ``auto`` for the first that fits; or a ``.py`` file to run, which registers one.

    Raises:
        MGCCError: if there is no such layout, none fits, or the file registers none.
    """
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    if str(name).endswith(".py"):
        return _load(Path(name))
    if name != "auto":
        if name not in LAYOUTS:
            names = ", ".join(["auto", *LAYOUTS])
            raise MGCCError(f"--layout {name}: must be one of {names}, or a .py file{suggest(name, LAYOUTS)}")
        return LAYOUTS[name]
    for layout in sorted(LAYOUTS.values(), key=lambda layout: layout.general):
        if layout.looks_like(source):
            return layout
    known = "\n".join(layout.description for layout in LAYOUTS.values())
    raise MGCCError(f"{source}: {_content(Path(source))}; arrange it as one of\n{known}")


def _content(source: Path) -> str:
    """Return what a folder holds, in words."""
    folders = sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    kinds = Counter(path.suffix.lower() or "no suffix" for path in source.rglob("*") if path.is_file())
    if not kinds:
        return "is an empty folder"
    files = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_SHOWN))
    inside = (
        f"folders {', '.join(folders[:_SHOWN])}{', ...' if len(folders) > _SHOWN else ''}" if folders else "no folders"
    )
    return f"fits no known layout: it has {inside} and files {files}"


def _load(path: Path) -> Layout:
    """Run a file and return the last layout that it registers."""
    before = dict(LAYOUTS)
    try:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except FileNotFoundError:
        raise MGCCError(f"--layout {path}: there is no such file.") from None
    except Exception as error:
        raise MGCCError(f"--layout {path}: cannot be run ({one_line(error)}).") from error
    new = [layout for name, layout in LAYOUTS.items() if before.get(name) is not layout]
    if not new:
        raise MGCCError(f"--layout {path}: registers no layout; call mgcc_monai.data.layouts.register in it.")
    return new[-1]
