"""What a dataset holds, in figures and in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mgcc_monai.data.checks.dataset import find_dataset
from mgcc_monai.data.contents import ALL_LISTS
from mgcc_monai.data.dataset import load_datalist

__all__ = ["describe", "summary"]


def summary(file: Path) -> dict[str, Any]:
    """Return a dataset file's path, hash, and numbers of images, groups and classes."""
    dataset = load_datalist(file)
    counts = {name: dict(Counter(item["class"] for item in dataset.get(name, []))) for name in ALL_LISTS}
    images = {item["image"]: item["group"] for name in ALL_LISTS for item in dataset.get(name, [])}
    sizes = Counter(images.values())
    return {
        "path": str(file),
        "hash": dataset["hash"],
        "images": len(images),
        "groups": len(sizes),
        "sharing": sum(size for size in sizes.values() if size > 1),
        "left_out": len(dataset.get("left_out", [])),
        "counts": counts,
    }


def describe(dataset_dir: str) -> str:
    """Describe the content of a dataset in a table.

    Args:
        dataset_dir: the dataset's folder, or its file.

    Returns:
        Lines: images by list and class, groups, protocol, path.
    """
    file = find_dataset(dataset_dir)
    dataset, found = load_datalist(file), summary(file)
    counts = {name: count for name, count in found["counts"].items() if count}
    classes = sorted({name for count in counts.values() for name in count})
    rows = [("list", "images", *classes)]
    rows += [(name, sum(count.values()), *(count.get(c, 0) for c in classes)) for name, count in counts.items()]
    lines = [f"{row[0]:<12}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows]
    if found["left_out"]:
        lines.append("left_out: images that are in no list, as they share a group with held-out ones or have no label")
    if dataset["protocol"] == "published":
        lines.append("published: validation and test are the same images, and groups are not kept apart")
    lines.append(f"{found['images']} images in {found['groups']} groups; {found['sharing']} are not alone in theirs")
    options = ("layout", "protocol", "split_seed", "label_fraction")
    lines.append(", ".join(f"{key} {dataset[key]}" for key in options if key in dataset))
    return "\n".join([*lines, f"hash {found['hash']}", str(file)])
