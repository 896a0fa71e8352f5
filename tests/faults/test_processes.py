"""Processes that are told to stop, die or hang: the run ends, soon, and not as if all were well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mgcc_monai.weights import load_checkpoint


def wait_for(text: str, printed: Path, process: subprocess.Popen) -> None:
    while text not in printed.read_text():
        assert process.poll() is None, printed.read_text()[-3000:]
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_a_signal_from_outside_saves_within_an_iteration(start: Callable, tmp_path: Path, number: int, code: int):
    printed = tmp_path / "printed.txt"
    process = start("training", "train.json", max_iterations=400, epoch_length=400)
    wait_for("40/400", printed, process)
    process.send_signal(number)
    assert process.wait(timeout=60) == code
    text = printed.read_text()
    assert f"{number.name}: saving after this iteration" in text and "go on with --resume true" in text
    assert "Traceback" not in text and "ERROR" not in text
    assert any(line.startswith("Saved ") for line in text.splitlines()), "not behind the progress bar"
    (saved,) = (tmp_path / "runs/segmentation/checkpoints").iterdir()
    assert json.loads((tmp_path / "runs/segmentation/run.json").read_text())["status"] == "stopped"
    assert load_checkpoint(saved)["progress"]["epoch"] == 0
    assert load_checkpoint(saved)["progress"]["iteration"] == int(saved.stem.rpartition("=")[2]) >= 2


@pytest.mark.parametrize(
    "way", ["SIGKILL", pytest.param("raise", marks=pytest.mark.long), pytest.param("nan image", marks=pytest.mark.long)]
)
def test_a_dead_rank_ends_the_job(start: Callable, misbehaviour: Callable, tmp_path: Path, monkeypatch, way: str):
    """In under ten seconds from its death, with an exit code that is not 0."""
    monkeypatch.setenv("MISBEHAVED_AT", str(tmp_path / "at"))
    overlay = misbehaviour(way=way, iteration=3, rank=1)
    process = start(
        "training", "train.json", "multi_gpu_train.json", overlay, ranks=2, max_iterations=4000, epoch_length=100
    )
    assert process.wait(timeout=200) not in (0, None)
    assert time.time() - float((tmp_path / "at").read_text()) < 10
    if way == "nan image":
        assert (tmp_path / "printed.txt").read_text().count("Epoch 1, iteration 3: the loss is not finite") == 1


def test_a_hung_rank_ends_the_job_at_the_timeout(start: Callable, misbehaviour: Callable, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MISBEHAVED_AT", str(tmp_path / "at"))
    overlay = misbehaviour(way="hang", iteration=3, rank=1)
    options = dict(ranks=2, max_iterations=4000, epoch_length=100, distributed_timeout=8)
    process = start("training", "train.json", "multi_gpu_train.json", overlay, **options)
    assert process.wait(timeout=200) not in (0, None)
    took = time.time() - float((tmp_path / "at").read_text())
    assert 7 < took < 8 + 15, "the timeout, and what the rank that hangs is given to end by itself"


CHILD = """
import os, signal, sys, time
def stop(number, frame):
    os.write(1, b"%d\\n" % number)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
os.write(1, b"ready\\n")
time.sleep(60)
"""
PARENT = """
import sys
from mgcc_monai.runs.process import run_and_forward
sys.exit(run_and_forward([sys.executable, "-c", sys.argv[1]], {}))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_fit_hands_signals_on_to_its_stage(tmp_path: Path, number: int):
    """Once, and ends with the stage's exit code."""
    command = [sys.executable, "-W", "ignore", "-c", PARENT, CHILD]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == f"{int(number)}\n"
    assert process.returncode == 128 + number


def test_a_signal_while_the_stage_is_being_started_ends_both():
    """It is handed on as soon as there is a process to hand it to; none is left behind."""
    early = (
        "import os, subprocess; start = subprocess.Popen\n"
        "subprocess.Popen = lambda *args, **options: (os.kill(os.getpid(), 15), start(*args, **options))[1]\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", early + PARENT, "import time; time.sleep(60)"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    process.communicate(timeout=50)  # at its end no process holds the pipe any more
    assert process.returncode == 143


def test_a_stage_that_knows_no_signals_ends_with_their_code(tmp_path: Path):
    """A process that a signal has killed counts as one that exited with 128 + its number."""
    command = [sys.executable, "-W", "ignore", "-c", PARENT, "import os; os.kill(os.getpid(), 15)"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run(command, env=env, timeout=60).returncode == 143


@pytest.mark.long
def test_fit_that_was_stopped_goes_on(phantoms: Path, configs: Path, tmp_path: Path):
    """SIGTERM to ``fit`` in its first stage: exit code 143, a checkpoint, and the same command resumes it."""
    command = [sys.executable, "-W", "ignore", "-m", "mgcc_monai", "fit", "--preset", "demo", "--method", "supervised"]
    command += [
        "--output_dir",
        str(tmp_path / "runs"),
        "--dataset_dir",
        str(phantoms),
        "--bundle_root",
        str(configs.parent),
    ]
    command += ["--max_iterations", "40", "--epoch_length", "20"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    printed = tmp_path / "printed.txt"
    with printed.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env)
    wait_for("4/40", printed, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert "rerun the same command to resume it" in printed.read_text()
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600)
    assert done.returncode == 0 and "train: resumes" in done.stdout
    record = json.loads((tmp_path / "runs/segmentation/run.json").read_text())
    assert record["status"] == "finished" and len(record["resumed"]) == 1
