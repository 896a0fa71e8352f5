"""Read NIfTI files: image and frame axes, affines, and alignment of masks with their images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import Image

from mgcc_monai.data.formats.frames import locate, suffix
from mgcc_monai.data.formats.limits import check_pixels, check_unpacked
from mgcc_monai.errors import MGCCError, one_line

__all__ = ["Nifti", "is_nifti", "lay_on", "open_nifti"]

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_COLOURS = (3, 4)  # values per pixel of RGB and RGBA
_THIN = 16  # pixels; an image larger than this is not 3 or 4 wide


def is_nifti(path: str | Path) -> bool:
    """Return whether a file is NIfTI, by its suffix."""
    return suffix(path).startswith(".nii")


@dataclass(frozen=True)
class Nifti:
    """An open NIfTI; only its header has been read.

    Args:
        path: the file.
        image: the nibabel image.
        axes: the axis along an image's rows and the one along its columns: the first two longer than one.
        loop: the axis of the frames: the third longer than one; None if there is none.
    """

    path: Path
    image: Any
    axes: tuple[int, int]
    loop: int | None

    format = "NIFTI"
    orientation = 1

    @property
    def mode(self) -> str:
        """Data type of the values; uint8 for colours."""
        stored = self.image.get_data_dtype()
        return "uint8" if stored.names else str(stored)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.image.shape[self.axes[1]], self.image.shape[self.axes[0]]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return 1 if self.loop is None else self.image.shape[self.loop]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The file's shape, reduced to one frame."""
        return tuple(1 if axis == self.loop else length for axis, length in enumerate(self.image.shape))

    def picture(self, index: int) -> Image.Image | np.ndarray:
        """Read one frame (of an uncompressed file, only that); its first axis runs along the rows.

        Returns:
            Values HW, in the stored type and scaled as the header says; a picture for RGB and RGBA.

        Raises:
            MGCCError: if it is damaged, or its values are not real numbers.
        """
        check_pixels(self.path, *self.size[::-1])
        place = [slice(None) if a in self.axes else index if a == self.loop else 0 for a in range(self.image.ndim)]
        try:
            values = np.asanyarray(self.image.dataobj[tuple(place)]).T
        except Exception as error:  # a damaged file can make a parser raise anything
            raise _damaged(self.path, error) from error
        if values.dtype.names:
            return Image.fromarray(np.stack([values[name] for name in values.dtype.names], -1))
        if values.dtype.kind not in "buif":
            raise MGCCError(f"{self.path}: NIfTI values of type {values.dtype}; save plain grey values")
        return values

    def spacing_in(self, box: tuple[int, int, int, int]) -> tuple[float, float] | None:
        """Return the (row, column) pixel size in mm; None if it is 1 x 1, which programs write for unknown sizes."""
        zooms = [float(self.image.header.get_zooms()[axis]) for axis in self.axes]
        factor = _MILLIMETRES.get(self.image.header.get_xyzt_units()[0], 1.0)
        known = all(np.isfinite(zoom) and zoom > 0 for zoom in zooms) and zooms != [1.0, 1.0]
        return (zooms[1] * factor, zooms[0] * factor) if known else None

    @cached_property
    def world(self) -> np.ndarray | None:
        """Affine of the first frame, 4 x 4 over the file's first three axes; None if the header has none."""
        header = self.image.header
        if not (int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0) or max(self.axes) > 2:
            return None
        affine = np.array(self.image.affine, dtype=np.float64)
        (through,) = {0, 1, 2} - set(self.axes)
        if not affine[:3, through].any():  # thickness unknown
            affine[:3, through] = np.cross(affine[:3, self.axes[0]], affine[:3, self.axes[1]])
        usable = np.isfinite(affine).all() and np.abs(np.linalg.det(affine)) > 1e-12
        return affine if usable else None

    def affine(self, index: int) -> np.ndarray | None:
        """Return the affine of a frame, 4 x 4 over the axis along its rows, the one along its columns and the third."""
        if self.world is None:
            return None
        (through,) = {0, 1, 2} - set(self.axes)
        start = [index if axis == self.loop else 0 for axis in range(3)]
        affine = self.world[:, [*self.axes, through, 3]]
        affine[:, 3] = self.world @ [*start, 1]
        return affine


def _damaged(path: Path, error: Exception) -> MGCCError:
    return MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or download it again")


def _check_packing(path: Path) -> None:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed and suffix(path) == ".nii":
        raise MGCCError(f"{path}: is packed with gzip, unlike its name says; rename it, to end in .nii.gz")
    if not packed and suffix(path) == ".nii.gz":
        raise MGCCError(f"{path}: is not packed with gzip, unlike its name says; rename it, to end in .nii")


def open_nifti(path: str | Path) -> Nifti:
    """Open a NIfTI; the values stay on disk.

    Args:
        path: the file.

    Raises:
        MGCCError: if it is damaged, too large, wrongly named for its packing, or not an image or loop by its shape.
    """
    path = Path(path)
    _check_packing(path)
    if suffix(path) == ".nii.gz":
        check_unpacked(path)
    try:
        image = nibabel.load(path)
        shape = tuple(int(length) for length in image.shape)
    except Exception as error:  # a damaged file can make a parser raise anything
        raise _damaged(path, error) from error
    long = [axis for axis, length in enumerate(shape) if length != 1]
    if len(shape) < 2 or len(long) > 3 or 0 in shape:
        raise MGCCError(f"{path}: a NIfTI of shape {shape}, where width, height, frames are expected")
    sides = [shape[axis] for axis in long]
    if len(long) == 3 and (sides[2] in _COLOURS or sides[0] in _COLOURS and min(sides[1:]) > _THIN):
        cure = "save the frames one by one, or colours as grey values, as PNG or as the NIfTI type RGB24"
        raise MGCCError(f"{path}: a NIfTI of shape {shape}: its axis of 3 or 4 may be frames or colours; {cure}")
    short = [axis for axis in range(len(shape)) if axis not in long]
    first, second, *loop = sorted([*long, *short[: max(2 - len(long), 0)]])
    return Nifti(path, image, (first, second), loop[0] if loop else None)


def _told(affine: np.ndarray) -> str:
    sizes = " x ".join(f"{np.linalg.norm(affine[:3, axis]):.4g}" for axis in (0, 1))
    axes = "".join(nibabel.aff2axcodes(affine)[:2])
    return f"axes {axes}, pixels of {sizes}, origin {', '.join(f'{place:.4g}' for place in affine[:3, 3])}"


def lay_on(image: str | Path, path: str | Path, mask: np.ndarray) -> np.ndarray:
    """Align a mask with its image's axes, using the affines of both.

    Axes are flipped or swapped, never resampled. If either file is not a NIfTI or has no affine (sform and qform codes
    0), the mask stays as stored. So does a mask of another size, which the caller must refuse.

    Args:
        image: the image's file, or a path from :func:`mgcc_monai.data.formats.frames.frame_path`; for a frame, the
            position perpendicular to its plane is ignored.
        path: the mask's file.
        mask: HW, as stored.

    Returns:
        HW; ``mask`` itself if nothing changes.

    Raises:
        MGCCError: if the grids differ: other directions or pixel sizes, or more than half a pixel apart.
    """
    file, number = locate(image)
    if not (is_nifti(file) and is_nifti(path)):
        return mask
    still, moving = open_nifti(file), open_nifti(path)
    target, source = still.affine((number or 1) - 1), moving.affine(0)
    height, width = still.size
    if target is None or source is None or sorted(mask.shape) != sorted((height, width)):
        return mask
    relative = np.linalg.inv(target) @ source
    turn = io_orientation(relative)
    if not np.isnan(turn).any():
        turned = apply_orientation(mask.T[..., None], turn)
        off = relative @ inv_ornt_aff(turn, (*mask.shape[::-1], 1)) - np.eye(4)
        corners = np.array([*product((0, width - 1), (0, height - 1), (0,), (1,))])
        distance = np.abs(corners @ off.T)[:, : 3 if still.frames == 1 else 2]
        if turned.shape == (width, height, 1) and distance.max() <= 0.5:
            same = (turn[:2] == [[0, 1], [1, 1]]).all()
            return mask if same else np.ascontiguousarray(turned[..., 0].T)
    raise MGCCError(
        f"{path}: lies otherwise than its image {Path(image).name} ({_told(source)}, the image {_told(target)}); "
        "save it on the image's grid, or as PNG if its rows and columns are the image's"
    )
