"""The commands of ``python -m mgcc_monai``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgcc_monai import cli
from mgcc_monai.data.phantom import write_phantoms
from mgcc_monai.errors import MGCCError


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


@pytest.mark.parametrize("words", [("--overwrite", "perhaps"), ("--count", "0"), ("--label_fraction", "2")])
def test_bad_values_leave_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, str]) -> None:
    with pytest.raises(MGCCError):
        call(monkeypatch, "phantom", "--output", str(tmp_path / "p"), *words)
    assert not list(tmp_path.iterdir())


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
