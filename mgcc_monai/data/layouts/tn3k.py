"""Find images and masks in TN3K and TG3K as distributed.

Source: Gong et al., Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules, Computers in
Biology and Medicine 155, 2023, doi 10.1016/j.compbiomed.2022.106389.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, named_folder, pair_folders

__all__ = ["is_tn3k", "scan_tn3k"]

_DESCRIPTION = """\
  SOURCE/trainval-image, trainval-mask, test-image, test-mask   (TN3K; --keep_test keeps its test list)
  SOURCE/thyroid-image, thyroid-mask   (TG3K: the gland)"""
_PARTS = {"trainval": ("lesion", ""), "test": ("lesion", "test"), "thyroid": ("gland", "")}


def _folders(source: str | Path) -> dict[str, list[Path | None]]:
    return {name: [named_folder(source, f"{name}-{kind}") for kind in ("image", "mask")] for name in _PARTS}


def is_tn3k(source: str | Path) -> bool:
    """Return whether a source has one of the sets' image folders."""
    return any(images is not None for images, _ in _folders(source).values())


def scan_tn3k(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases; those of ``test-image`` are marked as the set's test list.

    Args:
        source: the folder with the image and mask folders.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    tree = read_tree(source, skip)
    tree.tell_unread()
    cases, faults, read = [], list(tree.faults), []
    for name, (images, masks) in _folders(source).items():
        if images is None and masks is None:
            continue
        if images is None or masks is None:
            faults.append(f"{source}: {name}-image and {name}-mask belong together; one is missing")
            continue
        found, wrong = pair_folders(tree, images, masks, *_PARTS[name])
        cases, faults, read = cases + found, faults + wrong, [*read, images, masks]
    places = " or ".join(path.name for path in read)
    return sorted(cases, key=lambda case: case.original), faults + (tree.elsewhere(read, places) if read else [])


register(Layout("tn3k", is_tn3k, scan_tn3k, _DESCRIPTION))
