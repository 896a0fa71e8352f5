from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.formats import limits as bounds
from mgcc_monai.data.formats.images import list_images, read_image, read_mask
from mgcc_monai.errors import MGCCError


def _save(path, pixels, mode=None, **options):
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
@pytest.mark.parametrize("suffix", [".png", ".TIF"])
def test_grey_survives_every_mode_unchanged(tmp_path, texture, mode, suffix):
    if (mode, suffix) == ("P", ".png"):
        pixels = texture(0) // 2 * 2  # a shuffled palette, so that indices are not the grey levels
        order = np.random.default_rng(0).permutation(256)
        picture = Image.fromarray(np.argsort(order)[pixels].astype(np.uint8), "L").convert("L")
        palette = Image.new("P", picture.size)
        palette.putdata(list(picture.tobytes()))
        palette.putpalette(np.repeat(order, 3).astype(np.uint8).tolist())
        palette.save(tmp_path / "x.png", transparency=3)
    else:
        pixels = texture(0)
        _save(tmp_path / f"x{suffix}", pixels, mode)
    read = read_image(tmp_path / f"x{suffix if mode != 'P' or suffix != '.png' else '.png'}")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pixels)


def test_alpha_is_dropped_not_mixed_in(tmp_path, texture):
    pixels = texture(1)
    _save(tmp_path / "x.png", np.dstack([pixels, pixels, pixels, pixels[::-1]]))
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), pixels)


def test_deeper_values_are_scaled_by_their_own_range(tmp_path):
    _save(tmp_path / "x.png", np.array([[1000, 2000, 3000, 6100]], np.uint16))
    assert read_image(tmp_path / "x.png").tolist() == [[0, 50, 100, 255]]


def test_colour_becomes_luminance_and_one_bit_becomes_black_and_white(tmp_path):
    _save(tmp_path / "c.png", np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8))
    assert read_image(tmp_path / "c.png").tolist() == [[76, 150, 29]]  # ITU-R 601
    _save(tmp_path / "b.png", np.array([[0, 255]], np.uint8), "1")
    assert read_image(tmp_path / "b.png").tolist() == [[0, 255]]


def test_exif_orientation_is_applied(tmp_path, texture):
    pixels = texture(2)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise for viewing
    _save(tmp_path / "x.png", pixels, exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(pixels, -1))


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 1, 1)])
def test_nifti_comes_rows_first(tmp_path, shape):
    values = np.arange(35, dtype=np.uint8).reshape(7, 5)
    nibabel.save(nibabel.Nifti1Image(values.reshape(shape), np.eye(4)), tmp_path / "x.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "x.nii.gz"), values.T)


_PALETTE = [0, 0, 0, 255, 255, 255]


def _palette_mask(path, mask, palette):
    picture = Image.new("P", mask.shape[::-1])
    picture.putdata((mask > 0).astype(int).ravel().tolist())
    picture.putpalette(palette)
    picture.save(path)


@pytest.mark.parametrize(
    "write",
    [
        lambda path, m: _save(path, m),
        lambda path, m: _save(path, m // 255),
        lambda path, m: _save(path, m, "1"),
        lambda path, m: _save(path, m, "RGB"),
        lambda path, m: _save(path, m, "RGBA"),
        lambda path, m: _save(path, m.astype(np.uint16) * 257),
        lambda path, m: _save(path, np.dstack([m, m * 0, m * 0])),
        lambda path, m: _save(path, np.dstack([m, m, m, 255 - m])),
        lambda path, m: _save(path, np.dstack([m * 0, m * 0, m * 0, m])),
        lambda path, m: _save(path, np.dstack([m * 0 + 255, m * 0 + 255, m * 0 + 255, m])),
        lambda path, m: _palette_mask(path, m, _PALETTE),
        lambda path, m: _palette_mask(path, 255 - m, _PALETTE[::-1]),
        lambda path, m: _palette_mask(path, m, [0] * 6),
    ],
    ids="255 1 1-bit rgb rgba 16-bit red alpha-ignored alpha-on-black alpha-on-white palette inverse black".split(),
)
def test_one_mask_whatever_the_file(tmp_path, disc, write):
    write(tmp_path / "m.png", disc())
    mask = read_mask(tmp_path / "m.png")
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, disc() // 255)


def test_jpeg_mask_has_no_ringing(tmp_path, disc):
    _save(tmp_path / "m.jpg", disc(), quality=75)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "m.jpg")))) > 2  # else nothing is tested
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), disc() // 255)


def test_empty_mask_is_empty(tmp_path):
    _save(tmp_path / "m.png", np.zeros((4, 6), np.uint8), "RGBA")
    assert read_mask(tmp_path / "m.png").tolist() == [[0] * 6] * 4


@pytest.mark.parametrize(
    ("values", "told"), [([0, 1, 2], "0, 1, 2"), ([128, 255], "128, 255"), (range(20), "0, 1, 2, 3, 4, 5, 6, 7, ...")]
)
def test_mask_of_more_than_two_values_is_refused(tmp_path, values, told):
    _save(tmp_path / "m.png", np.array([list(values)], np.uint8))
    with pytest.raises(MGCCError) as error:
        read_mask(tmp_path / "m.png")
    assert "m.png" in str(error.value) and f"({told})" in str(error.value)


def _truncated(path, texture):
    whole = _save(path, texture(3)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _pages(path, texture):
    Image.fromarray(texture(0)).save(path, save_all=True, append_images=[Image.fromarray(texture(1))])


def _volume(path, texture):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), path)


def _header_alone(path, texture):
    nibabel.save(nibabel.Nifti1Image(texture(0), np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:352])  # of which nibabel says so in two lines


BAD_FILES = {
    "empty": ("x.png", lambda path, _: path.write_bytes(b""), "empty"),
    "truncated png": ("x.png", _truncated, "truncated"),
    "truncated jpeg": ("x.jpg", _truncated, "truncated"),
    "html": ("x.png", lambda path, _: path.write_bytes(b"\n<!DOCTYPE html><html>"), "HTML"),
    "lfs": (
        "x.nii.gz",
        lambda path, _: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        "git lfs pull",
    ),
    "noise": ("x.bmp", lambda path, _: path.write_bytes(b"nothing that is an image"), "not an image"),
    "noise nifti": ("x.nii", lambda path, _: path.write_bytes(b"nothing that is an image"), "damaged"),
    "nifti without pixels": ("x.nii", _header_alone, "damaged or truncated (Expected"),
    "pages": ("x.tif", _pages, "one frame is expected"),
    "volume": ("x.nii.gz", _volume, "one frame is expected"),
    "video": ("x.mp4", lambda path, _: path.write_bytes(b"\0\0\0\x18ftypmp42"), "one frame is expected"),
    "missing": ("x.png", lambda path, _: None, "no such file"),
    "text": ("x.txt", lambda path, _: path.write_bytes(b"hello"), "unknown kind"),
}


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(("name", "write", "told"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file_is_named_with_its_cure(tmp_path, texture, read, name, write, told):
    write(tmp_path / name, texture)
    with pytest.raises(MGCCError) as error:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("bound", ["ours", "pillow"])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, texture, monkeypatch, bound):
    _save(tmp_path / "x.png", texture(0))
    target, name = (bounds, "MAX_PIXELS") if bound == "ours" else (Image, "MAX_IMAGE_PIXELS")
    monkeypatch.setattr(target, name, 60 * 80 - 1)
    with pytest.raises(MGCCError, match="x.png.*pixels.*smaller"):
        read_image(tmp_path / "x.png")


def test_list_is_in_natural_order_without_hidden_and_other_files(tmp_path):
    for name in ("b (10).PNG", "b (2).jpeg", "a.nii.gz", ".hidden.png", "notes.txt", "b (1).png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.nii.gz", "b (1).png", "b (2).jpeg", "b (10).PNG"]


def test_the_one_rgba_mask_of_busi(shared):
    """Its alpha is 255 everywhere, and its colours are black and white."""
    path = shared("data/busi_original_sample") / "benign" / "benign (54)_mask_1.png"
    assert Image.open(path).mode == "RGBA"
    np.testing.assert_array_equal(read_mask(path), np.asarray(Image.open(path))[..., 0] > 0)
