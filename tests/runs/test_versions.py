"""What earlier versions wrote goes on working, or the message says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import monai.bundle
import numpy as np
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.files import sha256

OLD = Path(__file__).parent / "version_0_1"


def test_an_inference_json_of_version_0_1_gives_the_masks_that_todays_gives(tmp_path: Path, configs: Path):
    settings = json.loads((OLD / "inference.json").read_text())
    torch.manual_seed(4)
    network = ConfigParser(settings["network_def"]).get_parsed_content()
    image = np.random.default_rng(0).integers(0, 255, (40, 56), dtype=np.uint8)
    scaled = torch.nn.functional.interpolate(torch.tensor(image / 255.0)[None, None].float(), (32, 32))
    bias = network.state_dict()["main_decoder.head.bias"]
    with torch.no_grad():
        bias -= network.eval()(scaled - 0.5).median()  # half of the pixels above the threshold
    torch.save(network.state_dict(), tmp_path / "model.pt")
    settings["ckpt_sha256"] = sha256(tmp_path / "model.pt")
    (tmp_path / "inference.json").write_text(json.dumps(settings))
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "a.png")

    def mask(name: str, config: Path, **options: object) -> np.ndarray:
        fixed = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / name), "threshold": 0.5}
        files = {"run_id": "inferring", "config_file": str(config), "logging_file": False}
        monai.bundle.run(**files, **fixed, device="cpu", **options)
        return np.asarray(Image.open(tmp_path / name / "a.png"))

    same = {key: settings[key] for key in ("network_def", "image_size", "image_mean", "image_std")}
    today = mask("today", configs / "inference.json", ckpt_path=str(tmp_path / "model.pt"), **same)
    assert np.array_equal(mask("old", tmp_path / "inference.json"), today)
    assert today.shape == image.shape and 0 < np.count_nonzero(today) < today.size


def test_a_dataset_is_the_one_that_version_0_1_wrote(tmp_path: Path):
    write_phantoms(tmp_path / "data", count=12, seed=3, label_fraction=0.5, size=(32, 40))
    wrote = "24db40e51beed17f34464dcf1eab9f71320204209d75d058dbf0ed7a45e37403"
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["hash"] == wrote
