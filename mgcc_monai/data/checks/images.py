"""Checks of a single image or mask file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from mgcc_monai.data.checks.burned_in import crosses, text_lines
from mgcc_monai.data.checks.check import FAULT, WARNING, Check
from mgcc_monai.data.formats.images import binary, grey, to_bytes
from mgcc_monai.data.formats.limits import wrong_sides
from mgcc_monai.data.formats.source import frame_index, open_source
from mgcc_monai.errors import MGCCError, one_line

__all__ = ["FILE_CHECKS", "IMAGE_CHECKS", "FileFacts", "inspect_file"]

_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
}
_LEAST_SIDE, _MOST_SIDE, _MOST_ASPECT = 32, 4096, 4.0
_LEAST_DEVIATION = 3.0  # grey levels
_WHITE_SHARE, _BLACK_SHARE = 0.25, 0.95  # of the pixels
_COLOUR = 40  # levels between a pixel's channels
_COLOURED_SHARE, _MARKED_SHARE = 0.005, 0.00005  # of the pixels: a Doppler box, a coloured mark


@dataclass
class FileFacts:
    """A file as stored and as read.

    Args:
        path: the file.
        error: the reader's error; empty if the file can be read.
        pixels: uint8 HW, upright; 0 and 1 for a mask. None if the file cannot be read.
        format: Pillow's name, NIFTI or DICOM.
        mode: Pillow's mode, or the data type of the values.
        frames: number of frames.
        orientation: the EXIF tag; 1 if upright or absent.
        coloured: share of coloured pixels.
        alpha: whether the alpha channel varies between pixels.
        luminance: uint8 HW, the mask as training reads it; None if ``pixels`` already is that.
        indices: palette indices HW of a palette mask.
    """

    path: Path
    error: str = ""
    pixels: np.ndarray | None = None
    format: str = ""
    mode: str = ""
    frames: int = 1
    orientation: int = 1
    coloured: float = 0.0
    alpha: bool = False
    luminance: np.ndarray | None = None
    indices: np.ndarray | None = None

    @cached_property
    def levels(self) -> np.ndarray:
        """Number of pixels at each of the 256 grey levels."""
        return np.bincount(self.pixels.ravel(), minlength=256)


def _look(facts: FileFacts, picture: Image.Image | np.ndarray, mask: bool) -> None:
    """Record what the reader does not report."""
    if isinstance(picture, np.ndarray) or picture.mode in ("1", "L") and not (mask and facts.format == "JPEG"):
        return
    if "A" in picture.mode or "transparency" in picture.info:
        facts.alpha = bool(np.ptp(np.asarray(picture.convert("RGBA"))[..., 3]))
    if mask:
        facts.luminance = to_bytes(grey(picture), facts.path)
        facts.indices = np.asarray(picture) if picture.mode == "P" else None
    elif picture.mode not in ("1", "L"):
        red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        facts.coloured = float((spread > _COLOUR).mean())


def inspect_file(path: str | Path, mask: bool = False) -> FileFacts:
    """Read a file and record its properties; if it cannot be read, ``error`` says why.

    Args:
        path: the file.
        mask: read it as a mask.
    """
    facts = FileFacts(Path(path))
    try:
        with open_source(facts.path) as source:
            facts.format, facts.mode, facts.frames = source.format, source.mode, source.frames
            facts.orientation = source.orientation
            picture = source.picture(frame_index(facts.path, source.frames))
            _look(facts, picture, mask)
            if mask:
                facts.pixels = binary(picture, facts.path, jpeg=source.format in ("JPEG", "MPO"))
            else:
                facts.pixels = to_bytes(grey(picture), facts.path)
    except (MGCCError, OSError) as error:
        facts.error = one_line(error).removeprefix(f"{path}: ")
    return facts


def _refused(picture: FileFacts) -> str:
    """Return the reader's error, unless another check reports it better."""
    others = picture.frames > 1 or "truncated" in picture.error or "binary mask" in picture.error
    return "" if others else picture.error


def _suffix(picture: FileFacts) -> str:
    known = _SUFFIXES.get(picture.format, ())
    return f"holds {picture.format}" if known and picture.path.suffix.lower() not in known else ""


def _deep(picture: FileFacts) -> str:
    deep = picture.mode[:1] in ("I", "F") or (
        picture.format in ("NIFTI", "DICOM") and picture.mode not in ("uint8", "bool")
    )
    return f"more than 8 bits a pixel ({picture.mode})" if deep else ""


def _constant(picture: FileFacts) -> str:
    found = np.flatnonzero(picture.levels)
    return f"every pixel is {found[0]}" if len(found) == 1 else ""


def _two_levels(picture: FileFacts) -> str:
    found = np.flatnonzero(picture.levels)
    return f"two grey levels only ({found[0]} and {found[1]}), as a mask has" if len(found) == 2 else ""


def _flat(picture: FileFacts) -> str:
    deviation = picture.pixels.std()
    return f"hardly any contrast (deviation {deviation:.1f} grey levels)" if 0 < deviation < _LEAST_DEVIATION else ""


def _share(picture: FileFacts, level: int, least: float) -> str:
    share = picture.levels[level] / picture.pixels.size
    several = np.count_nonzero(picture.levels) > 2  # another check reports images of one or two levels
    return f"{share:.0%} of the pixels are {level}" if share >= least and several else ""


def _side(picture: FileFacts, wrong: bool) -> str:
    return f"{picture.pixels.shape[1]} x {picture.pixels.shape[0]} pixels" if wrong else ""


def _aspect(picture: FileFacts) -> str:
    return _side(picture, max(picture.pixels.shape) > _MOST_ASPECT * min(picture.pixels.shape))


def _calipers(picture: FileFacts) -> str:
    found = crosses(picture.pixels)
    where = ", ".join(f"row {row} column {column}" for row, column in found[:4])
    return f"{len(found)} caliper marks ({where})" if len(found) > 1 else ""


def _text(picture: FileFacts) -> str:
    found = text_lines(picture.pixels)
    return "text, at " + ", ".join(f"row {row} column {column}" for row, column in found[:4]) if found else ""


def _colour(picture: FileFacts, least: float, most: float) -> str:
    return f"{picture.coloured:.2%} of the pixels are coloured" if least <= picture.coloured < most else ""


_COPY = "copy or download it again"
_CROP = "make sure that marks do not give away the class; crop them away where possible"

FILE_CHECKS = (  # for images and masks, readable or not
    Check("unreadable-file", FAULT, "files that are empty, not images, or not supported", _refused, ""),
    Check(
        "truncated-file",
        FAULT,
        "files that end too early or are damaged",
        lambda p: "" if p.frames > 1 else "damaged or truncated" if "truncated" in p.error else "",
        _COPY,
    ),
    Check(
        "several-frames",
        FAULT,
        "files with more than one frame",
        lambda p: f"{p.frames} frames, where one is expected" if p.frames > 1 else "",
        "export one frame to a file",
    ),
    Check("wrong-suffix", WARNING, "file suffixes against file contents", _suffix, "rename it"),
)
IMAGE_CHECKS = (  # for readable images
    Check("constant-image", FAULT, "images with a single grey level", _constant, "export it again or remove it"),
    Check("image-is-mask", FAULT, "images with two grey levels", _two_levels, "give the image, not a mask"),
    Check("low-contrast", WARNING, "almost constant images", _flat, "inspect it; export it again or remove it"),
    Check(
        "saturated-image",
        WARNING,
        "white pixels",
        lambda p: _share(p, 255, _WHITE_SHARE),
        "inspect it; export it with less gain",
    ),
    Check(
        "black-image",
        WARNING,
        "black pixels",
        lambda p: _share(p, 0, _BLACK_SHARE),
        "look at it; crop it to what was scanned",
    ),
    Check("vanishing-side", FAULT, "sides too short or too unequal", lambda p: wrong_sides(p.pixels.shape), ""),
    Check(
        "tiny-image",
        WARNING,
        f"sides under {_LEAST_SIDE} pixels",
        lambda p: _side(p, min(p.pixels.shape) < _LEAST_SIDE),
        "inspect it; give the full image, not a preview",
    ),
    Check(
        "huge-image",
        WARNING,
        f"sides over {_MOST_SIDE} pixels",
        lambda p: _side(p, max(p.pixels.shape) > _MOST_SIDE),
        "look at it; crop it to what was scanned",
    ),
    Check("long-image", WARNING, f"aspect ratios over {_MOST_ASPECT:g}", _aspect, "inspect it; crop it"),
    Check("deep-image", WARNING, "more than 8 bits", _deep, "scaled by its own range; save as 8 bits to choose one"),
    Check(
        "alpha-channel",
        WARNING,
        "alpha channels that are not uniform",
        lambda p: "an alpha channel that hides pixels" if p.alpha else "",
        "alpha is ignored; save the image as it should look, without alpha",
    ),
    Check(
        "coloured-image",
        WARNING,
        "colour, such as Doppler",
        lambda p: _colour(p, _COLOURED_SHARE, 2),
        "colour is converted to grey; give the B-mode image",
    ),
    Check(
        "coloured-marks", WARNING, "small coloured marks", lambda p: _colour(p, _MARKED_SHARE, _COLOURED_SHARE), _CROP
    ),
    Check("calipers", WARNING, "burned-in calipers", _calipers, _CROP),
    Check("text", WARNING, "burned-in text", _text, "make sure that it names no patient; crop it away where possible"),
)
