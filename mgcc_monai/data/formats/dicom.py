"""Read DICOM ultrasound: the header, and one frame at a time."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgcc_monai.data.formats.dicom_checks import PIXEL_TAGS, check_description, check_frames, check_syntax, other_object
from mgcc_monai.data.formats.limits import check_pixels
from mgcc_monai.errors import MGCCError, one_line

__all__ = ["Box", "Dicom", "Region", "not_a_picture", "open_dicom", "read_frame"]

logger = logging.getLogger(__name__)

Box = tuple[int, int, int, int]

_INSTALL = "run `pip install 'mgcc_monai[dicom]'`"
_CENTIMETRES, _TWO_DIMENSIONAL = 3, 1
_OBJECT_TAGS = ("SOPClassUID", "Modality", "Rows", "Columns")
_TAGS = (
    *(*_OBJECT_TAGS, *PIXEL_TAGS, "NumberOfFrames", "BurnedInAnnotation", "PixelSpacing"),
    *("SequenceOfUltrasoundRegions", "SharedFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Region:
    """A part of the image that shows tissue.

    Args:
        box: left, top, right and bottom in pixels; right and bottom are exclusive.
        spacing: (row, column) pixel size in mm, or None if the header does not state it.
    """

    box: Box
    spacing: tuple[float, float] | None


@dataclass(frozen=True)
class Dicom:
    """The fields of a DICOM header that are used; none identifies a person.

    Args:
        path: the file.
        rows: height of a frame.
        columns: width of a frame.
        frames: number of frames.
        burned_in: whether the header says that text about the patient is in the pixels.
        regions: the two-dimensional ultrasound regions, largest first.
        spacing: (row, column) pixel size in mm outside the regions, or None.
        syntax: UID of the transfer syntax.
        mode: data type of the pixel values.
    """

    path: Path
    rows: int
    columns: int
    frames: int
    burned_in: bool
    regions: tuple[Region, ...]
    spacing: tuple[float, float] | None
    syntax: str
    mode: str

    format = "DICOM"
    orientation = 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self.rows, self.columns

    def picture(self, index: int) -> Image.Image | np.ndarray:
        """Read a frame; see :func:`read_frame`."""
        check_pixels(self.path, self.columns, self.rows)
        values = read_frame(self, index)
        return Image.fromarray(values) if values.ndim == 3 else values

    def affine(self, index: int) -> None:
        """Return None: only pixel sizes are read."""

    def spacing_in(self, box: Box) -> tuple[float, float] | None:
        """Return the (row, column) pixel size in mm in a box; None if it is unknown or differs within the box."""
        left, top, right, bottom = box
        found = [
            region.spacing
            for region in self.regions
            if region.spacing
            and min(right, region.box[2]) > max(left, region.box[0])
            and min(bottom, region.box[3]) > max(top, region.box[1])
        ]
        if not found:
            return self.spacing
        same = all(math.isclose(a, b, rel_tol=0.01) for one in found for a, b in zip(one, found[0], strict=True))
        return found[0] if same else None


def _pydicom(path: Path) -> Any:
    try:
        import pydicom
    except ImportError:
        raise MGCCError(f"{path}: a DICOM file, which needs pydicom; {_INSTALL}") from None
    return pydicom


def _positive(values: Any, factor: float = 1.0) -> tuple[float, float] | None:
    """Return two lengths in mm, or None unless both are nonzero numbers; the sign only gives the axis direction."""
    try:
        row, column = (abs(float(value)) * factor for value in values)
    except (TypeError, ValueError):
        return None
    return (row, column) if all(math.isfinite(length) and length > 0 for length in (row, column)) else None


def _header_spacing(dataset: Any) -> tuple[float, float] | None:
    if spacing := _positive(dataset.get("PixelSpacing")):
        return spacing
    groups = dataset.get("SharedFunctionalGroupsSequence") or []
    measures = [item for group in groups for item in group.get("PixelMeasuresSequence") or []]
    return next((spacing for item in measures if (spacing := _positive(item.get("PixelSpacing")))), None)


def _regions(path: Path, dataset: Any) -> tuple[Region, ...] | None:
    """Return the two-dimensional regions, clipped to the image; None if they describe another image.

    In a cropped image a region extends beyond the cut side, and the pixel size stays valid. In a shrunk image a region
    extends beyond the image on both axes, and neither positions nor sizes are valid.
    """
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    names = [f"RegionLocation{name}" for name in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
    found = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or []:
        places = [item.get(name) for name in names]
        if item.get("RegionSpatialFormat") != _TWO_DIMENSIONAL or None in places:
            continue
        left, top, right, bottom = (int(place) for place in places)
        right, bottom = right + 1, bottom + 1  # the last pixel is inclusive, but some scanners give the one after it
        beyond = (right > columns + 1, bottom > rows + 1)
        if all(beyond) or left >= columns or top >= rows:
            logger.warning("%s: its ultrasound regions are those of a larger picture; its sizes are not used.", path)
            return None
        if any(beyond):
            logger.warning("%s: an ultrasound region reaches beyond the picture; it is cut at the edge.", path)
        box = (max(left, 0), max(top, 0), min(right, columns), min(bottom, rows))
        units = {item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")}
        deltas = (item.get("PhysicalDeltaY"), item.get("PhysicalDeltaX"))
        if box[2] > box[0] and box[3] > box[1]:
            found.append(Region(box, _positive(deltas, 10.0) if units == {_CENTIMETRES} else None))
    return tuple(sorted(found, key=lambda r: (r.box[0] - r.box[2]) * (r.box[3] - r.box[1])))


@lru_cache(maxsize=256)
def _cached(path: Path, changed: int, size: int) -> Dicom:
    pydicom = _pydicom(path)
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            if file.read(132)[128:] != b"DICM":
                raise ValueError("it lacks the preamble, DICM behind the first 128 bytes")
            syntax = str(pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID") or "")
            check_syntax(path, syntax, pydicom)
            file.seek(0)
            dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
            if other := other_object(dataset, pydicom):
                raise MGCCError(f"{path}: a DICOM file without a picture ({other}); remove it from the folder")
            check_description(path, dataset)
            frames = check_frames(path, dataset, file, syntax, pydicom)
        regions = _regions(path, dataset)
        return Dicom(
            path=path,
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            frames=frames,
            burned_in=str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES",
            regions=regions or (),
            spacing=None if regions is None else _header_spacing(dataset),
            syntax=syntax,
            mode="uint8" if int(dataset.BitsStored) <= 8 else "uint16",
        )
    except Exception as error:  # a damaged file can make a parser raise anything
        raise MGCCError(f"{path}: not a DICOM file that can be read ({one_line(error)}); export it again") from error


def open_dicom(path: str | Path) -> Dicom:
    """Read the DICOM header; the pixels stay on disk.

    Args:
        path: the file.

    Raises:
        MGCCError: if pydicom is not installed, or the file is damaged, contains no image, does not state how its
            pixels are stored, or contains a different number of frames than it states.
    """
    path = Path(path)
    state = path.stat()
    return _cached(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1024)
def _cached_object(path: Path, changed: int, size: int) -> str:
    pydicom = _pydicom(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_OBJECT_TAGS))
            return other_object(dataset, pydicom)
    except Exception:  # a damaged file can make a parser raise anything; reported on reading
        return ""


def not_a_picture(path: str | Path) -> str | None:
    """Return the class of a DICOM file that is not an image, such as ``Segmentation Storage``.

    Args:
        path: the file.

    Returns:
        Its class; None if it is an image, or cannot be read (:func:`open_dicom` reports that).
    """
    path = Path(path)
    state = path.stat()
    try:
        return _cached_object(path, state.st_mtime_ns, state.st_size) or None
    except MGCCError:  # pydicom is not installed
        return None


def _undecoded(path: Path, syntax: str, error: Exception) -> MGCCError:
    """Return the error of a frame that could not be decoded: no decoder installed, or a damaged file."""
    pydicom = _pydicom(path)
    uid = pydicom.uid.UID(syntax)
    if not pydicom.pixels.get_decoder(uid).is_available:
        return MGCCError(f"{path}: compressed as {uid.name}, for which no decoder is installed; {_INSTALL}")
    return MGCCError(f"{path}: damaged or truncated ({one_line(error)}); copy or export it again")


def read_frame(file: Dicom, index: int) -> np.ndarray:
    """Decode one frame and no other; white is the largest value in every encoding.

    Args:
        file: the open file.
        index: index of the frame, from 0.

    Returns:
        HW grey values (uint8, or deeper if more than 8 bits are stored), or HW3 uint8 colours.

    Raises:
        MGCCError: if the file is damaged, or no decoder for its compression is installed.
    """
    path = file.path
    pydicom = _pydicom(path)
    dataset = pydicom.Dataset()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = pydicom.pixels.pixel_array(path, index=index, ds_out=dataset, correct_unused_bits=False)
            bits = int(dataset.BitsStored)
            values = _within_bits(path, values, bits)
            if dataset.PhotometricInterpretation == "PALETTE COLOR":
                return _from_palette(values, dataset, pydicom.pixels.apply_color_lut)
    except Exception as error:  # decoders raise anything
        raise _undecoded(path, file.syntax, error) from error
    if values.ndim == 3:
        return (values >> max(bits - 8, 0)).astype(np.uint8)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        signed = values.dtype.kind == "i"
        values = -1 - values if signed else (2**bits - 1) - values
    return values.astype(np.uint8) if bits <= 8 and values.dtype.kind == "u" else values


def _within_bits(path: Path, values: np.ndarray, bits: int) -> np.ndarray:
    """Sign-extend values from the bits in use; refuse values that need more bits."""
    signed = values.dtype.kind == "i"
    if values.min() < (-(2 ** (bits - 1)) if signed else 0) or values.max() > 2**bits - 1:
        found = f"values of {values.min()} to {values.max()}, which need more bits than its BitsStored of {bits}"
        raise MGCCError(f"{path}: holds {found}; export it again")
    unused = 8 * values.dtype.itemsize - bits
    return values << unused >> unused if signed else values


def _from_palette(values: np.ndarray, dataset: Any, apply_color_lut: Any) -> np.ndarray:
    """Return palette colours as HW3 uint8: the upper byte of 16 bits, or the lower if the palette uses only that."""
    colours = apply_color_lut(values, dataset)
    if colours.dtype == np.uint8:
        return colours
    entries, first, _ = dataset.RedPaletteColorLookupTableDescriptor
    table = apply_color_lut(np.arange(first, first + (entries or 2**16)), dataset)
    return (colours >> (8 if table.max() > 255 else 0)).astype(np.uint8)
