"""What an inference would write, against what an earlier one left in the same folder."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from mgcc_monai.data.formats.frames import image_stem, is_image, suffix
from mgcc_monai.data.layouts.folders import read_table
from mgcc_monai.errors import MGCCError
from mgcc_monai.parse import parse_bool

__all__ = ["check_leftovers"]

_TABLE = "lesions.csv"
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".nii", ".nii.gz")


def _beside(stem: str, mask: Path, folder: Path) -> tuple[Path, Path]:
    """The files of probabilities and overlay that go with a mask."""
    return mask.with_name(f"{stem}_prob{suffix(mask) or mask.suffix}"), folder / f"{stem}_overlay.png"


def _present(folder: Path, listed: set[Path]) -> list[Path]:
    """Files of a table, and images, in a folder and in those folders in it that have their images' name."""
    inner = [path for path in folder.glob("[!.]*") if path.is_dir() and not path.is_symlink()]
    files = [*folder.glob("[!.]*"), *(file for path in inner for file in path.glob(f"{escape(path.name)}*"))]
    return sorted(path for path in files if not path.is_dir() and (path in listed or is_image(path)))


def _earlier(folder: Path) -> tuple[set[str], set[Path]]:
    """The images of an earlier run's table, and the files that it may have written for them."""
    if not (folder / _TABLE).exists():
        return set(), set()
    rows, faults = read_table(folder / _TABLE, ("image", "mask"))
    if faults:
        raise MGCCError(f"{folder / _TABLE}: not a table that an inference wrote; give another --output_dir.")
    files: set[Path] = set()
    for row in rows:
        mask = folder / row["mask"]
        files |= {mask, *_beside(image_stem(row["image"]), mask, folder)}
    return {row["image"] for row in rows}, files


def check_leftovers(
    paths: Sequence[str],
    output_dir: str,
    output_ext: str,
    output_postfix: str = "",
    separate_folder: Any = False,
    save_prob: Any = False,
    save_overlay: Any = False,
    overwrite: Any = False,
) -> None:
    """Check that no file of an earlier run would stay among those of this one; remove those that would, if asked to.

    Files that this run writes again are left to it. Removed is only what the table of the earlier run names, and what
    goes with the images of this run.

    Args:
        paths: the images.
        output_dir: the folder that the masks go to.
        output_ext: suffix of the masks and of the probabilities; JPEG would change them.
        output_postfix: put behind the image's name.
        separate_folder: whether each mask has a folder of its own.
        save_prob: whether probabilities are written.
        save_overlay: whether pictures are written.
        overwrite: remove what would stay.

    Raises:
        MGCCError: when files would stay, two files of this run have one name, or ``output_ext`` is of another kind.
    """
    separate_folder = parse_bool(separate_folder, "separate_folder")
    wanted = parse_bool(save_prob, "save_prob"), parse_bool(save_overlay, "save_overlay")
    overwrite, folder = parse_bool(overwrite, "overwrite"), Path(output_dir)
    output_ext = "." + str(output_ext).lstrip(".")
    if output_ext.lower() not in _SUFFIXES:
        raise MGCCError(f"--output_ext {output_ext}: keeps no mask as it is; give one of {', '.join(_SUFFIXES)}.")
    end = (f"_{output_postfix}" if output_postfix else "") + output_ext
    files: list[Path] = []
    ours: set[Path] = set()
    for stem in map(image_stem, paths):
        mask = (folder / stem if separate_folder else folder) / f"{stem}{end}"
        beside = _beside(stem, mask, folder)
        files += [mask, *(file for file, write in zip(beside, wanted, strict=True) if write)]
        ours |= {mask, *beside}
    if len(set(files)) < len(files):
        raise MGCCError(
            f"--output_postfix {output_postfix}: gives masks the names of probabilities or overlays; give another."
        )
    images, listed = _earlier(folder)
    stale = [path for path in _present(folder, listed) if path not in set(files)]
    if foreign := [path for path in stale if path not in listed | ours]:
        raise MGCCError(
            f"--output_dir {output_dir}: holds images that no {_TABLE} lists, as an interrupted run leaves them "
            f"({foreign[0].name}, {len(foreign)} in all); move them away or give another folder."
        )
    names = [path.name for path in stale] + ([_TABLE] if images - {Path(path).name for path in paths} else [])
    if names and not overwrite:
        raise MGCCError(
            f"--output_dir {output_dir}: holds files of an earlier run that this one would not write again "
            f"({names[0]}, {len(names)} in all); give another folder, or --overwrite true to remove them."
        )
    for path in stale:
        try:
            path.unlink()
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()
        except OSError as error:
            raise MGCCError(f"{path}: cannot be removed ({error.strerror}); remove it yourself.") from None
