"""Each check of the Model Zoo fires on the fault planted for it, and none on the packed bundle."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mgcc_monai.errors import MGCCError
from mgcc_monai.interop.doctor import doctor
from mgcc_monai.interop.zoo_checks import CHECKS


def edit(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        content = json.loads((root / "configs" / name).read_text())
        change(content)
        (root / "configs" / name).write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n")

    return apply


def _other_weights(root: Path) -> None:
    torch.save({"a": torch.zeros(1)}, root / "models" / "model.pt")


def _large(root: Path) -> None:
    with (root / "models" / "other.pt").open("wb") as file:
        file.truncate(26 * 2**20)


FAULTS = {
    "files": lambda root: (root / "LICENSE").unlink(),
    "preferred": lambda root: (root / "models" / "model.pt").unlink(),
    "version": edit("metadata.json", lambda c: c.update(version="9.9.9")),
    "metadata": edit("metadata.json", lambda c: c.update(authors=["a", "b"])),
    "apps": edit("metadata.json", lambda c: c.update(supported_apps=["x"])),
    "shape": edit("metadata.json", lambda c: c["network_data_format"]["outputs"]["pred"].update(num_channels=3)),
    "torchscript": _other_weights,
    "keys": edit("inference.json", lambda c: c.pop("output_dir")),
    "properties": edit("train.json", lambda c: c["train"]["handlers"].append("@ema")),
    "pins": edit("metadata.json", lambda c: c.update(numpy_version=">=1.26")),
    "style": lambda root: (root / "mgcc_monai" / "new.py").write_text("import os \n"),
    "large": _large,
    "personal": edit("train.json", lambda c: c.update(output_dir="/home/someone/runs")),
    "card": lambda root: (root / "docs" / "README.md").unlink(),
}


def test_the_packed_bundle_passes(packed: Path):
    assert doctor(str(packed)) == []


def test_every_check_has_a_planted_fault():
    assert list(FAULTS) == list(CHECKS) and len(CHECKS) == 14


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_with_a_cure(unpacked: Path, name: str):
    FAULTS[name](unpacked)
    found = doctor(str(unpacked))
    assert {finding.check for finding in found} == {name}
    assert all(finding.cure and "\n" not in finding.line for finding in found)


def test_a_file_that_a_config_names_and_that_is_missing_is_found(unpacked: Path):
    missing = "$open('/no/such/file').read()"
    edit("inference.json", lambda c: c["network_def"].update(dropout=missing))(unpacked)
    assert any("/no/such/file" in finding.line for finding in doctor(str(unpacked)))


def test_nothing_in_the_bundle_changes(unpacked: Path):
    before = {path: path.read_bytes() for path in unpacked.rglob("*") if path.suffix != ".pyc" and path.is_file()}
    doctor(str(unpacked))
    after = {path: path.read_bytes() for path in unpacked.rglob("*") if path.suffix != ".pyc" and path.is_file()}
    assert before == after


def test_what_is_no_bundle_is_refused_in_a_line(tmp_path: Path):
    (tmp_path / "a.txt").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../outside.txt", "x")
    for name, told in (("a.txt", "neither a folder nor a zip"), ("none", "neither"), ("b.zip", "lies outside")):
        with pytest.raises(MGCCError, match=told) as error:
            doctor(str(tmp_path / name))
        assert "\n" not in str(error.value)
    assert not (tmp_path.parent / "outside.txt").exists()
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MGCCError, match="no configs/ in it"):
        doctor(str(tmp_path / "empty"))
