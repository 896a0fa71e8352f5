"""Contours where they belong, pictures in the axes of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.overlays import OverlayHandler
from mgcc_monai.pictures import LABEL_COLOUR, PRED_COLOUR, contact_sheet, overlay


def painted(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == colour).all(axis=-1)


def box(top: int, left: int, height: int, width: int, shape: tuple[int, int] = (60, 80)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_contours_inside_and_outside() -> None:
    image, mask = np.full((60, 80), 90, dtype=np.uint8), box(10, 20, 8, 30)
    picture = overlay(image, mask, mask)
    inner, outer = painted(picture, PRED_COLOUR), painted(picture, LABEL_COLOUR)
    assert np.array_equal(inner, mask & ~box(11, 21, 6, 28))
    assert np.array_equal(outer, box(9, 19, 10, 32) & ~mask)
    assert (picture[~inner & ~outer] == 90).all()


def test_borders_specks_and_nothing() -> None:
    image = np.zeros((60, 80), dtype=np.uint8)
    assert painted(overlay(image, np.ones((60, 80))), PRED_COLOUR).sum() == 2 * 80 + 2 * 58
    assert painted(overlay(image, box(59, 79, 1, 1)), PRED_COLOUR).sum() == 1
    assert not painted(overlay(image, image), PRED_COLOUR).any()


def test_lines_grow_with_the_image() -> None:
    shape = (512, 768)
    picture = overlay(np.zeros(shape, dtype=np.uint8), box(100, 100, 100, 100, shape))
    assert painted(picture, PRED_COLOUR)[150].sum() == 2 * 3


def test_wrong_arrays_are_refused() -> None:
    grey = np.zeros((4, 5), dtype=np.uint8)
    for image, mask in ((grey.astype(float), grey), (grey, grey.T), (grey[None], grey)):
        with pytest.raises(ValueError, match="HW uint8"):
            overlay(image, mask)


def test_contact_sheet() -> None:
    images = [np.full((10 + i, 20 - i), 50 + i, dtype=np.uint8) for i in range(5)]
    images[3] = np.repeat(images[3][..., None], 3, axis=2)
    sheet = contact_sheet(images, columns=2, gap=3)
    assert sheet.shape == (3 * 14 + 4 * 3, 2 * 20 + 3 * 3, 3)
    assert sheet.dtype == np.uint8
    assert [sheet[3, 3, 0], sheet[3, 26, 0], sheet[20, 3, 0], sheet[20, 26, 0], sheet[37, 3, 0]] == [50, 51, 52, 53, 54]
    assert sheet[37, 26, 0] == 32  # the cell that is left over
    assert contact_sheet(images[:1], columns=4, gap=0).shape == (10, 20, 3)
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([])


class Fixed(torch.nn.Module):
    """Says the same of every image."""

    def __init__(self, pred: torch.Tensor) -> None:
        super().__init__()
        self.pred = pred

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pred.expand(len(x), *self.pred.shape)


def run(handler: OverlayHandler, files: list[Path], pred: torch.Tensor) -> None:
    """Let an evaluator say ``pred``, an array (1, x, y), of every file; the label is the same."""
    items = [
        {"image": MetaTensor(torch.rand(1, 32, 32), meta={"filename_or_obj": str(f)}), "label": pred} for f in files
    ]
    loader = DataLoader(Dataset(items), batch_size=2)
    SupervisedEvaluator(torch.device("cpu"), loader, Fixed(pred), val_handlers=[handler]).run()


def draw(folder: Path, handler: OverlayHandler, size: tuple[int, int] = (80, 60)) -> None:
    """Three files of 60 rows and 80 columns; a box at x 50, y 10 is predicted in an array of the given (x, y) size."""
    files = [folder / "data" / f"{name}.png" for name in ("one", "two", "deep/one")]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 80), 77, dtype=np.uint8)).save(path)
    pred = torch.zeros(1, *size)
    pred[:, 50:70, 10:15] = 1
    run(handler, files, pred)


def test_pictures_are_in_the_axes_of_the_file(tmp_path: Path) -> None:
    draw(tmp_path, OverlayHandler(str(tmp_path / "out"), data_root_dir=str(tmp_path / "data")))
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["deep/one_overlay.png", "one_overlay.png", "two_overlay.png"]
    with Image.open(tmp_path / "out" / "one_overlay.png") as image:
        picture = np.asarray(image)
    assert picture.shape == (60, 80, 3)
    assert np.array_equal(painted(picture, PRED_COLOUR), box(10, 50, 5, 20) & ~box(11, 51, 3, 18))
    assert picture[0, 0].tolist() == [77, 77, 77]  # the grey of the file, not of the network's input


def test_limit_and_names(tmp_path: Path) -> None:
    draw(tmp_path, OverlayHandler(str(tmp_path / "out"), postfix="", limit=2))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]


def test_two_images_never_share_a_picture(tmp_path: Path) -> None:
    with pytest.raises(MGCCError, match="would share it; set data_root_dir"):
        draw(tmp_path, OverlayHandler(str(tmp_path / "out")))


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MGCCError, match="'pred' is 90x20, unlike the image"):
        draw(tmp_path, OverlayHandler(str(tmp_path / "out")), size=(90, 20))


def test_sixteen_bits_and_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    ramp = np.tile(np.linspace(0, 40000, 80, dtype=np.uint16), (60, 1))
    Image.fromarray(ramp).save(path)
    pred = torch.zeros(1, 80, 60)
    pred[:, 20:40, 20:40] = 1
    run(OverlayHandler(str(tmp_path / "out"), label_key="label"), [path], pred)
    with Image.open(tmp_path / "out" / "deep_overlay.png") as written:
        picture = np.asarray(written)
    assert picture[0, 0, 0] == 0
    assert picture[0, 79, 0] == 255
    assert painted(picture, LABEL_COLOUR).any()
    assert painted(picture, PRED_COLOUR).any()


def test_without_a_file_the_image_in_hand_is_drawn(tmp_path: Path) -> None:
    run(OverlayHandler(str(tmp_path / "out")), [tmp_path / "gone.png"], torch.zeros(1, 32, 32))
    with Image.open(tmp_path / "out" / "gone_overlay.png") as written:
        picture = np.asarray(written)
    assert (picture.shape, picture.min(), picture.max()) == ((32, 32, 3), 0, 255)
