"""Read an image or mask of any common format into one form, or say what is wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgcc_monai.data.formats.dicom import Box, Dicom
from mgcc_monai.data.formats.frames import IMAGE_SUFFIXES, image_stem, list_images, locate
from mgcc_monai.data.formats.source import Source, frame_index, open_source
from mgcc_monai.errors import MGCCError, plain_os_errors

__all__ = [
    "IMAGE_SUFFIXES",
    "Frame",
    "image_stem",
    "list_images",
    "parse_crop",
    "read_image",
    "read_mask",
    "load_frame",
]


@dataclass(frozen=True)
class Frame:
    """One frame of an image file, with its pixel size and position but nothing else from the header.

    Args:
        pixels: uint8 HW.
        spacing: (row, column) pixel size in mm, or None if the file does not state it.
        box: left, top, right and bottom of the part kept; right and bottom are exclusive.
        whole: height and width of the uncropped frame.
        affine: 4 x 4 over (x, y, z) of the pixels, from a NIfTI; else None.
    """

    pixels: np.ndarray
    spacing: tuple[float, float] | None
    box: Box
    whole: tuple[int, int]
    affine: np.ndarray | None = None


def _check_finite(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise MGCCError(f"{path}: holds values that are not numbers (NaN or infinite); export it again")


def to_bytes(values: np.ndarray, path: Path) -> np.ndarray:
    """Scale deeper values to 8 bits by their own minimum and maximum; 8-bit values pass unchanged."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    _check_finite(path, values)
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)


def grey(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Return a Pillow image as HW: luminance for colour, alpha dropped, values not rescaled."""
    if isinstance(picture, np.ndarray):
        return picture
    if picture.mode in ("LA", "La"):
        picture = picture.getchannel(0)
    if picture.mode in ("P", "PA"):  # their transparency must not be mixed in
        picture = picture.convert("RGBA")
    return np.asarray((picture if picture.mode in ("1", "L") else picture.convert("RGB")).convert("L"))


def parse_crop(crop: Any = None) -> str | Box:
    """Parse the part to keep: ``none``, ``region``, or left, top, width and height in pixels.

    Args:
        crop: None or one of the words; or four integers, as a sequence or comma-separated text.

    Returns:
        "none", "region", or left, top, width, height.

    Raises:
        MGCCError: if it is anything else.
    """
    if crop is None or str(crop).strip().lower() in ("none", "region", ""):
        return str(crop or "none").strip().lower() or "none"
    parts = str(crop).strip("[]() ").split(",") if isinstance(crop, str) else list(crop) if np.iterable(crop) else []
    try:
        left, top, width, height = (int(str(part)) for part in parts)
    except ValueError:
        left = top = width = height = -1
    if min(left, top) < 0 or min(width, height) < 1:
        raise MGCCError(f"--crop {crop}: is no choice of a part; give none, region, or left,top,width,height in pixels")
    return left, top, width, height


def _crop_box(path: Path, crop: Any, size: tuple[int, int], source: Source) -> Box:
    """Return the box to crop from a frame of (height, width); see :class:`Frame`."""
    height, width = size
    header = source if isinstance(source, Dicom) else None
    whole, wanted = (0, 0, width, height), parse_crop(crop)
    cure = "give --crop left,top,width,height"
    if wanted == "region":
        if header is None or not header.regions:
            raise MGCCError(f"{path}: its header names no ultrasound region of this picture to crop to; {cure}")
        box = header.regions[0].box
    elif wanted == "none":
        box = whole
    else:
        left, top = wanted[:2]
        box = (left, top, left + wanted[2], top + wanted[3])
        if box[2] > width or box[3] > height:
            raise MGCCError(f"{path}: {width} x {height} pixels, so --crop {crop} reaches beyond it; give a part of it")
    if box == whole and header is not None and header.burned_in:
        cure = "give --crop region or left,top,width,height" if header.regions and wanted == "none" else cure
        raise MGCCError(f"{path}: says that text on the patient is burned in (BurnedInAnnotation YES); {cure}")
    return box


@plain_os_errors()
def load_frame(path: str | Path, frame: Any = None, crop: Any = None) -> Frame:
    """Read one frame as grey values, with its pixel size.

    Colour becomes luminance, alpha is dropped, an EXIF orientation is applied, MONOCHROME1 is inverted, a NIfTI is
    transposed (rows come first), and more than 8 bits are scaled by the minimum and maximum of the cropped part.
    Other frames are not read.

    Args:
        path: the file, or a path from :func:`mgcc_monai.data.formats.frames.frame_path`; the frame it names overrides
            ``frame``.
        frame: ``first``, ``middle``, a number from 1, or None if exactly one is expected.
        crop: see :func:`parse_crop`; ``region`` is the largest two-dimensional region of a DICOM header.

    Raises:
        MGCCError: if the file is missing, empty, damaged, not an image, too large, has no such frame or region, or
            declares burned-in text about the patient and is not cropped.
    """
    path, number = locate(path)
    frame = number if number is not None else frame
    with open_source(path) as source:
        index = frame_index(path, source.frames, frame)
        if isinstance(source, Dicom):
            _crop_box(path, crop, source.size, source)  # refuse before decoding
        values, affine = grey(source.picture(index)), source.affine(index)
        left, top, right, bottom = box = _crop_box(path, crop, values.shape, source)
        spacing = source.spacing_in(box)
    if affine is not None:
        affine[:, 3] = affine @ [left, top, 0, 1]
    return Frame(to_bytes(values[top:bottom, left:right], path), spacing, box, values.shape, affine)


def read_image(path: str | Path, frame: Any = None, crop: Any = None) -> np.ndarray:
    """Read one grey image; see :func:`load_frame`.

    Returns:
        uint8 HW.
    """
    return load_frame(path, frame, crop).pixels


def _pack(bands: np.ndarray) -> np.ndarray:
    """Pack HWC uint8 colours: one grey level (uint8) per pixel or, if any is coloured, r + 256 g + 65536 b."""
    if (bands == bands[..., :1]).all():
        return bands[..., 0]
    return bands.astype(np.uint32) @ (256 ** np.arange(bands.shape[2], dtype=np.uint32))


def _mask_values(picture: Image.Image | np.ndarray) -> np.ndarray:
    """Return one number per pixel: the colour or, if that is uniform, the palette index or alpha. No rescaling."""
    if isinstance(picture, np.ndarray):
        return picture
    if picture.mode == "P":
        colours = _pack(np.asarray(picture.convert("RGB")))
        return colours if np.ptp(colours) else np.asarray(picture)
    if picture.mode in ("1", "L"):
        return np.asarray(picture)
    bands = np.asarray(picture if picture.mode in ("LA", "RGB", "RGBA") else picture.convert("RGB"))
    if bands.shape[2] == 3:
        return _pack(bands)
    colours, alpha = _pack(bands[..., :-1]), bands[..., -1]
    return alpha if np.ptp(alpha) and not np.ptp(colours) else colours


def _without_ringing(grey: np.ndarray) -> np.ndarray:
    """Remove JPEG ringing by thresholding at mid-grey, if nearly all pixels are close to black or white."""
    if grey.max() >= 192 and ((grey >= 64) & (grey < 192)).mean() <= 0.02:
        return np.where(grey >= 128, 255, 0)
    return grey


def read_mask(path: str | Path) -> np.ndarray:
    """Read one mask: 0 is background, the only other value is lesion.

    Axes are as stored; :func:`mgcc_monai.data.formats.nifti.lay_on` aligns a NIfTI mask with its image.

    Palette, 1-bit, grey, RGB and RGBA files are read by their colours (black is background). If all pixels have the
    same colour, the palette indices or the alpha channel are the mask. JPEG ringing is removed.

    Args:
        path: the file.

    Returns:
        uint8 HW of 0 and 1.

    Raises:
        MGCCError: as :func:`read_image`; or if the file contains more than background and one other value.
    """
    path = Path(path)
    with open_source(path) as source:
        picture = source.picture(frame_index(path, source.frames))
        return binary(picture, path, jpeg=source.format in ("JPEG", "MPO"))


def binary(picture: Image.Image | np.ndarray, path: Path, jpeg: bool) -> np.ndarray:
    """Convert a mask's picture as :func:`read_mask` does.

    Args:
        picture: the picture of a :class:`mgcc_monai.data.formats.source.Source`.
        path: the file, for the message.
        jpeg: whether it was stored as JPEG.
    """
    values = _without_ringing(np.asarray(picture.convert("L"))) if jpeg else _mask_values(picture)
    _check_finite(path, values)
    found = np.unique(values)
    if len(found) - (0 in found) > 1:
        colour = found.dtype == np.uint32
        shown = [f"rgb({v % 256},{v // 256 % 256},{v // 65536})" if colour else f"{v:g}" for v in found[:8].tolist()]
        shown = ", ".join(shown) + (", ..." if len(found) > 8 else "")
        raise MGCCError(
            f"{path}: not a binary mask, {len(found)} values found ({shown}); "
            "make lesion 255 and all else 0 (one file a lesion, or one value for all) and save it as PNG"
        )
    return (values != 0).astype(np.uint8)
