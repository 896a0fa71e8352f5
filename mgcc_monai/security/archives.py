"""Unpacking a zip so that nothing of it lands outside its folder, and no small file becomes a huge one."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from mgcc_monai.errors import MGCCError, one_line, raise_faults

__all__ = ["MAX_MEMBERS", "MAX_RATIO", "MAX_TOTAL", "archive_faults", "extract", "extract_safe"]

MAX_MEMBERS = 10_000
"""Files and folders of an archive."""

MAX_TOTAL = 8 * 1024**3
"""Bytes of all members of an archive together, unpacked."""

MAX_RATIO = 200
"""Times that a member of more than a million bytes may grow; text grows some 10 times, weights not at all."""

_BLOCK = 1 << 20


def _name_fault(name: str) -> str:
    """Say why a member's name could lead out of the folder, or mean another file elsewhere."""
    parts = PureWindowsPath(name)  # which takes both kinds of slashes, and knows of drives
    if not name or parts.anchor or name.startswith("/") or ":" in name:
        return "has an absolute path"
    if ".." in parts.parts:
        return "has a path that leads out of the folder"
    if "\\" in name or not name.isprintable():
        return "has a name with a backslash or with characters that cannot be seen"
    return ""


def _member_fault(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if fault := _name_fault(member.filename):
        return fault
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is no plain file"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.file_size > max(_BLOCK, MAX_RATIO * member.compress_size):
        return f"grows from {member.compress_size} to {member.file_size} bytes"
    return ""


def _open(path: str | Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise MGCCError(f"{path}: cannot be read as a zip ({one_line(error)}); copy or download it again.") from None


def _faults(members: Sequence[zipfile.ZipInfo]) -> list[tuple[str, str]]:
    if len(members) > MAX_MEMBERS:
        return [("", f"has {len(members)} members, more than the {MAX_MEMBERS} that are unpacked")]
    total = sum(member.file_size for member in members)
    if total > MAX_TOTAL:
        return [("", f"unpacks to {total} bytes, more than the {MAX_TOTAL} that are unpacked")]
    faults, seen = [], set()
    for member in members:
        name = str(PurePosixPath(member.filename)).casefold()
        fault = _member_fault(member) or ("stands in the archive twice" if name in seen else "")
        seen.add(name)
        faults += [(member.filename, fault)] if fault else []
    return faults


def archive_faults(path: str | Path) -> list[tuple[str, str]]:
    """Find what in a zip must not be unpacked; nothing is written.

    Args:
        path: the zip.

    Returns:
        Pairs of the member's name (empty for the whole archive) and what is wrong.

    Raises:
        MGCCError: when it is no zip.
    """
    with _open(path) as archive:
        return _faults(archive.infolist())


def extract_safe(path: str | Path, folder: str | Path) -> list[tuple[str, str]]:
    """Unpack those members of a zip that may be, and return the others; see :func:`extract`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MGCCError(f"{folder}: is there already; unpack into a new folder.")
    with _open(path) as archive:
        members = archive.infolist()
        faults = _faults(members)
        if any(not name for name, _ in faults):
            return faults
        refused = {name for name, _ in faults}
        folder.mkdir(parents=True, exist_ok=True)
        for member in members:
            if member.filename not in refused:
                try:
                    _write(archive, member, folder / member.filename)
                except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
                    faults.append((member.filename, f"cannot be unpacked ({' '.join(str(error).split())[:120]})"))
    return faults


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a plain file: no links, no owner, no permissions; never over another."""
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        left = member.file_size
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise ValueError("it is larger than it says")
            file.write(block)


def extract(path: str | Path, folder: str | Path) -> Path:
    """Unpack a zip, all of it or nothing.

    Args:
        path: the zip.
        folder: a new or empty folder.

    Returns:
        the folder.

    Raises:
        MGCCError: when it is no zip, the folder is not empty, or a member would leave the folder, is a link, is
            encrypted, stands there twice or is far larger than its share of the archive. All faults are told.
    """
    raise_faults([f"{path}: {name or 'the archive'} {fault}; do not use it." for name, fault in archive_faults(path)])
    faults = extract_safe(path, folder)
    raise_faults([f"{path}: {name or 'the archive'} {fault}; download it again." for name, fault in faults])
    return Path(folder)
