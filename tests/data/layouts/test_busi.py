from __future__ import annotations

from collections import Counter

import pytest
from PIL import Image

from mgcc_monai.data.layouts.busi import is_busi, scan_busi
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError


def _touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("inner", ["", "Dataset_BUSI_with_GT/"])
def test_masks_go_to_their_image_and_the_folder_is_the_class(tmp_path, inner):
    masks = ["benign (1)_mask.png", "benign (1)_mask_1.png", "benign (1)_mask_2.png"]
    names = ["benign/" + n for n in ["benign (1).png", *masks, "benign (10).png", "benign (10)_mask.png"]]
    _touch(
        tmp_path, *(inner + n for n in names), inner + "odd/a.jpg", inner + "odd/a_mask.png", inner + "odd/notes.txt"
    )
    assert is_busi(tmp_path)
    cases, faults = scan_busi(tmp_path)
    assert not faults
    found = {c.original.removeprefix(inner): (c.class_name, [m.name for m in c.masks]) for c in cases}
    assert found == {
        "benign/benign (1).png": ("benign", masks),
        "benign/benign (10).png": ("benign", ["benign (10)_mask.png"]),
        "odd/a.jpg": ("odd", ["a_mask.png"]),
    }


def test_every_fault_of_the_tree_is_named(tmp_path):
    _touch(tmp_path, "b/b (1).png", "b/b (2)_mask.png", "b/b (2)_mask_1.png", "b/b (3).mp4", "b/c.png", "b/c.jpg")
    _touch(tmp_path, "b/c_mask.png")
    _, faults = scan_busi(tmp_path)
    told = {"b (1).png": "without a mask", "b (2)_mask.png": "without an image", "b (2)_mask_1.png": "without an image"}
    told |= {"b (3).mp4": "a video", "c.png": "keep one"}
    assert len(faults) == len(told)
    for name, what in told.items():
        assert any(fault.startswith(f"{tmp_path / 'b' / name}: ") and what in fault for fault in faults), name


def test_plain_folders_are_no_busi_tree(tmp_path):
    _touch(tmp_path, "images/a.png", "masks/a.png")
    assert not is_busi(tmp_path)


def test_the_files_as_distributed(shared):
    source = shared("data/busi_original_sample")
    cases, faults = scan_busi(source)
    assert not faults and Counter(c.class_name for c in cases) == {"benign": 70, "malignant": 40, "normal": 20}
    assert sum(len(c.masks) for c in cases) == 86 + 41 + 20


@pytest.mark.parametrize("name", ["Normal", "NORMAL"])
def test_normal_is_normal_in_any_capitals(busi_tree, tmp_path, name):
    (busi_tree / "normal").rename(busi_tree / name)
    cases, faults = scan_busi(busi_tree)
    assert not faults and Counter(c.class_name for c in cases) == {"benign": 20, "malignant": 10, "normal": 3}
    image = next((busi_tree / name).glob("*_mask.png"))
    Image.new("1", (80, 60), 1).save(image)
    with pytest.raises(MGCCError, match="of class normal, but its mask is not empty"):
        prepare(str(busi_tree), str(tmp_path / "out"))
