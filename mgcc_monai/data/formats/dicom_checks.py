"""Checks of a DICOM file before its pixels are read: it is an image, and its description is usable."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

from mgcc_monai.errors import MGCCError

__all__ = ["PIXEL_TAGS", "check_description", "check_frames", "check_syntax", "other_object"]

PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PlanarConfiguration"),
)
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
_NO_PICTURES = """SEG RTSTRUCT RTDOSE RTPLAN RTRECORD SR PR KO DOC ECG EEG EMG EOG HD RESP AU M3D OT3D
REG FID PLAN RWV SMR""".split()  # modalities
_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"  # Enhanced US Volume Storage
_RLE, _DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"
_FLOATS = (0x7FE00008, 0x7FE00009)
_STARTS = (b"\xff\xd8", b"\xff\x4f")  # start of a JPEG or JPEG-LS stream, and of a JPEG 2000 stream
_UNDEFINED = 0xFFFFFFFF


def other_object(dataset: Any, pydicom: Any) -> str:
    """Return the class of a file that is not an image, such as ``Segmentation Storage``; "" for an image.

    Standard classes are images if their name says so; those of a manufacturer if they have rows and columns.

    Args:
        dataset: with SOPClassUID, Modality, Rows and Columns if the file has them.
        pydicom: the module.
    """
    uid = pydicom.uid.UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    modality = str(dataset.get("Modality") or "").strip().upper()
    name = uid.name if uid.type else f"modality {modality}" if modality else "of no known class"
    standard = uid.type and "Image Storage" not in uid.name and uid != _VOLUME
    return name if standard or modality in _NO_PICTURES or "Rows" not in dataset or "Columns" not in dataset else ""


def check_syntax(path: Path, syntax: str, pydicom: Any) -> None:
    """Refuse a file with a missing or unsupported transfer syntax.

    Args:
        path: the file.
        syntax: UID of its transfer syntax.
        pydicom: the module.

    Raises:
        MGCCError: if it is missing or unsupported; the message names it.
    """
    if not syntax:
        raise MGCCError(f"{path}: names no transfer syntax, so how its pixels are stored is unknown; export it again")
    name = pydicom.uid.UID(syntax).name
    if any(word in name for word in ("MPEG", "HEVC", "Video")):
        cure = "export it as a loop or as pictures, in JPEG or uncompressed"
        raise MGCCError(f"{path}: compressed as {name}, a video, which is not read here; {cure}")
    try:
        pydicom.pixels.get_decoder(pydicom.uid.UID(syntax))
    except NotImplementedError:
        known = syntax != _DEFLATED
    else:
        known = syntax == _DEFLATED
    if known:
        raise MGCCError(f"{path}: compressed as {name}, which is not read here; export it as JPEG or uncompressed")


def check_description(path: Path, dataset: Any) -> None:
    """Refuse a header with a missing or contradictory description of the pixels.

    Args:
        path: the file.
        dataset: with Rows, Columns and ``PIXEL_TAGS``.

    Raises:
        MGCCError: if so; the message names the element.
    """
    needed = [name for name in PIXEL_TAGS if name != "HighBit"]
    needed = needed[: None if int(dataset.get("SamplesPerPixel") or 1) > 1 else -1]
    if missing := [name for name in needed if dataset.get(name) is None]:
        raise MGCCError(f"{path}: its header names no {', '.join(missing)}, so it cannot be read; export it again")
    samples, allocated, stored = (
        int(dataset[name].value) for name in ("SamplesPerPixel", "BitsAllocated", "BitsStored")
    )
    colours = str(dataset.PhotometricInterpretation)
    wrong = ""
    if int(dataset.Rows) < 1 or int(dataset.Columns) < 1:
        wrong = f"{dataset.Columns} x {dataset.Rows} pixels"
    elif colours not in _GREY + _COLOUR:
        wrong = f"PhotometricInterpretation {colours}, which is not read"
    elif samples != (1 if colours in _GREY else 3):
        wrong = f"SamplesPerPixel {samples} with PhotometricInterpretation {colours}"
    elif allocated not in ((1, 8, 16, 32) if samples == 1 else (8, 16)):
        wrong = f"BitsAllocated {allocated}"
    elif not 1 <= stored <= allocated:
        wrong = f"BitsStored {stored} with BitsAllocated {allocated}"
    elif int(dataset.get("HighBit", stored - 1)) != stored - 1:
        wrong = f"HighBit {dataset.HighBit} with BitsStored {stored}"
    if wrong:
        raise MGCCError(f"{path}: its header says {wrong}; export it again")


def _encapsulated(file: BinaryIO, syntax: str, pydicom: Any) -> int | None:
    """Count the frames in compressed pixel data: by the start marks of streams, or for RLE one fragment per frame."""
    table = pydicom.encaps.parse_basic_offsets(file)
    fragments, places = pydicom.encaps.parse_fragments(file)
    if syntax == _RLE:
        return fragments
    starts = 0
    for place in places:
        file.seek(place + 8)
        starts += file.read(2) in _STARTS
    return starts or len(table) or (0 if not fragments else None)


def check_frames(path: Path, dataset: Any, file: BinaryIO, syntax: str, pydicom: Any) -> int:
    """Count the frames, and refuse a file if its header and pixel data disagree on their number.

    Args:
        path: the file.
        dataset: as for :func:`check_description`, with NumberOfFrames.
        file: the file, at the start of its pixel data element.
        syntax: UID of its transfer syntax.
        pydicom: the module.

    Returns:
        The number of frames.

    Raises:
        MGCCError: if pixel data are missing, too short, or contain another number of frames.
    """
    uid = pydicom.uid.UID(syntax)
    order = "<" if uid.is_little_endian else ">"
    head = file.read(8 if uid.is_implicit_VR else 12)
    if len(head) < (8 if uid.is_implicit_VR else 12):
        raise MGCCError(f"{path}: a DICOM file without pixel data; export it again")
    group, element = struct.unpack(f"{order}HH", head[:4])
    if group << 16 | element in _FLOATS:
        raise MGCCError(f"{path}: pixel data of floating-point values, which are no picture; export it as 8 or 16 bits")
    length = struct.unpack(f"{order}L", head[-4:])[0]
    told = dataset.get("NumberOfFrames")
    frames = max(int(told or 1), 1)
    if uid.is_encapsulated != (length == _UNDEFINED):
        raise MGCCError(f"{path}: its pixel data are not stored as its transfer syntax says; export it again")
    if uid.is_encapsulated:
        held = _encapsulated(file, syntax, pydicom)
    else:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        samples = 2 if str(dataset.PhotometricInterpretation).endswith("_422") else int(dataset.SamplesPerPixel)
        line = columns * samples * int(dataset.BitsAllocated) / 8
        length = min(length, path.stat().st_size - file.tell())
        held = frames if 0 <= length - -(-line * rows * frames // 1) < max(line, 2) else length / (line * rows)
        if held != frames and not (held >= 1 and length - round(held) * line * rows in (0, 1)):
            raise MGCCError(
                f"{path}: damaged or truncated ({length} bytes of pixel data, where {columns} x {rows} pixels, "
                f"{frames} times, need {line * rows * frames:.0f}); copy or export it again"
            )
    if held is not None and round(held) != frames:
        says = f"says NumberOfFrames {told}" if told is not None else "names no NumberOfFrames, so one,"
        raise MGCCError(f"{path}: its header {says} while its pixel data hold {round(held)}; export it again")
    return frames
