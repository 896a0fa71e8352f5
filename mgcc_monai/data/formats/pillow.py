"""Opening files of every kind: how many frames there are, and the values of one of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mgcc_monai.data.formats.dicom import read_header
from mgcc_monai.data.formats.frames import IMAGE_SUFFIXES, is_dicom, is_image, video
from mgcc_monai.data.formats.limits import check_file_size, check_pixels
from mgcc_monai.data.formats.nifti import is_nifti, open_nifti
from mgcc_monai.data.formats.tiff import Tiff, is_tiff, page_numbers
from mgcc_monai.errors import MGCCError, one_line, plain_os_errors

__all__ = [
    "check_file",
    "count_frames",
    "frame_index",
    "open_picture",
    "opened",
    "read_nifti",
]


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
    if wrong := video(path):
        raise MGCCError(f"{path}: {wrong}")
    if not is_image(path):
        raise MGCCError(f"{path}: unknown kind of file; images end in one of {', '.join(IMAGE_SUFFIXES)}")


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


@contextmanager
def opened(path: Path) -> Iterator[tuple[Image.Image, Sequence[int]]]:
    """Open with Pillow, and no pixels yet: the first frame, and the numbers of those frames that are pictures.

    A camera's JPEG with a preview behind it (MPO) has one; a TIFF's thumbnails do not count.

    Args:
        path: the file.

    Raises:
        MGCCError: if it is damaged, no image, or too large; also for what the body raises.
    """
    tiff = False
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            tiff = is_tiff(file.read(4))
            file.seek(0)
            with Tiff(file) if tiff else Image.open(file) as picture:
                frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)
                pages = page_numbers(path) if tiff and frames > 1 else range(frames)
                if pages[0]:
                    picture.seek(pages[0])
                yield picture, pages
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MGCCError(f"{path}: too many pixels ({one_line(error)}); make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise MGCCError(f"{path}: not an image that can be read; export it again as PNG") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        if tiff and isinstance(error, SyntaxError):
            raise MGCCError(f"{path}: a TIFF that is not read ({one_line(error)}); export it as PNG") from error
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error


def open_picture(path: Path, frame: Any = None) -> Image.Image | np.ndarray:
    """Read one frame with Pillow, upright; the other frames stay on the disk.

    Args:
        path: the file.
        frame: see :func:`frame_index`.

    Returns:
        The picture, or HW values of a TIFF that has more than 8 bits or signed values.

    Raises:
        MGCCError: if it is damaged, no image, too large, of colours that are not read, or has no such frame.
    """
    with opened(path) as (picture, frames):
        if len(frames) > 1:
            picture.seek(frames[frame_index(path, len(frames), frame)])
        check_pixels(path, *picture.size)
        if picture.mode in ("LAB", "HSV"):
            raise MGCCError(f"{path}: colours as {picture.mode}, which are not read; export it again as grey or RGB")
        picture.load()
        if isinstance(picture, Tiff) and picture.deep and picture.mode in ("L", "F") or picture.mode[0] == "I":
            return picture.values() if isinstance(picture, Tiff) else np.asarray(ImageOps.exif_transpose(picture))
        upright = ImageOps.exif_transpose(picture.convert("LA") if picture.mode == "La" else picture)
        upright.format = picture.format
        return upright


def read_nifti(
    path: Path, frame: Any = None
) -> tuple[Image.Image | np.ndarray, tuple[float, float] | None, np.ndarray | None]:
    """Read one frame of a NIfTI, and no other from an uncompressed file; its first axis runs along the rows.

    Args:
        path: the file.
        frame: see :func:`frame_index`.

    Returns:
        Values HW, or a picture where they are colours; and the frame's ``spacing`` and ``affine`` of
        :class:`mgcc_monai.data.formats.nifti.Nifti`.

    Raises:
        MGCCError: if it is damaged, too large, of values that are no numbers, or has no such frame.
    """
    nifti = open_nifti(path)
    index = frame_index(path, nifti.frames, frame)
    check_pixels(path, *(nifti.image.shape[axis] for axis in nifti.axes))
    try:
        values, spacing, affine = nifti.pixels(index), nifti.spacing, nifti.affine(index)
    except Exception as error:  # a damaged file can make a parser raise anything
        raise MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again") from error
    if values.dtype.kind not in "buif":
        raise MGCCError(f"{path}: NIfTI values of type {values.dtype}; save plain grey values")
    return Image.fromarray(np.ascontiguousarray(values)) if values.ndim == 3 else values, spacing, affine


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
    if is_nifti(path):
        return open_nifti(path).frames
    with opened(path) as (_, frames):
        return len(frames)
