"""NIfTI through the bundle's inference: masks that lie where their images do, under one name."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from mgcc_monai.networks import MGCC

CHANNELS = [2, 4, 6, 8, 10]
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.4, 0.7) @ np.diag([0.2, 0.3, 0.5]), [5, -7, 3]
)


@pytest.fixture
def segment(run, tmp_path: Path):
    """``segment(folder, **options)``: the folder of the masks of a small random network, as NIfTI."""
    torch.manual_seed(0)
    torch.save(MGCC(1, 1, CHANNELS).state_dict(), tmp_path / "model.pt")

    def segment_folder(folder: Path, **options: object) -> Path:
        output = tmp_path / "masks"
        settings = {"image_size": [32, 32], "network_def#channels": CHANNELS, "ckpt_path": str(tmp_path / "model.pt")}
        settings |= {"output_ext": ".nii.gz", "save_prob": True, **options}
        run("inferring", "inference.json", dataset_dir=str(folder), output_dir=str(output), **settings)
        return output

    return segment_folder


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth noise, columns first."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height))).T


def save(path: Path, values: np.ndarray, affine: np.ndarray | None, qform: int = 0, sform: int = 1) -> None:
    image = nibabel.Nifti1Image(values, affine)
    if affine is not None:
        image.set_qform(affine, qform)
        image.set_sform(affine, sform)
    else:
        image.header.set_zooms((0.2, 0.3, 0.5)[: values.ndim])
    image.header.set_xyzt_units("micron", "sec")
    image.header["descrip"] = b"Doe^Jane^Secret"
    nibabel.save(image, path)


def test_masks_have_the_shape_the_place_and_the_units_of_their_nifti(segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "flat.nii", picture(1), np.diag([-0.2, -0.3, 1, 1]))
    save(folder / "thick.nii.gz", picture(2)[..., None], OBLIQUE, qform=1)
    save(folder / "qform.nii", picture(3)[..., None], OBLIQUE, qform=1, sform=0)
    save(folder / "first.nii", picture(4)[None], OBLIQUE)
    save(folder / "placeless.nii", picture(5)[..., None], None)
    save(folder / "UPPER.NII.GZ", picture(6), OBLIQUE)
    output = segment(folder, save_overlay=True, threshold=0.0001)
    names = {"flat": "flat.nii", "thick": "thick.nii.gz", "qform": "qform.nii", "first": "first.nii"}
    names |= {"placeless": "placeless.nii", "UPPER": "UPPER.NII.GZ"}
    written = {path.name for path in output.iterdir()}
    assert written == {"lesions.csv"} | {
        f"{stem}{end}" for stem in names for end in (".nii.gz", "_prob.nii.gz", "_overlay.png")
    }
    for stem, name in names.items():
        source = nibabel.load(folder / name)
        for end in ("", "_prob"):
            mask = nibabel.load(output / f"{stem}{end}.nii.gz")
            assert mask.shape == source.shape
            np.testing.assert_array_equal(mask.affine, source.affine)
            for key in ("pixdim", "xyzt_units", "qform_code", "sform_code"):
                np.testing.assert_array_equal(mask.header[key], source.header[key], err_msg=f"{name} {key}")
            assert b"Secret" not in mask.header.binaryblock
        assert set(np.unique(mask.get_fdata())) - {0, 1} and 0 < mask.get_fdata().max() <= 1  # probabilities
        np.testing.assert_array_equal(nibabel.load(output / f"{stem}.nii.gz").get_fdata(), 1)
    with (output / "lesions.csv").open() as file:
        assert {row["image"] for row in csv.DictReader(file)} == set(names.values())


def test_the_mask_of_a_frame_and_of_a_crop_lies_where_that_was(segment, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "volume.nii", np.stack([picture(seed) for seed in range(5)], -1), OBLIQUE, qform=1)
    save(folder / "time.nii", np.stack([picture(seed) for seed in range(6)], -1)[:, :, None], OBLIQUE)
    output = segment(folder, crop="10,5,40,30", threshold=0.0001)
    for name, frames in (("volume", 5), ("time", 6)):
        source = nibabel.load(folder / f"{name}.nii")
        for number in range(frames):
            mask = nibabel.load(output / f"{name}_frame{number + 1:04d}.nii.gz")
            assert mask.shape == (40, 30, 1) + (1,) * (source.ndim - 3)
            expected = source.affine @ [10, 5, number if name == "volume" else 0, 1]
            np.testing.assert_allclose(mask.affine[:, 3], expected, atol=1e-5)
            np.testing.assert_allclose(mask.affine[:3, :3], source.affine[:3, :3], atol=1e-6)
            form = mask.get_qform(coded=True)[0]
            assert (form is None) == (name == "time")
            np.testing.assert_allclose(mask.affine if form is None else form, mask.affine, atol=1e-5)


def test_a_mask_is_found_where_its_lesion_is(segment, tmp_path: Path) -> None:
    """Against the same picture as PNG, where rows and columns are plain."""
    folder = tmp_path / "in"
    folder.mkdir()
    save(folder / "a.nii", picture(1)[None], np.diag([0.2, -0.3, -0.5, 1]))
    Image.fromarray(picture(1).T).save(folder / "b.png")
    output = segment(folder)
    nifti, png = (nibabel.load(output / f"{name}_prob.nii.gz") for name in "ab")
    np.testing.assert_array_equal(nifti.get_fdata()[0], np.squeeze(png.get_fdata()))
    np.testing.assert_array_equal(png.affine, np.eye(4))
    threshold = float(np.median(png.get_fdata()))
    output = segment(folder, output_ext=".png", threshold=threshold, save_prob=False, overwrite=True)
    mask = np.asarray(Image.open(output / "a.png"))
    assert mask.shape == (60, 80)
    assert ((mask > 0) == (nifti.get_fdata()[0].T >= threshold)).mean() > 0.99
