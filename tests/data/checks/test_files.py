"""Every check of files fires on the file planted for it, and on nothing else."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageDraw

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.checks.images import FILE_CHECKS, IMAGE_CHECKS
from mgcc_monai.data.checks.masks import MASK_CHECKS, PAIR_CHECKS, PIXEL_CHECKS

TURN = 0x0112


def _exif(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[TURN] = turn
    return exif


def _cut_short(p):
    data = (p.folder / "images/0.png").read_bytes()
    (p.folder / "images/0.png").write_bytes(data[: len(data) // 2])


def _pages(p):
    (p.folder / "images/0.png").unlink()
    p.item(0)["image"] = "images/0.tif"
    page = Image.fromarray(p.grey(1))
    page.save(p.folder / "images/0.tif", save_all=True, append_images=[page])


def _both(p, height, width):
    """An image of another size, with a mask of that size."""
    grey = Image.fromarray(p.grey(0)).resize((width, height), Image.Resampling.BICUBIC)
    grey.save(p.folder / "images/0.png")
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3] = 255
    p.save("labels/0.png", mask)


def _turn_both(p):
    Image.fromarray(p.grey(0)).save(p.folder / "images/0.png", exif=_exif(3))
    p.save("labels/0.png", p.disc(), exif=_exif(3))


def _colour(p, share):
    colours = np.repeat(p.grey(0)[..., None], 3, 2)
    colours.reshape(-1, 3)[: int(share * 4800)] = (0, 0, 220)
    p.save("images/0.png", colours)


def _with_alpha(p):
    grey = p.grey(0)
    p.save("images/0.png", np.dstack([grey, grey, grey, p.disc()]))


def _share_of(p, level, share):
    grey = p.grey(0).copy()
    grey.ravel()[: int(share * grey.size)] = level
    p.save("images/0.png", grey)


def _jpeg(p):
    p.item(0)["label"] = "labels/0.jpg"
    (p.folder / "labels/0.png").unlink()
    p.save("labels/0.jpg", p.disc(), quality=75)


def _palette(p, colours, lesion=1):
    picture = Image.new("P", (80, 60))
    picture.putdata(((p.disc() > 0) == lesion).astype(int).ravel().tolist())
    picture.putpalette(colours)
    picture.save(p.folder / "labels/0.png")


def _calipers(p):
    grey = p.grey(0) // 4 + 95
    for row, column in ((20, 20), (40, 60)):
        grey[row - 5 : row + 6, column] = grey[row, column - 5 : column + 6] = 250
    p.save("images/0.png", grey)


def _text(p):
    picture = Image.fromarray(p.grey(0) // 4 + 95)
    ImageDraw.Draw(picture).text((10, 40), "LEFT", fill=250)
    picture.save(p.folder / "images/0.png")


def _nifti(p):
    """A mask that is stored flipped, and says so."""
    item = p.item(0)
    flipped = np.diag([-0.2, 0.2, 1, 1])
    flipped[0, 3] = 0.2 * 79
    for kind, pixels, affine in (
        ("image", p.grey(0), np.diag([0.2, 0.2, 1, 1])),
        ("label", p.disc()[:, ::-1], flipped),
    ):
        item[kind] = f"{kind}s/0.nii"
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(pixels.T), affine), p.folder / f"{kind}s/0.nii")
        (p.folder / f"{kind}s/0.png").unlink()


def _outline(p):
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:60] = 255
    mask[12:48, 22:58] = 0
    p.save("labels/0.png", mask)


def _specks(p):
    mask = p.disc().copy()
    mask[5, 70] = 255
    p.save("labels/0.png", mask)


def _soft(p):
    mask = Image.fromarray(p.disc()).resize((20, 15), Image.Resampling.BILINEAR).resize((80, 60))
    mask.save(p.folder / "labels/0.png")


FILE_FAULTS = {
    "unreadable-file": lambda p: (p.folder / "images/0.png").write_bytes(b"<html>"),
    "truncated-file": _cut_short,
    "several-frames": _pages,
    "wrong-suffix": lambda p: Image.fromarray(p.grey(0)).save(p.folder / "images/0.png", "BMP"),
    "constant-image": lambda p: p.save("images/0.png", p.disc() * 0 + 130),
    "image-is-mask": lambda p: p.save("images/0.png", p.disc() // 4 + 120),
    "low-contrast": lambda p: p.save("images/0.png", np.uint8(100 + p.grey(0) // 60)),
    "saturated-image": lambda p: _share_of(p, 255, 0.3),
    "black-image": lambda p: _share_of(p, 0, 0.96),
    "vanishing-side": lambda p: _both(p, 4, 130),
    "tiny-image": lambda p: _both(p, 30, 40),
    "huge-image": lambda p: _both(p, 1100, 4100),
    "long-image": lambda p: _both(p, 40, 200),
    "deep-image": lambda p: p.save("images/0.png", p.grey(0).astype(np.uint16) * 200),
    "alpha-channel": _with_alpha,
    "coloured-image": lambda p: _colour(p, 0.02),
    "coloured-marks": lambda p: _colour(p, 0.001),
    "calipers": _calipers,
    "text": _text,
    "exif-orientation": _turn_both,
    "exif-differs": lambda p: p.save("labels/0.png", p.disc(), exif=_exif(3)),
    "changed-image": lambda p: p.save("images/0.png", p.grey(0) + np.uint8(p.disc() > 0)),
    "changed-mask": lambda p: p.save("labels/0.png", p.disc(3)),
    "several-labels": lambda p: p.save("labels/0.png", p.disc() // 2 + p.disc(4) // 4),
    "soft-mask": _soft,
    "mask-size": lambda p: p.save("labels/0.png", p.disc()[:50]),
    "mask-axes": _nifti,
    "jpeg-mask": _jpeg,
    "unclear-mask": lambda p: _palette(p, [0] * 6),
    "palette-mask": lambda p: _palette(p, [255, 255, 255, 0, 0, 0], lesion=0),
    "empty-mask": lambda p: p.save("labels/0.png", p.disc() * 0),
    "lesion-in-normal": lambda p: p.save("labels/18.png", p.disc()[::-1, ::-1]),
    "full-mask": lambda p: p.save("labels/0.png", p.disc() * 0 + 255),
    "inverted-mask": lambda p: p.save("labels/0.png", 255 - np.maximum(p.disc(0), p.disc(10))),
    "outline-mask": _outline,
    "specks": _specks,
    "brightness-outlier": lambda p: p.save("images/0.png", p.grey(0) // 4),
}
KEEP_HASHES = {"changed-image", "changed-mask"}
ALSO = {
    "vanishing-side": {"tiny-image", "long-image"},
    "black-image": {"brightness-outlier"},
    "low-contrast": set(),
    "saturated-image": {"brightness-outlier"},
}


@pytest.mark.parametrize("name", FILE_FAULTS)
def test_a_fault_of_a_file_is_found(plant, name):
    FILE_FAULTS[name](plant)
    # what an image is scaled to may change with it; that is another check's
    report = check_dataset(plant.write(rehash=name not in KEEP_HASHES), near_copies=False)
    fired = set(report.counts) - {"statistics-differ"}
    assert name in fired and fired - {name} <= ALSO.get(name, set())


def test_every_check_of_files_is_made_to_fire():
    checks = (*FILE_CHECKS, *IMAGE_CHECKS, *PAIR_CHECKS, *MASK_CHECKS, *PIXEL_CHECKS)
    assert {check.name for check in checks} | {"brightness-outlier"} == set(FILE_FAULTS)
