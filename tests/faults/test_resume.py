"""A training that was stopped and resumed ends with the same tensors as one that was not: every stage, to the bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import Preempted

STAGES = {"autoencoder": "train_autoencoder.json", "diffusion": "train_diffusion.json", "segmentation": "train.json"}
PREFIX = {"autoencoder": "autoencoder_", "diffusion": "diffusion_", "segmentation": ""}
LENGTH, EPOCH = 9, 3


@pytest.fixture
def train(run: Callable, phantoms: Path, encoded: Path, tmp_path: Path) -> Callable:
    """``train(stage, name, *overlays, **options)``: a training of nine iterations in the output folder of this name."""

    def start(stage: str, name: str, *overlays: str, **options: Any) -> None:
        output = tmp_path / name
        if stage == "diffusion" and not output.exists():
            shutil.copytree(encoded, output / "autoencoder")
        own = {f"{PREFIX[stage]}{key}": value for key, value in (("max_iterations", LENGTH), ("epoch_length", EPOCH))}
        # the discriminator and the phase that it works in are resumed too
        discriminator = {"adversarial_weight": 0.1, "detail_start": 4, "autoencoder_patch_size": [32, 32]}
        own |= discriminator if stage == "autoencoder" else {}
        run("training", STAGES[stage], *overlays, dataset_dir=str(phantoms), output_dir=str(output), **own, **options)

    return start


@pytest.fixture
def last(tmp_path: Path, state_hash: Callable) -> Callable[[str, str], str]:
    """``last(stage, name)``: the hash of the checkpoint of the last epoch."""
    name_of_last = f"checkpoint_epoch={LENGTH // EPOCH}.pt"
    return lambda stage, name: state_hash(tmp_path / name / stage / "checkpoints" / name_of_last)


_WHOLE: dict[str, Any] = {}


@pytest.fixture
def whole(train: Callable, last: Callable, tmp_path: Path) -> Callable[[str], str]:
    """``whole(stage)``: the hash of the training that was never stopped, in this process and without workers."""

    def find(stage: str) -> str:
        if stage not in _WHOLE:
            train(stage, "whole")
            _WHOLE[stage] = last(stage, "whole")
            record = json.loads((tmp_path / "whole" / stage / "run.json").read_text())
            _WHOLE[f"best of {stage}"] = record.get("best")
        return _WHOLE[stage]

    return find


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_resumed_at_the_end_of_an_epoch(train, last, whole, stage, workers):
    train(stage, "parts", num_workers=workers, **{"train#trainer#max_epochs": 1})
    train(stage, "parts", num_workers=workers, resume="true")
    assert last(stage, "parts") == whole(stage)


def test_another_seed_is_another_hash(train, last, whole):
    train("segmentation", "other", seed=42)
    assert last("segmentation", "other") != whole("segmentation")


@pytest.mark.parametrize("stage", STAGES)
def test_stopped_by_sigterm_within_an_epoch(train, last, whole, misbehaviour, tmp_path, stage):
    """At iteration 5 of epochs of 3: saved at once, exit code 143, and gone on with to the bit."""
    with pytest.raises(Preempted) as told:
        train(stage, "parts", misbehaviour(way="SIGTERM", iteration=5))
    assert told.value.code == 143
    assert files(tmp_path / "parts" / stage) == ["checkpoint_epoch=1.pt", "checkpoint_epoch=1_iteration=5.pt"]
    train(stage, "parts", resume="true", num_workers=2)
    assert last(stage, "parts") == whole(stage)


@pytest.mark.parametrize(
    ("part", "event", "iteration", "saved"),
    [
        ("train", "ITERATION_STARTED", 1, "checkpoint_epoch=0_iteration=1.pt"),
        ("train", "ITERATION_COMPLETED", 6, "checkpoint_epoch=1_iteration=6.pt"),
        ("train", "ITERATION_STARTED", 9, "checkpoint_epoch=2_iteration=9.pt"),
        ("validate", "ITERATION_STARTED", 1, "checkpoint_epoch=0_iteration=3.pt"),
    ],
)
@pytest.mark.parametrize("stage", ["segmentation", "diffusion"])
def test_stopped_by_sigint_anywhere(train, last, whole, misbehaviour, tmp_path, stage, part, event, iteration, saved):
    """Also behind the last iteration of an epoch and in its validation, which is then made in the resumed run."""
    with pytest.raises(Preempted) as told:
        train(stage, "parts", misbehaviour(part, way="SIGINT", event=event, iteration=iteration))
    assert told.value.code == 130
    assert files(tmp_path / "parts" / stage)[-1] == saved
    train(stage, "parts", resume="true")
    assert last(stage, "parts") == whole(stage)
    if stage == "segmentation":
        best = json.loads((tmp_path / "parts" / stage / "run.json").read_text())["best"]
        assert best == _WHOLE[f"best of {stage}"]


def test_stopped_behind_the_last_validation(train, last, whole, misbehaviour, tmp_path):
    """Nothing of the training is left to do then; what comes behind it is done by the resumed run."""
    with pytest.raises(Preempted):
        train("diffusion", "parts", misbehaviour("validate", way="SIGTERM", event="COMPLETED", epoch=3))
    assert last("diffusion", "parts") == whole("diffusion")
    assert not (tmp_path / "parts/diffusion/pipeline").exists()
    train("diffusion", "parts", resume="true")
    assert (tmp_path / "parts/diffusion/pipeline/model_index.json").is_file()
    assert last("diffusion", "parts") == whole("diffusion")


def test_nothing_to_resume_is_refused(train, tmp_path):
    with pytest.raises(
        MGCCError, match=f"{tmp_path / 'none' / 'segmentation' / 'checkpoints'}: .*there is no checkpoint"
    ):
        train("segmentation", "none", resume="true")
    assert not (tmp_path / "none" / "segmentation").exists()


@pytest.mark.parametrize(("value", "resumed"), [("false", False), ("False", False), ("true", True), ("0", False)])
def test_resume_is_read_strictly(train, tmp_path, value, resumed):
    train("segmentation", "runs", **{"train#trainer#max_epochs": 1})
    train("segmentation", "runs", resume=value)
    assert (tmp_path / "runs" / "segmentation.previous-1").exists() != resumed


def test_a_switch_that_is_none_is_refused(train):
    with pytest.raises(MGCCError, match="--resume maybe: is neither true nor false"):
        train("segmentation", "runs", resume="maybe")
