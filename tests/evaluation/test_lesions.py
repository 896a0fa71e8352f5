"""The table of lesions against rectangles whose place is known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    CopyItemsd,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Resized,
    ScaleIntensityRanged,
)
from PIL import Image

from mgcc_monai.evaluation.lesions import COLUMNS, LesionTableHandler, lesion_rows, measure_lesions


class Bright(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 40 * (x - 0.5)


def picture(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """60 rows, 80 columns, white boxes given as x, y, width, height."""
    image = np.zeros((60, 80), dtype=np.uint8)
    for x, y, width, height in boxes:
        image[y : y + height, x : x + width] = 255
    return image


def test_two_lesions_by_hand() -> None:
    prob = np.where(picture((50, 10, 20, 5), (2, 40, 3, 4)) > 0, 0.8, 0.1)
    prob[40, 2] = 0.6
    first, second = measure_lesions(prob >= 0.5, (0.5, 0.2), prob)
    expected = {"lesion": 1, "area_pixels": 100, "area_fraction": 100 / 4800, "x": 50, "y": 10}
    assert first == pytest.approx(
        expected | {"box_width": 20, "box_height": 5, "mean_probability": 0.8, "area_mm2": 10}
    )
    assert (second["lesion"], second["x"], second["y"], second["box_width"], second["box_height"]) == (2, 2, 40, 3, 4)
    assert second["mean_probability"] == pytest.approx((11 * 0.8 + 0.6) / 12)
    assert second["area_mm2"] == pytest.approx(1.2)


def test_areas_add_up_on_random_masks() -> None:
    mask = np.random.default_rng(0).random((31, 17)) < 0.4
    lesions = measure_lesions(mask)
    assert sum(lesion["area_pixels"] for lesion in lesions) == mask.sum()
    assert [lesion["area_pixels"] for lesion in lesions] == sorted((x["area_pixels"] for x in lesions), reverse=True)
    assert all(np.isnan(lesion["area_mm2"]) and np.isnan(lesion["mean_probability"]) for lesion in lesions)


def test_an_empty_mask_has_one_row_with_none() -> None:
    (row,) = lesion_rows("a.png", np.zeros((60, 80), dtype=bool))
    assert (row["lesions"], row["lesion"], row["area_pixels"], row["width"], row["height"]) == (0, 0, 0, 80, 60)
    assert measure_lesions(np.zeros((3, 3))) == []


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="HW"):
        measure_lesions(np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match="HW"):
        measure_lesions(np.zeros((3, 3)), prob=np.zeros((3, 4)))


BOXES = {"b": [(50, 10, 20, 5)], "a": [], "c": [(10, 30, 10, 20), (40, 5, 30, 10)]}


def infer(folder: Path, handlers: list, discrete: bool, spacing: list[float] | None = None) -> None:
    items = []
    for name, boxes in BOXES.items():
        Image.fromarray(picture(*boxes)).save(folder / f"{name}.png")
        items.append({"image": str(folder / f"{name}.png")} | ({"spacing": spacing} if spacing else {}))
    pre = Compose(
        [
            LoadImaged("image", reader="PILReader"),
            EnsureChannelFirstd("image"),
            ScaleIntensityRanged("image", 0, 255, 0, 1),
            Resized("image", (64, 64)),
        ]
    )
    post = [Activationsd("pred", sigmoid=True), Invertd("pred", pre, orig_keys="image", nearest_interp=False)]
    if discrete:
        post += [CopyItemsd("pred", names="prob"), AsDiscreted("pred", threshold=0.5)]
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(items, pre), batch_size=2),
        Bright(),
        postprocessing=Compose(post),
        val_handlers=handlers,
    ).run()


@pytest.mark.parametrize("discrete", [True, False])
def test_the_csv_is_in_the_axes_of_the_file(tmp_path: Path, discrete: bool) -> None:
    handler = LesionTableHandler(str(tmp_path / "out"), data_root_dir=str(tmp_path))
    infer(tmp_path, [handler], discrete, spacing=[0.5, 0.2])
    with (tmp_path / "out" / "lesions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["image"], row["lesions"], row["lesion"]) for row in rows] == [
        ("a.png", "0", "0"),
        ("b.png", "1", "1"),
        ("c.png", "2", "1"),
        ("c.png", "2", "2"),
    ]
    assert {(row["width"], row["height"]) for row in rows} == {("80", "60")}
    assert (rows[0]["area_pixels"], rows[0]["x"], rows[0]["mean_probability"]) == ("0", "", "")
    found = sorted(rows[1:], key=lambda row: (row["image"], int(row["x"])))
    for row, box in zip(found, [box for name in "bc" for box in BOXES[name]], strict=True):
        place = [int(row[key]) for key in ("x", "y", "box_width", "box_height")]
        assert place == pytest.approx(list(box), abs=2)  # the edges blur on the way through 64 by 64
        assert float(row["area_mm2"]) == pytest.approx(int(row["area_pixels"]) * 0.1)
        assert 0.9 < float(row["mean_probability"]) <= 1


def test_a_mask_alone_has_no_probability(tmp_path: Path) -> None:
    handler = LesionTableHandler(str(tmp_path), filename="table.csv", prob_key="")
    infer(tmp_path, [handler], discrete=True)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean_probability"] for row in rows] == [""] * 4
    assert [row["area_mm2"] for row in rows] == [""] * 4
