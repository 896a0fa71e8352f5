"""One run at a time in a folder: a lock file names the process that writes there."""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mgcc_monai.distributed import is_main_process, rank_and_size
from mgcc_monai.errors import MGCCError

__all__ = ["check_free", "held", "hold", "release"]

_held: dict[Path, dict[str, Any]] = {}  # what this process has written into each lock file


def hold(folder: str | Path, inside: bool = False) -> None:
    """Take a folder for this process until it releases it or ends; of several ranks, the first one takes it.

    The lock file lies beside the folder, which may itself be moved or empty: ``.NAME.lock``. A lock whose process has
    ended is taken over. A folder that this process holds already stays held.

    Args:
        folder: the folder to write to; it need not exist.
        inside: put the lock file into the folder, as ``.lock``; for folders that are never moved.

    Raises:
        MGCCError: when another process holds the folder, or the lock file cannot be written.
    """
    file = _lock_file(folder, inside)
    if not is_main_process() or _is_own(file):
        return
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _state(os.getpid())[1]}
    made = not file.parent.exists()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        while not _create(file, json.dumps(mine)):
            _remove_stale(file, folder)
    except OSError as error:
        raise MGCCError(f"{file}: cannot be written ({error.strerror or error}); give another folder.") from None
    _held[file] = {"content": mine, "made": made}
    _release_on_sigterm()


def release(folder: str | Path, inside: bool = False) -> None:
    """Give back a folder that this process holds; do nothing for any other."""
    _release(_lock_file(folder, inside))


@contextmanager
def held(folder: str | Path, inside: bool = False) -> Iterator[None]:
    """Hold a folder for the time of a ``with`` statement; see :func:`hold`."""
    before = _is_own(_lock_file(folder, inside))
    hold(folder, inside)
    try:
        yield
    finally:
        if not before:
            release(folder, inside)


def check_free(folder: str | Path) -> None:
    """Check that no other process holds a folder.

    Raises:
        MGCCError: when one does, or did on a machine that cannot be seen from here.
    """
    file = _lock_file(folder)
    if not _is_own(file):
        with suppress(OSError):
            _refuse_live(file.read_text(), file, folder)


def _lock_file(folder: str | Path, inside: bool = False) -> Path:
    folder = Path(os.path.abspath(folder))  # a link to a folder is moved as such, so it is not followed
    return folder.resolve() / ".lock" if inside else folder.parent.resolve() / f".{folder.name}.lock"


def _is_own(file: Path) -> bool:
    return file in _held and _held[file]["content"]["pid"] == os.getpid()


def _create(file: Path, text: str) -> bool:
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as opened:
        opened.write(text)
    return True


def _remove_stale(file: Path, folder: str | Path) -> None:
    """Remove a lock file whose process has ended, and never one that another process has made in the meantime."""
    try:
        opened = file.open()
    except FileNotFoundError:
        return
    with opened:
        with suppress(OSError):  # some network file systems have no flock
            fcntl.flock(opened, fcntl.LOCK_EX)
        if not file.exists() or not os.path.samestat(os.fstat(opened.fileno()), file.stat()):
            return  # another process was faster
        _refuse_live(opened.read(), file, folder)
        file.unlink(missing_ok=True)


def _refuse_live(text: str, file: Path, folder: str | Path) -> None:
    """Raise an error unless the process that a lock file names is known to have ended."""
    try:
        content = json.loads(text)
        pid, host, started = int(content["pid"]), str(content["host"]), str(content["started"])
        if pid < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise MGCCError(f"{folder}: {file} does not say which run is using it; if none is, remove that file.") from None
    if host != socket.gethostname():
        raise MGCCError(
            f"{folder}: in use by process {pid} on {host}, which cannot be looked up from here; if it has ended, "
            f"remove {file}."
        )
    if pid != os.getpid() and _runs(pid, started):
        raise MGCCError(
            f"{folder}: in use by another run (process {pid}); wait until it has ended, or give another folder."
        )


def _runs(pid: int, started: str) -> bool:
    """Whether a process still runs, and is the one that was started at that time."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    state, now = _state(pid)
    return state not in ("Z", "X") and (not now or not started or now == started)


def _state(pid: int) -> tuple[str, str]:
    """The letter of a process's state and its start in ticks since boot; both empty where /proc does not say."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""


def _release(file: Path) -> None:
    if not _is_own(file):
        return
    entry = _held.pop(file)
    with suppress(OSError, ValueError):
        if json.loads(file.read_text()) == entry["content"]:
            file.unlink()
        if entry["made"]:
            file.parent.rmdir()  # unless there is anything in it


@atexit.register
def _release_all() -> None:
    for file in list(_held):
        _release(file)


def _release_on_sigterm() -> None:
    """Let SIGTERM end a single process by ``SystemExit``, so that locks and temporary files are removed."""
    alone = rank_and_size()[1] == 1 and threading.current_thread() is threading.main_thread()
    if alone and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: Any) -> None:
    if any(_is_own(file) for file in _held):
        raise SystemExit(128 + signum)
    signal.signal(signum, signal.SIG_DFL)  # a worker of the data loader, or nothing is held any more
    os.kill(os.getpid(), signum)
