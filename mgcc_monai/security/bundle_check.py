"""``check-bundle``: what a bundle would run, found by reading it; nothing of it is evaluated, imported or loaded.

A bundle that passes names only what is on our list. It is no proof that the bundle does no harm: it may still write
files where its options say, or fill the memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import mgcc_monai
from mgcc_monai.errors import MGCCError, plain_os_errors, raise_faults
from mgcc_monai.files import sha256
from mgcc_monai.security.archives import extract_safe
from mgcc_monai.security.configs import config_faults, file_faults, logging_faults
from mgcc_monai.security.tensors import pickle_faults, safetensors_faults
from mgcc_monai.security.weights import LISTING, read_listing

__all__ = ["Finding", "check_bundle", "check_definition"]

_CONFIGS = (".json", ".yaml", ".yml")
_LOGGING = (".cfg", ".conf", ".ini")
_PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".ts")
_CODE = (".bat", ".dll", ".dylib", ".exe", ".ipynb", ".ps1", ".py", ".pyc", ".pyd", ".pyo", ".pyw", ".sh", ".so")
_STARTS = {b"\x7fELF": "a program", b"MZ": "a program", b"#!": "a script", b"PK\x03\x04": "an archive in the bundle"}
_LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
_MAX_FILES = 20_000


@dataclass(frozen=True)
class Finding:
    """One thing that is not allowed.

    Args:
        file: the file, relative to the bundle.
        place: where in it, such as the key's path; empty for the whole file.
        what: what is there and why it is not allowed.
    """

    file: str
    place: str
    what: str

    def __str__(self) -> str:
        line = f"{self.file}: {self.place + ': ' if self.place else ''}{self.what}"
        return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)


@plain_os_errors()
def check_bundle(path: str | Path) -> list[Finding]:
    """Find every ``_target_``, expression, file of code and file of weights of a bundle that is not on our list.

    Args:
        path: the bundle's folder, or a zip of it, which is unpacked to a temporary folder, member by member.

    Returns:
        The findings, by file; none when there is nothing to tell.

    Raises:
        MGCCError: when there is no such folder or zip.
    """
    path = Path(path)
    if path.is_dir():
        return sorted(_folder(path), key=lambda finding: finding.file)
    if not path.is_file():
        raise MGCCError(f"{path}: there is no such bundle; give its folder or its zip.")
    with tempfile.TemporaryDirectory(prefix="mgcc_check_") as scratch:
        folder = Path(scratch) / "bundle"
        refused = [Finding(name or path.name, "", fault) for name, fault in extract_safe(path, folder)]
        return refused + (sorted(_folder(folder), key=lambda finding: finding.file) if folder.is_dir() else [])


def check_definition(definition: Any, where: str) -> None:
    """Refuse the description of a component that names anything that is not on our list; it comes with weights.

    Args:
        definition: such as a ``network_def``.
        where: the file or setting that it is from, for the message.

    Raises:
        MGCCError: lists every fault.
    """
    faults = [
        str(Finding(where, place, f"{fault}; use settings that a training of yours wrote."))
        for place, fault in config_faults(definition)
    ]
    raise_faults(faults, where)


def _folder(root: Path) -> Iterator[Finding]:
    count, unread = 0, []
    for folder, folders, files in os.walk(root, onerror=unread.append):
        for name in sorted(folders + files):
            path = Path(folder) / name
            count += 1
            if path.is_symlink():
                yield Finding(path.relative_to(root).as_posix(), "", "is a link; what it leads to is not looked into")
            elif name in files:
                yield from _file(root, path)
        if count > _MAX_FILES:
            yield Finding(".", "", f"has more than the {_MAX_FILES} files that are looked into")
            return
    for error in unread:
        yield Finding(Path(error.filename).relative_to(root).as_posix(), "", f"cannot be read ({error.strerror})")
    if count == 0 and not unread:
        yield Finding(".", "", "is empty")


def _file(root: Path, path: Path) -> Iterator[Finding]:
    """Judge a file by its suffix, or, where that says nothing, by its first bytes."""
    name, suffix = path.relative_to(root).as_posix(), path.suffix.lower()
    if not path.is_file():
        yield Finding(name, "", "is no plain file")
        return
    try:
        faults = list(_faults(path, suffix))
    except OSError as error:
        faults = [("", f"cannot be read ({error.strerror})")]
    if suffix in _CODE and not _is_ours(path):
        faults.append(("", "is code, which a `_target_`, an import, or Python itself can find and run"))
    yield from (Finding(name, place, what) for place, what in faults)


def _faults(path: Path, suffix: str) -> Iterator[tuple[str, str]]:
    if path.name == LISTING:
        yield from _listing_faults(path)
    elif path.name in _LARGE_FILES:
        yield from file_faults(path)
        yield from _download_faults(path)
    elif suffix in _CONFIGS:
        yield from file_faults(path)
    elif suffix in _LOGGING:
        yield from logging_faults(path)
    elif suffix in _PICKLES:
        yield from pickle_faults(path)
    elif suffix == ".safetensors":
        yield from safetensors_faults(path)
        listing = path.with_name(LISTING)
        if listing.is_file() and path.name not in _listed(listing):
            yield "", f"is not in {LISTING}, so nobody can tell whether it is the file that was published"
    elif suffix not in _CODE:
        with path.open("rb") as file:
            head = file.read(4)
        if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
            yield from pickle_faults(path)
        for start, kind in _STARTS.items():
            if head.startswith(start):
                yield "", f"is {kind}, which is not looked into"


def _is_ours(path: Path) -> bool:
    """Whether a file of code is one of this package, unchanged; a packaged bundle carries the package along."""
    if "mgcc_monai" not in path.parts or path.suffix != ".py":
        return False
    last = len(path.parts) - 1 - path.parts[::-1].index("mgcc_monai")
    installed = Path(mgcc_monai.__file__).parent.joinpath(*path.parts[last + 1 :])
    return installed.is_file() and sha256(installed) == sha256(path)


def _listed(listing: Path) -> dict[str, str]:
    try:
        return read_listing(listing)
    except MGCCError:
        return {}


def _listing_faults(listing: Path) -> Iterator[tuple[str, str]]:
    try:
        content = read_listing(listing)
    except MGCCError as error:
        yield "", error.message.removeprefix(f"{listing}: ")
        return
    for name, expected in content.items():
        file = listing.with_name(name)
        if not file.is_file():
            yield name, "is listed and not there"
        elif sha256(file) != expected:
            yield name, "has another sha256 than the listing says: it is damaged or another file"


def _download_faults(path: Path) -> Iterator[tuple[str, str]]:
    """Each large file must stay in the bundle and have a sha256, by which MONAI checks what it downloads."""
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["large_files"]
        for index, entry in enumerate(entries):
            place, target = f"large_files#{index}", Path(str(entry.get("path", "")))
            if target.is_absolute() or ".." in target.parts:
                yield place, f"'{target}' lies outside the bundle"
            if entry.get("hash_type") != "sha256" or len(str(entry.get("hash_val", ""))) != 64:
                yield place, "has no sha256, so whatever is downloaded would be taken"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        yield "", f"lists no large files that can be read ({type(error).__name__})"
