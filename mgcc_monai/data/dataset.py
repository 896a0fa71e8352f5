"""``dataset.json``: what a dataset is, and the only code that writes or reads it.

The file has a header and the lists ``training`` (labelled), ``unlabeled``, ``validation``, ``test`` and ``normal``.
An item has ``image``, ``label`` (none in ``unlabeled``; there ``withheld_label`` names one that exists but is not to
be used), ``class``, ``group``, ``source`` (real, synthetic or phantom), ``original``, ``sha256`` and ``label_sha256``,
and where it is known ``spacing``, the (row, column) size of a pixel in mm.
Paths are relative to the file. The sha256 are of the pixels (see :func:`image_sha256`), so that they do not depend on
the version of a PNG encoder. A list ``left_out`` may follow: images that other splits may use.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.errors import MGCCError, one_line, plain_os_errors, raise_errors
from mgcc_monai.files import write_json

__all__ = [
    "ALL_LISTS",
    "FILE_NAME",
    "LISTS",
    "dataset_hash",
    "find_dataset",
    "image_moments",
    "image_sha256",
    "image_statistics",
    "load_datalist",
    "statistics_of",
    "write_dataset",
]

FILE_NAME = "dataset.json"
LISTS = ("training", "unlabeled", "validation", "test", "normal")
ALL_LISTS = (*LISTS, "left_out")

_FILES = ("image", "label", "withheld_label")
_REQUIRED = ("classes", "protocol", "statistics", "hash", *LISTS)


def image_sha256(pixels: np.ndarray) -> str:
    """Hash an image's or a mask's pixels and shape.

    Args:
        pixels: uint8 HW; masks as 0 and 1.

    Returns:
        64 hex digits: sha256 over ``"HEIGHTxWIDTH:"`` and the rows' bytes.
    """
    height, width = pixels.shape
    return hashlib.sha256(f"{height}x{width}:".encode() + np.ascontiguousarray(pixels, np.uint8).tobytes()).hexdigest()


def dataset_hash(lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Hash what a dataset consists of: which images and labels stand in which list. Names and order do not count.

    Args:
        lists: items by name of list; anything else in it is ignored.

    Returns:
        64 hex digits.
    """
    content = {
        name: sorted([item["sha256"], item["label_sha256"] if "label" in item else ""] for item in lists.get(name, []))
        for name in LISTS
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def image_moments(pixels: np.ndarray) -> tuple[float, float]:
    """Give the mean of an image's pixels and that of their squares, scaled to [0, 1] by the image's own range.

    Args:
        pixels: uint8 HW. A constant image is 0 everywhere.
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    scaled = (levels - levels[0]) / max(levels[-1] - levels[0], 1)
    return float(counts[levels] @ scaled / counts.sum()), float(counts[levels] @ scaled**2 / counts.sum())


def statistics_of(moments: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Give ``mean`` and ``std`` over images of some :func:`image_moments`, as :func:`image_statistics` does."""
    mean, square = (fsum(values) / len(moments) for values in zip(*moments, strict=True))
    return {"mean": round(mean, 6), "std": round(sqrt(max(square - mean**2, 0.0)), 6)}


def image_statistics(paths: Sequence[str | Path]) -> dict[str, float]:
    """Give the mean and standard deviation over all pixels of images, each scaled to [0, 1] by its own range.

    Args:
        paths: the images; at least one. A constant image is 0 everywhere.

    Returns:
        ``mean`` and ``std``, rounded to 6 places; every image has equal weight, whatever its size.
    """
    return statistics_of([image_moments(read_image(path)) for path in paths])


def _leaks(file: Path, lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Under ``strict``, name each group that stands in two of: what is trained on, validation, test."""
    faults, seen = [], {}
    parts = (("training", "training"), ("unlabeled", "training"), ("validation", "validation"), ("test", "test"))
    for name, part in parts:
        for item in lists.get(name, []):
            other, image = seen.setdefault(item["group"], (part, item["image"]))
            if other != part:
                where = f"{item['image']} in {name} has the group {item['group']} of {image} in {other}"
                faults.append(f"{file}: {where}, so the figures would leak; run prepare or split again")
    return faults


def _complete(folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
    """Add the hashes that an item lacks, from its files."""
    item = dict(item)
    item.setdefault("source", "real")
    item.setdefault("original", item["image"])
    if not any(item.get("spacing", ())):
        item.pop("spacing", None)
    if "sha256" not in item:
        item["sha256"] = image_sha256(read_image(folder / item["image"]))
    label = item.get("label", item.get("withheld_label"))
    if label and "label_sha256" not in item:
        item["label_sha256"] = image_sha256(read_mask(folder / label))
    return item


def write_dataset(
    folder: str | Path,
    items_by_list: Mapping[str, Sequence[Mapping[str, Any]]],
    file_name: str = FILE_NAME,
    **header: Any,
) -> Path:
    """Write a dataset's file, once its images and labels are in the folder.

    Hashes that items lack, the classes, the statistics (over ``training`` and ``unlabeled``) and the dataset's hash
    are worked out.

    Args:
        folder: where the file goes, and what its items' paths are relative to.
        items_by_list: items for the lists of ``LISTS`` (one left out is empty), and for ``left_out``.
        file_name: the file's name.
        header: further entries, as ``name``, ``description``, ``protocol``, ``split_seed``, ``label_fraction``.

    Returns:
        The file's path.

    Raises:
        MGCCError: if under the ``strict`` protocol a group stands in two lists, or nothing is to be trained on.
        ValueError: if a list has another name.
    """
    folder = Path(folder)
    if unknown := set(items_by_list) - set(ALL_LISTS):
        raise ValueError(f"no such lists: {', '.join(sorted(unknown))}; there are {', '.join(LISTS)}")
    lists = {name: [_complete(folder, item) for item in items_by_list.get(name, [])] for name in ALL_LISTS}
    if not lists["left_out"]:
        del lists["left_out"]
    trained_on = [item["image"] for item in lists["training"] + lists["unlabeled"]]
    if not trained_on:
        raise MGCCError(f"{folder}: no image in training or unlabeled; there is nothing to train on")
    content: dict[str, Any] = {
        "name": folder.resolve().name,
        "description": "",
        "modality": {"0": "US"},
        "labels": {"0": "background", "1": "lesion"},
        "file_format": 1,
        "classes": sorted({item["class"] for name in ("training", "validation", "test") for item in lists[name]}),
        "protocol": "strict",
        **header,
    }
    if content["protocol"] == "strict":
        raise_errors(_leaks(folder / file_name, lists), str(folder / file_name))
    if "statistics" not in content:
        content["statistics"] = image_statistics([folder / image for image in trained_on])
    return write_json(folder / file_name, content | {"hash": dataset_hash(lists)} | lists)


@plain_os_errors()
def find_dataset(dataset_dir: str | Path) -> Path:
    """Give the absolute path of a dataset's file.

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


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _check_item(file: Path, name: str, item: Any) -> list[str]:
    """Faults of one item: keys, and paths that leave the folder."""
    needed = ["image", "class", "group", "sha256"]
    needed += ["label", "label_sha256"] if name not in ("unlabeled", "left_out") else []
    if not isinstance(item, dict):
        return [f"{file}: an item of {name} is not an object: {item!r}"]
    if missing := [key for key in needed if not isinstance(item.get(key), str)]:
        return [f"{file}: an item of {name} lacks {', '.join(missing)}: {item.get('image', item)}"]
    if name in ("unlabeled", "left_out") and "label" in item:
        return [f"{file}: an item of {name} has a label: {item['image']}; name it withheld_label"]
    spacing = item.get("spacing", [1.0, 1.0])
    if not (isinstance(spacing, list) and len(spacing) == 2 and all(_is_length(length) for length in spacing)):
        return [f"{file}: the spacing of {item['image']} is {spacing}; give [row, column] in mm, or none"]
    faults, root = [], file.parent.resolve()
    for path in (item[key] for key in _FILES if key in item):
        parts = PureWindowsPath(str(path))  # which takes both kinds of slashes, and knows of drives
        try:
            inside = (root / path).resolve().is_relative_to(root)
            there = inside and (root / path).is_file()
        except (OSError, RuntimeError, TypeError, ValueError):  # too long, a loop of links, no text, a NUL in it
            faults.append(f"{file}: {str(path)[:80]!r} is no path; run prepare again")
            continue
        if parts.anchor or ".." in parts.parts or not inside:
            faults.append(f"{file}: {path} lies outside the dataset's folder; paths must be relative and stay in it")
        elif not there:
            faults.append(f"{file.parent / path}: missing; copy it back or run prepare again")
    return faults


@plain_os_errors()
def load_datalist(dataset_dir: str | Path, leaks: bool = False) -> dict[str, Any]:
    """Read and check a dataset's file.

    Args:
        dataset_dir: the dataset's folder, or a file like ``dataset.json`` itself.
        leaks: also read one whose groups stand in several lists, as to draw its lists anew.

    Returns:
        The file's content, with the paths of ``image``, ``label`` and ``withheld_label`` made absolute, ``folder``,
        what they were relative to, and ``file``, its own path. An item without ``spacing`` gets ``[0.0, 0.0]``, so that
        all can be batched.

    Raises:
        MGCCError: if there is no dataset, or its file is damaged, names files that are missing or outside its folder,
            was changed by hand, or leaks between its lists under the ``strict`` protocol. All faults are told.
    """
    file = find_dataset(dataset_dir)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no text, no JSON, a number or a nesting without end
        raise MGCCError(f"{file}: not valid JSON ({one_line(error)}); run prepare again") from error
    keys = content if isinstance(content, dict) else {}
    if missing := [key for key in _REQUIRED if key not in keys]:
        raise MGCCError(f"{file}: lacks {', '.join(missing)}; it is no dataset of `prepare`, run prepare again")
    names = [name for name in ALL_LISTS if name in content]
    if wrong := [name for name in names if not isinstance(content[name], list)]:
        raise MGCCError(f"{file}: {', '.join(wrong)} should be lists; run prepare again")
    faults = [fault for name in names for item in content[name] for fault in _check_item(file, name, item)]
    raise_errors(list(dict.fromkeys(faults)), str(file))
    if content["protocol"] == "strict" and not leaks:
        raise_errors(_leaks(file, content), str(file))
    if content["hash"] != dataset_hash(content):
        raise MGCCError(f"{file}: its lists were changed since it was written; run prepare or split again")
    for name in names:
        for item in content[name]:
            item.update({key: os.path.join(file.parent, item[key]) for key in _FILES if key in item})
            item.setdefault("spacing", [0.0, 0.0])
    content |= {"folder": str(file.parent), "file": str(file)}
    return content
