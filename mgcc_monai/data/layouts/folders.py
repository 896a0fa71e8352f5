"""Find images and masks in plain ``images`` and ``masks`` folders, and read tables of classes and patients."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_monai.data.formats.frames import Tree, frame_path, image_stem, read_tree
from mgcc_monai.data.formats.source import count_frames
from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.errors import MGCCError, one_line

__all__ = [
    "NORMAL",
    "Case",
    "Drawing",
    "is_folders",
    "named_folder",
    "pair_folders",
    "read_patients",
    "read_table",
    "scan_folders",
]

_DESCRIPTION = """\
  SOURCE/images/NAME.png   and   SOURCE/masks/NAME.png
      (or labels/; a mask may end in _mask, _seg, _segmentation or _label, or begin with mask_, seg_ or gt_;
       several masks: _mask_1, _mask_2 ...;
       classes, if any: as folders, images/CLASS/NAME.png, or in SOURCE/classes.csv with columns image,class)"""

NORMAL = "normal"
"""The class of images without a lesion, which need no mask."""

_MASK_FOLDERS = ("masks", "labels")
_TABLES = ("classes.csv", "index.csv")
_PREFIX = re.compile(r"^(mask|seg|gt)_", re.IGNORECASE)
_POSTFIX = re.compile(r"_(mask|seg|segmentation|label)(_\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Drawing:
    """A mask that is no file of its own: outlines in a table, or colours in a picture.

    Args:
        path: the file that it comes from, for messages.
        draw: makes the mask, HW of 0 and 1, for an image of height and width; raises an MGCCError.
    """

    path: Path
    draw: Callable[[tuple[int, int]], np.ndarray] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Case:
    """An image as found, with its masks.

    Args:
        image: path of the image.
        masks: paths of its masks, or drawings, to be combined by OR; empty if a normal image has none.
        class_name: its class; ``lesion`` if none is given. ``normal`` is recognised in any case.
        original: the image's path relative to the source, with forward slashes.
        labelled: whether someone looked for lesions; if not, the image is unlabelled.
        patient: the patient, where the layout tells; images of one stay together.
        split: the list that the dataset's authors put it in: ``training``, ``validation``, ``test``; "" if none.
        details: more of its item of ``dataset.json``, such as the device.
    """

    image: Path
    masks: tuple[Path | Drawing, ...]
    class_name: str
    original: str
    labelled: bool = True
    patient: str = ""
    split: str = ""
    details: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.class_name.strip().casefold() == NORMAL:
            object.__setattr__(self, "class_name", NORMAL)


def read_table(
    path: str | Path, columns: Sequence[str], delimiter: str = ","
) -> tuple[list[dict[str, str]], list[str]]:
    """Read a CSV file that must have some columns.

    Args:
        path: the file, with a header.
        columns: names that the header must contain.
        delimiter: what separates the columns.

    Returns:
        The rows with these columns, stripped of blanks; and errors.
    """
    path = Path(path)
    if not path.is_file():
        return [], [f"{path}: no such file; check the path"]
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        return [], [f"{path}: not a CSV file in UTF-8 ({one_line(error)}); save it again as CSV UTF-8"]
    if missing := [name for name in columns if name not in header]:
        return [], [f"{path}: no column {', '.join(missing)} in the header {','.join(header)}; add it"]
    faults = [
        f"{path}: row {number}: {name} is empty; fill it in or remove the row"
        for number, row in enumerate(rows, 2)
        for name in columns
        if not (row[name] or "").strip()
    ]
    return [{name: (row[name] or "").strip() for name in columns} for row in rows], faults


def _find(name: str, originals: Sequence[str]) -> list[str]:
    """Return all images that a table entry names, by path, file name or stem."""
    name = name.replace("\\", "/")
    for key in (lambda o: o, lambda o: o.rsplit("/", 1)[-1], image_stem):
        if found := [original for original in originals if key(original) == name]:
            return found
    return [original for original in originals if original.endswith("/" + name)]


def _match_table(
    path: Path, column: str, originals: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Map each image to its table entry; return errors for entries without image and images without entry."""
    rows, faults = read_table(path, ("image", column))
    found: dict[str, str] = {}
    for row in rows:
        matches = _find(row["image"], [*originals, *optional]) if row["image"] else [""]
        if not matches:
            faults.append(f"{path}: {row['image']} is not among the images; correct or remove the row")
        elif len(matches) > 1:
            faults.append(f"{path}: {row['image']} fits {' and '.join(matches[:3])}; give the path in the folder")
        elif matches[0] and found.setdefault(matches[0], row[column]) != row[column]:
            faults.append(f"{path}: {row['image']} has two values of {column}; keep one")
    if rows:
        faults += [f"{path}: no row for image {original}; add it" for original in originals if original not in found]
    return {key: value for key, value in found.items() if key}, faults


def read_patients(
    path: str | Path, originals: Sequence[str], optional: Sequence[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """Read the patient of each image.

    Args:
        path: a CSV file with columns ``image`` (path in the source, file name, or its stem) and ``patient``.
        originals: images that must be listed, as paths relative to the source.
        optional: images that may be listed.

    Returns:
        Patient by image; and errors.
    """
    return _match_table(Path(path), "patient", originals, optional)


def _named(source: str | Path, names: Sequence[str]) -> list[Path]:
    """Return the folders of a source with one of the names, in any case."""
    return sorted(path for path in Path(source).glob("*") if path.name.lower() in names and path.is_dir())


def named_folder(source: str | Path, name: str) -> Path | None:
    """Return the folder of a source with a name, in any case; None where there is none."""
    return next(iter(_named(source, (name,))), None)


def pair_folders(
    tree: Tree, images: Path, masks: Path, class_name: str = "lesion", split: str = ""
) -> tuple[list[Case], list[str]]:
    """Return the cases of two folders whose files have the same names, but for the suffix; and errors.

    Args:
        tree: the source.
        images: folder of the images.
        masks: folder of the masks, one per image.
        class_name: class of all.
        split: list of all.
    """
    outlines = {image_stem(path): path for path in tree.images.get(masks, [])}
    cases, faults = [], []
    for path in tree.images.get(images, []):
        mask = outlines.pop(image_stem(path), None)
        if mask is None:
            faults.append(f"{path}: an image without a mask; add {masks / path.name}")
            continue
        cases.append(Case(path, (mask,), class_name, path.relative_to(tree.folder).as_posix(), split=split))
    return cases, faults + [f"{path}: a mask without an image; add {images / path.name}" for path in outlines.values()]


def is_folders(source: str | Path) -> bool:
    """Return whether a source has an ``images`` and a ``masks`` (or ``labels``) folder, in any case."""
    return bool(_named(source, ("images",)) and _named(source, _MASK_FOLDERS))


def _with_classes(folder: Path, tree: Tree) -> list[tuple[str, Path]]:
    """Return the images of a folder and its subfolders, each with its subfolder's name ("" for none)."""
    inner = sorted(path for path in tree.images if path.parent == folder)
    direct = [("", path) for path in tree.images.get(folder, [])]
    return direct + [(path.name, image) for path in inner for image in tree.images[path]]


def _stem(path: Path) -> str:
    """Return a file's stem in one form of Unicode; some systems write an accent as a character of its own."""
    return unicodedata.normalize("NFC", image_stem(path))


def _stems(mask: Path) -> tuple[str, ...]:
    """Return the stems of the images that a mask may belong to, its own first."""
    own = _stem(mask)
    return tuple(dict.fromkeys((own, _POSTFIX.sub("", own), _PREFIX.sub("", own))))


def _masked_frames(images: Sequence[tuple[str, Path]], stems: set[str]) -> list[tuple[str, Path]]:
    """Replace each file of several frames by its frames that have a mask."""
    found = []
    for name, path in images:
        try:
            frames = count_frames(path)
        except MGCCError:  # reported when the image is read
            frames = 1
        paths = [frame_path(path, number) for number in range(1, frames + 1)] if frames > 1 else []
        found += [(name, frame) for frame in paths if _stem(frame) in stems] or [(name, path)]
    return found


def scan_folders(source: str | Path, skip: Iterable[Any] = ()) -> tuple[list[Case], list[str]]:
    """Find the cases of a source with ``images`` and ``masks`` folders.

    A mask belongs to the image with the same stem, after removing ``_mask``, ``_seg``, ``_segmentation`` or ``_label``
    and a number. It is in the same class folder, or directly in ``masks``. Images of class ``normal`` need no mask. In
    a file of several frames, mask ``NAME_frame0012`` belongs to frame 12; only frames with a mask become cases.

    Args:
        source: the folder that contains these folders.
        skip: see :func:`mgcc_monai.data.formats.frames.read_tree`.

    Returns:
        Cases sorted by ``original``; and errors, each with its file.
    """
    source = Path(source)
    tree = read_tree(source, skip)
    image_folders, mask_folders = _named(source, ("images",)), _named(source, _MASK_FOLDERS)
    if len(image_folders) > 1:
        return [], [f"{image_folders[0]}: there is {image_folders[1].name} as well; put all images in one of them"]
    places = [*image_folders, *mask_folders]
    read = [folder for folder in tree.images if folder in places or folder.parent in places]
    faults = [*tree.faults, *tree.elsewhere(read, " or ".join(f"{place}[/CLASS]" for place in places))]
    images = _with_classes(image_folders[0], tree)
    direct = tree.images.get(image_folders[0], [])
    if direct and len(direct) < len(images):
        more = f" and {len(direct) - 1} more" if len(direct) > 1 else ""
        faults.append(f"{direct[0]}{more}: beside class folders, so of no class; move images into one of them")
    found = {folder: _with_classes(folder, tree) for folder in mask_folders}
    stems = {stem for masks in found.values() for _, mask in masks for stem in _stems(mask)}
    images = _masked_frames(images, stems)
    classes = {path.relative_to(source).as_posix(): name or "lesion" for name, path in images}
    table = next((source / name for name in _TABLES if (source / name).is_file()), None)
    table = None if any(name for name, _ in images) else table
    tree.tell_unread([table] if table else [])
    if table:
        told, wrong = _match_table(table, "class", sorted(classes))
        classes.update(told)
        faults += wrong
    known = {(name, _stem(path)): path for name, path in images}
    masks: dict[Path, list[Path]] = {path: [] for _, path in images}
    for folder_masks in found.values():
        for name, mask in folder_masks:
            wanted = _stems(mask)
            fits = next(({known[name, stem]} for stem in wanted if (name, stem) in known), set())
            if not fits and not name:
                fits = next(
                    (paths for stem in wanted if (paths := {p for (_, s), p in known.items() if s == stem})), set()
                )
            if len(fits) == 1:
                masks[fits.pop()].append(mask)
            elif fits:
                faults.append(f"{mask}: fits {' and '.join(map(str, sorted(fits)[:3]))}; put it in a class folder")
            else:
                faults.append(f"{mask}: a mask without an image; add {image_folders[0] / name / (wanted[-1] + '.*')}")
    cases = []
    for _, path in images:
        original = path.relative_to(source).as_posix()
        cases.append(Case(path, tuple(masks[path]), classes[original], original))
        if not masks[path] and cases[-1].class_name != NORMAL:
            faults.append(f"{path}: an image without a mask; add {mask_folders[0] / path.name}, or remove it")
    return sorted(cases, key=lambda case: case.original), faults


register(Layout("folders", is_folders, scan_folders, _DESCRIPTION, general=True))
