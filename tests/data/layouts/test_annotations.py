"""Exports of annotation tools, names in plain folders, zip files, and what no layout fits."""

from __future__ import annotations

import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from layout_sources import CORNERS, SIZE, box, inside, mask_of, scan

from mgcc_monai.data.layouts import find_layout
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError


def coco(save, source: Path) -> dict:
    for name in ("a", "b", "c"):
        save(f"images/{name}.png")
    flat = [coordinate for point in CORNERS for coordinate in point]
    runs = {"size": list(SIZE), "counts": [1210, 20, 40, 20, 3510]}
    return {
        "images": [{"id": n, "file_name": f"{name}.png", "height": 60, "width": 80} for n, name in enumerate("abc")],
        "categories": [{"id": 5, "name": "benign"}, {"id": 6, "name": "malignant"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 5, "segmentation": [flat]},
            {"id": 2, "image_id": 1, "category_id": 6, "segmentation": runs},
        ],
    }


def test_coco_polygons_and_run_lengths(save, source):
    content = coco(save, source)
    (source / "annotations.json").write_text(json.dumps(content))
    cases, faults = scan(source, "coco")
    assert not faults
    assert [(case.class_name, case.labelled) for case in cases] == [
        ("benign", True), ("malignant", True), ("unknown", False)
    ]  # fmt: skip
    assert np.array_equal(mask_of(cases[0]), inside(CORNERS))
    columns = np.zeros(SIZE, np.uint8)
    columns[10:30, 20] = columns[10:30, 21] = 1
    assert np.array_equal(mask_of(cases[1]), columns)


def test_compressed_run_lengths_are_read_as_pycocotools_writes_them(save, source):
    """The string is what ``pycocotools.mask.encode`` (2.0) gives for this mask; runs grow and shrink in it."""
    content = coco(save, source)
    text = "jU1d0X10cQ1i0V1dNjmN00000000000000000eb0"
    content["annotations"][1]["segmentation"] = {"size": list(SIZE), "counts": text}
    (source / "annotations.json").write_text(json.dumps(content))
    wanted = np.zeros(SIZE, np.uint8)
    wanted[10:30, 20:22] = 1
    wanted[5:50, 40] = 1
    wanted[3, 60:70] = 1
    assert np.array_equal(mask_of(scan(source, "coco")[0][1]), wanted)


def test_coco_with_a_nameless_category_or_a_missing_image_is_refused(save, source):
    content = coco(save, source)
    content["categories"][0]["name"] = " "
    (source / "images/c.png").unlink()
    (source / "annotations.json").write_text(json.dumps(content))
    faults = scan(source, "coco")[1]
    assert any("category 5 has no name" in fault for fault in faults)
    assert any("c.png is not there" in fault for fault in faults)


def test_labelme(save, source):
    save("scan.png")
    shape = {"label": "benign", "points": CORNERS, "shape_type": "polygon"}
    content = {"shapes": [shape], "imagePath": "..\\somewhere\\scan.png", "imageHeight": 60, "imageWidth": 80}
    (source / "scan.json").write_text(json.dumps(content))
    cases, faults = scan(source, "labelme")
    assert not faults and cases[0].class_name == "benign" and np.array_equal(mask_of(cases[0]), inside(CORNERS))
    content["shapes"][0]["shape_type"] = "circle"
    (source / "scan.json").write_text(json.dumps(content))
    assert "shapes of type circle" in scan(source, "labelme")[1][0]


@pytest.mark.parametrize("name", ["mask_a", "seg_a", "GT_a", "a_mask", "a"])
def test_plain_folders_take_prefixes_too(save, source, name):
    save("Images/a.png")
    save(f"Masks/{name}.png", "mask")
    cases, faults = scan(source, "folders")
    assert not faults and np.array_equal(mask_of(cases[0]), box())


def test_an_exact_name_wins_over_a_prefix(save, source):
    for name in ("a", "mask_a"):
        save(f"images/{name}.png")
    save("masks/mask_a.png", "mask")
    save("masks/a.png", "empty")
    cases, faults = scan(source, "folders")
    assert not faults and {case.image.name: case.masks[0].name for case in cases} == {
        "a.png": "a.png", "mask_a.png": "mask_a.png"
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="names are compared by the system")
def test_an_accent_in_another_form_is_the_same_name(save, source):
    name = "é"
    save(f"images/{unicodedata.normalize('NFC', name)}.png")
    save(f"masks/{unicodedata.normalize('NFD', name)}.png", "mask")
    cases, faults = scan(source, "folders")
    assert not faults and len(cases[0].masks) == 1


def test_what_is_not_recognised_is_told_with_what_was_found(source):
    (source / "notes").mkdir(parents=True)
    (source / "notes" / "a.txt").write_text("x")
    with pytest.raises(MGCCError, match="it has folders notes and files 1 .txt; arrange it as one of") as error:
        find_layout(source)
    for name in ("BUS-BRA", "BUS-UCLM", "DDTI", "STU-Hospital", "TN3K", "BrEaST", "UDIAT", "COCO", "LabelMe", "BUSI"):
        assert name in str(error.value)


def zipped(path: Path, source: Path, extra: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(source.rglob("*.*")):
            archive.write(file, f"set/{file.relative_to(source).as_posix()}")
        if extra:
            archive.writestr(extra, b"x")
    return path


def test_a_zip_is_read_as_its_folder(save, source, tmp_path):
    for number in range(20):
        save(f"original/{number:06d}.png")
        save(f"GT/{number:06d}.png", "mask")
    folder, packed = tmp_path / "from_folder", tmp_path / "from_zip"
    hashes = [prepare(str(source), str(folder), name="set")["hash"]]
    hashes.append(prepare(str(zipped(tmp_path / "set.zip", source)), str(packed), name="set")["hash"])
    assert hashes[0] == hashes[1]
    assert {path.name for path in tmp_path.iterdir()} == {"source", "set.zip", "from_folder", "from_zip"}


@pytest.mark.parametrize("name", ["../out.png", "/out.png", "C:\\out.png", "a/../../out.png"])
def test_a_zip_with_an_unsafe_path_is_refused_and_nothing_is_written(save, source, tmp_path, name):
    save("original/1.png")
    (tmp_path / "deep").mkdir()
    path = zipped(tmp_path / "deep" / "set.zip", source, name)
    with pytest.raises(MGCCError, match="would be unpacked outside its folder"):
        prepare(str(path), str(tmp_path / "new" / "out"))
    assert not (tmp_path / "new").exists() and not list(tmp_path.rglob("out.png"))


def test_a_damaged_zip_is_refused(tmp_path):
    (tmp_path / "set.zip").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(MGCCError, match="set.zip: cannot be unpacked"):
        prepare(str(tmp_path / "set.zip"), str(tmp_path / "out"))
