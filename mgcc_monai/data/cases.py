"""Read an image and its masks into a dataset entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from mgcc_monai.data.contents import image_sha256
from mgcc_monai.data.duplicates import thumbnail
from mgcc_monai.data.formats.frames import locate
from mgcc_monai.data.formats.images import load_frame, read_mask
from mgcc_monai.data.formats.limits import wrong_sides
from mgcc_monai.data.formats.nifti import lay_on
from mgcc_monai.data.layouts.folders import NORMAL, Case, Drawing
from mgcc_monai.errors import MGCCError

__all__ = ["Entry", "read_case"]


@dataclass
class Entry:
    """An image as read: its item of dataset.json, the bytes of its files, and what is derived from its pixels.

    Args:
        item: item of dataset.json, without paths and group.
        image: a PNG of 8-bit grey.
        label: a PNG of 0 and 255, or None.
        thumbnail: input of the near-duplicate search.
        loop: the file that the image is a frame of; "" if it is alone in its file.
    """

    item: dict[str, Any]
    image: bytes
    label: bytes | None
    thumbnail: np.ndarray = field(repr=False)
    loop: str = ""


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def read_case(case: Case, crop: Any = None) -> tuple[Entry | None, list[str]]:
    """Read a case; it is normal if its masks are empty. Of a loop without labels the middle frame is read.

    Args:
        case: the image and its masks.
        crop: the part to keep; see :func:`mgcc_monai.data.formats.images.parse_crop`. A mask of the
            whole image is cropped too.

    Returns:
        The entry, or None; and errors.
    """
    faults, picture, pixels, masks = [], None, None, []
    try:
        picture = load_frame(case.image, None if case.labelled else "middle", crop)
        pixels = picture.pixels
        if wrong := wrong_sides(pixels.shape):
            faults.append(f"{case.image}: {wrong}")
        elif pixels.min() == pixels.max():
            faults.append(f"{case.image}: every pixel is {pixels.min()}; export it again or remove it")
    except MGCCError as error:
        faults.append(str(error))
    for mask in case.masks:
        path = mask.path if isinstance(mask, Drawing) else mask
        try:
            if not isinstance(mask, Drawing):
                masks.append(lay_on(case.image, path, read_mask(path)))
            elif picture is None:
                continue
            else:
                masks.append(mask.draw(picture.whole))
        except MGCCError as error:
            faults.append(str(error))
            continue
        if picture is not None and masks[-1].shape == picture.whole:
            left, top, right, bottom = picture.box
            masks[-1] = masks[-1][top:bottom, left:right]
        if pixels is not None and masks[-1].shape != pixels.shape:
            (mask_height, mask_width), (height, width) = masks[-1].shape, pixels.shape
            sizes = f"{mask_width} x {mask_height} pixels, but its image {case.image.name} is {width} x {height}"
            faults.append(f"{path}: {sizes}; give both the same size")
    if faults:
        return None, faults
    item = {**case.details, "class": case.class_name, "source": "real", "original": case.original}
    item["sha256"] = image_sha256(pixels)
    if picture.spacing:
        item["spacing"] = [round(length, 6) for length in picture.spacing]
    file, number = locate(case.image)
    loop = str(file) if number is not None else ""
    if not case.labelled:
        return Entry(item, _png(pixels), None, thumbnail(pixels), loop), []
    mask = np.any([np.zeros_like(pixels), *masks], axis=0).astype(np.uint8)
    if mask.any() and case.class_name == NORMAL:
        return None, [f"{case.image}: of class normal, but its mask is not empty; correct the class or the mask"]
    item |= {"class": case.class_name if mask.any() else NORMAL, "label_sha256": image_sha256(mask)}
    return Entry(item, _png(pixels), _png(mask * 255), thumbnail(pixels), loop), []
