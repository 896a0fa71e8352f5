"""Which files are images, and the paths that stand for one frame of a file."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "REFUSED",
    "frame_path",
    "image_stem",
    "is_dicom",
    "list_images",
    "locate",
    "refused_files",
    "suffix",
]

DICOM_SUFFIXES = (".dcm", ".dicom")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz", *DICOM_SUFFIXES)

_VIDEO = "a video, where one frame is expected; export the frames wanted as PNG files"
REFUSED = dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".wmv", ".gif"), _VIDEO)
_FRAME = re.compile(r"(.+)_frame(\d+)")


def suffix(path: str | Path) -> str:
    """Give a file's suffix in lower case where it is one that is known; ``.nii.gz`` counts as one.

    The last part of a name such as ``1.2.840.113619.7`` is none.
    """
    name = Path(path).name.lower()
    known = (".nii.gz", *IMAGE_SUFFIXES, *REFUSED)
    return next((end for end in known if name.endswith(end) and name != end), "")


def image_stem(path: str | Path) -> str:
    """Give a file's name without its suffix; ``.nii.gz`` counts as one."""
    path = Path(path)
    return path.name[: len(path.name) - len(suffix(path))]


def is_dicom(path: str | Path) -> bool:
    """Tell whether a file is DICOM: by its suffix, or where it has none that is known by its first bytes."""
    path = Path(path)
    if suffix(path) or path.name.upper() == "DICOMDIR" or not path.is_file():
        return suffix(path) in DICOM_SUFFIXES
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


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
        Sorted paths of files with one of ``IMAGE_SUFFIXES`` in any case, and of DICOM files without a suffix.
    """
    return [p for p in _files(folder) if suffix(p) in IMAGE_SUFFIXES or is_dicom(p)]


def refused_files(folder: str | Path) -> list[str]:
    """Name the videos of a folder, a fault each; they would else be passed over unseen."""
    return [f"{p}: {REFUSED[suffix(p)]}" for p in _files(folder) if suffix(p) in REFUSED]


def frame_path(path: str | Path, number: int | None = None) -> Path:
    """Give the path that stands for a frame of a file, so that each frame has a name of its own.

    Args:
        path: the file.
        number: the frame, from 1; None where the file has one frame only.

    Returns:
        ``NAME_frame0012.dcm`` for frame 12 of ``NAME.dcm``; a DICOM file without a suffix is given one, so that
        whoever cuts the suffix off does not cut the name.
    """
    path = Path(path)
    stem = image_stem(path)
    end = path.name[len(stem) :] or ".dcm"
    return path.with_name(stem + (f"_frame{number:04d}" if number is not None else "") + end)


def locate(path: str | Path) -> tuple[Path, int | None]:
    """Give the file and the frame that a path of :func:`frame_path` stands for.

    Args:
        path: such a path, or that of a file.

    Returns:
        The file, and the frame from 1, or None where the path names none. A file of that very name comes first.
    """
    path = Path(path)
    stem = image_stem(path)
    end = path.name[len(stem) :]
    frame = _FRAME.fullmatch(stem)
    names = [(stem, None), *([(frame[1], int(frame[2]))] if frame else [])]
    for name, number in names:
        for file in (path.with_name(name + end), path.with_name(name)):
            if file.is_file() and (file.name != name or end.lower() == ".dcm" or not end):
                return file, number
    return path, None
