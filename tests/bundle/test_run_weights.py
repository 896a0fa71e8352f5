"""A run's ``inference.json`` uses the weights that it was written for, wherever the two lie, or none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image

from mgcc_monai.errors import MGCCError
from mgcc_monai.files import sha256
from mgcc_monai.runs.record import RunRecord
from mgcc_monai.runs.words import monai_text

TINY = Path(__file__).with_name("tiny.yaml")
CONFIGS = TINY.parents[2] / "bundle" / "configs"


def train(output: Path, phantoms: Path, **options: Any) -> None:
    files = [str(CONFIGS / "train.json"), str(TINY)]
    fixed = {"bundle_root": monai_text(str(CONFIGS.parent)), "models_dir": str(output / "models")}
    settings = fixed | {"dataset_dir": str(phantoms), "output_dir": str(output), "learning_rate": 0.1} | options
    monai.bundle.run(run_id="training", config_file=files, logging_file=False, **settings)


@pytest.fixture(scope="module")
def trained(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trainings into one folder; the first one was copied before the second."""
    output = tmp_path_factory.mktemp("trained")
    train(output, phantoms, seed=1)
    shutil.copytree(output / "segmentation", output / "copy")
    train(output, phantoms, seed=2)
    return output


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """The folder of both trainings, to change at will, and an image to segment."""
    shutil.copytree(trained, tmp_path / "runs")
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").save(tmp_path / "in" / "a.png")
    return tmp_path / "runs"


def segment(config: str | Path | list[str], tmp_path: Path, **options: Any) -> dict[str, Any]:
    """Segment with a config, and return the network's weights and the threshold that were used."""
    settings = {"dataset_dir": str(tmp_path / "in"), "output_dir": str(tmp_path / "masks"), "device": "cpu"}
    files = config if isinstance(config, list) else str(config)
    workflow = ConfigWorkflow(
        files, workflow_type="infer", logging_file=False, run_id="inferring", **settings | options
    )
    workflow.initialize()
    workflow.run()
    assert (tmp_path / "masks" / "a.png").is_file()
    read = workflow.parser.get_parsed_content
    return {"weights": read("network").state_dict(), "threshold": read("threshold")}


def uses(found: dict[str, Any], folder: Path) -> bool:
    """Whether weights and threshold are those of the training in a folder."""
    best = json.loads((folder / "run.json").read_text())["best"]
    weights = torch.load(folder / "model.pt", weights_only=True)
    same = all(torch.equal(weights[name], tensor) for name, tensor in found["weights"].items())
    return same and found["threshold"] == best["threshold"]


def test_the_two_trainings_differ(trained: Path) -> None:
    first, second = (sha256(trained / name / "model.pt") for name in ("copy", "segmentation"))
    assert first != second and sha256(trained / "segmentation.previous-1" / "model.pt") == first


@pytest.mark.parametrize("name", ["segmentation", "segmentation.previous-1", "copy", "moved", "named as another"])
def test_each_folder_uses_its_own_weights(runs: Path, tmp_path: Path, name: str) -> None:
    if name == "moved":
        (tmp_path / "elsewhere").mkdir()
        folder = (runs / "copy").rename(tmp_path / "elsewhere" / "run of Monday")
    elif name == "named as another":
        shutil.rmtree(runs / "segmentation")
        folder = (runs / "copy").rename(runs / "segmentation")
    else:
        folder = runs / name
    assert uses(segment(folder / "inference.json", tmp_path), folder)
    assert str(runs) not in (folder / "inference.json").read_text(), "an absolute path"


@pytest.mark.parametrize("way", ["relative", "beside it", "list", "bundle_root", "link"])
def test_however_the_config_is_named(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    folder, config, options = runs / "copy", str(runs / "copy" / "inference.json"), {}
    monkeypatch.chdir(runs / "segmentation")  # where another model.pt lies
    if way == "relative":
        config = os.path.join("..", "copy", "inference.json")
    elif way == "beside it":
        monkeypatch.chdir(folder)
        config = "inference.json"
    elif way == "list":
        (tmp_path / "more.json").write_text(json.dumps({"batch_size": 1}))
        config = [config, str(tmp_path / "more.json")]
    elif way == "bundle_root":
        options["bundle_root"] = monai_text(str(CONFIGS.parent))
    else:
        (tmp_path / "link").symlink_to(folder)
        config = str(tmp_path / "link" / "inference.json")
    assert uses(segment(config, tmp_path, **options), folder)


@pytest.mark.parametrize("way", ["replaced", "ckpt_path", "evaluating", "evaluating with ckpt_path", "client"])
def test_other_weights_are_refused(runs: Path, phantoms: Path, tmp_path: Path, run, way: str) -> None:
    folder, other, options = runs / "copy", runs / "segmentation" / "model.pt", {}
    if "ckpt_path" in way:
        options["ckpt_path"] = str(other)
    else:
        shutil.copyfile(other, folder / "model.pt")
    with pytest.raises(MGCCError) as error:
        if "evaluating" in way:
            options |= {"segmentation_dir": str(folder), "output_dir": str(runs), "dataset_dir": str(phantoms)}
            run("evaluating", "train.json", "evaluate.json", **options)
        elif way == "client":  # takes the evaluator, and runs no check of ours
            workflow = ConfigWorkflow(str(folder / "inference.json"), workflow_type="infer", logging_file=False)
            workflow.initialize()
            _ = workflow.evaluator
        else:
            segment(folder / "inference.json", tmp_path, **options)
    text = str(error.value)
    assert text.startswith(options.get("ckpt_path", str(folder / "model.pt"))) and "\n" not in text
    assert sha256(other)[:12] in text and sha256(runs / "segmentation.previous-1" / "model.pt")[:12] in text
    assert not (tmp_path / "masks").exists() and not (runs / "evaluation").exists()


def test_missing_weights_are_not_looked_for_elsewhere(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runs / "copy" / "model.pt").unlink()
    monkeypatch.chdir(runs / "segmentation")
    with pytest.raises(MGCCError, match="there is no such file of weights; keep it beside"):
        segment(runs / "copy" / "inference.json", tmp_path)


def test_killed_between_weights_and_settings_is_refused_until_resumed(
    phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pair of two validations is told; the resumed run ends with the files of the undisturbed one."""
    (tmp_path / "in").mkdir()
    Image.linear_gradient("L").save(tmp_path / "in" / "a.png")
    options = {"max_iterations": 12, "epoch_length": 4, "learning_rate": 0.3}
    train(tmp_path / "whole", phantoms, **options)
    write, calls = RunRecord.write_inference, []

    def kill(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(RunRecord, "write_inference", kill)
        train(tmp_path / "runs", phantoms, **options)
    folder = tmp_path / "runs" / "segmentation"
    with pytest.raises(MGCCError, match="--resume true"):
        segment(folder / "inference.json", tmp_path)
    train(tmp_path / "runs", phantoms, **options, resume="true")
    assert uses(segment(folder / "inference.json", tmp_path), folder)
    whole, parts = (
        json.loads((tmp_path / name / "segmentation" / "inference.json").read_text()) for name in ("whole", "runs")
    )
    assert whole == parts


def as_before(folder: Path, trained_in: Path) -> Path:
    """Turn a run's ``inference.json`` into one of the version before, written where the training ran."""
    file = folder / "inference.json"
    content = json.loads(file.read_text())
    del content["ckpt_sha256"]
    content.update(bundle_root=str(trained_in), ckpt_path="$@bundle_root + '/model.pt'")
    content["inferring"] = [line.replace(", @ckpt_sha256", "") for line in content["inferring"] if "lock" not in line]
    file.write_text(json.dumps(content))
    return file


def test_a_config_of_the_version_before_works_where_it_was_written(runs: Path, tmp_path: Path) -> None:
    assert uses(segment(as_before(runs / "copy", runs / "copy"), tmp_path), runs / "copy")
    alone = shutil.copyfile(runs / "copy" / "inference.json", tmp_path / "settings.json")
    assert uses(segment(alone, tmp_path), runs / "copy")


@pytest.mark.parametrize("name", ["segmentation.previous-1", "copy"])
def test_a_config_of_the_version_before_does_not_take_another_folders_weights(
    runs: Path, tmp_path: Path, name: str
) -> None:
    folder = runs / name
    config = as_before(folder, runs / "segmentation")
    with pytest.raises(MGCCError) as error:
        segment(config, tmp_path)
    cure = str(error.value).partition("give --ckpt_path ")[2].partition(",")[0]
    assert uses(segment(config, tmp_path, ckpt_path=cure), folder)
    shutil.rmtree(tmp_path / "masks")
    shutil.rmtree(runs / "segmentation")  # as after moving the run to another machine
    with pytest.raises(MGCCError, match="give --ckpt_path"):
        segment(config, tmp_path)
