from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from mgcc_monai.data.contents import dataset_hash, image_sha256, image_statistics
from mgcc_monai.data.dataset import load_datalist, write_dataset
from mgcc_monai.errors import MGCCError


@pytest.fixture
def dataset(tmp_path, texture, disc):
    """A dataset of one image a list, and two to train on."""
    folder = tmp_path / "set"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    lists = {}
    for seed, name in enumerate(("training", "training", "unlabeled", "validation", "test", "normal")):
        Image.fromarray(texture(seed)).save(folder / f"images/{seed}.png")
        item = {"image": f"images/{seed}.png", "class": "benign", "group": f"g{seed}"}
        if name != "unlabeled":
            Image.fromarray(disc() * (name != "normal")).save(folder / f"labels/{seed}.png")
            item["label"] = f"labels/{seed}.png"
        lists.setdefault(name, []).append(item)
    write_dataset(folder, lists, protocol="strict", split_seed=3)
    return folder


def _edit(folder, change):
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def test_what_is_written_is_read_with_absolute_paths(dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    content = load_datalist("set")
    assert content == load_datalist("set/dataset.json")
    item = content["training"][1]
    assert item["image"] == os.path.join(dataset, "images/1.png") and os.path.isfile(item["label"])
    assert (content["classes"], content["split_seed"], content["name"]) == (["benign"], 3, "set")
    by_monai = load_decathlon_datalist(str(dataset / "dataset.json"), True, "training", base_dir=str(dataset))
    assert [i["image"] for i in by_monai] == [i["image"] for i in content["training"]]


def test_hashes_are_of_pixels(dataset, texture, disc):
    item = load_datalist(dataset)["training"][0]
    assert item["sha256"] == hashlib.sha256(b"60x80:" + texture(0).tobytes()).hexdigest()
    assert item["label_sha256"] == hashlib.sha256(b"60x80:" + (disc() // 255).tobytes()).hexdigest()
    assert image_sha256(np.zeros((2, 3), np.uint8)) != image_sha256(np.zeros((3, 2), np.uint8))


def test_dataset_hash_tells_lists_and_labels_apart_but_not_order_and_names():
    a, b = ({"sha256": s, "label_sha256": s.upper(), "label": "x", "image": s} for s in "ab")
    base = dataset_hash({"training": [a, b], "test": [a]})
    assert base == dataset_hash({"test": [a | {"image": "other", "group": "g"}], "training": [b, a], "normal": []})
    assert len({base, dataset_hash({"training": [a], "test": [a, b]}), dataset_hash({"training": [a, b]})}) == 3
    withheld = {"sha256": "a", "label_sha256": "A", "withheld_label": "x"}
    unlabeled = dataset_hash({"training": [a], "unlabeled": [withheld]})
    assert unlabeled == dataset_hash({"training": [a], "unlabeled": [{"sha256": "a"}]})  # the label is not used
    assert base != dataset_hash({"training": [a, b | {"label_sha256": "C"}], "test": [a]})


def test_statistics_weigh_images_not_pixels(tmp_path):
    arrays = [np.array([[10, 10, 20, 30]]), np.array([[0, 255]]), np.full((50, 50), 9)]
    for k, array in enumerate(arrays):
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / f"{k}.png")
    pool = np.concatenate([np.tile([0, 0, 0.5, 1.0], 5), np.tile([0, 1.0], 10), np.zeros(20)])  # 20 pixels an image
    found = image_statistics([tmp_path / f"{k}.png" for k in range(3)])
    assert found == {"mean": pytest.approx(pool.mean(), abs=1e-6), "std": pytest.approx(pool.std(), abs=1e-6)}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(dataset, monkeypatch):
    before = (dataset / "dataset.json").read_bytes()
    items = {"training": load_datalist(dataset)["training"]}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MGCCError, match="No space"):
        write_dataset(dataset, items)
    assert (dataset / "dataset.json").read_bytes() == before
    assert sorted(p.name for p in dataset.iterdir()) == ["dataset.json", "images", "labels"]


FAULTS = {
    "parent": (lambda c: c["test"][0].update(image="../secret.png"), "../secret.png lies outside"),
    "absolute": (lambda c: c["test"][0].update(label="/etc/passwd"), "/etc/passwd lies outside"),
    "drive": (lambda c: c["test"][0].update(image="C:\\x.png"), "lies outside"),
    "link": (lambda c: c["unlabeled"][0].update(image="images/link.png"), "images/link.png lies outside"),
    "key": (lambda c: c.pop("normal"), "lacks normal"),
    "item": (lambda c: c["training"][0].pop("label"), "lacks label"),
    "label": (lambda c: c["unlabeled"][0].update(label="labels/0.png"), "withheld_label"),
    "list": (lambda c: c.update(test={}), "should be lists"),
    "changed": (lambda c: c["training"].pop(), "were changed"),
    "leak": (lambda c: c["test"][0].update(group="g2"), "images/4.png in test has the group g2 of images/2.png"),
}


@pytest.mark.parametrize(("change", "told"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_file_is_refused(dataset, change, told):
    (dataset.parent / "secret.png").write_bytes((dataset / "images/0.png").read_bytes())
    (dataset / "images/link.png").symlink_to(dataset.parent / "secret.png")
    _edit(dataset, change)
    with pytest.raises(MGCCError) as error:
        load_datalist(dataset)
    assert told in str(error.value) and "dataset.json" in str(error.value)


def test_all_missing_files_are_listed_together(dataset):
    for name in ("images/0.png", "labels/3.png", "images/5.png"):
        (dataset / name).unlink()
    with pytest.raises(MGCCError) as error:
        load_datalist(dataset)
    assert all(name in str(error.value) for name in ("3 faults", "images/0.png", "labels/3.png", "images/5.png"))


def test_no_dataset_says_how_to_make_one(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(MGCCError, match="python -m mgcc_monai prepare --source"):
            load_datalist(folder)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(MGCCError, match="not valid JSON"):
        load_datalist(tmp_path)


def test_a_leak_is_not_written(dataset):
    lists = {name: load_datalist(dataset)[name] for name in ("training", "test")}
    lists["test"][0]["group"] = lists["training"][0]["group"]
    with pytest.raises(MGCCError, match="has the group g0"):
        write_dataset(dataset, lists, file_name="other.json")
    assert not (dataset / "other.json").exists()
    write_dataset(dataset, lists, file_name="other.json", protocol="published")


def test_an_item_without_a_column_of_others_gets_an_empty_text(dataset):
    _edit(dataset, lambda content: content["training"][0].update(birads="4"))
    content = json.loads((dataset / "dataset.json").read_text())
    lists = {name: content[name] for name in ("training", "unlabeled", "validation", "test", "normal")}
    _edit(dataset, lambda content: content.update(hash=dataset_hash(lists)))
    read = load_datalist(dataset)
    assert [item["birads"] for item in read["training"]] == ["4", ""] and read["test"][0]["birads"] == ""
    assert "label" not in read["unlabeled"][0]
