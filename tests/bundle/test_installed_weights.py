"""What lies in ``models/`` is of the network that the bundle's configs describe, and used with its own settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.networks import MGCC
from mgcc_monai.runs.best_weights import install_weights
from mgcc_monai.runs.config import literal

CHANNELS = [4, 4, 8, 8, 16]


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_load_returns_the_trained_network_to_the_bit(run, describe, bundle, phantoms, tmp_path, kind: str) -> None:
    describe()
    run("training", "train.json", dataset_dir=str(phantoms), perturbation_shared=True)  # of the training alone
    network = monai.bundle.load("bundle", bundle_dir=tmp_path, workflow_type=kind, device="cpu").eval()
    twin = MGCC(1, 1, CHANNELS).eval()
    twin.load_state_dict(torch.load(tmp_path / "runs/segmentation/model.pt", weights_only=True))
    image = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(image), twin(image))


@pytest.mark.parametrize(
    ("described", "trained", "told"),
    [
        (None, {}, "channels"),
        (["train.json"], {}, "channels"),
        (["inference.json"], {}, "channels"),
        ([], {"channels": [4, 4, 8, 16, 16]}, "channels"),
        ([], {"out_channels": 2}, "out_channels"),
        ([], {"network_def#dropout": 0.25}, "dropout"),  # of the same shape
    ],
)
def test_nothing_is_installed_beside_configs_of_another_network(
    run, describe, bundle: Path, phantoms: Path, tmp_path: Path, caplog, described: Any, trained: dict, told: str
) -> None:
    if described is not None:
        describe(*described)
    run("training", "train.json", dataset_dir=str(phantoms), **trained)
    assert [path.name for path in (bundle / "models").iterdir()] == ["README.md"]
    (line,) = (text for text in caplog.messages if "The weights stay in" in text)
    folder = tmp_path / "runs" / "segmentation"
    assert f"--config_file {folder / 'inference.json'}" in line and f"({told})" in line and "\n" not in line
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").save(tmp_path / "in" / "a.png")
    monai.bundle.run("inferring", config_file=str(folder / "inference.json"), dataset_dir=str(tmp_path / "in"),
                     output_dir=str(tmp_path / "masks"), logging_file=False)  # fmt: skip
    assert (tmp_path / "masks" / "a.png").is_file()


@pytest.mark.parametrize(("channels", "stays"), [(CHANNELS, True), ([2, 4, 6, 8, 10], False)])
def test_weights_that_are_there_stay_where_they_fit_and_are_kept_where_not(
    run, describe, bundle: Path, phantoms: Path, channels: list[int], stays: bool
) -> None:
    describe()
    torch.save(MGCC(1, 1, channels).state_dict(), bundle / "models" / "model.pt")
    before = (bundle / "models" / "model.pt").read_bytes()
    run("training", "train.json", dataset_dir=str(phantoms), out_channels=2)
    assert (bundle / "models" / "model.pt").exists() == stays
    assert (bundle / "models" / ("model.pt" if stays else "model.pt.previous-1")).read_bytes() == before


@pytest.mark.parametrize("preset", [None, "authors_release"])
def test_weights_of_the_papers_network_are_installed_into_the_bundle_as_shipped(
    bundle: Path, configs: Path, tmp_path: Path, preset: str | None
) -> None:
    """Whatever perturbed its training."""
    parser = ConfigParser()
    overlays = [] if preset is None else [str(configs / "presets" / f"{preset}.yaml")]
    parser.read_config([str(configs / "train.json"), *overlays])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.pt").write_bytes(b"weights")
    (tmp_path / "run" / "inference.json").write_text(json.dumps({"network_def": literal(parser, "network_def")}))
    assert install_weights(str(tmp_path / "run"), str(bundle / "models")) == bundle / "models" / "model.pt"
    for name in ("model.pt", "inference.json"):
        assert (bundle / "models" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


@pytest.fixture
def installed(run, describe, bundle: Path, phantoms: Path, tmp_path: Path):
    """``installed(**options)``: segment by ``configs/inference.json`` with the weights that a training installed."""
    describe()
    run("training", "train.json", dataset_dir=str(phantoms))
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").save(tmp_path / "in" / "a.png")
    own = json.loads((bundle / "models" / "inference.json").read_text())
    own = {name: own[name] for name in ("image_size", "image_mean", "image_std", "threshold")}
    folders = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "masks")}
    return lambda **options: run("inferring", "inference.json", **folders, **{**own, **options})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_mean", 0.33),
        ("image_std", 0.22),
        ("image_size", [48, 48]),
        ("resize#anti_aliasing", [False, False]),
        ("network_def#dropout", 0.5),
    ],
)
def test_settings_that_are_not_those_of_the_weights_are_refused(
    installed, bundle: Path, tmp_path: Path, name: str, value: Any
) -> None:
    with pytest.raises(MGCCError) as error:
        installed(**{name: value})
    text = str(error.value)
    assert (
        name.split("#")[0] in text
        and f"--config_file {bundle / 'models' / 'inference.json'}" in text
        and "\n" not in text
    )
    assert not (tmp_path / "masks").exists()


def test_another_threshold_is_told_and_the_same_settings_are_not(
    installed, bundle: Path, tmp_path: Path, caplog
) -> None:
    chosen = json.loads((bundle / "models" / "inference.json").read_text())["threshold"]
    with caplog.at_level(logging.WARNING, "mgcc_monai"):
        installed()
        assert not [record for record in caplog.records if record.name.startswith("mgcc_monai.runs.preflight.weights")]
        installed(threshold=0.123)
    (line,) = (
        record.message for record in caplog.records if record.name.startswith("mgcc_monai.runs.preflight.weights")
    )
    assert "0.123" in line and str(chosen) in line and "\n" not in line


def test_a_pair_that_was_cut_in_two_is_refused_by_the_bundles_config_too(installed, bundle: Path) -> None:
    torch.save(MGCC(1, 1, CHANNELS).state_dict(), bundle / "models" / "model.pt")
    with pytest.raises(MGCCError, match=f"{bundle / 'models' / 'inference.json'} was written for"):
        installed()


def test_the_settings_of_weights_of_another_name_are_not_asked_of_the_file_beside(installed, bundle: Path) -> None:
    torch.save(MGCC(1, 1, CHANNELS).state_dict(), bundle / "models" / "converted.pt")
    installed(ckpt_path=str(bundle / "models" / "converted.pt"), image_mean=0.449)
