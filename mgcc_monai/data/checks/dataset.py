"""A dataset file as found, valid or not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mgcc_monai.data.contents import ALL_LISTS, FILE_NAME
from mgcc_monai.errors import MGCCError, one_line, plain_os_errors
from mgcc_monai.files import is_inside

__all__ = ["FILES", "PARTS", "Dataset", "find_dataset", "lacking", "read_content"]

FILES = ("image", "label", "withheld_label")
PARTS = {"training": "training", "unlabeled": "training", "validation": "validation", "test": "test"}

_LABELLED = ("training", "validation", "test", "normal")


@plain_os_errors()
def find_dataset(dataset_dir: str | Path) -> Path:
    """Return the absolute path of a dataset file.

    Args:
        dataset_dir: the dataset's folder, or a file like ``dataset.json`` itself.

    Raises:
        MGCCError: if there is none.
    """
    path = Path(os.path.abspath(str(dataset_dir)))
    if path.is_dir() and (path / FILE_NAME).is_file():
        return path / FILE_NAME
    if path.is_dir():
        cure = f"run `python -m mgcc_monai prepare --source FOLDER --output {path}`"
        raise MGCCError(f"{path}: no {FILE_NAME} in this folder; {cure}")
    if not path.is_file():
        raise MGCCError(f"{path}: no such dataset; run `python -m mgcc_monai prepare --source FOLDER --output {path}`")
    return path


def read_content(file: Path) -> tuple[dict[str, Any], str]:
    """Read a dataset file; return its content and what is wrong with it, if anything."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        return {}, f"cannot be read ({error.strerror or error})"
    except (ValueError, RecursionError) as error:  # not text, not JSON, or a number or nesting that is too long
        return {}, f"not valid JSON ({one_line(error)})"
    return (content, "") if isinstance(content, dict) else ({}, "no JSON object")


def lacking(name: str, item: Any) -> list[str]:
    """Return the names of the entries that a list item needs but lacks."""
    needed = ["image", "class", "group", "sha256"] + (["label", "label_sha256"] if name in _LABELLED else [])
    return [key for key in needed if not isinstance(item, dict) or not isinstance(item.get(key), str)]


@dataclass
class Dataset:
    """A dataset file as found, with its valid items.

    Args:
        file: the file.
        content: its content.
        lists: valid items by list.
    """

    file: Path
    content: Mapping[str, Any]
    lists: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.lists = {name: [item for item in self.raw(name) if not lacking(name, item)] for name in ALL_LISTS}

    def raw(self, name: str) -> list[Any]:
        """Return everything in a list; nothing if it is not a list."""
        items = self.content.get(name, [])
        return items if isinstance(items, list) else []

    def items(self, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the valid items of some or all lists, each with its list's name."""
        return ((name, item) for name in names or ALL_LISTS for item in self.lists[name])

    @property
    def strict(self) -> bool:
        """Whether groups must be kept apart."""
        return self.content.get("protocol") != "published"

    def path(self, relative: str) -> Path:
        """Resolve an item's path against the dataset's folder."""
        return self.file.parent / relative

    def inside(self, relative: Any) -> bool:
        """Return whether an item's path stays in the dataset's folder."""
        return is_inside(self.file.parent, relative)

    def present(self, relative: Any) -> bool:
        """Return whether an item's path stays in the dataset's folder and exists."""
        return self.inside(relative) and os.path.isfile(self.path(relative))
