"""A folder of DICOM through the bundle's inference: masks of the right size, areas in mm, and nothing of a header."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pydicom.examples
import pytest
import torch
from PIL import Image

from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.formats.images import read_image
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError
from mgcc_monai.networks import MGCC

CHANNELS = [2, 4, 6, 8, 10]


@pytest.fixture
def segment(run, tmp_path: Path):
    """``segment(folder, **options)``: masks of a small random network, and the rows of the table."""
    torch.manual_seed(0)
    torch.save(MGCC(1, 1, CHANNELS).state_dict(), tmp_path / "model.pt")

    def segment_folder(folder: Path, **options: object) -> tuple[dict[str, tuple[int, int]], list[dict[str, str]]]:
        output = tmp_path / "masks"
        settings = {"image_size": [32, 32], "network_def#channels": CHANNELS, "ckpt_path": str(tmp_path / "model.pt")}
        run("inferring", "inference.json", dataset_dir=str(folder), output_dir=str(output), **settings, **options)
        sizes = {path.name: Image.open(path).size[::-1] for path in sorted(output.glob("*.png"))}
        with (output / "lesions.csv").open() as file:
            return sizes, list(csv.DictReader(file))

    return segment_folder


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth noise, so that the network's answers differ."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height)))


def test_real_files_give_masks_of_their_size_one_a_frame(segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("rgb_color", "jpeg2k"):
        shutil.copy(pydicom.examples.get_path(name), folder / f"{name}.dcm")
    shutil.copy(pydicom.examples.get_path("palette_color"), folder / "1.2.840.113619.7")
    shutil.copy(pydicom.examples.get_path("ybr_color"), folder / "ybr.dcm")
    sizes, rows = segment(folder, threshold=0.0001)
    expected = {"rgb_color.png": (240, 320), "jpeg2k.png": (480, 640), "1.2.840.113619.7.png": (350, 800)}
    assert sizes == expected | {f"ybr_frame{number:04d}.png": (240, 320) for number in range(1, 31)}
    areas = {row["image"]: row["area_mm2"] for row in rows}
    assert len(areas) == 33 and not any(area for name, area in areas.items() if not name.startswith("1.2"))
    assert float(areas["1.2.840.113619.7.dcm"]) == pytest.approx(350 * 800 * 0.2622878766**2, rel=1e-6)


def test_no_name_comes_out_and_burned_in_text_is_cut_off(segment, tmp_path: Path, dicom_files) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    loop = np.stack([picture(seed) for seed in range(2)])
    region = dicom_files.region((10, 5, 59, 44), (0.02, 0.03))
    options = {"BurnedInAnnotation": "YES", "SequenceOfUltrasoundRegions": [region]}
    dicom_files.write_dicom(folder / "loop.dcm", loop, "RLE RGB", **options)
    with pytest.raises(MGCCError, match="burned in") as error:
        segment(folder)
    assert str(error.value).count("burned in") == 1 and "--crop region" in str(error.value)
    assert not list((tmp_path / "masks").glob("*.png"))
    settings = {"crop": "region", "save_overlay": True, "save_prob": True, "threshold": 0.0001}
    sizes, rows = segment(folder, **settings)
    names = [f"loop_frame000{number}{end}.png" for number in (1, 2) for end in ("", "_overlay", "_prob")]
    assert sizes == dict.fromkeys(names, (40, 50))
    assert [float(row["area_mm2"]) for row in rows] == pytest.approx([40 * 50 * 0.2 * 0.3] * 2)
    overlay = np.asarray(Image.open(tmp_path / "masks" / "loop_frame0002_overlay.png"))
    np.testing.assert_array_equal(overlay[2:-2, 2:-2, 0], loop[1][5:45, 10:60][2:-2, 2:-2])
    written = [path for path in (tmp_path / "masks").rglob("*") if path.is_file()]
    assert len(written) == 7
    for path in written:
        content = path.read_bytes()
        for word in (b"Secret", b"SECRET", b"Jane", b"19510203"):
            assert word not in content, path
        assert not (path.suffix == ".png" and (Image.open(path).getexif() or Image.open(path).info))


def test_one_frame_of_every_loop(segment, tmp_path: Path, dicom_files) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    dicom_files.write_dicom(folder / "loop.dcm", np.stack([picture(seed) for seed in range(5)]))
    dicom_files.write_dicom(folder / "one.dcm", picture(9))
    assert segment(folder, frame="middle")[0] == {"loop_frame0003.png": (60, 80), "one.png": (60, 80)}


def test_masks_of_single_frames_and_dicom_make_a_dataset(tmp_path: Path, dicom_files) -> None:
    """A loop of which three frames were outlined, in one group; the crop takes the masks with it."""
    images, masks = tmp_path / "in" / "images", tmp_path / "in" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    rows, columns = np.ogrid[:60, :80]
    disc = np.uint8(255 * ((rows - 25) ** 2 + (columns - 40) ** 2 < 100))
    loop = np.stack([picture(seed) for seed in range(6)])
    dicom_files.write_dicom(images / "loop.dcm", loop, "RLE MONOCHROME2", PixelSpacing=[0.3, 0.2])
    names = [f"loop_frame000{number}" for number in (2, 4, 5)]
    for number in range(12):
        dicom_files.write_dicom(images / f"1.2.{number}", picture(100 + number), BurnedInAnnotation="YES")
        names.append(f"1.2.{number}")
    for name in names:
        Image.fromarray(disc).save(masks / f"{name}.png")
    with pytest.raises(MGCCError, match="12 faults.*"):
        prepare(str(tmp_path / "in"), str(tmp_path / "out"))
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), crop="10,5,60,50")
    dataset = load_datalist(tmp_path / "out")
    items = {item["original"]: item for name in ("training", "validation", "test") for item in dataset[name]}
    frames = [items[f"images/loop_frame000{number}.dcm"] for number in (2, 4, 5)]
    assert len(items) == 15 and len({item["group"] for item in frames}) == 1
    assert [item["spacing"] for item in frames] == [[0.3, 0.2]] * 3
    assert items["images/1.2.7"]["spacing"] == [0.0, 0.0]
    np.testing.assert_array_equal(read_image(frames[1]["image"]), loop[3][5:55, 10:70])
    np.testing.assert_array_equal(read_image(frames[1]["label"]), disc[5:55, 10:70])
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert b"Secret" not in path.read_bytes() and b"SECRET" not in path.read_bytes()
