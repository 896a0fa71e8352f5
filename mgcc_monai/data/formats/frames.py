"""Find image files, report other files beside them, and name single frames of a file by path."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from mgcc_monai.data.formats.dicom import not_a_picture

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Tree",
    "frame_path",
    "image_stem",
    "is_dicom",
    "is_image",
    "list_images",
    "locate",
    "read_tree",
    "suffix",
    "video",
]

logger = logging.getLogger(__name__)

DICOM_SUFFIXES = (".dcm", ".dicom")
_PICTURES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
IMAGE_SUFFIXES = (*_PICTURES, ".nii", ".nii.gz", *DICOM_SUFFIXES)

_VIDEOS = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".wmv", ".webm", ".mpg", ".mpeg")
_ANIMATED = (".gif", ".webp")  # may hold one image or a video
_FRAME = re.compile(r"(.+)_frame(\d+)")
_SYSTEM = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found")
_TEXTS = ("readme", "license", "licence")  # names that are ignored silently, with any suffix
_KINDS = 6  # suffixes of unread files to list by name


def suffix(path: str | Path) -> str:
    """Return a file's suffix in lower case if it is a known one, else ""; ``.nii.gz`` counts as one.

    The last part of a name such as ``1.2.840.113619.7`` is not a suffix.
    """
    name = Path(path).name.lower()
    known = (".nii.gz", *IMAGE_SUFFIXES, *_VIDEOS)
    return next((end for end in known if name.endswith(end) and name != end), "")


def image_stem(path: str | Path) -> str:
    """Return a file's name without its suffix; ``.nii.gz`` counts as one suffix."""
    path = Path(path)
    return path.name[: len(path.name) - len(suffix(path))]


def is_dicom(path: str | Path) -> bool:
    """Return whether a file is DICOM: by its suffix or, without a known suffix, by its first bytes."""
    path = Path(path)
    if suffix(path) or path.name.upper() == "DICOMDIR" or not path.is_file():
        return suffix(path) in DICOM_SUFFIXES
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_image(path: str | Path) -> bool:
    """Return whether a file is a supported image: by its suffix in any case, or DICOM without one."""
    return suffix(path) in IMAGE_SUFFIXES or is_dicom(path)


def video(path: str | Path) -> str:
    """Return the error for a video (by suffix, or an animated GIF or WebP); "" for any other file."""
    kind = suffix(path)
    moving = kind in _VIDEOS
    if kind in _ANIMATED:
        try:
            with Image.open(path) as picture:
                moving = bool(getattr(picture, "is_animated", False))
        except Exception:  # a damaged file can make a decoder raise anything; reported on reading
            moving = False
    return "a video, where one frame is expected; export the frames wanted as PNG files" if moving else ""


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(p), p) if p.isdecimal() and p.isascii() else (1, 0, p) for p in parts]


@dataclass
class Tree:
    """The files of a folder and all its subfolders.

    Args:
        folder: the folder.
        images: images by folder, in natural order: 2 before 10.
        faults: one error per video, broken link, and file or folder that cannot be opened.
        unread: other files and their kinds, except hidden and system files.
    """

    folder: Path
    images: dict[Path, list[Path]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    unread: dict[Path, str] = field(default_factory=dict)

    def elsewhere(self, read: Iterable[Path], place: str) -> list[str]:
        """Return one error per folder with images that are not read.

        Args:
            read: folders from which images are read.
            place: where images belong, in words.
        """
        read, faults = set(read), []
        for folder, images in self.images.items():
            if folder not in read:
                more = f" and {len(images) - 1} more in its folder" if len(images) > 1 else ""
                faults.append(f"{images[0]}{more}: not read there; put images in {place}, or out of {self.folder}")
        return faults

    def tell_unread(self, used: Iterable[Path] = ()) -> None:
        """Log one line with the number of unread files by kind; files in ``used`` do not count."""
        left = set(self.unread) - set(used)
        kinds = Counter(self.unread[path] for path in left)
        told = [f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))]
        if told:
            files = "1 file" if len(left) == 1 else f"{len(left)} files"
            more = ", ..." if len(told) > _KINDS else ""
            logger.warning("%s: %s not read: %s", self.folder, files, ", ".join(told[:_KINDS]) + more)


def _kind(path: Path) -> str:
    """Return the kind of an unread file: its suffix, if it has one."""
    return path.suffix.lower() if re.search(r"\.[^\W\d]\w{,9}$", path.name) else "without suffix"


def _closed(path: str | Path, error: OSError) -> str:
    return f"{path}: cannot be opened ({error.strerror or error}); allow reading it, or remove it"


def _sort_out(folder: Path, tree: Tree, apart: dict[str, set[Path]]) -> list[Path]:
    """Add the files of one folder to a tree and return its subfolders; each file is opened at most once."""
    folders, images = [], []
    for entry in os.scandir(folder):
        path, name = folder / entry.name, entry.name.lower()
        if name.startswith(".") or name in _SYSTEM or (name in apart and path.resolve() in apart[name]):
            continue
        try:
            if entry.is_symlink() and not os.path.exists(path):
                tree.faults.append(f"{path}: a link to nothing; fetch what it stands for, or remove it")
            elif entry.is_dir():
                folders.append(path)
            elif not entry.is_file():
                tree.unread[path] = _kind(path)
            elif wrong := video(path):
                tree.faults.append(f"{path}: {wrong}")
            elif suffix(path) in IMAGE_SUFFIXES and suffix(path) not in DICOM_SUFFIXES:
                images.append(path)
            elif is_dicom(path):
                held = not_a_picture(path)
                images += [] if held else [path]
                tree.unread |= {path: held} if held else {}
            elif name.split(".")[0] not in _TEXTS:
                tree.unread[path] = _kind(path)
        except OSError as error:
            tree.faults.append(_closed(path, error))
    if images:
        tree.images[folder] = sorted(images, key=_natural)
    return folders


def list_images(folder: str | Path) -> list[Path]:
    """List the images of a folder, not of its subfolders, in natural order; skip hidden files and videos.

    Args:
        folder: where to look.

    Returns:
        Sorted paths of files with one of ``IMAGE_SUFFIXES`` in any case, and of DICOM files without a suffix.
    """
    tree = Tree(Path(folder))
    _sort_out(tree.folder, tree, {})
    return tree.images.get(tree.folder, [])


def read_tree(folder: str | Path, skip: Iterable[Any] = ()) -> Tree:
    """Sort all files of a folder and its subfolders, so that none is silently ignored; links are followed.

    Args:
        folder: where to look.
        skip: files and folders to skip; None entries are ignored.
    """
    tree, apart = Tree(Path(folder)), {}
    for path in (Path(os.path.abspath(path)) for path in skip if path is not None):
        apart.setdefault(path.name.lower(), set()).add(path.resolve())
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(tree.folder, frozenset())]
    while waiting:
        path, above = waiting.pop()
        try:
            status = path.stat()
            own = (status.st_dev, status.st_ino)
            inner = [] if own in above else _sort_out(path, tree, apart)
        except OSError as error:
            tree.faults.append(_closed(path, error))
            continue
        if own in above:
            tree.faults.append(f"{path}: a link to a folder that it lies in; remove it")
        waiting += [(folder, above | {own}) for folder in sorted(inner, key=_natural, reverse=True)]
    tree.faults.sort()
    return tree


def frame_path(path: str | Path, number: int | None = None) -> Path:
    """Return the path that stands for a frame of a file, so that each frame has its own name.

    Args:
        path: the file.
        number: the frame, from 1; None if the file has only one frame.

    Returns:
        ``NAME_frame0012.dcm`` for frame 12 of ``NAME.dcm``. A DICOM file without a suffix gets one, so that removing
        the suffix never removes part of the name.
    """
    path = Path(path)
    stem = image_stem(path)
    end = path.name[len(stem) :] or ".dcm"
    return path.with_name(stem + (f"_frame{number:04d}" if number is not None else "") + end)


def locate(path: str | Path) -> tuple[Path, int | None]:
    """Return the file and frame that a path from :func:`frame_path` stands for.

    Args:
        path: such a path, or that of a file.

    Returns:
        The file, and the frame from 1, or None if the path names none. A file with exactly this name takes precedence.
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
