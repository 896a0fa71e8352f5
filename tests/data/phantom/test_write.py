"""Phantoms: their lesions show their signs, they depend on seed and index alone, and their dataset is whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.contents import LISTS, image_sha256
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.phantom import write as module
from mgcc_monai.data.phantom.anatomy import KINDS, make_scene
from mgcc_monai.data.phantom.physics import Scanner, form_image
from mgcc_monai.data.phantom.write import make_phantom, write_phantoms
from mgcc_monai.data.prepare import split
from mgcc_monai.data.splits import Record, split_groups
from mgcc_monai.errors import MGCCError

SMALL = (80, 100)


def signs(kind, index):
    """Level (dB) inside a lesion, in a ring about it, behind it and beside what is behind it."""
    rng = np.random.default_rng([7, index])
    shape, spacing, margin = (300, 400), 0.12, 24
    scene = make_scene(rng, kind, shape, spacing, margin)
    power = form_image(scene, Scanner(spacing_mm=spacing, noise_db=-70.0), rng) ** 2
    inside = scene.label > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    ring = binary_dilation(inside, iterations=12) & ~binary_dilation(inside, iterations=3)
    core = inside & ~binary_dilation(~inside, iterations=4)
    middle, half = int(columns.mean()), len(columns) // 2
    behind = np.s_[rows[-1] + 8 : rows[-1] + 48, middle - half // 3 : middle + half // 3]
    beside = np.ones(shape[1], bool)
    beside[max(middle - half - 20, 0) : middle + half + 20] = False
    beside[:margin] = beside[-margin:] = False
    levels = [power[core], power[ring], power[behind], power[rows[-1] + 8 : rows[-1] + 48][:, beside]]
    return [10 * np.log10(np.mean(level)) for level in levels]


@pytest.mark.parametrize(("kind", "darker", "posterior"), [("cyst", 18, 1), ("solid", 5, 0), ("shadowing", 10, -1)])
def test_lesions_show_their_signs(kind, darker, posterior):
    inside, ring, behind, beside = np.array([signs(kind, index) for index in range(10)]).T
    assert np.all(ring - inside > darker)
    change = np.mean(behind - beside)
    if posterior > 0:
        assert change > 3
    elif posterior < 0:
        assert change < -6
    else:
        assert abs(change) < 6


@pytest.fixture(scope="module")
def phantoms():
    return [make_phantom(0, index, SMALL) for index in range(40)]


def test_the_first_phantom_of_seed_0_is_this_one():
    """Whoever changes the phantoms changes what runs on them are compared with: say so in the changelog.

    NumPy rounds differently by the processor's instructions: between two of them one pixel is one grey level off.
    """
    phantom = make_phantom(0, 0)
    assert phantom.kind == "solid" and phantom.image.shape == (453, 530)
    assert image_sha256(phantom.image) in {
        "0f5cbf18c6f459a51202d9be7f0c5a6f764d3da1e518c592743a7378f2ad922c",  # AVX-512
        "c25b86e29c468819ed2165202c1a6ac6e8415397c2d928fa8c82cc07dc3f55b1",  # AVX2
        "6f534eb9351907ea4ccfa747ebc33c08e64d0d39a8b4aaa07f4ba24ea34b22b6",  # without either
    }
    assert image_sha256(phantom.label) == "bd8e7492bc85c7db319bea7b9657ca09a2968a08609ce66a78ee951b3f34ff3f"


def test_labels_cover_the_lesion_and_normals_have_none(phantoms):
    for phantom in phantoms:
        assert phantom.image.shape == phantom.label.shape == SMALL
        assert phantom.image.dtype == phantom.label.dtype == np.uint8
        assert phantom.kind in KINDS
        inside = phantom.label > 0
        if phantom.kind == "normal":
            assert not inside.any()
            continue
        assert set(np.unique(phantom.label)) == {0, 1}
        assert 0.02 <= inside.mean() <= 0.2
        ring = binary_dilation(inside, iterations=6) & ~binary_dilation(inside, iterations=1)
        assert phantom.image[ring].mean() > phantom.image[inside].mean() + 20
        border = np.concatenate([phantom.label[0], phantom.label[-1], phantom.label[:, 0], phantom.label[:, -1]])
        assert not border.any()


def test_every_ten_hold_three_of_each_lesion_and_a_normal(phantoms):
    kinds = [phantom.kind for phantom in phantoms]
    tens = [kinds[first : first + 10] for first in range(0, 40, 10)]
    assert all([ten.count(kind) for kind in KINDS] == [3, 3, 3, 1] for ten in tens)
    assert len({tuple(ten) for ten in tens}) > 1  # in another order each


def test_images_use_the_grey_scale(phantoms):
    for phantom in phantoms:
        assert 50 < phantom.image.mean() < 170
        assert phantom.image.std() > 20
        assert np.mean(phantom.image == 255) < 0.08


# Determinism


def test_a_phantom_is_a_function_of_seed_and_index():
    first = make_phantom(3, 5, SMALL)
    make_phantom(3, 4, SMALL)
    again, other_index, other_seed = make_phantom(3, 5, SMALL), make_phantom(3, 6, SMALL), make_phantom(4, 5, SMALL)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    assert first.kind == again.kind
    assert np.any(first.image != other_index.image)
    assert np.any(first.image != other_seed.image)


def test_default_sizes_vary():
    shapes = {make_phantom(0, index).image.shape for index in range(4)}
    assert len(shapes) > 1
    assert all(300 <= height <= 480 and 360 <= width <= 560 for height, width in shapes)


@pytest.mark.parametrize("size", [(32, 32), (64, 200), (256, 128)])
def test_any_sensible_size_works(size):
    for index in range(3):
        assert make_phantom(1, index, size).image.shape == size


@pytest.mark.parametrize(
    ("arguments", "told"),
    [((-1, 0), "seed"), ((0, -1), "index"), ((0, 0, (8, 100)), r"size.*\(8, 100\)"), ((0, 0, (100,)), r"size.*100")],
)
def test_impossible_phantoms_are_refused(arguments, told):
    with pytest.raises(MGCCError, match=told):
        make_phantom(*arguments)


# The dataset

TINY = (32, 40)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    return folder, write_phantoms(folder, count=30, seed=2, label_fraction=0.5, size=TINY)


def test_the_dataset_loads_and_holds_every_image_once(dataset):
    folder, written = dataset
    content = load_datalist(folder)
    assert content == written
    assert content["protocol"] == "strict"
    names = [Path(item["image"]).name for name in LISTS for item in content[name]]
    assert sorted(names) == [f"phantom-{index:04d}.png" for index in range(30)]
    assert all(content[name] for name in LISTS)
    assert not list(folder.parent.glob(".*"))


def test_items_tell_what_the_files_hold(dataset):
    _, content = dataset
    for name in LISTS:
        for item in content[name]:
            phantom = make_phantom(2, int(item["group"][-4:]), TINY)
            assert ("label" in item) == (name != "unlabeled")
            assert (item["class"] == "normal") == (name == "normal")
            assert (item["class"], item["source"]) == (phantom.kind, "phantom")
            label = np.asarray(Image.open(item.get("label", item.get("withheld_label"))))
            np.testing.assert_array_equal(np.asarray(Image.open(item["image"])), phantom.image)
            np.testing.assert_array_equal(label, phantom.label * 255)
            assert item["sha256"] == image_sha256(phantom.image)
            assert item["label_sha256"] == image_sha256(phantom.label)


def test_half_of_the_training_labels_are_withheld(dataset):
    _, content = dataset
    assert abs(len(content["training"]) - len(content["unlabeled"])) <= 3
    assert {item["class"] for item in content["training"]} == {"cyst", "solid", "shadowing"}


def test_the_smallest_count_fills_its_lists_with_the_same_images(dataset, tmp_path):
    folder, _ = dataset
    few = write_phantoms(tmp_path / "few", count=10, seed=2, size=TINY)
    assert all(few[name] for name in LISTS if name != "unlabeled")
    for file in (tmp_path / "few" / "images").iterdir():
        assert file.read_bytes() == (folder / "images" / file.name).read_bytes()


@pytest.mark.parametrize("count", [9, 0, -1, 12.0, True, "12"])
def test_an_impossible_count_is_refused(tmp_path, count):
    with pytest.raises(MGCCError, match="count"):
        write_phantoms(tmp_path / "new", count=count)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten_unasked(tmp_path):
    folder = tmp_path / "phantom"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for overwrite in (False, True):  # a folder that is no dataset is never replaced
        with pytest.raises(MGCCError, match="not"):
            write_phantoms(folder, count=10, size=TINY, overwrite=overwrite)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(MGCCError, match="a file"):
        write_phantoms(folder / "notes.txt", count=10, size=TINY)


def test_a_failure_leaves_the_former_dataset_and_no_debris(tmp_path):
    folder = tmp_path / "phantom"
    before = write_phantoms(folder, count=10, seed=0, size=TINY)
    with pytest.raises(MGCCError, match="label_fraction"):
        write_phantoms(folder, count=10, seed=1, size=TINY, label_fraction=0.0, overwrite=True)
    assert load_datalist(folder) == before
    after = write_phantoms(folder, count=10, seed=1, size=TINY, overwrite=True)
    assert after["hash"] != before["hash"]
    assert [path.name for path in tmp_path.iterdir()] == ["phantom"]


# Near-duplicates: phantoms that happen to look alike are a group, and stay in one list


def parted(content, pairs):
    """Of pairs of images those that stand on two sides of a split."""
    side = {}
    for name in ("training", "unlabeled", "validation", "test"):
        for item in content[name]:
            side[int(Path(item["image"]).stem[-4:])] = "training" if name == "unlabeled" else name
    return [pair for pair in pairs if len({side.get(index) for index in pair} - {None}) > 1]


@pytest.mark.parametrize(
    ("options", "alike"),  # pairs that the search finds, some of which the lists of before parted
    [
        ({"count": 70, "seed": 5, "label_fraction": 0.5, "size": (64, 80)}, [(9, 44), (9, 67), (50, 60)]),
        ({"count": 60, "seed": 5, "size": TINY}, [(9, 44)]),
    ],
)
def test_near_duplicates_stay_in_one_list(options, alike, tmp_path):
    content = write_phantoms(tmp_path / "set", **options)
    assert not parted(content, alike) and not check_dataset(tmp_path / "set").faults
    groups = {int(Path(i["image"]).stem[-4:]): i["group"] for name in LISTS for i in content[name]}
    assert all(groups[first] == groups[second] for first, second in alike)
    for index in (0, 9, 44):  # the images are what they were
        image = np.asarray(Image.open(tmp_path / "set" / "images" / f"phantom-{index:04d}.png"))
        np.testing.assert_array_equal(image, make_phantom(options["seed"], index, options["size"]).image)


@pytest.mark.parametrize("seed", range(12))
def test_any_seed_passes_the_checks(seed, tmp_path):
    options = {"count": (10, 11, 23, 60)[seed % 4], "size": ((32, 32), (32, 40), (48, 33))[seed % 3]}
    write_phantoms(tmp_path / "set", seed=seed, label_fraction=(1.0, 0.5, 0.01)[seed % 3], split_seed=seed, **options)
    assert not check_dataset(tmp_path / "set").faults


@pytest.mark.parametrize(("count", "seed", "split_seed"), [(10, 2, 0), (30, 2, 0), (60, 6, 3), (60, 0, 1)])
def test_lists_that_part_no_group_are_those_of_image_by_image(count, seed, split_seed, tmp_path):
    """So that a dataset of before is made again as it was."""
    content = write_phantoms(tmp_path / "set", count=count, seed=seed, size=TINY, split_seed=split_seed)
    lesions = [item for name in ("training", "validation", "test") for item in content[name]]
    records = [Record(item["image"], item["class"], item["image"]) for item in lesions]
    if count == 10:  # too few in each class
        records = [record._replace(class_name="lesion") for record in records]
    wanted = split_groups(records, seed=split_seed)
    for name in ("training", "validation", "test"):
        assert sorted(item["image"] for item in content[name]) == wanted[name]


@pytest.mark.parametrize("label_fraction", [1.0, 0.5])
@pytest.mark.parametrize("count", [10, 60])
def test_split_of_phantoms_is_the_same_dataset(count, label_fraction, tmp_path):
    content = write_phantoms(tmp_path / "set", count=count, seed=5, size=TINY, label_fraction=label_fraction)
    assert split(str(tmp_path / "set"), str(tmp_path / "set" / "again.json"))["hash"] == content["hash"]


def test_split_mends_a_dataset_whose_groups_lack_near_duplicates(tmp_path, monkeypatch):
    options = {"count": 60, "seed": 5, "size": TINY, "label_fraction": 0.5}
    with monkeypatch.context() as patch:  # as it was made before
        patch.setattr(module, "regroup", lambda items, _: [item["group"] for item in items])
        write_phantoms(tmp_path / "old", **options)
    assert {fault.check for fault in check_dataset(tmp_path / "old").faults} == {"near-copy-across-lists"}
    file = tmp_path / "old" / "dataset.json"
    mended = split(str(file), str(file))
    assert not check_dataset(file).faults
    assert mended["hash"] == write_phantoms(tmp_path / "new", **options)["hash"]


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        *(({"label_fraction": value}, "label_fraction is") for value in (0, 2, -1, 1.01, float("nan"), "half", True)),
        *(({"split_seed": value}, "split_seed is") for value in (-1, 1.5, "x", None)),
        *(({"seed": value}, "seed is") for value in (-1, 0.5, "x")),
        *(({"count": value}, "count is") for value in (0, 9, 1e2, "many")),
        *(({"size": value}, "size is") for value in (0, 64, "64x80", (64,), (64, 80, 3), (31, 40), (64.0, 80), "ab")),
        ({"size": (10**6, 10**6)}, "size is"),
        ({"overwrite": "maybe"}, "overwrite is 'maybe'"),
    ],
)
def test_options_are_refused_before_any_image_is_drawn(options, told, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make_phantom", lambda *_: pytest.fail("an image was drawn"))
    with pytest.raises(MGCCError, match=told) as error:
        write_phantoms(tmp_path / "set", **options)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_all_wrong_options_are_told_together(tmp_path):
    with pytest.raises(MGCCError) as error:
        write_phantoms(tmp_path / "set", count=1, seed=-1, size=8, label_fraction=2, split_seed=-1)
    assert len(str(error.value).splitlines()) == 6


@pytest.mark.parametrize("size", [(400, 32), (240, 33), (32, 300)])
def test_narrow_images_hold_their_lesions(size):
    for index in range(3):
        phantom = make_phantom(1, index, size)
        assert phantom.image.shape == size and phantom.label.any() == (phantom.kind != "normal")
