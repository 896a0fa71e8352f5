"""Lists that a client, such as MONAI Label, puts in place of a dataset's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgcc_monai.errors import MGCCError, raise_errors
from mgcc_monai.runs.config import active_parser

__all__ = ["check_client_lists"]


def check_client_lists() -> None:
    """Check the labelled and validation lists of a training where a client has set them.

    The unlabelled images stay those of ``dataset_dir``, so that must name a dataset and not be left to the phantoms.

    Raises:
        MGCCError: when it is, or an item has no image or label that exists.
    """
    parser = active_parser()
    lists = {part: parser.get(f"{part}::dataset::data") for part in ("train", "validate")} if parser else {}
    lists = {part: items for part, items in lists.items() if isinstance(items, list)}
    if not lists:
        return
    if str(parser.get("dataset_dir")).startswith("$"):
        raise MGCCError(
            f"{next(iter(lists))}#dataset#data: is a client's list, and without --dataset_dir its unlabelled images "
            "would be phantoms; set dataset_dir in configs/train.json to a prepared dataset."
        )
    errors = [error for items in lists.values() for item in items for error in _wrong(item)]
    raise_errors(list(dict.fromkeys(errors)), "the client's lists")


def _wrong(item: Any) -> list[str]:
    if not isinstance(item, Mapping):
        return [f"{item!r}: is no item; give an object with image and label."]
    missing = [name for name in ("image", "label") if not isinstance(item.get(name), str)]
    if missing:
        return [f"{item.get('image', item)}: has no {' and no '.join(missing)}; label it, or leave it out."]
    files = [item["image"], item["label"]]
    return [f"{file}: there is no such file; correct the client's list." for file in files if not Path(file).is_file()]
