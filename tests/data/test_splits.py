from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mgcc_monai.data.splits import Record, draw_lists, label_subset, published_split, split_groups
from mgcc_monai.errors import MGCCError


def _records(count: int = 300, seed: int = 0) -> list[Record]:
    """Groups of 1 to 4 images, of two classes; some groups hold both."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), rng.integers(1, 5, count))[:count]
    classes = np.where(rng.random(count)[groups] < 0.3, "malignant", "benign")
    classes[rng.random(count) < 0.03] = "malignant"
    return [Record(f"i{k:03d}", str(c), f"g{g}") for k, (c, g) in enumerate(zip(classes, groups, strict=True))]


def _majority(records: list[Record]) -> dict[str, str]:
    """The class of each image's group, worked out in another way."""
    counts = {r.group: Counter() for r in records}
    for r in records:
        counts[r.group][r.class_name] += 1
    return {r.key: sorted(counts[r.group].items(), key=lambda kv: (-kv[1], kv[0]))[0][0] for r in records}


@pytest.mark.parametrize("seed", range(5))
def test_strict_lists_are_a_partition_by_group_within_the_granularity(seed):
    records = _records(seed=seed)
    lists = split_groups(records, seed=seed)
    assert sorted(key for keys in lists.values() for key in keys) == sorted(r.key for r in records)
    group = {r.key: r.group for r in records}
    sets = [{group[key] for key in keys} for keys in lists.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    majority, largest = _majority(records), max(Counter(group.values()).values())
    total = Counter(majority.values())
    for (name, keys), fraction in zip(lists.items(), (0.7, 0.1, 0.2), strict=True):
        for class_name, count in Counter(majority[key] for key in keys).items():
            assert abs(count - fraction * total[class_name]) < 2 * largest, (name, class_name)


def test_single_images_are_split_to_the_image():
    records = [Record(f"i{k}", "ab"[k >= 60], f"g{k}") for k in range(100)]
    lists = split_groups(records)
    counts = {name: Counter("ab"[int(key[1:]) >= 60] for key in keys) for name, keys in lists.items()}
    assert counts == {"training": {"a": 42, "b": 28}, "validation": {"a": 6, "b": 4}, "test": {"a": 12, "b": 8}}


@pytest.mark.parametrize("draw", [split_groups, published_split, lambda r, seed: label_subset(r, 0.3, seed)])
def test_draws_depend_on_the_seed_and_not_on_the_order(draw):
    records = _records()
    shuffled = [records[k] for k in np.random.default_rng(1).permutation(len(records))]
    assert draw(records, seed=3) == draw(shuffled, seed=3) != draw(records, seed=4)


def test_published_split_reports_on_what_it_chose_by_and_leaks():
    records = _records()
    lists = published_split(records)
    assert lists["validation"] == lists["test"]
    assert sorted(lists["training"] + lists["test"]) == sorted(r.key for r in records)
    test = set(lists["test"])
    for class_name, count in Counter(r.class_name for r in records).items():
        assert sum(r.class_name == class_name and r.key in test for r in records) == round(0.3 * count)
    assert {r.group for r in records if r.key in test} & {r.group for r in records if r.key not in test}


def test_label_subsets_are_nested_whole_groups_of_every_class():
    records = _records()
    group, majority = {r.key: r.group for r in records}, _majority(records)
    total, smaller = Counter(majority.values()), set()
    for fraction in (0.001, 0.1, 0.25, 0.5, 1.0):
        kept = set(label_subset(records, fraction, seed=2))
        assert smaller <= kept
        assert not {group[k] for k in kept} & {r.group for r in records if r.key not in kept}
        for class_name, count in Counter(majority[k] for k in kept).items():
            assert abs(count - fraction * total[class_name]) <= 4
        assert {majority[k] for k in kept} == {"benign", "malignant"}
        smaller = kept
    assert smaller == {r.key for r in records}


def test_the_draws_of_seed_0_stay_what_they_are():
    """Fixed figures: a change here would silently change every dataset made before."""
    records = [Record(f"i{k}", "ab"[k % 2], f"g{k // 4}") for k in range(40)]
    assert split_groups(records, seed=0)["test"] == ["i0", "i1", "i2", "i24", "i25", "i26", "i27", "i3"]
    assert label_subset(records, 0.25, seed=0) == ["i12", "i13", "i14", "i15", "i32", "i33", "i34", "i35"]


def test_too_few_groups_are_told():
    with pytest.raises(MGCCError, match="3 images in 1 groups are too few: validation"):
        split_groups([Record(f"i{k}", "a", "g") for k in range(3)])
    with pytest.raises(MGCCError, match="label_fraction is 0"):
        label_subset(_records(), 0)


def _item(k: int, group: str, label: bool = True, class_name: str = "a") -> dict:
    return {"image": f"i{k}", "class": class_name, "group": group} | ({"label": f"l{k}"} if label else {})


def test_what_is_like_a_held_out_image_is_not_trained_on():
    lesions = [_item(k, f"g{k}") for k in range(40)]
    held_out = [i["group"] for name in ("validation", "test") for i in draw_lists(lesions)[name]]
    trained = draw_lists(lesions)["training"][0]["group"]
    normal = [_item(100, held_out[0], class_name="normal"), _item(101, "n", class_name="normal")]
    extra = [_item(200, held_out[-1], label=False), _item(201, trained, label=False)]
    lists = draw_lists(lesions + normal + extra, label_fraction=0.5, normals_as_unlabeled=True)
    images = {name: {i["image"] for i in items} for name, items in lists.items()}
    assert images["left_out"] == {"i200"} and images["normal"] == {"i100", "i101"}
    assert {"i101", "i201"} < images["unlabeled"] and "i100" not in images["unlabeled"]
    assert len(images["training"]) == 14 and len(images["unlabeled"]) == 14 + 2
    assert all("label" not in item for item in lists["unlabeled"])
    assert sum("withheld_label" in item for item in lists["unlabeled"]) == 15
    assert not {i["image"] for i in draw_lists(lesions + normal + extra)["unlabeled"]} & {"i100", "i101", "i200"}
