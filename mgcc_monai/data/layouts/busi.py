"""Find images and their masks in BUSI as downloaded, and in folders arranged like it.

Source: Al-Dhabyani et al., Dataset of breast ultrasound images, Data in Brief 28:104863, 2020.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import image_stem, is_image, read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case

__all__ = ["is_busi", "scan_busi"]

_DESCRIPTION = """\
  SOURCE/CLASS/NAME (1).png   and   SOURCE/CLASS/NAME (1)_mask.png
      (BUSI as downloaded: CLASS is benign, malignant or normal; several masks: _mask_1, _mask_2 ...)"""

_INNER = "Dataset_BUSI_with_GT"
_MASK = re.compile(r"^(?P<image>.+)_mask(_\d+)?$", re.IGNORECASE)


def _root(source: str | Path) -> Path:
    source = Path(source)
    return source / _INNER if (source / _INNER).is_dir() else source


def is_busi(source: str | Path) -> bool:
    """Return whether a source has class folders with images and ``_mask`` files side by side."""
    paths = _root(source).glob("[!.]*/[!.]*")
    return any(_MASK.match(image_stem(path)) and is_image(path) and path.is_file() for path in paths)


def scan_busi(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of a BUSI tree; the class is the folder's name.

    Args:
        source: the folder that contains the class folders or ``Dataset_BUSI_with_GT``.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.

    Returns:
        Cases sorted by ``original``; and errors, each with its file.
    """
    source = Path(source)
    root, tree = _root(source), read_tree(source, skip)
    tree.tell_unread()
    classes = [folder for folder in tree.images if folder.parent == root]
    cases: list[Case] = []
    faults = [*tree.faults, *tree.elsewhere(classes, str(root / "CLASS"))]
    for folder in classes:
        images: dict[str, Path] = {}
        masks: dict[str, list[Path]] = {}
        for path in tree.images[folder]:
            match = _MASK.match(image_stem(path))
            if match:
                masks.setdefault(match["image"], []).append(path)
            elif images.setdefault(image_stem(path), path) != path:
                faults.append(f"{path}: has the name of {images[image_stem(path)].name}; keep one of them")
        for name, path in images.items():
            if name not in masks:
                faults.append(f"{path}: an image without a mask; add {folder / f'{name}_mask.png'}, or remove it")
            original = path.relative_to(source).as_posix()
            cases.append(Case(path, tuple(masks.pop(name, ())), folder.name, original))
        faults += [f"{p}: a mask without an image; add {folder / f'{n}.png'}" for n, ps in masks.items() for p in ps]
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("busi", is_busi, scan_busi, _DESCRIPTION, general=True))
