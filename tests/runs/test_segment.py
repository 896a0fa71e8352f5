"""``segment`` gives what ``inferring`` gives, for whatever paths a user names, and refuses in one line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image

from mgcc_monai.cli import read_arguments
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256
from mgcc_monai.interop.export import export
from mgcc_monai.interop.package import package
from mgcc_monai.runs.find_weights import DEFAULT, find_weights, shipped
from mgcc_monai.runs.fit import _read_settings
from mgcc_monai.runs.segment import images_by_folder, segment
from mgcc_monai.runs.settings import build
from mgcc_monai.weights import check_fits

BUNDLE = Path(__file__).resolve().parents[2] / "bundle"
BREAST = BUNDLE / "models" / DEFAULT


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms, one of them in a subfolder under the same name, and a text."""
    folder = tmp_path_factory.mktemp("scans")
    write_phantoms(str(folder / "made"), count=20, seed=3)
    first, second = sorted((folder / "made" / "images").iterdir())[:2]
    (folder / "in" / "deeper").mkdir(parents=True)
    shutil.copyfile(first, folder / "in" / "a.png")
    shutil.copyfile(second, folder / "in" / "deeper" / "a.png")
    (folder / "in" / "notes.doc").write_text("no image")
    return folder / "in"


def mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_it_is_the_mask_and_the_table_of_inferring(scans, tmp_path, capsys) -> None:
    segment([str(scans / "a.png")], str(tmp_path / "out"), overlay=True, device="cpu")
    told = capsys.readouterr().out
    (tmp_path / "in").mkdir()
    shutil.copyfile(scans / "a.png", tmp_path / "in" / "a.png")
    workflow = ConfigWorkflow(
        str(BREAST / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "wanted"),
        device="cpu",
    )
    workflow.initialize()
    workflow.run()
    assert np.array_equal(mask(tmp_path / "out" / "a.png"), mask(tmp_path / "wanted" / "a.png"))
    assert mask(tmp_path / "out" / "a.png").shape == mask(scans / "a.png").shape
    assert (tmp_path / "out" / "a_overlay.png").is_file() and not list((tmp_path / "out").glob("*_prob*"))
    found, wanted = ((tmp_path / name / "lesions.csv").read_text() for name in ("out", "wanted"))
    assert found == wanted
    rows = list(csv.DictReader(found.splitlines()))
    line = next(line.split() for line in told.splitlines() if line.startswith("a.png"))
    assert int(line[1]) == int(rows[0]["lesions"])
    assert (
        int(line[2])
        == sum(int(row["area_pixels"]) for row in rows)
        == int((mask(tmp_path / "out" / "a.png") > 0).sum())
    )


def test_subfolders_keep_their_names_and_a_threshold_of_almost_0_marks_more(scans, tmp_path) -> None:
    with pytest.raises(MGCCError, match="add --recursive"):
        segment([str(scans)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    segment([str(scans)], str(tmp_path / "out"), recursive=True, format="nii.gz", threshold=1e-6, device="cpu")
    masks = [nibabel.load(tmp_path / "out" / name) for name in ("a.nii.gz", "deeper/a.nii.gz")]
    assert all(np.asarray(one.dataobj).mean() > 0.3 for one in masks)
    with pytest.raises(MGCCError, match="overwrite"):  # masks of other settings stand there
        segment([str(scans / "a.png")], str(tmp_path / "out"), device="cpu")


def test_paths_are_files_folders_and_patterns(scans, tmp_path) -> None:
    assert images_by_folder([str(scans / "a.png"), str(scans / "*.png")], "out") == {"": [scans / "a.png"]}
    with pytest.raises(MGCCError) as error:
        images_by_folder([str(scans / "b.png"), str(scans / "notes.doc"), str(tmp_path)], "out")
    told = str(error.value)
    assert "b.png: there is no such file" in told and "notes.doc: is no image" in told and "holds no image" in told
    words = [str(scans / "a.png"), "b.png", "--output", "out", "--overlay"]
    assert read_arguments("segment", words) == {"path": words[:2], "output": "out", "overlay": True}


def test_an_image_that_cannot_be_read_is_named_and_nothing_is_written(scans, tmp_path) -> None:
    shutil.copytree(scans, tmp_path / "in")
    (tmp_path / "in" / "deeper" / "bad.png").write_bytes((scans / "a.png").read_bytes()[:200])
    with pytest.raises(MGCCError, match="bad.png"):
        segment([str(tmp_path / "in" / "a.png"), str(tmp_path / "in" / "deeper" / "bad.png")], str(tmp_path / "out"))
    with pytest.raises(MGCCError, match="bad.png"):
        segment([str(tmp_path / "in")], str(tmp_path / "out"), recursive=True)
    assert not list(tmp_path.glob("out/**/*.*"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"weights": "brest"}, f"--weights brest: there is no such file, run or name; .* {DEFAULT}"),
        ({"format": "jpg"}, "--format jpg: give one of png, nii.gz"),
        ({"threshold": 1.5}, "--threshold 1.5: give a number between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, told, scans, tmp_path) -> None:
    with pytest.raises(MGCCError, match=told) as error:
        segment([str(scans / "a.png")], str(tmp_path / "out"), **options)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_the_shipped_weights_are_listed_small_and_described(tmp_path, monkeypatch) -> None:
    assert DEFAULT in shipped(BUNDLE)
    settings = json.loads((BREAST / "inference.json").read_text())
    assert settings["ckpt_sha256"] == sha256(BREAST / "model.safetensors")
    assert (BREAST / "model.safetensors").stat().st_size < 25e6
    assert sum(path.stat().st_size for path in (BREAST / "generator").rglob("*")) < 25e6
    for path in BREAST.rglob("*.json"):
        assert not re.search(r'"(/|[A-Z]:\\|file:)', path.read_text()), f"{path} has a path of one machine"
    card = (BREAST / "README.md").read_text()
    assert "Gómez-Flores" in card and "without limitation" in (BREAST / "LICENSE-BUS-BRA.txt").read_text()
    monkeypatch.chdir(tmp_path)
    assert find_weights("", BUNDLE).weights == BREAST / "model.safetensors"
    shutil.copytree(BREAST, tmp_path / "runs" / "segmentation")
    assert find_weights("", BUNDLE).config == tmp_path / "runs" / "segmentation" / "inference.json"
    assert find_weights("runs", BUNDLE) == find_weights("runs/segmentation/model.safetensors", BUNDLE)
    (tmp_path / "runs" / "segmentation" / "inference.json").unlink()
    with pytest.raises(MGCCError, match="no inference.json beside"):
        find_weights("runs/segmentation/model.safetensors", BUNDLE)


def test_weights_that_are_not_the_listed_ones_are_refused(scans, tmp_path) -> None:
    shutil.copytree(BREAST, tmp_path / "copy", ignore=shutil.ignore_patterns("generator"))
    content = bytearray((BREAST / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(content)
    with pytest.raises((MGCCError, RuntimeError)) as error:
        segment([str(scans / "a.png")], str(tmp_path / "out"), weights=str(tmp_path / "copy"))
    causes, cause = [], error.value
    while cause is not None:
        causes.append(str(cause))
        cause = cause.__cause__
    assert any("its sha256 is" in text for text in causes) and not list(tmp_path.glob("out/*"))


def test_fit_knows_the_shipped_weights_by_name() -> None:
    read = _read_settings({"pretrained": DEFAULT, "seed": "3"}, BUNDLE)
    assert read["pretrained"] == str(BREAST / "model.safetensors")
    assert _read_settings({"pretrained": "other.pt"}, BUNDLE)["pretrained"] == "other.pt"
    network = build(json.loads((BREAST / "inference.json").read_text())["network_def"] | {"perturbations": None})
    check_fits(network, read["pretrained"])  # with the auxiliary decoders that they do not have


def test_the_shipped_weights_can_be_exported_and_not_packed(tmp_path) -> None:
    with pytest.raises(MGCCError, match="cannot be packed without its training"):
        package("0.2.0", str(tmp_path), weights=str(BREAST), bundle_root=str(BUNDLE))
    assert export(str(BREAST), str(tmp_path / "breast.ts"), "torchscript").is_file()
