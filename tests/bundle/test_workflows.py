"""The workflows as a user calls them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Resize
from PIL import Image

from mgcc_monai.runs.settings import build

TINY = Path(__file__).with_name("tiny.yaml")


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m monai.bundle run`` in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_train_evaluate_infer_from_a_foreign_folder(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "elsewhere"
    foreign.mkdir()
    configs = bundle / "configs"
    common = ["--bundle_root", str(bundle), "--dataset_dir", str(phantoms), "--output_dir", "out"]
    train = f"['{configs}/train.json','{TINY}']"
    evaluate = f"['{configs}/train.json','{configs}/evaluate.json']"

    done = command(foreign, "--config_file", train, *common)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = foreign / "out" / "segmentation"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["versions"]["monai"] and record["seed"] == 41
    assert record["dataset_hash"] == json.loads((phantoms / "dataset.json").read_text())["hash"]
    assert not list((bundle / "models").glob("model*")), "the bundle's configs describe the paper's network"
    assert f"--config_file {folder / 'inference.json'}" in done.stdout + done.stderr

    done = command(foreign, "evaluating", "--config_file", evaluate, *common)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "dice" in done.stdout and "95 % interval" in done.stdout
    summary = json.loads((foreign / "out" / "evaluation" / "summary.json").read_text())
    rows = list(csv.DictReader((foreign / "out" / "evaluation" / "cases.csv").open()))
    lesions = [float(row["dice"]) for row in rows if row["list"] == "test"]
    assert summary["n"] == len(lesions) == len(json.loads((phantoms / "dataset.json").read_text())["test"])
    assert summary["metrics"]["dice"]["mean"] == pytest.approx(sum(lesions) / len(lesions), abs=1e-6)
    assert (summary["protocol"], summary["split"], summary["preset"]) == ("strict", "test", "demo")
    assert summary["threshold"] == record["best"]["threshold"]

    images = foreign / "images (new)"
    images.mkdir()
    Image.open(phantoms / "images" / "phantom-0000.png").convert("RGB").save(images / "benign (1).png")
    Image.open(phantoms / "images" / "phantom-0001.png").resize((70, 50)).save(images / "b.bmp")
    Image.open(phantoms / "images" / "phantom-0001.png").save(images / "c.tif")
    Image.open(phantoms / "images" / "phantom-0002.png").save(images / "d.jpg")
    picture = np.asarray(Image.open(phantoms / "images" / "phantom-0003.png"))
    nibabel.save(nibabel.Nifti1Image(picture.T[..., None], np.eye(4)), images / "e.nii.gz")
    done = command(
        foreign, "inferring", "--config_file", str(folder / "inference.json"), "--dataset_dir", str(images),
        "--output_dir", "masks", "--save_prob", "true", "--save_overlay", "true", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("benign (1)", "b", "c", "d"):
        source = next(images.glob(f"{name}.*".replace("(", "[(]").replace(")", "[)]")))
        mask = Image.open(foreign / "masks" / f"{name}.png")
        assert mask.size == Image.open(source).size
        assert {value for _, value in mask.getcolors()} <= {0, 255}
        assert Image.open(foreign / "masks" / f"{name}_prob.png").size == mask.size
        assert Image.open(foreign / "masks" / f"{name}_overlay.png").mode == "RGB"
    assert Image.open(foreign / "masks" / "e.png").size == picture.shape[::-1]
    assert {row["image"] for row in csv.DictReader((foreign / "masks" / "lesions.csv").open())} == {
        path.name for path in images.iterdir()
    }


FASTER = {"ema_decay": 0.9, "auxiliary_per_step": 1, "recompute_decoders": "true"}


@pytest.mark.parametrize("switches", [{}, FASTER], ids=["paper", "faster"])
def test_resumed_training_equals_the_undisturbed_one(run, phantoms: Path, tmp_path: Path, switches) -> None:
    options = {"dataset_dir": str(phantoms), "max_iterations": 4, **switches}
    run("training", "train.json", **options, output_dir=str(tmp_path / "whole"))
    run("training", "train.json", **options, output_dir=str(tmp_path / "parts"), **{"train#trainer#max_epochs": 2})
    run("training", "train.json", **options, output_dir=str(tmp_path / "parts"), resume="true")

    def last(name: str) -> dict:
        return torch.load(tmp_path / name / "segmentation/checkpoints/checkpoint_epoch=4.pt", weights_only=True)

    whole, parts = last("whole"), last("parts")
    assert (
        whole["progress"] == parts["progress"] == {"iteration": 4, "epoch": 4, "epoch_length": 1, "max_iterations": 4}
    )
    for name, tensor in whole["network"].items():
        assert torch.equal(tensor, parts["network"][name]), name
    for ema in [[checkpoint["ema"] for checkpoint in (whole, parts)]] if switches else []:
        for name in ("shadow_params", "buffers"):
            assert all(torch.equal(*pair) for pair in zip(ema[0][name], ema[1][name], strict=True))
    momenta = [checkpoint["optimizer"]["state"] for checkpoint in (whole, parts)]
    assert momenta[0].keys() == momenta[1].keys()
    for index, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][index]["momentum_buffer"])
    assert whole["lr_scheduler"] == parts["lr_scheduler"]


def test_a_second_training_keeps_the_first(run, bundle: Path, describe, phantoms: Path, tmp_path: Path) -> None:
    describe()
    for seed in (1, 2):
        run("training", "train.json", dataset_dir=str(phantoms), seed=seed)
    runs = tmp_path / "runs"
    assert json.loads((runs / "segmentation.previous-1" / "run.json").read_text())["seed"] == 1
    assert json.loads((runs / "segmentation" / "run.json").read_text())["seed"] == 2
    first = torch.load(runs / "segmentation.previous-1" / "model.pt", weights_only=True)
    previous = torch.load(bundle / "models" / "model.previous.pt", weights_only=True)
    assert all(torch.equal(first[name], previous[name]) for name in first)


def test_supervised_training_needs_no_unlabelled_image(run, tmp_path: Path) -> None:
    from mgcc_monai.data.phantom.write import write_phantoms

    write_phantoms(str(tmp_path / "labelled"), count=12, seed=5, label_fraction=1.0, size=(48, 48))
    run("training", "train.json", "methods/supervised.yaml", dataset_dir=str(tmp_path / "labelled"))
    assert json.loads((tmp_path / "runs/segmentation/run.json").read_text())["method"] == "supervised"


@pytest.mark.parametrize("channels", [1, 2])
def test_figures_of_sigmoid_and_softmax_networks_are_those_worked_out_by_hand(
    run, phantoms: Path, tmp_path: Path, channels: int
) -> None:
    options = {"dataset_dir": str(phantoms), "max_iterations": 8, "epoch_length": 8, "learning_rate": 0.1}
    run("training", "train.json", **options, out_channels=channels)
    run("evaluating", "train.json", "evaluate.json", dataset_dir=str(phantoms))
    folder = tmp_path / "runs" / "segmentation"
    settings = json.loads((folder / "inference.json").read_text())
    network = build(settings["network_def"]).eval()
    network.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    rows = {row["image"]: row for row in csv.DictReader((tmp_path / "runs" / "evaluation" / "cases.csv").open())}
    lists = json.loads((phantoms / "dataset.json").read_text())
    wide, high = settings["image_size"]
    for item in lists["test"]:
        image = torch.from_numpy(np.asarray(Image.open(phantoms / item["image"]), dtype=np.float32).T.copy())[
            None, None
        ]
        image = (image - image.min()) / (image.max() - image.min())
        image = Resize((wide, high), mode="bilinear", anti_aliasing=True)(image[0])[None]
        with torch.no_grad():
            logits = network((image.as_tensor() - settings["image_mean"]) / settings["image_std"])
        prob = torch.sigmoid(logits)[0, 0] if channels == 1 else 1 - torch.softmax(logits, dim=1)[0, 0]
        pred = prob >= settings["threshold"]
        label = Image.open(phantoms / item["label"])
        label = torch.from_numpy(np.asarray(label).T.copy())[None, None].float()
        label = torch.nn.functional.interpolate(label, size=(wide, high), mode="nearest")[0, 0] > 0
        dice = 2 * (pred & label).sum() / (pred.sum() + label.sum())
        assert float(rows[item["image"]]["network_dice"]) == pytest.approx(float(dice), abs=2e-3)
