"""Pictures of what was found: contours on the grey image."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure
from skimage.util import montage

from mgcc_monai.data.reader import image_stem, read_image
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.cases import file_name, items_of, to_hw
from mgcc_monai.files import write_file

__all__ = ["LABEL_COLOUR", "PRED_COLOUR", "OverlayHandler", "contact_sheet", "overlay", "write_picture", "write_sheet"]

# Two colours that the colour-blind tell apart (Okabe and Ito 2008): orange and sky blue.
PRED_COLOUR = (230, 159, 0)
LABEL_COLOUR = (86, 180, 233)
_ROUND = generate_binary_structure(2, 2)


def overlay(image: np.ndarray, mask: np.ndarray, label: np.ndarray | None = None) -> np.ndarray:
    """Grey image with the contour of the prediction in orange and that of the reference in sky blue.

    The prediction's line runs just inside its mask and the reference's just outside, so that both are seen where they
    agree. A line is a 256th of the longer side wide, at least one pixel.

    Args:
        image: HW uint8.
        mask: HW prediction, nonzero is lesion.
        label: HW reference, nonzero is lesion.

    Returns:
        HW3 uint8.

    Raises:
        ValueError: if the image is not HW uint8 or a mask is of another shape.
    """
    image = np.asarray(image)
    masks = [np.asarray(m, dtype=bool) for m in (mask, label) if m is not None]
    if image.ndim != 2 or image.dtype != np.uint8 or any(m.shape != image.shape for m in masks):
        shapes = [m.shape for m in masks]
        raise ValueError(f"needs an HW uint8 image and masks of its shape, got {image.dtype} {image.shape}, {shapes}.")
    width = max(1, round(max(image.shape) / 256))
    picture = np.repeat(image[..., None], 3, axis=2)
    if label is not None:
        picture[binary_dilation(masks[1], _ROUND, iterations=width) & ~masks[1]] = LABEL_COLOUR
    picture[masks[0] & ~binary_erosion(masks[0], _ROUND, iterations=width)] = PRED_COLOUR
    return picture


def write_picture(path: str | Path, pixels: np.ndarray) -> None:
    """Write uint8 pixels, HW or HW3, as a PNG in one step."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    write_file(path, data.getvalue())


def write_sheet(path: str | Path, images: Any, columns: int) -> None:
    """Write grey images B1HW in [0, 1] as one PNG, row by row."""
    grey = (torch.as_tensor(images).float().clamp(0, 1)[:, 0] * 255).round().to(torch.uint8).cpu().numpy()
    write_picture(path, contact_sheet(list(grey), columns))


def contact_sheet(images: Sequence[np.ndarray], columns: int = 4, gap: int = 4) -> np.ndarray:
    """Pictures side by side, row by row, each at the top left of a cell as large as the largest.

    Args:
        images: HW or HW3 uint8 pictures, of any sizes.
        columns: pictures a row.
        gap: dark pixels between and around the cells.

    Returns:
        HW3 uint8.

    Raises:
        ValueError: if there is no picture, or no column.
    """
    if not images or columns < 1:
        raise ValueError(f"a sheet needs a picture and a column, got {len(images)} and {columns}.")
    columns = min(columns, len(images))
    height, width = (max(np.shape(image)[axis] for image in images) for axis in (0, 1))
    cells = np.full((len(images), height, width, 3), 32, dtype=np.uint8)
    for cell, image in zip(cells, images, strict=True):
        cell[: image.shape[0], : image.shape[1]] = image if image.ndim == 3 else image[..., None]
    shape = (-(-len(images) // columns), columns)
    return montage(cells, fill=(32, 32, 32), grid_shape=shape, padding_width=gap, channel_axis=-1)


def _stretch(array: np.ndarray) -> np.ndarray:
    low, high = float(array.min()), float(array.max())
    return np.round((array - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _grey(source: str, shape: tuple[int, ...], crop: Any) -> np.ndarray | None:
    """The image of a file, or what is cut out of it, as 8-bit grey, HW; None where there is none of that shape."""
    try:
        image = read_image(source, "middle", crop)
    except MGCCError:
        return None
    return image if image.shape == shape else None


class OverlayHandler:
    """Writes a PNG of every image of an evaluator with the contour of what was found.

    The picture is the image's file where that has the size of the mask, else the image in the evaluator's hands.

    Args:
        output_dir: folder of the pictures.
        postfix: put behind the image's name: ``image{postfix}.png``.
        pred_key: mask or probabilities, at the size to draw in.
        label_key: reference mask of the same size; ``""`` draws none.
        image_key: its meta data name the file.
        threshold: a pixel is lesion where ``pred_key`` is at least this.
        data_root_dir: the folders below it are kept below ``output_dir``, as ``SaveImage`` does.
        limit: write the first so many pictures (of each process) only; 0 writes all.
        crop: what the evaluator's reader cuts out; see :class:`mgcc_monai.data.UltrasoundReader`.
    """

    def __init__(
        self,
        output_dir: str,
        postfix: str = "_overlay",
        pred_key: str = "pred",
        label_key: str = "",
        image_key: str = "image",
        threshold: float = 0.5,
        data_root_dir: str = "",
        limit: int = 0,
        crop: Any = "none",
    ) -> None:
        self.output_dir = Path(output_dir)
        self.postfix = postfix
        self.pred_key = pred_key
        self.label_key = label_key
        self.image_key = image_key
        self.threshold = threshold
        self.data_root_dir = data_root_dir
        self.limit = limit
        self.crop = crop
        self._written = 0
        self._sources: dict[Path, str] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._written, self._sources = 0, {}

    def _path(self, source: str) -> Path:
        path, root = Path(os.path.abspath(source)), os.path.abspath(self.data_root_dir)
        folder = path.parent.relative_to(root) if self.data_root_dir and path.is_relative_to(root) else ""
        return self.output_dir / folder / f"{image_stem(path)}{self.postfix}.png"

    def _draw(self, item: Mapping[str, Any], source: str) -> np.ndarray:
        mask = to_hw(item[self.pred_key]) >= self.threshold
        label = to_hw(item[self.label_key]) > 0.5 if self.label_key and item.get(self.label_key) is not None else None
        grey = _grey(source, mask.shape, self.crop) if source else None
        if grey is None:
            grey = _stretch(to_hw(item[self.image_key]))
        if grey.shape != mask.shape or (label is not None and label.shape != mask.shape):
            raise MGCCError(
                f"{source or 'an image'}: '{self.pred_key}' is {mask.shape[1]}x{mask.shape[0]}, unlike the image or "
                f"the label; bring it to the size of the image (Invertd) before the overlay."
            )
        return overlay(grey, mask, label)

    def _write(self, engine: Engine) -> None:
        for item in items_of(engine):
            if self.limit and self._written >= self.limit:
                return
            source = file_name(item, self.image_key)
            path = self._path(source or f"image_{self._written:06d}")
            if self._sources.setdefault(path, source) != source:
                raise MGCCError(f"{path}: {self._sources[path]} and {source} would share it; set data_root_dir.")
            write_picture(path, self._draw(item, source))
            self._written += 1
