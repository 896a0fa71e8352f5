"""Clients that hand over arrays, or apply the config's steps themselves: MONAI Label and MONAI Deploy."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import monai.bundle
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch
from monai.transforms import Compose, SaveImaged
from PIL import Image


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A grey image of 40 rows and 56 columns."""
    pixels = np.random.default_rng(5).integers(0, 255, (40, 56), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "scan.png")
    return tmp_path / "in" / "scan.png"


@pytest.fixture
def mask(scan: Path, unpacked: Path, tmp_path: Path) -> np.ndarray:
    """The mask of inferring, HW of 0 and 1, with some of each."""
    config = unpacked / "configs" / "inference.json"
    parser = ConfigParser.load_config_file(str(config))
    image = ConfigParser(parser).get_parsed_content("preprocessing")({"image": str(scan)})["image"]
    network = ConfigParser(parser).get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(unpacked / "models" / "model.pt", weights_only=True))
    threshold = network(image[None]).sigmoid().median().item()  # a short training calls all pixels one thing
    config.write_text(json.dumps({**json.loads(config.read_text()), "threshold": threshold}, indent=4) + "\n")
    options = {"dataset_dir": str(scan.parent), "output_dir": str(tmp_path / "masks"), "logging_file": False}
    monai.bundle.run(run_id="inferring", config_file=str(config), device="cpu", **options)
    mask = np.asarray(Image.open(tmp_path / "masks" / "scan.png")) // 255
    assert 0 < mask.mean() < 1
    return mask


def test_label_gets_a_two_dimensional_uint8_mask(scan: Path, unpacked: Path, mask: np.ndarray):
    """What MONAI Label does: its own loop over preprocessing, inferer and postprocessing without ``SaveImaged``."""
    parser = ConfigParser()
    parser.read_config(str(unpacked / "configs" / "inference.json"))
    parser.update({"bundle_root": str(unpacked), "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(unpacked / "models" / "model.pt", weights_only=True))
    data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
    with torch.no_grad():
        outputs = parser.get_parsed_content("inferer")(data["image"][None], network)
    data["pred"] = decollate_batch(outputs)[0]
    steps = parser.get_parsed_content("postprocessing").transforms
    pred = Compose([step for step in steps if not isinstance(step, SaveImaged)])(data)["pred"]
    assert pred.dtype == torch.uint8 and tuple(pred.shape) == (56, 40)
    assert np.array_equal(np.asarray(pred).T, mask)


@pytest.fixture
def deploy(example) -> ModuleType:
    return example("deploy/app.py")


def test_deploy_gives_the_mask_of_inferring_for_frames_of_any_stacking(deploy, scan: Path, unpacked: Path, mask):
    segment = deploy.Segmenter(unpacked)
    frame = np.asarray(Image.open(scan))
    assert np.array_equal(segment(frame), mask)
    colour = np.repeat(frame[..., None], 3, axis=2)
    for frames in (frame, frame[None], colour[None]):
        found = segment.volume(frames)
        assert found.dtype == np.uint8 and np.array_equal(found, mask[None])
    loop = np.stack([colour, colour[::-1]])
    assert segment.volume(loop).shape == (2, 40, 56)


def train_as_label(unpacked: Path, output: Path, items: list[dict[str, str]], **options: object) -> None:
    """What MONAI Label does: its own lists, its own loader of weights in front, ``run`` as id."""
    config = json.loads((unpacked / "configs" / "train.json").read_text())
    handlers = config["train"]["handlers"]
    assert not [one for one in handlers if one["_target_"] == "CheckpointLoader"], "Label would not add its own"
    loader = {"_target_": "CheckpointLoader", "load_path": str(unpacked / "models" / "model.pt"), "strict": True}
    handlers = [loader | {"load_dict": {"model": "$@network"}}, *handlers]
    lists = {"train#dataset#data": items, "validate#dataset#data": items, "train#handlers": handlers}
    fixed = {"bundle_root": str(unpacked), "device": "cpu", "train#trainer#max_epochs": 1, "output_dir": str(output)}
    file = str(unpacked / "configs" / "train.json")
    monai.bundle.run(run_id="run", config_file=file, logging_file=False, **lists, **fixed, **options)


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, str]]:
    """Four images with labels, as a client lists them."""
    (tmp_path / "studies").mkdir()
    listed = []
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "studies" / f"{number}.png")
        Image.fromarray((pixels > 128).astype(np.uint8)).save(tmp_path / "studies" / f"{number}_label.png")
        paths = {"image": f"{number}.png", "label": f"{number}_label.png"}
        listed.append({name: str(tmp_path / "studies" / path) for name, path in paths.items()})
    return listed


def test_label_trains_on_its_own_lists_from_the_weights_that_are_there(items, unpacked, phantoms, tmp_path):
    options = {"dataset_dir": str(phantoms), "max_iterations": 2, "generated_fraction": 0, "learning_rate": 0.0}
    train_as_label(unpacked, tmp_path / "out", items, **options)
    before = torch.load(unpacked / "models" / "model.pt", weights_only=True)
    after = torch.load(tmp_path / "out" / "segmentation" / "model.pt", weights_only=True)
    learned = [name for name, value in before.items() if "running" not in name and "batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in learned), (
        "a rate of 0 keeps the weights it began with"
    )


def test_label_without_a_dataset_is_refused_and_makes_no_phantoms(items, unpacked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="would be phantoms; set dataset_dir") as error:
        train_as_label(unpacked, tmp_path / "out", items)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_files_that_a_clients_list_names_must_be_there(items, unpacked, phantoms, tmp_path):
    items[1]["label"] = str(tmp_path / "none.png")
    with pytest.raises(SystemExit, match="none.png: there is no such file; correct the client's list") as error:
        train_as_label(unpacked, tmp_path / "out", items, dataset_dir=str(phantoms))
    assert "\n" not in str(error.value)
