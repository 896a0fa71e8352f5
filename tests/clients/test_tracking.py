"""What a stage leaves in MLflow: a run named after it, with figures and pictures, that has ended."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser
from PIL import Image

from mgcc_monai.runs.config import using
from mgcc_monai.runs.tracking import track

SETTINGS = {"tracking_uri": "sqlite:///x.db", "experiment_name": "one", "run_name": "evaluation_1"}


class Client:
    """Stands in for MLflow's client, and notes what it is asked."""

    def __init__(self, tracking_uri: str) -> None:
        assert tracking_uri == SETTINGS["tracking_uri"]

    def __getattr__(self, name: str) -> Any:
        return lambda *words: LOG.append((name, *words))

    def get_experiment_by_name(self, name: str) -> Any:
        assert name == "one"
        return types.SimpleNamespace(experiment_id="7")

    def search_runs(self, ids: list[str], **options: Any) -> list[Any]:
        assert ids == ["7"]
        return [run for run in RUNS if options["filter_string"] == f"attributes.run_name = '{run.info.run_name}'"]

    def create_run(self, id: str, run_name: str) -> Any:
        LOG.append(("create_run", id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="new"))


LOG: list[tuple[Any, ...]] = []
RUNS: list[Any] = []


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a stage, and an MLflow without runs."""
    monkeypatch.setitem(sys.modules, "mlflow", types.SimpleNamespace(MlflowClient=Client))
    LOG.clear(), RUNS.clear()
    folder = tmp_path / "evaluation"
    (folder / "overlays").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    for name in ("samples.png", "overlays/a.png", "checkpoints/no.png"):
        Image.linear_gradient("L").save(folder / name)
    figures = {"n": 3, "metrics": {"dice": {"mean": 0.5, "low": None}}, "unit": "mm", "strict": True}
    (folder / "summary.json").write_text(json.dumps(figures))
    return folder


def run_of(name: str) -> Any:
    return types.SimpleNamespace(info=types.SimpleNamespace(run_id="own", run_name=name))


def test_a_stage_without_a_run_gets_one_with_its_figures_and_pictures(stage: Path):
    RUNS.append(run_of("evaluation_2"))  # of another process, which this one must not touch
    with using(ConfigParser(dict(SETTINGS))):
        track(stage)
    assert LOG[0] == ("create_run", "7", "evaluation_1") and "own" not in {call[1] for call in LOG}
    metrics = {call[2]: call[3] for call in LOG if call[0] == "log_metric"}
    assert metrics == {"n": 3.0, "metrics/dice/mean": 0.5}
    pictures = {Path(call[2]).name for call in LOG if call[0] == "log_artifact"}
    assert pictures == {"samples.png", "a.png"} and LOG[-1] == ("set_terminated", "new", "FINISHED")


def test_the_run_that_monai_has_begun_is_taken_and_ended(stage: Path):
    RUNS.append(run_of("evaluation_1"))
    with using(ConfigParser(dict(SETTINGS))):
        track(stage, "KILLED")
    assert {call[1] for call in LOG} == {"own"} and LOG[-1] == ("set_terminated", "own", "KILLED")


def test_without_tracking_nothing_is_done(stage: Path):
    with using(ConfigParser({"output_dir": "runs"})):
        track(stage)
    assert LOG == []


@pytest.mark.clients
def test_with_mlflow_itself_a_training_is_one_finished_run(configs: Path, phantoms: Path, tmp_path: Path):
    import monai.bundle

    mlflow = pytest.importorskip("mlflow")
    files = [str(configs / "train.json"), str(configs.parents[1] / "tests" / "bundle" / "tiny.yaml")]
    places = dict(bundle_root=str(configs.parent), dataset_dir=str(phantoms), output_dir=str(tmp_path))
    options = dict(models_dir=str(tmp_path / "models"), generated_fraction=0, tracking="mlflow", logging_file=False)
    monai.bundle.run(run_id="training", config_file=files, **places, **options)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlruns.db'}")
    (experiment,) = (one for one in client.search_experiments() if one.name == "monai_experiment")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name.startswith("segmentation_") and run.info.status == "FINISHED"
    assert {"train_loss", "val_mean_dice"} <= run.data.metrics.keys()
