"""Laws of naming a class: by name first, by position only where no name is a number, never another one than meant."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fire.parser import DefaultParseValue

from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import manifest
from mgcc_monai.generation.classes import class_ids, class_probabilities
from mgcc_monai.generation.sample import generate

BIRADS = ["2", "3", "4"]
PLAIN = ["benign", "malignant"]
FEW = {"seed": 7, "num_inference_steps": 2}
NAMES = [
    BIRADS,
    ["07", "7", "007"],
    ["1e3", "1000", "1000.0", "1_000"],
    ["0x10", "16", "16.0"],
    ["010", "8", "10"],
    ["True", "true", "1", "yes", "on"],
    ["cyst,simple", "cyst", "simple", "[cyst]", "{cyst: simple}", "(cyst, simple)"],
    ["4a", "4b", "4-1", "-1", "+2", "2"],
    ["None", "null", "~", "nan", "NaN", "inf", "1j"],
    ["0", "1"],
    ["1", "0"],
    PLAIN,
]


@pytest.mark.parametrize(
    ("names", "label", "position"),
    [
        (BIRADS, 2, 0),
        (BIRADS, "4", 2),
        (BIRADS, np.int64(3), 1),
        (["1", "0"], 0, 1),
        (["8", "10", "12"], 10, 1),
        (["8", "10", "12"], 8, 0),
        (["True", "4"], True, 0),
        (["1e3", "x"], "1e3", 0),
        (["07", "7"], "7", 1),
        (["1.5", "2"], 1.5, 0),
        (PLAIN, 1, 1),
        (PLAIN, np.uint8(1), 1),
        (PLAIN, "1", 1),
        (["BI-RADS 2", "BI-RADS 3"], 0, 0),
    ],
)
def test_a_name_comes_first_and_then_a_position(names, label, position):
    assert class_ids(label, names, 2) == [position] * 2
    assert class_ids([label, names[0]], names, 2) == [position, 0]
    assert class_ids(torch.tensor([0, 1]), PLAIN, 2) == class_ids(np.array(PLAIN), PLAIN, 2) == [0, 1]


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (BIRADS, 5),
        (BIRADS, 0),
        (BIRADS, "0"),
        (BIRADS, True),
        (BIRADS, 2.0),
        (BIRADS, "2.0"),
        (BIRADS, np.float32(2)),
        (["benign", "7"], 0),
        (["benign", "1e3"], 0),
        (["benign", "0x10"], 0),
        (PLAIN, True),
        (PLAIN, np.True_),
        (PLAIN, 1.0),
        (PLAIN, "1.0"),
        (PLAIN, "01"),
        (PLAIN, 2),
        (PLAIN, -1),
        (PLAIN, ""),
        (PLAIN, {"benign": 1}),
        (PLAIN, {"benign"}),
        (PLAIN, ...),
        (PLAIN, [["benign"], ["malignant"]]),
        (["07", "7"], 7),
        (["0x10", "16"], 16),
        (["1e3", "1000.0"], 1000.0),
        (["True", "true"], True),
        (["a,b", "a", "b"], ("a", "b")),
        (["a, b", "a", "b"], ["a", "b"]),
    ],
)
def test_what_is_no_class_or_may_be_two_is_refused(names, label):
    with pytest.raises(MGCCError, match="--class_labels") as error:
        class_ids(label, names, 2)
    assert "\n" not in str(error.value)
    assert "no such class; the model knows " in str(error.value) or "quotes" in str(error.value)


def test_the_words_of_a_refusal():
    with pytest.raises(MGCCError) as error:
        class_ids(5, BIRADS, 1)
    assert str(error.value) == "--class_labels 5: no such class; the model knows '2', '3', '4'."
    with pytest.raises(MGCCError, match=r"""the model knows '1e3', 'x'\..*: --class_labels "'1e3'"\."""):
        class_ids(DefaultParseValue("1e3"), ["1e3", "x"], 1)


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
@pytest.mark.parametrize("read", [DefaultParseValue, yaml.safe_load], ids=["command line", "YAML"])
def test_a_typed_name_is_that_class_or_refused(names, read):
    """Whatever the command line or a YAML file makes of the word; in two pairs of quotes it is always that class."""
    for position, name in enumerate(names):
        assert class_ids(read(f"'{name}'"), names, 2) == [position] * 2
        assert class_ids(read(f"['{name}', '{names[0]}']"), names, 2) == [position, 0]
        value: Any = read(name)
        if value is None:
            continue  # the same as no class at all, of which generate tells
        try:
            assert class_ids(value, names, 2) == [position] * 2, (name, value)
        except MGCCError as error:
            assert not isinstance(value, str) and "\n" not in str(error)


def test_classes_of_numbers_from_the_option_to_the_manifest(new_pipeline, tmp_path, caplog):
    pipeline = new_pipeline(classes=BIRADS)
    assert torch.equal(pipeline([1], class_labels=2, **FEW), pipeline([1], class_labels="2", **FEW))
    assert not torch.equal(pipeline([1], class_labels=2, **FEW), pipeline([1], class_labels="4", **FEW))
    for labels, names in ((2, ["2", "2"]), (["2", "4"], ["2", "4"]), ((4, 3), ["4", "3"])):
        rows = generate(pipeline, tmp_path / "generated", num_images=2, class_labels=labels, **FEW)
        assert [row["class"] for row in rows] == names
    assert {item["class"] for item in map(json.loads, (tmp_path / "generated" / manifest.FILE_NAME).open())} == {
        "4",
        "3",
    }
    before = sorted(path.name for path in tmp_path.iterdir())
    for options in ({"class_labels": 5}, {"class_labels": True}, {"indices": [3, 3], "class_labels": [2, 4]}):
        with pytest.raises(MGCCError):
            generate(pipeline, tmp_path / "generated", **{"num_images": 2, **options}, **FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not caplog.records
    generate(new_pipeline(classes=["None", "cyst"]), tmp_path / "drawn", num_images=1, **FEW)
    assert "For the class 'None' give --class_labels" in caplog.text, "None is no class, and that is said"


@pytest.mark.parametrize("classes", [["2", "2"], [2, "2"], ["", "3"]])
def test_classes_of_a_model_have_names_of_their_own(new_pipeline, classes):
    with pytest.raises(MGCCError, match="give each class a name of its own"):
        new_pipeline(classes=classes)


@pytest.mark.parametrize("mix", [0.5, "ab", {"2": 1}, [[1, 1, 1]], ["a", "b", "c"], [1, 1], [1, 1, float("nan")]])
def test_shares_that_are_none_are_refused_in_a_line(mix):
    assert (
        class_probabilities([1, 2, 1], BIRADS) == [0.25, 0.5, 0.25] and class_probabilities([], BIRADS) == [1 / 3] * 3
    )
    with pytest.raises(MGCCError, match="give 3 shares from 0 to 1, of 2, 3, 4"):
        class_probabilities(mix, BIRADS)
