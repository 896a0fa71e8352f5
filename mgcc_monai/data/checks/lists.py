"""Checks of a dataset file: its header, its lists and the files they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

from mgcc_monai.data.checks.check import FAULT, WARNING, Check
from mgcc_monai.data.checks.dataset import FILES, PARTS, Dataset, lacking
from mgcc_monai.data.contents import ALL_LISTS, LISTS, dataset_hash
from mgcc_monai.data.splits import PROTOCOLS

__all__ = ["LIST_CHECKS", "leaks", "reading_errors"]

Found = Iterator[tuple[Any, str]]

_HEADER = ("classes", "protocol", "statistics", "hash", *LISTS)
_EVALUATED = ("training", "validation", "test")
_SOURCES = ("real", "synthetic", "phantom")
_FEWEST = {"training": 8, "validation": 4, "test": 4}
_SHARE_OFF = 0.2  # difference between the stated and the actual share of labelled images


def _header(data: Dataset) -> Found:
    if missing := [key for key in _HEADER if key not in data.content]:
        yield data.file, f"lacks {', '.join(missing)}"
    if wrong := [key for key in ALL_LISTS if not isinstance(data.content.get(key, []), list)]:
        yield data.file, f"{', '.join(wrong)} should be lists"


def _options(data: Dataset) -> Found:
    protocol, fraction, seed = (data.content.get(key) for key in ("protocol", "label_fraction", "split_seed"))
    if protocol not in PROTOCOLS:
        yield data.file, f"protocol is {protocol!r}, none of {', '.join(PROTOCOLS)}"
    number = isinstance(fraction, (int, float)) and not isinstance(fraction, bool)
    if not (number and 0 < fraction <= 1):
        yield data.file, f"label_fraction is {fraction!r}, no number over 0 and up to 1"
    if isinstance(seed, bool) or not isinstance(seed, int):
        yield data.file, f"split_seed is {seed!r}, no whole number"


def _statistics(data: Dataset) -> Found:
    found = data.content.get("statistics", {"mean": 0.5, "std": 0.5})
    mean, std = (found.get(key) if isinstance(found, dict) else None for key in ("mean", "std"))
    if not all(isinstance(value, (int, float)) for value in (mean, std)) or not (0 <= mean <= 1 and 0 < std <= 1):
        yield data.file, f"statistics are {found!r}, no mean and deviation of images scaled to 0 to 1"


def _hash(data: Dataset) -> Found:
    sound = all(name in data.content and data.lists[name] == data.content[name] for name in LISTS)
    if sound and "hash" in data.content and data.content["hash"] != dataset_hash(data.lists):
        yield data.file, "its lists were changed since it was written"


def _items(data: Dataset) -> Found:
    for name in ALL_LISTS:
        for number, item in enumerate(data.raw(name)):
            if missing := lacking(name, item):
                image = item.get("image", number) if isinstance(item, dict) else number
                yield data.file, f"item {image} of {name} lacks {', '.join(missing)}"


def _unlabeled(data: Dataset) -> Found:
    for name, item in data.items("unlabeled", "left_out"):
        if "label" in item:
            yield data.file, f"{item['image']} has a label in {name}"


def _source(data: Dataset) -> Found:
    for _, item in data.items():
        if item.get("source", "real") not in _SOURCES:
            yield data.path(item["image"]), f"source is {item['source']!r}, none of {', '.join(_SOURCES)}"


def _synthetic(data: Dataset) -> Found:
    for name, item in data.items("validation", "test", "normal"):
        if item.get("source") == "synthetic":
            yield data.path(item["image"]), f"a synthetic image in {name}"


def _spacing(data: Dataset) -> Found:
    for _, item in data.items():
        spacing = item.get("spacing", [1.0, 1.0])
        if not (isinstance(spacing, list) and len(spacing) == 2 and all(map(_is_length, spacing))):
            yield data.file, f"the spacing of {item['image']} is {spacing}"


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _named(data: Dataset) -> dict[Any, str]:
    """Return every path that the lists name, with the first list that names it."""
    named: dict[Any, str] = {}
    for name, item in data.items():
        for key in FILES:
            if key in item:
                path = item[key] if isinstance(item[key], str) else repr(item[key])
                named.setdefault(path, name)
    return named


def _outside(data: Dataset) -> Found:
    for path in _named(data):
        if not data.inside(path):
            yield data.file, f"{path[:80]} lies outside the dataset's folder"


def _missing(data: Dataset) -> Found:
    for path, name in _named(data).items():
        if data.inside(path) and not data.present(path):
            yield data.path(path), f"named in {name}, but missing"


def _orphans(data: Dataset) -> Found:
    named = {data.path(path) for path in _named(data) if data.inside(path)}
    for folder in sorted({path.parent for path in named} - {data.file.parent}):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_file() and path not in named and not path.name.startswith("."):
                yield path, f"in no list of {data.file.name}"


def _case(data: Dataset) -> Found:
    seen: dict[str, str] = {}
    for path in sorted(_named(data)):
        if (other := seen.setdefault(path.casefold(), path)) != path:
            yield data.path(path), f"differs from {other} in upper and lower case only"


def _twice(data: Dataset) -> Found:
    seen: dict[str, str] = {}
    allowed = {frozenset(("normal", "unlabeled"))} | (set() if data.strict else {frozenset(("validation", "test"))})
    for name, item in data.items():
        other = seen.get(item["image"])
        if other and (other == name or {other, name} not in allowed):
            yield data.path(item["image"]), f"in {name} and in {other}" if other != name else f"twice in {name}"
        seen.setdefault(item["image"], name)


def _shared_label(data: Dataset) -> Found:
    seen: dict[str, str] = {}
    for _, item in data.items():
        label = item.get("label", item.get("withheld_label"))
        if not isinstance(label, str):
            continue
        if label == item["image"]:
            yield data.path(label), "image and mask of one item"
        elif (other := seen.setdefault(label, item["image"])) != item["image"]:
            yield data.path(label), f"the mask of both {other} and {item['image']}"


def _classes(data: Dataset) -> Found:
    told, found = data.content.get("classes"), {item["class"] for _, item in data.items(*_EVALUATED)}
    if told is not None and (not isinstance(told, list) or set(map(str, told)) != found):
        yield data.file, f"classes are {told}, its lists have {sorted(found)}"


def _class_names(data: Dataset) -> Found:
    names = {item["class"] for _, item in data.items()}
    plain = Counter(name.strip().casefold() for name in names)
    if alike := sorted(name for name in names if plain[name.strip().casefold()] > 1 or not name.strip()):
        yield data.file, f"classes {', '.join(map(repr, alike))}: empty, or all but equal"


def _class_missing(data: Dataset) -> Found:
    names = {item["class"] for _, item in data.items(*_EVALUATED)}
    for name in _EVALUATED:
        if data.lists[name] and (missing := names - {item["class"] for item in data.lists[name]}):
            yield data.file, f"no {', '.join(sorted(missing))} in {name}"


def _empty_list(data: Dataset) -> Found:
    for name in () if data.content.get("protocol") == "external" else ("training", "validation"):
        if data.content.get(name) == []:
            yield data.file, f"no image in {name}"


def _no_test(data: Dataset) -> Found:
    if data.content.get("test") == []:
        yield data.file, "no image in test"


def _few(data: Dataset) -> Found:
    for name, fewest in _FEWEST.items():
        if 0 < len(data.lists[name]) < fewest:
            yield data.file, f"{len(data.lists[name])} images in {name}"


def _label_share(data: Dataset) -> Found:
    told, labelled = data.content.get("label_fraction"), len(data.lists["training"])
    withheld = sum("withheld_label" in item and item["class"] != "normal" for item in data.lists["unlabeled"])
    if not isinstance(told, (int, float)) or not 0 < told <= 1 or not labelled:
        return
    share = labelled / (labelled + withheld)
    if abs(share - told) > _SHARE_OFF or (told == 1 and withheld):
        yield data.file, f"label_fraction is {told:g}, but {labelled} of {labelled + withheld} images have their labels"


def _groups(data: Dataset) -> Found:
    seen: dict[str, tuple[str, str]] = {}
    for name, item in data.items(*PARTS) if data.strict else ():
        part, image = seen.setdefault(item["group"], (PARTS[name], item["image"]))
        if part != PARTS[name] and image != item["image"]:
            yield data.file, f"{item['image']} in {name} has the group {item['group']} of {image} in {part}"


def _copies(data: Dataset, across: bool) -> Found:
    seen: dict[str, list[tuple[str, str]]] = {}
    for name, item in data.items(*PARTS) if data.strict or not across else ():
        others = seen.setdefault(item["sha256"], [])
        fits = [
            (part, image)
            for part, image in others
            if image != item["image"] and (PARTS[part] != PARTS[name] if across else part == name)
        ]
        if fits:
            yield data.path(item["image"]), f"in {name}, the same image as {fits[0][1]} in {fits[0][0]}"
        others.append((name, item["image"]))


def _differing(data: Dataset, key: str) -> Found:
    seen: dict[str, dict[str, Any]] = {}
    for _, item in data.items():
        if isinstance(item.get(key), str):
            other = seen.setdefault(item["sha256"], item)
            if other[key] != item[key] and other["image"] != item["image"]:
                what = "mask" if key == "label_sha256" else key
                yield data.path(item["image"]), f"the same image as {other['image']}, with another {what}"


def _repeated(data: Dataset) -> Found:
    seen: dict[str, dict[str, Any]] = {}
    for _, item in data.items(*_EVALUATED, "unlabeled"):
        if isinstance(item.get("label_sha256"), str) and item["class"] != "normal":
            other = seen.setdefault(item["label_sha256"], item)
            if other["group"] != item["group"] and other["sha256"] != item["sha256"]:
                yield data.path(item["image"]), f"has the same mask, to the pixel, as {other['image']}"


def _published(data: Dataset) -> Found:
    if data.content.get("protocol") == "published":
        yield data.file, "protocol published: it is reported on the images that choose the weights, and groups leak"


_AGAIN = "run prepare or split again"
_LOOK = "keep the right one"
_LEAK = f"results would be biased; {_AGAIN}"

LIST_CHECKS = (  # for a dataset, before its files are read
    Check("header", FAULT, "entries that every dataset has", _header, "run prepare again"),
    Check("options", FAULT, "protocol, label_fraction, split_seed", _options, _AGAIN),
    Check("statistics", FAULT, "mean and deviation", _statistics, _AGAIN),
    Check("hash", FAULT, "lists against their hash", _hash, _AGAIN),
    Check("item", FAULT, "entries that every item has", _items, "add them or run prepare again"),
    Check("label-in-unlabeled", FAULT, "labels in unlabeled", _unlabeled, "name it withheld_label"),
    Check("spacing", FAULT, "pixel sizes", _spacing, "give [row, column] in mm, or leave it out"),
    Check("source", FAULT, "where images come from", _source, "correct it"),
    Check("synthetic-held-out", FAULT, "synthetic held-out images", _synthetic, "put it in training or unlabeled"),
    Check("path-outside", FAULT, "paths", _outside, "paths must be relative and stay in the folder"),
    Check("missing-file", FAULT, "files named", _missing, "copy it back or run prepare again"),
    Check("orphan-file", WARNING, "files not named", _orphans, "remove it, or add it to a list"),
    Check("case-collision", WARNING, "names that macOS and Windows do not distinguish", _case, "rename one"),
    Check("listed-twice", FAULT, "images listed twice", _twice, "keep one"),
    Check("shared-mask-file", FAULT, "files shared by two items", _shared_label, "name each image's own mask"),
    Check("classes", FAULT, "classes against the lists", _classes, _AGAIN),
    Check("class-names", WARNING, "class names", _class_names, "use one name per class"),
    Check("class-missing", WARNING, "classes of each list", _class_missing, "add images, or split with another seed"),
    Check("empty-list", FAULT, "training and validation", _empty_list, "add images and prepare them"),
    Check("no-test", WARNING, "test", _no_test, "no results can be reported; add images and prepare them"),
    Check("few-images", WARNING, "list sizes", _few, "results will be imprecise; add images"),
    Check("label-share", WARNING, "label_fraction against the lists", _label_share, _AGAIN),
    Check("group-in-two-lists", FAULT, "groups across lists", _groups, _LEAK),
    Check("copy-across-lists", FAULT, "equal images across lists", partial(_copies, across=True), _LEAK),
    Check("copy-in-list", WARNING, "equal images in a list", partial(_copies, across=False), "keep one"),
    Check("copies-masks", WARNING, "masks of equal images", partial(_differing, key="label_sha256"), _LOOK),
    Check("copies-classes", WARNING, "classes of equal images", partial(_differing, key="class"), _LOOK),
    Check("repeated-mask", WARNING, "equal masks of different images", _repeated, "check that it is the image's own"),
    Check("published", WARNING, "the protocol", _published, "use it only to compare with published results"),
)

_LEAKS = ("listed-twice", "group-in-two-lists")
_NEEDED = ("header", "hash", "item", "spacing", "label-in-unlabeled", "path-outside", "missing-file", *_LEAKS)


def _errors(data: Dataset, names: Collection[str]) -> list[str]:
    return [check.finding(*found).line for check in LIST_CHECKS if check.name in names for found in check.find(data)]


def leaks(data: Dataset) -> list[str]:
    """Return one error per image that is, or has its group, in two lists that must be kept apart."""
    return _errors(data, _LEAKS)


def reading_errors(data: Dataset, leaking: bool = False) -> list[str]:
    """Return the errors that make a dataset unusable; ``leaking`` leaves out those of :func:`leaks`."""
    return _errors(data, [name for name in _NEEDED if not (leaking and name in _LEAKS)])
