"""How large an image may be: its file on the disk, and its pixels once it is read; and how small."""

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
"""Pixels of an image, all frames and channels counted; ultrasound has some 500,000."""

MAX_FILE_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Bytes of a file: the largest allowed image, uncompressed, at 8 bytes a pixel, with a header."""

MIN_SIDE = 2
"""Pixels of a side: of a mask with one row MONAI's ``SaveImage`` and ``Invert`` drop the axis."""

MAX_ASPECT = 31
"""The longer side over the shorter: at 32, 16 pixels, the network's smallest side, leave none to the other side of an
image that keeps its aspect."""

_BLOCK = 1 << 20


def check_pixels(path: str | Path, *shape: int) -> None:
    """Refuse an image by the size that its header states, before its pixels are read.

    Args:
        path: the file.
        shape: its sides in pixels, and its frames where it has several.

    Raises:
        MGCCError: when a side is negative or there are more than ``MAX_PIXELS``.
    """
    sides = [int(side) for side in shape]
    if any(side < 0 for side in sides) or prod(sides) > MAX_PIXELS:
        stated = " x ".join(str(side) for side in sides)
        raise MGCCError(f"{path}: {stated} pixels, more than the {MAX_PIXELS} allowed; make it smaller")


def check_file_size(path: str | Path) -> None:
    """Refuse a file that is larger than any image that is allowed.

    Args:
        path: the file.

    Raises:
        MGCCError: when it has more than ``MAX_FILE_BYTES``.
    """
    size = Path(path).stat().st_size
    if size > MAX_FILE_BYTES:
        raise MGCCError(f"{path}: {size} bytes, more than the {MAX_FILE_BYTES} allowed; make it smaller")


def check_unpacked(path: str | Path) -> None:
    """Refuse a .gz file that unpacks to more than ``MAX_FILE_BYTES``; it is unpacked block by block and not kept.

    Args:
        path: the file, which ends in .gz.

    Raises:
        MGCCError: when it is larger. A damaged file passes; who reads it next says so.
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
    """Say what is wrong with the sides of an image, or of what was cut out of it, for all that is done with it later.

    Args:
        shape: height and width in pixels.

    Returns:
        What was found and what to do, or nothing.
    """
    shorter, longer = sorted(shape)
    size = f"{shape[1]} x {shape[0]} pixels"
    if shorter < MIN_SIDE:
        return f"{size}, where each side needs at least {MIN_SIDE}; give the whole image, or a larger --crop"
    if longer > MAX_ASPECT * shorter:
        return f"{size}, one side more than {MAX_ASPECT} times the other; crop it to what was scanned"
    return ""
