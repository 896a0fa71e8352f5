"""Small made-up folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from mgcc_monai.data.contents import dataset_hash, image_sha256
from mgcc_monai.data.dataset import write_dataset
from mgcc_monai.data.formats.images import read_image, read_mask
from mgcc_monai.errors import MGCCError


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


_SIZES = {"training": 8, "unlabeled": 2, "validation": 4, "test": 4, "normal": 2}


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> Path:
    """A dataset of 20 images without fault: ``images/N.png``, N from 0 on in the order of the lists."""
    folder = tmp_path_factory.mktemp("clean") / "set"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    lists: dict[str, list[dict[str, Any]]] = {}
    number = 0
    rng = np.random.default_rng(0)
    for name, size in _SIZES.items():
        for place in range(size):
            coarse = np.uint8(rng.integers(60, 200, (10, 14)))
            pixels = Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)
            pixels.save(folder / f"images/{number}.png")
            item = {"image": f"images/{number}.png", "class": ("benign", "malignant")[place % 2], "group": f"g{number}"}
            if name == "normal":
                item["class"] = "normal"
            if name != "unlabeled":
                item["label"] = f"labels/{number}.png"
                Image.fromarray(_disc_at(number) * (name != "normal")).save(folder / item["label"])
            lists.setdefault(name, []).append(item)
            number += 1
    write_dataset(folder, lists, protocol="strict", split_seed=0, label_fraction=1.0)
    return folder


def _disc_at(number: int = 0) -> np.ndarray:
    """uint8 HW of 0 and 255; another place for another number."""
    rows, columns = np.ogrid[:60, :80]
    return np.uint8(255 * ((rows - 30) ** 2 + (columns - 20 - 2 * number) ** 2 < 100))


class _Plant:
    """A copy of the clean dataset to be spoiled.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = json.loads((folder / "dataset.json").read_text())

    disc = staticmethod(_disc_at)

    def item(self, number: int) -> dict[str, Any]:
        """The item of an image."""
        return next(i for name in _SIZES for i in self.content[name] if i["image"] == f"images/{number}.png")

    def save(self, path: str, pixels: np.ndarray, mode: str = "", **options: Any) -> None:
        """Write pixels."""
        picture = Image.fromarray(pixels)
        (picture.convert(mode) if mode else picture).save(self.folder / path, **options)

    def grey(self, number: int = 0) -> np.ndarray:
        """The pixels of an image."""
        return np.asarray(Image.open(self.folder / f"images/{number}.png"))

    def write(self, rehash: bool = True) -> Path:
        """Write the dataset's file, with the hashes of the files as they are."""
        for name in _SIZES if rehash else ():
            for item in self.content[name] if isinstance(self.content.get(name), list) else ():
                for key, read, digest in (("image", read_image, "sha256"), ("label", read_mask, "label_sha256")):
                    try:
                        item[digest] = image_sha256(read(self.folder / item[key]))
                    except (MGCCError, KeyError, TypeError):
                        pass
        try:
            self.content["hash"] = dataset_hash(self.content) if rehash else self.content["hash"]
        except (KeyError, TypeError):
            pass
        (self.folder / "dataset.json").write_text(json.dumps(self.content))
        return self.folder


@pytest.fixture
def plant(clean, tmp_path) -> _Plant:
    return _Plant(Path(shutil.copytree(clean, tmp_path / "set")))
