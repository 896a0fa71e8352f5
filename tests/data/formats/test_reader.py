"""The reader behind MONAI's LoadImage: one array for every kind of file, the size of its pixels, and nothing else."""

from __future__ import annotations

import nibabel
import numpy as np
import pydicom.examples
import pytest
import torch
from monai.data import list_data_collate
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged
from PIL import Image

from mgcc_monai.data import UltrasoundReader
from mgcc_monai.data.formats.images import load_frame, read_image
from mgcc_monai.data.items import images_to_segment
from mgcc_monai.errors import MGCCError
from mgcc_monai.evaluation.cases import case_row, pixel_spacing
from mgcc_monai.evaluation.lesions import lesion_rows

LOADED = {"filename_or_obj", "affine", "original_affine", "space", "spatial_shape", "original_channel_dim", "spacing"}


def _load(path, **options):
    keys = {"keys": "image"}
    return Compose([LoadImaged(**keys, reader=UltrasoundReader(**options)), EnsureChannelFirstd(**keys)])(
        {"image": str(path)}
    )


def _write_nifti(path, values, zooms=None):
    image = nibabel.Nifti1Image(values, np.eye(4))
    if zooms:
        image.header.set_zooms(zooms)
        image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def test_one_picture_stored_in_twelve_ways_is_one_array(tmp_path, texture, dicom_files):
    pixels = texture(0)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(pixels).save(tmp_path / f"x.{suffix}")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "rgb.png")
    _write_nifti(tmp_path / "x.nii.gz", pixels.T)
    for kind in ("MONOCHROME2", "MONOCHROME1", "RGB", "PALETTE COLOR", "YBR_FULL", "RLE RGB", "JPEG2000 MONOCHROME2"):
        dicom_files.write_dicom(tmp_path / f"{kind}.dcm", pixels, kind)
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 12
    for path in paths:
        image = _load(path)["image"]
        assert image.dtype == torch.float32 and set(image.meta) <= LOADED, image.meta
        np.testing.assert_array_equal(image[0].numpy(), pixels.T, err_msg=str(path))
        rows_first = LoadImage(reader=UltrasoundReader(reverse_indexing=False))(path)
        np.testing.assert_array_equal(rows_first.numpy(), pixels)


@pytest.mark.parametrize("kind", ["tif", "nii", "nii.gz", "dcm"])
def test_a_frame_of_every_kind_of_file_that_has_several(tmp_path, texture, dicom_files, kind):
    loop = np.stack([texture(seed) for seed in range(5)])
    path = tmp_path / f"loop.{kind}"
    if kind == "tif":
        pages = [Image.fromarray(frame) for frame in loop]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    elif kind == "dcm":
        dicom_files.write_dicom(path, loop)
    else:
        _write_nifti(path, np.transpose(loop, (2, 1, 0)))
    for frame, index in (("first", 0), ("middle", 2), (4, 3)):
        np.testing.assert_array_equal(_load(path, frame=frame)["image"][0].numpy().T, loop[index])
    frames = images_to_segment(tmp_path)
    assert [frame.name for frame in frames] == [f"loop_frame000{number}.{kind}" for number in range(1, 6)]
    for frame, expected in zip(frames, loop, strict=True):
        np.testing.assert_array_equal(_load(frame)["image"][0].numpy().T, expected)
    assert [path.name for path in images_to_segment(tmp_path, 3)] == [f"loop_frame0003.{kind}"]
    with pytest.raises(MGCCError, match=f"loop.{kind}: 5 frames, so there is no frame 9"):
        images_to_segment(tmp_path, 9)
    with pytest.raises(MGCCError, match="5 frames, where one frame is expected"):
        read_image(path)


def test_the_size_of_a_pixel_goes_with_the_image_through_a_batch(tmp_path, texture, dicom_files):
    """(row, column) in mm; a file that does not say it takes nothing from one that does."""
    dicom_files.write_dicom(tmp_path / "a.dcm", texture(1), PixelSpacing=[0.3, 0.2])
    _write_nifti(tmp_path / "b.nii", texture(1).T, (0.2, 0.3))  # its first axis runs along a row
    _write_nifti(tmp_path / "c.nii", texture(1).T, (1, 1))
    Image.fromarray(texture(1)).save(tmp_path / "d.png", dpi=(300, 300))
    items = [_load(tmp_path / name) for name in ("a.dcm", "b.nii", "c.nii", "d.png")]
    batch = list_data_collate(items)["image"]
    assert batch.shape == (4, 1, 80, 60)
    sizes = [pixel_spacing({"image": image}) for image in batch]
    assert sizes[:2] == [pytest.approx((0.3, 0.2))] * 2 and sizes[2:] == [None, None]
    assert items[0]["image"].pixdim[:2].tolist() == pytest.approx([0.2, 0.3])  # x, y
    assert pixel_spacing({"image": items[0]["image"], "spacing": [0.5, 0.6]}) == (0.5, 0.6)


@pytest.mark.parametrize(("axis", "length"), [(0, 0.3), (1, 0.2)])
def test_distances_in_mm_are_pixels_times_the_size_of_a_pixel(tmp_path, texture, dicom_files, axis, length):
    """A square and the same one 6 pixels on: every far edge is 6 pixels off, along one axis."""
    image = _load(dicom_files.write_dicom(tmp_path / "a.dcm", texture(1), PixelSpacing=[0.3, 0.2]))["image"]
    label = np.zeros((60, 80), np.float32)
    label[20:35, 20:35] = 1
    maps = {"label": torch.from_numpy(label.T)[None], "pred": torch.from_numpy(np.roll(label, 6, axis).T)[None]}
    maps |= {f"{name}_original": value for name, value in maps.items()}
    row = case_row({"image": image, "list": "test", **maps})
    assert (row["spacing_row"], row["spacing_col"]) == pytest.approx((0.3, 0.2))
    assert (row["hd95"], row["hd95_mm"]) == pytest.approx((6, 6 * length))
    (lesion,) = lesion_rows("a", np.roll(label, 6, axis), pixel_spacing({"image": image}))
    assert (lesion["area_pixels"], lesion["area_mm2"]) == pytest.approx((225, 225 * 0.3 * 0.2))


def test_nothing_of_a_header_or_of_exif_goes_into_the_meta_data(tmp_path, texture, dicom_files):
    exif = Image.Exif()
    exif[0x010E] = dicom_files.PATIENT
    Image.fromarray(texture(2)).save(tmp_path / "x.jpg", exif=exif)
    for path in (dicom_files.write_dicom(tmp_path / "x.dcm", texture(2)), tmp_path / "x.jpg"):
        assert b"Secret" in path.read_bytes()
        meta = _load(path)["image"].meta
        assert set(meta) <= LOADED and "Secret" not in str(meta)


def test_several_files_become_channels_and_other_kinds_are_left_to_other_readers(tmp_path, texture):
    for number in (1, 2):
        Image.fromarray(texture(number)).save(tmp_path / f"{number}.png")
    both = LoadImage(reader=UltrasoundReader(), ensure_channel_first=True)([tmp_path / "1.png", tmp_path / "2.png"])
    np.testing.assert_array_equal(both.numpy(), np.stack([texture(1).T, texture(2).T]))
    reader = UltrasoundReader()
    assert reader.verify_suffix(["a.PNG", "b.nii.gz", "c.dcm", "d_frame0003.tiff"])
    assert not reader.verify_suffix("a.mp4") and not reader.verify_suffix(["a.png", "b.npy"])


@pytest.mark.parametrize(
    ("name", "frames", "size", "spacing"),
    [
        ("rgb_color", 1, (240, 320), None),
        ("ybr_color", 30, (240, 320), None),  # its regions are those of 640 x 480 pixels: it was shrunk
        ("palette_color", 1, (350, 800), 0.262288),  # the region reaches below: it was cropped
        ("jpeg2k", 1, (480, 640), None),
    ],
)
def test_real_files_of_four_scanners(name, frames, size, spacing):
    """Luminance by ITU-R 601 of the colours that pydicom gives for the whole file."""
    path = pydicom.examples.get_path(name)
    dataset = pydicom.dcmread(path)
    values = dataset.pixel_array
    if name == "palette_color":
        values = pydicom.pixels.apply_color_lut(values, dataset) >> 8
    values = values if frames > 1 else values[None]
    assert len(values) == frames
    for number in (1, frames):
        read = load_frame(path, number)
        assert read.pixels.shape == size
        expected = values[number - 1] @ np.array([0.299, 0.587, 0.114])
        assert np.abs(read.pixels - expected).max() <= 1.0
        assert read.spacing == (None if spacing is None else pytest.approx((spacing, spacing), rel=1e-5))
