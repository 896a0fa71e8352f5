"""Opening files of every kind: how many frames there are, and the values of one of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image, ImageOps

from mgcc_monai.data.bounds import check_file_size, check_pixels, check_unpacked
from mgcc_monai.data.dicom import read_header
from mgcc_monai.data.paths import IMAGE_SUFFIXES, REFUSED, is_dicom, suffix
from mgcc_monai.errors import MGCCError, one_line, plain_os_errors

__all__ = [
    "check_file",
    "count_frames",
    "frame_index",
    "is_nifti",
    "open_picture",
    "read_nifti",
]

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


@plain_os_errors()
def check_file(path: Path) -> None:
    """Refuse a file that is missing, empty, no image, or of a kind that is not read."""
    if not path.is_file():
        raise MGCCError(f"{path}: no such file; check the path")
    if path.stat().st_size == 0:
        raise MGCCError(f"{path}: the file is empty (0 bytes); copy or download it again")
    check_file_size(path)
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        raise MGCCError(f"{path}: a Git LFS pointer, not the image; run `git lfs pull` in its repository")
    if head.startswith((b"<html", b"<!doctype")):
        raise MGCCError(f"{path}: a web page (HTML), not an image; the download was refused, download it again")
    if suffix(path) in REFUSED:
        raise MGCCError(f"{path}: {REFUSED[suffix(path)]}")
    if suffix(path) not in IMAGE_SUFFIXES and not is_dicom(path):
        raise MGCCError(f"{path}: unknown kind of file; images end in one of {', '.join(IMAGE_SUFFIXES)}")


def is_nifti(path: Path) -> bool:
    """Tell whether a file is NIfTI, by its suffix."""
    return suffix(path).startswith(".nii")


def frame_index(path: Path, frames: int, frame: Any = None) -> int:
    """Choose a frame of a file.

    Args:
        path: the file, for the message.
        frames: how many it has.
        frame: ``first``, ``middle``, a number from 1, or None where exactly one is expected.

    Returns:
        The frame's index, from 0. A file of one frame gives it whatever word was asked for.

    Raises:
        MGCCError: if there is no such frame, or there are several and none was chosen.
    """
    if frame is None:
        if frames > 1:
            raise MGCCError(f"{path}: {frames} frames, where one frame is expected; export the one wanted to a file")
        return 0
    if frame in ("first", "middle"):
        return 0 if frame == "first" else (frames - 1) // 2
    if not str(frame).isdecimal():
        raise MGCCError(f"--frame {frame}: is no choice of a frame; give all, first, middle or a number from 1")
    if not 1 <= int(frame) <= frames:
        raise MGCCError(f"{path}: {frames} frames, so there is no frame {frame}; give a number from 1 to {frames}")
    return int(frame) - 1


def _picture_frames(picture: Image.Image) -> int:
    """Number of frames; a camera's JPEG with a preview behind it (MPO) counts as one."""
    return 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)


def open_picture(path: Path, frame: Any = None) -> Image.Image:
    """Open with Pillow: one frame, upright, decoded; the other frames stay on the disk.

    Args:
        path: the file.
        frame: see :func:`frame_index`.

    Raises:
        MGCCError: if it is damaged, no image, too large, or has no such frame.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                frames = _picture_frames(picture)
                if frames > 1:
                    picture.seek(frame_index(path, frames, frame))
                check_pixels(path, *picture.size)
                picture.load()
                kind = picture.format
                upright = ImageOps.exif_transpose(picture)
                upright.format = kind
                return upright
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MGCCError(f"{path}: too many pixels ({one_line(error)}); make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise MGCCError(f"{path}: not an image that can be read; export it again as PNG") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error


def _open_nifti(path: Path) -> tuple[Any, int | None]:
    """A NIfTI and its one axis of frames, or None where it has one frame."""
    if suffix(path) == ".nii.gz":
        check_unpacked(path)
    image = nibabel.load(path)
    axes = [axis for axis, length in enumerate(image.shape) if axis > 1 and length > 1]
    if len(image.shape) < 2 or len(axes) > 1:
        raise MGCCError(f"{path}: a NIfTI of shape {tuple(image.shape)}, where width, height, frames are expected")
    return image, axes[0] if axes else None


def read_nifti(path: Path, frame: Any = None) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Read one frame of a NIfTI, and no other from an uncompressed file; the first axis runs along the rows.

    Args:
        path: the file.
        frame: see :func:`frame_index`.

    Returns:
        Values HW; and the (row, column) size of a pixel in mm, or None where it is 1 x 1, which is what programs write
        that know of none.

    Raises:
        MGCCError: if it is damaged, too large, not of grey values, or has no such frame.
    """
    try:
        image, axis = _open_nifti(path)
        index = frame_index(path, image.shape[axis] if axis else 1, frame)
        check_pixels(path, *image.shape[:2])
        place = [slice(None) if n < 2 else index if n == axis else 0 for n in range(len(image.shape))]
        values = np.asanyarray(image.dataobj[tuple(place)]).T
        zooms = [float(zoom) for zoom in image.header.get_zooms()[:2]]
        factor = _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    except Exception as error:
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error
    if values.dtype.kind not in "buif":
        raise MGCCError(f"{path}: NIfTI values of type {values.dtype}; save plain grey values")
    known = all(np.isfinite(zoom) and zoom > 0 for zoom in zooms) and zooms != [1.0, 1.0]
    return values, (zooms[1] * factor, zooms[0] * factor) if known else None


@plain_os_errors()
def count_frames(path: str | Path) -> int:
    """Count the frames of an image file without decoding any.

    Args:
        path: PNG, JPEG, BMP, TIFF, NIfTI or DICOM.

    Raises:
        MGCCError: if the file is damaged or no image.
    """
    path = Path(path)
    check_file(path)
    if is_dicom(path):
        return read_header(path).frames
    try:
        if is_nifti(path):
            image, axis = _open_nifti(path)
            return image.shape[axis] if axis else 1
        with Image.open(path) as picture:
            return _picture_frames(picture)
    except Exception as error:
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error
