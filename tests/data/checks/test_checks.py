"""Every check fires on the fault planted for it, and on nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgcc_monai.data.checks import CHECKS, check_dataset
from mgcc_monai.data.checks.lists import LIST_CHECKS


def _move(p, number: int, name: str, **changes: Any) -> None:
    """Add a copy of an item to a list, under another file name."""
    item = dict(p.item(number)) | {"image": "images/copy.png", "group": "copy"}
    shutil.copy(p.folder / p.item(number)["image"], p.folder / "images/copy.png")
    if "label" in item:
        item["label"] = "labels/copy.png"
        shutil.copy(p.folder / p.item(number)["label"], p.folder / "labels/copy.png")
    p.content[name].append(item | changes)


def _rename(p, new: str) -> None:
    (p.folder / "images/0.png").rename(p.folder / f"images/{new}")
    p.item(0)["image"] = f"images/{new}"


def _rename_class(p, name: str, *lists: str) -> None:
    for item in (item for part in lists for item in p.content[part][:1]):
        item["class"] = name
    p.content["classes"] = sorted({i["class"] for part in ("training", "validation", "test") for i in p.content[part]})


def _case(p) -> None:
    _rename(p, "x.png")
    (p.folder / "images/1.png").rename(p.folder / "images/X.png")
    p.item(1)["image"] = "images/X.png"


def _withhold(p) -> None:
    for item in p.content["unlabeled"]:
        item["withheld_label"] = item["image"].replace("images", "labels")
        number = int(Path(item["image"]).stem)
        p.save(item["withheld_label"], p.disc(number))


def _label(p) -> None:
    p.item(8)["label"] = "labels/8.png"
    p.save("labels/8.png", p.disc(8))


def _contradict(p) -> None:
    _move(p, 0, "normal", **{"class": "benign"})
    p.save("labels/copy.png", p.disc(0) * 0)


LIST_FAULTS = {
    "header": lambda p: p.content.pop("classes"),
    "options": lambda p: p.content.update(label_fraction=7),
    "statistics": lambda p: p.content.update(statistics={"mean": "much", "std": 0.2}),
    "item": lambda p: p.item(3).pop("group"),
    "label-in-unlabeled": _label,
    "spacing": lambda p: p.item(0).update(spacing=[0.1, 0]),
    "source": lambda p: p.item(0).update(source="web"),
    "synthetic-held-out": lambda p: p.item(12).update(source="synthetic"),
    "path-outside": lambda p: p.item(18).update(image="../secret.png"),
    "missing-file": lambda p: (p.folder / "images/18.png").unlink(),
    "orphan-file": lambda p: p.save("images/other.png", p.disc()),
    "case-collision": _case,
    "listed-twice": lambda p: p.content["training"].append(p.item(0)),
    "shared-mask-file": lambda p: p.content["test"][0].update(label=p.item(11)["label"]),
    "classes": lambda p: p.content.update(classes=["benign"]),
    "class-names": lambda p: _rename_class(p, "Benign", "training", "validation", "test"),
    "class-missing": lambda p: _rename_class(p, "cyst", "training", "validation"),
    "empty-list": lambda p: p.content.update(validation=[]),
    "no-test": lambda p: p.content.update(test=[]),
    "few-images": lambda p: p.content["test"].pop(),
    "label-share": _withhold,
    "group-in-two-lists": lambda p: p.item(12).update(group="g0"),
    "copy-across-lists": lambda p: _move(p, 0, "test"),
    "copy-in-list": lambda p: _move(p, 0, "training"),
    "copies-masks": _contradict,
    "copies-classes": lambda p: _move(p, 18, "normal", **{"class": "healthy"}),
    "repeated-mask": lambda p: p.save("labels/1.png", p.disc(0)),
    "published": lambda p: p.content.update(protocol="published"),
}
ALSO = {  # what cannot but come with it
    "path-outside": {"orphan-file"},
    "shared-mask-file": {"orphan-file", "repeated-mask"},
    "empty-list": {"orphan-file"},
    "no-test": {"orphan-file"},
    "few-images": {"orphan-file"},
    "item": {"orphan-file", "few-images"},
    "copy-in-list": set(),
    "copies-masks": {"copy-in-list"},
    "copies-classes": set(),
}


def _fired(folder: Path, **options: Any) -> set[str]:
    return set(check_dataset(folder, **{"near_copies": False, **options}).counts)


def test_a_clean_dataset_fires_nothing(clean):
    report = check_dataset(clean)
    assert report.findings == [] and report.images == 20
    assert f"{len(CHECKS)} checks over 20 images; faults: 0, warnings: 0" in report.table()


def test_names_are_unique_and_every_check_of_the_lists_has_a_planted_fault():
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert {check.name for check in LIST_CHECKS} == {*LIST_FAULTS, "hash"}


@pytest.mark.parametrize("name", LIST_FAULTS)
def test_a_fault_of_the_lists_is_found(plant, name):
    (plant.folder.parent / "secret.png").write_bytes((plant.folder / "images/18.png").read_bytes())
    LIST_FAULTS[name](plant)
    fired = _fired(plant.write())
    assert name in fired and fired - {name} <= ALSO.get(name, set())


@pytest.mark.parametrize("name", ["protocol", "label_fraction", "split_seed"])
def test_an_option_that_is_not_told_is_found(plant, name):
    del plant.content[name]
    assert "options" in _fired(plant.write())


@pytest.mark.parametrize("path", ["a\0b.png", 5, "", "x" * 5000])
def test_what_is_no_path_is_found(plant, path):
    plant.item(8)["withheld_label"] = path
    assert _fired(plant.write()) & {"path-outside", "missing-file"}


def test_lists_changed_by_hand_are_found(plant):
    del plant.content["normal"][0]["label_sha256"]
    plant.content["normal"][0]["label_sha256"] = "0" * 64
    plant.write(rehash=False)
    assert _fired(plant.folder) == {"hash", "changed-mask"}


def test_statistics_of_other_images_are_found(plant):
    plant.content["statistics"]["mean"] += 0.1
    assert _fired(plant.write()) == {"statistics-differ"}


def test_a_file_that_is_no_json_is_a_fault(plant):
    (plant.folder / "dataset.json").write_text("{")
    assert _fired(plant.folder) == {"dataset-file"}


@pytest.mark.parametrize(("number", "fires"), [(12, True), (1, False)], ids=["across", "within"])
def test_near_copies_are_found_across_lists(plant, number, fires):
    copy = np.uint8(255 * (plant.grey(0)[:, ::-1] / 255.0) ** 0.7)
    plant.save(f"images/{number}.png", copy)
    plant.write()
    assert _fired(plant.folder, near_copies=True) == ({"near-copy-across-lists"} if fires else set())


def test_all_is_told_at_once_with_files(plant):
    (plant.folder / "images/18.png").unlink()
    plant.save("labels/0.png", plant.disc() * 0)
    plant.save("images/19.png", plant.disc() * 0 + 9)
    plant.content["classes"] = ["benign"]
    report = check_dataset(plant.write())
    assert list(report.counts) == ["missing-file", "classes", "constant-image", "empty-mask"]
    table = report.table()
    for text in ("images/18.png: named in normal", "labels/0.png: no lesion", "images/19.png: every pixel is 9"):
        assert str(plant.folder / text.split(":")[0]) in table and text in table
    assert table.endswith("checks over 19 images; faults: 4, warnings: 0")
    assert report.content()["counts"] == report.counts and len(report.content()["findings"]) == 4
