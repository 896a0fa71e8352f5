"""What is typed arrives as it was typed, or is refused before anything is read or written."""

from __future__ import annotations

import ast
import json
import os
import runpy
import shlex
import sys
from pathlib import Path

import monai.bundle
import pytest
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from mgcc_monai.errors import MGCCError
from mgcc_monai.parse import Word, split_words
from mgcc_monai.runs.words import monai_text

# names of folders that fire or MONAI, or both, read as something else
CHANGED = [
    *("scan#2", "2024_06_30", "1e3", "left,right", "None", "True", "[a]", "{a:b}", "'quoted'", "0x10", "1_000", "1.50"),
    *("a #b", "(x)", '"q"', "x # y", "12", "[]", "trailing ", "#", "-1", "...", "b'x'", "a,"),
]
KEPT = ["scan", "007", "a b", "a-b", "left/right", "/data/x", "../x", "ümläut", "a:b", "it's", "2024-06-30x", "x.y/z"]


@pytest.mark.parametrize(
    "text", [*CHANGED, *KEPT, "/a/b#c", "a::b", "@x", "%a", "$a", "a@b%c", "\\x23", "é#\U0001f600"]
)
def test_text_passes_fire_and_monai_unchanged(text):
    word = DefaultParseValue(monai_text(text))
    config = {"where": word, "inside": {"_target_": "builtins.dict", "path": "@where"}, "joined": "$@where + '/x'"}
    parser = ConfigParser(config)
    assert parser.get_parsed_content("where") == text
    assert parser.get_parsed_content("inside") == {"path": text}
    assert parser.get_parsed_content("joined") == f"{text}/x"
    assert monai_text(text)[:1] != "$" or ast.literal_eval(monai_text(text)[1:]) == text, "a string and no code"


@pytest.mark.parametrize("text", ["runs", "/data/x y", "../busi", "/data/2024_06_30", "a.b-c"])
def test_text_that_passes_stays_readable(text):
    assert monai_text(text) == text


def test_words_are_split_as_fire_splits_them():
    words = ["run", "--a", "1", "--b=2=3", "--c", "--d-e", "-4", "-f", "x", "y", "--g"]
    options, alone = split_words(words)
    assert alone == ["run", "y"]
    typed = [("a", "1", False), ("b", "2=3", True), ("c", None, False), ("d_e", "-4", False), ("f", "x", False)]
    assert options == [*(Word(*word) for word in typed), Word("g", None, False)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose workflow notes, behind the preflight, what arrived; it stands in the current folder."""
    configs = tmp_path / "configs"
    (configs / "presets").mkdir(parents=True)
    workflow = {
        "imports": ["$import json", "$import pathlib", "$import mgcc_monai"],
        "bundle_root": ".",
        "output_dir": "runs",
        "dataset_dir": "$'none'",
        "preset": "paper",
        "pretrained": "",
        "count": 5,
        "keep_aspect": False,
        "sides": [8, 8],
        "crop": "none",
        "class_proportions": None,
        "loss": {"_target_": "builtins.dict", "path": "@output_dir"},
        "noted": "$[@output_dir, @dataset_dir, @preset, @pretrained, @count, @sides, @crop, @class_proportions, @loss]",
        "initialize": [],
        "training": [
            "$mgcc_monai.runs.preflight.segmentation.check_bundle_root(@bundle_root)",
            "$pathlib.Path('noted.json').write_text(json.dumps([@noted, @keep_aspect]))",
        ],
        "run": "%training",
    }
    (configs / "train.json").write_text(json.dumps(workflow))
    (configs / "other.json").write_text(json.dumps(workflow))
    (configs / "evaluate.json").write_text(json.dumps({"sides": [1, 1], "run": "%training"}))
    (configs / "multi_gpu_train.json").write_text(json.dumps({"count": 2, "initialize": []}))
    (configs / "presets" / "demo.yaml").write_text("preset: demo\nsides: [4, 4]\n")
    (configs / "metadata.json").write_text("{}")
    kinds = dict(bundle_root="path", output_dir="path", dataset_dir="path", preset="text", pretrained="text")
    kinds |= dict(count="integer", keep_aspect="switch", sides="sides", crop="any", class_proportions="any")
    kinds |= dict.fromkeys(("imports", "loss", "noted", "initialize", "training", "run"), "part")
    options = {name: {"kind": kind, "meaning": "", "least": None} for name, kind in kinds.items()}
    (configs / "options.yaml").write_text(json.dumps(options))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *words: str, files: str = "configs/train.json") -> None:
    """``python -m monai.bundle run`` in this process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    given = ["--config_file", files] if files else []
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *given, "--logging_file", "False", *words])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", sys.stderr)
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)


def noted(folder: Path) -> list:
    return json.loads((folder / "noted.json").read_text())


def refused(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, **files: str) -> str:
    """Run, expect one plain line, and that the folder is as it was."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(MGCCError) as error:
        command(monkeypatch, *words, **files)
    assert sorted(folder.rglob("*")) == before and "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("text", CHANGED)
@pytest.mark.parametrize("name", ["dataset_dir", "preset"])
def test_a_path_or_name_that_would_be_changed_is_refused_with_the_cure(small, monkeypatch, name, text):
    for words in ([f"--{name}={text}"], [f"--{name}", text]):
        told = refused(monkeypatch, small, *words)
        assert told.startswith(f"--{name} {text}: would be read as ")
    cure = shlex.split(told.split("; write ")[1].removesuffix("."))
    assert len(cure) == 1
    command(monkeypatch, f"--{name}", cure[0])
    arrived = noted(small)[0][{"dataset_dir": 1, "preset": 2}[name]]
    assert os.path.normpath(arrived) == os.path.normpath(text)


@pytest.mark.parametrize("name", ["output_dir", "dataset_dir", "pretrained", "bundle_root", "new_dir"])
def test_a_hash_is_refused_where_fire_leaves_it_but_monai_does_not(small, monkeypatch, name):
    assert "would be read as './scan::2'" in refused(monkeypatch, small, f"--{name}", "./scan#2")


def test_paths_are_not_read_from_files_changed_either(small, monkeypatch):
    (small / "more.yaml").write_text("output_dir: /data/scan#2\n")  # YAML: no comment without a blank
    files = "['configs/train.json','more.yaml']"
    assert "'::'" in refused(monkeypatch, small, files=files)
    for value in ("2024_06_30", "0x10", "007", "yes", "null", "[a, b]", "2024-06-30", "1.5"):
        (small / "more.yaml").write_text(f"dataset_dir: {value}\n")
        assert "is not text; put it in quotes" in refused(monkeypatch, small, files=files)
    (small / "args.json").write_text(json.dumps({"config_file": "configs/train.json", "dataset_dir": "/a/b#1"}))
    assert "'::'" in refused(monkeypatch, small, "--args_file", "args.json", files="")
    (small / "args.json").write_text(json.dumps({"config_file": "configs/train.json", "preset": 7}))
    assert "--preset 7: is not text" in refused(monkeypatch, small, "--args_file", "args.json", files="")
    (small / "args.json").write_text(json.dumps({"config_file": "configs/train.json", "preset": "7"}))
    command(monkeypatch, "--args_file", "args.json", files="")
    assert noted(small)[0][2] == "7"


def test_paths_given_in_python_are_held_to_the_same(small):
    for value, told in (("a#b", "'::'"), (20240630, "is not text"), ("", "is empty")):
        with pytest.raises(MGCCError, match=told):
            monai.bundle.run(config_file="configs/train.json", logging_file=False, dataset_dir=value)
    monai.bundle.run(config_file="configs/train.json", logging_file=False, dataset_dir=monai_text("a#b"))
    assert noted(small)[0][1] == "a#b"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--output_dir"], "--output_dir: give a value."),
        (["--output_dir", "--count", "3"], "--output_dir: give a value."),
        (["--output_dir", ""], "--output_dir : is empty"),
        (["--output_dir=~/x"], "'~' is not expanded here; give"),
        (["--count", "5#6"], "--count 5#6: would be read as 5"),
        (["training", "--output_dir", "my", "runs"], "'runs' stands alone"),
        (["--class_proportions", "['a#b']"], "would be read as"),
    ],
)
def test_other_words_that_would_be_lost(small, monkeypatch, words, told):
    assert told in refused(monkeypatch, small, *words)


def test_numbers_switches_lists_and_expressions_stay_as_they_are(small, monkeypatch):
    words = (
        "--count 0x10 --sides (4,5) --keep_aspect --crop 1,2,3,4 --class_proportions None --loss#path @preset".split()
    )
    command(monkeypatch, "training", *words, "--preset", "$'a' + 'b'", "--dataset_dir", "./2024")
    assert noted(small) == [["runs", "./2024", "ab", "", 16, [4, 5], [1, 2, 3, 4], None, {"path": "ab"}], True]


@pytest.mark.parametrize(
    ("files", "right"),
    [
        (["presets/demo.yaml", "train.json"], ["train.json", "presets/demo.yaml"]),
        (["multi_gpu_train.json", "train.json"], ["train.json", "multi_gpu_train.json"]),
        (["evaluate.json", "train.json"], ["train.json", "evaluate.json"]),
        (["train.json", "evaluate.json", "presets/demo.yaml"], ["train.json", "presets/demo.yaml", "evaluate.json"]),
        (["train.json", "presets/demo.yaml", "other.json"], ["train.json", "other.json", "presets/demo.yaml"]),
        (["own.yaml", "multi_gpu_train.json", "train.json"], ["train.json", "own.yaml", "multi_gpu_train.json"]),
    ],
)
@pytest.mark.parametrize("way", ["list", "args_file"])
def test_an_overlay_before_what_it_overlays_is_refused_with_the_right_order(small, monkeypatch, files, right, way):
    (small / "configs" / "own.yaml").write_text("count: 3\n")
    wrong, cure = ([f"configs/{name}" for name in names] for names in (files, right))
    if way == "args_file":
        (small / "args.json").write_text(json.dumps({"config_file": wrong}))
        told = refused(monkeypatch, small, "--args_file", "args.json", files="")
    else:
        told = refused(monkeypatch, small, files=str(wrong))
    assert f'"{cure}"' in told and "later files win" in told
    command(monkeypatch, files=str(cure))


def test_right_orders_pass(small, monkeypatch):
    (small / "configs" / "own.yaml").write_text("count: 3\n")
    names = ("train.json", "own.yaml", "presets/demo.yaml", "multi_gpu_train.json", "evaluate.json", "own.yaml")
    for count in range(1, len(names) + 1):
        command(monkeypatch, files=str([f"configs/{name}" for name in names[:count]]))
    assert noted(small)[0][4] == 3 and noted(small)[0][5] == [1, 1]
