"""Laws of the mixed stream: the share asked for, every image in it, and none more often than need be."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from mgcc_monai.data.items import generated_share, held_out_items, mixed_items
from mgcc_monai.errors import MGCCError


def kind(name: str, count: int) -> list[dict[str, str]]:
    return [{"image": f"{name} {index}", "class": "b"} for index in range(count)]


def mixed(real: int, generated: int, share: Any) -> tuple[list[int], list[int]]:
    """How often each real and each generated image comes."""
    found = Counter(item["image"] for item in mixed_items(kind("real", real), kind("generated", generated), share))
    reals, makes = ([found[f"{name} {i}"] for i in range(n)] for name, n in (("real", real), ("generated", generated)))
    return reals, makes


def random_sizes() -> list[tuple[int, int, float]]:
    random = np.random.default_rng(0)
    sizes = [(int(r), int(g), float(s)) for r, g, s in zip(*random.integers(1, 200, (2, 300)), random.random(300))]
    return [(r, g, min(max(s, 0.02), 0.98)) for r, g, s in sizes]


def test_share_is_met_and_every_image_is_there():
    """The share to half an image; one kind comes as it is, and the other's images equally often to within one."""
    for real, generated, share in random_sizes():
        reals, makes = mixed(real, generated, share)
        total = sum(reals) + sum(makes)
        assert sum(makes) / total == pytest.approx(share, abs=0.5 / total + 1e-9), (real, generated, share)
        assert min(reals) >= 1 and min(makes) >= 1
        assert max(reals) - min(reals) <= 1 and max(makes) - min(makes) <= 1
        assert max(reals) == 1 or max(makes) == 1, (real, generated, share)


@pytest.mark.parametrize(
    "real, generated, share, reals, makes",
    [(10, 10, 0.5, 10, 10), (30, 10, 0.25, 30, 10), (10, 10, 0.25, 30, 10), (7, 3, 0.7, 7, 16), (49, 1, 0.04, 49, 2)],
)
def test_numbers_by_hand(real, generated, share, reals, makes):
    found = mixed(real, generated, share)
    assert (sum(found[0]), sum(found[1])) == (reals, makes)


def test_ends_are_one_kind_alone_as_it_is():
    assert mixed(4, 3, 0) == ([1] * 4, [0] * 3) == mixed(4, 3, 0.0)
    assert mixed(4, 3, 1) == ([0] * 4, [1] * 3) == mixed(4, 3, 1.0)
    assert mixed(4, 0, 0) == ([1] * 4, [])
    assert mixed(0, 3, 1) == ([], [1] * 3)
    assert mixed_items([], [], 0) == []


def test_items_of_both_kinds_hold_the_same_and_are_copies():
    real, made = kind("real", 1), [{**item, "source": "synthetic"} for item in kind("generated", 3)]
    found = mixed_items(real, made, 0.5)
    assert {tuple(item) for item in found} == {("image",)}, "a batch can hold both"
    for item in found:
        item["image"] = "changed"
    assert real == kind("real", 1)
    assert len({id(item) for item in found}) == len(found)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share):
    with pytest.raises(MGCCError, match="--generated_fraction .*from 0 to 1"):
        mixed(3, 3, share)


@pytest.mark.parametrize("share", [0.1, 1])
def test_no_generated_image_is_told_with_what_to_run(share):
    with pytest.raises(MGCCError, match=r"--generated_fraction .*no generated image.*generate\.json.*give 0"):
        mixed(3, 0, share)


def test_no_real_image_is_told():
    with pytest.raises(MGCCError, match="no real unlabelled image; give 1"):
        mixed(0, 3, 0.5)


def test_share_from_the_command_line():
    assert mixed(4, 4, "0.5") == ([1] * 4, [1] * 4)
    with pytest.raises(MGCCError, match="--generated_fraction half: give a number"):
        mixed(4, 4, "half")


def test_held_out_items_are_the_validation_list_without_labels():
    datalist = {
        "validation": [
            {"image": "a.png", "label": "a_mask.png", "class": "b", "group": "1"},
            {"image": "c.png", "label": "c_mask.png", "group": "2"},
        ],
        "test": [{"image": "secret.png", "label": "m.png"}],
        "training": [{"image": "t.png", "label": "m.png"}],
    }
    assert held_out_items(datalist) == [{"image": "a.png", "class": "b"}, {"image": "c.png", "class": ""}]


def test_default_takes_generated_images_where_there_are_some():
    assert mixed(4, 3, None) == ([0] * 4, [1] * 3)
    assert mixed(4, 0, None) == ([1] * 4, [])
    assert [generated_share([{}] * n) for n in (0, 3)] == [0.0, 1.0]
