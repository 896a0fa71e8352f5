"""Small made-up folders, and the real images where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter


def _texture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """uint8 HW: smooth noise, unlike that of another seed."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 2.5)
    return np.uint8(np.clip(128 + 300 * noise, 1, 255))


def _disc(height: int = 60, width: int = 80, row: int = 30, column: int = 40) -> np.ndarray:
    """uint8 HW of 0 and 255."""
    rows, columns = np.ogrid[:height, :width]
    return np.uint8(255 * ((rows - row) ** 2 + (columns - column) ** 2 < 100))


@pytest.fixture
def texture():
    return _texture


@pytest.fixture
def disc():
    return _disc


@pytest.fixture
def busi_tree(tmp_path: Path) -> Path:
    """20 benign, 10 malignant and 3 normal images, each malignant one a near-duplicate of its even neighbour."""
    source = tmp_path / "source"
    for first, name, count in ((1000, "benign", 20), (2000, "malignant", 10), (3000, "normal", 3)):
        folder = source / name
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            pixels = _texture(first + (number // 2 if name == "malignant" else number))
            if name == "malignant" and number % 2:
                pixels = np.uint8(255 * (pixels / 255.0) ** 0.7)
            mask = _disc() if name != "normal" else np.zeros((60, 80), np.uint8)
            Image.fromarray(pixels).convert("RGB").save(folder / f"{name} ({number}).png")
            Image.fromarray(mask).convert("1").save(folder / f"{name} ({number})_mask.png")
    return source


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real images; it is no part of the repository."""
    folder = Path(os.environ.get("MGCC_SHARED", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
    if not (folder / "busi_256" / "index.csv").is_file():
        pytest.skip("the real BUSI images are not here (set MGCC_SHARED to the folder with busi_256)")
    return folder
