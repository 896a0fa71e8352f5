"""The commands of ``python -m mgcc_monai``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgcc_monai import cli
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.options import find_bundle, read_options


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["mgcc_monai", *words])
    cli.main()


def test_phantom_split_and_show(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "phantoms"
    call(monkeypatch, "phantom", "--output", str(folder), "--count", "30", "--seed", "4", "--label_fraction", "0.5")
    assert "training" in capsys.readouterr().out
    first = json.loads((folder / "dataset.json").read_text())
    call(monkeypatch, "split", "--dataset_dir", str(folder), "--output_json", str(folder / "b.json"), "--split_seed=3")
    second = json.loads((folder / "b.json").read_text())
    assert first["hash"] != second["hash"] and second["split_seed"] == 3
    with pytest.raises(MGCCError, match="train and evaluate first"):
        call(monkeypatch, "show", "--output_dir", str(tmp_path))


def test_check_tells_faults_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, report = tmp_path / "phantoms", tmp_path / "report.json"
    write_phantoms(folder, count=20, size=(64, 80))
    call(monkeypatch, "check", "--dataset_dir", str(folder), "--report", str(report))  # warnings at most
    assert json.loads(report.read_text())["faults"] == 0 and "faults: 0, " in capsys.readouterr().out
    image = sorted((folder / "images").iterdir())[0]
    image.write_bytes(b"")
    with pytest.raises(MGCCError, match=r"faults found \(1\)") as error:
        call(monkeypatch, "check", "--dataset_dir", str(folder), "--report", str(report))
    assert error.value.code and str(image) in capsys.readouterr().out
    assert [finding["file"] for finding in json.loads(report.read_text())["findings"][:1]] == [str(image)]


def test_misspelt_option_is_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(MGCCError, match="did you mean --label_fraction"):
        call(monkeypatch, "phantom", "--output", str(tmp_path / "p"), "--count", "12", "--lable_fraction", "0.5")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--overwrite", "perhaps"), "--overwrite.*perhaps"),
        (("--count", "0"), "count.*0"),
        (("--label_fraction", "2"), "label_fraction.*2"),
    ],
)
def test_bad_values_leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: Any, told: str) -> None:
    monkeypatch.setattr("mgcc_monai.data.phantom.write.make_phantom", lambda *_: pytest.fail("an image was drawn"))
    with pytest.raises(MGCCError, match=told):
        call(monkeypatch, "phantom", "--output", str(tmp_path / "p"), *words)
    assert not list(tmp_path.iterdir())


# names of folders that fire would read as Python
ODD = ["busi#2", "2024_06_30", "1e3", "left,right", "None", "True", "[a]", "{a:b}", "'quoted'", "0x10", "1_000", "007"]


TEXT = {
    "prepare": "source output protocol groups unlabeled name crop",
    "split": "dataset_dir output_json protocol",
    "phantom": "output",
    "fit": "output_dir dataset_dir preset method bundle_root",
    "check": "dataset_dir report",
    "convert": "checkpoint output",
    "show": "output_dir",
    "package": "version output weights bundle_root weights_url",
    "doctor": "path",
    "export": "weights output format",
    "segment": "path output weights format frame crop device bundle_root",
}
LISTS = {("segment", "path")}  # options of several values


@pytest.mark.parametrize("text", [*ODD, "a #b", "$a", "@x", "%y", "x ", "1.0", "()", "a=b", "--x", "-", "ü"])
@pytest.mark.parametrize("command", cli.COMMANDS)
def test_paths_and_names_are_taken_as_typed_by_every_command(command: str, text: str) -> None:
    needed = {"prepare": ["source", "output"], "split": ["dataset_dir", "output_json"], "phantom": ["output"]}
    needed |= {"check": ["dataset_dir"], "convert": ["checkpoint", "output"], "doctor": ["path"]}
    needed |= {"package": ["version", "output"], "export": ["weights", "output"], "segment": ["path", "output"]}
    for name in TEXT[command].split():
        wanted = [text] if (command, name) in LISTS else text
        others = [f"--{other}=z" for other in needed.get(command, []) if other != name]
        assert cli.read_arguments(command, [*others, f"--{name}={text}"])[name] == wanted
        if text[:2] != "--":
            assert cli.read_arguments(command, [f"--{name}", text, *others])[name] == wanted
    if text[:2] != "--":
        first = TEXT[command].split()[0]
        others = [f"--{other}=z" for other in needed.get(command, []) if other != first]
        wanted = [text] if (command, first) in LISTS else text
        assert cli.read_arguments(command, [text, *others])[first] == wanted


@pytest.mark.parametrize("name", ["busi#2", "2024_06_30"])
def test_overwrite_replaces_what_was_typed_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_phantoms("busi", count=10, size=(32, 32), seed=1)
    before = (tmp_path / "busi" / "dataset.json").read_bytes()
    call(monkeypatch, "phantom", "--output", name, "--overwrite", "--count", "10", "--size", "[32, 32]")
    assert (tmp_path / "busi" / "dataset.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["busi", name])


def test_a_home_behind_an_equals_sign_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "phantom", "--output=~/x", "--count=10", "--size=32,32")
    assert [path.name for path in tmp_path.iterdir()] == ["home"] and (tmp_path / "home" / "x" / "images").is_dir()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--count", "x"], "--count must be an integer, got 'x'."),
        (["--count", "1_0"], "--count must be an integer, got '1_0'."),
        (["--count", "12.0"], "--count must be an integer, got '12.0'."),
        (["--seed", "0x10"], "--seed must be an integer"),
        (["--seed", "True"], "--seed must be an integer"),
        (["--seed="], "--seed must be an integer, got ''."),
        (["--label_fraction", "nan"], "--label_fraction must be a number, got 'nan'."),
        (["--label_fraction", "1/2"], "--label_fraction must be a number"),
        (["--label_fraction", "0,5"], "--label_fraction must be a number"),
        (["--size", "64"], "--size must be two integers"),
        (["--size", "64,x"], "--size must be two integers"),
        (["--overwrite", "maybe"], "--overwrite maybe: is neither true nor false"),
        (["--seed"], "--seed: give a value"),
        (["--seed", "--overwrite"], "--seed: give a value"),
        (["--seed", "1", "--seed", "2"], "--seed: is given twice"),
        (["--seed", "1", "x"], "'x' stands alone"),
        (["-s", "1"], "has no such option"),
        (["--", "--count", "12"], "has no such option"),
    ],
)
def test_numbers_and_switches_are_read_strictly(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(MGCCError) as error:
        call(monkeypatch, "phantom", "--output", str(tmp_path / "p"), *words)
    assert told in str(error.value) and "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["phantom", "--output", "--count", "12"], "--output: give a value"),
        (["phantom", "--output", ""], "--output: is empty"),
        (["fit", "--dataset_dir", ""], "--dataset_dir: is empty"),
        (["phantom"], "'phantom' needs --output"),
        (["prepare", "--source", "my", "data"], "'data' stands alone"),
        (["check", "a", "b", "c"], "'c' stands alone"),
        (["phantoms"], "phantoms: there is no such command; did you mean phantom?"),
        (["fit", "--num_images", "5#6"], "--num_images 5#6: would be read as 5"),
        (["fit", "--pretrained"], "--pretrained: give a word or a path"),
        (["fit", "--segmentation_dir", "x"], "--segmentation_dir: 'fit' writes a folder a stage"),
        (["phantom", "--output", "\udcff"], "is not UTF-8"),
    ],
)
def test_words_without_sense_are_refused_before_anything_is_done(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MGCCError) as error:
        call(monkeypatch, *words)
    assert told in str(error.value) and "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_help_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["phantom", "--output", str(tmp_path / "p"), "--help"], ["fit", "-h"], ["--help"], []):
        call(monkeypatch, *words)
        assert "python -m mgcc_monai" in capsys.readouterr().out and not list(tmp_path.iterdir())


def test_the_help_of_fit_lists_every_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    call(monkeypatch, "fit", "--help")
    shown, options = capsys.readouterr().out, read_options(find_bundle())
    assert len(options) > 100
    for name, option in options.items():
        assert (f"  --{name} (" in shown) == (option.kind != "part"), name
        assert option.kind == "part" or option.meaning in shown
    assert "--max_iterations (20000)" in shown and "[iterations, from 1]" in shown


def test_a_mistake_shows_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mgcc_monai",
            "prepare",
            "--source",
            str(tmp_path / "no"),
            "--output",
            str(tmp_path / "o"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and str(tmp_path / "no") in done.stderr
