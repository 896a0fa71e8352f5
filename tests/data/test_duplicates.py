from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mgcc_monai.data import duplicates
from mgcc_monai.data.duplicates import duplicate_groups, duplicate_pairs, join_groups


def _jpeg(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


def _calipers(picture):
    picture, (width, height) = picture.copy(), picture.size
    draw = ImageDraw.Draw(picture)
    draw.line((0.3 * width, 0.5 * height, 0.7 * width, 0.45 * height), fill=255)
    draw.line((0.5 * width, 0.3 * height, 0.52 * width, 0.7 * height), fill=255)
    draw.text((4, 0.85 * height), "RT 8", fill=255)
    return picture


COPIES = {
    "size": lambda p: p.resize((p.width * 2, p.height)),
    "gamma": lambda p: p.point(lambda v: int(255 * (v / 255) ** 0.6)),
    "dark": lambda p: p.point(lambda v: v // 2),
    "jpeg": _jpeg,
    "crop": lambda p: p.crop((p.width // 14, p.height // 14, p.width * 13 // 14, p.height * 13 // 14)),
    "calipers": _calipers,
    "mirror": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda p: p.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
}


@pytest.mark.parametrize("kind", COPIES)
def test_planted_copies_are_found_and_nothing_else(texture, kind):
    originals = [texture(seed, 120, 140) for seed in range(6)]
    copies = [np.asarray(COPIES[kind](Image.fromarray(image))) for image in originals[:3]]
    assert duplicate_pairs([*originals, *copies]) == [(0, 6), (1, 7), (2, 8)]


def test_blocks_change_nothing(texture, monkeypatch):
    images = [texture(seed % 7) for seed in range(16)]
    whole = duplicate_groups(images)
    monkeypatch.setattr("mgcc_monai.data.duplicates._BLOCK", 3)
    assert duplicate_groups(images) == whole == [seed % 7 for seed in range(16)]


def test_constant_images_are_joined_by_equality_only():
    assert duplicate_groups([np.full((9, 9), v, np.uint8) for v in (0, 7, 0)]) == [0, 1, 0]
    assert duplicate_groups([]) == []


def test_groups_join_through_patients_and_are_named_as_they_come():
    #         a and b look alike; b and d are one patient; c stands alone; e and f are one patient
    labels = [3, 3, 1, 7, 9, 0]
    patients = [None, "p", None, "p", "q", "q"]
    assert join_groups(labels, patients) == ["g0001", "g0001", "g0002", "g0001", "g0003", "g0003"]
    assert join_groups(labels) == ["g0001", "g0001", "g0002", "g0003", "g0004", "g0005"]


def test_against_the_reference_list_of_busi(shared):
    """All 177 pairs of the list among the images of its groups, and 6 more; by eye all 6 are right."""
    folder = shared("data/busi_256")
    rows = list(csv.DictReader((folder / "index.csv").open()))
    found = np.array(duplicate_groups([folder / "images" / row["image"] for row in rows]))
    wanted = np.array([row["duplicate_group"] for row in rows])
    pairs = np.triu(found[:, None] == found, 1)
    reference = np.triu(wanted[:, None] == wanted, 1)
    assert (reference & ~pairs).sum() == 0 and reference.sum() == 177
    more = {frozenset(rows[k]["image"].removesuffix(".png") for k in pair) for pair in np.argwhere(pairs & ~reference)}
    assert more == {
        frozenset({"benign (213)", "benign (253)"}),
        frozenset({"malignant (11)", "malignant (113)"}),
        frozenset({"malignant (85)", "malignant (86)"}),
        frozenset({"malignant (27)", "malignant (28)"}),
        frozenset({"benign (125)", "benign (126)"}),
        frozenset({"normal (9)", "normal (10)"}),
    }


@pytest.mark.parametrize(("share", "joined"), [(0.8, True), (0.9, True), (1.4, False)])
def test_the_threshold_that_groups_are_joined_by(texture, share, joined):
    """An image with another one laid over it; at 0.8 and 0.9 the score is about 0.83 and 0.77, of no other images."""
    first, second = texture(1).astype(float), texture(2).astype(float) - 128
    mixed = np.uint8(np.clip(first + share * second, 0, 255))
    assert duplicate_groups([texture(1), mixed]) == ([0, 0] if joined else [0, 1])
    assert duplicate_groups([texture(1), mixed], threshold=0.9) == [0, 1]


def test_candidates_miss_nothing_that_comparing_everything_finds(texture):
    """Every window of every image with every other image, against the search that looks at candidates alone."""
    originals = [texture(seed, 100, 110) for seed in range(40)]
    copies = [np.asarray(change(Image.fromarray(originals[k]))) for k, change in enumerate(COPIES.values())]
    faint = [np.uint8(np.clip(originals[k] + s * (originals[k + 9].astype(float) - 128), 0, 255)) for k, s in
             enumerate((0.5, 0.7, 0.9, 1.1), start=20)]  # fmt: skip
    small = np.stack([duplicates.thumbnail(image) for image in [*originals, *copies, *faint]])
    maps, centre = duplicates._maps(small), duplicates._centre(small)
    best = np.zeros((len(small), len(small)))
    for windows in duplicates._variants(maps):
        best = np.maximum(best, centre @ duplicates._unit(windows).T)
    best = np.maximum(best, best.T)
    for threshold in (0.7, 0.75, 0.8, 0.9):
        wanted = {(int(i), int(j)) for i, j in np.argwhere(np.triu(best >= threshold, 1))}
        assert set(duplicate_pairs(list(small), threshold)) == wanted
    assert len(wanted) >= 7


def test_only_pairs_across_sides_are_found(texture):
    images = [texture(1), texture(1), texture(2), texture(2)]
    assert duplicate_pairs(images) == [(0, 1), (2, 3)]
    assert duplicate_pairs(images, sides=["a", "b", "a", "a"]) == [(0, 1)]


def test_a_screen_around_the_images_is_no_likeness_and_hides_none(texture):
    """Different scans on one screen with its margins, bar and text; the same scan twice, elsewhere on the screen."""

    def screen(scan: np.ndarray, left: int) -> np.ndarray:
        whole = np.zeros((240, 380), np.uint8)
        whole[10 : 10 + len(scan), left : left + scan.shape[1]] = scan
        picture = Image.fromarray(whole)
        draw = ImageDraw.Draw(picture)
        draw.text((330, 5), "P100\n12L6\n9.0\n31fps", fill=255)
        draw.rectangle((5, 100, 12, 170), fill=200)
        return np.asarray(picture)

    scans = [texture(seed, 200, 220) for seed in range(5)]
    assert duplicate_pairs([screen(scan, 60) for scan in scans]) == []
    assert duplicate_pairs([screen(scans[0], 60), screen(scans[0], 90), screen(scans[1], 60)]) == [(0, 1)]


@pytest.mark.parametrize("threshold", [0.0, 0.6, 1.1])
def test_a_threshold_that_candidates_do_not_reach_is_refused(texture, threshold):
    with pytest.raises(ValueError, match="threshold over 0.6 and up to 1"):
        duplicate_pairs([texture(1), texture(2)], threshold)
