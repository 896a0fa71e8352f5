"""Find images and masks that lie side by side in one folder: STU-Hospital and BrEaST as distributed.

Sources: Zhuang et al., An RDAU-NET model for lesion segmentation in breast ultrasound images, PLOS ONE 14(8), 2019,
doi 10.1371/journal.pone.0221535; Pawłowska et al., Curated benchmark dataset for ultrasound based breast lesion
analysis, Scientific Data 11:148, 2024, doi 10.1038/s41597-024-02984-z.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import image_stem, read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import NORMAL, Case, read_table

__all__ = ["scan_breast", "scan_stu"]

_STU = re.compile(r"Test_Image_(\d+)", re.IGNORECASE)
_STU_MASK = re.compile(r"mask_(\d+)", re.IGNORECASE)
_BREAST = re.compile(r"(case\d+)", re.IGNORECASE)
_BREAST_MASK = re.compile(r"(case\d+)_(?P<kind>tumor|other)\d*", re.IGNORECASE)
_COLUMNS = ("Image_filename", "Classification")


def _has(source: str | Path, *patterns: re.Pattern[str]) -> bool:
    stems = [image_stem(path) for path in Path(source).glob("*") if path.is_file()]
    return all(any(pattern.fullmatch(stem) for stem in stems) for pattern in patterns)


def scan_stu(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of STU-Hospital: ``Test_Image_1.png`` and ``mask_1.png``.

    Args:
        source: the folder.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source = Path(source)
    tree = read_tree(source, skip)
    tree.tell_unread()
    faults, images, masks = [*tree.faults, *tree.elsewhere([source], str(source))], {}, {}
    for path in tree.images.get(source, []):
        if match := _STU.fullmatch(image_stem(path)):
            images[match[1]] = path
        elif match := _STU_MASK.fullmatch(image_stem(path)):
            masks[match[1]] = path
        else:
            faults.append(f"{path}: neither Test_Image_NUMBER nor mask_NUMBER; rename it or remove it")
    for number in sorted(images.keys() ^ masks.keys()):
        lone = images.get(number, masks.get(number))
        faults.append(f"{lone}: without its {'mask' if number in images else 'image'} of number {number}; add it")
    cases = [Case(images[n], (masks[n],), "lesion", images[n].name) for n in images.keys() & masks.keys()]
    return sorted(cases, key=lambda case: case.original), faults


def scan_breast(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of BrEaST: ``case001.png``, ``case001_tumor.png``; other regions (``_other1``) are no lesions.

    Classes come from the clinical table, saved as CSV, with columns Image_filename and Classification. Without it an
    image with a tumour is of class ``lesion``, one without is ``normal``.

    Args:
        source: the folder.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source = Path(source)
    tree = read_tree(source, skip)
    tables = sorted(path for path in tree.unread if path.suffix.lower() == ".csv" and path.parent == source)
    tree.tell_unread(tables)
    faults, images, masks = [*tree.faults, *tree.elsewhere([source], str(source))], {}, {}
    for path in tree.images.get(source, []):
        stem = image_stem(path)
        if match := _BREAST_MASK.fullmatch(stem):
            if match["kind"].lower() == "tumor":
                masks.setdefault(match[1].lower(), []).append(path)
        elif _BREAST.fullmatch(stem):
            images[stem.lower()] = path
        else:
            faults.append(f"{path}: neither caseNUMBER nor its _tumor or _other; rename it or remove it")
    faults += [f"{p}: a mask without an image; add {n}.png" for n, ps in masks.items() if n not in images for p in ps]
    rows, classes = [], {}
    if len(tables) > 1:
        faults.append(f"{tables[1]}: there is {tables[0].name} as well; keep the clinical table alone")
    elif tables:
        rows, wrong = read_table(tables[0], _COLUMNS)
        faults += wrong
        classes = {image_stem(row["Image_filename"]).lower(): row["Classification"].lower() for row in rows}
    cases = []
    for name, path in images.items():
        class_name = classes.get(name, "lesion" if name in masks else NORMAL)
        if rows and name not in classes:
            faults.append(f"{tables[0]}: no row for {path.name}; add it")
        if class_name != NORMAL and name not in masks:
            faults.append(f"{path}: {class_name}, but without a mask; add {name}_tumor.png")
        cases.append(Case(path, tuple(masks.get(name, ())), class_name, path.name))
    return sorted(cases, key=lambda case: case.original), faults


register(
    Layout(
        "stu",
        lambda source: _has(source, _STU),
        scan_stu,
        "  SOURCE/Test_Image_1.png and SOURCE/mask_1.png   (STU-Hospital)",
    )
)
register(
    Layout(
        "breast",
        lambda source: _has(source, _BREAST, _BREAST_MASK),
        scan_breast,
        "  SOURCE/case001.png and SOURCE/case001_tumor.png   (BrEaST; its clinical table as CSV gives the classes)",
    )
)
