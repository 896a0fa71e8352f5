"""A folder is the whole old one or the whole new one, whatever fails while it is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mgcc_monai import files
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import write_folder


def fill(text: str) -> Any:
    def write(folder: Path) -> None:
        (folder / "vae").mkdir()
        (folder / "vae" / "weights").write_text(text)
        (folder / "index.json").write_text(text)

    return write


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def both(text: str) -> dict[str, str]:
    return {"vae/weights": text, "index.json": text}


def test_new_folder_and_those_above_it(tmp_path):
    path = tmp_path / "runs" / "diffusion" / "pipeline"
    assert write_folder(path, fill("new")) == path
    assert content(path) == both("new")
    assert os.listdir(path.parent) == ["pipeline"]


def test_replaces_the_old_one_wholly(tmp_path):
    path = tmp_path / "pipeline"
    write_folder(path, fill("old"))
    (path / "stale").write_text("of the old one alone")
    write_folder(path, fill("new"))
    assert content(path) == both("new")
    assert os.listdir(tmp_path) == ["pipeline"]


def test_old_one_is_there_while_the_new_one_is_written(tmp_path):
    path = tmp_path / "pipeline"
    write_folder(path, fill("old"))
    seen = []

    def write(folder: Path) -> None:
        assert folder.parent == path.parent, "a rename does not cross file systems"
        fill("new")(folder)
        seen.append(content(path))

    write_folder(path, write)
    assert seen == [both("old")] and content(path) == both("new")


def failing(error: BaseException) -> Any:
    def write(folder: Path) -> None:
        fill("half")(folder)
        raise error

    return write


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    "error, wanted, words",
    [
        (OSError(28, "No space left on device"), MGCCError, "pipeline: cannot be written .No space left on device"),
        (PermissionError(13, "Permission denied"), MGCCError, "Permission denied"),
        (ValueError("planted"), ValueError, "^planted$"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
        (MGCCError("a channel is constant"), MGCCError, "^a channel is constant$"),
    ],
)
def test_failing_write_leaves_what_was_there(there, error, wanted, words, tmp_path):
    path = tmp_path / "pipeline"
    if there:
        write_folder(path, fill("old"))
    with pytest.raises(wanted, match=words):
        write_folder(path, failing(error))
    assert os.listdir(tmp_path) == (["pipeline"] if there else [])
    assert not there or content(path) == both("old")


@pytest.mark.parametrize("step", ["fsync", "mkdtemp"])
def test_full_disk_behind_the_write(step, tmp_path, monkeypatch):
    """Some file systems tell of a full disk when asked to make sure, not when written to."""
    path = tmp_path / "pipeline"
    write_folder(path, fill("old"))

    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os if step == "fsync" else files.tempfile, step, full)
    with pytest.raises(MGCCError, match="No space left"):
        write_folder(path, fill("new"))
    assert os.listdir(tmp_path) == ["pipeline"] and content(path) == both("old")
    monkeypatch.undo()
    write_folder(path, fill("new"))
    assert content(path) == both("new")


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_old_one_comes_back_when_the_last_rename_fails(error, tmp_path, monkeypatch):
    path = tmp_path / "pipeline"
    write_folder(path, fill("old"))
    rename = Path.rename

    def second_fails(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(MGCCError if isinstance(error, OSError) else KeyboardInterrupt):
        write_folder(path, fill("new"))
    assert os.listdir(tmp_path) == ["pipeline"] and content(path) == both("old")


@pytest.mark.parametrize("mask, mode", [(0o022, 0o755), (0o027, 0o750), (0o002, 0o775)])
def test_mode_is_that_of_any_new_folder(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        write_folder(tmp_path / "pipeline", fill("new"))
        assert os.umask(mask) == mask, "the process keeps its mask"
    finally:
        os.umask(before)
    assert (tmp_path / "pipeline").stat().st_mode & 0o777 == mode


def test_file_in_the_way_of_the_folder_above(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(MGCCError, match="cannot be written"):
        write_folder(tmp_path / "runs" / "pipeline", fill("new"))
    assert (tmp_path / "runs").read_text() == "a file"
