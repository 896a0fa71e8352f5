from __future__ import annotations

import pytest

from mgcc_monai.data.layouts.folders import is_folders, read_patients, scan_folders


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _found(source):
    cases, faults = scan_folders(source)
    return {c.original: (c.class_name, [m.relative_to(source).as_posix() for m in c.masks]) for c in cases}, faults


def test_masks_are_matched_by_stem_and_postfix(tmp_path):
    images = [f"images/{n}" for n in ("a.jpg", "b.nii.gz", "c.png", "d.png", "e.PNG", "x_1.png")]
    masks = ["masks/a.png", "masks/b_seg.nii.gz", "masks/c_mask.png", "masks/c_mask_1.png"]
    _touch(tmp_path, *images, *masks, "labels/d_segmentation.png", "labels/e_label.bmp", "masks/x_1.png")
    assert _found(tmp_path) == (
        {
            "images/a.jpg": ("lesion", ["masks/a.png"]),
            "images/b.nii.gz": ("lesion", ["masks/b_seg.nii.gz"]),
            "images/c.png": ("lesion", ["masks/c_mask.png", "masks/c_mask_1.png"]),
            "images/d.png": ("lesion", ["labels/d_segmentation.png"]),
            "images/e.PNG": ("lesion", ["labels/e_label.bmp"]),
            "images/x_1.png": ("lesion", ["masks/x_1.png"]),
        },
        [],
    )


def test_classes_come_from_folders_and_equal_names_stay_apart(tmp_path):
    _touch(tmp_path, "images/benign/1.png", "images/malignant/1.png", "images/normal/7.png", "images/benign/2.png")
    _touch(tmp_path, "masks/benign/1.png", "masks/malignant/1.png", "masks/2.png")
    assert _found(tmp_path) == (
        {
            "images/benign/1.png": ("benign", ["masks/benign/1.png"]),
            "images/benign/2.png": ("benign", ["masks/2.png"]),
            "images/malignant/1.png": ("malignant", ["masks/malignant/1.png"]),
            "images/normal/7.png": ("normal", []),
        },
        [],
    )


@pytest.mark.parametrize("table", ["classes.csv", "index.csv"])
def test_classes_come_from_a_table(tmp_path, table):
    _touch(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    (tmp_path / table).write_text("\ufeffimage, class ,other\na.png,benign,1\nb,malignant,2\n")
    found, faults = _found(tmp_path)
    assert not faults and [found[f"images/{n}.png"][0] for n in "ab"] == ["benign", "malignant"]


def test_every_fault_is_named_with_its_file(tmp_path):
    _touch(tmp_path, "images/a.png", "images/b.png", "images/v.avi", "masks/b.png", "masks/z_mask.png")
    _touch(tmp_path, "images/p/1.png", "images/q/1.png", "masks/1.png", "masks/p/1.png", "masks/q/1.png")
    _, faults = scan_folders(tmp_path)
    told = {"images/a.png: ": "without a mask", "images/v.avi: ": "a video", "masks/z_mask.png: ": "without an image"}
    told |= {"masks/1.png: ": "put it in a class folder", "images/a.png and 1 more: ": "beside class folders"}
    assert len(faults) == len(told)
    for name, what in told.items():
        assert any(fault.startswith(f"{tmp_path}/{name}") and what in fault for fault in faults), name


@pytest.mark.parametrize("names", [("Images", "MASKS"), ("IMAGES", "Labels"), ("images", "masks")])
def test_the_two_folders_may_be_in_capitals(tmp_path, names):
    _touch(tmp_path, f"{names[0]}/a.PNG", f"{names[1]}/a_mask.Png")
    assert is_folders(tmp_path)
    assert _found(tmp_path) == ({f"{names[0]}/a.PNG": ("lesion", [f"{names[1]}/a_mask.Png"])}, [])


def test_two_folders_of_images_are_refused(tmp_path):
    _touch(tmp_path, "images/a.png", "Images/b.png", "masks/a.png", "masks/b.png")
    if len(list(tmp_path.iterdir())) == 3:  # not on a file system that takes the two for one
        assert "put all images in one" in _found(tmp_path)[1][0]


def test_a_table_of_classes_counts_as_not_read_where_folders_tell_them(tmp_path, caplog):
    for name in ("images/a.png", "images/benign/b.png"):
        source = tmp_path / name.split("/")[1]
        _touch(source, name, name.replace("images", "masks"), "patients.csv", "README.md", "notes.txt")
        (source / "classes.csv").write_text("image,class\na,benign\n")
        caplog.clear()
        cases, faults = scan_folders(source, [source / "patients.csv"])
        assert not faults and [case.class_name for case in cases] == ["benign"]
        told = "1 file not read: 1 .txt" if "benign" not in name else "2 files not read: 1 .csv, 1 .txt"
        assert [record.getMessage() for record in caplog.records] == [f"{source}: {told}"]


ORIGINALS = ["benign/a (1).png", "benign/b.png", "malignant/b.png"]


def test_patients_may_be_given_by_path_name_or_stem(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("patient,image\n1,a (1)\n1,benign\\b.png\n2,malignant/b.png\n3,unlabeled/u.png\n")
    patients, faults = read_patients(path, ORIGINALS, ["unlabeled/u.png", "unlabeled/w.png"])
    assert not faults
    assert patients == dict(zip([*ORIGINALS, "unlabeled/u.png"], "1123", strict=True))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image,person\na,1\n", ["no column patient"]),
        ("", ["no column image, patient"]),
        ("image,patient\na (1).png,1\nb.png,1\n", ["b.png fits", "no row for image benign/b.png", "malignant/b.png;"]),
        ("image,patient\na (1),1\nbenign/b.png,\nmalignant/b.png,2\n", ["row 3: patient is empty"]),
        ("image,patient\na (1),1\na (1).png,2\nbenign/b.png,1\nmalignant/b.png,2\n", ["two values of patient"]),
        ("image,patient\na (1),1\nbenign/b.png,1\nmalignant/b.png,2\nc.png,4\n", ["c.png is not among the images"]),
    ],
)
def test_faults_of_a_patient_table(tmp_path, text, told):
    path = tmp_path / "p.csv"
    path.write_text(text)
    _, faults = read_patients(path, ORIGINALS)
    assert all(str(path) in fault for fault in faults)
    assert all(any(what in fault for fault in faults) for what in told) and len(faults) == len(told)


@pytest.mark.parametrize("name", ["normal", "Normal", "NORMAL", "nOrmal", " Normal "])
@pytest.mark.parametrize("told", ["by folder", "by table"])
def test_normal_is_normal_in_any_capitals(tmp_path, name, told):
    """It needs no mask, and is called ``normal`` from here on; other classes keep their names."""
    folder, other = (f"{name.strip()}/", "Benign/") if told == "by folder" else ("", "")
    _touch(tmp_path, f"images/{folder}1.png", f"images/{other}2.png", "masks/2.png")
    if not folder:
        (tmp_path / "classes.csv").write_text(f"image,class\n1.png,{name}\n2.png,Benign\n")
    found, faults = _found(tmp_path)
    assert not faults and found[f"images/{folder}1.png"] == ("normal", [])
    assert found[f"images/{other}2.png"][0] == "Benign"
