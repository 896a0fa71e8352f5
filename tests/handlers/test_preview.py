"""Laws of the sheets: the right pictures in the right places, and a training that does not feel them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import nn

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import ReconstructionPreview, SamplePreview
from mgcc_monai.pictures import write_sheet

SIDE = 8


def tiles(path: Path, columns: int) -> list[np.ndarray]:
    """The pictures on a sheet, row by row, found by its size: all as large as each other, with a gap between."""
    with Image.open(path) as file:
        sheet = np.asarray(file.convert("L"))
    step = [k for k in range(SIDE, 2 * SIDE) if (sheet.shape[1] - (k - SIDE)) == columns * k]
    assert len(step) == 1, sheet.shape
    gap = step[0] - SIDE
    rows = (sheet.shape[0] - gap) // step[0]
    corners = [(gap + r * step[0], gap + c * step[0]) for r in range(rows) for c in range(columns)]
    return [sheet[top : top + SIDE, left : left + SIDE] for top, left in corners]


def flat_image(grey: float) -> torch.Tensor:
    return torch.full((1, SIDE, SIDE), grey)


def test_sheet_holds_the_images_row_by_row(tmp_path):
    images = torch.rand(6, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    write_sheet(tmp_path / "new" / "sheet.png", images, 3)
    found = tiles(tmp_path / "new" / "sheet.png", 3)
    assert len(found) == 6
    for image, tile in zip(images, found):
        np.testing.assert_array_equal(tile, np.round(image[0].numpy() * 255).astype(np.uint8))


def test_values_beyond_the_range_are_cut_and_not_wrapped(tmp_path):
    write_sheet(tmp_path / "sheet.png", torch.stack([flat_image(-0.5), flat_image(1.5), flat_image(0.5)]), 3)
    assert [int(tile[4, 4]) for tile in tiles(tmp_path / "sheet.png", 3)] == [0, 255, 128]


class Halver(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image / 2


def evaluator(values: list[float], *handlers: Any) -> SupervisedEvaluator:
    data = [{"image": flat_image(value), "label": flat_image(value)} for value in values]
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=2),
        network=Halver(),
        val_handlers=list(handlers),
    )


def grey(value: float) -> int:
    """Of an image in [-1, 1], as a byte."""
    return int(np.round((value + 1) / 2 * 255))


@pytest.mark.parametrize("count, shown", [(3, 3), (8, 5)])
def test_reconstructions_stand_below_their_images(count, shown, tmp_path):
    values = [-1.0, -0.6, 0.0, 0.4, 0.8]
    engine = evaluator(values, ReconstructionPreview(str(tmp_path), count))
    engine.run(3)
    assert [path.name for path in tmp_path.iterdir()] == ["epoch_0003.png"]
    found = [int(tile[4, 4]) for tile in tiles(tmp_path / "epoch_0003.png", shown)]
    assert found == [*map(grey, values[:shown]), *(grey(value / 2) for value in values[:shown])]


def test_each_validation_has_a_sheet_of_its_own_images(tmp_path):
    engine = evaluator([0.2, 0.4], ReconstructionPreview(str(tmp_path), 2))
    engine.run(1)
    engine.network = nn.Identity()
    engine.run(2)
    first, second = (tiles(tmp_path / f"epoch_000{epoch}.png", 2) for epoch in (1, 2))
    assert int(first[2][0, 0]) == grey(0.1) and int(second[2][0, 0]) == grey(0.2)
    assert len(first) == len(second) == 4


class Pipeline:
    """Stands in for the pipeline: sample i is a flat picture of (seed, i); it may use the global generators."""

    def __init__(self, careless: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.careless = careless

    def __call__(self, **options: Any) -> torch.Tensor:
        self.calls.append(options)
        if self.careless:
            torch.rand(3), np.random.rand(3), random.random()
        return torch.stack([flat_image((options["seed"] + index) / 20) for index in options["indices"]])


def validation(epoch: int) -> Engine:
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch = epoch
    return engine


def states() -> list[Any]:
    return [torch.random.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]


def test_samples_of_every_validation_are_the_same_few(tmp_path):
    pipeline = Pipeline()
    preview = SamplePreview(str(tmp_path), pipeline, count=10, seed=7, num_inference_steps=3)
    engine = evaluator([0.1], preview)
    engine.run(1)
    engine.run(2)
    assert pipeline.calls == 2 * [{"indices": list(range(10)), "seed": 7, "num_inference_steps": 3}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    found = tiles(tmp_path / "epoch_0001.png", 8)
    assert [int(tile[4, 4]) for tile in found[:10]] == [int(np.round((7 + i) / 20 * 255)) for i in range(10)]


def test_global_generators_are_not_touched(tmp_path):
    preview = SamplePreview(str(tmp_path), Pipeline(), count=2)
    before = states()
    preview(validation(1))
    assert states() == before
    SamplePreview(str(tmp_path), Pipeline(careless=True), count=2)(validation(2))
    assert states() != before, "the test would see it"


def test_interval_and_none_at_all(tmp_path):
    pipeline = Pipeline()
    for epoch in range(1, 8):
        SamplePreview(str(tmp_path), pipeline, count=1, interval=3)(validation(epoch))
        SamplePreview(str(tmp_path), pipeline, count=0)(validation(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch_0003.png", "epoch_0006.png"]
    assert len(pipeline.calls) == 2


def test_only_the_main_process_draws(tmp_path, monkeypatch):
    pipeline = Pipeline()
    monkeypatch.setattr("mgcc_monai.handlers.preview.is_main_process", lambda: False)
    SamplePreview(str(tmp_path), pipeline, count=1)(validation(1))
    evaluator([0.1], ReconstructionPreview(str(tmp_path), 1)).run(1)
    assert list(tmp_path.iterdir()) == [] and pipeline.calls == []


def test_unwritable_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MGCCError, match="cannot be written"):
        SamplePreview(str(tmp_path / "file"), Pipeline(), count=1)(validation(1))
