"""Phantoms: B-mode speckle images of breast tissue with lesions and masks, made from a seed, with no download.

:mod:`~mgcc_monai.data.phantom_anatomy` draws the tissue, :mod:`~mgcc_monai.data.phantom_physics` images it, and this
makes images and a dataset of them.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mgcc_monai.data.datalist import FILE_NAME, image_sha256, load_datalist, write_dataset
from mgcc_monai.data.phantom_anatomy import make_scene
from mgcc_monai.data.phantom_physics import draw_scanner, form_image, log_compress
from mgcc_monai.data.splits import Record, label_subset, split_groups
from mgcc_monai.errors import MGCCError, plain_os_errors
from mgcc_monai.files import try_writable
from mgcc_monai.progress import progress_bar

__all__ = ["Phantom", "make_phantom", "write_phantoms"]

_MARGIN = 24  # columns of tissue beyond each side, whose scatterers reach into the image
_LEAST_SIDE = 32  # pixels
_LEAST_COUNT = 10  # images: fewer do not fill every list
_RENDER_HEIGHT = 240  # a smaller image is rendered at a multiple of its size and reduced
_TEN = ("cyst",) * 3 + ("solid",) * 3 + ("shadowing",) * 3 + ("normal",)


@dataclass(frozen=True)
class Phantom:
    """A phantom: ``image`` (uint8, HW), ``label`` (uint8, HW, 1 inside the lesion) and the ``kind`` of lesion."""

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    kind: str


def _kind(seed: int, index: int) -> str:
    """Draw a kind, so that every ten images in a row from 0 on hold three of each lesion and one normal."""
    return str(np.random.default_rng([seed, index // 10, 1]).permutation(_TEN)[index % 10])


def make_phantom(seed: int, index: int, size: tuple[int, int] | None = None) -> Phantom:
    """Make one phantom, a function of its arguments alone.

    Args:
        seed: of the collection.
        index: which image of it.
        size: height and width in pixels; drawn from (300 to 480, 360 to 560) by default.

    Returns:
        The phantom.

    Raises:
        MGCCError: for a negative seed or index, or a size under 32 pixels.
    """
    if seed < 0 or index < 0:
        raise MGCCError(f"phantom: seed {seed} and index {index} found; give whole numbers from 0 on")
    if size is not None and (len(size) != 2 or min(size) < _LEAST_SIDE):
        raise MGCCError(f"phantom: size {tuple(size)} found; give height and width, each at least {_LEAST_SIDE} pixels")
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


def _check_request(output: Path, count: int, overwrite: bool) -> None:
    """Refuse a collection that cannot be made, or would take the place of something else."""
    if isinstance(count, bool) or not isinstance(count, int) or count < _LEAST_COUNT:
        raise MGCCError(f"phantom: count {count!r} found; give a whole number of at least {_LEAST_COUNT}")
    if output.exists() and not output.is_dir():
        raise MGCCError(f"{output}: a file, where a folder is to be written; give another output")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise MGCCError(f"{output}: not empty; give another output, or overwrite=True to replace the dataset there")
        if not (output / FILE_NAME).is_file():
            raise MGCCError(f"{output}: holds no {FILE_NAME}, so it is not a dataset to overwrite; give another output")


def _save(folder: Path, name: str, phantom: Phantom) -> dict[str, Any]:
    """Write the two files of a phantom; return its item."""
    item = {"image": f"images/{name}.png", "label": f"labels/{name}.png"}
    Image.fromarray(phantom.image).save(folder / item["image"])
    Image.fromarray(phantom.label * np.uint8(255)).save(folder / item["label"])
    origin = {"class": phantom.kind, "group": name, "source": "phantom", "original": f"{name}.png"}
    return item | origin | {"sha256": image_sha256(phantom.image), "label_sha256": image_sha256(phantom.label)}


def _lists(items: list[dict[str, Any]], label_fraction: float, split_seed: int) -> dict[str, list[dict[str, Any]]]:
    """Share the items out: 70/10/20 by class, or over all classes where they are too small for that."""
    lesions = {item["group"]: item for item in items if item["class"] != "normal"}
    records = [Record(name, item["class"], name) for name, item in lesions.items()]
    try:
        split = split_groups(records, seed=split_seed)
    except MGCCError:
        split = split_groups([record._replace(class_name="lesion") for record in records], seed=split_seed)
    chosen = set(split["training"])
    labelled = label_subset([record for record in records if record.key in chosen], label_fraction, split_seed)
    lists = {name: [lesions[key] for key in split[name]] for name in ("validation", "test")}
    lists["training"] = [lesions[key] for key in labelled]
    lists["unlabeled"] = [dict(lesions[key]) for key in sorted(chosen - set(labelled))]
    for item in lists["unlabeled"]:
        item["withheld_label"] = item.pop("label")
    lists["normal"] = [item for item in items if item["class"] == "normal"]
    return lists


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
    """Write a dataset of phantoms, in one step: the folder appears whole or not at all.

    Args:
        output: the dataset's folder, which gets ``images/``, ``labels/`` (0 and 255) and ``dataset.json``.
        count: how many images; image i is the same for any count.
        seed: of the images.
        label_fraction: share of the training images that keep their label, in (0, 1].
        split_seed: of the lists.
        size: height and width in pixels; varied by default.
        overwrite: replace the dataset in ``output``.

    Returns:
        The dataset, as :func:`mgcc_monai.data.datalist.load_datalist` gives it.

    Raises:
        MGCCError: if an argument is out of range, or ``output`` is not empty and ``overwrite`` is not set.
    """
    output = Path(output).absolute()
    _check_request(output, count, overwrite)
    partial, former = (output.with_name(f".{output.name}.{os.getpid()}.{end}") for end in ("partial", "former"))
    try_writable(partial)
    try:
        for folder in ("images", "labels"):
            (partial / folder).mkdir(parents=True)
        numbers = progress_bar(range(count), desc="phantoms", unit="image")
        items = [_save(partial, f"phantom-{index:04d}", make_phantom(seed, index, size)) for index in numbers]
        write_dataset(
            partial,
            _lists(items, label_fraction, split_seed),
            name="phantom",
            description=f"B-mode speckle phantoms of breast lesions, {count} images of seed {seed}",
            protocol="strict",
            split_seed=split_seed,
            label_fraction=label_fraction,
        )
        if output.is_dir():
            output.rename(former)
        partial.rename(output)
    finally:
        if former.is_dir() and not output.exists():
            former.rename(output)
        for folder in (partial, former):
            shutil.rmtree(folder, ignore_errors=True)
    return load_datalist(output)
