"""How long ``python -m mgcc_monai check`` takes over images of 400 x 500 pixels: ``python benchmarks/check_speed.py``.

The images are smooth noise with masks of one disc. Only the check is timed. On a busy machine the seconds of the
processors tell more than those of the clock.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import fire
import numpy as np
from PIL import Image

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.dataset import write_dataset

SHARES = {"training": 0.35, "unlabeled": 0.35, "validation": 0.1, "test": 0.2}


def make(folder: Path, count: int, height: int = 400, width: int = 500) -> None:
    """Write a dataset without fault.

    Args:
        folder: where to.
        count: how many images.
        height: of an image, in pixels.
        width: of an image, in pixels.
    """
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:height, :width]
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    bounds = np.rint(np.cumsum([*SHARES.values()]) * count)
    lists = {name: [] for name in SHARES}
    for number in range(count):
        name = list(SHARES)[int(np.searchsorted(bounds, number, side="right"))]
        coarse = Image.fromarray(np.uint8(rng.integers(40, 215, (25, 31))))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-20, 21, (height, width))
        item = {"image": f"images/{number}.png", "class": ("benign", "malignant")[number % 2], "group": f"g{number}"}
        Image.fromarray(np.uint8(np.clip(smooth + grain, 0, 254))).save(folder / item["image"], compress_level=1)
        if name != "unlabeled":
            item["label"] = f"labels/{number}.png"
            row, column = rng.uniform(0.3, 0.7, 2) * (height, width)
            disc = (rows - row) ** 2 + (columns - column) ** 2 < rng.uniform(20, 80) ** 2
            Image.fromarray(np.uint8(255 * disc)).save(folder / item["label"])
        lists[name].append(item)
    write_dataset(folder, lists, protocol="strict", split_seed=0, label_fraction=0.5)


def main(count: int = 1000, workers: int = 2) -> None:
    """Time the check.

    Args:
        count: how many images.
        workers: threads.
    """
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "set", count)
        for near_copies in (False, True):
            start, processor = time.perf_counter(), time.process_time()
            report = check_dataset(Path(folder) / "set", near_copies, workers)
            wall, processor = time.perf_counter() - start, time.process_time() - processor
            what = "all checks" if near_copies else "all but near-duplicates"
            found = f"{len(report.faults)} faults, {len(report.warnings)} warnings"
            print(f"{what}: {report.images} images, {wall:.1f} s ({processor:.1f} s of processors), {found}")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    fire.Fire(main)
