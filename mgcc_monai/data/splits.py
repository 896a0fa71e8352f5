"""Draw lists of images by group, stratified by class; independent of the machine and of file order.

Every draw depends only on the seed and on the records sorted by key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mgcc_monai.errors import MGCCError, raise_errors

__all__ = [
    "FRACTIONS",
    "PROTOCOLS",
    "Record",
    "check_split_args",
    "draw_lists",
    "label_subset",
    "option_faults",
    "published_split",
    "split_groups",
]

FRACTIONS = (0.7, 0.1, 0.2)
PROTOCOLS = ("strict", "published", "external")

Draw = Callable[..., dict[str, list[str]]]

_LISTS = ("training", "validation", "test")
_HELD_OUT = ("validation", "test")
_SPLIT, _PUBLISHED, _LABELS = 1, 2, 3  # one random stream per kind of draw


class Record(NamedTuple):
    """An image as a draw sees it.

    Args:
        key: its unique name.
        class_name: its class.
        group: its group of near-duplicates and patients.
    """

    key: str
    class_name: str
    group: str


def _shuffled(names: Sequence[str], *seed: int) -> list[str]:
    """Sort names, then shuffle them."""
    return np.random.default_rng(seed).permutation(np.array(sorted(names), dtype=object)).tolist()


def _by_class(records: Sequence[Record], *seed: int) -> Iterator[list[list[str]]]:
    """Yield the groups of each class in random order, each a sorted list of keys; classes come by name.

    A group belongs to the class of most of its images; ties go to the first name.
    """
    groups: dict[str, list[Record]] = {}
    for record in sorted(records):
        groups.setdefault(record.group, []).append(record)
    classes: dict[str, dict[str, list[str]]] = {}
    for members in groups.values():
        keys = [record.key for record in members]
        counts = Counter(record.class_name for record in members)
        majority = min(counts, key=lambda name: (-counts[name], name))
        classes.setdefault(majority, {})[keys[0]] = keys
    for number, name in enumerate(sorted(classes)):
        yield [classes[name][first] for first in _shuffled(list(classes[name]), *seed, number)]


def split_groups(
    records: Sequence[Record], fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, list[str]]:
    """Split by group, stratified by class: the ``strict`` protocol.

    The groups of a class come in random order. Each goes as a whole to the list that lacks most images, so a list's
    share of a class is off by less than two of its largest groups.

    Args:
        records: the images, in any order.
        fractions: shares of training, validation and test, which add up to 1.
        seed: seed of the draw.

    Returns:
        Sorted keys for each of ``training``, ``validation`` and ``test``.

    Raises:
        MGCCError: if there are too few groups to fill every list.
        ValueError: if the fractions do not add up to 1.
    """
    if len(fractions) != len(_LISTS) or min(fractions) < 0 or not np.isclose(sum(fractions), 1):
        raise ValueError(f"fractions must be three shares that add up to 1, got {tuple(fractions)}")
    lists: dict[str, list[str]] = {name: [] for name in _LISTS}
    for groups in _by_class(records, seed, _SPLIT):
        lacking = np.array(fractions) * sum(map(len, groups))
        for keys in groups:
            chosen = int(np.argmax(lacking.round(9)))
            lacking[chosen] -= len(keys)
            lists[_LISTS[chosen]] += keys
    for name, fraction in zip(_LISTS, fractions, strict=True):
        if fraction > 0 and not lists[name]:
            count = len({record.group for record in records})
            raise MGCCError(f"{len(records)} images in {count} groups are too few: {name} stays empty; add images")
    return {name: sorted(keys) for name, keys in lists.items()}


def published_split(records: Sequence[Record], seed: int = 0) -> dict[str, list[str]]:
    """Split 70/30 by image, stratified by class, with validation and test the same 30 %: the ``published`` protocol.

    Groups are ignored, and results are reported on the images that selected the weights. This leaks, as the paper's
    released code does; use it only to compare with published results.

    Args:
        records: the images, in any order.
        seed: seed of the draw.

    Returns:
        Sorted keys for each of ``training``, ``validation`` and ``test``.

    Raises:
        MGCCError: if there are too few images to fill every list.
    """
    by_image = [record._replace(group=record.key) for record in records]
    training: list[str] = []
    for images in _by_class(by_image, seed, _PUBLISHED):
        training += [key for (key,) in images[round(0.3 * len(images)) :]]
    test = sorted({record.key for record in records} - set(training))
    if not training or not test:
        raise MGCCError(f"{len(records)} images are too few to be split 70/30 within their classes; add images")
    return {"training": sorted(training), "validation": test, "test": list(test)}


def label_subset(training: Sequence[Record], fraction: float, seed: int = 0) -> list[str]:
    """Choose the training images that keep their labels, by group and stratified by class.

    The choice is nested: for a given seed, the images of a smaller fraction are a subset of a larger one's.

    Args:
        training: the training images, in any order.
        fraction: the share to keep, in (0, 1]; at least one group per class is kept.
        seed: seed of the draw.

    Returns:
        Sorted keys.

    Raises:
        MGCCError: if the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise MGCCError(f"label_fraction is {fraction}; give a number over 0 and up to 1")
    kept: list[str] = []
    for groups in _by_class(training, seed, _LABELS):
        counts = np.cumsum([len(keys) for keys in groups])
        nearest = int(np.argmin(np.abs(counts - fraction * counts[-1])))
        kept += [key for keys in groups[: nearest + 1] for key in keys]
    return sorted(kept)


def option_faults(label_fraction: Any, protocol: Any, split_seed: Any, **switches: Any) -> list[str]:
    """Return one error per wrong option of a draw, or per switch that is not True or False."""
    faults = []
    if isinstance(label_fraction, bool) or not isinstance(label_fraction, (int, float)) or not 0 < label_fraction <= 1:
        faults.append(f"label_fraction is {label_fraction!r}; give a number over 0 and up to 1")
    if protocol not in PROTOCOLS:
        faults.append(f"protocol is {protocol!r}; give one of {', '.join(PROTOCOLS)}")
    if protocol == "external" and (label_fraction != 1 or switches.get("normals_as_unlabeled")):
        faults.append("protocol external: nothing is trained on; leave label_fraction and normals_as_unlabeled out")
    if isinstance(split_seed, bool) or not isinstance(split_seed, int) or split_seed < 0:
        faults.append(f"split_seed is {split_seed!r}; give a whole number from 0 on")
    faults += [f"{name} is {value!r}; give True or False" for name, value in switches.items() if value not in (0, 1)]
    return faults


def check_split_args(label_fraction: float, protocol: str, split_seed: int, **switches: bool) -> None:
    """Check the options of a draw, and switches that must be True or False.

    Raises:
        MGCCError: if any are wrong; all errors are listed.
    """
    raise_errors(option_faults(label_fraction, protocol, split_seed, **switches), "options")


def _draw_phantoms(records: Sequence[Record], draw: Draw, seed: int) -> tuple[Sequence[Record], dict[str, list[str]]]:
    """Draw image by image, as before phantoms had groups; draw by group only if that would split one.

    If there are too few phantoms to fill the lists class by class, draw over all classes.
    """
    for tried in ([record._replace(group=record.key) for record in records], records):
        try:
            keys = draw(tried, seed=seed)
        except MGCCError:
            keys = draw([record._replace(class_name="lesion") for record in tried], seed=seed)
        where = {key: name for name, chosen in keys.items() for key in chosen}
        if len({(record.group, where[record.key]) for record in records}) == len({r.group for r in records}):
            break
    return tried, keys


def _keep(records: Sequence[Record], splits: Mapping[str, str], seed: int) -> dict[str, list[str]]:
    """Leave images in the lists that they come with, and draw the rest.

    Images to be trained on that have the group of a held-out one are left out; so are images of validation in a group
    of the test list. Without a validation list an eighth of the training images is drawn for it.
    """
    lists: dict[str, list[Record]] = {name: [] for name in _LISTS}
    taken: set[str] = set()
    for name in reversed(_LISTS):  # test first
        own = [record for record in records if (splits[record.key] or "training") == name]
        lists[name] = [record for record in own if record.group not in taken]
        taken |= {record.group for record in own}
    if not lists["validation"]:
        drawn = split_groups(lists["training"], (0.875, 0.125, 0.0), seed)
        return {**drawn, "test": sorted(record.key for record in lists["test"])}
    return {name: sorted(record.key for record in part) for name, part in lists.items()}


def draw_lists(
    items: Sequence[Mapping[str, Any]],
    label_fraction: float = 1.0,
    protocol: str = "strict",
    split_seed: int = 0,
    normals_as_unlabeled: bool = False,
    splits: Mapping[str, str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Put a dataset's items into lists.

    Args:
        items: items of ``dataset.json``, in any order, with all known labels. Items of class ``normal`` have an empty
            label; items without a label go to ``unlabeled``.
        label_fraction: share of the training images that keep their labels.
        protocol: ``strict``; ``published``; or ``external``: all labelled images are in ``test``.
        split_seed: seed of the draws.
        normals_as_unlabeled: also put normal images in ``unlabeled``.
        splits: the list of some images, by their ``original``, as their authors split them; strict protocol only.

    Returns:
        Items by list. Phantoms keep the lists they had before they had groups, unless that would split a group.
        Unlabelled and normal images in the group of a held-out image are not trained on; unlabelled ones are in
        ``left_out``.

    Raises:
        MGCCError: if there are too few images or groups.
    """
    by_image = {item["image"]: dict(item) for item in sorted(items, key=lambda item: item["image"])}
    normal = [item for item in by_image.values() if "label" in item and item["class"] == "normal"]
    extra = [item for item in by_image.values() if "label" not in item]
    records = [
        Record(image, item["class"], item["group"])
        for image, item in by_image.items()
        if "label" in item and item["class"] != "normal"
    ]
    draw, dropped = split_groups if protocol == "strict" else published_split, []
    if protocol == "external":
        keys = {"training": [], "validation": [], "test": sorted(record.key for record in records)}
        extra, dropped = [], extra
    elif splits:
        keys = _keep(records, {image: splits.get(item["original"], "") for image, item in by_image.items()}, split_seed)
        kept = {key for part in keys.values() for key in part}
        dropped = [by_image[record.key] for record in records if record.key not in kept]
        records = [record for record in records if record.key in kept]
    elif records and all(by_image[record.key].get("source") == "phantom" for record in records):
        records, keys = _draw_phantoms(records, draw, split_seed)
    else:
        keys = draw(records, seed=split_seed)
    training = [record for record in records if record.key in set(keys["training"])]
    labelled = set(label_subset(training, label_fraction, split_seed))
    lists = {name: [by_image[key] for key in keys[name]] for name in _HELD_OUT}
    lists["training"] = [by_image[key] for key in sorted(labelled)]
    held_out = {item["group"] for name in _HELD_OUT for item in lists[name]}
    more = extra + (normal if normals_as_unlabeled else [])
    lists["unlabeled"] = [
        {("withheld_label" if key == "label" else key): value for key, value in item.items()}
        for item in (
            *(by_image[record.key] for record in training if record.key not in labelled),
            *(item for item in more if item["group"] not in held_out),
        )
    ]
    lists["left_out"] = [item for item in extra if item["group"] in held_out]
    lists["left_out"] += [
        {("withheld_label" if key == "label" else key): value for key, value in item.items()} for item in dropped
    ]
    return lists | {"normal": normal}
