"""Find images and coloured masks in BUS-UCLM as distributed.

Source: Vallez et al., BUS-UCLM: breast ultrasound lesion segmentation dataset, Scientific Data 12:242, 2025.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_monai.data.formats.frames import image_stem, read_tree
from mgcc_monai.data.formats.source import open_source
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, Drawing, named_folder, read_table
from mgcc_monai.errors import MGCCError

__all__ = ["is_busuclm", "scan_busuclm"]

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
  SOURCE/images/ALWI_000.png, SOURCE/masks/ALWI_000.png (colours) and SOURCE/INFO.csv
      (BUS-UCLM; Doppler images are left out: --layout busuclm_doppler keeps them)"""
_TABLE, _COLUMNS = "INFO.csv", ("Image", "Label", "Doppler")
_LEGEND = {(0, 0, 0): "none", (0, 255, 0): "benign", (255, 0, 0): "malignant"}
_YES = ("yes", "true", "1", "y")


def is_busuclm(source: str | Path) -> bool:
    """Return whether a source has the table of BUS-UCLM beside an ``images`` folder."""
    table = Path(source) / _TABLE
    return table.is_file() and b";" in table.read_bytes()[:200] and named_folder(source, "images") is not None


def _lesions(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of all lesions of a coloured picture."""
    with open_source(path) as opened:
        colours = np.asarray(opened.picture(0).convert("RGB")).astype(np.uint32)
    packed = colours @ np.array([65536, 256, 1], np.uint32)
    known = [red * 65536 + green * 256 + blue for red, green, blue in _LEGEND]
    if foreign := sorted(set(np.unique(packed).tolist()) - set(known)):
        shown = ", ".join(f"rgb({one // 65536},{one // 256 % 256},{one % 256})" for one in foreign[:4])
        raise MGCCError(f"{path}: {shown} is no colour of BUS-UCLM (black none, green benign, red malignant)")
    return (packed != 0).astype(np.uint8)


def scan_busuclm(source: str | Path, skip: Iterable[Any] = (), doppler: bool = False) -> tuple[list[Case], list[str]]:
    """Find the cases; class is the table's label, patient the letters before ``_``.

    Args:
        source: the folder with ``images``, ``masks`` and ``INFO.csv``.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
        doppler: keep Doppler images.
    """
    source = Path(source)
    tree, images, masks = read_tree(source, skip), named_folder(source, "images"), named_folder(source, "masks")
    if images is None or masks is None:
        return [], [f"{source}: BUS-UCLM needs its folders images and masks; unpack all of it"]
    rows, faults = read_table(source / _TABLE, _COLUMNS, delimiter=";")
    faults += [*tree.faults, *tree.elsewhere([images, masks], f"{images} or {masks}")]
    tree.tell_unread([source / _TABLE])
    found = {image_stem(path): path for path in tree.images.get(images, [])}
    outlines = {image_stem(path): path for path in tree.images.get(masks, [])}
    cases, left = [], 0
    for row in rows:
        name = image_stem(row["Image"])
        path, mask = found.pop(name, None), outlines.get(name)
        if path is None:
            faults.append(f"{source / _TABLE}: {row['Image']} is not in {images}; add it or remove the row")
        elif row["Doppler"].casefold() in _YES and not doppler:
            left += 1
        elif mask is None and row["Label"].casefold() != "normal":
            faults.append(f"{path}: an image without a mask; add {masks / path.name}")
        else:
            drawn = (Drawing(mask, partial(_lesions, mask)),) if mask else ()
            original = path.relative_to(source).as_posix()
            cases.append(Case(path, drawn, row["Label"].lower(), original, patient=name.partition("_")[0]))
    if rows:
        faults += [f"{path}: no row in {_TABLE}; add it or remove the image" for path in found.values()]
    if left:
        logger.warning("%s: %d Doppler images left out; --layout busuclm_doppler keeps them.", source, left)
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("busuclm", is_busuclm, scan_busuclm, _DESCRIPTION))
register(
    Layout(
        "busuclm_doppler", lambda source: False, partial(scan_busuclm, doppler=True), "  BUS-UCLM with Doppler images"
    )
)
