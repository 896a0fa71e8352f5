"""Find images and outlines in DDTI as distributed: an XML file per patient, with outlines as JSON.

Source: Pedraza et al., An open access thyroid ultrasound image database, SIPAIM 2014, doi 10.1117/12.2073532.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mgcc_monai.data.formats.frames import image_stem, read_tree
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case, Drawing
from mgcc_monai.data.layouts.outlines import draw_polygons
from mgcc_monai.errors import one_line

logger = logging.getLogger(__name__)

__all__ = ["is_ddti", "scan_ddti"]

_DESCRIPTION = """\
  SOURCE/1.xml and SOURCE/1_1.jpg, 1_2.jpg ...   (DDTI: outlines in <mark><image>1</image><svg>[...])"""
_IMAGE = re.compile(r"(?P<patient>\d+)_(?P<number>\d+)")


def is_ddti(source: str | Path) -> bool:
    """Return whether a source has numbered XML files with images of the same numbers."""
    return any(path.stem.isdigit() and any(path.parent.glob(f"{path.stem}_*")) for path in Path(source).glob("*.xml"))


def _class(tirads: str) -> str:
    if not tirads:
        return "unknown"
    return "benign" if tirads.strip()[0] in "123" else "suspicious"


def _marks(path: Path) -> tuple[str, dict[str, list[list[tuple[float, float]]]], list[str]]:
    """Return the TI-RADS of a patient, the polygons of each image, and what is wrong.

    Some outlines are cut off after 2,500 characters as distributed; they are left out, and said.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        return "", {}, [f"{path}: no XML ({one_line(error)}); download it again"]
    polygons: dict[str, list[list[tuple[float, float]]]] = {}
    faults: list[str] = []
    for mark in root.iter("mark"):
        number, text = ((mark.findtext(name) or "").strip() for name in ("image", "svg"))
        shapes = polygons.setdefault(number, [])
        try:
            for shape in json.loads(text) if text else []:
                shapes.append([(float(point["x"]), float(point["y"])) for point in shape["points"]])
        except json.JSONDecodeError:
            shapes.clear()
            logger.warning("%s: the outlines of image %s are cut off; it is unlabelled.", path, number)
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f"{path}: the outline of image {number} is no list of points ({one_line(error)}); correct it")
    return (root.findtext("tirads") or "").strip(), polygons, faults


def scan_ddti(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases; patient is the number, class comes from TI-RADS; images without an outline are unlabelled.

    Lines of two points beside an outline are measurements, which are left out, and said.

    Args:
        source: the folder with the XML files and images.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.
    """
    source = Path(source)
    tree = read_tree(source, skip)
    tables = {path.stem: path for path in tree.unread if path.suffix.lower() == ".xml" and path.parent == source}
    tree.tell_unread(tables.values())
    faults = [*tree.faults, *tree.elsewhere([source], str(source))]
    cases: list[Case] = []
    images: dict[str, dict[str, Path]] = {}
    for path in tree.images.get(source, []):
        if match := _IMAGE.fullmatch(image_stem(path)):
            images.setdefault(match["patient"], {})[match["number"]] = path
        else:
            faults.append(f"{path}: not named PATIENT_NUMBER; rename it or remove it")
    for patient, pictures in images.items():
        if patient not in tables:
            faults.append(f"{next(iter(pictures.values()))}: no {patient}.xml beside it; add it or remove the image")
    for patient, path in tables.items():
        tirads, polygons, wrong = _marks(path)
        faults += wrong
        pictures = images.get(patient, {})
        for number in polygons.keys() - pictures.keys():
            faults.append(f"{path}: outlines image {number}, but there is no {patient}_{number}.jpg; add it")
        for number, picture in pictures.items():
            shapes = polygons.get(number, [])
            outlines = [shape for shape in shapes if len(shape) > 2]
            if outlines and len(outlines) < len(shapes):  # lines of a measurement
                logger.warning(
                    "%s: %d lines beside the outlines of image %s left out.", path, len(shapes) - len(outlines), number
                )
                shapes = outlines
            drawn = (Drawing(path, partial(draw_polygons, shapes, path)),) if shapes else ()
            details = {"tirads": tirads} if tirads else {}
            name = _class(tirads)
            cases.append(Case(picture, drawn, name, picture.name, bool(shapes), patient, details=details))
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("ddti", is_ddti, scan_ddti, _DESCRIPTION))
