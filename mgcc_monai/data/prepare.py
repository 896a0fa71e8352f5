"""Turn a folder of images into a dataset: read and check everything first, and write only if there are no errors."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from typing import Any

from mgcc_monai.data.cases import read_case
from mgcc_monai.data.contents import ALL_LISTS, FILE_NAME
from mgcc_monai.data.dataset import load_datalist, write_dataset
from mgcc_monai.data.describe import summary
from mgcc_monai.data.duplicates import Thumbnails, duplicate_groups, join_groups, regroup
from mgcc_monai.data.formats.frames import read_tree
from mgcc_monai.data.formats.images import image_stem, parse_crop
from mgcc_monai.data.layouts import find_layout, folders
from mgcc_monai.data.layouts.folders import Case
from mgcc_monai.data.splits import check_split_args, draw_lists
from mgcc_monai.data.unpack import unpacked
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_errors
from mgcc_monai.files import try_writable, write_folder
from mgcc_monai.progress import progress_bar

__all__ = ["prepare", "split"]

_READERS = 2  # threads


def _scan(source: Path, skip: Sequence[Path | None], layout: str) -> tuple[list[Case], str, list[str]]:
    """Return the cases of a source, the name of its layout, and errors."""
    if not source.is_dir():
        raise MGCCError(f"{source}: no such folder; check the path of --source")
    if not os.access(source, os.R_OK | os.X_OK):
        raise MGCCError(f"{source}: cannot be opened; allow reading it")
    found = find_layout(source, layout)
    cases, faults = found.scan(source, skip)
    return cases, found.name, faults or ([] if cases else [f"{source}: no images in it; check the path of --source"])


def _find_cases(
    source: Path, unlabeled: Path | None, groups: Path | None, output: Path, layout: str
) -> tuple[list[Case], dict[str, str], str, list[str]]:
    """Return the cases sorted by name, the patients, the layout's name, and what is wrong so far."""
    cases, name, faults = _scan(source, (unlabeled, groups, output), layout)
    extra: list[Case] = []
    if unlabeled is not None:
        if not unlabeled.is_dir():
            raise MGCCError(f"{unlabeled}: no such folder; check the path of --unlabeled")
        tree = read_tree(unlabeled, (source, groups, output))
        tree.tell_unread()
        images = tree.images.get(unlabeled, [])
        extra = [Case(path, (), "unknown", f"unlabeled/{path.name}", labelled=False) for path in images]
        wrong = [*tree.faults, *tree.elsewhere([unlabeled], str(unlabeled))]
        faults += wrong if extra or wrong else [f"{unlabeled}: no images in it; check --unlabeled"]
    patients: dict[str, str] = {}
    if groups is not None:
        patients, wrong = folders.read_patients(groups, *([case.original for case in part] for part in (cases, extra)))
        faults += wrong
    else:
        patients = {case.original: case.patient for case in cases if case.patient}
    return sorted([*cases, *extra], key=lambda case: case.original), patients, name, faults


def _read_all(
    cases: Sequence[Case], faults: list[str], crop: Any, folder: Path, where: str
) -> tuple[list[dict[str, Any]], list[str], Thumbnails]:
    """Read every file once and write it to ``folder``, then raise all errors together.

    Args:
        cases: the cases.
        faults: errors found before, to be raised with the others.
        crop: part of each image to keep.
        folder: where images and labels are written, under names that :func:`_name_file` makes.
        where: what is read, for the errors.

    Returns:
        The items, the loops that they are frames of, and their thumbnails.
    """
    items, loops, thumbnails, names = [], [], Thumbnails(), set()
    for part in ("images", "labels"):
        (folder / part).mkdir()
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda case: read_case(case, crop), cases)
        for entry, wrong in progress_bar(read, len(cases), desc="reading", unit="image", delay=2):
            faults += wrong
            if faults or entry is None:
                continue
            name = _name_file(entry.item["original"], names)
            files = {"image": f"images/{name}.png"} | ({"label": f"labels/{name}.png"} if entry.label else {})
            for key, pixels in (("image", entry.image), ("label", entry.label)):
                if pixels:
                    (folder / files[key]).write_bytes(pixels)
            items.append(files | entry.item)
            loops.append(entry.loop)
            thumbnails.append(entry.thumbnail)
    raise_errors(faults, where)
    return items, loops, thumbnails


def _name_file(original: str, taken: set[str]) -> str:
    """Return an ASCII file name derived from the original name; a number is appended where it would be taken."""
    plain = unicodedata.normalize("NFKD", image_stem(original)).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", plain).strip("-") or "image"
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    return name


def _check_output(output: Path, overwrite: bool, sources: Sequence[Path | None]) -> None:
    if output.exists() and not output.is_dir():
        raise MGCCError(f"{output}: is a file; give a folder as --output")
    for source in sources:
        if source is not None and source.resolve().is_relative_to(output.resolve()):
            raise MGCCError(f"{output}: holds {source}, which is read; give another folder as --output")
    if output.is_dir() and any(output.iterdir()):
        if not overwrite:
            raise MGCCError(f"{output}: is not empty; give another folder as --output, or --overwrite")
        if not (output / FILE_NAME).is_file():
            raise MGCCError(f"{output}: not a dataset (no {FILE_NAME}), so it is not overwritten; remove it yourself")


@plain_os_errors()
def prepare(
    source: str,
    output: str,
    label_fraction: float = 1.0,
    protocol: str = "strict",
    split_seed: int = 0,
    groups: str | None = None,
    unlabeled: str | None = None,
    name: str | None = None,
    overwrite: bool = False,
    normals_as_unlabeled: bool = False,
    crop: Any = "none",
    layout: str = "auto",
    keep_test: bool = False,
) -> dict[str, Any]:
    """Make a dataset from BUSI as downloaded, from folders ``images`` and ``masks``, or from a layout of your own.

    Every file is validated first. All errors are reported together, and nothing is written if there are any.

    Args:
        source: the folder with the images and masks, or a .zip of it.
        output: the dataset's folder; it appears complete or not at all.
        label_fraction: share of the training images that keep their labels, over 0 and up to 1; the others are used
            as unlabelled.
        protocol: ``strict``: 70/10/20 by group of near-duplicates and patients; validation selects the weights and
            test is read once. ``published``: 70/30 by image; the same 30 % select the weights and give the results.
            ``external``: all labelled images are for testing, to evaluate weights that were trained elsewhere.
        split_seed: seed of the split and of the choice of labels.
        groups: a CSV file with columns image and patient; a patient's images stay in one list.
        unlabeled: a folder with more images without masks; near-duplicates of held-out images are left out.
        name: the dataset's name; defaults to the output folder's.
        overwrite: replace an existing dataset.
        normals_as_unlabeled: also use images without a lesion as unlabelled images; their false-positive rate is then
            no longer measured on unseen images.
        crop: part of each image to keep: none (all of it), region (DICOM), or left, top, width, height in pixels.
        layout: layout of the source: auto, a name such as busi or coco, or a .py file of your own that registers one.
        keep_test: keep the test list that the dataset comes with, where its layout has one.

    Returns:
        A summary: ``path``, ``hash``, ``counts`` by list and class, ``groups``, ``duplicates``, ``left_out``.

    Raises:
        MGCCError: if an option or the data are invalid; every error is listed with its file.
    """
    options: dict[str, Any] = {"label_fraction": label_fraction, "protocol": protocol, "split_seed": split_seed}
    switches = {"normals_as_unlabeled": normals_as_unlabeled, "keep_test": keep_test}
    check_split_args(**options, overwrite=overwrite, **switches)
    target, inputs = Path(str(output)), [None if p is None else Path(str(p)) for p in (source, unlabeled, groups)]
    _check_output(target, bool(overwrite), inputs)
    try_writable(target)
    with unpacked(inputs[0], target) as folder:
        return _prepare(folder, *inputs[1:], target, options, parse_crop(crop), layout, name, **switches)


def _prepare(
    source: Path,
    unlabeled: Path | None,
    groups: Path | None,
    target: Path,
    options: dict[str, Any],
    crop: Any,
    layout: str,
    name: str | None,
    normals_as_unlabeled: bool,
    keep_test: bool,
) -> dict[str, Any]:
    cases, patients, layout, faults = _find_cases(source, unlabeled, groups, target, str(layout))
    options["normals_as_unlabeled"] = bool(normals_as_unlabeled)
    splits = {case.original: case.split for case in cases if case.split}
    external = options["protocol"] == "external"
    if not keep_test and (external or not set(splits.values()) & {"training", "validation"}):
        splits = {}
    if keep_test and not splits:
        raise MGCCError(f"--keep_test: {source} comes with no test list; leave it out")
    if splits and options["protocol"] != "strict":
        raise MGCCError(f"--protocol {options['protocol']}: {source} keeps the split that it comes with; use strict")
    labels: list[int] = []

    def write(folder: Path) -> None:
        items, loops, thumbnails = _read_all(cases, faults, crop, folder, str(source))
        labels.extend(duplicate_groups(thumbnails))
        belong = [patients.get(item["original"]) or loop or None for item, loop in zip(items, loops, strict=True)]
        for item, group in zip(items, join_groups(labels, belong), strict=True):
            item["group"] = group
        lists = draw_lists(items, **options, splits=splits)
        write_dataset(folder, lists, name=str(name or target.resolve().name), layout=layout, **options)

    write_folder(target, write)
    sizes = Counter(labels)
    return summary(target / FILE_NAME) | {"duplicates": sum(sizes[label] > 1 for label in labels)}


@plain_os_errors()
def split(
    dataset_dir: str,
    output_json: str,
    label_fraction: float | None = None,
    protocol: str | None = None,
    split_seed: int | None = None,
) -> dict[str, Any]:
    """Write another dataset file for the same images, with another seed, protocol or share of labels.

    Options that are not given are taken from the dataset. The near-duplicate search runs again, and groups that share
    near-duplicates are joined, so this also repairs a dataset with leaking lists.

    Args:
        dataset_dir: the dataset's folder, or its file.
        output_json: the file to write, in the dataset's folder, such as ``data/busi/dataset_seed1.json``.
        label_fraction: share of the training images that keep their labels, over 0 and up to 1.
        protocol: ``strict``, ``published`` or ``external``, as in ``prepare``.
        split_seed: seed of the split and of the choice of labels.

    Returns:
        A summary, as from ``prepare``.

    Raises:
        MGCCError: if an option or the dataset is invalid, or the file would be outside the dataset's folder.
    """
    options: dict[str, Any] = {"label_fraction": label_fraction, "protocol": protocol, "split_seed": split_seed}
    defaults = {"label_fraction": 1.0, "protocol": "strict", "split_seed": 0}
    check_split_args(**{key: defaults[key] if value is None else value for key, value in options.items()})
    dataset, target = load_datalist(dataset_dir, leaking=True), Path(os.path.abspath(str(output_json)))
    options = {k: dataset.get(k, defaults[k]) if value is None else value for k, value in options.items()}
    check_split_args(**options)
    if target.suffix != ".json" or target.is_dir():
        raise MGCCError(f"{target}: not the name of a .json file; give one as --output_json")
    try_writable(target, file=True)
    items: dict[str, dict[str, Any]] = {}
    for item in (item for name in ALL_LISTS for item in dataset.get(name, [])):
        items.setdefault(item["image"], {("label" if key == "withheld_label" else key): v for key, v in item.items()})
    images = list(items)
    for item in items.values():
        for key in {"image", "label"} & item.keys():
            if not Path(item[key]).is_relative_to(target.parent):
                raise MGCCError(f"{target}: not in the dataset's folder; give a file beside {FILE_NAME}")
            item[key] = Path(item[key]).relative_to(target.parent).as_posix()
    options["normals_as_unlabeled"] = bool(dataset.get("normals_as_unlabeled", False))
    for item, group in zip(items.values(), regroup(list(items.values()), images), strict=True):
        item["group"] = group
    kept = {key: dataset[key] for key in ("name", "description", "layout") if key in dataset}
    write_dataset(target.parent, draw_lists(list(items.values()), **options), target.name, **kept, **options)
    return summary(target)
