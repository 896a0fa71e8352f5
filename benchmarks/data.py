"""Data: loading a batch of the small preset without training on it, and the search for near-duplicates."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter

from benchmarks.measure import Row, rows
from mgcc_monai.data import duplicates
from mgcc_monai.data.phantom.write import write_phantoms

CONFIGS = Path(__file__).parents[1] / "bundle" / "configs"


def _loader(dataset: Path, presets: list[str]):
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in ("train.json", *presets)])
    parser.update({"dataset_dir": str(dataset), "image_size": [128, 128], "epoch_length": 20, "num_workers": 0})
    parser.update({"batch_size": 4, "unlabeled_batch_size": 4, "generated_fraction": 0})
    loader = parser.get_parsed_content("train#two_streams")
    loader.set_epoch(0)
    return lambda: sum(1 for _ in loader)


def exhaustive(thumbnails: np.ndarray, threshold: float = duplicates.THRESHOLD) -> set[tuple[int, int]]:
    """Compare every window of every image with every other image, as the search did before it had candidates."""
    maps, centre = duplicates._maps(thumbnails), duplicates._centre(thumbnails)
    best = np.zeros((len(centre), len(centre)), np.float32)
    for windows in duplicates._variants(maps):
        np.maximum(best, centre @ duplicates._unit(windows).T, out=best)
    return {(int(i), int(j)) for i, j in np.argwhere(np.triu(np.maximum(best, best.T) >= threshold, 1))}


def textures(count: int, copies: int, seed: int = 0) -> np.ndarray:
    """Return thumbnails of smooth noise; the last ``copies`` are shifted, flipped copies of the first ones."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 96, 96), np.uint8)
    for number in range(count):
        noise = gaussian_filter(rng.normal(size=(96, 96)), 2.5)
        images[number] = np.clip(128 + noise / noise.std() * 40, 0, 255)
    for number in range(copies):
        images[count - 1 - number] = np.clip(np.roll(images[number][:, ::-1], (2, 3), (0, 1)) * 0.8 + 5, 0, 255)
    return images


def measure(device: str, repeats: int, rate: float) -> list[Row]:
    """Time loading and the search."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "phantoms"
        write_phantoms(str(dataset), count=40, size=(160, 200), label_fraction=0.5)
        loading = {"the paper's augmentation": [], "preset small": ["presets/small.yaml"]}
        found = rows(
            "loading 20 batches of 4 + 4",
            {name: _loader(dataset, presets) for name, presets in loading.items()},
            max(1, repeats // 2),
        )
    images = textures(1000, 40)
    pairs = {(number, 999 - number) for number in range(40)}
    assert set(duplicates.duplicate_pairs(list(images))) == exhaustive(images) == pairs
    return found + rows(
        "near-duplicates of 1,000 images",
        {"exhaustive": lambda: exhaustive(images), "candidates": lambda: duplicates.duplicate_pairs(list(images))},
        max(1, repeats // 3),
    )
