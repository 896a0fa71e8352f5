"""Checks of an image with its mask."""

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

_LABEL_MAP = 8  # values up to which a mask is taken for a map of several labels
_FULL_SHARE, _FRAME_SHARE = 0.9, 0.95  # of the pixels; of those at the edge
_HOLLOW = 3  # times that an outline's inside is larger than what is drawn
_SPECK = 10  # pixels


@dataclass
class Pair:
    """An item of a dataset, read.

    Args:
        item: the item.
        normal: it stands in the list ``normal`` or is of that class.
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
    """Of a mask that was refused for its values."""
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
    """Training takes every pixel that is not black for lesion."""
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
    """The mask where there is lesion."""
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
_PNG = f"grey levels between are not lesion; {_SAVE}"

PAIR_CHECKS = (  # of every item, whatever could be read of it
    Check(
        "exif-orientation",
        WARNING,
        "EXIF tags that turn an image",
        lambda pair: _turned(pair, False),
        "it is turned when it is read; save it upright, without the tag",
    ),
    Check(
        "changed-image",
        FAULT,
        "images against their sha256",
        lambda pair: _changed(pair.image, pair.item.get("sha256")),
        "copy the image back or run prepare again",
    ),
)
MASK_CHECKS = (  # of items with a mask; those of its pixels where it could be read
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
    Check("several-labels", FAULT, "masks of more than two values", lambda pair: _values(pair, True), _SAVE),
    Check("soft-mask", FAULT, "masks with grey levels between", lambda pair: _values(pair, False), _PNG),
    Check("mask-size", FAULT, "masks' sizes against their images'", _size, "give masks of their images' size"),
    Check(
        "mask-axes", FAULT, "NIfTI masks' axes against their images'", _axes, "run prepare, which turns flipped axes"
    ),
)
PIXEL_CHECKS = (
    Check("jpeg-mask", FAULT, "masks blurred by JPEG", lambda pair: _otherwise(pair, True), _SAVE),
    Check(
        "unclear-mask",
        FAULT,
        "masks that say by alpha or indices what is lesion",
        lambda pair: _otherwise(pair, False),
        _SAVE,
    ),
    Check("palette-mask", WARNING, "palettes against their indices", _palette, f"colours count; {_SAVE}"),
    Check("empty-mask", FAULT, "lesion masks without lesion", _empty, "draw it, or put the image in the list normal"),
    Check("lesion-in-normal", FAULT, "masks of normal images", _not_normal, "correct the list, the class or the mask"),
    Check("full-mask", WARNING, "masks that are lesion all over", _full, "look at it; draw the lesion"),
    Check("inverted-mask", FAULT, "masks that are lesion around", _inverted, "swap lesion and background"),
    Check("outline-mask", WARNING, "outlines", _outline, "fill it"),
    Check("specks", WARNING, f"lesions under {_SPECK} pixels", _specks, "look at it; erase what is no lesion"),
)
