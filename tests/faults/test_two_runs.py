"""A second run in the folder of a first: refused in one line, and the first one never knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mgcc_monai.errors import MGCCError


def wait_for(text: str, printed: Path, process: subprocess.Popen) -> None:
    while text not in printed.read_text():
        assert process.poll() is None, printed.read_text()[-3000:]
        time.sleep(0.05)


def test_a_second_training_is_refused_and_the_first_ends_well(start: Callable, run, phantoms: Path, tmp_path: Path):
    first = start("training", "train.json", max_iterations=60, epoch_length=20)
    wait_for("2/60", tmp_path / "printed.txt", first)
    folder = tmp_path / "runs" / "segmentation"
    with pytest.raises(MGCCError, match=f"{folder}: in use by another run .process {first.pid}.") as error:
        run("training", "train.json", dataset_dir=str(phantoms))
    assert "\n" not in str(error.value)
    assert first.wait(timeout=100) == 0
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["segmentation"]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Callable[[Path], int]]:
    """``other(folder, inside=False)``: a living process that holds a folder; returns its number."""
    started: list[subprocess.Popen] = []

    def take(folder: Path, inside: bool = False) -> int:
        code = "import sys, time; from mgcc_monai.lock import hold; hold(sys.argv[1], {}); print(flush=True); {}"
        command = [sys.executable, "-W", "ignore", "-c", code.format(inside, "time.sleep(100)"), str(folder)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=env))
        started[-1].stdout.readline()
        return started[-1].pid

    yield take
    for process in started:
        process.kill()
        process.wait()


def test_every_stage_refuses_a_folder_in_use(run, other: Callable, phantoms: Path, tmp_path: Path):
    runs, data = tmp_path / "runs", {"dataset_dir": str(phantoms)}
    run("training", "train.json", **data)
    config = runs / "segmentation" / "inference.json"
    before = {path: path.read_bytes() for path in runs.rglob("*") if path.is_file()}
    stages = [
        ("autoencoder", False, lambda: run("training", "train_autoencoder.json", **data)),
        ("segmentation", False, lambda: run("training", "train.json", **data)),
        ("evaluation", False, lambda: run("evaluating", "train.json", "evaluate.json", **data)),
        ("masks", True, lambda: infer(config, phantoms, runs / "masks")),
    ]
    for name, inside, begin in stages:
        pid = other(runs / name, inside)
        with pytest.raises(MGCCError, match=f"{runs / name}: in use by another run .process {pid}."):
            begin()
    assert {
        path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name[-4:] != "lock"
    } == before


def infer(config: Path, images: Path, masks: Path) -> None:
    import monai.bundle

    folders = {"dataset_dir": str(images), "output_dir": str(masks)}
    monai.bundle.run(run_id="inferring", config_file=str(config), logging_file=False, **folders)


def test_of_two_equal_fits_one_runs(phantoms: Path, configs: Path, tmp_path: Path):
    """The second one ends at once, before any stage, and the first is only ended by us."""
    command = [sys.executable, "-W", "ignore", "-m", "mgcc_monai", "fit", "--preset", "demo", "--method", "supervised"]
    for name, value in (("output_dir", tmp_path / "runs"), ("dataset_dir", phantoms), ("bundle_root", configs.parent)):
        command += [f"--{name}", str(value)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    printed = tmp_path / "printed.txt"
    with printed.open("w") as file:
        first = subprocess.Popen(command, stdout=file, stderr=file, env=env)
        wait_for("1/240", printed, first)
        second = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)
        assert second.returncode == 1 and "starts" not in second.stdout
        assert second.stderr.strip().count("\n") == 0 and "in use by another run" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=100) == 143
    assert not list((tmp_path / "runs").glob("**/.*lock")) and (tmp_path / "runs" / "segmentation").is_dir()
