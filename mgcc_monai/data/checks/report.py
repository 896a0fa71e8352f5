"""Run the checks over a dataset and report what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mgcc_monai.data.checks.check import FAULT, WARNING, Check, Finding
from mgcc_monai.data.checks.dataset import PARTS, Dataset, find_dataset, read_content
from mgcc_monai.data.checks.images import FILE_CHECKS, IMAGE_CHECKS, inspect_file
from mgcc_monai.data.checks.lists import LIST_CHECKS
from mgcc_monai.data.checks.masks import MASK_CHECKS, PAIR_CHECKS, PIXEL_CHECKS, Pair
from mgcc_monai.data.contents import image_moments, statistics_of
from mgcc_monai.data.duplicates import CHECKED, Thumbnails, duplicate_pairs, thumbnail
from mgcc_monai.errors import plain_os_errors
from mgcc_monai.progress import progress_bar

__all__ = ["CHECKS", "Report", "check_dataset", "register"]

_FEWEST, _FAR, _LEVELS = 20, 8.0, 20.0  # fewest images to compare; robust deviations; grey levels
_STATISTICS_OFF = 0.01
_SHOWN = 20  # warnings per check; all faults are shown


@dataclass
class _Seen:
    """What is kept of an image after its checks.

    Args:
        item: its item.
        findings: what is wrong with its files.
        thumbnail: input of the duplicate search; None if the image cannot be read, or once it is kept elsewhere.
        mean: its mean grey level.
        moments: see :func:`mgcc_monai.data.contents.image_moments`.
    """

    item: Mapping[str, Any]
    findings: list[Finding]
    thumbnail: np.ndarray | None = None
    mean: float = 0.0
    moments: tuple[float, float] = (0.0, 0.0)


@dataclass
class _Read:
    """A dataset after all its images were read.

    Args:
        data: the dataset.
        seen: what is kept of each readable image, by its path in the dataset.
        thumbnails: theirs, in the same order.
    """

    data: Dataset
    seen: dict[str, _Seen]
    thumbnails: Thumbnails


def _statistics_differ(read: _Read) -> Iterator[tuple[Any, str]]:
    images = [item["image"] for _, item in read.data.items("training", "unlabeled")]
    told = read.data.content.get("statistics")
    if not images or any(image not in read.seen for image in images) or not isinstance(told, dict):
        return
    found = statistics_of([read.seen[image].moments for image in images])
    for key, value in found.items():
        if isinstance(told.get(key), (int, float)) and abs(told[key] - value) > _STATISTICS_OFF:
            yield read.data.file, f"{key} is {told[key]:g}, that of the images is {value:g}"


def _outliers(read: _Read) -> Iterator[tuple[Any, str]]:
    means = {image: seen.mean for image, seen in read.seen.items()}
    if len(means) < _FEWEST:
        return
    middle = float(np.median([*means.values()]))
    spread = 1.4826 * float(np.median([abs(mean - middle) for mean in means.values()]))
    for image, mean in means.items():
        if abs(mean - middle) > max(_FAR * spread, _LEVELS):
            yield read.data.path(image), f"mean grey level {mean:.0f}, where {middle:.0f} is usual"


def _near_copies(read: _Read, workers: int) -> Iterator[tuple[Any, str]]:
    items = {item["image"]: (name, item) for name, item in read.data.items(*PARTS) if item["image"] in read.seen}
    if not read.data.strict or not items:
        return
    names = list(read.seen)
    sides = [PARTS[items[name][0]] if name in items else "" for name in names]
    for i, j in duplicate_pairs(read.thumbnails, CHECKED, sides, workers):
        if not (sides[i] and sides[j]):
            continue
        (part, first), (other, second) = items[names[i]], items[names[j]]
        if first["sha256"] != second["sha256"] and first["group"] != second["group"]:
            yield read.data.path(names[j]), f"in {other}, all but the same image as {names[i]} in {part}"


_READ_CHECKS = (
    Check("statistics-differ", WARNING, "statistics against the images", _statistics_differ, "run prepare again"),
    Check("brightness-outlier", WARNING, "mean grey levels", _outliers, "inspect it"),
)
_NEAR_COPIES = Check(
    "near-copy-across-lists",
    FAULT,
    "near-duplicates across lists",
    None,
    "results would be biased; give both one group, run prepare or split again",
)
_FILE = Check("dataset-file", FAULT, "the dataset file", None, "run prepare again")

CHECKS: list[Check] = [
    _FILE,
    *LIST_CHECKS,
    *FILE_CHECKS,
    *IMAGE_CHECKS,
    *PAIR_CHECKS,
    *MASK_CHECKS,
    *PIXEL_CHECKS,
    *_READ_CHECKS,
    _NEAR_COPIES,
]
_REGISTERED: dict[str, list[Check]] = {"dataset": [], "image": [], "pair": []}


def register(check: Check, of: str = "image") -> Check:
    """Add a check of your own; :func:`check_dataset` runs it after those of this package.

    Args:
        check: the check; ``of`` says what its ``find`` receives.
        of: ``image``: the :class:`mgcc_monai.data.checks.images.FileFacts` of each image; ``pair``: each image with its
            mask, a :class:`mgcc_monai.data.checks.masks.Pair`; ``dataset``: the whole
            :class:`mgcc_monai.data.checks.dataset.Dataset`.

    Raises:
        ValueError: if a check of this name exists, or ``of`` is unknown.
    """
    if of not in _REGISTERED or any(other.name == check.name for other in CHECKS):
        raise ValueError(f"a check of {', '.join(_REGISTERED)} with a new name is needed, got {of!r}, {check.name!r}.")
    _REGISTERED[of].append(check)
    CHECKS.append(check)
    return check


@dataclass
class Report:
    """What the checks found.

    Args:
        file: the dataset file.
        images: number of images read.
        findings: all findings, faults first, in the order of the checks.
    """

    file: Path
    images: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def faults(self) -> list[Finding]:
        """Findings that must be corrected."""
        return [finding for finding in self.findings if finding.severity == FAULT]

    @property
    def warnings(self) -> list[Finding]:
        """Findings that should be inspected."""
        return [finding for finding in self.findings if finding.severity == WARNING]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings per check, for the checks that fired."""
        return dict(Counter(finding.check for finding in self.findings))

    def table(self) -> str:
        """Return a table of the checks that fired, each with its count and files (at most 20 for a warning)."""
        severities = {finding.check: finding.severity for finding in self.findings}
        lines = [f"{'check':<24}{'severity':<10}{'count':>7}"] if severities else []
        for name, count in self.counts.items():
            lines.append(f"{name:<24}{severities[name]:<10}{count:>7}")
            found = [finding.line for finding in self.findings if finding.check == name]
            shown = found if severities[name] == FAULT else found[:_SHOWN]
            lines += [f"  {line}" for line in shown]
            lines += [f"  ... and {count - len(shown)} more"] if len(shown) < count else []
        what = f"{len(CHECKS)} checks over {self.images} images"
        lines.append(f"{self.file}: {what}; faults: {len(self.faults)}, warnings: {len(self.warnings)}")
        return "\n".join(lines)

    def content(self) -> dict[str, Any]:
        """Return the report as a JSON-serialisable dictionary."""
        return {
            "dataset": str(self.file),
            "checks": [check.name for check in CHECKS],
            "images": self.images,
            "faults": len(self.faults),
            "warnings": len(self.warnings),
            "counts": self.counts,
            "findings": [finding._asdict() for finding in self.findings],
        }


def _check_files(data: Dataset, name: str, item: Mapping[str, Any]) -> _Seen:
    """Read an item's files once and run all checks on them."""
    label = item.get("label", item.get("withheld_label"))
    label = label if label and data.present(label) else None
    pair = Pair(item, name == "normal" or item["class"] == "normal", inspect_file(data.path(item["image"])))
    pair.label = inspect_file(data.path(label), mask=True) if label else None
    pictures = [picture for picture in (pair.image, pair.label) if picture]
    findings = [
        check.finding(picture.path, detail)
        for picture in pictures
        for check in FILE_CHECKS
        if (detail := check.find(picture))
    ]
    usable = pair.image.pixels is not None
    runs: list[tuple[Sequence[Check], Any, Path]] = [
        ([*IMAGE_CHECKS, *_REGISTERED["image"]] if usable else (), pair.image, pair.image.path),
        ([*PAIR_CHECKS, *_REGISTERED["pair"]] if usable else (), pair, pair.image.path),
    ]
    if pair.label:
        runs += [(MASK_CHECKS, pair, pair.label.path)]
        runs += [(PIXEL_CHECKS if pair.label.pixels is not None else (), pair, pair.label.path)]
    for checks, subject, path in runs:
        findings += [check.finding(path, detail) for check in checks if (detail := check.find(subject))]
    if not usable:
        return _Seen(item, findings)
    pixels = pair.image.pixels
    return _Seen(item, findings, thumbnail(pixels), float(pixels.mean()), image_moments(pixels))


@plain_os_errors()
def check_dataset(dataset_dir: str | Path, near_copies: bool = True, workers: int = 2) -> Report:
    """Run every check over a dataset.

    Args:
        dataset_dir: the dataset's folder, or a file like ``dataset.json`` itself.
        near_copies: also search for near-duplicates across lists.
        workers: number of threads.

    Returns:
        The findings, faults first.

    Raises:
        MGCCError: if there is no dataset.
    """
    file = find_dataset(dataset_dir)
    content, wrong = read_content(file)
    if wrong:
        return Report(file, 0, [_FILE.finding(file, wrong)])
    data = Dataset(file, content)
    findings = [
        check.finding(*found) for check in [*LIST_CHECKS, *_REGISTERED["dataset"]] for found in check.find(data)
    ]
    tasks, read = {}, _Read(data, {}, Thumbnails())
    for name, item in data.items():
        if data.present(item["image"]):
            tasks.setdefault((item["image"], item.get("label", item.get("withheld_label"))), (name, item))
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda task: _check_files(data, *task), tasks.values())
        for one in progress_bar(done, len(tasks), desc="checking", unit="image", delay=2):
            findings += one.findings
            if one.thumbnail is not None and one.item["image"] not in read.seen:
                read.thumbnails.append(one.thumbnail)
                read.seen[one.item["image"]] = one
            one.thumbnail = None
    findings += [check.finding(*found) for check in _READ_CHECKS for found in check.find(read)]
    findings += [_NEAR_COPIES.finding(*found) for found in _near_copies(read, workers)] if near_copies else []
    order = {check.name: (check.severity != FAULT, place) for place, check in enumerate(CHECKS)}
    return Report(file, len(tasks), sorted(dict.fromkeys(findings), key=lambda found: order[found.check]))
