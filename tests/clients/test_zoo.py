"""The Model Zoo's unit-test flow on every workflow: initialize, check_properties, run, finalize."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from monai.bundle import create_workflow

TINY = Path(__file__).parents[1] / "bundle" / "tiny.yaml"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("name", ["train_autoencoder", "train_diffusion", "train"])
def test_a_training_is_looked_at_and_then_runs(name: str, configs: Path, phantoms: Path, output: Path):
    files = [str(configs / f"{name}.json"), str(TINY)]
    places = dict(bundle_root=str(configs.parent), dataset_dir=str(phantoms), output_dir=str(output))
    workflow = create_workflow(config_file=files, logging_file=False, run_id="training", generated_fraction=0, **places)
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    folder = {"train_autoencoder": "autoencoder", "train_diffusion": "diffusion"}.get(name, "segmentation")
    assert json.loads((output / folder / "run.json").read_text())["status"] == "finished"
    assert list((output / folder / "tensorboard").glob("events*")), "curves of the run"


def test_looking_at_inference_makes_nothing(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    workflow = create_workflow(config_file=str(configs / "inference.json"), workflow_type="infer", logging_file=False)
    assert workflow.check_properties() == []
    assert workflow.dataset_dir is None and len(workflow.dataset) == 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="--dataset_dir: missing; give the folder of images") as error:
        workflow.run()
    assert "\n" not in str(error.value)
    logging.getLogger().handlers.clear()
