"""Masks from outlines and run lengths, as annotation tools write them. No layout of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import polygon2mask

from mgcc_monai.errors import MGCCError

__all__ = ["draw_polygons", "draw_runs"]

_OUTSIDE = 1.0  # pixels by which a point may lie outside the image: that of a border


def draw_polygons(polygons: Sequence[Sequence[tuple[float, float]]], path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of filled polygons.

    Args:
        polygons: each a list of (x, y), in pixels.
        path: the file that they come from, for the message.
        shape: height and width.

    Returns:
        uint8 HW of 0 and 1.

    Raises:
        MGCCError: for a polygon of fewer than three points, or one with a point outside the image.
    """
    mask = np.zeros(shape, bool)
    height, width = shape
    for number, points in enumerate(polygons, start=1):
        if len(points) < 3:
            raise MGCCError(f"{path}: polygon {number} has {len(points)} points; draw it again or remove it")
        x, y = np.asarray(points, float).T
        if min(x.min(), y.min()) < -_OUTSIDE or x.max() > width - 1 + _OUTSIDE or y.max() > height - 1 + _OUTSIDE:
            raise MGCCError(
                f"{path}: polygon {number} reaches x {x.min():g} to {x.max():g}, y {y.min():g} to {y.max():g}, outside "
                f"its image of {width} x {height} pixels; correct it"
            )
        mask |= polygon2mask(shape, np.stack((y, x), axis=1))
    return mask.astype(np.uint8)


def draw_runs(runs: Mapping[str, Any], path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the mask of COCO's run lengths, plain or compressed: runs of 0 and 1 in turn, down the columns.

    Args:
        runs: ``size`` (height, width) and ``counts``, a list or a string.
        path: the file that they come from, for the message.
        shape: height and width of the image.

    Raises:
        MGCCError: when they are of another size or do not fill the image.
    """
    counts = _unpacked(runs["counts"]) if isinstance(runs["counts"], str) else [int(count) for count in runs["counts"]]
    if tuple(runs["size"]) != tuple(shape) or sum(counts) != shape[0] * shape[1] or min(counts, default=0) < 0:
        height, width = runs["size"]
        raise MGCCError(
            f"{path}: run lengths of {width} x {height} pixels do not fit their image of {shape[1]} x {shape[0]}"
        )
    values = np.arange(len(counts)) % 2
    return np.repeat(values, counts).astype(np.uint8).reshape(shape, order="F")


def _unpacked(text: str) -> list[int]:
    """Return the counts of a compressed string: five bits a character, low first, each relative to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
