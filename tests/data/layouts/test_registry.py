"""A layout is one file: the shipped ones are found, a stranger's is named, and both end in a sound dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_monai.data.checks import check_dataset
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.layouts import LAYOUTS, find_layout
from mgcc_monai.data.prepare import prepare
from mgcc_monai.errors import MGCCError

STRANGER = """
from pathlib import Path

from mgcc_monai.data.layouts import Layout, register
from mgcc_monai.data.layouts.folders import Case


def looks_like(source):
    return any(Path(source).glob("case_*/scan.png"))


def scan(source, skip=()):
    source = Path(source)
    cases, wrong = [], []
    for image in sorted(source.glob("case_*/scan.png")):
        mask = image.with_name("lesion.png")
        if not mask.is_file():
            wrong.append(f"{image}: no lesion.png beside it")
        cases.append(Case(image, (mask,), "lesion", image.relative_to(source).as_posix()))
    return cases, wrong


register(Layout("cases", looks_like, scan, "SOURCE/case_NNN/scan.png and lesion.png"))
"""


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    find_layout(".", "busi")
    monkeypatch.setattr("mgcc_monai.data.layouts.LAYOUTS", dict(LAYOUTS))


@pytest.fixture
def cases(tmp_path: Path, texture, disc) -> Path:
    for number in range(24):
        folder = tmp_path / "source" / f"case_{number:03d}"
        folder.mkdir(parents=True)
        Image.fromarray(texture(number)).save(folder / "scan.png")
        Image.fromarray(disc(row=20 + number % 20)).save(folder / "lesion.png")
    (tmp_path / "cases.py").write_text(STRANGER)
    return tmp_path / "source"


def test_the_shipped_layouts_are_found(busi_tree, tmp_path):
    assert {"busi", "folders"} <= LAYOUTS.keys()
    assert find_layout(busi_tree).name == find_layout(busi_tree, "busi").name == "busi"


def test_a_strangers_layout_is_one_file(cases, tmp_path):
    prepare(str(cases), str(tmp_path / "set"), layout=str(tmp_path / "cases.py"))
    datalist = load_datalist(tmp_path / "set")
    assert sum(len(datalist[name]) for name in ("training", "validation", "test")) == 24
    assert not check_dataset(tmp_path / "set").faults
    assert {Path(item["original"]).name for item in datalist["training"]} == {"scan.png"}
    first = np.asarray(Image.open(cases / "case_000" / "scan.png"))
    images = {item["original"]: item["image"] for name in ("training", "validation", "test") for item in datalist[name]}
    assert np.array_equal(np.asarray(Image.open(images["case_000/scan.png"])), first)


def test_what_a_strangers_layout_finds_wrong_is_told(cases, tmp_path):
    (cases / "case_003" / "lesion.png").unlink()
    with pytest.raises(MGCCError, match="case_003/scan.png: no lesion.png beside it"):
        prepare(str(cases), str(tmp_path / "set"), layout=str(tmp_path / "cases.py"))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("bussi", "--layout bussi: must be one of auto, .*folders.*, or a .py file; did you mean 'busi'"),
        ("none.py", "--layout none.py: there is no such file."),
        ("auto", "fits no known layout: it has folders case_000, .* files 48 .png; arrange it as one of"),
    ],
)
def test_a_layout_that_is_none_is_refused(cases, tmp_path, layout, told):
    with pytest.raises(MGCCError, match=told):
        prepare(str(cases), str(tmp_path / "set"), layout=layout)


@pytest.mark.parametrize(
    ("text", "told"), [("1 / 0", "cannot be run .division by zero."), ("pass", "registers no layout")]
)
def test_a_file_that_registers_none_is_refused(cases, tmp_path, text, told):
    (tmp_path / "wrong.py").write_text(text)
    with pytest.raises(MGCCError, match=f"wrong.py: {told}"):
        prepare(str(cases), str(tmp_path / "set"), layout=str(tmp_path / "wrong.py"))
