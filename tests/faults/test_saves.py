"""A save that is killed or finds the disk full leaves the last good checkpoint as it was."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mgcc_monai import files
from mgcc_monai.errors import MGCCError
from mgcc_monai.handlers import ResumableCheckpoint
from mgcc_monai.weights import load_checkpoint


def kill(folder: Path, kills: int, way: str) -> dict[str, int]:
    script = Path(__file__).with_name("kill_saves.py")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(folder), str(kills), way],
        env=env, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_fifty_kills_lose_nothing(tmp_path):
    """SIGKILL at 50 random points: the newest file loads, is whole, and is at least the last one said to be saved."""
    found = kill(tmp_path / "checkpoints", 50, "atomic")
    assert found["lost"] == 0 and found["kills"] == 50
    assert found["inside"] >= 5, "a kill counts as one within a save when a temporary file is left"
    assert 1 <= found["kept"] <= 3, "two, and one more where the kill came before the oldest was removed"


def test_the_kills_do_harm_where_files_are_written_in_place(tmp_path):
    assert kill(tmp_path / "checkpoints", 50, "in place")["lost"] >= 1


class Weights:
    """Something to save, of about 400 kB."""

    def __init__(self) -> None:
        self.tensor = torch.zeros(100_000)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"tensor": self.tensor}


def epoch(number: int) -> SimpleNamespace:
    return SimpleNamespace(state=SimpleNamespace(epoch=number, iteration=number, epoch_length=1, max_epochs=0))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond this, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0, 0.0001, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_full_disk_keeps_the_last_good_checkpoint(tmp_path, share):
    weights = Weights()
    save = ResumableCheckpoint(str(tmp_path), {"network": weights})
    save(epoch(1))
    good = tmp_path / "checkpoint_epoch=1.pt"
    content, size = good.read_bytes(), good.stat().st_size
    weights.tensor.fill_(2)
    with largest_file(int(share * size)), pytest.raises(MGCCError, match="checkpoint_epoch=2.pt: cannot be written"):
        save(epoch(2))
    assert [path.name for path in tmp_path.iterdir()] == [good.name] and good.read_bytes() == content
    assert not load_checkpoint(good)["network"]["tensor"].any()
    save(epoch(2))
    assert load_checkpoint(tmp_path / "checkpoint_epoch=2.pt")["network"]["tensor"].eq(2).all()


def test_a_workflow_on_a_full_disk_ends_in_a_line_and_can_go_on(run: Callable, phantoms: Path, tmp_path: Path):
    """The weights of the second epoch find the disk full: those of the first are whole, and the run goes on later."""
    options = dict(dataset_dir=str(phantoms), max_iterations=4, epoch_length=2)
    run("training", "train.json", **options, **{"train#trainer#max_epochs": 1})
    folder = tmp_path / "runs" / "segmentation"
    good = {path: path.read_bytes() for path in (folder / "model.pt", folder / "checkpoints/checkpoint_epoch=1.pt")}
    with largest_file(good[folder / "model.pt"].__len__() // 2), pytest.raises(MGCCError, match="cannot be written"):
        run("training", "train.json", resume="true", **options)
    assert all(path.read_bytes() == content for path, content in good.items())
    assert not list(folder.rglob("*.tmp"))
    run("training", "train.json", resume="true", **options)
    assert load_checkpoint(folder / "checkpoints/checkpoint_epoch=2.pt")["progress"]["iteration"] == 4


STEPS = ("mkstemp", "fsync", "chmod", "replace")


@pytest.mark.parametrize("step", STEPS)
def test_an_error_at_any_step_of_a_save_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = files.write_file(tmp_path / "model.pt", b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    module = files.tempfile if step == "mkstemp" else files.os
    with monkeypatch.context() as patch:
        patch.setattr(module, step, fail)
        with pytest.raises(MGCCError, match="model.pt: cannot be written .Input/output error."):
            files.write_file(path, b"new")
    assert path.read_bytes() == b"old" and [found.name for found in tmp_path.iterdir()] == ["model.pt"]


def test_order_of_a_save_and_the_mode_of_the_file(tmp_path, monkeypatch):
    """The content reaches the disk before the name does, and the name before the save returns."""
    path = files.write_file(tmp_path / "model.pt", b"old")
    path.chmod(0o640)
    steps: list[str] = []

    def spy(name: str) -> Callable:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            steps.append("fsync of the folder" if folder else name)
            return real(*arguments, **options)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(files.os, name, spy(name))
    files.write_file(path, b"new")
    assert steps == ["fsync", "replace", "fsync of the folder"]
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640


def test_only_the_first_process_saves(tmp_path, monkeypatch):
    monkeypatch.setattr("mgcc_monai.handlers.checkpoint.is_main_process", lambda: False)
    ResumableCheckpoint(str(tmp_path), {"network": Weights()})(epoch(1))
    assert not list(tmp_path.iterdir())


def test_two_checkpoints_are_kept_and_leftovers_removed(tmp_path):
    save = ResumableCheckpoint(str(tmp_path), {"network": Weights()})
    (tmp_path / ".checkpoint_epoch=1.pt.abc.tmp").write_bytes(b"left by a killed process")
    for number in (1, 2, 3):
        save(epoch(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt"]
