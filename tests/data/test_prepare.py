from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data import prepare as module
from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.describe import describe
from mgcc_monai.data.formats import frames as paths
from mgcc_monai.data.layouts import LAYOUTS, busi
from mgcc_monai.data.prepare import prepare, split
from mgcc_monai.errors import MGCCError

LISTS = ("training", "unlabeled", "validation", "test", "normal")


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _images(dataset, *names):
    return {item["image"] for name in names for item in dataset[name]}


def test_a_busi_tree_becomes_a_dataset(busi_tree, tmp_path, texture, disc):
    (busi_tree / "benign" / "benign (1)_mask_1.png").write_bytes(b"")
    second = disc(row=12, column=12)
    Image.fromarray(second).save(busi_tree / "benign" / "benign (1)_mask_1.png")
    out = tmp_path / "out"
    summary = prepare(str(busi_tree), str(out), label_fraction=0.5)
    dataset = load_datalist(out)
    assert summary["images"] == 33 and summary["duplicates"] == 8  # malignant 2 and 3, 4 and 5, 6 and 7, 8 and 9
    assert {item["original"] for item in dataset["normal"]} == {f"normal/normal ({n}).png" for n in (1, 2, 3)}
    assert len(_images(dataset, *LISTS)) == 33 == len(list((out / "images").iterdir()))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "images" / "benign-1.png")), texture(1001))
    np.testing.assert_array_equal(np.asarray(Image.open(out / "labels" / "benign-1.png")), disc() | second)
    sides = [
        {item["group"] for name in names for item in dataset[name]}
        for names in (("training", "unlabeled"), ("validation",), ("test",))
    ]
    assert all(sides) and not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    group = {item["original"]: item["group"] for name in LISTS for item in dataset[name]}
    assert group["malignant/malignant (2).png"] == group["malignant/malignant (3).png"]
    assert all("label" not in item and Path(item["withheld_label"]).is_file() for item in dataset["unlabeled"])
    table = describe(out)
    assert summary["hash"] in table and "33 images in 29 groups; 8 are not alone" in table
    assert "training" in table and "left_out" not in table


def test_the_result_does_not_depend_on_the_order_of_files(busi_tree, tmp_path, monkeypatch):
    prepare(str(busi_tree), str(tmp_path / "one" / "set"), label_fraction=0.5)
    listed = paths._sort_out

    def reversed_order(folder, tree, apart):
        inner = listed(folder, tree, apart)
        tree.images = {name: images[::-1] for name, images in reversed(tree.images.items())}
        return inner[::-1]

    monkeypatch.setattr(paths, "_sort_out", reversed_order)
    scanned = busi.scan_busi
    backwards = lambda source, skip: (scanned(source, skip)[0][::-1], [])  # noqa: E731
    monkeypatch.setitem(LAYOUTS, "busi", LAYOUTS["busi"]._replace(scan=backwards))
    prepare(str(busi_tree), str(tmp_path / "two" / "set"), label_fraction=0.5)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_published_reports_on_what_it_chose_by(busi_tree, tmp_path):
    prepare(str(busi_tree), str(tmp_path / "out"), protocol="published")
    dataset = load_datalist(tmp_path / "out")
    assert dataset["protocol"] == "published" and dataset["validation"] == dataset["test"]
    assert (len(dataset["training"]), len(dataset["test"])) == (21, 9)
    assert "validation and test are the same" in describe(tmp_path / "out")


def test_patients_stay_together(busi_tree, tmp_path):
    names = [f"benign ({n})" for n in range(1, 21)] + [f"malignant ({n})" for n in range(1, 11)]
    rows = [f"{name}.png,p{k // 3}" for k, name in enumerate(names)] + [f"normal ({n}),n{n}" for n in (1, 2, 3)]
    (tmp_path / "p.csv").write_text("image,patient\n" + "\n".join(rows))
    prepare(str(busi_tree), str(tmp_path / "out"), groups=str(tmp_path / "p.csv"))
    dataset = load_datalist(tmp_path / "out")
    where = {Path(i["original"]).stem: name for name in ("training", "validation", "test") for i in dataset[name]}
    assert all(len({where[n] for n in names[k : k + 3]}) == 1 for k in range(0, 30, 3))


def test_unlabelled_images_are_added_and_copies_of_held_out_ones_left_out(busi_tree, tmp_path, texture):
    prepare(str(busi_tree), str(tmp_path / "first"))
    test_image = next(i for i in load_datalist(tmp_path / "first")["test"] if i["class"] == "benign")
    more = tmp_path / "more"
    more.mkdir()
    Image.fromarray(texture(99)).save(more / "benign (1).png")  # another image of an equal name
    Image.open(test_image["image"]).point(lambda v: v // 2).save(more / "copy.png")
    summary = prepare(str(busi_tree), str(tmp_path / "out"), unlabeled=str(more), normals_as_unlabeled=True)
    dataset = load_datalist(tmp_path / "out")
    assert summary["left_out"] == 1 and "left_out" in describe(tmp_path / "out")
    assert [i["original"] for i in dataset["left_out"]] == ["unlabeled/copy.png"]
    originals = {i["original"] for i in dataset["unlabeled"]}
    assert originals == {"unlabeled/benign (1).png", *(f"normal/normal ({n}).png" for n in (1, 2, 3))}
    assert len({i["image"].lower() for n in LISTS for i in dataset[n]} | _images(dataset, "left_out")) == 35
    for seed in (0, 1, 2):  # another split may use what was left out, and never trains on a copy
        split(str(tmp_path / "out"), str(tmp_path / "out" / "again.json"), split_seed=seed)
        again = load_datalist(tmp_path / "out" / "again.json")
        held_out = {i["group"] for name in ("validation", "test") for i in again[name]}
        assert ("copy" in str(_images(again, "unlabeled"))) == (test_image["group"] not in held_out)
        assert (
            len({*_images(again, *LISTS), *_images(again | {"left_out": again.get("left_out", [])}, "left_out")}) == 35
        )


def test_split_of_the_same_options_is_the_same_dataset(busi_tree, tmp_path):
    out = tmp_path / "out"
    prepare(str(busi_tree), str(out), label_fraction=0.3, split_seed=5)
    split(str(out), str(out / "same.json"), label_fraction=0.3, split_seed=5)
    assert (out / "same.json").read_text() == (out / "dataset.json").read_text()
    split(str(out / "same.json"), str(out / "more.json"), label_fraction=0.6, split_seed=5)
    few, more = load_datalist(out), load_datalist(out / "more.json")
    assert _images(few, "training") < _images(more, "training")
    assert _images(few, "test") == _images(more, "test")
    for outside in (tmp_path / "x.json", out / "images" / "x.json"):
        before = _files(tmp_path)
        if outside.parent == tmp_path:  # above the images: paths can stay relative
            split(str(out), str(outside))
            assert load_datalist(outside)["test"]
            outside.unlink()
        else:
            with pytest.raises(MGCCError, match="not in the dataset's folder"):
                split(str(out), str(outside))
        assert _files(tmp_path) == before


def test_split_keeps_what_it_is_not_told(busi_tree, tmp_path):
    out = tmp_path / "out"
    prepare(str(busi_tree), str(out), label_fraction=0.3, split_seed=5, protocol="published")
    kept = ("label_fraction", "split_seed", "protocol")
    for options in ({}, {"label_fraction": 0.6}, {"split_seed": 0}, {"protocol": "strict"}):
        split(str(out), str(out / "again.json"), **options)
        before, again = load_datalist(out), load_datalist(out / "again.json")
        assert [again[key] for key in kept] == [options.get(key, before[key]) for key in kept]
        assert (again["hash"] == before["hash"]) == (not options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        *(({"label_fraction": value}, "label_fraction is") for value in (0, 2, -0.5, float("nan"), "half")),
        *(({"split_seed": value}, "split_seed is") for value in (-1, 1.5, "one")),
        ({"protocol": "strickt"}, "protocol is 'strickt'"),
    ],
)
def test_split_checks_its_options(busi_tree, tmp_path, options, told):
    prepare(str(busi_tree), str(tmp_path / "out"))
    before = _files(tmp_path)
    with pytest.raises(MGCCError, match=told):
        split(str(tmp_path / "out"), str(tmp_path / "out" / "again.json"), **options)
    assert _files(tmp_path) == before


@pytest.mark.parametrize("groups", ["each image its own", "near-duplicates in two lists, of one group"])
def test_split_mends_lists_that_leak(busi_tree, tmp_path, monkeypatch, groups):
    """Of a dataset without the groups, and of one in which they were entered by hand, as the checks advise."""
    file = tmp_path / "out" / "dataset.json"
    with monkeypatch.context() as patch:
        patch.setattr(module, "duplicate_groups", lambda images: list(range(len(images))))
        prepare(str(busi_tree), str(file.parent))
    content = json.loads(file.read_text())
    if groups != "each image its own":
        for item in (item for name in LISTS for item in content[name]):
            number = int(Path(item["image"]).stem.rstrip("-").rsplit("-", 1)[1])
            item["group"] = f"m{number // 2}" if item["class"] == "malignant" else item["group"]
        file.write_text(json.dumps(content))
        with pytest.raises(MGCCError, match="run prepare or split again"):
            load_datalist(file)
    assert check_dataset(file).faults
    split(str(file), str(file))
    assert not check_dataset(file).faults
    mended = load_datalist(file)
    group = {Path(item["original"]).name: item["group"] for name in LISTS for item in mended[name]}
    assert all(group[f"malignant ({n}).png"] == group[f"malignant ({n + 1}).png"] for n in (2, 4, 6, 8))


def _write(pixels):
    return lambda path: Image.fromarray(pixels).save(path)


FAULTS = {
    "benign (1)_mask.png": (lambda p: p.unlink(), "benign (1).png: an image without a mask"),
    "benign (2).png": (lambda p: p.unlink(), "benign (2)_mask.png: a mask without an image"),
    "benign (3)_mask.png": (
        _write(np.zeros((50, 70), np.uint8)),
        "benign (3)_mask.png: 70 x 50 pixels, but its image benign (3).png is 80 x 60",
    ),
    "benign (4)_mask.png": (
        _write(np.arange(4800, dtype=np.uint16).astype(np.uint8).reshape(60, 80) % 3),
        "benign (4)_mask.png: not a binary mask, 3 values found (0, 1, 2)",
    ),
    "benign (5).png": (lambda p: p.write_bytes(p.read_bytes()[:900]), "benign (5).png: damaged or truncated"),
    "benign (6).png": (lambda p: p.write_bytes(b"<html><body>404"), "benign (6).png: a web page (HTML)"),
    "benign (7).png": (lambda p: p.write_bytes(b"version https://git-lfs.github"), "benign (7).png: a Git LFS pointer"),
    "benign (8)_mask.png": (lambda p: p.write_bytes(b""), "benign (8)_mask.png: the file is empty"),
    "benign (9).png": (_write(np.full((60, 80), 7, np.uint8)), "benign (9).png: every pixel is 7"),
    "clip.mp4": (lambda p: p.write_bytes(b"ftyp"), "clip.mp4: a video"),
    "../normal/normal (1)_mask.png": (_write(np.eye(60, 80, dtype=np.uint8)), "normal (1).png: of class normal, but"),
}


@pytest.mark.parametrize("which", [*([name] for name in FAULTS), list(FAULTS)], ids=[*FAULTS, "all at once"])
def test_faults_are_named_and_nothing_is_written(busi_tree, tmp_path, which):
    for name in which:
        FAULTS[name][0](busi_tree / "benign" / name)
    before = _files(tmp_path)
    with pytest.raises(MGCCError) as error:
        prepare(str(busi_tree), str(tmp_path / "deep" / "out"))
    lines = str(error.value).splitlines()
    for name in which:
        assert sum(FAULTS[name][1] in line for line in lines) == 1, name
    assert len(lines) == len(which) + (len(which) > 1)
    assert _files(tmp_path) == before and not (tmp_path / "deep").exists()


def test_faults_of_further_inputs_are_told_together(busi_tree, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "u.png").write_bytes(b"<html>")
    (tmp_path / "p.csv").write_text("image,patient\nnobody.png,1\n")
    with pytest.raises(MGCCError) as error:
        prepare(str(busi_tree), str(tmp_path / "o"), groups=str(tmp_path / "p.csv"), unlabeled=str(tmp_path / "more"))
    assert "35 faults" in str(error.value)
    assert all(text in str(error.value) for text in ("nobody.png is not among", "no row for image normal/normal (3)"))
    assert "u.png: a web page" in str(error.value) and not (tmp_path / "o").exists()


@pytest.mark.parametrize("layout", ["empty", "unknown"])
def test_an_unknown_layout_shows_both_known_ones(tmp_path, layout):
    (tmp_path / "source").mkdir()
    if layout == "unknown":
        (tmp_path / "source" / "a.png").touch()
    with pytest.raises(MGCCError) as error:
        prepare(str(tmp_path / "source"), str(tmp_path / "out"))
    told = (
        "is an empty folder" if layout == "empty" else "fits no known layout",
        "NAME (1)_mask.png",
        "SOURCE/masks/NAME.png",
    )
    assert all(text in str(error.value) for text in told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": "random"}, "give one of strict, published"),
        ({"label_fraction": 0}, "label_fraction is 0"),
        ({"label_fraction": "half"}, "label_fraction is 'half'"),
        ({"label_fraction": float("nan")}, "label_fraction is nan"),
        ({"label_fraction": 2}, "label_fraction is 2"),
        ({"split_seed": 1.5}, "split_seed is 1.5"),
        ({"split_seed": -1}, "split_seed is -1"),
        ({"overwrite": "false"}, "overwrite is 'false'"),
    ],
)
def test_options_are_checked(busi_tree, tmp_path, options, told):
    with pytest.raises(MGCCError, match=told):
        prepare(str(busi_tree), str(tmp_path / "out"), **options)


def test_what_is_there_is_replaced_only_when_told_and_only_by_a_whole(busi_tree, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(str(busi_tree), str(out))
    before = _files(tmp_path)
    with pytest.raises(MGCCError, match="is not empty.*--overwrite"):
        prepare(str(busi_tree), str(out))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_dataset", full)
        with pytest.raises(MGCCError, match="No space"):
            prepare(str(busi_tree), str(out), overwrite=True)
    assert _files(tmp_path) == before
    prepare(str(busi_tree), str(out), split_seed=1, overwrite=True)
    assert load_datalist(out)["split_seed"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_a_folder_that_is_no_dataset_or_holds_the_source_is_never_replaced(busi_tree, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    before = _files(tmp_path)
    for output, told in (
        (tmp_path / "mine", "not a dataset"),
        (tmp_path, "which is read"),
        (busi_tree, "which is read"),
    ):
        with pytest.raises(MGCCError, match=told):
            prepare(str(busi_tree), str(output), overwrite=True)
    assert _files(tmp_path) == before


def test_plain_folders_with_an_index(shared, tmp_path):
    """Every fifth of the real images, with its class from their table."""
    real, source = shared("data/busi_256"), tmp_path / "source"
    rows = list(csv.DictReader((real / "index.csv").open()))[::5]
    for folder in ("images", "masks"):
        (source / folder).mkdir(parents=True)
        for row in rows:
            (source / folder / row["image"]).symlink_to(real / folder / row["image"])
    (source / "index.csv").write_text("image,class\n" + "\n".join(f"{row['image']},{row['class']}" for row in rows))
    prepare(str(source), str(tmp_path / "out"), label_fraction=0.25)
    dataset = load_datalist(tmp_path / "out")
    listed = {item["original"]: item for name in LISTS for item in dataset[name]}
    assert len(listed) == len(rows) == 125
    assert {i["class"] for i in dataset["normal"]} == {"normal"} and dataset["classes"] == ["benign", "malignant"]
    for row in rows:
        item = listed[f"images/{row['image']}"]
        label = np.asarray(Image.open(item.get("label") or item["withheld_label"])) > 0
        np.testing.assert_array_equal(label, np.asarray(Image.open(real / "masks" / row["image"])))
        assert item["class"] == row["class"]


def test_an_external_dataset_is_for_testing_alone(busi_tree, tmp_path):
    prepare(str(busi_tree), str(tmp_path / "out"), protocol="external")
    dataset = load_datalist(tmp_path / "out")
    assert not dataset["training"] and not dataset["validation"] and not dataset["unlabeled"]
    assert len(dataset["test"]) == 30 and len(dataset["normal"]) == 3
    pixels = np.concatenate([np.asarray(Image.open(item["image"])).ravel() / 255 for item in dataset["test"]])
    assert dataset["statistics"]["mean"] == pytest.approx(pixels.mean(), abs=0.02)
    assert not check_dataset(str(tmp_path / "out")).faults
    for option in ({"label_fraction": 0.5}, {"normals_as_unlabeled": True}):
        with pytest.raises(MGCCError, match="nothing is trained on"):
            prepare(str(busi_tree), str(tmp_path / "other"), protocol="external", **option)
