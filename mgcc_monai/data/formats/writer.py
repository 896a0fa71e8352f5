"""Hooks for MONAI's ``SaveImage``: mask file names, and NIfTI masks on the grid of their images."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.data import NibabelWriter
from monai.utils import convert_to_numpy

from mgcc_monai.data.formats.frames import image_stem, locate
from mgcc_monai.data.formats.nifti import is_nifti, open_nifti

__all__ = ["MaskWriter", "mask_name", "mask_writer"]

_PLACE = ("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z")
_PLACE += ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


def mask_name(meta_dict: Mapping[str, Any] | None, saver: Any) -> dict[str, Any]:
    """Return the name of a mask, after its image; use as ``output_name_formatter`` of ``SaveImage``.

    Args:
        meta_dict: the image's metadata; ``filename_or_obj`` names the image.
        saver: the ``SaveImage``, which removes one suffix from the name.
    """
    path = Path(str((meta_dict or {}).get("filename_or_obj") or saver._data_index))
    return {"subject": str(path.with_name(image_stem(path) + ".png")), "idx": None}


class MaskWriter(NibabelWriter):
    """MONAI's NIfTI writer, for masks of images read by :class:`UltrasoundReader`.

    The mask of a NIfTI image gets the image's shape (1 along the frame axis), affine, pixel size and units, shifted to
    the frame and crop, but nothing else from the header. Masks of other files are written as by MONAI. Integers are
    stored as ``output_dtype``, other values (such as probabilities) as float32.
    """

    def set_metadata(self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any) -> None:
        """Set the metadata; nothing is resampled."""
        self.data_obj = convert_to_numpy(self.data_obj)
        self.affine = convert_to_numpy(meta_dict["original_affine"]) if meta_dict else np.eye(4)
        file, _ = locate(str((meta_dict or {}).get("filename_or_obj", "")))
        self.source = open_nifti(file) if is_nifti(file) and file.is_file() else None
        if (self.data_obj % 1).any():
            self.output_dtype = np.float32

    def write(self, filename: PathLike | str, verbose: bool = False, **options: Any) -> None:
        """Write the file."""
        if self.source is None:
            return super().write(filename, verbose=verbose, **options)
        source, axes = self.source.image, self.source.axes
        shape = list(self.source.frame_shape)
        values = self.data_obj.reshape(len(self.data_obj), -1)
        shape[axes[0]], shape[axes[1]] = values.shape
        image = type(source)(values.reshape(shape).astype(self.output_dtype), None)
        for key in _PLACE:
            image.header[key] = source.header[key]
        if self.source.world is not None:
            start = np.rint(np.linalg.solve(self.source.world, self.affine[:, 3]))
            for form in ("sform", "qform") if start[:3].any() else ():
                affine, code = getattr(source.header, f"get_{form}")(coded=True)
                if code:
                    affine[:, 3] = affine @ start
                    getattr(image.header, f"set_{form}")(affine, int(code))
        nibabel.save(image, filename)
        return None


def mask_writer(output_ext: str) -> type[MaskWriter] | None:
    """Return the ``writer`` of ``SaveImage`` for a suffix: ours for NIfTI, else None for MONAI's own."""
    return MaskWriter if str(output_ext).lower().lstrip(".") in ("nii", "nii.gz") else None
