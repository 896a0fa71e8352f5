"""Resuming refuses every run but the one that is in the folder, and takes that one however it is written."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
import torch
from PIL import Image

from mgcc_monai.data.prepare import split
from mgcc_monai.errors import MGCCError
from mgcc_monai.generation import manifest
from mgcc_monai.generation.storage import weights_hash

STAGES = {"segmentation": ("train", ""), "autoencoder": ("train_autoencoder", "autoencoder_")}
STAGES["diffusion"] = ("train_diffusion", "diffusion_")


def generate(folder: Path, phantoms: Path, turn: int) -> None:
    """Twelve images as ``generating`` leaves them, those of another turn other ones."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(12):
        picture = Image.open(phantoms / "images" / f"phantom-{index:04d}.png").rotate(90 * turn)
        picture.save(folder / f"{index}.png")
        row = {"image": f"{index}.png", "index": index, "seed": 1, "class": "", "model": "m", "sha256": f"{turn:064}"}
        rows.append({**row, "scores": {}, "decision": "keep", "reason": ""})
    manifest.write(folder, rows)
    wanted = json.loads((phantoms / "dataset.json").read_text())["hash"]
    (folder / "run.json").write_text(json.dumps({"dataset_hash": wanted}))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, phantoms: Path, configs: Path) -> Path:
    """All three trainings, of four iterations, after their first epoch of two; ``whole`` is one to its end."""
    folder = tmp_path_factory.mktemp("begun")
    generate(folder / "runs" / "generated", phantoms, 0)
    tiny = str(Path(__file__).parents[1] / "bundle" / "tiny.yaml")
    for output, epochs in (("whole", 2), ("runs", 1)):
        if output == "whole":
            shutil.copytree(folder / "runs", folder / "whole")
        for stage in ("segmentation",) if epochs == 2 else ("autoencoder", "diffusion", "segmentation"):
            name, prefix = STAGES[stage]
            own = {f"{prefix}max_iterations": 4, f"{prefix}epoch_length": 2, "train#trainer#max_epochs": epochs}
            places = dict(bundle_root=str(configs.parent), dataset_dir=str(phantoms), output_dir=str(folder / output))
            places |= {"models_dir": str(folder / "models")} if stage == "segmentation" else {}
            files = [str(configs / f"{name}.json"), tiny]
            monai.bundle.run(run_id="training", config_file=files, logging_file=False, **places, **own)
    return folder


@pytest.fixture
def resume(begun: Path, run: Callable, phantoms: Path, tmp_path: Path) -> Iterator[Callable]:
    """``resume(stage, *overlays, **options)``: go on with a copy of the run; what it refuses it has not touched."""
    shutil.copytree(begun / "runs", tmp_path / "runs")

    def content() -> dict[str, str]:
        files = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def start(stage: str, *overlays: str, **options: Any) -> None:
        name, prefix = STAGES[stage]
        own = {f"{prefix}max_iterations": 4, f"{prefix}epoch_length": 2, "dataset_dir": str(phantoms)}
        before = content()
        try:
            run("training", f"{name}.json", *overlays, resume="true", **{**own, **options})
        except MGCCError:
            assert content() == before
            raise

    yield start


SETTINGS = [
    ("segmentation", {"learning_rate": 1e-7}, "learning_rate: was 0.01, is 1e-07;"),
    ("segmentation", {"seed": 42}, "seed: was 41, is 42;"),
    ("segmentation", {"batch_size": 3}, "batch_size: was 2, is 3;"),
    ("segmentation", {"optimizer#momentum": 0.5}, "optimizer#momentum: was 0.9, is 0.5;"),
    ("segmentation", {"optimizer#nesterov": True}, "optimizer#nesterov: was nothing, is True;"),
    ("segmentation", {"loss#supervised#lambda_ce": 2}, "loss#supervised#lambda_ce: was 0.5, is 2;"),
    ("segmentation", {"lr_scheduler#power": 0.5}, "lr_scheduler#power: was 0.9, is 0.5;"),
    ("segmentation", {"augmentation#0#prob": 0}, "augmentation#0#prob: was 0.5, is 0;"),
    ("segmentation", {"perturbations#1#p": 0.4}, "perturbations#1#p: was 0.3, is 0.4;"),
    ("segmentation", {"train#handlers#3#_disabled_": True}, "LrScheduleHandler#_disabled_: was nothing, is True"),
    ("segmentation", {"image_mean": 0.4}, r"image_mean: was \$@datalist.*, is 0.4;"),
    ("segmentation", {"generated_fraction": 0.5}, "generated_fraction: was 1.0, is 0.5;"),
    ("segmentation", {"resize#anti_aliasing": [False, False]}, "resize#anti_aliasing: was .*True.*, is .*False"),
    ("segmentation", {"val_interval": 2}, "val_interval: was 1, is 2;"),
    ("segmentation", {"max_iterations": 6}, "max_iterations: was 4, is 6;"),
    ("autoencoder", {"autoencoder_learning_rate": 1}, "autoencoder_learning_rate: was 0.0001, is 1;"),
    ("autoencoder", {"kl_weight": 1}, "kl_weight: was 1e-06, is 1;"),
    ("autoencoder", {"trained_lists": ["training"]}, "trained_lists: was .*'unlabeled'.*, is .'training'.;"),
    ("diffusion", {"condition_dropout": 0.5}, "condition_dropout: was 0.1, is 0.5;"),
    ("diffusion", {"train#handlers#1#max_norm": 9}, "train#handlers#GradientClipping#max_norm: was .*, is 9;"),
    ("diffusion", {"diffusion_lr_scheduler#name": "linear"}, "diffusion_lr_scheduler#name: was cosine.*, is linear;"),
]


@pytest.mark.parametrize(("stage", "options", "says"), SETTINGS, ids=lambda value: str(value)[:40])
def test_another_setting_is_refused_with_both_values(resume, stage, options, says):
    with pytest.raises(MGCCError, match=says) as told:
        resume(stage, **options)
    assert "\n" not in told.value.message and "start anew without --resume" in told.value.message


@pytest.mark.parametrize("stage", STAGES)
def test_another_split_is_refused(resume, phantoms, tmp_path, stage):
    """Images of its test list have trained; the two hashes are named."""
    shutil.copytree(phantoms, tmp_path / "again")
    split(str(tmp_path / "again"), str(tmp_path / "again" / "other.json"), split_seed=5, label_fraction=0.5)
    if stage == "segmentation":  # or its generated images would be refused first
        shutil.rmtree(tmp_path / "runs" / "generated")
    with pytest.raises(MGCCError, match="hash of the dataset: was .*, is ") as told:
        resume(stage, dataset_dir=str(tmp_path / "again" / "other.json"))
    assert "split_seed: was 0, is 5;" in told.value.message


def test_overlays_that_the_run_did_not_have_are_refused(resume):
    """Every difference is told, those of the header and those of the config."""
    with pytest.raises(MGCCError) as told:
        resume("segmentation", "methods/supervised.yaml")
    assert "method: was mgcc, is supervised" in told.value.message
    assert "consistency_weight: was 7.0, is 0.0" in told.value.message
    with pytest.raises(
        MGCCError, match=r"preset: was demo, is authors_release(.|\n)*image_std: was .*, is \$0.226 \* 255"
    ):
        resume("segmentation", "presets/authors_release.yaml")


@pytest.mark.parametrize("way", ["made again", "one dropped", "gone"])
def test_other_generated_images_are_refused(resume, phantoms, tmp_path, way):
    """Also as many of them."""
    folder = tmp_path / "runs" / "generated"
    if way == "made again":
        generate(folder, phantoms, 1)
    elif way == "one dropped":
        rows = manifest.read(folder)
        manifest.write(folder, [{**row, "decision": "drop" if row["index"] == 3 else "keep"} for row in rows])
    else:
        shutil.rmtree(folder)
    with pytest.raises(MGCCError, match="the generated images: was .*, is "):
        resume("segmentation")


def test_another_autoencoder_is_refused(resume, run, phantoms, tmp_path):
    folder = tmp_path / "runs" / "autoencoder" / "vae"
    found = weights_hash(folder)
    run("training", "train_autoencoder.json", dataset_dir=str(phantoms), seed=42)
    with pytest.raises(MGCCError, match=f"the autoencoder: was {found}, is {weights_hash(folder)};"):
        resume("diffusion")


def test_other_pretrained_weights_are_refused(resume, tmp_path):
    """They would be read and then replaced by those of the checkpoint."""
    best = torch.load(tmp_path / "runs" / "segmentation" / "model.pt", weights_only=True)
    torch.save(best, tmp_path / "pretrained.pt")
    with pytest.raises(MGCCError, match="the pretrained weights: was .*, is "):
        resume("segmentation", pretrained=str(tmp_path / "pretrained.pt"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_number_of_processes_is_refused(resume, tmp_path):
    """Each process adds a batch to every step."""
    change(tmp_path / "runs" / "segmentation" / "run.json", processes=2)
    with pytest.raises(MGCCError, match="number of processes: was 2, is 1;"):
        resume("segmentation")


@pytest.mark.parametrize("name", ["config.json", "run.json"])
@pytest.mark.parametrize("content", [None, "", "[]", '{"a": '])
def test_checkpoints_without_the_record_of_their_run_are_refused(resume, tmp_path, name, content):
    path = tmp_path / "runs" / "segmentation" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(MGCCError, match=f"{name}: is missing or damaged"):
        resume("segmentation")


def test_a_checkpoint_of_another_run_is_refused(begun, run, phantoms, tmp_path):
    """Copied from elsewhere, beside the record of this one."""
    shutil.copytree(begun / "runs", tmp_path / "runs")
    (checkpoint,) = (tmp_path / "runs" / "segmentation" / "checkpoints").iterdir()
    content = torch.load(checkpoint, weights_only=True)
    torch.save({**content, "progress": {**content["progress"], "max_iterations": 9}}, checkpoint)
    with pytest.raises(MGCCError, match="max_iterations 9, this run has 4"):
        run("training", "train.json", resume="true", dataset_dir=str(phantoms), max_iterations=4, epoch_length=2)


def last(output: Path) -> Path:
    return output / "segmentation" / "checkpoints" / "checkpoint_epoch=2.pt"


def test_what_changes_nothing_may_differ(resume, begun, phantoms, tmp_path, state_hash):
    """Other places, workers and caches, and values that are written in other words; to the bit."""
    shutil.copytree(phantoms, tmp_path / "moved")
    same = {"learning_rate": 1e-2, "perturbation_shared": "no", "image_size": (32, 32), "consistency_weight": 7}
    free = {"num_workers": 2, "cache_num": 3, "device": "cpu", "num_images": 99, "diffusion_batch_size": 7}
    resume("segmentation", dataset_dir=str(tmp_path / "moved"), generated_fraction=1, **same, **free)
    assert state_hash(last(tmp_path / "runs")) == state_hash(last(begun / "whole"))
    record = json.loads((tmp_path / "runs" / "segmentation" / "run.json").read_text())
    assert record["status"] == "finished" and record["dataset"] == str(tmp_path / "moved")


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_of_the_version_before_goes_on(resume, tmp_path, stage):
    """It lacks settings that have come since, and has handlers that have gone."""
    folder = tmp_path / "runs" / stage
    config, record = (json.loads((folder / name).read_text()) for name in ("config.json", "run.json"))
    for name in ("generated_hash", "pretrained", "processes", "iterations"):
        record.pop(name, None)
    for name in ("val_interval", "spectral_weight", "min_snr_gamma"):
        config.pop(name, None)
    gone = ("TrainingEnd", "TrainingLog")
    handlers = [part for part in config["train"]["handlers"] if not any(name in str(part) for name in gone)]
    config["train"]["handlers"] = [*handlers, {"_target_": "LogfileHandler", "output_dir": "x"}]
    if stage == "diffusion":
        config["diffusion_lr_scheduler"]["name"] = "cosine"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps(record))
    resume(stage)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "finished" and record["iterations"] == 4 and len(record["resumed"]) == 1
