"""Find images and masks in BUS-BRA as distributed.

Source: Gómez-Flores et al., BUS-BRA: a breast ultrasound dataset for assessing computer-aided diagnosis systems,
Medical Physics 51(4), 2024, doi 10.1002/mp.16812.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import image_stem, read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, named_folder, read_table

__all__ = ["is_busbra", "scan_busbra"]

_DESCRIPTION = """\
  SOURCE/Images/bus_0001-l.png, SOURCE/Masks/mask_0001-l.png and SOURCE/bus_data.csv   (BUS-BRA)"""
_TABLE = "bus_data.csv"
_COLUMNS = ("ID", "Case", "Pathology", "BIRADS", "Device")


def is_busbra(source: str | Path) -> bool:
    """Return whether a source has the table of BUS-BRA, or images with its names."""
    images = named_folder(source, "images")
    return (Path(source) / _TABLE).is_file() or bool(images and any(images.glob("bus_[0-9]*-[lrs].png")))


def scan_busbra(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases; class is the pathology, patient the case, and device and BI-RADS are kept.

    Args:
        source: the folder with ``Images``, ``Masks`` and ``bus_data.csv``.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source = Path(source)
    tree, images, masks = read_tree(source, skip), named_folder(source, "images"), named_folder(source, "masks")
    if missing := [name for name, folder in (("Images", images), ("Masks", masks)) if folder is None]:
        return [], [f"{source}: BUS-BRA without its folder {' and '.join(missing)}; unpack all of it"]
    rows, faults = read_table(source / _TABLE, _COLUMNS)
    faults += [*tree.faults, *tree.elsewhere([images, masks], f"{images} or {masks}")]
    tree.tell_unread([source / _TABLE])
    found = {image_stem(path): path for path in tree.images.get(images, [])}
    outlines = {image_stem(path): path for path in tree.images.get(masks, [])}
    cases = []
    for row in rows:
        mask = row["ID"].replace("bus_", "mask_", 1)
        if row["ID"] not in found:
            faults.append(f"{source / _TABLE}: {row['ID']} is not in {images}; add its image or remove the row")
        elif mask not in outlines:
            faults.append(f"{found[row['ID']]}: an image without a mask; add {masks / f'{mask}.png'}")
        else:
            path = found.pop(row["ID"])
            details = {"device": row["Device"], "birads": row["BIRADS"]}
            original = path.relative_to(source).as_posix()
            case = Case(path, (outlines.pop(mask),), row["Pathology"], original, patient=row["Case"], details=details)
            cases.append(case)
    listed = {row["ID"] for row in rows}
    if rows:
        faults += [
            f"{path}: no row in {_TABLE}; add it or remove the image" for n, path in found.items() if n not in listed
        ]
        wanted = {name.replace("bus_", "mask_", 1) for name in listed}
        faults += [f"{path}: a mask without an image" for name, path in outlines.items() if name not in wanted]
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("busbra", is_busbra, scan_busbra, _DESCRIPTION))
