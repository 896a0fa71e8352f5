"""Open an image file of any supported format once, count its frames and read one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mgcc_monai.data.formats.dicom import Box, open_dicom
from mgcc_monai.data.formats.frames import IMAGE_SUFFIXES, is_dicom, is_image, video
from mgcc_monai.data.formats.limits import check_file_size
from mgcc_monai.data.formats.nifti import is_nifti, open_nifti
from mgcc_monai.data.formats.pillow import open_pillow
from mgcc_monai.errors import MGCCError, plain_os_errors

__all__ = ["Source", "count_frames", "frame_index", "open_source"]


class Source(Protocol):
    """An open image file; each format's module implements this.

    Attributes:
        format: Pillow's name of the format, NIFTI or DICOM.
        mode: how a pixel is stored: Pillow's mode, or the data type of the values.
        frames: number of frames.
        size: height and width of a frame, as stored.
        orientation: EXIF orientation; 1 is upright.
    """

    format: str
    mode: str
    frames: int
    size: tuple[int, int]
    orientation: int

    def picture(self, index: int) -> Image.Image | np.ndarray:
        """Return a frame, upright: a picture, or values HW."""

    def affine(self, index: int) -> np.ndarray | None:
        """Return the affine, 4 x 4 over (x, y, z) of a frame's pixels; None if the file has none."""

    def spacing_in(self, box: Box) -> tuple[float, float] | None:
        """Return the (row, column) pixel size in mm within a box; None if unknown."""


@plain_os_errors()
def _check_file(path: Path) -> None:
    """Refuse a file that is missing, empty, too large, not an image, or of an unsupported format."""
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


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Open an image file; no pixels are read yet.

    Raises:
        MGCCError: if it is missing, empty, damaged, too large, not an image, or of an unsupported format; also while
            its frames are read.
    """
    _check_file(path)
    if is_dicom(path):
        yield open_dicom(path)
    elif is_nifti(path):
        yield open_nifti(path)
    else:
        with open_pillow(path) as file:
            yield file


def frame_index(path: Path, frames: int, frame: Any = None) -> int:
    """Choose a frame of a file.

    Args:
        path: the file, for the message.
        frames: number of frames in the file.
        frame: ``first``, ``middle``, a number from 1, or None if exactly one is expected.

    Returns:
        The frame's index, from 0.

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


@plain_os_errors()
def count_frames(path: str | Path) -> int:
    """Count the frames of an image file without decoding any.

    Args:
        path: PNG, JPEG, BMP, TIFF, NIfTI or DICOM.

    Raises:
        MGCCError: if the file is damaged or not an image.
    """
    with open_source(Path(path)) as source:
        return source.frames
