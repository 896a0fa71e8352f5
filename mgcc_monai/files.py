"""Writing files so that nothing is ever half written."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO

from mgcc_monai.errors import MGCCError, one_line

__all__ = [
    "hash_files",
    "is_inside",
    "set_aside",
    "sha256",
    "try_writable",
    "write_atomically",
    "write_file",
    "write_folder",
    "write_json",
    "write_table",
]


def write_atomically(path: str | Path, write: Callable[[BinaryIO], Any]) -> Path:
    """Write a file so that it is at any moment the whole old one or the whole new one.

    Args:
        path: the file; its folder is made when missing, its permissions are kept.
        write: called with the open temporary file, which lies in the same folder.

    Returns:
        the file.

    Raises:
        MGCCError: when the file cannot be written, as on a full disk.
    """
    path = Path(path)
    temporary = None
    try:
        if path.exists() and not path.is_file():  # a folder; or a device, whose place the file would take
            raise OSError(errno.EEXIST, "is there and is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise MGCCError(f"{path}: cannot be written ({reason}); free space or name another folder.") from None
    return path


def write_folder(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Write a folder so that it is the whole old one or the whole new one, but for the moment between two renames.

    Args:
        path: the folder; one that is there is replaced once the new one is complete.
        write: called with the temporary folder, which lies beside it.

    Returns:
        the folder.

    Raises:
        MGCCError: when it cannot be written, as on a full disk.
    """
    path = Path(path)
    temporary = replaced = None
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        write(temporary)
        for file in [*temporary.rglob("*"), temporary]:
            _sync(file)
        temporary.chmod(0o777 & ~_umask())
        replaced = temporary.with_suffix(".old")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException as error:
        if replaced is not None and replaced.exists() and not path.exists():
            replaced.rename(path)
        for rest in (temporary, replaced):
            if rest is not None:
                shutil.rmtree(rest, ignore_errors=True)
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or error
        raise MGCCError(f"{path}: cannot be written ({reason}); free space or name another folder.") from None
    return path


def write_file(path: str | Path, data: str | bytes) -> Path:
    """Write text, as UTF-8, or bytes; see :func:`write_atomically`."""
    return write_atomically(path, lambda file: file.write(data.encode() if isinstance(data, str) else data))


def write_json(path: str | Path, content: Any) -> Path:
    """Write JSON; see :func:`write_atomically`."""
    return write_file(path, json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: str | Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a CSV in one step; None and NaN become empty cells.

    Args:
        path: the file.
        columns: its columns, in order; a key of a row that is not among them is left out.
        rows: one mapping a line.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for row in rows:
        values = [row.get(column) for column in columns]
        table.writerow(
            ["" if value is None or (isinstance(value, float) and math.isnan(value)) else value for value in values]
        )
    return write_file(path, text.getvalue())


def is_inside(folder: str | Path, path: Any) -> bool:
    """Return whether a path that a file names is relative to a folder and stays in it, wherever links lead.

    Absolute paths, drives, ``..`` and what is no path at all lie outside, on every operating system.
    """
    try:
        parts = PureWindowsPath(path)  # which takes both kinds of slashes, and knows of drives
        plain = parts.name and not parts.anchor and ".." not in parts.parts and "\0" not in path
        return bool(plain) and (Path(folder) / path).resolve().is_relative_to(Path(folder).resolve())
    except (OSError, RuntimeError, TypeError, ValueError):  # too long, a loop of links, no text
        return False


def try_writable(path: str | Path, file: bool = False) -> None:
    """Try whether a folder, or a file, can be written, before any work; nothing is left behind.

    Args:
        path: what will be written; its folders may be missing.
        file: it is a file, written by :func:`write_atomically`; else a folder.

    Raises:
        MGCCError: when it cannot.
    """
    path, probe = Path(path).absolute(), None
    try:
        wanted = path.parent if file else path
        there = next(folder for folder in (wanted, *wanted.parents) if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, where a folder is needed", str(there))
        if file and path.exists() and not path.is_file():
            raise OSError(errno.EEXIST, "is there and is no regular file", str(path))
        below = [*wanted.relative_to(there).parts, *([path.name] if file else [])]
        prefix, suffix = (f".{below[0]}.", ".partial") if below else (".try.", ".tmp")
        probe = tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=there)  # as long a name as any that will be made
        Path(probe, *below[1:-1], *(f".{name}.12345678.tmp" for name in below[1:][-1:])).mkdir(
            parents=True, exist_ok=True
        )
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        reason = getattr(error, "strerror", None) or one_line(error)
        place = getattr(error, "filename", None)
        where = f"; {place}" if isinstance(error, NotADirectoryError) and place != str(path) else ""
        raise MGCCError(f"{path}: cannot be written ({reason}{where}); name another place for the output.") from None
    finally:
        if probe is not None:
            shutil.rmtree(probe, ignore_errors=True)


def set_aside(path: str | Path) -> Path | None:
    """Move a file, or a folder that holds anything, to ``<path>.previous-N``, so that nothing in it is lost.

    Returns:
        where it lies now; None where there was nothing to move.

    Raises:
        MGCCError: when it cannot be moved, as in a folder that may not be written to.
    """
    path = Path(path)
    try:
        if not path.is_file() and (not path.is_dir() or not any(path.iterdir())):
            return None
        number = 1
        while (previous := path.with_name(f"{path.name}.previous-{number}")).exists():
            number += 1
        return path.rename(previous)
    except OSError as error:
        raise MGCCError(f"{path}: cannot be moved aside ({error.strerror}); move it, or name another folder.") from None


def sha256(path: str | Path) -> str:
    """Return the sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hash_files(paths: Iterable[str | Path]) -> str:
    """Return the sha256 over those of files, in order."""
    return hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
