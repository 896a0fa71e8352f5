"""Find images and masks in a tree that is split already: ``train``, ``valid`` and ``test``, each with plain folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, is_folders, named_folder, scan_folders

__all__ = ["is_lists", "scan_lists"]

_DESCRIPTION = """\
  SOURCE/train, valid, test, each with images and masks   (split already; valid, val or validation may be missing)"""
_NAMES = {
    "train": "training",
    "training": "training",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
}


def _parts(source: str | Path) -> dict[str, Path]:
    """Return the folders of a source that are lists with plain folders in them."""
    named = {name: named_folder(source, name) for name in _NAMES}
    return {name: folder for name, folder in named.items() if folder is not None and is_folders(folder)}


def is_lists(source: str | Path) -> bool:
    """Return whether a source has folders of training and test images, each with images and masks."""
    return {"training", "test"} <= {_NAMES[name] for name in _parts(source)}


def scan_lists(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of each list; they stay in it.

    Args:
        source: the folder with ``train``, ``valid`` and ``test``.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source, skip = Path(source), list(skip)
    cases, parts = [], _parts(source)
    rest = read_tree(source, [*skip, *parts.values()])
    faults = [*rest.faults, *rest.elsewhere([], "train, valid or test")]
    for name, folder in parts.items():
        found, wrong = scan_folders(folder, skip)
        faults += wrong
        cases += [replace(case, original=f"{folder.name}/{case.original}", split=_NAMES[name]) for case in found]
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("lists", is_lists, scan_lists, _DESCRIPTION))
