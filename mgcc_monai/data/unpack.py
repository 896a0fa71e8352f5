"""A dataset that comes as a .zip, as a folder."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mgcc_monai.errors import MGCCError, one_line
from mgcc_monai.files import is_inside

__all__ = ["unpacked"]


@contextmanager
def unpacked(source: Path, beside: Path) -> Iterator[Path]:
    """Give a source as a folder: a .zip is unpacked beside the output for the time of a ``with`` block.

    Raises:
        MGCCError: when it is damaged, or names a path outside its folder.
    """
    if source.suffix.lower() != ".zip" or not source.is_file():
        yield source
        return
    place = next(folder for folder in beside.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{beside.name}.", suffix=".tmp", dir=place) as folder:
        root = Path(folder) / source.stem
        root.mkdir()
        try:
            with zipfile.ZipFile(source) as archive:
                for name in archive.namelist():
                    if not is_inside(root, name):
                        raise MGCCError(f"{source}: {name[:80]} would be unpacked outside its folder; do not trust it")
                for name in archive.namelist():  # after all were looked at
                    archive.extract(name, root)
        except (zipfile.BadZipFile, RuntimeError, zlib.error, EOFError) as error:
            raise MGCCError(f"{source}: cannot be unpacked ({one_line(error)}); download it again") from None
        inner = [path for path in root.iterdir() if path.name != "__MACOSX" and not path.name.startswith(".")]
        yield inner[0] if len(inner) == 1 and inner[0].is_dir() else root
