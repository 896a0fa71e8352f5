"""Find images and outlines in the exports of annotation tools: COCO instances, and LabelMe's file per image.

Source: Lin et al., Microsoft COCO: common objects in context (arXiv 1405.0312), section 5 and its data format.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_monai.data.formats.frames import Tree, read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, Drawing
from mgcc_monai.data.layouts.outlines import draw_polygons, draw_runs
from mgcc_monai.errors import one_line

__all__ = ["scan_coco", "scan_labelme"]

_COCO_KEYS = ("images", "annotations", "categories")
_LABELME_KEYS = ("shapes", "imagePath")


def _json_files(source: str | Path, keys: Iterable[str]) -> list[Path]:
    """Return the JSON files with these keys at their top, in the source and its folder ``annotations``."""
    source, found = Path(source), []
    for path in sorted([*source.glob("*.json"), *source.glob("annotations/*.json")]):
        try:
            content = json.loads(path.read_bytes())
        except ValueError:
            continue
        if isinstance(content, dict) and set(keys) <= content.keys():
            found.append(path)
    return found


def _read(source: Path, skip: Iterable[Any], keys: Iterable[str]) -> tuple[Tree, list[Path]]:
    """Return the files of a source, and which of them hold annotations."""
    tree, files = read_tree(source, skip), _json_files(source, keys)
    tree.tell_unread(files)
    return tree, files


def _most(names: Counter[str]) -> str:
    """Return the most frequent name, the first of several; "unknown" where there is none."""
    return min(names, key=lambda name: (-names[name], name), default="unknown")


def _draw(segments: list[Any], path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Draw COCO's segmentations: lists of polygons x, y, x, y ..., or run lengths."""
    mask = np.zeros(shape, np.uint8)
    for segment in segments:
        if isinstance(segment, dict):
            mask |= draw_runs(segment, path, shape)
        else:
            mask |= draw_polygons([list(zip(flat[::2], flat[1::2])) for flat in segment], path, shape)
    return mask


def _find(tree: Tree, name: str) -> list[Path]:
    """Return the images of a tree that a table's entry names, by path or by file name."""
    name = name.replace("\\", "/").removeprefix("./")
    paths = [path for images in tree.images.values() for path in images]
    exact = [path for path in paths if path.relative_to(tree.folder).as_posix() == name]
    return exact or [path for path in paths if path.name == name.rsplit("/", 1)[-1]]


def scan_coco(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of COCO instances; an image is of the class of most of its outlines, without any unlabelled.

    Args:
        source: the folder with a JSON file of ``images``, ``annotations`` and ``categories``, and the images.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source, cases, used = Path(source), [], set()
    tree, files = _read(source, skip, _COCO_KEYS)
    faults = list(tree.faults)
    for file in files:
        content = json.loads(file.read_bytes())
        names = {one.get("id"): str(one.get("name", "")).strip() for one in content["categories"]}
        faults += [f"{file}: category {number} has no name; give it one" for number, name in names.items() if not name]
        outlines: dict[Any, list[dict[str, Any]]] = {}
        for one in content["annotations"]:
            outlines.setdefault(one.get("image_id"), []).append(one)
        known = {one.get("id") for one in content["images"]}
        faults += [f"{file}: outlines of image {number}, which it does not list" for number in outlines.keys() - known]
        for entry in content["images"]:
            found, own = _find(tree, str(entry.get("file_name", ""))), outlines.get(entry.get("id"), [])
            if len(found) != 1:
                what = "is not there; add it" if not found else f"fits {found[0]} and {found[1]}; rename one"
                faults.append(f"{file}: {entry.get('file_name')} {what}")
                continue
            missing = [one.get("category_id") for one in own if one.get("category_id") not in names]
            empty = [one.get("id") for one in own if not one.get("segmentation")]
            faults += [f"{file}: outline of category {number}, which it does not list" for number in missing]
            faults += [f"{file}: annotation {number} has no segmentation; draw it or remove it" for number in empty]
            used.add(found[0])
            classes = Counter(names[one["category_id"]] for one in own if one.get("category_id") in names)
            drawn = (
                Drawing(file, partial(_draw, [one["segmentation"] for one in own if one.get("segmentation")], file)),
            )
            class_name = _most(classes)
            original = found[0].relative_to(source).as_posix()
            cases.append(Case(found[0], drawn if own else (), class_name, original, bool(own)))
    return sorted(cases, key=lambda case: case.original), faults + _unlisted(tree, used, "COCO file")


def scan_labelme(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of LabelMe: a JSON file beside each image; the label of most shapes is the class.

    Args:
        source: the folder.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source, cases, used = Path(source), [], set()
    tree, files = _read(source, skip, _LABELME_KEYS)
    faults = list(tree.faults)
    for file in files:
        content = json.loads(file.read_bytes())
        image = file.parent / Path(str(content["imagePath"]).replace("\\", "/")).name
        if image not in {path for images in tree.images.values() for path in images}:
            faults.append(f"{file}: its image {image.name} is not beside it; add it")
            continue
        try:
            kinds = [shape.get("shape_type", "polygon") for shape in content["shapes"]]
            labels = Counter(str(shape["label"]).strip() for shape in content["shapes"])
            polygons = [[(float(x), float(y)) for x, y in shape["points"]] for shape in content["shapes"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            faults.append(f"{file}: not as LabelMe writes it ({one_line(error)}); save it again")
            continue
        if foreign := sorted(set(kinds) - {"polygon"}):
            faults.append(f"{file}: shapes of type {', '.join(foreign)}; outline lesions as polygons")
        used.add(image)
        class_name = _most(labels)
        drawn = (Drawing(file, partial(draw_polygons, polygons, file)),) if polygons else ()
        cases.append(Case(image, drawn, class_name, image.relative_to(source).as_posix(), bool(polygons)))
    return sorted(cases, key=lambda case: case.original), faults + _unlisted(tree, used, "JSON file")


def _unlisted(tree: Tree, used: set[Path], where: str) -> list[str]:
    paths = [path for images in tree.images.values() for path in images if path not in used]
    return [f"{path}: in no {where}; annotate it, or put it in the folder of --unlabeled" for path in paths]


register(
    Layout(
        "coco",
        lambda source: bool(_json_files(source, _COCO_KEYS)),
        scan_coco,
        "  SOURCE/annotations.json with images, annotations and categories   (COCO; CVAT, Label Studio)",
    )
)
register(
    Layout(
        "labelme",
        lambda source: bool(_json_files(source, _LABELME_KEYS)),
        scan_labelme,
        "  SOURCE/NAME.png and SOURCE/NAME.json with shapes   (LabelMe)",
    )
)
