"""A second run in the folder of a first: refused in one line, and the first one never knows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mgcc_monai.errors import MGCCError
from mgcc_monai.runs.fit import fit


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
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [".checked.json", "segmentation"]


def lock(file: Path) -> None:
    """Lock files as another living process leaves them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pid": os.getppid(), "host": socket.gethostname(), "started": ""}))


@pytest.mark.parametrize("name", [".lock", ".segmentation.lock", ".evaluation.lock"])
def test_fit_refuses_a_folder_in_use_before_its_first_stage(phantoms: Path, configs: Path, tmp_path: Path, name: str):
    """Also where another run uses the folder of a stage that would come hours later."""
    lock(tmp_path / "runs" / name)
    with pytest.raises(MGCCError, match=f"in use by another run .process {os.getppid()}."):
        fit(str(tmp_path / "runs"), str(phantoms), "demo", "supervised", str(configs.parent))
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]


def test_every_stage_refuses_a_folder_in_use(run, phantoms: Path, tmp_path: Path):
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
        lock(runs / name / ".lock" if inside else runs / f".{name}.lock")
        with pytest.raises(MGCCError, match=f"{runs / name}: in use by another run .process {os.getppid()}."):
            begin()
    assert {
        path: path.read_bytes() for path in runs.rglob("*") if path.is_file() and path.name[-4:] != "lock"
    } == before


def infer(config: Path, images: Path, masks: Path) -> None:
    import monai.bundle

    folders = {"dataset_dir": str(images), "output_dir": str(masks)}
    monai.bundle.run(run_id="inferring", config_file=str(config), logging_file=False, **folders)


@pytest.mark.long
def test_of_two_equal_fits_one_runs(phantoms: Path, configs: Path, tmp_path: Path):
    """The second one ends at once, before any stage, and the first is only ended by us."""
    command = [sys.executable, "-W", "ignore", "-m", "mgcc_monai", "fit", "--preset", "demo", "--method", "supervised"]
    for name, value in (("output_dir", tmp_path / "runs"), ("dataset_dir", phantoms), ("bundle_root", configs.parent)):
        command += [f"--{name}", str(value)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    printed = tmp_path / "printed.txt"
    with printed.open("w") as file:
        first = subprocess.Popen(command, stdout=file, stderr=file, env=env)
        wait_for("24/240", printed, first)  # a tenth: outside a terminal no line comes before it
        second = subprocess.run(command, capture_output=True, text=True, env=env, timeout=100)
        assert second.returncode == 1 and "starts" not in second.stdout
        assert second.stderr.strip().count("\n") == 0 and "in use by another run" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=100) == 143
    assert not list((tmp_path / "runs").glob("**/.*lock")) and (tmp_path / "runs" / "segmentation").is_dir()
