"""The format of ``dataset.json``, and the only code that writes or reads it.

The file has a header and the lists ``training`` (labelled), ``unlabeled``, ``validation``, ``test`` and ``normal``.
An item has ``image``, ``label`` (except in ``unlabeled``, where ``withheld_label`` names a label that exists but must
not be used), ``class``, ``group``, ``source`` (real, synthetic or phantom), ``original``, ``sha256``, ``label_sha256``
and, if known, ``spacing``: the (row, column) pixel size in mm.
Paths are relative to the file. The sha256 values are computed from the pixels (see :func:`image_sha256`), so they do
not depend on the PNG encoder. An optional list ``left_out`` holds images that other splits may use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_monai.data.checks.dataset import FILES, Dataset, find_dataset, read_content
from mgcc_monai.data.checks.lists import leaks, reading_errors
from mgcc_monai.data.contents import ALL_LISTS, FILE_NAME, LISTS, dataset_hash, image_sha256, image_statistics
from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.files import write_json

__all__ = ["load_datalist", "write_dataset"]


def _complete(folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the defaults and hashes that an item lacks."""
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
    """Write a dataset file; its images and labels must already be in the folder.

    Missing hashes of items, the classes, the statistics (over ``training`` and ``unlabeled``, or the ``test`` of an
    ``external`` dataset) and the dataset's hash are computed.

    Args:
        folder: the folder to write to; the items' paths are relative to it.
        items_by_list: items for the lists of ``LISTS`` (missing ones are empty) and for ``left_out``.
        file_name: the file's name.
        header: further entries, such as ``name``, ``description``, ``protocol``, ``split_seed``, ``label_fraction``.

    Returns:
        The file's path.

    Raises:
        MGCCError: if a group is in two lists under the ``strict`` protocol, or there is no image to train on (to
            evaluate on, in an ``external`` dataset).
        ValueError: if a list name is unknown.
    """
    folder = Path(folder)
    if unknown := set(items_by_list) - set(ALL_LISTS):
        raise ValueError(f"no such lists: {', '.join(sorted(unknown))}; there are {', '.join(LISTS)}")
    lists = {name: [_complete(folder, item) for item in items_by_list.get(name, [])] for name in ALL_LISTS}
    if not lists["left_out"]:
        del lists["left_out"]
    external = header.get("protocol") == "external"
    measured = lists["test"] if external else lists["training"] + lists["unlabeled"]
    if not measured:
        nothing = (
            "test; there is nothing to evaluate on"
            if external
            else "training or unlabeled; there is nothing to train on"
        )
        raise MGCCError(f"{folder}: no image in {nothing}")
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
    raise_errors(leaks(Dataset(folder / file_name, content | lists)), str(folder / file_name))
    if "statistics" not in content:
        content["statistics"] = image_statistics([folder / item["image"] for item in measured])
    return write_json(folder / file_name, content | {"hash": dataset_hash(lists)} | lists)


@plain_os_errors()
def load_datalist(dataset_dir: str | Path, leaking: bool = False) -> dict[str, Any]:
    """Read a dataset file and run those of its checks that need no pixels.

    Args:
        dataset_dir: the dataset's folder, or a file like ``dataset.json`` itself.
        leaking: accept groups that are in several lists, for example to draw the lists again.

    Returns:
        The file's content, with absolute paths of ``image``, ``label`` and ``withheld_label``; ``folder``, the folder
        they were relative to; and ``file``, the file's own path. An item without ``spacing`` gets ``[0.0, 0.0]``, and
        one without a column of others, such as ``birads``, an empty text, so that items can be batched.

    Raises:
        MGCCError: if there is no dataset, or its file is damaged, names files that are missing or outside its folder,
            was changed by hand, or leaks between its lists under the ``strict`` protocol. All errors are listed.
    """
    file = find_dataset(dataset_dir)
    content, error = read_content(file)
    if error:
        raise MGCCError(f"{file}: {error}; run prepare again")
    data = Dataset(file, content)
    raise_errors(reading_errors(data, leaking), str(file))
    columns = {key for _, item in data.items() for key, value in item.items() if isinstance(value, str)}
    blank = dict.fromkeys(columns - {*FILES, "class", "label_sha256"}, "")
    for _, item in data.items():
        item.update({key: os.path.join(file.parent, item[key]) for key in FILES if key in item})
        item.update({"spacing": [0.0, 0.0], **blank, **item})
    return {**content, "folder": str(file.parent), "file": str(file)}
