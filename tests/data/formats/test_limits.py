"""Sides too small for what is done with an image are refused before any work, and the smallest that are not, work."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.formats.limits import MAX_ASPECT, MIN_SIDE, wrong_sides
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.preflight.segmentation import check_items

VANISHING = [(1, 1), (1, 40), (40, 1), (2, 64), (3, 2000), (320, 10)]
SMALLEST = [(2, 2), (2, 62), (62, 2), (3, 5)]


def test_the_limits_are_named() -> None:
    assert (MIN_SIDE, MAX_ASPECT) == (2, 31)
    assert [shape for shape in [*VANISHING, *SMALLEST] if wrong_sides(shape)] == VANISHING


@pytest.mark.parametrize("shape", VANISHING, ids=str)
def test_prepare_refuses_them(busi_tree, tmp_path, shape) -> None:
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape).astype(np.uint8)
    for end in ("", "_mask"):
        Image.fromarray(pixels % 2 if end else pixels).save(busi_tree / "benign" / f"benign (1){end}.png")
    (tmp_path / "more").mkdir()
    Image.fromarray(pixels).save(tmp_path / "more" / "u.png")
    with pytest.raises(MGCCError) as error:
        prepare(str(busi_tree), str(tmp_path / "out"), unlabeled=str(tmp_path / "more"))
    for name in ("benign (1).png", "u.png"):
        assert f"{name}: {shape[1]} x {shape[0]} pixels" in str(error.value)
    assert "2 faults" in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("crop", ["3,4,1,1", "0,0,1,60", "0,0,80,1", "0,0,80,2"])
def test_a_crop_of_nothing_much_is_refused(busi_tree, tmp_path, crop) -> None:
    with pytest.raises(MGCCError, match="33 faults"):
        prepare(str(busi_tree), str(tmp_path / "out"), crop=crop)
    path = busi_tree / "benign" / "benign (1).png"
    (fault,) = check_items([{"image": path}], crop)
    assert fault.startswith(f"{path}: {' x '.join(crop.split(',')[2:])} pixels")


@pytest.mark.parametrize("shape", [*VANISHING, *SMALLEST], ids=str)
def test_check_finds_them_in_a_dataset(plant, shape) -> None:
    pixels = np.random.default_rng(0).integers(60, 200, shape, dtype=np.uint8)
    for number in (0, 8):  # one with a label, one without
        plant.save(f"images/{number}.png", pixels)
    mask = np.zeros(shape, np.uint8)
    mask[: max(shape[0] // 2, 1), : max(shape[1] // 2, 1)] = 255
    plant.save("labels/0.png", mask)
    report = check_dataset(plant.write(), near_copies=False)
    found = [finding.file for finding in report.faults if finding.check == "vanishing-side"]
    wanted = [str(plant.folder / f"images/{number}.png") for number in (0, 8)]
    assert sorted(found) == (wanted if shape in VANISHING else [])
