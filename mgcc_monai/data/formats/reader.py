"""The reader that MONAI's ``LoadImage`` is given: every kind of file in one form, with the size of its pixels."""

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

# With pydicom installed every LoadImage warns that a decoder of its own DICOM reader is missing; it is not used here.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)


class UltrasoundReader(ImageReader):
    """Reads PNG, JPEG, BMP, TIFF, NIfTI and DICOM ultrasound into the same grey array, one frame of each.

    The same picture gives the same array whatever its file. No field of a header and no EXIF goes into the meta data;
    they hold the affine (of a NIfTI its own, else of the size of a pixel), the shape, and ``spacing``, (row, column) in
    mm or NaN where it is unknown.

    Args:
        frame: of files with several: ``first``, ``middle`` or a number from 1. A path of
            :func:`mgcc_monai.data.formats.frames.frame_path` names its frame itself.
        crop: ``none``, ``region`` (the largest two-dimensional ultrasound region of a DICOM header), or left, top,
            width and height in pixels.
        reverse_indexing: give (x, y), as MONAI's other readers do; False gives rows first.

    Raises:
        MGCCError: if ``crop`` is none of these; reading raises it for files as
            :func:`mgcc_monai.data.formats.images.load_frame` does.
    """

    def __init__(self, frame: str | int = "middle", crop: Any = "none", reverse_indexing: bool = True) -> None:
        super().__init__()
        self.frame = frame
        self.crop = parse_crop(crop)
        self.reverse_indexing = reverse_indexing

    def verify_suffix(self, filename: Sequence[str | Path] | str | Path) -> bool:
        """Tell whether all files are of a kind that is read."""
        return all(suffix(name) in IMAGE_SUFFIXES or is_dicom(locate(name)[0]) for name in ensure_tuple(filename))

    def read(self, data: Sequence[str | Path] | str | Path, **kwargs: Any) -> list[Frame]:
        """Read a frame of each file."""
        return [load_frame(name, self.frame, self.crop) for name in ensure_tuple(data)]

    def get_data(self, img: Sequence[Frame]) -> tuple[np.ndarray, dict[str, Any]]:
        """Give the array and the meta data of what :meth:`read` returned.

        Args:
            img: one picture, or several of one size, which become channels.

        Returns:
            uint8 WH (HW without ``reverse_indexing``), or CWH of several; and the meta data of the first.
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
