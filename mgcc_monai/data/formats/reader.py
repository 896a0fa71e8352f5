"""The reader for MONAI's ``LoadImage``: every file format in one form, with its pixel size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ImageReader
from monai.utils import ensure_tuple
from monai.utils.enums import MetaKeys, SpaceKeys

from mgcc_monai.data.formats.frames import IMAGE_SUFFIXES, is_dicom, locate, suffix
from mgcc_monai.data.formats.images import Frame, load_frame, parse_crop

__all__ = ["UltrasoundReader"]

# With pydicom installed, LoadImage warns that its own DICOM reader lacks a decoder; that reader is not used here.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


class UltrasoundReader(ImageReader):
    """Reader of PNG, JPEG, BMP, TIFF, WebP, GIF, NIfTI and DICOM ultrasound; returns one frame as a grey array.

    The same image gives the same array in every format. Header fields and EXIF are not copied to the metadata, which
    contain the affine (that of a NIfTI, else made from the pixel size), the shape, and ``spacing``: (row, column) in
    mm, NaN if unknown.

    Args:
        frame: for files with several frames: ``first``, ``middle`` or a number from 1. A path from
            :func:`mgcc_monai.data.formats.frames.frame_path` names its frame itself.
        crop: ``none``, ``region`` (the largest two-dimensional ultrasound region of a DICOM header), or left, top,
            width and height in pixels.
        reverse_indexing: return (x, y), as MONAI's other readers do; False returns rows first.

    Raises:
        MGCCError: if ``crop`` is none of these; reading raises the errors of
            :func:`mgcc_monai.data.formats.images.load_frame`.
    """

    def __init__(self, frame: str | int = "middle", crop: Any = "none", reverse_indexing: bool = True) -> None:
        super().__init__()
        self.frame = frame
        self.crop = parse_crop(crop)
        self.reverse_indexing = reverse_indexing

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """Return whether all files are of a supported format."""
        return all(suffix(name) in IMAGE_SUFFIXES or is_dicom(locate(name)[0]) for name in ensure_tuple(filename))

    def read(self, data: Sequence[str | Path] | str | Path, **kwargs: Any) -> list[Frame]:
        """Read one frame of each file."""
        return [load_frame(name, self.frame, self.crop) for name in ensure_tuple(data)]

    def get_data(self, img: Sequence[Frame]) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the array and metadata of the frames from :meth:`read`.

        Args:
            img: one frame, or several of the same size, which become channels.

        Returns:
            uint8 WH (HW without ``reverse_indexing``), or CWH for several; and the metadata of the first.
        """
        arrays = [picture.pixels.T if self.reverse_indexing else picture.pixels for picture in img]
        row, column = img[0].spacing or (1.0, 1.0)
        affine = img[0].affine
        if affine is None:
            affine = np.diag([column, row, 1.0, 1.0] if self.reverse_indexing else [row, column, 1.0, 1.0])
        elif not self.reverse_indexing:
            affine = affine[:, [1, 0, 2, 3]]
        meta = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(arrays[0].shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if len(arrays) == 1 else 0,
            "spacing": np.asarray(img[0].spacing or (float("nan"), float("nan"))),
        }
        return (arrays[0] if len(arrays) == 1 else np.stack(arrays)), meta
