"""NIfTI by its header: which axes are a picture, and masks that are laid on their images by the world."""

from __future__ import annotations

import gzip
from itertools import product

import nibabel
import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.cases import read_case
from mgcc_monai.data.formats.frames import frame_path
from mgcc_monai.data.formats.images import load_frame, read_image, read_mask
from mgcc_monai.data.formats.nifti import lay_on
from mgcc_monai.data.formats.source import count_frames
from mgcc_monai.data.layouts.folders import Case
from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.preflight.segmentation import check_items

WIDTH, HEIGHT = 30, 20
SIZES = np.diag([0.2, 0.3, 0.7, 1.0])


def _save(path, values, affine=SIZES, coded=True):
    nibabel.save(nibabel.Nifti1Image(values, affine if coded else None), path)
    header = nibabel.load(path).header
    assert bool(header["sform_code"] or header["qform_code"]) == coded
    return path


def _stored_otherwise(values, affine, turn):
    """The same picture in the same world, stored with axes flipped and exchanged."""
    image = nibabel.Nifti1Image(values.reshape(*values.shape, 1), affine).as_reoriented(np.array(turn))
    return np.asarray(image.dataobj), image.affine


def _sampled(image_path, mask_path):
    """The oracle: for every pixel of the image, the mask's value at that place in the world, HW."""
    image, mask = nibabel.load(image_path), nibabel.load(mask_path)
    places = np.array([*product(range(WIDTH), range(HEIGHT), (0,), (1,))])
    voxels = np.rint(places @ image.affine.T @ np.linalg.inv(mask.affine).T)[:, :3].astype(int)
    values = np.asarray(mask.dataobj).reshape(*mask.shape, *[1] * (3 - mask.ndim))
    return values[tuple(voxels.T)].reshape(WIDTH, HEIGHT).T


@pytest.fixture
def lesion():
    """uint8, columns first, unlike itself turned in any way."""
    mask = np.zeros((WIDTH, HEIGHT), np.uint8)
    mask[3:9, 4:7] = mask[3:5, 4:15] = 1
    return mask


TURNS = [[[a, f], [b, g], [2, h]] for (a, b), f, g, h in product([(0, 1), (1, 0)], (1, -1), (1, -1), (1, -1))]
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.3, -0.4, 0.7) @ np.diag([0.2, 0.2, 0.5]), [5, -7, 3]
)


@pytest.mark.parametrize("affine", [SIZES, np.diag([-0.2, -0.3, 0.7, 1.0]), OBLIQUE], ids=["ras", "lps", "oblique"])
@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_mask_stored_otherwise_is_laid_by_the_world(tmp_path, texture, lesion, turn, affine):
    image = _save(tmp_path / "i.nii.gz", texture(1, HEIGHT, WIDTH).T[..., None], affine)
    mask = _save(tmp_path / "m.nii.gz", *_stored_otherwise(lesion, affine, turn))
    expected = _sampled(image, mask)
    np.testing.assert_array_equal(expected, lesion.T)
    np.testing.assert_array_equal(lay_on(image, mask, read_mask(mask)), expected)
    entry, faults = read_case(Case(image, (mask,), "benign", "i.nii.gz"))
    assert not faults
    (tmp_path / "label.png").write_bytes(entry.label)
    np.testing.assert_array_equal(read_mask(tmp_path / "label.png"), expected)
    faults = check_items([{"image": image, "label": mask}])
    assert bool(faults) == (turn[:2] != [[0, 1], [1, 1]])  # what is trained on as it is must lie as it is


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (np.diag([1, 1, 1, 1.0]), False),
        (np.diag([-1, -1, 1, 1.0]), True),  # opposite, about the origin
        (np.diag([1.5, 1, 1, 1]), True),
        (nibabel.affines.from_matvec(np.eye(3), [0, 0.12, 0]), False),
        (nibabel.affines.from_matvec(np.eye(3), [0, 0.2, 0]), True),
        (nibabel.affines.from_matvec(np.eye(3), [0, 0, 4]), True),
        (nibabel.affines.from_matvec(nibabel.eulerangles.euler2mat(0.2), [0, 0, 0]), True),
        (np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), True),  # sizes exchanged too
    ],
    ids="same opposite zooms fraction shifted slice rotated exchanged".split(),
)
def test_a_mask_of_another_grid_is_refused_with_both(tmp_path, texture, lesion, change, refused):
    image = _save(tmp_path / "i.nii", texture(1, HEIGHT, WIDTH).T[..., None])
    mask = _save(tmp_path / "m.nii", lesion[..., None], change @ SIZES)
    if not refused:
        np.testing.assert_array_equal(lay_on(image, mask, read_mask(mask)), lesion.T)
        return
    entry, faults = read_case(Case(image, (mask,), "benign", "i.nii"))
    assert entry is None and len(faults) == 1 and "\n" not in faults[0]
    assert faults[0].startswith(f"{mask}: ") and "i.nii" in faults[0] and "0.2 x 0.3" in faults[0]
    assert check_items([{"image": image, "label": mask}]) == faults


def test_without_two_worlds_the_array_counts(tmp_path, texture, lesion):
    grey, flipped = texture(1, HEIGHT, WIDTH), np.diag([-0.2, -0.3, 0.7, 1.0])
    Image.fromarray(grey).save(tmp_path / "i.png")
    Image.fromarray(lesion.T * 255).save(tmp_path / "m.png")
    known, unknown = _save(tmp_path / "i.nii", grey.T), _save(tmp_path / "j.nii", grey.T, coded=False)
    masks = [_save(tmp_path / f"m{n}.nii", lesion, flipped, coded) for n, coded in enumerate((True, False))]
    pairs = [(known, tmp_path / "m.png"), (tmp_path / "i.png", masks[0]), (known, masks[1]), (unknown, masks[0])]
    for image, mask in pairs:
        np.testing.assert_array_equal(lay_on(image, mask, read_mask(mask)), lesion.T)
    with pytest.raises(MGCCError, match="lies otherwise"):
        lay_on(known, masks[0], read_mask(masks[0]))


def test_the_mask_of_a_frame_is_turned_wherever_its_slice_lies(tmp_path, texture, lesion):
    loop = np.stack([texture(seed, HEIGHT, WIDTH).T for seed in range(6)], -1)
    image = _save(tmp_path / "i.nii", loop)
    for shift in (0, 2):  # the place of the first frame, or its own
        affine = SIZES.copy()
        affine[2, 3] = shift * 0.7
        stored, affine = _stored_otherwise(lesion, affine, [[0, -1], [1, 1], [2, 1]])
        mask = _save(tmp_path / f"m{shift}.nii", stored, affine)
        np.testing.assert_array_equal(lay_on(frame_path(image, 3), mask, read_mask(mask)), lesion.T)


def test_no_thickness_told_is_no_fault(tmp_path, texture, lesion):
    image, mask = (nibabel.Nifti1Image(v, SIZES) for v in (texture(1, HEIGHT, WIDTH).T, lesion[::-1].copy()))
    for one, sign in ((image, 1), (mask, -1)):
        affine = np.diag([0.2 * sign, 0.3, 0, 1])
        affine[0, 3] = 0 if sign > 0 else 0.2 * (WIDTH - 1)
        one.header["srow_x"], one.header["srow_y"], one.header["srow_z"] = affine[:3]
    nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / "i.nii")
    nibabel.save(nibabel.Nifti1Image(mask.dataobj, None, mask.header), tmp_path / "m.nii")
    assert not nibabel.load(tmp_path / "m.nii").affine[:3, 2].any()
    found = lay_on(tmp_path / "i.nii", tmp_path / "m.nii", read_mask(tmp_path / "m.nii"))
    np.testing.assert_array_equal(found, lesion.T)


@pytest.mark.parametrize(
    "shape", [(1, 30, 20), (30, 1, 20), (30, 20, 1, 1), (1, 1, 30, 20), (1, 30, 20, 1, 1)], ids=str
)
def test_axes_of_one_are_dropped_wherever_they_stand(tmp_path, texture, shape):
    grey = texture(1, HEIGHT, WIDTH)
    path = _save(tmp_path / "i.nii", grey.T.reshape(shape), np.diag([0.2, 0.3, 0.4, 1.0]))
    assert count_frames(path) == 1
    np.testing.assert_array_equal(read_image(path), grey)
    if len(shape) < 4:
        zooms = [size for size, length in zip((0.2, 0.3, 0.4), shape, strict=True) if length > 1]
        assert load_frame(path).spacing == pytest.approx(zooms[::-1])


@pytest.mark.parametrize("shape", [(30, 20, 6), (30, 20, 1, 6), (1, 30, 20, 6), (30, 1, 20, 6)], ids=str)
def test_the_third_long_axis_is_that_of_the_frames(tmp_path, texture, shape):
    loop = np.stack([texture(seed, HEIGHT, WIDTH).T for seed in range(6)], -1)
    path = _save(tmp_path / "i.nii.gz", loop.reshape(shape))
    assert count_frames(path) == 6
    np.testing.assert_array_equal(read_image(path, 5), loop[..., 4].T)


@pytest.mark.parametrize("shape", [(30, 20, 3), (30, 20, 4), (30, 20, 1, 3), (3, 30, 20), (30, 20, 6, 5)], ids=str)
def test_what_may_be_colours_or_frames_is_refused(tmp_path, shape):
    path = _save(tmp_path / "i.nii", np.zeros(shape, np.uint8))
    for read in (read_image, read_mask, count_frames):
        with pytest.raises(MGCCError, match="i.nii: a NIfTI of shape"):
            read(path)


@pytest.mark.parametrize("names", ["RGB", "RGBA"])
def test_the_colours_of_nifti_are_those_of_a_png(tmp_path, texture, lesion, names):
    bands = [texture(seed, HEIGHT, WIDTH) for seed in range(len(names))]
    colours, mask = (np.empty((WIDTH, HEIGHT), [(name, "u1") for name in names]) for _ in range(2))
    for name, band in zip(names, bands, strict=True):
        colours[name], mask[name] = band.T, lesion * 255 if name in "RA" else 0
    Image.fromarray(np.dstack(bands[:3])).save(tmp_path / "i.png")
    np.testing.assert_array_equal(read_image(_save(tmp_path / "i.nii", colours)), read_image(tmp_path / "i.png"))
    np.testing.assert_array_equal(read_mask(_save(tmp_path / "m.nii", mask)), lesion.T)


def test_scaled_swapped_and_long_values(tmp_path, texture, lesion):
    grey = texture(1, HEIGHT, WIDTH)
    scaled = nibabel.Nifti1Image(grey.T, SIZES)
    scaled.header.set_slope_inter(2.0, 100.0)
    swapped = nibabel.Nifti1Image(grey.T.astype(">i2"), SIZES, nibabel.Nifti1Header(endianness=">"))
    whole = nibabel.Nifti1Image(grey.T.astype(np.int64), SIZES, dtype=np.int64)
    low, high = int(grey.min()), int(grey.max())
    for image in (scaled, swapped, whole):
        nibabel.save(image, tmp_path / "i.nii")
        expected = np.rint((grey - float(low)) * (255 / (high - low)))
        np.testing.assert_array_equal(read_image(tmp_path / "i.nii"), expected)
    mask = nibabel.Nifti1Image(lesion, SIZES)
    mask.header.set_slope_inter(0.5, 0.0)
    nibabel.save(mask, tmp_path / "m.nii")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii"), lesion.T)
    broken = _save(tmp_path / "n.nii", np.where(lesion, np.nan, 1).astype(np.float32))
    for read in (read_image, read_mask):
        with pytest.raises(MGCCError, match="n.nii: .*NaN"):
            read(broken)


def test_a_name_that_says_otherwise_than_the_packing(tmp_path, lesion):
    content = nibabel.Nifti1Image(lesion, SIZES).to_bytes()
    (tmp_path / "a.nii").write_bytes(gzip.compress(content))
    (tmp_path / "b.NII.GZ").write_bytes(content)
    for name, end in (("a.nii", ".nii.gz"), ("b.NII.GZ", ".nii")):
        with pytest.raises(MGCCError, match=f"{name}: is .*packed with gzip.*rename it, to end in {end}$"):
            read_mask(tmp_path / name)
