"""What inference leaves in its folder: masks and the table that lists them, of this run alone, and notes."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.networks import MGCC

CHANNELS = [2, 4, 6, 8, 10]


@pytest.fixture
def segment(run, tmp_path: Path):
    """``segment(folder, **options)``: run inference into ``tmp_path / "masks"``, and give the rows of the table."""
    torch.manual_seed(0)
    torch.save(MGCC(1, 1, CHANNELS).state_dict(), tmp_path / "model.pt")

    def segment_folder(folder: Path, *overlays: str, **options: object) -> list[dict[str, str]]:
        output = tmp_path / "masks"
        settings = {"image_size": [32, 32], "network_def#channels": CHANNELS, "ckpt_path": str(tmp_path / "model.pt")}
        settings |= {"dataset_dir": str(folder), "output_dir": str(output), **options}
        run("inferring", "inference.json", *overlays, **settings)
        with (output / "lesions.csv").open() as file:
            return list(csv.DictReader(file))

    return segment_folder


def write(folder: Path, **shapes: tuple[int, int]) -> Path:
    """A folder of noise, an image for each name, of some height and width."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, shape) in enumerate(shapes.items()):
        pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def names(folder: Path) -> set[str]:
    """The files of a folder; this process keeps its lock on one until it ends."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*") if path.is_file()}


def test_a_second_run_leaves_no_mask_that_its_table_lacks(segment, tmp_path: Path) -> None:
    first = write(tmp_path / "first", a=(40, 50), b=(40, 50))
    second = write(tmp_path / "second", b=(30, 20), c=(30, 20))
    masks = tmp_path / "masks"
    for _ in range(2):  # the same images again
        assert [row["mask"] for row in segment(first)] == ["a.png", "b.png"]
    with pytest.raises(MGCCError, match="a.png.*--overwrite true"):
        segment(second)
    assert names(masks) == {"a.png", "b.png", "lesions.csv"}
    assert {row["image"] for row in segment(second, overwrite="true", save_prob=True, save_overlay=True)} == {
        "b.png",
        "c.png",
    }
    assert names(masks) == {f"{n}{end}.png" for n in "bc" for end in ("", "_prob", "_overlay")} | {"lesions.csv"}
    rows = segment(second, overwrite="yes", output_ext=".nii.gz", output_postfix="seg", separate_folder="true")
    assert {row["mask"] for row in rows} == {"b/b_seg.nii.gz", "c/c_seg.nii.gz"}
    assert names(masks) == {"b/b_seg.nii.gz", "c/c_seg.nii.gz", "lesions.csv"}
    segment(first, overwrite=True, output_ext="bmp")
    assert names(masks) == {"a.bmp", "b.bmp", "lesions.csv"}


def test_a_run_that_is_cut_off_leaves_no_table_of_another(segment, tmp_path: Path, monkeypatch) -> None:
    """Else the masks that it wrote would stand beside the figures of the run before."""
    folder = write(tmp_path / "in", a=(40, 50), b=(40, 50))
    segment(folder)
    from mgcc_monai.evaluation.lesions import LesionTableHandler

    with monkeypatch.context() as patch:
        patch.setattr(LesionTableHandler, "_collect", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            segment(folder)
    assert names(tmp_path / "masks") == {"a.png", "b.png"}
    with pytest.raises(MGCCError, match="b.png"):
        segment(write(tmp_path / "other", a=(40, 50)), overwrite=True)
    assert len(segment(folder)) >= 2


@pytest.mark.parametrize("overlays", [[], ["presets/keep_aspect.yaml"]])
def test_constant_images_are_noted(segment, tmp_path: Path, overlays: list[str]) -> None:
    folder = write(tmp_path / "in", a=(40, 50))
    for name, value in (("black", 0), ("grey", 77), ("white", 255)):
        Image.new("L", (50, 20), value).save(folder / f"{name}.png")
    one = np.full((20, 50), 77, np.uint8)
    one[9:12, 9:12] = 79
    Image.fromarray(one).save(folder / "nearly.png")
    rows = segment(folder, *overlays)
    noted = {row["image"] for row in rows if row["note"] == "constant image"}
    assert noted == {"black.png", "grey.png", "white.png"} and {row["note"] for row in rows} == {"", "constant image"}


def test_numbers_have_sensible_digits(segment, tmp_path: Path) -> None:
    folder = write(tmp_path / "in", a=(47, 53))
    image = nibabel.Nifti1Image(np.asarray(Image.open(folder / "a.png")).T, np.diag([0.2622878766, 0.1, 1, 1]))
    nibabel.save(image, folder / "b.nii.gz")
    rows = segment(folder, threshold=0.5)
    cells = [row[key] for row in rows for key in ("area_fraction", "mean_probability", "area_mm2") if row[key]]
    assert any(float(row["area_mm2"] or 0) > 0 for row in rows)
    assert all(len(re.sub(r"e-?\d+|^0?\.0*|\D", "", cell)) <= 7 for cell in cells), cells


@pytest.mark.parametrize("overlays", [[], ["presets/keep_aspect.yaml"]])
def test_sides_of_one_pixel_are_refused_and_of_two_segmented(segment, tmp_path: Path, overlays: list[str]) -> None:
    """At the network's smallest size; of 62 x 2 pixels that keep their aspect half a pixel is left, which is one."""
    smallest = {"a": (2, 2), "b": (2, 62), "c": (62, 2), "d": (40, 50)}
    options = {"image_size": [16, 16], "save_prob": True, "save_overlay": True}
    folder = write(tmp_path / "in", **smallest)
    sizes = {row["mask"]: (int(row["height"]), int(row["width"])) for row in segment(folder, **options)}
    assert sizes == {f"{name}.png": shape for name, shape in smallest.items()}
    for name, shape in smallest.items():
        assert np.asarray(Image.open(tmp_path / "masks" / f"{name}.png")).shape == shape
    before = names(tmp_path / "masks")
    vanishing = write(tmp_path / "one", a=(1, 1), b=(1, 40), c=(40, 1), d=(3, 2000), e=(40, 50))
    with pytest.raises(MGCCError, match="4 faults") as error:
        segment(vanishing, **options, overwrite=True)
    assert all(f"{name}.png: " in str(error.value) for name in "abcd") and names(tmp_path / "masks") == before
    with pytest.raises(MGCCError, match="a.png: 1 x 9 pixels"):
        segment(write(tmp_path / "crop", a=(40, 50)), crop="0,0,1,9", overwrite=True)


def test_a_dataset_of_too_small_sides_is_not_trained_on(run, phantoms: Path, tmp_path: Path) -> None:
    import json
    import shutil

    from mgcc_monai.data.contents import LISTS, image_sha256
    from mgcc_monai.data.dataset import write_dataset

    small = Path(shutil.copytree(phantoms, tmp_path / "small"))
    content = json.loads((small / "dataset.json").read_text())
    item = content["unlabeled"][0]
    pixels = np.arange(40, dtype=np.uint8)[None]
    Image.fromarray(pixels).save(small / item["image"])
    item["sha256"] = image_sha256(pixels)
    if "withheld_label" in item:
        Image.fromarray(np.uint8(pixels > 20) * 255).save(small / item["withheld_label"])
        item["label_sha256"] = image_sha256(np.uint8(pixels > 20))
    header = {key: content[key] for key in ("protocol", "split_seed", "label_fraction")}
    write_dataset(small, {key: content[key] for key in LISTS}, **header)
    for config in ("train.json", "train_autoencoder.json"):
        with pytest.raises(MGCCError, match=re.escape(f"{small / item['image']}: 40 x 1 pixels")):
            run("training", config, dataset_dir=str(small))
    assert not (tmp_path / "runs").exists()
