"""The checks that the Model Zoo makes of a bundle, offline, each with what is wrong and what to do."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.files import is_inside
from mgcc_monai.interop.zoo_checks import CHECKS, NEEDED, Found

__all__ = ["Finding", "doctor"]


class Finding(NamedTuple):
    """One thing that is wrong: the check, where, what, and how to mend it."""

    check: str
    where: str
    what: str
    cure: str

    @property
    def line(self) -> str:
        """One line."""
        return f"{self.check}: {self.where}: {self.what}; {self.cure}"


def doctor(path: str) -> list[Finding]:
    """Check a bundle as the Model Zoo's CI does; nothing is downloaded, and nothing in it is changed.

    Its networks are built, which runs the code that its configs name: check bundles of people you trust.

    Args:
        path: the bundle's folder, or its zip.

    Returns:
        What was found, in the order of ``CHECKS``. Of a missing file that every bundle has, one check tells.

    Raises:
        MGCCError: when there is no such folder or zip.
    """
    with _folder(Path(path)) as root:
        if not (root / "configs").is_dir():
            raise MGCCError(f"{path}: there is no configs/ in it; give a bundle's folder or zip.")
        with _importing(root):
            return [Finding(name, *found) for name, check in CHECKS.items() for found in _run(check, root)]


def _run(check: Callable[[Path], Found], root: Path) -> list[tuple[str, str, str]]:
    """Run a check; what it cannot do for a file that is missing or no JSON is a finding of its own."""
    try:
        return list(check(root))
    except (FileNotFoundError, RuntimeError) as raised:
        error = raised.__cause__ or raised  # an expression of a config raises a RuntimeError from its own
        if not isinstance(error, FileNotFoundError):
            raise
        missing = Path(str(error.filename or ""))
        if missing in {root / name for name in NEEDED}:  # which the checks of files tell
            return []
        return [(str(missing), f"missing ({one_line(error)})", "add it, or do not name it")]
    except (ValueError, UnicodeDecodeError) as error:
        return [("configs", f"cannot be read ({one_line(error)})", "correct it")]


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield path.absolute()
        return
    if not zipfile.is_zipfile(path):
        raise MGCCError(f"{path}: is neither a folder nor a zip; give a bundle.")
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        if outside := [name for name in archive.namelist() if not is_inside(folder, name)]:
            raise MGCCError(f"{path}: names {outside[0]}, which lies outside of it; do not use it.")
        for name in archive.namelist():
            archive.extract(name, folder)
        roots = [entry for entry in Path(folder).iterdir() if entry.is_dir()]
        yield roots[0] if len(roots) == 1 else Path(folder)


@contextmanager
def _importing(root: Path) -> Iterator[None]:
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
