"""Lists of a dataset, and hashes and statistics of its images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import fsum, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_monai.data.formats.images import read_image

__all__ = [
    "ALL_LISTS",
    "FILE_NAME",
    "LISTS",
    "dataset_hash",
    "image_moments",
    "image_sha256",
    "image_statistics",
    "statistics_of",
]

FILE_NAME = "dataset.json"
LISTS = ("training", "unlabeled", "validation", "test", "normal")
ALL_LISTS = (*LISTS, "left_out")


def image_sha256(pixels: np.ndarray) -> str:
    """Hash the pixels and shape of an image or mask.

    Args:
        pixels: uint8 HW; masks as 0 and 1.

    Returns:
        64 hex digits: sha256 over ``"HEIGHTxWIDTH:"`` and the rows' bytes.
    """
    height, width = pixels.shape
    return hashlib.sha256(f"{height}x{width}:".encode() + np.ascontiguousarray(pixels, np.uint8).tobytes()).hexdigest()


def dataset_hash(lists: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Hash which images and labels are in which list. File names and order do not matter.

    Args:
        lists: items by list name; other keys are ignored.

    Returns:
        64 hex digits.
    """

    def hashes(item: Mapping[str, Any]) -> list[str]:
        return [item["sha256"], item.get("label_sha256", "") if "label" in item else ""]

    content = {name: sorted(map(hashes, lists.get(name, []))) for name in LISTS}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def image_moments(pixels: np.ndarray) -> tuple[float, float]:
    """Return the mean of the pixels and of their squares, after scaling to [0, 1] by the image's own range.

    Args:
        pixels: uint8 HW. A constant image is 0 everywhere.
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    levels = np.flatnonzero(counts)
    scaled = (levels - levels[0]) / max(levels[-1] - levels[0], 1)
    return float(counts[levels] @ scaled / counts.sum()), float(counts[levels] @ scaled**2 / counts.sum())


def statistics_of(moments: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return ``mean`` and ``std`` over images, given their :func:`image_moments`; see :func:`image_statistics`."""
    mean, square = (fsum(values) / len(moments) for values in zip(*moments, strict=True))
    return {"mean": round(mean, 6), "std": round(sqrt(max(square - mean**2, 0.0)), 6)}


def image_statistics(paths: Sequence[str | Path]) -> dict[str, float]:
    """Return the mean and standard deviation over all images, each scaled to [0, 1] by its own range.

    Args:
        paths: the images; at least one. A constant image is 0 everywhere.

    Returns:
        ``mean`` and ``std``, rounded to 6 places. Every image has equal weight, whatever its size.
    """
    return statistics_of([image_moments(read_image(path)) for path in paths])
