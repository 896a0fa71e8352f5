"""A dataset's file as found, sound or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from mgcc_monai.data.dataset import ALL_LISTS

__all__ = ["FILES", "PARTS", "Dataset", "lacking"]

FILES = ("image", "label", "withheld_label")
PARTS = {"training": "training", "unlabeled": "training", "validation": "validation", "test": "test"}

_LABELLED = ("training", "validation", "test", "normal")


def lacking(name: str, item: Any) -> list[str]:
    """Name the entries that an item of a list needs and has not."""
    needed = ["image", "class", "group", "sha256"] + (["label", "label_sha256"] if name in _LABELLED else [])
    return [key for key in needed if not isinstance(item, dict) or not isinstance(item.get(key), str)]


@dataclass
class Dataset:
    """A dataset's file as found, and those of its items that are sound.

    Args:
        file: the file.
        content: what it holds.
        lists: sound items by list.
    """

    file: Path
    content: Mapping[str, Any]
    lists: dict[str, list[dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.lists = {name: [item for item in self.raw(name) if not lacking(name, item)] for name in ALL_LISTS}

    def raw(self, name: str) -> list[Any]:
        """All that stands in a list; nothing if it is none."""
        items = self.content.get(name, [])
        return items if isinstance(items, list) else []

    def items(self, *names: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Sound items with their lists' names, of some lists or of all."""
        return ((name, item) for name in names or ALL_LISTS for item in self.lists[name])

    @property
    def strict(self) -> bool:
        """Whether groups are to be kept apart."""
        return self.content.get("protocol") != "published"

    def path(self, relative: str) -> Path:
        """A path of an item, from where the program runs."""
        return self.file.parent / relative

    def inside(self, relative: str) -> bool:
        """Whether a path of an item stays in the dataset's folder."""
        parts = PureWindowsPath(relative)  # which takes both kinds of slashes, and knows of drives
        inside = self.path(relative).resolve().is_relative_to(self.file.parent.resolve())
        return inside and not parts.anchor and ".." not in parts.parts
