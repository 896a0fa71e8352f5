"""Checks of an image and its mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes, find_objects, label

from mgcc_monai.data.checks.check import FAULT, WARNING, Check
from mgcc_monai.data.checks.images import FileFacts
from mgcc_monai.data.contents import image_sha256
from mgcc_monai.data.formats.nifti import lay_on
from mgcc_monai.errors import MGCCError

__all__ = ["MASK_CHECKS", "PAIR_CHECKS", "PIXEL_CHECKS", "Pair"]

_LABEL_MAP = 8  # a mask with at most this many values is taken for a label map
_FULL_SHARE, _FRAME_SHARE = 0.9, 0.95  # of all pixels; of the edge pixels
_HOLLOW = 3  # ratio of an outline's filled area to its drawn area
_SPECK = 10  # pixels


@dataclass
class Pair:
    """A dataset item and its files as read.

    Args:
        item: the item.
        normal: whether it is in the list ``normal`` or of that class.
        image: its image.
        label: its mask, if it has one.
    """

    item: Mapping[str, Any]
    normal: bool
    image: FileFacts
    label: FileFacts | None = None


def _mask(pair: Pair) -> np.ndarray:
    return pair.label.pixels


def _turned(pair: Pair, differ: bool) -> str:
    tags = [picture.orientation for picture in (pair.image, pair.label) if picture]
    if differ and tags[0] != tags[-1]:
        return f"EXIF orientation {tags[-1]}, its image {tags[0]}"
    return f"EXIF orientation {tags[0]}" if not differ and tags[0] == tags[-1] != 1 else ""


def _changed(picture: FileFacts | None, told: Any) -> str:
    if picture is None or picture.pixels is None or told is None or image_sha256(picture.pixels) == told:
        return ""
    return "its pixels are not those that were prepared (sha256 differs)"


def _values(pair: Pair, several: bool) -> str:
    """Describe a mask that was rejected because of its values."""
    error = pair.label.error
    if "binary mask" not in error:
        return ""
    number = int(error.split(", ")[1].split()[0])
    return error.split(";")[0] if (number <= _LABEL_MAP) == several else ""


def _size(pair: Pair) -> str:
    mask, image = pair.label.pixels, pair.image.pixels
    if mask is None or image is None or mask.shape == image.shape:
        return ""
    sizes = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {image.shape[1]} x {image.shape[0]}"
    return f"the mask has {sizes}" + (", as if turned" if mask.shape == image.shape[::-1] else "")


def _axes(pair: Pair) -> str:
    """Training reads a NIfTI mask as it is stored."""
    path, mask = pair.label.path, pair.label.pixels
    if mask is None or pair.image.pixels is None:
        return ""
    try:
        return "" if lay_on(pair.image.path, path, mask) is mask else "its axes run otherwise than its image's"
    except MGCCError as error:
        return error.message.removeprefix(f"{path}: ").split(";")[0]


def _otherwise(pair: Pair, jpeg: bool) -> str:
    """Training treats every pixel that is not black as lesion."""
    grey = pair.label.luminance
    if grey is None or (pair.label.format == "JPEG") != jpeg:
        return ""
    count = int(((grey > 0) != (_mask(pair) > 0)).sum())
    return f"{count} pixels would be taken wrongly for lesion or background" if count else ""


def _palette(pair: Pair) -> str:
    indices = pair.label.indices
    if indices is None or ((indices > 0) == (_mask(pair) > 0)).all():
        return ""
    return "a palette whose colours say otherwise than its indices"


def _empty(pair: Pair) -> str:
    return "no lesion in the mask" if not pair.normal and not _mask(pair).any() else ""


def _not_normal(pair: Pair) -> str:
    return "a lesion in the mask of a normal image" if pair.normal and _mask(pair).any() else ""


def _edge(mask: np.ndarray) -> float:
    return float(np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean())


def _full(pair: Pair) -> str:
    share = _mask(pair).mean()
    return f"{share:.0%} of the pixels are lesion" if share >= _FULL_SHARE else ""


def _inverted(pair: Pair) -> str:
    mask = _mask(pair)
    if mask.mean() >= _FULL_SHARE or _edge(mask) < _FRAME_SHARE:
        return ""
    return f"lesion at {_edge(mask):.0%} of the edge and background within, as if inverted"


def _cut(pair: Pair) -> np.ndarray | None:
    """Return the mask cropped to the lesion."""
    boxes = find_objects(_mask(pair))
    return _mask(pair)[boxes[0]] if boxes else None


def _outline(pair: Pair) -> str:
    mask = _cut(pair)
    if mask is None or _edge(_mask(pair)) >= _FRAME_SHARE or mask.mean() > 0.5:
        return ""
    return "an outline that is not filled" if binary_fill_holes(mask).sum() > _HOLLOW * mask.sum() else ""


def _specks(pair: Pair) -> str:
    mask = _cut(pair)
    sizes = np.bincount(label(mask)[0].ravel())[1:] if mask is not None else np.array([])
    small = int((sizes < _SPECK).sum())
    return f"{small} of {len(sizes)} lesions have fewer than {_SPECK} pixels" if small else ""


_SAVE = "make lesion 255 and all else 0, and save it as PNG"
_PNG = f"intermediate grey levels are not lesion; {_SAVE}"

PAIR_CHECKS = (  # for every item with a readable image
    Check(
        "exif-orientation",
        WARNING,
        "EXIF tags that rotate or flip an image",
        lambda pair: _turned(pair, False),
        "it is turned upright on reading; save it upright, without the tag",
    ),
    Check(
        "changed-image",
        FAULT,
        "images against their sha256",
        lambda pair: _changed(pair.image, pair.item.get("sha256")),
        "copy the image back or run prepare again",
    ),
)
MASK_CHECKS = (  # for items with a mask
    Check(
        "exif-differs",
        FAULT,
        "EXIF tags of a mask against its image's",
        lambda pair: _turned(pair, True),
        "save both upright, without the tag",
    ),
    Check(
        "changed-mask",
        FAULT,
        "masks against their sha256",
        lambda pair: _changed(pair.label, pair.item.get("label_sha256")),
        "copy the mask back or run prepare again",
    ),
    Check("several-labels", FAULT, "masks with more than two values", lambda pair: _values(pair, True), _SAVE),
    Check("soft-mask", FAULT, "masks with intermediate grey levels", lambda pair: _values(pair, False), _PNG),
    Check("mask-size", FAULT, "masks' sizes against their images'", _size, "give masks the size of their images"),
    Check(
        "mask-axes", FAULT, "NIfTI masks' axes against their images'", _axes, "run prepare, which turns flipped axes"
    ),
)
PIXEL_CHECKS = (  # for readable masks
    Check("jpeg-mask", FAULT, "masks blurred by JPEG", lambda pair: _otherwise(pair, True), _SAVE),
    Check(
        "unclear-mask",
        FAULT,
        "masks that mark the lesion by alpha or palette index",
        lambda pair: _otherwise(pair, False),
        _SAVE,
    ),
    Check("palette-mask", WARNING, "palette colours against indices", _palette, f"colours count; {_SAVE}"),
    Check("empty-mask", FAULT, "masks without a lesion", _empty, "draw it, or put the image in the list normal"),
    Check("lesion-in-normal", FAULT, "masks of normal images", _not_normal, "correct the list, the class or the mask"),
    Check("full-mask", WARNING, "masks that are almost all lesion", _full, "inspect it; draw the lesion"),
    Check("inverted-mask", FAULT, "masks with lesion along the edge", _inverted, "swap lesion and background"),
    Check("outline-mask", WARNING, "unfilled outlines", _outline, "fill it"),
    Check("specks", WARNING, f"lesions under {_SPECK} pixels", _specks, "inspect it; erase what is not lesion"),
)
