"""``training.log`` tells what a training did; the terminal stays as it was."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import Preempted

STAGES = {"autoencoder": "train_autoencoder.json", "diffusion": "train_diffusion.json", "segmentation": "train.json"}
PREFIX = {"autoencoder": "autoencoder_", "diffusion": "diffusion_", "segmentation": ""}
METRICS = {"autoencoder": ("val_psnr", "val_ssim"), "diffusion": ("val_loss",), "segmentation": ("val_mean_dice",)}
PARTS = {"autoencoder": ("l1", "kl"), "diffusion": ("error",), "segmentation": ("supervised", "consistency", "weight")}
NUMBER = r"-?[\d.]+(?:e[+-]\d+)?"


@pytest.fixture
def train(run: Callable, phantoms: Path, tmp_path: Path) -> Callable:
    """``train(stage, *overlays, **options)``: three iterations in epochs of two; the text of its log."""

    def start(stage: str, *overlays: str, **options: Any) -> str:
        own = {f"{PREFIX[stage]}max_iterations": 3, f"{PREFIX[stage]}epoch_length": 2, "dataset_dir": str(phantoms)}
        run("training", STAGES[stage], *overlays, **{**own, **options})
        return (tmp_path / "runs" / stage / "training.log").read_text()

    return start


def check(text: str, stage: str) -> None:
    """Two epochs and their validations, in order, each with its figures, and a time before each line."""
    lines = text.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|ERROR): ", line) for line in lines)
    told = [line for line in lines if "Epoch " in line]
    heads = ["Epoch 1 of 2, iteration 2", "Epoch 1, validation", "Epoch 2 of 2, iteration 3", "Epoch 2, validation"]
    assert len(told) == 4 and all(head in line for head, line in zip(heads, told)), text
    for line in told[::2]:
        assert all(re.search(rf"\b{name} {NUMBER}(,|$)", line) for name in ("loss", *PARTS[stage])), line
    for line in told[1::2]:
        assert all(re.search(rf"\b{name} {NUMBER}[,;]", line) for name in METRICS[stage]), line
        assert re.search(rf"; best {METRICS[stage][0]} {NUMBER} in epoch [12]$", line), line


@pytest.mark.parametrize("stage", STAGES)
def test_it_has_epochs_losses_and_validations(train, capfd, stage):
    """In a process that has not set up logging; nothing but progress bars and our own lines is on the terminal."""
    if stage == "diffusion":
        train("autoencoder")
    capfd.readouterr()
    check(train(stage), stage)
    printed = "".join(capfd.readouterr())
    assert "validation" not in printed and "Epoch" not in printed and "Engine run" not in printed


def test_the_mean_loss_is_the_mean_of_what_tensorboard_has(train, tmp_path):
    text = train("segmentation")
    (events,) = (path for path in (tmp_path / "runs/segmentation/tensorboard").iterdir() if scalars(path))
    losses = [event.value for event in scalars(events)]
    found = [float(value) for value in re.findall(rf"mean of \d iterations: loss ({NUMBER})", text)]
    assert len(losses) == 3 and found == pytest.approx([sum(losses[:2]) / 2, losses[2]], rel=1e-4)


def scalars(path: Path) -> list[Any]:
    events = EventAccumulator(str(path))
    events.Reload()
    return events.Scalars("train_loss") if "train_loss" in events.Tags()["scalars"] else []


def test_errors_stops_and_resumes_are_in_it(train, misbehaviour, tmp_path, caplog):
    """Those before a resume too: the same file goes on."""
    path = tmp_path / "runs" / "segmentation" / "training.log"
    with pytest.raises(Preempted):
        train("segmentation", misbehaviour(way="SIGTERM", iteration=1))
    assert "told to stop by SIGTERM" in path.read_text() and "checkpoint_epoch=0_iteration=1.pt" in path.read_text()
    with pytest.raises(MGCCError):
        train("segmentation", misbehaviour(way="nan image", iteration=2), resume="true")
    assert "ERROR: " in path.read_text() and "iteration 2: the loss is not finite" in path.read_text()
    with pytest.raises(RuntimeError):
        train("segmentation", misbehaviour("validate", way="raise", iteration=1), resume="true")
    assert "gone wrong on purpose" in path.read_text()
    text = train("segmentation", resume="true")
    assert len(re.findall(r"Resumed from .*checkpoint_epoch=\d\S*.pt, iteration \d", text)) == 3
    assert text.count("Epoch 2, validation") == 1


def test_an_early_stop_is_in_it(train):
    text = train("segmentation", early_stopping=1, learning_rate=0.0, max_iterations=8)
    assert "EarlyStopping: Stop training" in text and "Epoch 2, validation" in text and "Epoch 3" not in text


def test_a_training_writes_into_no_log_but_its_own(train, misbehaviour, tmp_path):
    """Also behind one that failed in the same process, and whatever level a client has set."""
    before = {name: list(logging.getLogger(name).handlers) for name in (None, "ignite.engine.engine", "mgcc_monai")}
    with pytest.raises(MGCCError):
        train("segmentation", misbehaviour(way="nan image", iteration=1))
    first = (tmp_path / "runs/segmentation/training.log").read_text()
    logging.getLogger("ignite").setLevel(logging.CRITICAL)
    try:
        check(train("segmentation"), "segmentation")
    finally:
        logging.getLogger("ignite").setLevel(logging.NOTSET)
    assert (tmp_path / "runs/segmentation.previous-1/training.log").read_text() == first
    assert before == {name: list(logging.getLogger(name).handlers) for name in before}


def wait(process: subprocess.Popen) -> int:
    begun = time.time()
    code = process.wait(timeout=200)
    assert time.time() - begun < 200
    return code


@pytest.mark.parametrize("stage", STAGES)
def test_under_the_shipped_logging_the_terminal_has_none_of_it(start, tmp_path, stage):
    """As ``python -m monai.bundle run`` is called, with ``logging.conf`` beside the config."""
    own = {f"{PREFIX[stage]}max_iterations": 3, f"{PREFIX[stage]}epoch_length": 2}
    if stage == "diffusion":
        assert wait(start("training", "train_autoencoder.json")) == 0
    assert wait(start("training", STAGES[stage], **own)) == 0, (tmp_path / "printed.txt").read_text()[-2000:]
    check((tmp_path / "runs" / stage / "training.log").read_text(), stage)
    printed = (tmp_path / "printed.txt").read_text()
    assert "Epoch" not in printed and "Engine run" not in printed and "validation" not in printed


def test_an_error_is_on_the_terminal_once_and_in_the_log(start, misbehaviour, tmp_path):
    """Of an image that is NaN from the first iteration on."""
    assert wait(start("training", "train.json", misbehaviour(way="nan image", iteration=1))) == 1
    says = "Epoch 1, iteration 1: the loss is not finite"
    assert (tmp_path / "printed.txt").read_text().count(says) == 1
    assert says in (tmp_path / "runs/segmentation/training.log").read_text()


def test_a_full_disk_does_not_fill_the_terminal(tmp_path, capfd):
    """The log can fail without a traceback for each line; the next checkpoint says that the disk is full."""
    from mgcc_monai.handlers import TrainingLog

    log = TrainingLog(str(tmp_path))
    log.open(None)
    log.logger.handlers[-1].stream.close()
    log.logger.info("a line that cannot be written")
    assert capfd.readouterr() == ("", "")
