"""Limits on the size of an image: bytes of its file, pixels once read, and sides."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

from mgcc_monai.errors import MGCCError

__all__ = [
    "MAX_ASPECT",
    "MAX_FILE_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "check_file_size",
    "check_pixels",
    "check_unpacked",
    "wrong_sides",
]

MAX_PIXELS = 10_000 * 10_000
"""Maximum pixels of a frame; a typical ultrasound image has some 500,000."""

MAX_FILE_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Maximum bytes of a file: the largest allowed image, uncompressed, at 8 bytes per pixel, plus a header."""

MIN_SIDE = 2
"""Minimum pixels per side: for a mask with one row, MONAI's ``SaveImage`` and ``Invert`` drop the axis."""

MAX_ASPECT = 31
"""Maximum ratio of the longer to the shorter side: at 32, resizing the longer side to the network's minimum of 16
pixels with the aspect kept would leave no pixel for the shorter."""

_BLOCK = 1 << 20


def check_pixels(path: str | Path, *shape: int) -> None:
    """Refuse an image that is too large according to its header, before its pixels are read.

    Args:
        path: the file.
        shape: its sides in pixels, and its frames if it has several.

    Raises:
        MGCCError: if a side is negative or there are more than ``MAX_PIXELS``.
    """
    sides = [int(side) for side in shape]
    if any(side < 0 for side in sides) or prod(sides) > MAX_PIXELS:
        stated = " x ".join(str(side) for side in sides)
        raise MGCCError(f"{path}: {stated} pixels, more than the {MAX_PIXELS} allowed; make it smaller")


def check_file_size(path: str | Path) -> None:
    """Refuse a file that is larger than any allowed image.

    Args:
        path: the file.

    Raises:
        MGCCError: if it has more than ``MAX_FILE_BYTES``.
    """
    size = Path(path).stat().st_size
    if size > MAX_FILE_BYTES:
        raise MGCCError(f"{path}: {size} bytes, more than the {MAX_FILE_BYTES} allowed; make it smaller")


def check_unpacked(path: str | Path) -> None:
    """Refuse a .gz file that unpacks to more than ``MAX_FILE_BYTES``; it is unpacked in blocks and not kept.

    Args:
        path: the file, with a name that ends in .gz.

    Raises:
        MGCCError: if it is larger. A damaged file passes; the error is reported when it is read.
    """
    total = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                total += len(block)
                if total > MAX_FILE_BYTES:
                    raise MGCCError(f"{path}: unpacks to more than the {MAX_FILE_BYTES} bytes allowed; make it smaller")
    except (OSError, EOFError, zlib.error):
        return


def wrong_sides(shape: Sequence[int]) -> str:
    """Return what is wrong with the sides of an image or crop: too short, or too unequal to be processed.

    Args:
        shape: height and width in pixels.

    Returns:
        What was found and what to do; "" if nothing is wrong.
    """
    shorter, longer = sorted(shape)
    size = f"{shape[1]} x {shape[0]} pixels"
    if shorter < MIN_SIDE:
        return f"{size}, where each side needs at least {MIN_SIDE}; give the whole image, or a larger --crop"
    if longer > MAX_ASPECT * shorter:
        return f"{size}, one side more than {MAX_ASPECT} times the other; crop it to what was scanned"
    return ""
