"""Phantoms: simulated B-mode speckle images of breast tissue with lesions and masks, generated from a seed.

:mod:`~mgcc_monai.data.phantom.anatomy` draws the tissue, :mod:`~mgcc_monai.data.phantom.physics` images it, and this
module writes images and a dataset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mgcc_monai.data.contents import FILE_NAME, image_sha256
from mgcc_monai.data.dataset import load_datalist, write_dataset
from mgcc_monai.data.duplicates import Thumbnails, regroup, thumbnail
from mgcc_monai.data.formats.limits import MAX_PIXELS
from mgcc_monai.data.phantom.anatomy import make_scene
from mgcc_monai.data.phantom.physics import draw_scanner, form_image, log_compress
from mgcc_monai.data.splits import draw_lists, option_faults
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.files import try_writable, write_folder
from mgcc_monai.progress import progress_bar

__all__ = ["Phantom", "make_phantom", "write_phantoms"]

_MARGIN = 24  # columns of tissue beyond each side; their scatterers reach into the image
_LEAST_SIDE = 32  # pixels
_LEAST_COUNT = 10  # images; fewer do not fill every list
_RENDER_HEIGHT = 240  # smaller images are rendered at a multiple of their size and reduced
_TEN = ("cyst",) * 3 + ("solid",) * 3 + ("shadowing",) * 3 + ("normal",)


@dataclass(frozen=True)
class Phantom:
    """A phantom: ``image`` (uint8, HW), ``label`` (uint8, HW, 1 inside the lesion) and the ``kind`` of lesion."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    kind: str


def _kind(seed: int, index: int) -> str:
    """Draw a kind; each block of ten images from 0 on has three of each lesion kind and one normal."""
    return str(np.random.default_rng([seed, index // 10, 1]).permutation(_TEN)[index % 10])


def make_phantom(seed: int, index: int, size: tuple[int, int] | None = None) -> Phantom:
    """Make one phantom; the result depends only on the arguments.

    Args:
        seed: seed of the collection.
        index: number of the image in the collection, from 0.
        size: height and width in pixels; drawn from (300 to 480, 360 to 560) by default.

    Returns:
        The phantom.

    Raises:
        MGCCError: for a negative seed or index, or a size under 32 pixels.
    """
    raise_errors([*_not_whole("seed", seed, 0), *_not_whole("index", index, 0), *_size_faults(size)], "phantom")
    rng = np.random.default_rng([seed, index])
    kind = _kind(seed, index)
    height = int(rng.integers(300, 481))
    drawn = (height, int(np.clip(height * rng.uniform(1.05, 1.5), 360, 560)))
    height, width = drawn if size is None else size
    factor = max(1, -(-_RENDER_HEIGHT // height))
    shape = (factor * height, factor * width + 2 * _MARGIN)
    depth_mm = rng.uniform(28.0, 42.0)
    spacing = depth_mm / shape[0]
    scene = make_scene(rng, kind, shape, spacing, _MARGIN)
    scanner = draw_scanner(rng, spacing, depth_mm)
    envelope = form_image(scene, scanner, rng)
    image = log_compress(envelope, scanner.dynamic_range_db, scanner.white_db)[:, _MARGIN:-_MARGIN]
    label = scene.label[:, _MARGIN:-_MARGIN]
    if factor > 1:
        image = np.asarray(Image.fromarray(image).reduce(factor))
        label = (np.asarray(Image.fromarray(255 * label).reduce(factor)) >= 128).astype(np.uint8)
    return Phantom(np.ascontiguousarray(image), np.ascontiguousarray(label), kind)


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least


def _not_whole(name: str, value: Any, least: int) -> list[str]:
    return [] if _is_whole(value, least) else [f"{name} is {value!r}; give a whole number of at least {least}"]


def _size_faults(size: Any) -> list[str]:
    pair = isinstance(size, list | tuple) and len(size) == 2 and all(_is_whole(side, _LEAST_SIDE) for side in size)
    if size is None or pair and size[0] * size[1] <= MAX_PIXELS:
        return []
    return [f"size is {size!r}; give height and width as [300, 400], each at least {_LEAST_SIDE} pixels"]


def _check_output(output: Path, overwrite: bool) -> None:
    """Refuse to overwrite anything but a dataset, and that only on request."""
    if output.exists() and not output.is_dir():
        raise MGCCError(f"{output}: a file, where a folder is to be written; give another output")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise MGCCError(f"{output}: not empty; give another output, or overwrite=True to replace the dataset there")
        if not (output / FILE_NAME).is_file():
            raise MGCCError(f"{output}: holds no {FILE_NAME}, so it is not a dataset to overwrite; give another output")


def _save(folder: Path, name: str, phantom: Phantom) -> dict[str, Any]:
    """Write the two files of a phantom and return its item."""
    item = {"image": f"images/{name}.png", "label": f"labels/{name}.png"}
    Image.fromarray(phantom.image).save(folder / item["image"])
    Image.fromarray(phantom.label * np.uint8(255)).save(folder / item["label"])
    origin = {"class": phantom.kind, "group": name, "source": "phantom", "original": f"{name}.png"}
    return item | origin | {"sha256": image_sha256(phantom.image), "label_sha256": image_sha256(phantom.label)}


@plain_os_errors()
def write_phantoms(
    output: str | Path,
    count: int = 200,
    seed: int = 0,
    label_fraction: float = 1.0,
    split_seed: int = 0,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a dataset of phantoms; the folder appears complete or not at all.

    Phantoms that happen to be near-duplicates form a group, as in `prepare`, and stay in one list.

    Args:
        output: folder for ``images/``, ``labels/`` (0 and 255) and ``dataset.json``.
        count: number of images; image i is the same for any count.
        seed: seed of the images.
        label_fraction: share of the training images that keep their labels, over 0 and up to 1.
        split_seed: seed of the lists.
        size: height and width in pixels; varied by default.
        overwrite: replace the dataset in ``output``.

    Returns:
        The dataset, as :func:`mgcc_monai.data.dataset.load_datalist` returns it.

    Raises:
        MGCCError: if an argument is out of range, or ``output`` is not empty and ``overwrite`` is not set.
    """
    options: dict[str, Any] = {"label_fraction": label_fraction, "protocol": "strict", "split_seed": split_seed}
    faults = [*_not_whole("count", count, _LEAST_COUNT), *_not_whole("seed", seed, 0), *_size_faults(size)]
    raise_errors(faults + option_faults(**options, overwrite=overwrite), "phantom")
    output = Path(output).absolute()
    _check_output(output, bool(overwrite))
    try_writable(output)

    def write(folder: Path) -> None:
        for part in ("images", "labels"):
            (folder / part).mkdir()
        items, thumbnails = [], Thumbnails()
        for index in progress_bar(range(count), desc="phantoms", unit="image"):
            phantom = make_phantom(seed, index, size)
            items.append(_save(folder, f"phantom-{index:04d}", phantom))
            thumbnails.append(thumbnail(phantom.image))
        for item, group in zip(items, regroup(items, thumbnails), strict=True):
            item["group"] = group
        description = f"B-mode speckle phantoms of breast lesions, {count} images of seed {seed}"
        write_dataset(folder, draw_lists(items, **options), name="phantom", description=description, **options)

    write_folder(output, write)
    return load_datalist(output)
