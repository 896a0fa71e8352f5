"""Writes one picture as DICOM in all the ways that ultrasound scanners do, with pydicom and Pillow alone."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

PATIENT = "Doe^Jane^Secret"


def region(box: tuple[int, int, int, int], delta: tuple[float, float] | None = None, units: int = 3) -> Dataset:
    """A two-dimensional tissue region: left, top, right, bottom (inside it), and (x, y) cm a pixel."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
    for name, value in zip(names, box, strict=True):
        setattr(item, name, value)
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    if delta:
        item.PhysicalDeltaX, item.PhysicalDeltaY = delta
    return item


def jpeg(picture: np.ndarray) -> bytes:
    """A JPEG Baseline stream of an HW or HW3 picture; colours as YBR_FULL_422."""
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=90, **({"subsampling": 1} if picture.ndim == 3 else {}))
    return buffer.getvalue()


def _jpeg2000(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG2000", irreversible=False, no_jp2=True, mct=0)
    return buffer.getvalue()


def _palette(dataset: Dataset, order: np.ndarray, shift: int) -> None:
    """A palette of 16 bits whose entry i is the grey level order[i], in the upper byte or in the lower."""
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (order.astype("<u2") << shift).tobytes()
        setattr(dataset, f"{colour}PaletteColorLookupTableData", table)


def _samples(frame: np.ndarray, kind: str, order: np.ndarray) -> np.ndarray:
    """What is stored for a grey frame: HW, or HWC in the colour space of the kind."""
    if "MONOCHROME1" in kind:
        return 255 - frame
    if kind == "MONOCHROME2 16":
        return frame.astype("<u2")
    if "PALETTE" in kind:
        return np.argsort(order)[frame].astype(np.uint8)
    if "RGB" in kind:
        return np.repeat(frame[..., None], 3, axis=2)
    if "YBR_FULL" in kind:
        return np.dstack([frame, np.full_like(frame, 128), np.full_like(frame, 128)])
    return frame


def _interpretation(kind: str, colour: bool) -> str:
    if kind == "JPEG":
        return "YBR_FULL_422" if colour else "MONOCHROME2"
    return re.sub("^(RLE|JPEG2000) | (low|planar|16)$", "", kind)


def _native(samples: np.ndarray, kind: str) -> bytes:
    if kind == "RGB planar":
        return np.moveaxis(samples, 2, 0).tobytes()
    if kind == "YBR_FULL_422":  # two luminances, then the two colours that they share
        pairs = samples.reshape(-1, 2, 3)
        return np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1).tobytes()
    return samples.tobytes()


def write_dicom(path: Path, frames: np.ndarray, kind: str = "MONOCHROME2", **header: Any) -> Path:
    """Write a picture, or a loop, as a DICOM ultrasound file that names a patient.

    Args:
        path: the file.
        frames: uint8 HW or NHW grey; for the kind "JPEG" also HW3 or NHW3.
        kind: a photometric interpretation, behind "RLE " or "JPEG2000 " where it is compressed so, and before " planar"
            (colours one behind the other), " 16" (bits a value) or " low" (a palette that uses its lower bytes); or
            "JPEG", Baseline.
        header: further elements by keyword.
    """
    many = frames.ndim == 4 or (frames.ndim == 3 and not (kind == "JPEG" and frames.shape[2] == 3))
    stack = frames if many else frames[None]
    order = np.random.default_rng(5).permutation(256)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = UltrasoundMultiFrameImageStorage if many else UltrasoundImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = PATIENT, "ID-SECRET-77", "19510203"
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = stack.shape[1:3]
    if many:
        dataset.NumberOfFrames = len(stack)
    samples = [_samples(frame, kind, order) for frame in stack]
    colour = samples[0].ndim == 3
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.BitsAllocated = 8 * samples[0].itemsize
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 7, 0
    dataset.PhotometricInterpretation = _interpretation(kind, colour)
    if colour:
        dataset.PlanarConfiguration = int(kind == "RGB planar")
    if "PALETTE" in kind:
        _palette(dataset, order, 0 if kind.endswith("low") else 8)
    for name, value in header.items():
        setattr(dataset, name, value)
    syntax: UID = ExplicitVRLittleEndian
    if kind == "JPEG":
        syntax, dataset.PixelData = JPEGBaseline8Bit, encapsulate([jpeg(sample) for sample in samples])
    elif kind.startswith("JPEG2000"):
        syntax, dataset.PixelData = JPEG2000Lossless, encapsulate([_jpeg2000(sample) for sample in samples])
    else:
        data = b"".join(_native(sample, kind) for sample in samples)
        dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    if kind.startswith("RLE"):
        dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    return path
