"""Each public layout as distributed: counts of images, classes and patients, and a mask read independently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from layout_sources import CORNERS, box, inside, mask_of, scan

from mgcc_monai.data.cases import read_case
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.describe import describe
from mgcc_monai.data.layouts import find_layout
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError


def busbra(save, source: Path) -> None:
    rows = ["ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"]
    for name, case, pathology in (("0001-l", 1, "benign"), ("0001-r", 1, "benign"), ("0002-s", 2, "malignant")):
        save(f"Images/bus_{name}.png")
        save(f"Masks/mask_{name}.png", "mask")
        rows.append(f'bus_{name},{case},cyst,{pathology},3,GE Logiq 7 @10-14MHz,80,60,left,"[20,10,30,20]"')
    (source / "bus_data.csv").write_text("\n".join(rows) + "\n")


def test_busbra(save, source):
    busbra(save, source)
    cases, faults = scan(source, "busbra")
    assert not faults and len(cases) == 3
    assert Counter(case.class_name for case in cases) == {"benign": 2, "malignant": 1}
    assert [case.patient for case in cases] == ["1", "1", "2"]
    assert cases[0].details == {"device": "GE Logiq 7 @10-14MHz", "birads": "3"}
    assert np.array_equal(mask_of(cases[0]), box())


def test_busbra_without_its_table_or_with_gaps_is_refused(save, source):
    busbra(save, source)
    (source / "Masks" / "mask_0001-r.png").unlink()
    save("Images/bus_0009-l.png")
    _, faults = scan(source, "busbra")
    assert any("bus_0001-r.png: an image without a mask" in fault for fault in faults)
    assert any("bus_0009-l.png: no row in bus_data.csv" in fault for fault in faults)
    (source / "bus_data.csv").unlink()
    _, faults = scan(source, "busbra")
    assert any("bus_data.csv: no such file" in fault for fault in faults)


def busuclm(save, source: Path, colour=(0, 255, 0)) -> None:
    rows = ["Image;Resolution;Label;Doppler;Marks;Combined"]
    for name, label, doppler in (
        ("ALWI_000", "Benign", "No"),
        ("ALWI_001", "Normal", "No"),
        ("BEPO_000", "Malignant", "Yes"),
    ):
        save(f"images/{name}.png")
        save(f"masks/{name}.png", *(("empty",) if label == "Normal" else ("colour", colour)))
        rows.append(f"{name}.png;80x60;{label};{doppler};No;No")
    (source / "INFO.csv").write_text("\ufeff" + "\n".join(rows) + "\n", encoding="utf-8")


def test_busuclm_with_and_without_doppler(save, source, caplog):
    busuclm(save, source)
    cases, faults = scan(source, "busuclm")
    assert not faults and [case.class_name for case in cases] == ["benign", "normal"]
    assert "1 Doppler images left out" in caplog.text
    assert np.array_equal(mask_of(cases[0]), box()) and not mask_of(cases[1]).any()
    cases, faults = find_layout(source, "busuclm_doppler").scan(source, ())
    assert not faults and [case.patient for case in cases] == ["ALWI", "ALWI", "BEPO"]


def test_a_colour_that_is_not_in_the_legend_is_refused(save, source):
    busuclm(save, source, colour=(0, 0, 255))
    (case, *_), _ = scan(source, "busuclm")
    entry, faults = read_case(case)
    assert entry is None and len(faults) == 1 and "rgb(0,0,255) is no colour of BUS-UCLM" in faults[0]


def ddti(save, source: Path, points: list[tuple[int, int]], tirads: str = "4a") -> None:
    save("7_1.jpg")
    save("7_2.jpg")
    svg = json.dumps([{"points": [{"x": x, "y": y} for x, y in points], "regionType": "freehand"}])
    (source / "7.xml").write_text(
        f"<case><number>7</number><tirads>{tirads}</tirads><mark><image>1</image><svg>{svg}</svg></mark></case>"
    )


def test_ddti(save, source):
    star = [(20, 9.5), (50.5, 20.5), (25.5, 22.5), (40.5, 40.5), (10.5, 31.5)]
    ddti(save, source, star)
    cases, faults = scan(source, "ddti")
    assert not faults and [(case.original, case.labelled) for case in cases] == [("7_1.jpg", True), ("7_2.jpg", False)]
    assert {case.patient for case in cases} == {"7"} and cases[0].class_name == "suspicious"
    assert np.array_equal(mask_of(cases[0]), inside(star))


@pytest.mark.parametrize(("tirads", "name"), [("2", "benign"), ("3", "benign"), ("5", "suspicious"), ("", "unknown")])
def test_ddti_classes(save, source, tirads, name):
    ddti(save, source, CORNERS, tirads)
    assert scan(source, "ddti")[0][0].class_name == name


@pytest.mark.parametrize(
    ("points", "told"), [(CORNERS[:2], "has 2 points"), ([*CORNERS[:3], (90, 20)], "reaches x 20 to 90")]
)
def test_an_outline_that_cannot_be_drawn_is_refused(save, source, points, told):
    ddti(save, source, points)
    entry, faults = read_case(scan(source, "ddti")[0][0])
    assert entry is None and len(faults) == 1 and told in faults[0]


def test_a_measured_line_beside_an_outline_is_left_out_and_told(save, source, caplog):
    ddti(save, source, CORNERS)
    text = (source / "7.xml").read_text()
    line = json.dumps({"points": [{"x": 1, "y": 2}, {"x": 70, "y": 50}]})
    (source / "7.xml").write_text(text.replace("<svg>[", f"<svg>[{line}, "))
    cases, faults = scan(source, "ddti")
    assert not faults and "7.xml: 1 lines beside the outlines of image 1 left out" in caplog.text
    assert np.array_equal(mask_of(cases[0]), inside(CORNERS))


def test_ddti_with_an_image_missing_is_refused_and_an_outline_cut_off_is_told(save, source, caplog):
    ddti(save, source, CORNERS)
    text = (source / "7.xml").read_text()
    (source / "7.xml").write_text(text.replace("}]</svg>", "</svg>"))
    cases, faults = scan(source, "ddti")
    assert not faults and not any(case.labelled for case in cases) and "image 1 are cut off" in caplog.text
    (source / "7.xml").write_text(text)
    (source / "7_1.jpg").unlink()
    assert any("7.xml: outlines image 1, but there is no 7_1.jpg" in fault for fault in scan(source, "ddti")[1])


def test_stu(save, source):
    for number in (1, 2):
        save(f"Test_Image_{number}.png")
        save(f"mask_{number}.png", "mask")
    cases, faults = scan(source, "stu")
    assert not faults and len(cases) == 2 and np.array_equal(mask_of(cases[1]), box())
    (source / "mask_2.png").unlink()
    assert "Test_Image_2.png: without its mask" in scan(source, "stu")[1][0]


def test_breast_other_regions_are_no_lesions(save, source):
    save("case001.png")
    save("case001_tumor.png", "mask")
    save("case001_other1.png", "mask")
    save("case002.png")
    cases, faults = scan(source, "breast")
    assert not faults and [case.class_name for case in cases] == ["lesion", "normal"] and len(cases[0].masks) == 1
    table = "CaseID,Image_filename,Classification\n1,case001.png,malignant\n2,case002.png,benign\n"
    (source / "clinical.csv").write_text(table)
    cases, faults = scan(source, "breast")
    assert [case.class_name for case in cases] == ["malignant", "benign"]
    assert len(faults) == 1 and "case002.png: benign, but without a mask" in faults[0]


def test_udiat(save, source):
    for number in (1, 2):
        save(f"original/00000{number}.png")
        save(f"GT/00000{number}.png", "mask")
    cases, faults = scan(source, "udiat")
    assert not faults and len(cases) == 2 and np.array_equal(mask_of(cases[0]), box())


def test_tn3k_keeps_its_test_list_when_asked(save, source, tmp_path):
    pairs(save, "trainval-image", "trainval-mask", 24, "jpg")
    pairs(save, "test-image", "test-mask", 6, "jpg")
    cases, faults = scan(source, "tn3k")
    assert not faults and len(cases) == 30 and np.array_equal(mask_of(cases[0]), box())
    prepare(str(source), str(tmp_path / "kept"), keep_test=True)
    test = {item["original"] for item in load_datalist(tmp_path / "kept")["test"]}
    assert test == {f"test-image/{number:04d}.jpg" for number in range(6)}
    prepare(str(source), str(tmp_path / "drawn"))
    assert {item["original"] for item in load_datalist(tmp_path / "drawn")["test"]} != test


def pairs(save, images: str, masks: str, count: int, end: str = "png") -> None:
    for number in range(count):
        save(f"{images}/{number:04d}.{end}")
        save(f"{masks}/{number:04d}.{end}", "mask")


def tree(save) -> None:
    for part, count in (("train", 12), ("valid", 3), ("test", 4)):
        pairs(save, f"{part}/Images", f"{part}/Masks", count)


def test_a_training_image_that_is_a_copy_of_a_test_image_is_left_out_of_a_kept_split(save, source, tmp_path):
    tree(save)
    (source / "train/Images/0005.png").write_bytes((source / "test/Images/0001.png").read_bytes())
    prepare(str(source), str(tmp_path / "set"))
    datalist = load_datalist(tmp_path / "set")
    assert [item["original"] for item in datalist["left_out"]] == ["train/Images/0005.png"]
    assert len(datalist["training"]) == 11 and len(datalist["test"]) == 4


def test_a_tree_that_is_split_already_stays_so(save, source, tmp_path):
    wanted = {"train": "training", "valid": "validation", "test": "test"}
    tree(save)
    prepare(str(source), str(tmp_path / "set"))
    datalist = load_datalist(tmp_path / "set")
    for part, name in wanted.items():
        assert {item["original"].split("/")[0] for item in datalist[name]} == {part}
    assert [len(datalist[name]) for name in wanted.values()] == [12, 3, 4]
    assert "layout lists, protocol strict" in describe(str(tmp_path / "set"))
    with pytest.raises(MGCCError, match="--protocol published: .* keeps the split that it comes with"):
        prepare(str(source), str(tmp_path / "published"), protocol="published")


@pytest.mark.parametrize(("name", "images", "patients"), [("busbra_dev", 1234, 702), ("ddti_dev", 335, 279)])
def test_real_sets_as_distributed(shared, name, images, patients):
    folder = shared(f"data/{name}")
    layout = find_layout(folder)
    cases, faults = layout.scan(folder, ())
    assert not faults and len(cases) == images and len({case.patient for case in cases}) == patients
    assert f"{layout.name}_dev" == name
