"""Which datasets have passed all checks: noted in the folder of results, good as long as no file changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgcc_monai import __version__
from mgcc_monai.data.contents import ALL_LISTS
from mgcc_monai.distributed import is_main_process
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256, write_json

__all__ = ["is_checked", "remember"]

FILE_NAME = ".checked.json"


def _state(datalist: Mapping[str, Any]) -> str:
    """Return a hash over the dataset's file, and the size and time of change of every file that it names."""
    names = {
        item[key]
        for name in ALL_LISTS
        for item in datalist.get(name, [])
        for key in ("image", "label", "withheld_label")
        if item.get(key)
    }
    stamps = [(name, (stat := os.stat(name)).st_size, stat.st_mtime_ns) for name in sorted(map(str, names))]
    return hashlib.sha256(json.dumps([__version__, sha256(datalist["file"]), stamps]).encode()).hexdigest()


def _noted(output_dir: str) -> dict[str, str]:
    try:
        content = json.loads((Path(output_dir) / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def is_checked(datalist: Mapping[str, Any], output_dir: str) -> bool:
    """Tell whether a dataset has passed, and is as it was then.

    Args:
        datalist: the dataset, as :func:`mgcc_monai.data.load_datalist` reads it.
        output_dir: where it would be noted; empty for nowhere.
    """
    noted = _noted(output_dir).get(str(datalist["file"])) if output_dir else None
    try:
        return noted is not None and noted == _state(datalist)
    except OSError:  # a file is missing, which the checks tell
        return False


def remember(datalist: Mapping[str, Any], output_dir: str) -> None:
    """Note that a dataset has passed; arguments as of :func:`is_checked`. Without a place to write it is not noted."""
    if not output_dir or not is_main_process():
        return
    try:
        state = _state(datalist)
        write_json(Path(output_dir) / FILE_NAME, {**_noted(output_dir), str(datalist["file"]): state})
    except (OSError, MGCCError):
        return
