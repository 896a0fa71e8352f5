"""Reading one image or one mask, of any usual kind, into one form; or saying plainly what is wrong with the file."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, ImageOps

from mgcc_monai.data.bounds import MAX_PIXELS, check_file_size, check_pixels, check_unpacked
from mgcc_monai.errors import MGCCError

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "image_stem", "list_images", "read_image", "read_mask", "refused_files"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")

_VIDEO = "a video, where one frame is expected; export the frames wanted as PNG files"
_REFUSED = {
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".wmv", ".gif"), _VIDEO),
    **dict.fromkeys((".dcm", ".dicom"), "a DICOM file, which is not read here; export the frame wanted as PNG"),
}


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def image_stem(path: str | Path) -> str:
    """Give a file's name without its suffix; ``.nii.gz`` counts as one."""
    path = Path(path)
    return path.name[: len(path.name) - len(_suffix(path))]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts]


def _files(folder: str | Path) -> list[Path]:
    return sorted((p for p in Path(folder).iterdir() if p.is_file() and not p.name.startswith(".")), key=_natural)


def list_images(folder: str | Path) -> list[Path]:
    """List the images of a folder, not of folders in it: 2 before 10, hidden files left out.

    Args:
        folder: where to look.

    Returns:
        Sorted paths of files with one of ``IMAGE_SUFFIXES`` in any case.
    """
    return [p for p in _files(folder) if _suffix(p) in IMAGE_SUFFIXES]


def refused_files(folder: str | Path) -> list[str]:
    """Name the videos and DICOM files of a folder, a fault each; they would else be passed over unseen."""
    return [f"{p}: {_REFUSED[_suffix(p)]}" for p in _files(folder) if _suffix(p) in _REFUSED]


def _check_file(path: Path) -> None:
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
    if _suffix(path) in _REFUSED:
        raise MGCCError(f"{path}: {_REFUSED[_suffix(path)]}")
    if _suffix(path) not in IMAGE_SUFFIXES:
        raise MGCCError(f"{path}: unknown kind of file; images end in one of {', '.join(IMAGE_SUFFIXES)}")


def _open_picture(path: Path) -> Image.Image:
    """Open with Pillow: whole, one frame, upright."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                check_pixels(path, *picture.size)
                frames = getattr(picture, "n_frames", 1)
                if frames > 1 and picture.format != "MPO":  # MPO: a camera's JPEG with a preview behind it
                    raise MGCCError(f"{path}: {frames} frames, where one is expected; export one frame to a file")
                picture.load()
                kind = picture.format
                upright = ImageOps.exif_transpose(picture)
                upright.format = kind
                return upright
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MGCCError(f"{path}: too many pixels ({error}); make it smaller") from error
    except Image.UnidentifiedImageError as error:
        raise MGCCError(f"{path}: not an image that can be read; export it again as PNG") from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise MGCCError(f"{path}: damaged or truncated ({error}); copy or download it again") from error


def _read_nifti(path: Path) -> np.ndarray:
    """Read a 2-D NIfTI as HW: rows first."""
    if _suffix(path) == ".nii.gz":
        check_unpacked(path)
    try:
        image = nibabel.load(path)
        shape = list(image.shape)
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        if len(shape) != 2:
            raise MGCCError(f"{path}: a NIfTI of shape {tuple(image.shape)}, where one frame is expected; export one")
        check_pixels(path, *shape)
        values = np.asanyarray(image.dataobj).reshape(shape).T
    except Exception as error:
        raise MGCCError(f"{path}: damaged or truncated ({error}); copy or download it again") from error
    if values.dtype.kind not in "buif":
        raise MGCCError(f"{path}: NIfTI values of type {values.dtype}; save plain grey values")
    return values


def _check_finite(path: Path, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise MGCCError(f"{path}: holds values that are not numbers (NaN or infinite); export it again")


def _to_bytes(values: np.ndarray, path: Path) -> np.ndarray:
    """Scale deeper values to 8 bits by their own minimum and maximum; 8 bits pass unchanged."""
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    _check_finite(path, values)
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    return np.rint((values - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)


def read_image(path: str | Path) -> np.ndarray:
    """Read one grey image.

    PNG, JPEG, BMP, TIFF and 2-D NIfTI (transposed, so that rows come first). Colour becomes luminance, alpha is
    dropped, an EXIF orientation is applied, more than 8 bits are scaled by the image's own minimum and maximum.

    Args:
        path: the file.

    Returns:
        uint8 HW.

    Raises:
        MGCCError: if the file is missing, empty, damaged, not an image, too large, or holds more than one frame.
    """
    path = Path(path)
    _check_file(path)
    if _suffix(path).startswith(".nii"):
        return _to_bytes(_read_nifti(path), path)
    picture = _open_picture(path)
    if picture.mode in ("LA", "La"):
        picture = picture.getchannel(0)
    if picture.mode.startswith(("I", "F")):
        return _to_bytes(np.asarray(picture), path)
    if picture.mode in ("P", "PA"):  # whose transparency must not be mixed in
        picture = picture.convert("RGBA")
    return np.asarray((picture if picture.mode in ("1", "L") else picture.convert("RGB")).convert("L"))


def _pack(bands: np.ndarray) -> np.ndarray:
    """HWC uint8 colours as one integer a pixel: the grey level (uint8) or, if any is coloured, r + 256 g + 65536 b."""
    if (bands == bands[..., :1]).all():
        return bands[..., 0]
    return bands.astype(np.uint32) @ (256 ** np.arange(bands.shape[2], dtype=np.uint32))


def _mask_values(picture: Image.Image) -> np.ndarray:
    """One integer a pixel: the colour, or where that says nothing the palette's index or the alpha."""
    if picture.mode == "P":
        colours = _pack(np.asarray(picture.convert("RGB")))
        return colours if np.ptp(colours) else np.asarray(picture)
    if picture.mode in ("1", "L") or picture.mode.startswith(("I", "F")):
        return np.asarray(picture)
    bands = np.asarray(picture if picture.mode in ("LA", "RGB", "RGBA") else picture.convert("RGB"))
    if bands.shape[2] == 3:
        return _pack(bands)
    colours, alpha = _pack(bands[..., :-1]), bands[..., -1]
    return alpha if np.ptp(alpha) and not np.ptp(colours) else colours


def _without_ringing(grey: np.ndarray) -> np.ndarray:
    """Undo a JPEG's ringing: near black is 0, near white 255, and an edge between them is cut in the middle."""
    if grey.max() >= 192 and ((grey >= 64) & (grey < 192)).mean() <= 0.02:
        return np.where(grey >= 128, 255, 0)
    return grey


def read_mask(path: str | Path) -> np.ndarray:
    """Read one mask: 0 is background, the one other value is lesion.

    Palette, 1-bit, grey, RGB and RGBA files are read by their colours (black is background). Where all pixels have
    one colour, a palette's indices or the alpha channel are the mask. A JPEG's ringing is removed.

    Args:
        path: the file.

    Returns:
        uint8 HW of 0 and 1.

    Raises:
        MGCCError: as :func:`read_image`; or if the file holds more than background and one value.
    """
    path = Path(path)
    _check_file(path)
    if _suffix(path).startswith(".nii"):
        values = _read_nifti(path)
    else:
        picture = _open_picture(path)
        jpeg = picture.format in ("JPEG", "MPO")
        values = _without_ringing(np.asarray(picture.convert("L"))) if jpeg else _mask_values(picture)
    _check_finite(path, values)
    found = np.unique(values)
    if len(found) - (0 in found) > 1:
        colour = found.dtype == np.uint32
        shown = [f"rgb({v % 256},{v // 256 % 256},{v // 65536})" if colour else f"{v:g}" for v in found[:8].tolist()]
        shown = ", ".join(shown) + (", ..." if len(found) > 8 else "")
        raise MGCCError(
            f"{path}: not a binary mask, {len(found)} values found ({shown}); "
            "make lesion 255 and all else 0 (one file a lesion, or one value for all) and save it as PNG"
        )
    return (values != 0).astype(np.uint8)
