"""The figures of a table of cases, counted by hand."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from mgcc_monai.evaluation.metrics import METRICS
from mgcc_monai.evaluation.summary import size_bin, summarise, to_json
from mgcc_monai.evaluation.table import format_table

NAN = float("nan")


def row(image: str, dice: float, **more: object) -> dict:
    base = {metric: dice for metric in METRICS} | {f"network_{metric}": dice / 2 for metric in METRICS}
    base |= {"image": image, "list": "test", "class": "benign", "group": image, "size": "small", "lesions": 1}
    base |= {"lesions_found": 1, "pred_area": 5, "pred_fraction": 0.1, "spacing_row": None, "hd95_mm": NAN}
    return base | {"assd_mm": NAN} | more


ROWS = [
    row("a", 0.9, hd95=4.0, group="g"),
    row("b", 0.7, hd95=8.0, group="g", size="large"),
    row("c", 0.0, hd95=NAN, assd=NAN, lesions=3, lesions_found=0, **{"class": "malignant"}, size="medium"),
    row("d", 0.8, hd95=3.0, **{"class": "malignant"}),
    row("n1", 1.0, list="normal", pred_area=0, pred_fraction=0.0, lesions=0, lesions_found=0, group="m"),
    row("n2", 0.0, list="normal", pred_area=1, pred_fraction=0.02, lesions=0, lesions_found=0, group="m"),
]


def test_headline_is_over_lesion_images_only() -> None:
    summary = summarise(ROWS)
    assert (summary["n"], summary["groups"], summary["runs"]) == (4, 3, 1)
    dice = summary["metrics"]["dice"]
    # of the 27 draws of three groups one is c c c, of mean 0, and eight hold g and d alone, of mean 0.8
    assert (dice["mean"], dice["low"], dice["high"]) == pytest.approx((0.6, 0.0, 0.8)) and dice["n"] == 4
    assert summary["network_size"]["metrics"]["dice"]["mean"] == pytest.approx(0.3)


def test_distances_that_do_not_exist_are_left_out_and_counted() -> None:
    summary = summarise(ROWS)
    assert summary["metrics"]["hd95"]["mean"] == pytest.approx(5.0)
    assert summary["metrics"]["hd95"]["n"] == 3
    assert (summary["hd95_left_out"], summary["assd_left_out"]) == (1, 1)


def test_parts_add_up() -> None:
    summary = summarise(ROWS)
    assert {name: part["n"] for name, part in summary["by_class"].items()} == {"benign": 2, "malignant": 2}
    assert {name: part["n"] for name, part in summary["by_size"].items()} == {"small": 2, "medium": 1, "large": 1}
    for parts in (summary["by_class"], summary["by_size"]):
        whole = sum(part["n"] * part["metrics"]["dice"]["mean"] for part in parts.values())
        assert whole / 4 == pytest.approx(summary["metrics"]["dice"]["mean"])


def test_rates() -> None:
    summary = summarise(ROWS)
    found, normal = summary["lesion_sensitivity"], summary["normal"]
    assert (found["found"], found["total"], found["rate"]) == (3, 6, 0.5)
    # (p + z2 / 2n -+ z sqrt(p (1 - p) / n + z2 / 4n2)) / (1 + z2 / n) with z = 1.959964, by hand
    assert (found["low"], found["high"]) == pytest.approx((0.187616, 0.812384), abs=2e-6)
    assert (normal["n"], normal["false_positives"], normal["false_positive_rate"]) == (2, 1, 0.5)
    assert (normal["low"], normal["high"]) == pytest.approx((0.094531, 0.905469), abs=2e-6)
    assert normal["mean_area_fraction"] == pytest.approx(0.01)


def test_millimetres_only_if_all_have_them() -> None:
    known = [case | {"spacing_row": 0.1, "hd95_mm": case["hd95"] / 10} for case in ROWS[:4]]
    summary = summarise([*known, ROWS[4]])  # a normal image needs no spacing
    assert summary["distance_unit"] == "mm"
    assert summary["metrics"]["hd95"]["mean"] == pytest.approx(0.5)
    assert summary["network_size"]["distance_unit"] == "pixels"
    mixed = summarise([*known[:3], ROWS[3]])
    assert mixed["distance_unit"] == "pixels"
    assert mixed["metrics"]["hd95"]["mean"] == pytest.approx(5.0)


def test_order_does_not_matter() -> None:
    shuffled = ROWS[:]
    random.Random(0).shuffle(shuffled)
    assert to_json(summarise(shuffled)) == to_json(summarise(ROWS))


def test_json_is_strict_and_keeps_the_header_first() -> None:
    header = {"protocol": "strict", "seed": np.int64(4), "runs": 5, "label_fraction": 0.25}
    text = to_json(summarise(ROWS[:1], header))
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert summary["metrics"]["dice"]["low"] is None  # one group has no interval
    assert (summary["protocol"], summary["seed"], summary["runs"]) == ("strict", 4, 5)
    assert summary["normal"]["false_positive_rate"] is None


def test_sizes() -> None:
    bins = [size_bin(fraction) for fraction in (0.0, 1e-6, 0.0299, 0.03, 0.10, 0.1001, 1.0)]
    assert bins == ["", "small", "small", "medium", "medium", "large", "large"]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:4], ROWS[4:], []])
def test_the_table_always_fits(rows: list[dict]) -> None:
    header = {"protocol": "published", "split": "test", "preset": "authors_release", "method": "unimatch" * 5}
    header |= {"split_seed": 41, "seed": 1234, "label_fraction": 0.125, "threshold": 0.55}
    table = format_table(summarise(rows, header))
    assert max(map(len, table.splitlines())) <= 100
    for word in ("published", "split seed 41", "seed 1234", "runs 1", "threshold 0.55", "pixels", "2000"):
        assert word in table
    assert "nan" not in table.split()


def test_the_table_says_what_the_summary_says() -> None:
    table = format_table(summarise(ROWS, {"protocol": "strict"}))
    assert "4 lesion images in 3 groups" in table
    lines = {line.split()[0]: line for line in table.splitlines() if line}
    assert lines["dice"].split()[1] == "0.6000"
    assert lines["hd95"].split()[:3] == ["hd95", "(pixels)", "5.00"]
    assert "left out, since a mask is empty: hd95 1, assd 1" in table
    assert lines["malignant"].split()[1:3] == ["2", "0.4000"]
    assert "lesions found: 3 of 6" in table
    assert "normal images with a false positive: 1 of 2" in table
    # a summary read back from its file makes the same table
    assert format_table(json.loads(to_json(summarise(ROWS, {"protocol": "strict"})))) == table
