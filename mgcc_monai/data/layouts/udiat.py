"""Find images and masks in UDIAT (Dataset B) as distributed.

Source: Yap et al., Automated breast ultrasound lesions detection using convolutional neural networks, IEEE JBHI 22(4),
2018, doi 10.1109/JBHI.2017.2731873.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, named_folder, pair_folders

__all__ = ["is_udiat", "scan_udiat"]


def is_udiat(source: str | Path) -> bool:
    """Return whether a source has folders ``original`` and ``GT``."""
    return named_folder(source, "original") is not None and named_folder(source, "gt") is not None


def scan_udiat(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases; the set's table of classes is not read.

    Args:
        source: the folder with ``original`` and ``GT``.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    tree, images, masks = read_tree(source, skip), named_folder(source, "original"), named_folder(source, "gt")
    tree.tell_unread()
    cases, faults = pair_folders(tree, images, masks)
    return cases, [*tree.faults, *tree.elsewhere([images, masks], f"{images} or {masks}"), *faults]


register(
    Layout("udiat", is_udiat, scan_udiat, "  SOURCE/original/000001.png and SOURCE/GT/000001.png   (UDIAT, Dataset B)")
)
