"""``manifest.jsonl``: what was generated, and what of it may be used; a line of JSON an image.

A line has ``image`` (its path relative to the file), ``index``, ``seed``, ``class`` (empty where the model knows none),
``model`` (the pipeline's fingerprint), ``sha256`` (of the pixels, as in ``dataset.json``), ``scores`` (numbers by name,
null where one is not finite), ``decision`` (keep, drop or pending) and ``reason``. While images are made, each process
appends to a part of its own, ``manifest.rank0.jsonl``; :func:`merge` makes them one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mgcc_monai.errors import MGCCError, one_line, plain_os_errors, raise_errors
from mgcc_monai.files import is_inside, write_file

__all__ = ["DECISIONS", "FILE_NAME", "append", "kept_images", "merge", "parts", "read", "write"]

FILE_NAME = "manifest.jsonl"
DECISIONS = ("keep", "drop", "pending")

_TYPES = {
    **dict.fromkeys(("image", "class", "model", "sha256", "decision", "reason"), str),
    **dict.fromkeys(("index", "seed"), int),
    "scores": dict,
}
_AGAIN = "run 'generating' again"


def read(folder: str | Path, check_images: bool = True) -> list[dict[str, Any]]:
    """Read and check the manifest of a folder.

    Args:
        folder: the folder of generated images.
        check_images: whether an image that is missing is a fault.

    Returns:
        the lines, by index.

    Raises:
        MGCCError: when there is no manifest, or lines are damaged, name an image twice or one that is missing or lies
            outside the folder. All faults are told, with their lines.
    """
    file = Path(folder) / FILE_NAME
    if not file.is_file():
        raise MGCCError(f"{file}: there is no such file; {_AGAIN}.")
    rows, faults = _parse(file)
    seen: dict[Any, int] = {}
    for number, row in rows:
        for key in ("index", "image"):
            if seen.setdefault((key, row[key]), number) != number:
                faults.append(f"{file}, line {number}: {key} {row[key]} stands in line {seen[key, row[key]]} too")
        if check_images and not (file.parent / row["image"]).is_file():
            faults.append(f"{file}, line {number}: {row['image']} is missing; {_AGAIN}")
    raise_errors(faults, str(file))
    return _sorted(row for _, row in rows)


def write(folder: str | Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write the manifest in one step, by index.

    Raises:
        MGCCError: when it cannot be written, as on a full disk.
    """
    return write_file(Path(folder) / FILE_NAME, "".join(map(_line, _sorted(rows))))


def append(folder: str | Path, rows: Iterable[Mapping[str, Any]], rank: int = 0) -> Path:
    """Append lines to the part of one process, so that they outlast the process.

    Raises:
        MGCCError: when they cannot be written, as on a full disk.
    """
    part = Path(folder) / f"manifest.rank{rank}.jsonl"
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("a", encoding="utf-8") as file:
            file.write("".join(map(_line, rows)))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = error.strerror or error
        raise MGCCError(f"{part}: cannot be written ({reason}); free space and give the same command again.") from None
    return part


def parts(folder: str | Path) -> list[Path]:
    """Return the parts that no :func:`merge` has taken up: those of a generation that runs or was stopped."""
    found = [(re.fullmatch(r"manifest\.rank(\d+)\.jsonl", path.name), path) for path in Path(folder).glob("manifest.*")]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if match)]


def merge(folder: str | Path, indices: Iterable[int] | None = None) -> list[dict[str, Any]]:
    """Take the parts of all processes up into the manifest and remove them; one process does it, after all wrote.

    Of lines for the same image the last counts; parts come after the manifest. A part's last line may have been cut
    off when its process was stopped; it is left out.

    Args:
        folder: the folder of generated images.
        indices: the images to keep in the manifest; None keeps all.

    Returns:
        the lines, by index.

    Raises:
        MGCCError: when a line is damaged, or the manifest cannot be written.
    """
    rows = read(folder, check_images=False) if (Path(folder) / FILE_NAME).is_file() else []
    found = parts(folder)
    for part in found:
        lines, faults = _parse(part, cut_off=True)
        raise_errors(faults, str(part))
        rows += [row for _, row in lines]
    merged = {row["index"]: row for row in rows}
    if indices is not None:
        merged = {index: merged[index] for index in indices if index in merged}
    write(folder, merged.values())
    for part in found:
        part.unlink()
    return _sorted(merged.values())


@plain_os_errors()
def kept_images(folder: str | Path, datalist: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """Return the generated images that stage 2 may train on.

    Args:
        folder: the folder of generated images; it may be missing.
        datalist: the dataset at hand, which must be the one that the model learned from.

    Returns:
        items with ``image`` (absolute path), ``class`` and ``source``, by index; none where nothing was generated.

    Raises:
        MGCCError: when the generation was stopped, images were not judged, or the dataset is another.
    """
    folder = Path(os.path.abspath(folder))
    if parts(folder):
        raise MGCCError(f"{folder}: the generation was stopped before its end; {_AGAIN} to go on with it.")
    if not (folder / FILE_NAME).is_file():
        return []
    rows = read(folder)
    if pending := sum(row["decision"] == "pending" for row in rows):
        raise MGCCError(f"{folder}: {pending} of {len(rows)} images were not judged; {_AGAIN} to its end.")
    if datalist is not None:
        records = [path for path in (folder / "run.json", folder / "generation.json") if path.is_file()]
        if not records or any(_dataset_hash(path) != datalist["hash"] for path in records):
            raise MGCCError(
                f"{folder}: the images are of a model that learned from another dataset, or another split of it, than "
                f"the one at hand ({datalist['hash'][:12]}); give that dataset, or train and generate anew."
            )
    return [
        {"image": os.path.join(folder, row["image"]), "class": row["class"], "source": "synthetic"}
        for row in rows
        if row["decision"] == "keep"
    ]


def _dataset_hash(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("dataset_hash")
    except (ValueError, AttributeError) as error:
        raise MGCCError(f"{file}: not valid JSON ({one_line(error)}); {_AGAIN}.") from None


def _line(row: Mapping[str, Any]) -> str:
    scores = {name: None if value is None else float(value) for name, value in row["scores"].items()}
    scores = {name: value if _is_number(value) else None for name, value in scores.items()}
    return json.dumps({**row, "scores": scores}, ensure_ascii=False, allow_nan=False) + "\n"


def _sorted(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return sorted(map(dict, rows), key=lambda row: row["index"])


def _parse(file: Path, cut_off: bool = False) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """Lines with their numbers, and the faults; a last line without its end is left out if it may be ``cut_off``."""
    rows, faults = [], []
    for number, line in enumerate(file.read_bytes().splitlines(keepends=True), start=1):
        if cut_off and not line.endswith(b"\n"):
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # also of bytes that are not UTF-8
            faults.append(f"{file}, line {number}: not valid JSON ({one_line(error)}); {_AGAIN}")
            continue
        found = _faults(row, file.parent)
        faults += [f"{file}, line {number}: {fault}; {_AGAIN}" for fault in found]
        if not found:
            rows.append((number, row))
    return rows, faults


def _faults(row: Any, folder: Path) -> list[str]:
    """What is wrong with one line."""
    if not isinstance(row, dict):
        return ["is no object"]
    if missing := [key for key in _TYPES if key not in row]:
        return [f"lacks {', '.join(missing)}"]
    if wrong := [key for key, kind in _TYPES.items() if not isinstance(row[key], kind) or isinstance(row[key], bool)]:
        return [f"{key} is {row[key]!r}" for key in wrong]
    faults = [f"{key} is {row[key]}" for key in ("index", "seed") if row[key] < 0]
    if row["decision"] not in DECISIONS:
        faults.append(f"decision is '{row['decision']}', not {', '.join(DECISIONS[:-1])} or {DECISIONS[-1]}")
    if not re.fullmatch("[0-9a-f]{64}", row["sha256"]):
        faults.append(f"sha256 is '{row['sha256']}', not 64 hex digits")
    if not all(value is None or _is_number(value) for value in row["scores"].values()):
        faults.append(f"scores are not numbers: {row['scores']}")
    if not is_inside(folder, row["image"]):
        faults.append(f"{row['image']!r} lies outside the folder")
    return faults


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
