from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from layout_sources import BOX, SIZE
from PIL import Image


@pytest.fixture
def save(tmp_path: Path, texture):
    """Save an image, a grey mask or a coloured one under the source."""

    def save(name: str, kind: str = "image", colour: tuple[int, int, int] = (255, 255, 255)) -> Path:
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "image":
            pixels = texture(sum(name.encode()), *SIZE)
        elif kind == "mask":
            pixels = np.zeros(SIZE, np.uint8)
            pixels[BOX] = 255
        elif kind == "empty":
            pixels = np.zeros(SIZE, np.uint8)
        else:
            pixels = np.zeros((*SIZE, 3), np.uint8)
            pixels[BOX] = colour
        Image.fromarray(pixels).save(path, quality=95)
        return path

    return save


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"
