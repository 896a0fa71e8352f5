"""A folder is one run's at a time; a run that has ended holds nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mgcc_monai
from mgcc_monai.errors import MGCCError
from mgcc_monai.files import set_aside
from mgcc_monai.lock import check_free, held, hold, release
from mgcc_monai.runs.record import RunRecord

DATALIST = {"file": "dataset.json", "hash": ""}

HOLDER = """
import os, signal, sys, time, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # as at a terminal: `make test &` ignores it
package, alone = types.ModuleType("mgcc_monai"), types.ModuleType("mgcc_monai.distributed")
package.__path__ = [PACKAGE]  # its subpackages take seconds to import
alone.is_main_process, alone.rank_and_size = lambda: True, lambda: (0, 1)
sys.modules.update({{"mgcc_monai": package, "mgcc_monai.distributed": alone}})
from mgcc_monai.lock import hold
{before}
hold(sys.argv[1])
print(os.getpid(), flush=True)
{then}
""".replace("PACKAGE", repr(str(Path(mgcc_monai.__file__).parent)))
PIPES = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Any]:
    """``process(then)``: a process that holds ``tmp_path / "run"`` and then does something."""
    started: list[subprocess.Popen] = []

    def start(then: str = "time.sleep(100)") -> subprocess.Popen:
        code = HOLDER.format(before="", then=then)
        started.append(subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], **PIPES))
        assert started[-1].stdout.readline().strip() == str(started[-1].pid)
        return started[-1]

    yield start
    for other in started:
        other.kill()
        other.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder, given back at the end."""
    yield tmp_path / "run"
    release(tmp_path / "run")


def lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def write_lock(folder: Path, **changes: Any) -> Path:
    """A lock file as this process would write it, but for some changes."""
    hold(folder)
    content = json.loads(lock_of(folder).read_text()) | changes
    release(folder)
    lock_of(folder).write_text(json.dumps(content))
    return lock_of(folder)


def test_a_folder_of_a_living_process_is_refused_in_one_line(process, folder: Path) -> None:
    other = process()
    for attempt in (hold, check_free, lambda folder: RunRecord("any", str(folder), DATALIST, {}).start()):
        with pytest.raises(MGCCError) as error:
            attempt(folder)
        assert str(error.value).startswith(f"{folder}: ") and f"process {other.pid}" in str(error.value)
        assert "\n" not in str(error.value)
    assert not folder.exists() and json.loads(lock_of(folder).read_text())["pid"] == other.pid


@pytest.mark.parametrize("reaped", [True, False])
def test_the_lock_of_a_killed_process_is_taken_over(process, folder: Path, reaped: bool) -> None:
    """Also while the process still stands in the table, as a zombie, because its parent has not asked for it."""
    other = process()
    other.kill()
    if reaped:
        other.wait()
    else:
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    hold(folder)
    assert json.loads(lock_of(folder).read_text())["pid"] == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no start times of processes here")
def test_a_number_that_was_given_to_another_process_since_holds_nothing(process, folder: Path, tmp_path: Path) -> None:
    other = process()
    write_lock(tmp_path / "taken", pid=other.pid, started="12345")
    hold(tmp_path / "taken")
    release(tmp_path / "taken")
    folder.mkdir()
    write_lock(folder / "own", pid=os.getpid(), started="12345")  # this process, in a container started again
    hold(folder / "own")
    release(folder / "own")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": -1}', '{"pid": 0, "host": "HOST", "started": "1"}', "another host"]
)
def test_what_cannot_be_known_is_refused_and_the_file_named(folder: Path, content: str) -> None:
    if content == "another host":
        lock = write_lock(folder, host="elsewhere", pid=1)
    else:
        lock = lock_of(folder)
        lock.write_text(content.replace("HOST", socket.gethostname()))
    with pytest.raises(MGCCError) as error:
        hold(folder)
    assert str(lock) in str(error.value) and "remove" in str(error.value) and "\n" not in str(error.value)
    lock.unlink()
    hold(folder)


@pytest.mark.parametrize(
    ("then", "number", "code"),
    [
        ("pass", None, 0),
        ("1 / 0", None, 1),
        ("from mgcc_monai.errors import MGCCError; raise MGCCError('wrong')", None, 1),
        ("time.sleep(100)", signal.SIGTERM, 143),
        ("time.sleep(100)", signal.SIGINT, -2),
    ],
)
def test_the_end_of_a_process_gives_its_folders_back(process, folder: Path, then: str, number, code: int) -> None:
    other = process(then)
    if number is not None:
        other.send_signal(number)
    assert other.wait(timeout=30) == code
    assert not list(folder.parent.iterdir())


def test_of_many_that_find_a_stale_lock_one_gets_the_folder(folder: Path, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_lock(folder, pid=gone.pid)
    code = HOLDER.format(before="print('ready', flush=True); sys.stdin.readline()", then="sys.stdin.read()")
    racers = [subprocess.Popen([sys.executable, "-c", code, str(folder)], **PIPES) for _ in range(8)]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [racer for racer in racers if racer.stdout.readline().strip() == str(racer.pid)]
    assert len(won) == 1 and json.loads(lock_of(folder).read_text())["pid"] == won[0].pid
    for racer in racers:
        told = racer.communicate()[1]
        assert racer in won or ("in use by" in told or "does not say" in told)


def test_the_lock_moves_with_no_folder_and_fills_none(folder: Path) -> None:
    folder.mkdir()
    hold(folder)
    assert set_aside(folder) is None
    (folder / "file").write_text("")
    assert set_aside(folder) is not None and lock_of(folder).is_file()
    hold(folder)  # once more, by the same process
    with held(folder):
        pass
    assert lock_of(folder).is_file(), "given back by one that had not taken it"
    release(folder)
    assert not lock_of(folder).exists()


def test_a_lock_that_another_run_has_made_since_is_left(folder: Path) -> None:
    hold(folder)
    lock_of(folder).write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "1"}))
    release(folder)
    assert json.loads(lock_of(folder).read_text())["host"] == "elsewhere"


@pytest.mark.parametrize("inside", [True, False])
def test_where_no_lock_can_be_written_one_line_says_so(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MGCCError, match="cannot be written .*; give another folder"):
        hold(tmp_path / "file" / "run", inside)


@pytest.mark.parametrize("resume", [True, False])
def test_a_stage_holds_its_folder_until_it_is_finished(folder: Path, resume: bool) -> None:
    record = RunRecord("any", str(folder), DATALIST, {}, resume=resume)
    record.start()
    assert lock_of(folder).is_file()
    record.update(a=1)
    assert lock_of(folder).is_file()
    record.finish()
    assert not lock_of(folder).exists() and json.loads((folder / "run.json").read_text())["status"] == "finished"
