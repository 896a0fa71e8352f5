"""What the operating system refuses ends in one plain line, and outputs are tried before any work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mgcc_monai import cli
from mgcc_monai.data.dataset import load_datalist
from mgcc_monai.data.formats.images import read_image
from mgcc_monai.data.items import images_to_segment
from mgcc_monai.data.phantom.write import write_phantoms
from mgcc_monai.errors import MGCCError, plain_os_errors, tell_os_errors
from mgcc_monai.files import try_writable, write_json
from mgcc_monai.runs.preflight.segmentation import check_output

REPOSITORY = Path(__file__).parents[1]
LONG = "n" * 300


def one_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value) and "Traceback" not in str(error.value)
    return str(error.value)


def as_nobody(work: Callable[[], str]) -> str:
    """What some work returns for a user whom permissions hold, in a child if this process is root's."""
    if os.geteuid():
        return work()
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(sink, work().encode()[:4000])
        except BaseException as error:
            os.write(sink, repr(error).encode()[:4000])
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except MGCCError as error:
        return error.message
    return "passed"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter and write to; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("file", [False, True])
def test_what_can_be_written_passes_and_nothing_is_left(tmp_path: Path, file: bool) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "plain").write_text("x")
    for path in ("there/new", "new", "new/newer/newest", *(["plain"] if file else ["there"])):
        try_writable(tmp_path / path, file)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["plain", "there"]


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("place", ["plain/x", "plain/x/y", LONG, f"there/{LONG}", f"new/{LONG}/x", "a\0b", "/proc/x"])
def test_what_cannot_be_written_is_refused(tmp_path: Path, place: str, file: bool) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "plain").write_text("x")
    with pytest.raises(MGCCError, match="cannot be written") as error:
        try_writable(tmp_path / place, file)
    one_line(error)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["plain", "there"]


def test_a_folder_for_a_file_a_file_for_a_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    for path, file in ((tmp_path, True), (tmp_path / "plain", False), (Path("/dev/full"), True)):
        with pytest.raises(MGCCError, match="cannot be written"):
            try_writable(path, file)
    device = tmp_path / "device"
    os.mkfifo(device)
    with pytest.raises(MGCCError, match="no regular file"):
        write_json(device, {})
    assert device.is_fifo()


def words(tmp_path: Path, place: str) -> dict[str, list[str]]:
    """Commands that write, to a place; all that they read is sound, but would be read in vain."""
    data, out = str(tmp_path / "data"), str(tmp_path / place)
    return {
        "prepare": ["prepare", "--source", str(tmp_path / "raw"), "--output", out],
        "phantom": ["phantom", "--output", out, "--count", "20"],
        "split": [
            "split",
            "--dataset_dir",
            data,
            "--output_json",
            f"{out}/x.json" if place == "plain" else f"{out}.json",
        ],
        "fit": ["fit", "--dataset_dir", data, "--output_dir", out],
        "check": ["check", "--dataset_dir", data, "--report", f"{out}/r" if place == "plain" else out],
        "convert": ["convert", str(tmp_path / "theirs.pth"), f"{out}/m.pt" if place == "plain" else out],
    }


def forbid_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the commands do once their output was tried fails the test."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began before the output was tried")

    for name in (
        "data.prepare._read_all",
        "data.phantom.write.make_phantom",
        "data.checks.report.check_dataset",
        "runs.fit.run_and_forward",
    ):
        monkeypatch.setattr(f"mgcc_monai.{name}", work)
    monkeypatch.setattr("mgcc_monai.interop.authors.load_state_dict", work)
    monkeypatch.setattr("mgcc_monai.data.prepare.draw_lists", work)


@pytest.mark.parametrize("command", ["prepare", "phantom", "split", "fit", "check", "convert"])
@pytest.mark.parametrize("place", ["plain", f"new/{LONG}", "plain/below/it"])
def test_every_command_tries_its_output_before_any_work(
    tmp_path: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    shutil.copytree(phantoms, tmp_path / "data")
    (tmp_path / "raw").mkdir()
    (tmp_path / "plain").write_text("x")
    torch.save({}, tmp_path / "theirs.pth")
    before = sorted(tmp_path.rglob("*"))
    forbid_work(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["mgcc_monai", *words(tmp_path, place)[command]])
    with pytest.raises(MGCCError) as error:
        cli.main()
    one_line(error)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", ["prepare", "phantom", "split", "fit", "check", "convert"])
def test_a_folder_without_permission_is_refused_before_any_work(
    open_folder: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    shutil.copytree(phantoms, open_folder / "data")
    (open_folder / "raw").mkdir()
    torch.save({}, open_folder / "theirs.pth")
    (open_folder / "locked").mkdir()
    folder = open_folder / ("data" if command == "split" else "locked")
    folder.chmod(0o555)
    forbid_work(monkeypatch)
    given = words(open_folder, "locked/x")[command]
    if command == "split":
        given[-1] = str(folder / "x.json")
    monkeypatch.setattr(sys, "argv", ["mgcc_monai", *given])
    told = as_nobody(lambda: refusal(cli.main))
    assert "cannot be written (Permission denied" in told and "\n" not in told


def test_unreadable_files_and_folders_are_told_in_a_line(open_folder: Path, phantoms: Path) -> None:
    data = open_folder / "data"
    shutil.copytree(phantoms, data)
    image = sorted((data / "images").iterdir())[0]
    for path, work in (
        (image, lambda: read_image(image)),
        (data / "dataset.json", lambda: load_datalist(data)),
        (data / "images", lambda: images_to_segment(data)),
        (data / "images", lambda: read_image(image)),
        (data, lambda: load_datalist(data)),
    ):
        mode = path.stat().st_mode
        path.chmod(0)
        told = as_nobody(lambda work=work: refusal(work))
        path.chmod(mode)
        assert "Permission denied" in told and "\n" not in told and str(path) in told, (path, told)


@pytest.mark.parametrize("path", [LONG, "plain/x", f"{LONG}/x"])
def test_reading_at_a_place_that_cannot_be_is_told_in_a_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "plain").write_text("x")
    for work in (load_datalist, images_to_segment, read_image):
        with pytest.raises(MGCCError) as error:
            work(tmp_path / path)
        one_line(error)


def test_an_error_of_the_system_ends_a_command_in_a_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for error in (OSError(28, "No space left on device"), PermissionError(13, "Permission denied", "/x/y"), OSError()):

        def fails(error: OSError = error, **_: object) -> None:
            raise error

        monkeypatch.setitem(cli.COMMANDS, "show", ("", lambda: fails))
        monkeypatch.setattr(cli, "read_arguments", lambda *_: {})
        monkeypatch.setattr(sys, "argv", ["mgcc_monai", "show"])
        with pytest.raises(MGCCError) as caught:
            cli.main()
        assert str(error.strerror or "OSError") in one_line(caught) and str(error.filename or "") in str(caught.value)


def test_an_error_of_the_system_below_others_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            Path("/proc/none/x").write_text("x")
        except OSError as error:
            raise RuntimeError("failed to evaluate") from error
    except RuntimeError as error:
        tell_os_errors(type(error), error, None)
    assert len(capsys.readouterr().err.splitlines()) == 1
    text = "SaveImage cannot write a.png.\nTraceback\n  OSError: [Errno 28] No space left on device\n"
    tell_os_errors(RuntimeError, RuntimeError(text), None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("SaveImage cannot write a.png: No space left on device")
    tell_os_errors(ValueError, ValueError("x"), None)
    assert capsys.readouterr().err.splitlines()[-1] == "ValueError: x"
    with pytest.raises(ValueError), plain_os_errors():
        raise ValueError


@pytest.mark.parametrize(
    ("run_id", "names"),
    [
        ("training", ["train.json"]),
        ("training", ["train_autoencoder.json"]),
        ("training", ["train_diffusion.json"]),
        ("generating", ["generate.json"]),
        ("evaluating", ["train.json", "evaluate.json"]),
        ("evaluating", ["generate.json", "evaluate_generation.json"]),
        ("inferring", ["inference.json"]),
    ],
)
@pytest.mark.parametrize("place", ["plain/x", LONG])
def test_every_workflow_tries_its_output_before_any_work(run, tmp_path, monkeypatch, run_id, names, place) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(MGCCError, match="cannot be written") as error:
        run(run_id, *names, output_dir=str(tmp_path / place))
    one_line(error)
    assert not (tmp_path / "runs").exists()


def test_the_output_tried_is_the_folder_that_is_written(tmp_path: Path) -> None:
    configs = REPOSITORY / "bundle" / "configs"
    for path in configs.glob("*.json"):
        for items in json.loads(path.read_text()).values():
            if isinstance(items, list) and items and "preflight.check_options(" in str(items[0]):
                assert "preflight.check_output(@" in items[1], path.name
    check_output(str(tmp_path / "new"))
    assert not list(tmp_path.iterdir())


def test_the_terminal_shows_one_line(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    write_phantoms(tmp_path / "data", count=20, size=(32, 32))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mgcc_monai",
            "check",
            str(tmp_path / "data"),
            "--report",
            str(tmp_path / "plain" / "r"),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and "plain" in done.stderr
