"""Pictures of images and masks, drawn and written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, generate_binary_structure
from skimage.util import montage

from mgcc_monai.files import write_file

__all__ = ["LABEL_COLOUR", "PRED_COLOUR", "contact_sheet", "overlay", "write_picture", "write_sheet"]

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
