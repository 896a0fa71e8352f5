"""Small sources for the tests of layouts, and independent readings of their masks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mgcc_monai.data.cases import read_case
from mgcc_monai.data.layouts import find_layout

SIZE = (60, 80)  # height, width
BOX = (slice(10, 30), slice(20, 50))
CORNERS = [(20.0, 10.0), (49.4, 10.0), (49.4, 29.4), (20.0, 29.4)]


def scan(source: Path, name: str, layout: str = "auto"):
    found = find_layout(source, layout)
    cases, faults = found.scan(source, ())
    assert found.name == name
    return cases, faults


def mask_of(case) -> np.ndarray:
    entry, faults = read_case(case)
    assert not faults
    return np.asarray(Image.open(io.BytesIO(entry.label))) // 255


def box() -> np.ndarray:
    wanted = np.zeros(SIZE, np.uint8)
    wanted[BOX] = 1
    return wanted


def inside(points: list[tuple[float, float]]) -> np.ndarray:
    """Pixels whose centre lies in a polygon, by counting the edges that a ray to the right crosses."""
    found = np.zeros(SIZE, np.uint8)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            crossed = 0
            for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
                if (y0 > row) != (y1 > row) and column < x0 + (row - y0) * (x1 - x0) / (y1 - y0):
                    crossed += 1
            found[row, column] = crossed % 2
    return found
